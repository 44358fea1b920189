"""
JSON read without losing a digit, and told apart from what PostgreSQL cannot hold.

Integers of any size stay integers and every other number becomes a Decimal. A text with
U+0000 or half a surrogate pair is valid JSON as sent by some, but no PostgreSQL text or jsonb
can hold it; a number of a million digits neither.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, Final

import msgspec

from bibwire.domain.errors import BadRecord

# What `numeric`, and so a number in jsonb, holds: 131,072 digits before the point and 16,383
# after it. Well inside both, and far beyond anything that means something.
_MOST_DIGITS: Final = 1000

_ESCAPED_UNIT = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)
_NUL_ESCAPE: Final = b"\\u0000"
# The parser gives up at about a thousand levels; no record of the vendor's has ten.
_DEEPEST: Final = 500
_TEXT_OR_BRACKET: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


class _TooLong(ValueError):
    pass


def _exact_number(text: str) -> Decimal:
    number = Decimal(text)
    if len(text) > _MOST_DIGITS or abs(number.adjusted()) > _MOST_DIGITS:
        raise _TooLong
    return number


_decoder: Final = msgspec.json.Decoder(float_hook=_exact_number)


def decode_record(raw: bytes) -> dict[str, Any]:
    """
    Return one JSON object, exact.

    Raises:
        BadRecord: If it is not an object, or holds what PostgreSQL cannot.
    """
    # From the end, where the backslash is what is looked for: half the time of `in`.
    if raw.rfind(_NUL_ESCAPE) >= 0 and _has_nul(raw):
        raise BadRecord("a text of the record holds the character U+0000")
    try:
        record = _decoder.decode(raw)
    except UnicodeDecodeError:
        problem = "the record is not UTF-8"
    except (_TooLong, ArithmeticError):
        problem = "a number of the record is too large to be stored"
    except RecursionError:
        problem = "the record is nested too deeply"
    except msgspec.ValidationError:  # the only check in an untyped decode: an integer's length
        problem = "a number of the record is too large to be stored"
    except ValueError:
        # msgspec refuses half a pair by itself, so only a failure needs the look.
        problem = "the record is not JSON"
        if _lone_surrogates(raw):
            problem = "a text of the record holds half a surrogate pair"
    else:
        if type(record) is dict:
            return record
        problem = "the record is not a JSON object"
    # Outside the except block: the decoder's error quotes the record, ours must not carry it.
    raise BadRecord(problem)


def _has_nul(raw: bytes) -> bool:
    return any(match[1] == b"0000" for match in _ESCAPED_UNIT.finditer(raw))


def _lone_surrogates(raw: bytes) -> list[int]:
    """Return where a `\\uD8xx` escape stands without its other half."""
    lone: list[int] = []
    waiting: int | None = None  # where a first half ended that still wants its second
    for match in _ESCAPED_UNIT.finditer(raw):
        unit = int(match[1], 16) if match[1] else 0
        if waiting is not None:
            if match.start() == waiting and 0xDC00 <= unit <= 0xDFFF:
                waiting = None
                continue
            lone.append(waiting - 6)
            waiting = None
        if 0xD800 <= unit <= 0xDBFF:
            waiting = match.end()
        elif 0xDC00 <= unit <= 0xDFFF:
            lone.append(match.start())
    if waiting is not None:
        lone.append(waiting - 6)
    return lone


def masked_copy(body: bytes) -> bytes | None:
    """
    Return `body` without what makes the parser refuse a whole document; None if that is not in it.

    Half of a surrogate pair becomes `\\u0000`, and what stands deeper than `_DEEPEST` levels is
    blanked out. In the copy, of the same length, the parser finds the records' bounds; a
    record that was masked is refused later, alone.
    """
    masked = bytearray(body)
    if b"\\ud" in body or b"\\uD" in body:
        for at in _lone_surrogates(body):
            masked[at : at + 6] = _NUL_ESCAPE
    for start, end in _too_deep(body):
        masked[start:end] = b" " * (end - start)
    return bytes(masked) if masked != body else None


def _too_deep(body: bytes) -> list[tuple[int, int]]:
    """Return what stands inside brackets of the deepest level allowed, by start and end."""
    spans: list[tuple[int, int]] = []
    depth = start = 0
    for token in _TEXT_OR_BRACKET.finditer(body):
        sign = token[0]
        if sign in b"[{":
            depth += 1
            if depth == _DEEPEST:
                start = token.end()
        elif sign in b"]}":
            if depth == _DEEPEST and token.start() > start:
                spans.append((start, token.start()))
            depth -= 1
    return spans


class Originals:
    """Gives, for the slices of a masked copy, the text that was sent."""

    def __init__(self, body: bytes, masked: bytes) -> None:
        self._body = body
        self._masked = masked
        self._at = 0

    def of(self, slice_: msgspec.Raw) -> bytes:
        masked = bytes(slice_)
        # Asked in the order of the wire, as good as always: then each is found at once.
        start = self._masked.find(masked, self._at)
        if start < 0:
            start = self._masked.index(masked)
        self._at = start + len(masked)
        return self._body[start : self._at]


def plain_int(value: object, *, bits: int = 64) -> int | None:
    """
    Return an integer, or the integer whose canonical digits the text is; else None.

    "412" is 412; "0412", " 412", "4e2", True and 412.0 are None, and so is what does not
    fit the given number of bits.
    """
    if type(value) is not int:
        if type(value) is not str or len(value) > 20 or not value.isascii():
            return None
        digits = value[1:] if value[:1] == "-" else value
        if not digits.isdigit() or (digits[0] == "0" and value != "0"):
            return None
        value = int(value)
    return value if -(1 << (bits - 1)) <= value < 1 << (bits - 1) else None
