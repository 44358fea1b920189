"""
JSON read without losing a digit, and told apart from what PostgreSQL cannot hold.

Integers of any size stay integers and every other number becomes a Decimal. A text with
U+0000 or half a surrogate pair is valid JSON as sent by some, but no PostgreSQL text or jsonb
can hold it; a number of a million digits neither; NaN is no JSON at all. A record of a person
with one of these is refused (`decode_record`); of a race, an event or a team the rest is read
(`decode_storable`). One call reads at most one record, and a record is bounded, so that no call
keeps the interpreter for long.
"""

from __future__ import annotations

import re
from contextlib import suppress
from decimal import Decimal
from typing import Any, Final

import msgspec

from bibwire.api.apart import step
from bibwire.domain.errors import BadRecord

# What `numeric`, and so a number in jsonb, holds: 131,072 digits before the point and 16,383
# after it. Well inside both, and far beyond anything that means something.
_MOST_DIGITS: Final = 1000
# A person is 2 kB, a race with its description and its events of all years some hundred at most.
# Decoding this much takes some 30 ms, during which nothing else of this process runs.
LONGEST_RECORD: Final = 2 << 20
_MOST_CONTAINERS: Final = 50_000
_MOST_VALUES: Final = 250_000
_TOKENS_A_STEP: Final = 4096
# So little text is no burden, whatever it holds.
LIGHT: Final = 8 << 10
# The parser gives up at about a thousand levels; no record of the vendor's has ten.
_DEEPEST: Final = 500

_ESCAPED_UNIT: Final = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)
_NUL_ESCAPE: Final = b"\\u0000"
_REPLACEMENT: Final = b"\\ufffd"
# Each sign is looked at once: every branch takes all that it has read, an unclosed text too, up to
# the end. (Without that the search begins again at every quote in it: quadratic.)
_TOKEN: Final = re.compile(
    rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[\]{}]|[^\s,:"\[\]{}]++',
    re.DOTALL,
)
# What cannot stay as it is in a text; whole pairs and ordinary escapes are met to be passed over.
_IN_TEXT: Final = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|(?P<nul>\\u0000)|\\.|(?P<control>[\x00-\x1f])",
    re.DOTALL,
)
_NO_NUMBER: Final = re.compile(rb"[+-]?(?:NaN|Infinity|inf|nan)")

TOO_LARGE: Final = "the record is far larger than any that is known"
_NUL: Final = "a text of the record holds the character U+0000"
_HALF: Final = "a text of the record holds half a surrogate pair"
_NOT_UTF8: Final = "the record is not UTF-8"
_NUMBER: Final = "a number of the record is too large to be stored"
_NAN: Final = "the record holds NaN or Infinity, which is no number"
_DEEP: Final = "the record is nested too deeply"
_CONTROL: Final = "a text of the record holds a control character as it is"
_NOT_JSON: Final = "the record is not JSON"


class _TooLong(ValueError):
    pass


def _exact_number(text: str) -> Decimal:
    if len(text) > _MOST_DIGITS:
        raise _TooLong
    number = Decimal(text)
    if abs(number.adjusted()) > _MOST_DIGITS:
        raise _TooLong
    return number


_decoder: Final = msgspec.json.Decoder(float_hook=_exact_number)


def is_bounded(raw: bytes) -> bool:
    """Say whether a JSON text is small enough to be decoded in one go."""
    if len(raw) <= LIGHT:
        return True
    return (
        len(raw) <= LONGEST_RECORD
        and raw.count(b"[") + raw.count(b"{") <= _MOST_CONTAINERS
        and raw.count(b",") <= _MOST_VALUES
    )


def decode_record(raw: bytes) -> dict[str, Any]:
    """
    Return one JSON object, exact.

    Raises:
        BadRecord: If it is not an object, or holds what PostgreSQL cannot.
    """
    if len(raw) > LIGHT and not is_bounded(raw):
        raise BadRecord(TOO_LARGE)
    # From the end, where the backslash is what is looked for: half the time of `in`.
    if raw.rfind(_NUL_ESCAPE) >= 0 and _has_nul(raw):
        raise BadRecord(_NUL)
    try:
        record = _decoder.decode(raw)
    except UnicodeDecodeError:
        problem = _NOT_UTF8
    except (_TooLong, ArithmeticError):
        problem = _NUMBER
    except RecursionError:
        problem = _DEEP
    except msgspec.ValidationError:  # the only check in an untyped decode: an integer's length
        problem = _NUMBER
    except ValueError:
        # msgspec refuses half a pair and NaN by itself, so only a failure needs the look.
        problem = _problem_of(raw)
    else:
        if type(record) is dict:
            return record
        problem = "the record is not a JSON object"
    # Outside the except block: the decoder's error quotes the record, ours must not carry it.
    raise BadRecord(problem)


def decode_storable(raw: bytes) -> tuple[dict[str, Any], list[str]]:
    """
    Return one JSON object, and what in it could not be kept as sent.

    In a text U+FFFD stands for what no PostgreSQL text can hold; a number that cannot be stored,
    and what is nested too deeply, is null.

    Raises:
        BadRecord: If it is not an object.
    """
    if not is_bounded(raw):
        raise BadRecord(TOO_LARGE)
    if raw.rfind(_NUL_ESCAPE) < 0 or not _has_nul(raw):
        with suppress(ValueError, ArithmeticError, RecursionError):
            record = _decoder.decode(raw)
            if type(record) is dict:
                return record, []
    text, faults = storable(raw)
    return decode_record(text), faults


def storable(raw: bytes) -> tuple[bytes, list[str]]:
    """
    Return a record's text with what no database can hold replaced, and the reasons, each once.

    What is no JSON in any other way stays none.
    """
    faults: dict[str, None] = {}
    try:
        raw.decode()
    except UnicodeDecodeError:
        faults[_NOT_UTF8] = None
        raw = raw.decode("utf-8", "replace").encode()
    parts: list[bytes] = []
    depth = at = 0
    for number, match in enumerate(_TOKEN.finditer(raw)):
        if number % _TOKENS_A_STEP == 0:
            step()
        token = match[0]
        sign = token[:1]
        if sign in b"]}":
            depth -= 1
        if depth < _DEEPEST:
            parts.append(raw[at : match.start()])
            if sign == b'"':
                token = _IN_TEXT.sub(lambda found: _replaced(found, faults), token)
            elif sign not in b"[{]}":
                token = _storable_scalar(token, faults)
            parts.append(token)
        else:
            faults[_DEEP] = None
        at = match.end()
        if sign in b"[{":
            depth += 1
    parts.append(raw[at:])
    return b"".join(parts), list(faults)


def _replaced(found: re.Match[bytes], faults: dict[str, None]) -> bytes:
    if found["half"]:
        faults[_HALF] = None
    elif found["nul"]:
        faults[_NUL] = None
    elif found["control"]:
        faults[_CONTROL] = None
    else:
        return found[0]
    return _REPLACEMENT


def _storable_scalar(token: bytes, faults: dict[str, None]) -> bytes:
    if _NO_NUMBER.fullmatch(token):
        faults[_NAN] = None
        return b"null"
    if len(token) > _MOST_DIGITS or b"e" in token or b"E" in token:
        try:
            _decoder.decode(token)
        except (ValueError, ArithmeticError):
            faults[_NUMBER] = None
            return b"null"
    return token


def _problem_of(raw: bytes) -> str:
    """Say what is wrong with a text that the parser refused."""
    fixed, faults = storable(raw)
    try:
        _decoder.decode(fixed)
    except (ValueError, ArithmeticError, RecursionError):
        return _NOT_JSON
    return faults[0] if faults else _NOT_JSON


def _has_nul(raw: bytes) -> bool:
    return any(match[1] == b"0000" for match in _ESCAPED_UNIT.finditer(raw))


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
