"""`bibwire backfill`: load all history, without fear of interruption."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from bibwire.cli.options import JsonOption, PartnerOption, RaceOption

if TYPE_CHECKING:
    from bibwire.engine.backfill_reports import BackfillProgress, BackfillReport
    from bibwire.runtime import Runtime
    from bibwire.settings import Settings


def _day(text: str) -> datetime:
    """Read a day; the value has no zone, which is the operator's."""
    try:
        return datetime.strptime(text.strip(), "%Y-%m-%d")  # noqa: DTZ007
    except ValueError:
        raise typer.BadParameter(f"it has to be a day such as 2026-05-31, not {text}") from None


def add_to(app: typer.Typer) -> None:
    app.command()(backfill)


def backfill(
    partner: PartnerOption = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            "--since",
            metavar="DATE",
            parser=_day,
            help="Events that were not over before this day; by default one year ago, which is as far as "
            "RunSignup's contract goes.",
        ),
    ] = None,
    until: Annotated[
        datetime | None,
        typer.Option("--until", metavar="DATE", parser=_day, help="Only events that begin before this day."),
    ] = None,
    race: RaceOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it will cost, and load nothing.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """
    Load events that are over, the newest races first; stop it whenever you like.

    The same command goes on where it was stopped. It takes at most half of the hour's calls and lets
    everything else go first: bibwire run can work beside it.
    """
    from bibwire.cli import failures
    from bibwire.cli.session import read_settings, work
    from bibwire.cli.terminal import complain, print_json

    settings = read_settings(summary=True)

    async def do(runtime: Runtime) -> tuple[BackfillReport, str | None]:
        idle = await failures.nobody(runtime, partner)
        return await load(runtime, settings, partner, since, until, race, dry_run), idle

    report, idle = work(do, settings, make=False, repeat=True)
    if json:
        print_json(report.as_json())
    else:
        show(report, dry_run=dry_run)
    if not report.partners:
        failures.tell_nobody(idle)
    if report.errors:
        done = "nothing could be loaded" if report.exit_code == 1 else "only a part could be loaded"
        complain(failures.sentence(report.errors, done, "The same command tries again."))
    raise typer.Exit(report.exit_code)


async def load(
    runtime: Runtime,
    settings: Settings,
    partner: str | None,
    since: datetime | None = None,
    until: datetime | None = None,
    race: int | None = None,
    dry_run: bool = False,
) -> BackfillReport:
    """
    Run a backfill with its progress shown.

    Args:
        since, until: Days, as midnights without a zone: those of the operator's.
    """
    from bibwire.domain.errors import SettingsError
    from bibwire.engine.backfill_reports import BackfillRequest

    zone, now = settings.timezone, runtime.clock.now()
    begin = now - timedelta(days=365) if since is None else since.replace(tzinfo=zone)
    end = None if until is None else until.replace(tzinfo=zone)
    if end is not None and end <= begin:
        raise SettingsError(f"--until has to be later than --since ({begin:%Y-%m-%d}), not {end:%Y-%m-%d}.")
    if begin > now:
        raise SettingsError(f"--since lies ahead ({begin:%Y-%m-%d}): events to come are for bibwire sync.")
    request = BackfillRequest(since=begin, until=end, partner=partner, race_id=race, dry_run=dry_run)
    with _progress(dry_run=dry_run) as watch:
        return await runtime.backfill(request, watch)


def show(report: BackfillReport, *, dry_run: bool = False) -> None:
    """Print what a backfill did, or would."""
    from bibwire.cli import failures, notes
    from bibwire.cli.terminal import console, counted, row, table

    out = console()
    if not report.partners:
        return
    left = report.races - report.races_before
    if not left and not report.errors:
        out.print(
            f"All of it is loaded already: {counted(report.races, 'race')} with "
            f"{counted(report.events, 'event')}. Nothing is left to do; an earlier --since loads more."
        )
        return
    if dry_run:
        out.print(
            f"{counted(left, 'race')} of {report.races:,} left to load: {_cost(report)}. Nothing was loaded."
        )
    else:
        people = report.participants
        out.print(
            f"{counted(report.races_loaded, 'race')} loaded, {report.races_before:,} were before, "
            f"of {report.races:,} with {counted(report.events, 'event')}."
        )
        out.print(
            f"{counted(people.inserted, 'person', 'people')} inserted, {people.updated:,} updated, "
            f"{people.unchanged:,} unchanged, {people.removed:,} kept as removed, {people.quarantined:,} "
            f"quarantined; {counted(report.calls, 'call')} in {report.seconds:,.1f} s."
        )
        if report.teams.listed:
            out.print(
                f"{counted(report.teams.listed, 'team')} listed: {report.teams.new:,} new, "
                f"{report.teams.changed:,} changed."
            )
    notes.show(out, report.notes)
    if report.errors:
        found = failures.rows(report.errors)
        failed = table(f"Failed ({len(found):,})", "partner", "race", "why")
        for each in found:
            row(failed, each, style="red")
        out.print(failed)


def _cost(report: BackfillReport) -> str:
    from bibwire.cli.terminal import counted

    return (
        f"some {counted(report.left_people, 'person', 'people')}, at least "
        f"{counted(report.left_calls, 'call')}, {_hours(report.left_hours)} of the calls it may make"
    )


def _hours(hours: float) -> str:
    if hours < 1:
        return "less than an hour"
    return f"about {hours:,.1f} hours"


@contextmanager
def _progress(*, dry_run: bool) -> Iterator[Callable[[BackfillProgress], None]]:
    """Yield what to call with the progress: it tells cost and waits, and shows a bar on a terminal."""
    import time

    from bibwire.cli.progress import bar
    from bibwire.cli.terminal import complain, counted, moment, plain

    told = dry_run  # then the cost is the answer
    waits: set[tuple[str, datetime]] = set()
    began: tuple[float, int] | None = None

    with bar("looking for races") as show:

        def watch(state: BackfillProgress) -> None:
            nonlocal told, began
            if not state.counting and not told and state.left_calls:
                told = True
                complain(
                    f"some {counted(state.left_people, 'person', 'people')} to load, with at least "
                    f"{counted(state.left_calls, 'call')}; Ctrl-C is safe, the same command goes on."
                )
            for partner, until in state.waiting_until.items():
                if (partner, until) not in waits:
                    waits.add((partner, until))
                    complain(
                        f"{plain(partner)}: the calls a backfill may make in the hour are used up. Waiting "
                        f"until {moment(until)}."
                    )
            if show is None:
                return
            if state.counting:
                show(0, None, f"counting  races {state.races}  calls {state.calls:,}")
                return
            began = began or (time.monotonic(), state.calls)
            text = f"races {state.races_done}/{state.races}  people {state.people:,}/{state.left_people:,}"
            text += f"  calls {state.calls:,}  {_left(state, *began)}"
            done = state.people if state.left_people else state.races_done
            show(done, state.left_people or state.races, text)

        yield watch


def _left(state: BackfillProgress, began: float, calls: int) -> str:
    """Say how long it will take still, by the calls made so far."""
    import time

    from bibwire.cli.terminal import age

    made, passed = state.calls - calls, time.monotonic() - began
    left = max(0, state.left_calls - made)
    if made < 3 or not left:
        return ""
    return f"{age(passed / made * left)} left"
