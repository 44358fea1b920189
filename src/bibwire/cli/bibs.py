"""`bibwire bibs`: which bib went to whom, in the order of the partner's feed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from bibwire.cli.options import LARGEST_ID, JsonOption, PartnerOption, RaceOption
from bibwire.domain.errors import BibwireError, FeedRewound, SettingsError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from bibwire.runtime import Runtime
    from bibwire.store.reports import Change, Head

# Shown where no --since says from where: about a screen.
LAST = 50
# Cells for a person's name.
LEAST_WHO, LONGEST_WHO = 24, 40
# How far the second line of a change stands in, where the first has no room; and where none has.
INDENT, NARROWEST = 4, 20


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
            help="All changes after this number of the partner's feed; 0: from the beginning. Needs "
            f"--partner where there are several. Without it, the last {LAST}.",
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on showing changes as they come.")] = False,
    json: JsonOption = False,
) -> None:
    """
    Show bib changes, in the order in which Bibwire saw them, oldest first.

    The time shown is when RunSignup says that a change was made; --json has also when it was seen here.
    With --follow --json, one JSON object a line. When races are not fresh any more, and when they are
    again, is said on standard error.
    """
    from bibwire.cli.session import work

    # Where a reader who is stopped has to go on, by partner.
    reached: dict[str, int] = {}

    async def do(runtime: Runtime) -> None:
        heads = await _heads(runtime, partner, race, since)
        starts = {head.partner_id: await _start(runtime, head, since, race) for head in heads}
        if follow:
            one = heads[0].partner_id if partner is not None else None
            try:
                # Filled with what was shown, of partners that were added meanwhile too.
                await _follow(runtime, heads, starts, reached, one, race, json)
            finally:
                reached.update((head.partner, starts[head.partner_id]) for head in heads)
        else:
            await _list(runtime, heads, starts, race, json)

    try:
        work(do, make=False)
    except FeedRewound as error:
        from bibwire.store.partners import quoted

        of_race = "" if race is None else f" --race {race}"
        back = f"--partner {quoted(error.partner)} --since {error.agreed}"
        raise BibwireError(f"{error}: go on with bibwire bibs --follow{of_race} {back}.") from error
    except KeyboardInterrupt as stop:
        if not reached:
            raise
        from bibwire.store.partners import quoted

        of_race = "" if race is None else f" --race {race}"
        ways = [
            f"bibwire bibs --follow{of_race} --partner {quoted(name)} --since {seq}"
            for name, seq in reached.items()
        ]
        if len(ways) == 1:
            raise type(stop)(f"stopped. Nothing is lost: go on with {ways[0]}.") from None
        lines = "\n".join(f"  {way}" for way in ways)
        raise type(stop)(f"stopped. Nothing is lost: go on with these, side by side:\n{lines}") from None


async def _heads(runtime: Runtime, partner: str | None, race: int | None, since: int | None) -> list[Head]:
    partner_id = None if partner is None else (await runtime.partners.get(partner)).partner_id
    heads = await runtime.reports.heads(partner_id)
    if since is not None and len(heads) > 1:
        names = ", ".join(head.partner for head in heads)
        raise SettingsError(
            f"Each partner counts its own changes, so --since needs --partner. There are: {names}."
        )
    if since is not None:
        for head in heads:
            if since > head.last_seq:
                raise SettingsError(
                    f"The feed of {head.partner} ends at {head.last_seq}: no change has the number {since} "
                    "yet. Was the partner removed and added again? Then read from the beginning: --since 0."
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
    layout = Layout.of(heads, found)
    if found and out.is_terminal:
        _print_line(out, layout.header())
    for change in found:
        _print_line(out, layout.line(change))
    if not found:
        out.print("No bib has changed" + (" since." if any(starts.values()) else " yet."))


async def _follow(
    runtime: Runtime,
    heads: list[Head],
    starts: dict[int, int],
    reached: dict[str, int],
    partner_id: int | None,
    race: int | None,
    json: bool,
) -> None:
    import asyncio
    from contextlib import aclosing

    from bibwire.cli.freshness import watching
    from bibwire.cli.streams import while_read
    from bibwire.cli.terminal import console, print_json
    from bibwire.store.follow import follow

    out = console()
    layout = Layout.of(heads, [])
    if out.is_terminal and not json:
        _print_line(out, layout.header())
    feed = follow(runtime.reports, since=starts, partner_id=partner_id, race_id=race)
    async with while_read(), watching(runtime, partner_id, race), aclosing(feed) as changes:
        async for change in changes:
            reached[change.partner] = change.seq
            if json:
                print_json(_as_json(change))
            else:
                _print_line(out, layout.line(change))
            # Printing does not wait; without this a long catch-up could not be stopped.
            await asyncio.sleep(0)


def _as_json(change: Change) -> dict[str, object]:
    from bibwire.cli.terminal import as_fields

    return {name: value for name, value in as_fields(change).items() if name != "fields"}


def _print_line(out: Console, text: Text) -> None:
    from rich.cells import cell_len
    from rich.text import Text

    from bibwire.cli.streams import check_reader

    if out.is_terminal and cell_len(text.plain) > out.width > NARROWEST:
        # Between words, and what goes on stands below who it is about.
        first, *rest = text.wrap(out, out.width)
        more = Text(" ").join(rest).wrap(out, out.width - INDENT)
        text = Text("\n").join([first, *(Text(" " * INDENT) + line for line in more)])
    out.print(text, soft_wrap=True)
    out.file.flush()
    check_reader()


@dataclass(frozen=True, slots=True)
class Layout:
    """How wide the columns are whose texts differ in length, in cells of a terminal."""

    partner: int
    seq: int
    who: int

    @classmethod
    def of(cls, heads: Sequence[Head], changes: Sequence[Change]) -> Layout:
        """Return the layout for these; what comes later and is longer pushes its own line aside."""
        from rich.cells import cell_len

        from bibwire.cli.terminal import plain

        return cls(
            partner=max([cell_len(plain(head.partner)) for head in heads], default=0),
            seq=max([4, *(len(str(head.last_seq)) for head in heads)]),
            who=min(LONGEST_WHO, max([LEAST_WHO, *(cell_len(_who(change)) for change in changes)])),
        )

    def header(self) -> Text:
        """Return the names of the columns."""
        from rich.text import Text

        partner, seq = "partner".ljust(self.partner)[: self.partner], "seq".ljust(self.seq)
        text = f"{partner} {seq} {'changed':<19}  {'from':>6} → {'to':<6} {'who':<{self.who}}  where"
        return Text(text, style="dim")

    def line(self, change: Change) -> Text:
        """Return one change as a line: partner, seq, time, bib from and to, who, where."""
        from rich.cells import cell_len
        from rich.text import Text

        from bibwire.cli.terminal import bib, moment, plain

        def padded(text: str, width: int) -> str:
            return text + " " * (width - cell_len(text))

        colour = "green" if change.bib_to is not None else "red"
        # When the vendor says it happened; it does not say so of every change.
        at = moment(change.modified_at or change.seen_at)
        text = Text(f"{padded(plain(change.partner), self.partner)} {change.seq:<{self.seq}} {at}  ")
        text.append(f"{bib(change.bib_from):>6} → {bib(change.bib_to):<6}", style=colour)
        text.append(f" {padded(_who(change), self.who)}", style="bold")
        event = plain(change.event) or f"event {change.event_id}"
        text.append(f"  {event}, {plain((change.race or '').strip()) or 'race'} ({change.race_id})")
        return text


def _who(change: Change) -> str:
    from bibwire.cli.terminal import person, plain

    why = {"removed": " (left the race)", "restored": " (is back)"}.get(change.kind, "")
    return f"{plain(person(change.first_name, change.last_name))}{why}"
