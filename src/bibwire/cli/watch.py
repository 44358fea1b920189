"""
`bibwire status --watch`: what fails and the most urgent races, on any window, again and again.

What fails stays on top; the races below turn over by themselves, or by keys. A database that does not
answer is said, and what was known last stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Final

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.live import Live
from rich.text import Text

from bibwire.cli.freshness import is_recent
from bibwire.cli.standing import Standing, alarms, shortage_sentence, standing
from bibwire.cli.terminal import age, console, counted, moment, plain
from bibwire.domain.errors import BibwireError, SettingsError

if TYPE_CHECKING:
    from bibwire.runtime import Runtime
    from bibwire.store.reports import RaceState

LOOK_SECONDS: Final = 2.0
PATIENCE_SECONDS: Final = 5.0
# A page is read in less; who turned one over by hand reads on.
PAGE_SECONDS: Final = 8.0
BY_HAND_SECONDS: Final = 60.0
LEAST_HEIGHT: Final = 6
# Of the races that fail for the same reason.
MOST_NAMED: Final = 3
NEXT_KEYS: Final = frozenset(" nj")
BACK_KEYS: Final = frozenset("bkp")
# Comes in place of a key when the terminal is gone.
GONE: Final = ""


async def watch(runtime: Runtime) -> None:
    """
    Show it until `q` or Ctrl-C.

    Raises:
        SettingsError: There is no terminal.
        CancelledError: The terminal was closed, which not every process is told by a signal.
    """
    out = console()
    if not out.is_terminal:
        raise SettingsError("--watch needs a terminal; programs read 'bibwire status --json'.")
    view = View(runtime.clock.now)
    with _ends_with_terminal(), Live(console=out, screen=True, auto_refresh=False) as live, _keys() as keys:

        def draw() -> None:
            live.update(Text("\n").join(view.lines(out.width, out.height)), refresh=True)

        looking = asyncio.create_task(_look(runtime, view))
        try:
            while True:
                draw()
                try:
                    key = await asyncio.wait_for(keys.get(), 1.0)
                except TimeoutError:
                    view.turn_by_itself()
                else:
                    if key == "q":
                        return
                    if key == GONE:
                        raise asyncio.CancelledError
                    view.turn_by_hand(key)
                if looking.done():
                    looking.result()
        finally:
            looking.cancel()
            await asyncio.wait({looking})


async def _look(runtime: Runtime, view: View) -> None:
    while True:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                view.found = await standing(runtime)
            view.answered()
        except (BibwireError, TimeoutError) as error:
            view.no_answer(str(error) or f"no answer within {PATIENCE_SECONDS:g} s")
        await asyncio.sleep(LOOK_SECONDS)


@contextmanager
def _ends_with_terminal() -> Iterator[None]:
    """Take what cannot be written any more, on leaving too, for the end of the terminal."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        raise asyncio.CancelledError from None


@contextmanager
def _keys() -> Iterator[asyncio.Queue[str]]:
    """Yield the keys that are pressed, where the system has them one by one."""
    keys: asyncio.Queue[str] = asyncio.Queue()
    if sys.platform == "win32" or not sys.stdin.isatty():
        yield keys
        return
    import os
    import termios
    import tty

    terminal, loop = sys.stdin.fileno(), asyncio.get_running_loop()

    def read() -> None:
        try:
            pressed = os.read(terminal, 100)
        except OSError:
            pressed = b""
        if not pressed:
            # From now on it could be read without end.
            loop.remove_reader(terminal)
            keys.put_nowait(GONE)
        for key in pressed.decode("ascii", "ignore"):
            keys.put_nowait(key)

    before = termios.tcgetattr(terminal)
    tty.setcbreak(terminal, termios.TCSANOW)
    loop.add_reader(terminal, read)
    try:
        yield keys
    finally:
        loop.remove_reader(terminal)
        with contextlib.suppress(termios.error):
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)


class View:
    """What is shown, as lines; `found` is None before the first answer."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self.found: Standing | None = None
        self.silent_since: datetime | None = None
        self._back_at: datetime | None = None
        self._why_silent = ""
        self._page = 0
        self._pages = 1
        self._turned_at = now()
        self._stays = PAGE_SECONDS

    def answered(self) -> None:
        """Note that the database answered."""
        if self.silent_since is not None:
            self.silent_since, self._back_at = None, self._now()

    def no_answer(self, why: str) -> None:
        """Note that the database did not answer."""
        self.silent_since = self.silent_since or self._now()
        self._why_silent = why

    def turn_by_itself(self) -> None:
        """Turn the page over if it was shown for long enough."""
        if (self._now() - self._turned_at).total_seconds() >= self._stays:
            self._turn(1, PAGE_SECONDS)

    def turn_by_hand(self, key: str) -> None:
        """Turn the page over where a key says so."""
        if key in NEXT_KEYS:
            self._turn(1, BY_HAND_SECONDS)
        elif key in BACK_KEYS:
            self._turn(-1, BY_HAND_SECONDS)

    def _turn(self, pages: int, stays: float) -> None:
        self._page = (self._page + pages) % self._pages
        self._turned_at, self._stays = self._now(), stays

    def lines(self, width: int, height: int) -> list[Text]:
        """Return as many lines as the window has, none wider than it: what fails before all else."""
        height = max(height, LEAST_HEIGHT)
        troubles, races = self._troubles(), self._races(width)
        folded = [line for text, style in troubles for line in _folded(text, style, width)]
        # Header, footer, the races' heading and a race or two have room always.
        room = height - 5
        if len(folded) > room:
            left = len(folded) - room + 1
            folded = [*folded[: room - 1], Text(f"and {counted(left, 'line')} more: bibwire status", "red")]
        per_page = height - 3 - len(folded)
        self._pages = max(1, -(-len(races) // per_page))
        self._page %= self._pages
        shown = races[self._page * per_page : (self._page + 1) * per_page]
        body = [*folded, _heading(width), *shown]
        body += [Text("")] * (height - 2 - len(body))
        return [self._header(troubles, width), *body, self._footer(width)]

    def _header(self, troubles: Sequence[tuple[str, str]], width: int) -> Text:
        told = "nothing fails" if self.found is not None and not troubles else "what fails:"
        if self.found is None and not troubles:
            told = "asking the database ..."
        style = "bold red" if any(style == "red" for _, style in troubles) else "bold"
        return Text(_cut(f"{moment(self._now())[11:]}  Bibwire: {told}", width), style)

    def _footer(self, width: int) -> Text:
        keys = "space: next, b: back, q: end" if sys.platform != "win32" else "Ctrl-C: end"
        return Text(_cut(f"page {self._page + 1} of {self._pages}  {keys}", width), "dim")

    def _troubles(self) -> list[tuple[str, str]]:
        """Return what is wrong, the worst first, each with its color."""
        told: list[tuple[str, str]] = []
        if self.silent_since is not None:
            lasted = age((self._now() - self.silent_since).total_seconds())
            why = plain(self._why_silent).rstrip(".?")
            told.append((f"The database has not answered for {lasted}: {why}. Trying again.", "red"))
        if self.found is None:
            return told
        state = self.found.status
        if not state.partners:
            return [*told, ("No partner is stored yet: bibwire partner add NAME --api-key KEY", "yellow")]
        if not is_recent(self._back_at, self._now()):
            told += [(sentence, "red") for sentence in alarms(self.found.jobs)]
        for block in state.caller_blocks:
            told.append(
                (f"No calls before {moment(block.until)}: {plain(block.reason or 'throttled')}.", "red")
            )
        for partner in state.partners:
            name = plain(partner.partner)
            if partner.failing_since is not None:
                why = plain(partner.failing_reason or "refused").rstrip(".")
                told.append((f"{name} fails since {moment(partner.failing_since)}: {why}.", "red"))
            if partner.blocked_until is not None:
                why = plain(partner.blocked_reason or "throttled").rstrip(".")
                told.append((f"{name}: no calls before {moment(partner.blocked_until)}: {why}.", "red"))
        told += _failing(state.races)
        if all(partner.paused_at is not None for partner in state.partners):
            told.append(("Every partner is paused: bibwire partner resume NAME", "yellow"))
        for each in self.found.short:
            if each.shortage is not None:
                told.append((shortage_sentence(each.partner, each.shortage, self.found.now), "yellow"))
        return told

    def _races(self, width: int) -> list[Text]:
        if self.found is None:
            return []
        # Those that fail first, in the order of their urgency, which they have already.
        races = sorted(self.found.status.races, key=lambda race: _rank(race))
        return [Text(_line(race, width), _style(race)) for race in races]


def _failing(races: Sequence[RaceState]) -> list[tuple[str, str]]:
    """Return a sentence for each reason why races fail, and one for those that are late."""
    by_reason: dict[str, list[RaceState]] = {}
    for race in races:
        if race.access_lost_at is not None:
            why = f"the key has had no access since {moment(race.access_lost_at)}"
        elif race.failing_since is not None:
            why = plain(race.last_error or "it fails").rstrip(".")
        elif race.is_late:
            why = "late"
        else:
            continue
        by_reason.setdefault(why, []).append(race)
    told = []
    for why, these in by_reason.items():
        names = ", ".join(f"{_name(race)} ({race.race_id})" for race in these[:MOST_NAMED])
        more = f" and {len(these) - MOST_NAMED:,} more" if len(these) > MOST_NAMED else ""
        since = min((race.failing_since for race in these if race.failing_since is not None), default=None)
        when = "" if since is None else f" since {moment(since)[11:]}"
        told.append((f"{names}{more}{when}: {why}.", "yellow" if since is None else "red"))
    return told


def _rank(race: RaceState) -> int:
    if race.failing_since is not None and race.target_seconds is not None:
        return 0
    return 1 if race.is_late else 2


def _style(race: RaceState) -> str:
    if race.failing_since is not None:
        return "red"
    return "yellow" if race.is_late else ""


def _name(race: RaceState) -> str:
    return plain((race.race or "").strip()) or "race"


_RIGHT: Final = f"{'start':<16} {'old':>7} {'may be':>7}"


def _heading(width: int) -> Text:
    left = f"{'race':>7} name"
    return Text(_cut(set_cell_size(left, max(0, width - len(_RIGHT) - 1)) + " " + _RIGHT, width), "dim")


def _line(race: RaceState, width: int) -> str:
    start = moment(race.starts_at)[: len("2026-09-12 06:40")]
    may_be = "" if race.target_seconds is None else age(race.target_seconds)
    right = f"{start:<16} {age(race.age_seconds):>7} {may_be:>7}"
    left = _cut(f"{race.race_id:>7} {_name(race)}", max(0, width - len(right) - 1))
    return _cut(set_cell_size(left, max(0, width - len(right) - 1)) + " " + right, width)


def _cut(text: str, width: int) -> str:
    """Return as much of a text as a line has room for."""
    return text if cell_len(text) <= width else set_cell_size(text, max(0, width - 1)) + "…"


def _folded(text: str, style: str, width: int) -> list[Text]:
    """Return a sentence as lines that end between words; the later ones stand a little to the right."""
    lines = Text(text, style).wrap(Console(width=width), max(10, width - 2))
    return [Text.assemble("  " if number else "", line) for number, line in enumerate(lines)]
