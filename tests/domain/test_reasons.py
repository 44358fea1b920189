"""The operator reads how often a race is polled, and why."""

from __future__ import annotations

from datetime import timedelta

import pytest

from bibwire.domain.reasons import reason
from bibwire.domain.tiers import Tier

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def words(
    tier: Tier,
    every: float,
    to_gun: timedelta | None = 2 * HOUR,
    *,
    rate: float = 0.0,
    calls: float = 480.4,
    failures: int = 0,
    loaded: bool = True,
    calls_a_poll: int = 1,
    because: str | None = None,
) -> str:
    return reason(
        tier,
        every_seconds=every,
        because=because,
        to_gun=to_gun,
        changes_per_minute=rate,
        calls=calls,
        calls_a_poll=calls_a_poll,
        of_calls=1000,
        failures=failures,
        loaded=loaded,
    )


def test_a_hot_race_tells_its_changes_and_its_calls() -> None:
    told = words(Tier.HOT, 9.0, 42 * MINUTE, rate=14.2)

    assert told == "every 9 s: gun in 42 min, 14 changes/min, 480 calls/h of 1,000"


def test_a_race_day_without_a_believable_start_says_why_it_is_hot() -> None:
    told = words(Tier.HOT, 60.0, -7 * HOUR, because="a start at 00:00 is taken for a placeholder")

    assert told == (
        "every 60 s: race day: a start at 00:00 is taken for a placeholder, no changes lately, "
        "480 calls/h of 1,000"
    )


def test_a_race_whose_polls_take_several_calls_says_so() -> None:
    told = words(Tier.NEAR, 900.0, 10 * HOUR, calls_a_poll=3)

    assert told == "every 15 min: gun in 10 h, 3 calls a poll because its events are asked for apart"


@pytest.mark.parametrize(
    ("rate", "told"),
    [
        (0.0, "no changes lately"),
        (0.049, "no changes lately"),
        (0.5, "0.5 changes/min"),
        (1.04, "1 change/min"),
        (1.5, "1.5 changes/min"),
    ],
)
def test_changes_are_counted_in_the_right_number(rate: float, told: str) -> None:
    assert words(Tier.HOT, 60.0, rate=rate).split(", ")[1] == told


@pytest.mark.parametrize(
    ("to_gun", "told"),
    [
        (0.4 * SECOND, "gun now"),
        (-1 * SECOND, "gun was 1 s ago"),
        (90 * SECOND, "gun in 90 s"),
        (-3 * HOUR, "gun was 3 h ago"),
        (-6 * DAY, "gun was 6 days ago"),
        (47 * HOUR, "gun in 47 h"),
        (48 * HOUR, "gun in 2 days"),
        (12 * DAY + 2 * HOUR, "gun in 12 days"),
        (None, "no start time known"),
    ],
)
def test_the_gun_is_told_in_the_unit_a_person_would_choose(to_gun: timedelta | None, told: str) -> None:
    assert words(Tier.NEAR, 900.0, to_gun) == f"every 15 min: {told}"


def test_the_slow_tiers_tell_their_pace() -> None:
    assert words(Tier.AFTERGLOW, 3600.0, -3 * HOUR) == "hourly: gun was 3 h ago"
    assert words(Tier.FAR, 14_400.0, 12 * DAY) == "every 4 h: gun in 12 days"


@pytest.mark.parametrize(
    ("tier", "every", "pace"),
    [
        (Tier.HOT, 83.2, "every 83 s instead of 60 s"),
        (Tier.HOT, 150.0, "every 2.5 min instead of 60 s"),
        (Tier.HOT, 60.2, "every 60 s"),
        (Tier.NEAR, 3600.0, "every 60 min instead of 15 min"),
        (Tier.AFTERGLOW, 21_600.0, "every 6 h instead of 60 min"),
        (Tier.FAR, 28_000.0, "every 7.8 h instead of 4 h"),
        (Tier.FAR, 1_000_000.0, "every 12 days instead of 4 h"),
    ],
)
def test_a_shortage_tells_what_it_should_be(tier: Tier, every: float, pace: str) -> None:
    assert words(tier, every) == f"{pace}: the hour's calls do not suffice, gun in 2 h"


def test_trouble_is_told() -> None:
    assert words(Tier.NEAR, 900.0, failures=1) == "every 15 min: gun in 2 h, failed once"
    assert words(Tier.NEAR, 900.0, failures=3) == "every 15 min: gun in 2 h, failed 3 times in a row"
    assert words(Tier.NEAR, 900.0, loaded=False) == "every 15 min: gun in 2 h, not loaded yet"
