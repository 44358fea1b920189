"""`bibwire bibs`: which bib went to whom, in the order of the partner's feed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bibwire.cli.options import LARGEST_ID, JsonOption, PartnerOption, RaceOption
from bibwire.domain.errors import SettingsError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from bibwire.runtime import Runtime
    from bibwire.store.reports import Change, Head

# Shown where no --since says from where: about a screen.
LAST = 50


def add_to(app: typer.Typer) -> None:
    app.command()(bibs)


def bibs(
    race: RaceOption = None,
    partner: PartnerOption = None,
    since: Annotated[
        int | None,
        typer.Option(
            metavar="SEQ",
            min=0,
            max=LARGEST_ID,
            help="All changes after this number of the partner's feed; 0: from the beginning. "
            f"Without it, the last {LAST}.",
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on showing changes as they come.")] = False,
    json: JsonOption = False,
) -> None:
    """Show bib changes. With --follow --json, one JSON object a line."""
    from bibwire.cli.session import work

    async def do(runtime: Runtime) -> None:
        heads = await _heads(runtime, partner, race, since)
        starts = {head.partner_id: await _start(runtime, head, since, race) for head in heads}
        if follow:
            one = heads[0].partner_id if partner is not None else None
            await _follow(runtime, starts, one, race, json)
        else:
            await _list(runtime, heads, starts, race, json)

    work(do)


async def _heads(runtime: Runtime, partner: str | None, race: int | None, since: int | None) -> list[Head]:
    partner_id = None if partner is None else (await runtime.partners.get(partner)).partner_id
    heads = await runtime.reports.heads(partner_id)
    if since is not None and len(heads) > 1:
        names = ", ".join(head.partner for head in heads)
        raise SettingsError(
            f"Each partner counts its own changes, so --since needs --partner. There are: {names}."
        )
    if race is not None:
        await runtime.reports.check_race(race, partner_id)
    return heads


async def _start(runtime: Runtime, head: Head, since: int | None, race: int | None) -> int:
    if since is not None:
        return since
    return await runtime.reports.seq_before_last(head, LAST, race_id=race)


async def _list(
    runtime: Runtime, heads: list[Head], starts: dict[int, int], race: int | None, json: bool
) -> None:
    from bibwire.cli.terminal import console, print_json
    from bibwire.store.reports import BATCH

    found: list[Change] = []
    for head in heads:
        position = starts[head.partner_id]
        while True:
            batch = await runtime.reports.changes(head, since=position, race_id=race)
            found += batch
            if len(batch) < BATCH:
                break
            position = batch[-1].seq
    found.sort(key=lambda change: (change.seen_at, change.partner, change.seq))
    if json:
        # What to give as --since next time: nothing in between is missed.
        ends = {head.partner: max(head.last_seq, starts[head.partner_id]) for head in heads}
        print_json({"changes": [_as_json(change) for change in found], "next_since": ends})
        return
    out = console()
    for change in found:
        _print_line(out, line(change))
    if not found:
        out.print("No bib has changed" + (" since." if any(starts.values()) else " yet."))


async def _follow(
    runtime: Runtime, starts: dict[int, int], partner_id: int | None, race: int | None, json: bool
) -> None:
    import asyncio
    from contextlib import aclosing

    from bibwire.cli.terminal import console, print_json
    from bibwire.store.follow import follow

    out = console()
    feed = follow(runtime.reports, since=starts, partner_id=partner_id, race_id=race)
    async with aclosing(feed) as changes:
        async for change in changes:
            if json:
                print_json(_as_json(change))
            else:
                _print_line(out, line(change))
            # Printing does not wait; without this a long catch-up could not be stopped.
            await asyncio.sleep(0)


def _as_json(change: Change) -> dict[str, object]:
    from bibwire.cli.terminal import as_fields

    return {name: value for name, value in as_fields(change).items() if name != "fields"}


def _print_line(out: Console, text: Text) -> None:
    out.print(text, soft_wrap=True)
    out.file.flush()


def line(change: Change) -> Text:
    """Return one change as a line: partner, seq, time, bib from and to, who, where."""
    from rich.text import Text

    from bibwire.cli.terminal import bib, moment, person, plain

    colour = "green" if change.bib_to is not None else "red"
    why = {"removed": " (left the race)", "restored": " (is back)"}.get(change.kind, "")
    text = Text(f"{plain(change.partner)} {change.seq:<6} {moment(change.seen_at)}  ")
    text.append(f"{bib(change.bib_from):>6} → {bib(change.bib_to):<6}", style=colour)
    text.append(f" {plain(person(change.first_name, change.last_name))}{why}", style="bold")
    event = plain(change.event) or f"event {change.event_id}"
    text.append(f"  {event}, {plain(change.race) or 'race'} ({change.race_id})")
    return text
