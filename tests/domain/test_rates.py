"""What was seen of a race says when to look again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bibwire.domain.schedule import (
    FLOOR_SECONDS,
    probe_seconds,
    rate_after,
    wait_after_failure,
    wait_after_poll,
)

NOON = datetime(2026, 9, 12, 16, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize("seconds", [5, 9, 60, 900, 14_400])
def test_a_steady_rate_is_found_whatever_the_polls(seconds: int) -> None:
    rate, now = 0.0, NOON
    # Two changes a minute; what does not come to a whole one is left to the next poll.
    owed = 0.0
    while now < NOON + 90 * MINUTE or now == NOON:
        owed += seconds / 30
        now += seconds * SECOND
        rate = rate_after(rate, now - seconds * SECOND, int(owed), now)
        owed -= int(owed)

    assert rate == pytest.approx(2.0, rel=0.1)


def test_without_changes_half_is_forgotten_in_ten_minutes() -> None:
    assert rate_after(14, NOON, 0, NOON + 10 * MINUTE) == pytest.approx(7)
    assert rate_after(14, NOON, 0, NOON + timedelta(days=300)) == pytest.approx(0)


@given(rate=st.floats(0, 100), first=st.integers(0, 10_000), second=st.integers(0, 10_000))
def test_a_rate_read_in_between_is_forgotten_alike(rate: float, first: int, second: int) -> None:
    between, end = NOON + first * SECOND, NOON + (first + second) * SECOND

    twice = rate_after(rate_after(rate, NOON, 0, between), between, 0, end)

    assert twice == pytest.approx(rate_after(rate, NOON, 0, end))


def test_the_first_observation_is_no_burst() -> None:
    assert rate_after(0, None, 0, NOON) == 0
    assert rate_after(0, None, 20, NOON) == pytest.approx(2)


def test_after_a_long_gap_the_rate_is_the_mean_of_the_gap() -> None:
    assert rate_after(0, NOON, 240, NOON + 240 * MINUTE) == pytest.approx(1)


def test_a_bulk_counts_no_more_than_the_fastest_check_in_and_is_soon_forgotten() -> None:
    rate = rate_after(3, NOON, 30_000, NOON + 9 * SECOND)

    assert rate == 100
    assert rate_after(rate, NOON, 0, NOON + 60 * MINUTE) < 2


def test_a_clock_set_back_is_no_time_passed() -> None:
    assert rate_after(3, NOON, 0, NOON - 60 * MINUTE) == 3
    assert rate_after(3, NOON, 1, NOON - MINUTE) == rate_after(3, NOON, 1, NOON)


@given(
    rate=st.floats(0, 100),
    seconds=st.floats(0, 1e8),
    changes=st.integers(0, 10**9),
)
def test_a_rate_is_a_number_within_bounds(rate: float, seconds: float, changes: int) -> None:
    assert 0 <= rate_after(rate, NOON, changes, NOON + timedelta(seconds=seconds)) <= 100


def test_a_bulk_change_brings_a_second_look_soon() -> None:
    assert wait_after_poll(14_400, 50) == 2 * FLOOR_SECONDS
    assert wait_after_poll(7, 30_000) == 7
    assert wait_after_poll(60, 49) == 60


def test_failures_back_off_up_to_the_tier() -> None:
    assert [wait_after_failure(failures, 60) for failures in range(1, 7)] == [5, 10, 20, 40, 60, 60]
    assert wait_after_failure(10**9, 14_400) == 14_400
    assert wait_after_failure(0, 60) == 5


def test_scopes_that_failed_together_come_back_apart() -> None:
    assert wait_after_failure(2, 60, spread=0.5) == 15
    assert wait_after_failure(4, 60, spread=1.0) == 60


def test_a_hot_race_that_fails_is_tried_every_ten_seconds_or_as_often_as_the_calls_allow() -> None:
    assert probe_seconds(1, 1000) == pytest.approx(10.8)
    assert probe_seconds(1, 100_000) == 10
    # Ten together are tried as often as one alone.
    assert probe_seconds(10, 100_000) == 100
    # Never more than a third of the calls.
    assert 3600 / probe_seconds(1, 100) <= 100 / 3
    assert wait_after_failure(9, 60, longest=probe_seconds(1, 1000)) == pytest.approx(10.8)
    assert wait_after_failure(9, 60, longest=probe_seconds(50, 1000)) == 60
