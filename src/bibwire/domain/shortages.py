"""
When the operator is told of a shortage of calls: once, before it comes, and again if it moves.

A partner is planned every half minute while a race is hot, and each plan foresees anew. It is held
against what was last told, so that what grows little by little is told too. Pure: no I/O and no
clock. Every datetime is aware and in UTC.
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
class Told:
    """The shortage the operator was last told of. `ends_at` is None if no end was in sight."""

    begins_at: datetime
    ends_at: datetime | None
    needed_calls_per_hour: float


def to_tell(shortage: Shortage, *, now: datetime) -> Told:
    """Return what is told of a shortage."""
    ends_at = None if shortage.ends_at >= now + FORESIGHT else shortage.ends_at
    return Told(shortage.begins_at, ends_at, shortage.needed_calls_per_hour)


def is_news(told: Told | None, shortage: Shortage | None, *, now: datetime) -> bool:
    """
    Say whether the operator has to hear of a shortage now.

    One that has begun meanwhile, or that needs less than was told, is no news.

    Args:
        told: What was told before; None: nothing, or that the calls suffice again.
        shortage: What is foreseen now.
    """
    if shortage is None:
        return False
    if told is None or is_over(told, shortage, now=now):
        return True
    begin_moved = abs(max(told.begins_at, now) - max(shortage.begins_at, now))
    # Where no end was in sight, one that comes into sight changes nothing.
    later = timedelta() if told.ends_at is None else shortage.ends_at - told.ends_at
    return (
        begin_moved > BEGIN_MOVED
        or abs(later) > END_MOVED
        or shortage.needed_calls_per_hour > told.needed_calls_per_hour * NEEDED_MORE
    )


def is_over(told: Told | None, shortage: Shortage | None, *, now: datetime) -> bool:
    """Say whether what was told has passed, or does not come any more."""
    if told is None:
        return False
    if shortage is None:
        return True
    return told.ends_at is not None and told.ends_at <= now < shortage.begins_at
