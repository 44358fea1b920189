"""`bibwire lookup`: who has a bib now, and who had it before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bibwire.cli.options import LARGEST_ID, JsonOption, PartnerOption
from bibwire.domain.errors import BibwireError, Blocked, BudgetSpent, DatabaseUnavailable, SettingsError

if TYPE_CHECKING:
    from bibwire.runtime import Runtime
    from bibwire.store.reports import BibAnswer, BibMove, Holder

# A bib is a 32-bit number in the mirror.
LARGEST_BIB = 2**31 - 1
# For all that is asked of RunSignup: with the start of the program, below ten.
LIVE_SECONDS = 8.0


def add_to(app: typer.Typer) -> None:
    app.command()(lookup)


def lookup(
    bib: Annotated[
        int, typer.Argument(metavar="BIB", min=0, max=LARGEST_BIB, help="The bib.", show_default=False)
    ],
    race: Annotated[
        int, typer.Option("--race", metavar="RACE_ID", min=1, max=LARGEST_ID, help="The race, by its id.")
    ],
    partner: PartnerOption = None,
    live: Annotated[
        bool,
        typer.Option("--live", help="Ask RunSignup first: one call for the bib, then the race's changes."),
    ] = False,
    json: JsonOption = False,
) -> None:
    """
    Say who has a bib now and who had it before.

    Exit code 1: the race is known and not mirrored, so that nothing can be said of the bib. 3: with
    --live, RunSignup could not be asked now; the answer is the mirror's.
    """
    from bibwire.cli.session import read_settings, work
    from bibwire.cli.sync import PARTLY, Patience
    from bibwire.cli.terminal import as_fields, complain, plain, print_json

    stale = False

    async def do(runtime: Runtime) -> list[BibAnswer]:
        from bibwire.store.reports import OVER

        partner_id = None if partner is None else (await runtime.partners.get(partner)).partner_id
        answers = await runtime.reports.lookup(bib, race, partner_id)
        if live and len(answers) > 1:
            names = " and ".join(answer.partner for answer in answers)
            raise SettingsError(
                f"Race {race} is mirrored for {names}: say with --partner whose calls to spend."
            )
        # RunSignup is not asked for a race that would not be loaded.
        if not live or answers[0].why_not == OVER:
            return answers
        # Whoever asks stands at a desk with a runner before it, and cannot wait for the next hour.
        runtime.on_wait = Patience(no_wait=True).wait
        try:
            await runtime.engine.lookup_live(answers[0].partner, race, bib, within_seconds=LIVE_SECONDS)
        except (DatabaseUnavailable, SettingsError):
            raise
        except BibwireError as error:
            nonlocal stale
            stale = True
            asked = "was not asked" if isinstance(error, BudgetSpent | Blocked) else "gave no answer"
            why = plain(str(error)).rstrip(".")
            complain(f"RunSignup {asked}: {why}. What follows is the mirror's answer.")
        return await runtime.reports.lookup(bib, race, partner_id)

    answers = work(do, read_settings(summary=True), make=False)
    if json:
        print_json({"answers": [as_fields(answer) for answer in answers]})
    else:
        for answer in answers:
            if answer.mirrored or answer.now or answer.removed:
                _show(answer)
    lacking = [answer for answer in answers if not answer.mirrored]
    for answer in lacking:
        complain(
            f"race {answer.race_id}, {plain(answer.race)}, is not mirrored for {plain(answer.partner)}: "
            f"{answer.why_not}."
        )
    if len(lacking) == len(answers):
        raise typer.Exit(1)
    if stale:
        raise typer.Exit(PARTLY)


def _show(answer: BibAnswer) -> None:
    from bibwire.cli.terminal import age, console, moment, plain, row, table

    out = console()
    known = (
        "not mirrored in full"
        if answer.as_of is None
        else f"as of {moment(answer.as_of)}, {age(answer.age_seconds)} ago"
    )
    out.print(
        f"Bib {answer.bib} in {plain(answer.race)} ({answer.race_id}), {plain(answer.partner)}, {known}:"
    )
    if not answer.now and answer.mirrored:
        out.print("  nobody has it now.")
    for holder in answer.now:
        out.print(f"  {_describe(holder)}, chip {plain(holder.chip_num) or 'none'}.", style="bold")
    if len(answer.now) > 1:
        out.print(f"  {len(answer.now)} registrations share it.", style="yellow")
    for holder in answer.removed:
        why = plain(holder.removed_reason) or "removed"
        out.print(f"  had it when leaving on {moment(holder.removed_at)} ({why}): {_describe(holder)}.")
    if answer.history:
        shown = table("History", "when", "what", "who", "event", "seen", "seq", right=("seq",))
        for move in answer.history:
            cells = (
                moment(move.modified_at or move.seen_at),
                _what(move, answer.bib),
                _name(move),
                move.event,
                moment(move.seen_at),
                move.seq,
            )
            row(shown, cells)
        out.print(shown)


def _what(move: BibMove, bib: int) -> str:
    from bibwire.cli.terminal import bib as shown

    if move.bib_to == bib:
        before = "" if move.bib_from is None else f", had {shown(move.bib_from)}"
        return f"given{before}"
    if move.kind == "removed":
        return "freed: left the race"
    return "taken" if move.bib_to is None else f"given up for {shown(move.bib_to)}"


def _name(who: BibMove | Holder) -> str:
    from bibwire.cli.terminal import person

    return f"{person(who.first_name, who.last_name)} ({who.registration_id})"


def _describe(holder: Holder) -> str:
    from bibwire.cli.terminal import plain

    sex_and_age = f"{holder.gender or ''}{'' if holder.age is None else holder.age}"
    place = ", ".join(part for part in (holder.city, holder.state) if part)
    event = holder.event or f"event {holder.event_id}"
    parts = (_name(holder), sex_and_age, place, event)
    return ", ".join(plain(part) for part in parts if part)
