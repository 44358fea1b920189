"""A race is as urgent as its nearest start, by instants: whatever the clocks on any wall do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bibwire.domain.tiers import EventTimes, Tier, gun_of, next_boundary, tier_changes, tier_of

NOON = datetime(2026, 9, 12, 16, 0, tzinfo=UTC)
TICK = timedelta(microseconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

ZONES = (
    "America/New_York",
    "America/Chicago",
    "America/Denver",
    "America/Phoenix",
    "America/Los_Angeles",
    "Pacific/Honolulu",
    "Europe/London",
    "Australia/Sydney",
)
DAYS = (
    (2026, 9, 12),
    (2026, 10, 4),  # Sydney's clocks go forward
    (2026, 10, 25),  # London's go back
    (2026, 11, 1),  # those of the United States go back
    (2027, 3, 14),  # forward
    (2027, 3, 28),  # London's go forward
    (2027, 4, 4),  # Sydney's go back
)


def starting(*leads: timedelta | None, lasting: timedelta | None = None) -> tuple[EventTimes, ...]:
    """Events that start so long after noon; None: no start is known."""
    return tuple(
        EventTimes(
            starts_at=None if lead is None else NOON + lead,
            ends_at=None if lead is None or lasting is None else NOON + lead + lasting,
        )
        for lead in leads
    )


@pytest.fixture(params=["UTC", "America/Los_Angeles", "Pacific/Kiritimati"])
def server_zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server set to that zone."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("server_zone")
@pytest.mark.parametrize("day", DAYS)
@pytest.mark.parametrize("zone", ZONES)
def test_a_race_at_half_past_eight_is_hot_from_half_past_four_to_half_past_nine_there(
    zone: str, day: tuple[int, int, int]
) -> None:
    there = ZoneInfo(zone)
    gun = datetime(*day, 8, 30, tzinfo=there).astimezone(UTC)
    events = (EventTimes(gun, None),)

    hot = [at for minutes in range(-360, 180) if tier_of(events, at := gun + minutes * MINUTE) is Tier.HOT]

    walls = [at.astimezone(there).strftime("%H:%M") for at in hot]
    assert (walls[0], walls[-1], len(walls)) == ("04:30", "09:29", 300)
    assert tier_of(events, hot[0] - TICK) is Tier.NEAR
    assert tier_of(events, hot[-1] + MINUTE - TICK) is Tier.HOT


@pytest.mark.parametrize(
    ("gun", "hot_from"),
    [
        # The change lies between: four hours are four hours, and another time on the wall.
        (datetime(2027, 3, 14, 5, 0), "00:00 EST"),
        (datetime(2026, 11, 1, 4, 30), "01:30 EDT"),
    ],
)
def test_a_change_of_the_clocks_within_the_four_hours_does_not_lengthen_them(
    gun: datetime, hot_from: str
) -> None:
    there = ZoneInfo("America/New_York")
    starts_at = gun.replace(tzinfo=there).astimezone(UTC)

    boundary = next_boundary((EventTimes(starts_at, None),), starts_at - 5 * HOUR)

    assert boundary == starts_at - 4 * HOUR
    assert boundary.astimezone(there).strftime("%H:%M %Z") == hot_from


@pytest.mark.parametrize(
    ("lead", "tier"),
    [
        (DAY + TICK, Tier.FAR),
        (DAY, Tier.NEAR),
        (4 * HOUR + TICK, Tier.NEAR),
        (4 * HOUR, Tier.HOT),
        (0 * HOUR, Tier.HOT),
        (-1 * HOUR + TICK, Tier.HOT),
        (-1 * HOUR, Tier.AFTERGLOW),
        (-7 * DAY + TICK, Tier.AFTERGLOW),
        (-7 * DAY, None),
        (None, Tier.FAR),
    ],
)
def test_a_tier_begins_at_its_very_instant(lead: timedelta | None, tier: Tier | None) -> None:
    assert tier_of(starting(lead), NOON) is tier


@pytest.mark.parametrize(
    ("events", "tier"),
    [
        ((), None),
        # A stage race of ten days, in its third week since the start.
        (starting(-16 * DAY, lasting=10 * DAY), Tier.AFTERGLOW),
        (starting(-17 * DAY, lasting=10 * DAY), None),
        (starting(2 * HOUR, lasting=-365 * DAY), Tier.HOT),
        (starting(-7 * DAY, lasting=-365 * DAY), None),
        # Events of three days: Sunday's marathon after Friday's 5K.
        (starting(-2 * DAY, -1 * DAY, 2 * HOUR), Tier.HOT),
        (starting(-2 * DAY, -1 * DAY, 20 * HOUR), Tier.NEAR),
        # Waves: the first started long ago, the last is yet to come.
        (starting(-90 * MINUTE, -70 * MINUTE, -30 * MINUTE), Tier.HOT),
        # A series: last week's race wants its corrections, next month's can wait.
        (starting(-6 * DAY, 30 * DAY), Tier.AFTERGLOW),
        (starting(-8 * DAY, 30 * DAY), Tier.FAR),
        (starting(-8 * DAY, None), Tier.FAR),
        (starting(None, 3 * HOUR), Tier.HOT),
        # No start, but an end: it is over some day.
        ((EventTimes(None, NOON - 7 * DAY),), None),
        ((EventTimes(None, NOON - 7 * DAY + TICK),), Tier.FAR),
    ],
)
def test_the_nearest_start_counts(events: tuple[EventTimes, ...], tier: Tier | None) -> None:
    assert tier_of(events, NOON) is tier


def test_a_race_passes_through_its_tiers() -> None:
    events = starting(30 * DAY, lasting=2 * DAY)

    assert list(tier_changes(events, NOON)) == [
        (NOON + 29 * DAY, Tier.NEAR),
        (NOON + 30 * DAY - 4 * HOUR, Tier.HOT),
        (NOON + 30 * DAY + HOUR, Tier.AFTERGLOW),
        (NOON + 39 * DAY, None),
    ]


def test_a_series_is_near_again_between_its_days() -> None:
    events = starting(5 * HOUR, 29 * HOUR)

    assert list(tier_changes(events, NOON)) == [
        (NOON + HOUR, Tier.HOT),
        (NOON + 6 * HOUR, Tier.NEAR),
        (NOON + 25 * HOUR, Tier.HOT),
        (NOON + 30 * HOUR, Tier.AFTERGLOW),
        (NOON + 29 * HOUR + 7 * DAY, None),
    ]


def test_a_race_without_any_start_never_changes() -> None:
    assert next_boundary(starting(None), NOON) is None


def test_a_start_at_the_end_of_the_calendar_is_far() -> None:
    """Organisers type such years for "to be announced"."""
    events = (EventTimes(datetime(9999, 12, 31, 12, tzinfo=UTC), None),)

    assert tier_of(events, NOON) is Tier.FAR
    assert next_boundary(events, NOON) == datetime(9999, 12, 30, 12, tzinfo=UTC)


def test_the_gun_told_is_the_one_to_come() -> None:
    assert gun_of(starting(-10 * MINUTE, 3 * HOUR, 2 * HOUR), Tier.HOT, NOON) == NOON + 2 * HOUR
    assert gun_of(starting(-30 * MINUTE, -10 * MINUTE), Tier.HOT, NOON) == NOON - 10 * MINUTE
    assert gun_of(starting(-6 * DAY, 30 * DAY), Tier.AFTERGLOW, NOON) == NOON - 6 * DAY
    assert gun_of(starting(None), Tier.FAR, NOON) is None


LEADS = st.one_of(
    st.none(),
    st.integers(-10 * 86_400, 10 * 86_400).map(lambda seconds: timedelta(seconds=seconds)),
    st.sampled_from([-7 * DAY, -HOUR, 4 * HOUR, DAY]),
)
EVENTS = st.lists(
    st.builds(
        lambda start, end: EventTimes(
            None if start is None else NOON + start, None if end is None else NOON + end
        ),
        LEADS,
        LEADS,
    ),
    max_size=5,
).map(tuple)


@given(events=EVENTS)
def test_between_two_boundaries_the_tier_stands_still(events: tuple[EventTimes, ...]) -> None:
    """Also for an end before the start, which organisers type."""
    now, tier = NOON, tier_of(events, NOON)
    changes = list(tier_changes(events, NOON))
    for instant, after in changes:
        assert next_boundary(events, now) == next_boundary(events, instant - TICK) == instant
        assert tier_of(events, now + (instant - now) / 2) is tier_of(events, instant - TICK) is tier
        assert tier_of(events, instant) is after is not tier
        now, tier = instant, after
    assert next_boundary(events, now) is None
    assert tier_of(events, now + 1000 * DAY) is tier
