"""
When an event's race day is hot: from before its start until after it, and why it may be longer.

The owner's rule is four hours before a start to one hour after it. It needs a start that is one.
Many organizers leave the hour at 00:00, type a placeholder, or give the day alone, and nothing in
the vendor's answer tells. So an hour at which hardly any race starts is not believed: such a day
is hot from the early morning to the end, or the evening. Several starts in a day are one race day.
Being wrong costs calls, never freshness. Pure: no I/O and no clock. Instants are aware and in UTC;
days and hours are those of the race's zone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

HOT_BEFORE_START: Final = timedelta(hours=4)
HOT_AFTER_START: Final = timedelta(hours=1)

# Ultramarathons start at 4 and evening runs at 9 p.m. A start at midnight is rare, and is hot as well.
FIRST_BELIEVED: Final = time(4)
LAST_BELIEVED: Final = time(21, 59)
# 12:00 stands for "no idea" and for midnight typed the wrong way round more often than for a start.
PLACEHOLDERS: Final = frozenset({time(12)})

EARLY_MORNING: Final = time(4)
EVENING: Final = time(21)
# Fridays to Mondays under one event are race days; a month is a virtual challenge, hot on its first day.
LONGEST_WEEKEND: Final = timedelta(days=4)
# Where a race's zone is unknown, its day begins where days begin first and ends where they end last.
FIRST_ZONE: Final = ZoneInfo("Pacific/Kiritimati")
LAST_ZONE: Final = ZoneInfo("Pacific/Pago_Pago")


@dataclass(frozen=True, slots=True)
class Start:
    """Start and end of an event as instants, None where not given."""

    starts_at: datetime | None
    ends_at: datetime | None


@dataclass(frozen=True, slots=True)
class HotSpan:
    """
    From when until when an event makes its race hot.

    `because`: in words, why it is longer than the owner's rule; None: it is not.
    """

    hot_from: datetime
    hot_until: datetime
    because: str | None = None


def hot_spans(
    starts: Sequence[Start], *, zone: ZoneInfo | None, fallback: ZoneInfo, next_date: date | None
) -> list[HotSpan | None]:
    """
    Return the hot span of each of a race's events, in their order; None: its day is unknown.

    Args:
        zone: The race's; None: nobody knows it, and the whole day anywhere on Earth is meant.
        fallback: In which zone its times were read then.
        next_date: The race's next day, for an event without a start.
    """
    read_in = zone or fallback
    zones = (zone, zone) if zone is not None else (FIRST_ZONE, LAST_ZONE)
    spans: list[HotSpan | None] = []
    days: list[date | None] = []
    for start in starts:
        spans.append(_span(start, read_in, zones, next_date, zone_known=zone is not None))
        days.append(next_date if start.starts_at is None else _day(start.starts_at, read_in))
    return _joined(spans, days)


def _span(
    start: Start,
    read_in: ZoneInfo,
    zones: tuple[ZoneInfo, ZoneInfo],
    next_date: date | None,
    *,
    zone_known: bool,
) -> HotSpan | None:
    try:
        if start.starts_at is None:
            if next_date is None:
                return None
            return _all_day(next_date, next_date, zones, "no start time is given")
        wall = start.starts_at.astimezone(read_in)
        end = None if start.ends_at is None else start.ends_at.astimezone(read_in)
        plain = HotSpan(start.starts_at - HOT_BEFORE_START, start.starts_at + HOT_AFTER_START)
        if _is_believed(wall.time()) and zone_known:
            return plain
        last = wall.date()
        if end is not None and wall < end <= wall + LONGEST_WEEKEND:
            # An end at midnight is that of the day before.
            last = max(last, (end - timedelta(minutes=1)).date())
        because = (
            f"a start at {wall:%H:%M} is taken for a placeholder"
            if zone_known
            else "the race's time zone is unknown"
        )
        day = _all_day(wall.date(), last, zones, because)
        until = day.hot_until
        if zone_known and end is not None and end.date() == last and _is_believed(end.time()) and end > wall:
            until = end.astimezone(UTC) + HOT_AFTER_START
        return HotSpan(min(plain.hot_from, day.hot_from), max(plain.hot_until, until), because)
    except OverflowError:
        return None  # "to be announced", in the year 1 or 9999


def _is_believed(wall: time) -> bool:
    return FIRST_BELIEVED <= wall <= LAST_BELIEVED and wall not in PLACEHOLDERS


def _all_day(first: date, last: date, zones: tuple[ZoneInfo, ZoneInfo], because: str) -> HotSpan:
    return HotSpan(
        datetime.combine(first, EARLY_MORNING, zones[0]).astimezone(UTC),
        datetime.combine(last, EVENING, zones[1]).astimezone(UTC),
        because,
    )


def _day(instant: datetime, zone: ZoneInfo) -> date | None:
    try:
        return instant.astimezone(zone).date()
    except OverflowError:
        return None


def _joined(spans: list[HotSpan | None], days: list[date | None]) -> list[HotSpan | None]:
    """Make the events that start on one day one race day: hot from the first of them to the last."""
    whole: dict[date | None, tuple[datetime, datetime]] = {}
    for span, day in zip(spans, days, strict=True):
        if span is not None:
            first, last = whole.get(day, (span.hot_from, span.hot_until))
            whole[day] = (min(first, span.hot_from), max(last, span.hot_until))
    found: list[HotSpan | None] = []
    for span, day in zip(spans, days, strict=True):
        if span is None:
            found.append(None)
            continue
        hot_from, hot_until = whole[day]
        longer = (hot_from, hot_until) != (span.hot_from, span.hot_until)
        because = span.because or ("several starts that day" if longer else None)
        found.append(HotSpan(hot_from, hot_until, because))
    return found
