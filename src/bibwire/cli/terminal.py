"""
How commands speak: tables and lines for people, one JSON object for programs.

What comes from the vendor (names of people and races) may hold anything; `plain` takes out
what would steer a terminal.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# Wide enough that no cell is cut in a file or a pipe.
WIDTH_WITHOUT_TERMINAL = 200


def complain(text: str, *, prefix: str = "bibwire: ") -> None:
    """Write a sentence to standard error, without any secret known so far, in lines that end at words."""
    logs = sys.modules.get("bibwire.logs")
    if logs is not None:
        text = logs.redact(text)
    text = prefix + text
    if sys.stderr.isatty():
        import shutil

        width = shutil.get_terminal_size().columns
        text = "\n".join(each for line in text.split("\n") for each in _lines(line, width))
    typer.echo(text, err=True)


def _lines(text: str, width: int) -> list[str]:
    """Return a line as those a terminal of this width shows without breaking a word."""
    import textwrap

    if len(text) <= width or text[:1].isspace():  # of a traceback, which stays as it is
        return [text]
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [text]


def print_json(value: object) -> None:
    """
    Write `value` as one line of JSON to standard output, and at once.

    What steers a terminal, or changes the direction of what follows, is written as an escape: it means
    the same to programs.
    """
    import msgspec

    line = msgspec.json.encode(value, enc_hook=str)
    if not line.isascii():
        line = _STEERING.sub(_escaped, line.decode()).encode()
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


# What JSON may hold as it is, and a terminal obeys: C1 controls, marks and overrides of direction, line
# separators, invisible signs. Not the joiners, without which some scripts cannot be written.
_STEERING = re.compile(
    "[\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0001-\U000e007f]"
)


def _escaped(found: re.Match[str]) -> str:
    code = found[0].encode("utf-16-be")
    return "".join(f"\\u{code[at]:02x}{code[at + 1]:02x}" for at in range(0, len(code), 2))


def console(*, stderr: bool = False) -> Console:
    """Return where tables and coloured lines go; without a terminal they are plain and wide."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else WIDTH_WITHOUT_TERMINAL
    return Console(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)


def table(title: str, *columns: str, right: Sequence[str] = ()) -> Table:
    """Return an empty table; the columns named in `right` hold numbers."""
    from rich import box
    from rich.table import Table

    made = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


@dataclass(frozen=True, slots=True)
class Column:
    """
    A column of a fitted table.

    `right`: it holds numbers. `flexible`: its text may go over several lines, between words.
    `spare`: on a narrow terminal it is left out, the largest first; 0: never.
    """

    name: str
    right: bool = False
    flexible: bool = False
    spare: int = 0


# What is in a flexible column stays readable down to here.
NARROWEST = 14


def fitted(
    out: Console, title: str, columns: Sequence[Column], rows: Iterable[tuple[Sequence[object], str | None]]
) -> int:
    """
    Print a table as wide as the terminal allows; return how many columns were left out.

    Args:
        rows: The cells of each row, one a column, and its style.
    """
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    cells = [([plain(cell) for cell in each], style) for each, style in rows]
    widths = [
        max(cell_len(column.name), *(cell_len(each[index]) for each, _ in cells), 0)
        for index, column in enumerate(columns)
    ]

    def needed(kept: Sequence[int]) -> int:
        least = (min(widths[i], NARROWEST) if columns[i].flexible else widths[i] for i in kept)
        return sum(least) + 3 * (len(kept) - 1)

    # A column that says nothing is not missed.
    kept = [i for i in range(len(columns)) if any(each[i] for each, _ in cells)]
    before = len(kept)
    while needed(kept) > out.width and any(columns[i].spare for i in kept):
        kept.remove(max(kept, key=lambda i: columns[i].spare))
    made = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for i in kept:
        made.add_column(
            columns[i].name,
            justify="right" if columns[i].right else "left",
            no_wrap=not columns[i].flexible,
            overflow="fold" if columns[i].flexible else "ellipsis",
        )
    for each, style in cells:
        made.add_row(*(Text(each[i]) for i in kept), style=style)
    out.print(made)
    return before - len(kept)


def row(to: Table, cells: Iterable[object], *, style: str | None = None) -> None:
    """Add a row; None is shown as nothing."""
    from rich.text import Text

    to.add_row(*(Text(plain(cell)) for cell in cells), style=style)


def plain(value: object) -> str:
    """Return `value` as text in which nothing steers a terminal or ends a line."""
    if value is None:
        return ""
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() or _joins(text, at) else "\N{REPLACEMENT CHARACTER}"
        for at, sign in enumerate(text)
    )


def _joins(text: str, at: int) -> bool:
    """
    Say whether the sign there is a joiner between two letters of a script that is not Latin.

    Persian, Sinhala and others cannot be written without; it steers nothing.
    """
    if text[at] not in "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}" or not 0 < at < len(text) - 1:
        return False
    return ord(text[at - 1]) > _LATIN_ENDS and text[at - 1].isprintable() and ord(text[at + 1]) > _LATIN_ENDS


# Latin, its accents and its phonetic letters.
_LATIN_ENDS = 0x2AF


def age(seconds: float | None) -> str:
    """Return 5 s, 3 min, 2.5 h, 4 days; `never` for None."""
    if seconds is None:
        return "never"
    seconds = max(0.0, seconds)
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86_400:.0f} days"


def told_of_pause(partner: str, asked_until: datetime, blocked_until: datetime | None) -> str:
    """Return the sentences about a pause that is longer than is believed."""
    from bibwire.store.partners import partner_command

    then = (
        "makes one call at a time" if blocked_until is None else f"makes one call at {moment(blocked_until)}"
    )
    return (
        f"{plain(partner)}: RunSignup asked for no calls before {moment(asked_until)}. Bibwire {then}, and "
        f"goes on if it is answered. To go on now: {plain(partner_command('unblock', partner))}"
    )


def moment(at: datetime | None) -> str:
    """Return an instant in this machine's zone, to the second."""
    return "" if at is None else at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return `1 race`, `2 races`; `many` is the plural where it is no mere s."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def person(first_name: str | None, last_name: str | None) -> str:
    return " ".join(part for part in (first_name, last_name) if part) or "(no name)"


def bib(number: int | None) -> str:
    # Without separators: a bib is read as it is printed on the runner.
    return "none" if number is None else str(number)


def as_fields(value: Any, **more: object) -> dict[str, object]:
    """Return a dataclass's fields, for JSON."""
    import dataclasses

    return {**{f.name: getattr(value, f.name) for f in dataclasses.fields(value)}, **more}
