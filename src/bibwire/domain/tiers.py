"""
How urgent a race is: the owner's tiers, and the instants at which a race passes from one to the next.

A race is as urgent as its most urgent live event. The view `freshness` says the same in SQL.
All of it is about instants: four hours before a gun are four hours, whatever the clocks on the
wall do meanwhile. Pure: no I/O and no clock. Every datetime is aware and in UTC.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import groupby
from operator import itemgetter

from bibwire.domain.sweeps import LIVE_AFTER_END, lasts_until

NEAR_BEFORE_START = timedelta(hours=24)
HOT_BEFORE_START = timedelta(hours=4)
HOT_AFTER_START = timedelta(hours=1)


class Tier(StrEnum):
    """How near a race's nearest start is; the most urgent first."""

    HOT = "hot"
    NEAR = "near"
    AFTERGLOW = "afterglow"
    FAR = "far"

    @property
    def seconds(self) -> float:
        """The slowest its participants may be polled."""
        return _SECONDS[self]


_SECONDS = {Tier.HOT: 60.0, Tier.NEAR: 900.0, Tier.AFTERGLOW: 3_600.0, Tier.FAR: 14_400.0}


@dataclass(frozen=True, slots=True)
class EventTimes:
    """Start and end of an event, as instants; None: not given."""

    starts_at: datetime | None
    ends_at: datetime | None


def tier_of(events: Iterable[EventTimes], now: datetime) -> Tier | None:
    """Return the tier of a race with these events; None: none of them is live."""
    tiers = [tier for event in events if (tier := _tier_of_event(event, now)) is not None]
    return min(tiers, key=_SECONDS.__getitem__, default=None)


def next_boundary(events: Sequence[EventTimes], now: datetime) -> datetime | None:
    """Return the first instant after `now` at which `tier_of` changes; None: it never will."""
    return next((instant for instant, _ in tier_changes(events, now)), None)


def tier_changes(events: Sequence[EventTimes], now: datetime) -> Iterator[tuple[datetime, Tier | None]]:
    """Yield each instant after `now` at which `tier_of` changes, and the tier from then on, in order."""
    steps = [
        (instant, index, tier)
        for index, event in enumerate(events)
        for instant, tier in _steps(event)
        if instant > now
    ]
    steps.sort(key=itemgetter(0))
    current = [_tier_of_event(event, now) for event in events]
    # Counted and not asked anew of every event: a series has hundreds of them.
    counts = Counter(current)
    tier = _most_urgent(counts)
    for instant, together in groupby(steps, key=itemgetter(0)):
        for _, index, to in together:
            counts[current[index]] -= 1
            counts[to] += 1
            current[index] = to
        if (after := _most_urgent(counts)) is not tier:
            yield instant, after
            tier = after


def gun_of(events: Iterable[EventTimes], tier: Tier, now: datetime) -> datetime | None:
    """
    Return the start that gives a race its tier: the next to come, else the last that was.

    None: the race is in its tier because no start is known.
    """
    starts = [
        event.starts_at
        for event in events
        if event.starts_at is not None and _tier_of_event(event, now) is tier
    ]
    return min(starts, key=lambda start: (start < now, abs(start - now)), default=None)


def _tier_of_event(event: EventTimes, now: datetime) -> Tier | None:
    # Differences, because an event "to be announced" in the year 9999 has no instant a week later.
    end = lasts_until(event.starts_at, event.ends_at)
    if end is not None and now - end >= LIVE_AFTER_END:
        return None
    if event.starts_at is None:
        return Tier.FAR
    lead = event.starts_at - now
    if lead > NEAR_BEFORE_START:
        return Tier.FAR
    if lead > HOT_BEFORE_START:
        return Tier.NEAR
    return Tier.HOT if lead > -HOT_AFTER_START else Tier.AFTERGLOW


def _steps(event: EventTimes) -> list[tuple[datetime, Tier | None]]:
    """Return the instants at which an event passes into a tier; the last one closes it."""
    end = lasts_until(event.starts_at, event.ends_at)
    if end is None:
        return []
    steps: list[tuple[datetime | None, Tier | None]] = [(_moved(end, LIVE_AFTER_END), None)]
    if event.starts_at is not None:
        steps += [
            (_moved(event.starts_at, -NEAR_BEFORE_START), Tier.NEAR),
            (_moved(event.starts_at, -HOT_BEFORE_START), Tier.HOT),
            (_moved(event.starts_at, HOT_AFTER_START), Tier.AFTERGLOW),
        ]
    return [(instant, tier) for instant, tier in steps if instant is not None]


def _moved(instant: datetime, by: timedelta) -> datetime | None:
    """Return the instant that much later; None beyond the ends of the calendar."""
    try:
        return instant + by
    except OverflowError:
        return None


def _most_urgent(counts: Mapping[Tier | None, int]) -> Tier | None:
    return next((tier for tier in _SECONDS if counts[tier]), None)
