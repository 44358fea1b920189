"""`bibwire sync`: make the mirror equal to RunSignup, now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bibwire.cli.options import JsonOption, PartnerOption, RaceOption

if TYPE_CHECKING:
    from bibwire.engine.reports import SyncReport
    from bibwire.runtime import Runtime


def add_to(app: typer.Typer) -> None:
    app.command()(sync)


def sync(
    partner: PartnerOption = None,
    race: RaceOption = None,
    full: Annotated[
        bool, typer.Option("--full", help="List everybody again, and find who is missing.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Fetch what changed, for all partners; a race not loaded before is loaded in full."""
    from bibwire.cli.progress import sync_progress
    from bibwire.cli.session import work
    from bibwire.cli.terminal import complain, print_json

    async def do(runtime: Runtime) -> SyncReport:
        from bibwire.engine.reports import SyncRequest

        request = SyncRequest(partner=partner, race_id=race, full=full)
        with sync_progress() as watch:
            return await runtime.engine.sync(request, watch=watch)

    report = work(do)
    if json:
        print_json(report.as_json())
    else:
        show(report)
    if report.errors:
        first, all_failed = report.errors[0], report.exit_code == 1
        more = f" (and {len(report.errors) - 1:,} more)" if len(report.errors) > 1 else ""
        where = first.partner if first.race_id is None else f"{first.partner}, race {first.race_id}"
        done = "nothing could be synced" if all_failed else "only a part could be synced"
        complain(f"{done}: {where}: {first.error}{more}. The next sync tries again.")
    raise typer.Exit(report.exit_code)


def show(report: SyncReport) -> None:
    """Print what a sync did."""
    from bibwire.cli.terminal import console, plain, row, table

    out = console()
    if not report.partners:
        out.print("No partner is active. Add one with: bibwire partner add NAME --api-key KEY")
        return
    people, bibs = report.participants, report.bibs
    rate = (people.inserted + people.updated + people.unchanged) / max(report.seconds, 0.001)
    done = table("", "people", "", "bibs", " ", right=("", " "))
    left = [
        ("inserted", people.inserted),
        ("updated", people.updated),
        ("unchanged", people.unchanged),
        ("removed", people.removed),
        ("restored", people.restored),
        ("quarantined", people.quarantined),
    ]
    right = [("assigned", bibs.assigned), ("changed", bibs.changed), ("cleared", bibs.cleared)]
    for index, (name, count) in enumerate(left):
        row(done, (name, count, *(right[index] if index < len(right) else ("", ""))))
    out.print(done)
    out.print(
        f"{report.partners:,} partners, {report.races:,} races, {report.events:,} events in "
        f"{report.seconds:.1f} s with {report.calls:,} calls ({rate:,.0f} people/s)."
    )
    if people.quarantined:
        out.print("Records that cannot be stored are kept with their reason: bibwire status.")
    for note in report.notes:
        out.print(f"Note: {plain(note)}")
    if report.errors:
        failed = table(
            f"Failed ({len(report.errors):,}); tried again by the next sync", "partner", "race", "why"
        )
        for error in report.errors:
            race = "(all)" if error.race_id is None else str(error.race_id)
            row(failed, (error.partner, race, error.error), style="red")
        out.print(failed)
