"""
The rows of an answer found without reading them, in time linear in its length. Pure.

The parser reads a whole document in one call, during which nothing else of the process runs, and
refuses all of it for one odd sign. So a document that is large, or was refused, is cut up here: what
matters are texts and brackets alone. No call looks at more than a window of it at once. Rows come
back as they were sent, and the rest as a small document that names them by number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

import msgspec

from bibwire.api.apart import step
from bibwire.api.exact import is_bounded, storable
from bibwire.domain.errors import AnswerUnreadable

# The parser takes 50 ms at worst for this much: as many values, or as long texts.
_LIGHT_BYTES: Final = 12 << 20
_LIGHT_VALUES: Final = 400_000
# One of 2,500 rows is the largest answer that is asked for; a vendor that ignores that may send more.
MOST_ROWS: Final = 20_000
# A person has some ten brackets, a race with a hundred events a thousand.
_MOST_BRACKETS: Final = 600_000

TOO_MUCH: Final = "the vendor's answer holds far more than any that is known"
_BRACKETS_A_STEP: Final = 4096

_ROWS: Final = frozenset({b'"participants"', b'"teams"', b'"races"'})
_EVENT: Final = b'"event"'

_WINDOW: Final = 1 << 16
_SPACE: Final = re.compile(rb"[ \t\r\n]*+")
_IN_TEXT: Final = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
# Up to a bracket, or to a text that does not end in the window.
_TO_BRACKET: Final = re.compile(
    rb'[^"\[\]{}]*+(?:"(?:[^"\\]++|\\.)*+"[^"\[\]{}]*+)*+',
    re.DOTALL,
)
_SCALAR: Final = re.compile(rb'[^\s,:"\[\]{}]++')


class _NotJson(Exception):
    """Brackets or quotes do not balance."""


@dataclass(slots=True)
class Outline:
    """
    An answer without its rows.

    In `frame` a number stands for each row: its place in `rows`.
    """

    frame: bytes
    rows: list[bytes] = field(default_factory=list)

    def row(self, slice_: msgspec.Raw) -> bytes:
        """
        Return the row that a slice of the frame stands for.

        Raises:
            AnswerUnreadable: It stands for none, or the row is broken: see `check_row`.
        """
        try:
            row = self.rows[int(bytes(slice_))]
        except (ValueError, IndexError):
            row = None
        if row is None:
            raise AnswerUnreadable("the vendor's answer names its rows in a way that is not known")
        check_row(row)
        return row


def is_light(body: bytes) -> bool:
    """Say whether the parser may read the whole of it in one call."""
    return len(body) <= _LIGHT_BYTES and body.count(b",") + body.count(b"[") <= _LIGHT_VALUES


def outline(body: bytes) -> Outline | None:
    """
    Return what an answer consists of; None if it is half a document, or none.

    Whether the rows are JSON is for whoever reads them to find out.

    Raises:
        AnswerUnreadable: There is more in it than in any answer that is known.
    """
    cutter = _Cutter(body)
    try:
        end = cutter.copy(cutter.space(0), level=0)
        if cutter.space(end) != len(body):
            return None
        frame = b"".join(cutter.frame)
    except _NotJson:
        return None
    # What is left may hold what the parser refuses a document for.
    if not is_bounded(frame):
        raise AnswerUnreadable(TOO_MUCH)
    return Outline(storable(frame)[0], cutter.rows)


def check_row(row: bytes) -> None:
    """
    Check that a row, cut out by its brackets alone, is one.

    Raises:
        AnswerUnreadable: It is broken in a way that may have hidden where others begin.
    """
    if not is_bounded(row):
        broken = row.count(b'"registration_id"') > 1
    else:
        try:
            _any.decode(storable(row)[0])
        except (ValueError, RecursionError):
            broken = True
        else:
            broken = False
    if broken:
        raise AnswerUnreadable("a row of the vendor's answer is broken: where others begin is not certain")


_any: Final = msgspec.json.Decoder(msgspec.Raw)


class _Cutter:
    """Walks a document once."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._brackets = 0
        self.frame: list[bytes] = []
        self._framed = 0
        self.rows: list[bytes] = []

    def copy(self, at: int, *, level: int, in_event: bool = False) -> int:
        """Copy the value that begins at `at` into the frame, its rows by number; return its end."""
        sign = self._sign(at)
        if sign == b"{" and level <= 1:
            return self._object(at, in_event=in_event)
        if sign == b"[" and level == 0:
            return self._elements(at)
        end = self.end_of(at)
        self._put(self._body[at:end])
        return end

    def _elements(self, at: int) -> int:
        self._put(b"[")
        at = self.space(at + 1)
        if self._sign(at) == b"]":
            self._put(b"]")
            return at + 1
        while True:
            at = self.space(self.copy(at, level=1))
            self._put(sign := self._sign(at))
            if sign == b"]":
                return at + 1
            if sign != b",":
                raise _NotJson
            at = self.space(at + 1)

    def _object(self, at: int, *, in_event: bool) -> int:
        self._put(b"{")
        at = self.space(at + 1)
        if self._sign(at) == b"}":
            self._put(b"}")
            return at + 1
        while True:
            if self._sign(at) != b'"':
                raise _NotJson
            end = self._text_end(at)
            key = self._body[at:end]
            at = self.space(end)
            if self._sign(at) != b":":
                raise _NotJson
            self._put(key + b":")
            at = self.space(at + 1)
            if key in _ROWS and self._sign(at) == b"[":
                at = self._rows(at)
            else:
                is_event = key == _EVENT and not in_event
                at = self.copy(at, level=1 if is_event else 2, in_event=is_event)
            at = self.space(at)
            self._put(sign := self._sign(at))
            if sign == b"}":
                return at + 1
            if sign != b",":
                raise _NotJson
            at = self.space(at + 1)

    def _rows(self, at: int) -> int:
        self._put(b"[")
        at = self.space(at + 1)
        if self._sign(at) == b"]":
            self._put(b"]")
            return at + 1
        while True:
            end = self.end_of(at)
            self._put(b"%d" % len(self.rows))
            self.rows.append(self._body[at:end])
            if len(self.rows) > MOST_ROWS:
                raise AnswerUnreadable(TOO_MUCH)
            at = self.space(end)
            self._put(sign := self._sign(at))
            if sign == b"]":
                return at + 1
            if sign != b",":
                raise _NotJson
            at = self.space(at + 1)

    def end_of(self, at: int) -> int:
        """Return where the value that begins at `at` ends; inside it brackets are counted, no more."""
        sign = self._sign(at)
        if sign == b'"':
            return self._text_end(at)
        if sign not in (b"[", b"{"):
            return self._windows(_SCALAR, at, least=1)
        depth = 0
        while True:
            at = self._windows(_TO_BRACKET, at)
            sign = self._sign(at)
            if sign == b'"':
                at = self._text_end(at)
                continue
            self._brackets += 1
            if self._brackets > _MOST_BRACKETS:
                raise AnswerUnreadable(TOO_MUCH)
            if self._brackets % _BRACKETS_A_STEP == 0:
                step()
            depth += 1 if sign in (b"[", b"{") else -1
            at += 1
            if depth == 0:
                return at

    def space(self, at: int) -> int:
        """Return where the white space from `at` on ends."""
        return self._windows(_SPACE, at)

    def _text_end(self, at: int) -> int:
        at += 1
        while True:
            at = self._windows(_IN_TEXT, at)
            sign = self._sign(at)
            if sign == b'"':
                return at + 1
            # A backslash that the window ended with; with nothing after it the document is cut.
            if at + 1 >= len(self._body):
                raise _NotJson

    def _windows(self, pattern: re.Pattern[bytes], at: int, *, least: int = 0) -> int:
        """Return where a run of the pattern ends, however long it is, a window at a time."""
        began, body = at, self._body
        while True:
            if at - began >= _WINDOW:
                step()
            found = pattern.match(body, at, at + _WINDOW)
            if found is None:
                break
            whole = found.end() == at + _WINDOW
            at = found.end()
            if not whole:
                break
        if at - began < least:
            raise _NotJson
        return at

    def _sign(self, at: int) -> bytes:
        sign = self._body[at : at + 1]
        if not sign:
            raise _NotJson
        return sign

    def _put(self, part: bytes) -> None:
        self.frame.append(part)
        self._framed += len(part)
        if self._framed > _LIGHT_BYTES or len(self.frame) > _LIGHT_VALUES:
            raise AnswerUnreadable(TOO_MUCH)
