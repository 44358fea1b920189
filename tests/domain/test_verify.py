"""What differs fails unless an instant explains it, and the sample is the same for the same seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bibwire.domain import verify
from bibwire.domain.merge import VENDOR_COLUMNS, Stored
from bibwire.domain.records import Registration, Removal
from bibwire.domain.verify import Meantime, Verdict

NOON = datetime(2026, 9, 12, 16, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
LATE = verify.PUBLISHED_LATE
LONG_AGO = NOON - timedelta(days=3)
# The mirror is as of noon; the listing was asked for a minute later.
MEANTIME = Meantime(NOON, NOON, NOON + timedelta(minutes=1), NOON + timedelta(minutes=2))
EMPTY = dict.fromkeys(VENDOR_COLUMNS)


def row(registration_id: int = 1, at: datetime | None = LONG_AGO, **fields: Any) -> Registration:
    return Registration(
        registration_id, **{**EMPTY, "event_id": 5, "additional_data": {}, "last_modified_at": at, **fields}
    )


def stored(registration: Registration, **fields: Any) -> Stored:
    return Stored(registration, race_id=9, as_of=NOON, **fields)


def removal(at: datetime, registration_id: int = 1) -> Removal:
    return Removal(registration_id, at, "removed", None, row(registration_id))


def compare(
    listed: list[Registration], ours: list[Stored], removals: Sequence[Removal] = ()
) -> verify.Comparison:
    return verify.compare_listing(
        {each.registration_id: each for each in listed},
        {each.registration_id: each for each in removals},
        {each.registration.registration_id: each for each in ours},
        race_id=9,
        meantime=MEANTIME,
    )


@pytest.mark.parametrize("column", [name for name in VENDOR_COLUMNS if name != "last_modified_at"])
def test_a_difference_in_any_column_is_named(column: str) -> None:
    other: Any = NOON if column == "registered_at" else {"a": 1}

    found = compare([row(**{column: other})], [stored(row())])

    assert (found.differing, dict(found.fields)) == ([1], {column: 1})


def test_another_race_is_a_difference() -> None:
    assert dict(compare([row()], [replace(stored(row()), race_id=8)]).fields) == {"race_id": 1}


@pytest.mark.parametrize(("at", "explained"), [(NOON - LATE, True), (NOON - LATE - SECOND, False)])
def test_only_what_changed_at_the_cursor_or_later_is_explained(at: datetime, explained: bool) -> None:
    for found in (
        compare([row(at=at, bib_num=7)], [stored(row())]),
        compare([row(at=at)], []),
        compare([], [stored(row())], [removal(at)]),
        compare([row(at=at)], [stored(row(), removed_at=LONG_AGO, removed_reason="absent")]),
    ):
        assert found.is_equal is explained
        assert found.explained == ([1] if explained else [])


@pytest.mark.parametrize(
    ("at", "explained"),
    [
        (MEANTIME.listed_at - LATE, True),
        (MEANTIME.listed_at - LATE - SECOND, False),
        (MEANTIME.until + verify.CLOCKS_APART, True),
        (MEANTIME.until + verify.CLOCKS_APART + SECOND, False),
    ],
)
def test_what_the_mirror_stored_since_the_listing_is_explained(at: datetime, explained: bool) -> None:
    for found in (
        compare([row()], [stored(row(at=at, bib_num=7))]),
        compare([], [stored(row(at=at))]),
        compare([row()], [stored(row(), removed_at=at, removed_reason="removed")]),
    ):
        assert found.is_equal is explained


def test_a_lagging_active_list_is_explained_by_the_later_removal() -> None:
    gone = stored(row(), removed_at=LONG_AGO + SECOND, removed_reason="removed")

    assert compare([row()], [gone], [removal(LONG_AGO + SECOND)]).is_equal
    assert compare([row()], [gone]).missing == [1]
    assert compare([row()], [gone], [removal(LONG_AGO)]).missing == [1]


def test_either_reading_of_a_repeated_hour_is_the_same() -> None:
    first = datetime(2026, 11, 1, 5, 30, tzinfo=UTC)

    assert (
        compare([row(registered_at=first)], [stored(row(registered_at=first + timedelta(hours=1)))]).same == 1
    )
    assert not compare([row(registered_at=first)], [stored(row(registered_at=first + SECOND))]).is_equal
    assert not compare([row(registered_at=first)], [stored(row(registered_at=None))]).is_equal


def removed(told: Removal, ours: Stored | None, *, listed: bool = False) -> verify.RemovedComparison:
    return verify.compare_removed(
        {1: told}, {1} if listed else set(), {} if ours is None else {1: ours}, meantime=MEANTIME
    )


def test_an_active_row_is_ruled_right_only_if_it_is_the_later_one() -> None:
    active = stored(row())

    assert removed(removal(LONG_AGO - SECOND), active).ruled == 1
    assert removed(removal(LONG_AGO), active, listed=True).ruled == 1
    assert removed(removal(LONG_AGO), active).active == [1]
    assert removed(removal(LONG_AGO + SECOND), active, listed=True).active == [1]
    assert removed(removal(NOON), active).explained == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"removed_reason": "deferred"},
        {"removed_at": LONG_AGO + SECOND},
        {"new_registration_id": 3},
        {"removed_reason": "absent"},
    ],
)
def test_a_tombstone_has_the_reason_instant_and_successor_of_the_list(fields: dict[str, Any]) -> None:
    right = stored(row(), removed_at=LONG_AGO, removed_reason="removed")

    assert removed(removal(LONG_AGO), right).same == 1
    assert removed(removal(LONG_AGO), replace(right, **fields)).differing == [1]
    assert removed(removal(LONG_AGO), None).missing == [1]


def test_a_delta_lists_what_changed_since_and_nothing_else() -> None:
    listed = {i: row(i, LONG_AGO + i * SECOND) for i in range(4)}
    since = LONG_AGO + 2 * SECOND

    def judge(delta: list[Registration], meanwhile: set[int] = set()) -> verify.DeltaComparison:  # noqa: B006
        return verify.compare_delta(
            listed,
            {each.registration_id: each for each in delta},
            since=since,
            listed_at=NOON,
            meanwhile=meanwhile,
        )

    assert judge([listed[2], listed[3]]).is_equal
    assert judge([listed[3]]).lacking == [2]
    assert judge([listed[3]], {2}).is_equal
    assert judge([listed[1], listed[2], listed[3]]).older == [1]
    assert judge([listed[2], listed[3], row(8, since)]).unlisted == [8]
    assert judge([listed[2], listed[3], row(8, NOON)]).is_equal


def test_the_middle_of_the_newest_rows_is_where_a_delta_begins() -> None:
    rows = [row(i, LONG_AGO + i * SECOND) for i in range(100)]

    assert verify.delta_begin(rows) == LONG_AGO + 89 * SECOND
    assert verify.delta_begin([row(at=None)]) is None


@pytest.mark.parametrize(
    ("pages", "cut"),
    [
        ([], None),
        ([7], None),
        ([10, 7], None),
        ([10, 10, 0], None),
        ([7, 0], None),
        ([7, 1], 7),
        ([10, 7, 0, 2], 7),
    ],
)
def test_a_page_is_cut_if_more_rows_follow(pages: list[int], cut: int | None) -> None:
    assert verify.longest_cut(pages, 10) == cut


@given(st.lists(st.none() | st.integers(-3, 400), max_size=30), st.integers(1, 10), st.integers(0, 99))
def test_what_starts_soon_is_chosen_first_and_a_seed_chooses_the_same(
    hours: list[int | None], number: int, seed: int
) -> None:
    ordered = sorted(hours, key=lambda each: (each is None, each or 0))
    starts = [(i, None if each is None else NOON + timedelta(hours=each)) for i, each in enumerate(ordered)]

    found = verify.chosen(starts, number, seed=seed, now=NOON)

    assert len(found) == len(set(found)) == min(number, len(hours))
    assert found == verify.chosen(starts, number, seed=seed, now=NOON)
    soon = [i for i, each in enumerate(ordered) if each is not None and each <= 24]
    assert found[: len(soon)] == soon[:number]
    assert found[:1] == [0][: len(hours)]


@pytest.mark.parametrize(("age", "late"), [(180.0, False), (180.1, True)])
def test_a_hot_race_is_late_after_twice_its_target_and_a_minute(age: float, late: bool) -> None:
    assert verify.is_late(age, 60) is late


@pytest.mark.parametrize(
    ("verdicts", "partners", "unverified", "code"),
    [
        ([], 0, 0, 1),
        ([Verdict.PASS, Verdict.SKIPPED], 1, 0, 0),
        ([Verdict.PASS, Verdict.FAIL, Verdict.ERROR], 1, 0, 1),
        ([Verdict.PASS, Verdict.ERROR], 2, 1, 3),
        ([Verdict.PASS, Verdict.ERROR], 1, 0, 3),
        ([Verdict.ERROR, Verdict.ERROR], 2, 2, 1),
    ],
)
def test_exit_codes(verdicts: list[Verdict], partners: int, unverified: int, code: int) -> None:
    assert verify.exit_code(verdicts, partners=partners, unverified=unverified) == code
