"""Whatever organizers type for a start, their race is hot on the morning of its day."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bibwire.domain.race_days import HotSpan, Start, hot_spans
from bibwire.domain.tiers import EventTimes, Tier, longer_because, tier_of

CHICAGO = ZoneInfo("America/Chicago")
EASTERN = ZoneInfo("America/New_York")
SATURDAY = date(2026, 9, 19)


def wall(text: str, zone: ZoneInfo = CHICAGO) -> datetime:
    """An instant, from such as "19 07:40": day of September and hour in that zone."""
    day, hour = text.split()
    return datetime.fromisoformat(f"2026-09-{day}T{hour}").replace(tzinfo=zone).astimezone(UTC)


def spans(
    *typed: str | tuple[str, str | None] | None,
    zone: ZoneInfo | None = CHICAGO,
    next_date: date | None = None,
) -> list[HotSpan | None]:
    """Spans of events with these starts, or starts and ends."""
    read_in = zone or EASTERN
    starts = []
    for each in typed:
        start, end = each if isinstance(each, tuple) else (each, None)
        starts.append(
            Start(
                None if start is None else wall(start, read_in), None if end is None else wall(end, read_in)
            )
        )
    return hot_spans(starts, zone=zone, fallback=EASTERN, next_date=next_date)


def told(span: HotSpan | None, zone: ZoneInfo = CHICAGO) -> str:
    assert span is not None
    return f"{span.hot_from.astimezone(zone):%d %H:%M} to {span.hot_until.astimezone(zone):%d %H:%M}"


@pytest.mark.parametrize("start", ["04:00", "05:45", "07:00", "09:30", "13:00", "18:00", "21:30"])
def test_a_start_that_can_be_one_is_hot_from_four_hours_before_to_one_after(start: str) -> None:
    [span] = spans(f"19 {start}")

    assert span is not None
    assert (span.hot_from, span.hot_until) == (
        wall(f"19 {start}") - timedelta(hours=4),
        wall(f"19 {start}") + timedelta(hours=1),
    )
    assert span.because is None


@pytest.mark.parametrize("start", ["00:00", "00:01", "01:00", "03:30", "12:00", "22:00", "23:59"])
def test_a_placeholder_is_hot_from_early_morning_to_the_evening(start: str) -> None:
    [span] = spans(f"19 {start}")

    assert span is not None
    assert span.hot_from <= wall("19 04:00")
    assert span.hot_until >= wall("19 21:00")
    # The start may be one all the same.
    assert span.hot_from <= wall(f"19 {start}") - timedelta(hours=4)
    assert span.hot_until >= wall(f"19 {start}") + timedelta(hours=1)
    assert span.because == f"a start at {start} is taken for a placeholder"


def test_a_placeholder_with_an_end_is_hot_until_an_hour_after_it() -> None:
    assert told(spans(("19 00:00", "19 14:00"))[0]) == "18 20:00 to 19 15:00"
    assert told(spans(("19 00:00", "19 23:59"))[0]) == "18 20:00 to 19 21:00"
    assert told(spans(("19 00:00", "20 00:00"))[0]) == "18 20:00 to 19 21:00"


def test_a_weekend_under_one_placeholder_is_hot_to_its_last_evening_and_a_month_on_its_first_day() -> None:
    assert told(spans(("18 00:00", "20 23:59"))[0]) == "17 20:00 to 20 21:00"
    assert told(spans(("01 00:00", "30 23:59"))[0]) == "31 20:00 to 01 21:00"


def test_an_end_before_the_start_ends_nothing() -> None:
    assert told(spans(("19 00:00", "12 14:00"))[0]) == "18 20:00 to 19 21:00"


def test_several_starts_of_a_day_are_one_race_day() -> None:
    first, second, third = spans("19 07:00", "19 18:00", "20 09:00")

    assert told(first) == told(second) == "19 03:00 to 19 19:00"
    assert first is not None
    assert first.because == "several starts that day"
    assert told(third) == "20 05:00 to 20 10:00"


def test_an_event_without_a_start_is_hot_on_the_races_next_day() -> None:
    [span, other] = spans(None, "19 08:00", next_date=SATURDAY)

    assert told(span) == told(other) == "19 04:00 to 19 21:00"
    assert spans(None) == [None]


def test_a_race_in_an_unknown_zone_is_hot_while_it_is_its_day_anywhere() -> None:
    [span] = spans("19 08:00", zone=None)

    assert span is not None
    for zone in ("Pacific/Honolulu", "America/New_York", "Europe/London", "Pacific/Auckland"):
        assert span.hot_from <= wall("19 04:00", ZoneInfo(zone))
        assert span.hot_until >= wall("19 09:00", ZoneInfo(zone))
    assert span.because == "the race's time zone is unknown"


@pytest.mark.parametrize(
    "at", [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)]
)
def test_the_ends_of_the_calendar_are_no_day(at: datetime) -> None:
    assert hot_spans([Start(at, at)], zone=CHICAGO, fallback=EASTERN, next_date=None) == [None]


@given(
    starts=st.lists(
        st.builds(
            Start,
            st.none() | st.datetimes(timezones=st.just(UTC)),
            st.none() | st.datetimes(timezones=st.just(UTC)),
        ),
        max_size=3,
    ),
    zone=st.sampled_from(
        (None, *map(ZoneInfo, ("Pacific/Kiritimati", "America/Chicago", "Pacific/Pago_Pago")))
    ),
    next_date=st.none() | st.dates() | st.sampled_from((date.min, date.max)),
)
@example([Start(None, None)], CHICAGO, date.max)
@example([Start(None, None)], ZoneInfo("Pacific/Kiritimati"), date.min)
def test_any_time_and_day_that_there_is_makes_a_span_or_none(
    starts: list[Start], zone: ZoneInfo | None, next_date: date | None
) -> None:
    found = hot_spans(starts, zone=zone, fallback=EASTERN, next_date=next_date)

    assert len(found) == len(starts)
    if zone is not None:  # where days begin first they once began last
        assert all(span is None or span.hot_from <= span.hot_until for span in found)


@given(
    minutes=st.integers(0, 24 * 60 - 1),
    zone=st.sampled_from(("America/Chicago", "Pacific/Honolulu", "Europe/London", "Australia/Sydney")),
    day=st.dates(date(2026, 1, 1), date(2027, 12, 31)),
)
def test_no_start_makes_a_race_less_hot_than_the_owners_hours(minutes: int, zone: str, day: date) -> None:
    there = ZoneInfo(zone)
    start = (datetime.combine(day, datetime.min.time(), there) + timedelta(minutes=minutes)).astimezone(UTC)

    [span] = hot_spans([Start(start, None)], zone=there, fallback=EASTERN, next_date=None)

    assert span is not None
    assert span.hot_from <= start - timedelta(hours=4)
    assert span.hot_until >= start + timedelta(hours=1)


def test_at_twenty_to_eight_a_race_typed_as_midnight_is_hot_and_says_why() -> None:
    [span] = spans("19 00:00")
    assert span is not None
    event = EventTimes(wall("19 00:00"), None, span.hot_from, span.hot_until, span.because)

    at = wall("19 07:40")

    assert tier_of([event], at) is Tier.HOT
    assert longer_because([event], at) == "a start at 00:00 is taken for a placeholder"
    assert tier_of([EventTimes(wall("19 00:00"), None)], at) is Tier.AFTERGLOW
    # Around the start that was typed that start is reason enough.
    assert longer_because([event], wall("18 23:00")) is None
