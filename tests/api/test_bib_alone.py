"""A record of which the bib alone moved is told from any other without being read."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from bibwire.api.wire import bib_and_time, decode_participant, without_bib
from bibwire.domain.errors import BadRecord
from bibwire.domain.instants import are_readings_of_one_time
from bibwire.domain.records import Registration

PLAIN: dict[str, Any] = {
    "user": {"user_id": 5, "first_name": "Ada", "address": {"city": "Arlington"}},
    "registration_id": 92_000_007,
    "event_id": 801_001,
    "bib_num": None,
    "chip_num": None,
    "age": 41,
    "registration_date": "11/1/2026 1:15",  # there are two of these
    "last_modified": 1_789_232_400,
    "race_fee": "$70.00",
    "giveaway": None,
}


def record(**changes: object) -> bytes:
    return json.dumps(PLAIN | changes, separators=(",", ":")).encode()


def test_a_bib_and_its_time_are_read_alone() -> None:
    before, after = record(), record(bib_num=101, last_modified=1_789_236_000)

    assert without_bib(before) == without_bib(after) is not None
    assert bib_and_time(after) == (101, datetime.fromtimestamp(1_789_236_000, UTC))


@pytest.mark.parametrize(
    "changes",
    [
        {"bib_num": "A12"},
        {"bib_num": "0101"},
        {"bib_num": ""},
        {"bib_num": -4},
        {"bib_num": 2**40},
        {"bib_num": 1.5},
        {"bib_num": True},
        {"bib_num": {"bib_num": 5}},
        {"last_modified": None},
        {"last_modified": "1789232400"},
        {"last_modified": 10**15},
        {"last_modified": 9_999_999_999},
    ],
    ids=str,
)
def test_a_value_that_is_not_plain_is_left_to_who_reads_all(changes: dict[str, Any]) -> None:
    raw = record(**changes)

    assert without_bib(raw) is None or bib_and_time(raw) is None or bib_and_time(raw) == _decoded(raw)


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ('{"user":{"bib_num":5,"x":1},"registration_id":1,"last_modified":9,"y":1}', '"bib_num":6'),
        ('{"user":{"bib_num":null,"x":1},"registration_id":1,"last_modified":9,"y":1}', '"bib_num":6'),
        ('{"bib_num":5,"u":{"bib_num":5},"registration_id":1,"last_modified":9,"y":1}', '"bib_num":6'),
        ('{"bib_num":5,"bib_num":7,"registration_id":1,"last_modified":9,"y":1}', '"bib_num":6'),
        (
            '{"u":{"bib_num":5,"z":0},"bib\\u005fnum":7,"registration_id":1,"last_modified":9,"y":1}',
            '"bib_num":6',
        ),
        ('{"bib_num":5,"registration_id":1,"u":{"last_modified":8,"z":1},"y":1}', '"bib_num":6'),
    ],
)
def test_a_bib_anywhere_else_is_not_taken_for_the_bib(text: str, other: str) -> None:
    """Such a record differs in more than its bib, or it is left to who reads all of it."""
    for raw in (text, text.replace('"bib_num":5', other), text.replace('"bib_num":null', other)):
        assert bib_and_time(raw.encode()) is None


# Texts and keys that look like the keys themselves.
_texts = st.sampled_from(
    [
        "bib_num",
        '"bib_num":5,',
        '\\"bib_num\\":7,"',
        "last_modified",
        '"last_modified":1,',
        "\\",
        "é 王",
        "{",
        ",",
    ]
)
_junk = st.recursive(
    st.none() | st.integers(-5, 5) | st.booleans() | _texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_texts, inner, max_size=2),
    max_leaves=4,
)
_bibs = (
    st.none()
    | st.integers(-1, 12)
    | st.sampled_from([2**31 - 1, 2**31, 10**9 - 1, 10**9, 2**70, "7", "", "B7"])
)
_times = st.sampled_from([0, 1, 1_793_510_100, 1_793_513_700, 1_793_513_730, 10**10 - 1, 10**10, None, "9"])


@st.composite
def _pairs(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Two records: the same but for bib and time, and sometimes for more."""
    keys = list(PLAIN)
    draw(st.randoms(use_true_random=False)).shuffle(keys)
    extra = draw(st.dictionaries(_texts, _junk, max_size=2))
    ascii_ = draw(st.booleans())
    found = []
    for _ in range(2):
        made = (
            {key: PLAIN[key] for key in keys}
            | {"bib_num": draw(_bibs), "last_modified": draw(_times)}
            | extra
        )
        if draw(st.integers(0, 4)) == 0:
            made[draw(_texts)] = draw(_junk)
        if draw(st.integers(0, 4)) == 0:
            del made[draw(st.sampled_from(["bib_num", "last_modified", "age"]))]
        found.append(json.dumps(made, separators=(",", ":"), ensure_ascii=ascii_).encode())
    return found[0], found[1]


@given(_pairs())
@example((record(bib_num=2**40), record(bib_num=5)))
def test_what_is_the_same_but_for_bib_and_time_decodes_to_the_same(pair: tuple[bytes, bytes]) -> None:
    before, after = pair
    rest, moved = without_bib(after), bib_and_time(after)
    if rest is None or moved is None or without_bib(before) != rest:
        return

    one, other = _read(before), _read(after)

    assert one is not None
    assert other is not None
    assert (other.bib_num, other.last_modified_at) == moved
    if one.registered_at != other.registered_at:  # the time tells which of two readings it was
        assert one.registered_at is not None
        assert other.registered_at is not None
        assert are_readings_of_one_time(one.registered_at, other.registered_at)
    assert (
        replace(one, bib_num=moved[0], last_modified_at=moved[1], registered_at=other.registered_at) == other
    )


def _read(raw: bytes) -> Registration | None:
    try:
        return decode_participant(raw)
    except BadRecord:
        return None


def _decoded(raw: bytes) -> tuple[int | None, datetime | None]:
    registration = decode_participant(raw)
    return registration.bib_num, registration.last_modified_at
