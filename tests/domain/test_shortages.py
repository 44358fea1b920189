"""A shortage is told once, in advance, and again only if it moves enough for somebody to act otherwise."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bibwire.domain.pace import Counts, sufficient_calls, usable_calls
from bibwire.domain.schedule import FORESIGHT, Shortage
from bibwire.domain.shortages import Told, is_news, is_over, to_tell
from bibwire.domain.tiers import Tier

NOON = datetime(2026, 9, 12, 16, 0, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
BEGIN, END = NOON + 2 * DAY, NOON + 2 * DAY + 5 * HOUR


def shortage(begins_at: datetime = BEGIN, ends_at: datetime = END, needed: float = 1000.0) -> Shortage:
    return Shortage(begins_at, ends_at, needed, 800.0, (1, 2))


def told(begins_at: datetime = BEGIN, ends_at: datetime | None = END) -> Told:
    return Told(begins_at, ends_at, 1000.0)


def test_one_that_was_not_foreseen_is_told_and_the_same_again_is_not() -> None:
    assert is_news(None, shortage(), now=NOON)
    assert to_tell(shortage(), now=NOON) == told()
    assert not is_news(told(), shortage(), now=NOON + 30 * MINUTE)
    assert not is_news(None, None, now=NOON)


@pytest.mark.parametrize(
    ("moved", "news"),
    [
        (shortage(begins_at=BEGIN + 10 * MINUTE), False),
        (shortage(begins_at=BEGIN + 16 * MINUTE), True),
        (shortage(begins_at=BEGIN - 16 * MINUTE), True),
        (shortage(ends_at=END + 50 * MINUTE), False),
        (shortage(ends_at=END + 61 * MINUTE), True),
        (shortage(ends_at=END - 61 * MINUTE), True),
        (shortage(needed=1090), False),
        (shortage(needed=1110), True),
        (shortage(needed=810), False),
    ],
)
def test_one_that_moves_is_told_again_if_it_moves_far(moved: Shortage, news: bool) -> None:
    assert is_news(told(), moved, now=NOON) is news


def test_one_that_comes_as_foreseen_is_not_told_while_it_lasts() -> None:
    for minutes in range(0, 300, 30):
        now = BEGIN + minutes * MINUTE
        assert not is_news(told(), shortage(begins_at=now), now=now)
        assert not is_over(told(), shortage(begins_at=now), now=now)


def test_one_that_lasts_a_little_longer_than_was_told_is_not_over_until_it_is() -> None:
    longer, now = shortage(begins_at=END + MINUTE, ends_at=END + 50 * MINUTE), END + MINUTE

    assert not is_over(told(), longer, now=now)
    assert not is_news(told(), longer, now=now)
    assert is_over(told(), None, now=END + 50 * MINUTE)


def test_one_without_an_end_in_sight_is_told_once_and_its_end_is_not() -> None:
    endless = to_tell(shortage(begins_at=NOON, ends_at=NOON + FORESIGHT), now=NOON)
    assert endless.ends_at is None
    for hours in (1, 30, 300):
        now = NOON + hours * HOUR
        assert not is_news(endless, shortage(begins_at=now, ends_at=now + FORESIGHT), now=now)
        assert not is_over(endless, shortage(begins_at=now, ends_at=now + FORESIGHT), now=now)
    in_sight = shortage(begins_at=NOON + HOUR, ends_at=NOON + FORESIGHT + 2 * HOUR)
    assert not is_news(endless, in_sight, now=NOON + HOUR)


def test_one_that_has_passed_or_does_not_come_any_more_is_over() -> None:
    next_week = shortage(begins_at=END + 5 * DAY, ends_at=END + 5 * DAY + HOUR)

    assert is_over(told(), None, now=NOON + HOUR)
    assert is_over(told(), next_week, now=END)
    assert is_news(told(), next_week, now=END)
    assert not is_over(told(), shortage(), now=NOON)
    assert not is_over(None, None, now=NOON)
    assert not is_over(None, next_week, now=NOON)


@given(needed=st.floats(1, 1e6), hot=st.integers(0, 2000))
def test_the_calls_said_to_suffice_do_and_fewer_do_not(needed: float, hot: int) -> None:
    calls = sufficient_calls(needed, hot=hot)
    counts: Counts = Counter({Tier.HOT: hot})

    assert usable_calls(calls, counts) == pytest.approx(needed)
    assert usable_calls(calls * 0.999, counts) < needed
