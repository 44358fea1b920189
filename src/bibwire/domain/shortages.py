"""
When the operator is told of a shortage of calls: once, before it comes, and again if it moves.

A partner is planned every half minute while a race is hot, and each plan foresees anew. What is
foreseen alike was told already. Pure: no I/O and no clock. Every datetime is aware and in UTC.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from bibwire.domain.schedule import FORESIGHT, Shortage

# Starts are moved by minutes now and then, and nobody acts otherwise for that.
BEGIN_MOVED = timedelta(minutes=15)
# The end comes out of tiers that change on the hour.
END_MOVED = timedelta(hours=1)
NEEDED_MORE = 1.1


@dataclass(frozen=True, slots=True)
class Foreseen:
    """The shortage that the plan of `planned_at` foresaw."""

    begins_at: datetime
    ends_at: datetime
    needed_calls_per_hour: float
    planned_at: datetime

    @property
    def goes_on(self) -> bool:
        """Whether it went on beyond what was looked at, so that its end was not known."""
        return self.ends_at >= self.planned_at + FORESIGHT


def is_news(before: Foreseen | None, shortage: Shortage | None, *, now: datetime) -> bool:
    """
    Say whether the operator has to hear of a shortage now.

    One that has begun meanwhile, or that needs less than before, is no news.

    Args:
        before: What the plan before this one foresaw; None: nothing.
        shortage: What is foreseen now.
    """
    if shortage is None:
        return False
    if before is None or is_over(before, shortage, now=now):
        return True
    begin_moved = abs(max(before.begins_at, now) - max(shortage.begins_at, now))
    later = shortage.ends_at - before.ends_at
    return (
        begin_moved > BEGIN_MOVED
        or later < -END_MOVED
        # An end not known before comes into sight later than what was told.
        or (later > END_MOVED and not before.goes_on)
        or shortage.needed_calls_per_hour > before.needed_calls_per_hour * NEEDED_MORE
    )


def is_over(before: Foreseen | None, shortage: Shortage | None, *, now: datetime) -> bool:
    """Say whether what was foreseen before has passed, or does not come any more."""
    if before is None:
        return False
    return shortage is None or (before.ends_at <= now and not before.goes_on)
