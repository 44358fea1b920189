"""
Fields taken out of a decoded record, one at a time. Pure.

A value that does not fit goes back where it was, as sent, so that columns and what is left of the
record always hold all of it. Null, absent, and for everything but texts `""`, are the same: None.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from bibwire.api.exact import plain_int

_T = TypeVar("_T")

_TOP_32: Final = 1 << 31


def take(record: dict[str, Any], key: str, read: Callable[[Any], _T | None]) -> _T | None:
    """Take a value out; put it back, as sent, if it cannot be read."""
    return put_back(record, key, record.pop(key, None), read)


def put_back(record: dict[str, Any], key: str, sent: Any, read: Callable[[Any], _T | None]) -> _T | None:
    """Return what was sent, read; if it cannot be, it goes back where it was."""
    if sent is None or sent == "":
        return None
    value = read(sent)
    if value is None:
        record[key] = sent
    return value


def take_text(record: dict[str, Any], key: str) -> str | None:
    """Take a text as sent, spaces and all; anything else stays where it is."""
    value = record.pop(key, None)
    if type(value) is str:
        return value
    if value is not None:
        record[key] = value
    return None


def take_bib(record: dict[str, Any], key: str) -> int | None:
    """Take a bib as a number; one that is not just its plain digits stays where it is, too. 0 is a bib."""
    sent = record.pop(key, None)
    if sent is None or sent == "":
        return None
    if type(sent) is int and -_TOP_32 <= sent < _TOP_32:
        return sent
    number = None
    if type(sent) is str and sent.isascii() and sent.isdigit():
        number = plain_int(sent.lstrip("0") or "0", bits=32)
    if number is None or str(number) != sent:
        record[key] = sent
    return number


def int4(value: object) -> int | None:
    return plain_int(value, bits=32)


def positive(value: object) -> int | None:
    number = plain_int(value)
    return number if number is not None and number > 0 else None
