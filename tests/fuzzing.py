"""
Values as nobody should send them, and how many of them are tried.

In the suite the examples are few and the same each time. BIBWIRE_FUZZ_EXAMPLES, set by `make fuzz`,
says how many instead, and these are others each time; a failure prints how to repeat it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import hypothesis
from hypothesis import strategies as st

T = TypeVar("T")
EXAMPLES: Final = int(os.environ.get("BIBWIRE_FUZZ_EXAMPLES", "0"))


def examples(few: int, *, cost: int = 1) -> hypothesis.settings:
    """
    Return the settings of a test.

    Args:
        few: How many examples the suite runs.
        cost: How many times dearer than decoding one is, by which `make fuzz` runs fewer.
    """
    checks = [hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow]
    return hypothesis.settings(
        max_examples=max(few, EXAMPLES // cost),
        suppress_health_check=[*checks, hypothesis.HealthCheck.large_base_example],
    )


class Pairs(list[tuple[str, Any]]):
    """An object's keys and values, of which a key may stand there twice."""


@dataclass(frozen=True)
class Verbatim:
    """A text that stands in the JSON as it is, without quotes."""

    text: str

    def __repr__(self) -> str:
        return f"Verbatim({self.text[:30]!r}, {len(self.text)})"


def one_of(values: Sequence[T]) -> st.SearchStrategy[T]:
    """Return one of these, a copy, and without all of them in the report of a failure."""
    at = st.integers(0, len(values) - 1)
    return st.builds(_Picked(values), at)


class _Picked:
    """Picks a copy of a value by its place; its `repr` is short, which that of thousands of values is not."""

    def __init__(self, values: Sequence[Any]) -> None:
        self._values = values

    def __call__(self, at: int) -> Any:
        return deepcopy(self._values[at])

    def __repr__(self) -> str:
        return f"pick<{len(self._values)}>"


def render(value: Any) -> str:
    """Return JSON text, also of what is no JSON: NaN, halves of pairs, keys that stand twice."""
    if isinstance(value, Verbatim):
        return value.text
    if isinstance(value, dict):
        value = Pairs(value.items())
    if isinstance(value, Pairs):
        return "{" + ",".join(f"{json.dumps(key)}:{render(each)}" for key, each in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(render(each) for each in value) + "]"
    return json.dumps(value)


def encode(value: Any) -> bytes:
    """Return the bytes of it; what is no text stays as it was made."""
    return render(value).encode("utf-8", "surrogatepass")


# What a program that was written for ordinary answers stumbles over.
ODD: Final[tuple[Any, ...]] = (
    None, True, False, "", " ", [], {}, [[]], [{}], {"": ""}, 0, -1, -0.0, 1.5, 1e308, float("nan"),
    float("inf"), float("-inf"), 2**31 - 1, 2**31, -(2**31) - 1, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1,
    2**64, 10**40, 253402300799, 253402300800, "0", "-1", "-0", "007", "1e3", "9" * 30, "９", "٣", "²",
    "\0", "a\0b", "\ud800", "\udfff x", "\ufeff", "\u202e", "\x1b[31m", "\u2028", "😀", "e\u0301" * 40,
    "\\N", "\\.", "\t\r\n", "x" * 5000, "'; DROP TABLE x; --", "%s%n{0}", "1/1/0001 00:00",
    "12/31/9999 23:59",
    "0001-01-01 00:00:00", "9999-12-31 23:59:59", "0001-01-01", "9999-12-31", "0000-00-00", "2/30/2026 25:61",
    "3/8/2026 02:30", "11/1/2026 01:30", "$1,234.50", "($5.00)", "$" + "9" * 24, "America/New_York",
    "Pacific/Kiritimati", "localtime", "../../etc/passwd", "5K", "1/0 mile", "½ marathon",
    Verbatim("1e999"), Verbatim("1e-99999"), Verbatim("-1E+400"), Verbatim("9" * 400), Verbatim("9" * 5000),
    Verbatim("0." + "1" * 1500), Verbatim("1e" + "9" * 30), Verbatim("[" * 600 + "]" * 600),
    Verbatim('{"a":' * 1200 + "1" + "}" * 1200), Verbatim('"\\ud83d"'), Verbatim('"\\uD83D\\uDE00"'),
    Verbatim('"\\\\u0000"'), Verbatim('"\\u0000\\u0000"'), Verbatim("nan"), Verbatim("-Infinity"),
    Verbatim('"\x01"'), Verbatim('"\ud800"'), Verbatim('"a\x7f"'),
)  # fmt: skip
# As above, of what stands where something was meant to end.
BROKEN: Final = tuple(
    map(Verbatim, ("}", "]", '"', "01", "1.", "--1", "'a'", "undefined", '"\\x"', "{", "[1,,2]"))
)

texts = st.text(st.characters(), max_size=12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts | one_of(ODD),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)


def _nodes(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield (*path, key)
            yield from _nodes(value[key], (*path, key))


@st.composite
def altered(draw: st.DrawFn, value: Any, *, most: int = 3) -> Any:
    """Return a copy of a JSON value in which some things are taken out, renamed, doubled or replaced."""
    value = deepcopy(value)
    for _ in range(draw(st.integers(1, most))):
        paths = list(_nodes(value))
        if not paths:
            return draw(json_values)
        *parents, key = paths[draw(st.integers(0, len(paths) - 1))]
        holder = value
        for each in parents:
            holder = holder[each]
        match draw(st.sampled_from(["odd", "odd", "any", "take", "name", "twice", "wrap"])):
            case "odd":
                holder[key] = draw(one_of(ODD))
            case "any":
                holder[key] = draw(json_values)
            case "take":
                del holder[key]
            case "name" if isinstance(holder, dict):
                holder[draw(texts)] = holder.pop(key)
            case "twice" if isinstance(holder, list):
                holder.insert(draw(st.integers(0, len(holder))), deepcopy(holder[key]))
            case _:
                holder[key] = draw(one_of([[holder[key]], {"x": holder[key]}, render(holder[key])]))
    return value


@st.composite
def doubled_keys(draw: st.DrawFn, record: dict[str, Any]) -> Pairs:
    """Return an object in which one key stands twice, the second time with another value."""
    pairs = Pairs(record.items())
    if pairs:
        key, _ = pairs[draw(st.integers(0, len(pairs) - 1))]
        pairs.insert(draw(st.integers(0, len(pairs))), (key, draw(one_of(ODD))))
    return pairs


@st.composite
def damaged(draw: st.DrawFn, body: bytes) -> bytes:
    """Return bytes of which some are others, gone, or there twice."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(body)))
        end = at + draw(st.integers(0, 40))
        head, part, tail = body[:at], body[at:end], body[end:]
        match draw(st.sampled_from(["cut", "begin", "put", "flip", "drop", "twice", "sign"])):
            case "cut":
                body = head
            case "begin":
                body = part + tail
            case "put":
                body = head + draw(st.binary(max_size=6)) + part + tail
            case "flip":
                body = head + bytes(each ^ 1 << at % 8 for each in part) + tail
            case "drop":
                body = head + tail
            case "twice":
                body = head + part + part + tail
            case _:
                body = head + draw(one_of(SIGNS)) + part[1:] + tail
    return body


SIGNS: Final = (
    b"", b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\0", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf",
    b"\\u0000", b"\\ud800", b"NaN", b"1e999", b"-", b"9" * 25, b" " * 20, b"[" * 2000, b'{"a":' * 2000, b"/",
)  # fmt: skip
