"""Times of day at which something is done each day, in the operator's zone. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo


def next_of_day(times: Iterable[time], zone: ZoneInfo, *, now: datetime) -> datetime:
    """
    Return the next instant, after `now`, at which the zone's clocks show one of these times.

    A time that the clocks skip is taken as long after midnight as it would have been; one they
    show twice counts the first time. Aware, in UTC.
    """
    today = now.astimezone(zone).date()
    instants = [_instant(today + timedelta(days=days), each, zone) for days in (0, 1, 2) for each in times]
    return min(instant for instant in instants if instant > now)


def _instant(day: date, at: time, zone: ZoneInfo) -> datetime:
    # With fold 0 a skipped time is read with the offset before the gap: that much after midnight.
    return datetime.combine(day, at, tzinfo=zone).astimezone(UTC)
