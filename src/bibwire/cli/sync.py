"""`bibwire sync`: make the mirror equal to RunSignup, now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bibwire.cli.options import JsonOption, PartnerOption, RaceOption

if TYPE_CHECKING:
    from bibwire.engine.reports import SyncReport
    from bibwire.runtime import Runtime
    from bibwire.store.permits import Refusal
    from bibwire.store.reports import Loaded

PARTLY = 3
# A shorter wait is over before it is read about.
WORTH_TELLING_SECONDS = 3.0


def add_to(app: typer.Typer) -> None:
    app.command()(sync)


def sync(
    partner: PartnerOption = None,
    race: RaceOption = None,
    full: Annotated[
        bool, typer.Option("--full", help="List everybody again, and find who is missing.")
    ] = False,
    no_wait: Annotated[
        bool,
        typer.Option("--no-wait", help="Where the hour's calls are used up, leave the rest: exit code 3."),
    ] = False,
    json: JsonOption = False,
) -> None:
    """
    Fetch what changed, for all partners; a race not loaded before is loaded in full.

    Kept are races with an event that is still to come or ended within 7 days.
    """
    from bibwire.cli import failures
    from bibwire.cli.progress import sync_progress
    from bibwire.cli.session import read_settings, work
    from bibwire.cli.terminal import complain, print_json

    idle: str | None = None
    patience = Patience(no_wait)

    async def do(runtime: Runtime) -> tuple[SyncReport, Loaded]:
        from bibwire.engine.reports import SyncRequest

        runtime.on_wait = patience.wait
        await runtime.check_access()
        request = SyncRequest(partner=partner, race_id=race, full=full)
        nonlocal idle
        idle = await failures.nobody(runtime, partner)
        heads = await runtime.reports.heads()
        with sync_progress() as watch:
            report = await runtime.engine.sync(request, watch=failures.with_trouble(watch))
        if race is None:
            report.notes += await not_mirrored(runtime, partner)
        return report, await runtime.reports.loaded_since(heads)

    report, loaded = work(do, read_settings(summary=True), make=False, repeat=True)
    if json:
        print_json(report.as_json())
    else:
        show(report, loaded)
    if not report.partners:
        failures.tell_nobody(idle)
    if report.errors:
        done = "nothing could be synced" if report.exit_code == 1 else "only a part could be synced"
        complain(failures.sentence(report.errors, done, "The next sync tries again."))
    # What was left for later has not failed.
    raise typer.Exit(PARTLY if patience.left and report.exit_code == 1 else report.exit_code)


class Patience:
    """Tells once for each partner that its calls are used up; with `no_wait`, ends the wait."""

    def __init__(self, no_wait: bool) -> None:
        self._no_wait = no_wait
        self._told: set[str] = set()
        self.left = False

    def wait(self, partner: str, refusal: Refusal) -> None:
        """Say until when is waited, or raise BudgetSpent."""
        from datetime import UTC, datetime, timedelta

        from bibwire.cli.terminal import complain, moment, plain
        from bibwire.domain.errors import BudgetSpent

        until = moment(datetime.now(UTC) + timedelta(seconds=refusal.seconds))
        spent = refusal.reason is None
        if spent and self._no_wait:
            self.left = True
            raise BudgetSpent(
                f"The hour's calls of {plain(partner)} are used up; there is room again at {until}",
                seconds=refusal.seconds,
            )
        if partner in self._told or refusal.seconds < WORTH_TELLING_SECONDS:
            return
        self._told.add(partner)
        why = "the hour's calls are used up" if spent else f"RunSignup asks for a pause ({refusal.reason})"
        complain(
            f"{plain(partner)}: {why}. Waiting until {until}; Ctrl-C is safe, the next sync goes on there."
        )


async def not_mirrored(runtime: Runtime, partner: str | None) -> list[str]:
    """Return a sentence for each partner some of whose races are too old for `sync`."""
    from bibwire.cli.terminal import counted

    counts = await runtime.reports.race_counts()
    return [
        f"{each.name}: {counted(past, 'past race')} not mirrored: sync keeps events that are still to come "
        "or ended within 7 days; older ones come with bibwire backfill."
        for each in await runtime.engine.chosen(partner)
        if each.partner_id in counts and (past := counts[each.partner_id].past_not_mirrored)
    ]


def show(report: SyncReport, loaded: Loaded) -> None:
    """Print what a sync did, and what its first loads came to."""
    from bibwire.cli import failures, notes
    from bibwire.cli.terminal import console, counted, row, table

    out = console()
    if not report.partners:
        return
    people, bibs = report.participants, report.bibs
    read = people.inserted + people.updated + people.unchanged
    rate = f" ({read / max(report.seconds, 0.001):,.0f} people/s)" if read else ""
    done = table("", "people", "", "bib changes", " ", right=("", " "))
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
    if loaded.races:
        kept = counted(loaded.removed, "more that left is", "more that left are")
        out.print(
            f"Loaded for the first time: {counted(loaded.races, 'race')} with "
            f"{counted(loaded.people, 'person', 'people')}, {loaded.with_bib:,} of them with a bib; "
            f"{kept} kept as removed. Bib changes are counted from here on."
        )
    out.print(
        f"{counted(report.partners, 'partner')}, {counted(report.races, 'race')}, "
        f"{counted(report.events, 'event')} in {report.seconds:.1f} s with "
        f"{counted(report.calls, 'call')}{rate}."
    )
    if people.quarantined:
        out.print("Records that cannot be stored are kept with their reason: bibwire status.")
    notes.show(out, report.notes)
    if report.errors:
        found = failures.rows(report.errors)
        failed = table(f"Failed ({len(found):,}); tried again by the next sync", "partner", "race", "why")
        for each in found:
            row(failed, each, style="red")
        out.print(failed)
