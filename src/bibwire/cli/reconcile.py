"""`bibwire reconcile`: find what deltas cannot see, and mend it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bibwire.cli.options import JsonOption, PartnerOption, RaceOption

if TYPE_CHECKING:
    from bibwire.engine.reconcile import ReconcileReport
    from bibwire.runtime import Runtime


def add_to(app: typer.Typer) -> None:
    app.command()(reconcile)


def reconcile(
    partner: PartnerOption = None,
    race: RaceOption = None,
    counts_only: Annotated[
        bool,
        typer.Option(
            "--counts-only", help="List only the races whose counts differ: one call for the others."
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """
    List every loaded race in full, compare it with the mirror, and mend what differs.

    It finds edits that do not move RunSignup's dates, and registrations that vanished without a trace.
    Exit code 3: some races could not be reconciled, or something could not be decided.
    """
    from bibwire.cli import failures
    from bibwire.cli.progress import sync_progress
    from bibwire.cli.session import read_settings, work
    from bibwire.cli.sync import Patience
    from bibwire.cli.terminal import complain, print_json

    idle: str | None = None

    async def do(runtime: Runtime) -> ReconcileReport:
        nonlocal idle
        from bibwire.engine.reconcile import ReconcileRequest

        runtime.on_wait = Patience(no_wait=False).wait
        request = ReconcileRequest(partner=partner, race_id=race, counts_only=counts_only)
        idle = await failures.nobody(runtime, partner)
        with sync_progress() as watch:
            return await runtime.reconcile(request, failures.with_trouble(watch))

    report = work(do, read_settings(summary=True), make=False, repeat=True)
    if json:
        print_json(report.as_json())
    else:
        show(report)
    if not report.partners:
        failures.tell_nobody(idle)
    if report.errors:
        complain(failures.sentence(report.errors, "not everything could be reconciled", "Run it again then."))
    raise typer.Exit(report.exit_code)


def show(report: ReconcileReport) -> None:
    """Print what reconciliations came to."""
    from bibwire.cli import notes
    from bibwire.cli.terminal import Column, console, counted, fitted, plain

    out = console()
    if not report.partners:
        return
    told = [event for event in report.events if event["verdict"] != "same"]
    if told:
        columns = (
            Column("partner", flexible=True),
            Column("race", flexible=True),
            Column("event", right=True),
            Column("counted", right=True, spare=2),
            Column("listed", right=True, spare=1),
            Column("differing", right=True),
            Column("missing", right=True),
            Column("extra", right=True),
            Column("repaired", right=True),
            Column("fields", flexible=True),
        )
        rows = [
            (
                (
                    event["partner"],
                    f"{event['race_id']} {event['race']}",
                    str(event["event_id"]),
                    event["counted"],
                    event["listed"],
                    event["differing"],
                    event["missing"],
                    event["extra"],
                    event["repaired"],
                    ", ".join(f"{name} {number}" for name, number in sorted(event["fields"].items())),
                ),
                "red" if event["verdict"] == "open" else "yellow",
            )
            for event in told
        ]
        fitted(out, "Drift", columns, rows)
        for note in dict.fromkeys(event["note"] for event in told if event["note"]):
            out.print(f"Open: {plain(note)}", style="red")
    out.print(
        f"{counted(report.races_reconciled, 'race')} listed with {report.total('listed'):,} registrations: "
        f"{report.total('same'):,} same, {report.total('differing'):,} differing, "
        f"{report.total('missing'):,} missing, {report.total('extra'):,} extra, "
        f"{report.total('repaired'):,} repaired; {report.total('meanwhile'):,} changed meanwhile."
    )
    if report.teams:
        new, changed, missing, listed = (
            sum(race[name] for race in report.teams) for name in ("new", "changed", "missing", "listed")
        )
        out.print(
            f"Teams of {counted(len(report.teams), 'race')}: {listed:,} listed, {new:,} new, "
            f"{changed:,} changed, {missing:,} missing."
        )
    if report.races_same_by_count:
        out.print(f"{counted(report.races_same_by_count, 'race')} not listed: their counts agree.")
    if report.not_loaded:
        out.print(f"{counted(report.not_loaded, 'race')} not loaded yet: run bibwire sync first.")
    out.print(f"{counted(report.calls, 'call')} in {report.seconds:,.1f} s. Table: bibwire.reconciliations.")
    notes.show(out, report.notes)
