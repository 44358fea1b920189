"""
Values as they stand on the wire (section 5): compact escaped JSON, T/F, money, four date shapes.

Pure: no clock and no state. Instants go in as epoch seconds and come out in US Eastern, but for
the times of an event, which are naive in the race's zone and are written as they are.
"""

import codecs
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from functools import lru_cache
from typing import Any, Final
from xml.sax.saxutils import escape
from zoneinfo import ZoneInfo

import msgspec

EASTERN: Final = ZoneInfo("America/New_York")

_ascii = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), check_circular=False).encode
_utf8 = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


def _escape(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return _ascii(error.object[error.start : error.end])[1:-1], error.end


# A codec's error handler is the fastest way to touch only what is not ASCII in a long text.
codecs.register_error("rsusim.json", _escape)


def encode(value: Any, escapes: bool = True) -> bytes:
    """Return compact JSON; with `escapes` as PHP writes it: `\\/` and `\\uXXXX`."""
    if escapes:
        try:
            text = msgspec.json.encode(value)  # several times faster than json, but leaves UTF-8
        except UnicodeEncodeError:  # a lone surrogate, put there by a test
            return _ascii(value).replace("/", "\\/").encode()
        if not text.isascii():
            text = text.decode().encode("ascii", "rsusim.json")
        return text.replace(b"/", b"\\/")  # "/" occurs inside strings only
    return _utf8(value).encode("utf-8", "surrogatepass")


def flag(value: Any) -> Any:
    """Return "T" or "F"; text goes through as it is."""
    return value if isinstance(value, str) else "T" if value else "F"


def money(value: Any, negative: str = "minus") -> Any:
    """Return cents as `$1,234.50`; text and None go through as they are."""
    if not isinstance(value, int):
        return value
    text = f"${abs(value) // 100:,}.{abs(value) % 100:02d}"
    if value >= 0:
        return text
    return f"({text})" if negative == "parentheses" else f"-{text}"


# A page has 25,000 amounts, and few different ones.
_money = lru_cache(maxsize=4096)(money)


def amounts(values: Iterable[Any], negative: str) -> list[Any]:
    """Return each value as `money` does."""
    return [_money(v, negative) if type(v) is int else money(v, negative) for v in values]


def minute(value: datetime | None) -> str | None:
    """Return `n/j/Y H:i`: month and day not padded, no seconds."""
    if value is None:
        return None
    return f"{value.month}/{value.day}/{value.year} {value.hour:02d}:{value.minute:02d}"


def eastern_minute(instant: int) -> str:
    """Return the Eastern time of an instant as `n/j/Y H:i`."""
    value = datetime.fromtimestamp(instant, EASTERN)
    return f"{value.month}/{value.day}/{value.year} {value.hour:02d}:{value.minute:02d}"


def eastern_second(instant: int) -> str:
    """Return the Eastern time of an instant as `YYYY-MM-DD HH:MM:SS` (removed rows)."""
    return datetime.fromtimestamp(instant, EASTERN).strftime("%Y-%m-%d %H:%M:%S")


def padded_day(value: date | None) -> str | None:
    """Return `MM/DD/YYYY` (a race's next and last dates)."""
    return None if value is None else f"{value.month:02d}/{value.day:02d}/{value.year:04d}"


def midnight(value: date) -> str:
    """Return `n/j/Y 00:00` (race event days)."""
    return f"{value.month}/{value.day}/{value.year} 00:00"


_SINGULAR: Final = {
    "races": "race",
    "events": "event",
    "participants": "participant",
    "teams": "team",
    "participant_counts": "participant_count",
    "registration_periods": "registration_period",
}


def xml(value: Any, root: str) -> bytes:
    """Return the default format (section 1); enough to be XML, and to be no JSON."""
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{_element(root, value)}'.encode("utf-8", "replace")


def _element(name: str, value: Any) -> str:
    if value is None:
        return f"<{name}/>"
    if isinstance(value, Mapping):
        inner = "".join(_element(str(key), item) for key, item in value.items())
    elif isinstance(value, Sequence) and not isinstance(value, str):
        inner = "".join(_item(_SINGULAR.get(name, "item"), item) for item in value)
    else:
        inner = escape(str(value))
    return f"<{name}>{inner}</{name}>"


def _item(name: str, value: Any) -> str:
    if isinstance(value, Mapping) and list(value) == [name]:
        return _element(name, value[name])
    return _element(name, value)
