"""What a person should know of a run: what is so of many races is said once."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from bibwire.cli.terminal import plain

if TYPE_CHECKING:
    from rich.console import Console

_OF_RACE: Final = re.compile(r"Race (\d+): (.+)", re.DOTALL)
# More are counted.
_MOST_NAMED: Final = 3


def show(out: Console, notes: Iterable[str]) -> None:
    """Print notes, a line each."""
    for note in folded(notes):
        out.print(f"Note: {plain(note)}")


def folded(notes: Iterable[str]) -> list[str]:
    """Return notes in their order, those that say the same of several races made one."""
    races: dict[str, list[str]] = {}
    for note in notes:
        match = _OF_RACE.fullmatch(note)
        race, said = match.groups() if match else ("", note)
        races.setdefault(said, []).append(race)
    return [_said(list(dict.fromkeys(numbers)), said) for said, numbers in races.items()]


def _said(races: list[str], said: str) -> str:
    if races == [""]:
        return said
    if len(races) == 1:
        return f"Race {races[0]}: {said}"
    named, more = races[:_MOST_NAMED], len(races) - _MOST_NAMED
    if more > 0:
        return f"Races {', '.join(named)} and {more:,} more: {said}"
    return f"Races {', '.join(named[:-1])} and {named[-1]}: {said}"
