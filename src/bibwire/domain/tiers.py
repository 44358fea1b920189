"""
How urgent a race is: the owner's tiers, and the instants at which a race passes from one to the next.

A race is as urgent as its most urgent live event. When an event is hot is `race_days`' to say, and is
stored with it. The view `freshness` says the same in SQL.
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

from bibwire.domain.race_days import HOT_AFTER_START, HOT_BEFORE_START
from bibwire.domain.sweeps import LIVE_AFTER_END, lasts_until

# 24 hours before a start that is hot from 4 hours before.
NEAR_BEFORE_HOT = timedelta(hours=20)


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
    """
    Start and end of an event, as instants; None: not given.

    `hot_from` and `hot_until`: as `race_days` has them; None: the owner's hours around the start.
    `because`: why they are longer.
    """

    starts_at: datetime | None
    ends_at: datetime | None
    hot_from: datetime | None = None
    hot_until: datetime | None = None
    because: str | None = None

    @property
    def hot_span(self) -> tuple[datetime | None, datetime | None]:
        """From when until when it is hot; None: never, or beyond the ends of the calendar."""
        start = self.starts_at
        return (
            self.hot_from or (None if start is None else _moved(start, -HOT_BEFORE_START)),
            self.hot_until or (None if start is None else _moved(start, HOT_AFTER_START)),
        )


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


def longer_because(events: Iterable[EventTimes], now: datetime) -> str | None:
    """Return why a race is hot now, if it is hot for longer than the owner's hours; else None."""
    because = None
    for event in events:
        if _tier_of_event(event, now) is Tier.HOT:
            start = event.starts_at
            if start is not None and -HOT_AFTER_START < start - now <= HOT_BEFORE_START:
                return None
            because = because or event.because
    return because


def _tier_of_event(event: EventTimes, now: datetime) -> Tier | None:
    # Differences, because an event "to be announced" in the year 9999 has no instant a week later.
    end = lasts_until(event.starts_at, event.ends_at)
    if end is not None and now - end >= LIVE_AFTER_END:
        return None
    tier = Tier.FAR
    for instant, then in _steps(event):
        if instant <= now and then is not None:
            tier = then
    return tier


def _steps(event: EventTimes) -> list[tuple[datetime, Tier | None]]:
    """Return the instants at which an event passes into a tier, in order; None closes it."""
    hot_from, hot_until = event.hot_span
    steps: list[tuple[datetime | None, Tier | None]] = [
        (_moved(hot_from, -NEAR_BEFORE_HOT), Tier.NEAR),
        (hot_from, Tier.HOT),
        (hot_until, Tier.AFTERGLOW),
    ]
    if event.starts_at is None:
        # Of a day without a start: it may be meant for another one.
        steps.append((_moved(hot_until, LIVE_AFTER_END), Tier.FAR))
    end = lasts_until(event.starts_at, event.ends_at)
    found = [(instant, tier) for instant, tier in steps if instant is not None]
    closes_at = _moved(end, LIVE_AFTER_END)
    if closes_at is not None:
        # A day that lasts longer than its events may outlive them.
        found = [(instant, tier) for instant, tier in found if instant < closes_at]
        found.append((closes_at, None))
    return found


def _moved(instant: datetime | None, by: timedelta) -> datetime | None:
    """Return the instant that much later; None beyond the ends of the calendar, or of None."""
    if instant is None:
        return None
    try:
        return instant + by
    except OverflowError:
        return None


def _most_urgent(counts: Mapping[Tier | None, int]) -> Tier | None:
    return next((tier for tier in _SECONDS if counts[tier]), None)
