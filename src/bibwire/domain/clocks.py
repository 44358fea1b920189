"""
Which clock is wrong: this computer's, the database's or the vendor's; and how old stored instants are.

Of three clocks two that agree outvote the third. Where the database's agrees with this computer's, it is
most often the same clock, and then either that one is wrong or the vendor's. Pure: no I/O and no clock.
Every datetime is aware and in UTC.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

# The vendor's Date has whole seconds, and answers take some.
TOLERANCE_SECONDS: Final = 30.0
# By how much the clocks of processes that share a database differ at most: each is the database's own.
SLACK: Final = timedelta(seconds=10)

_SET: Final = "switch on automatic time (NTP)"


@dataclass(frozen=True, slots=True)
class WrongClock:
    """What is wrong, as a sentence without its end, and what to do about it."""

    said: str
    fix: str


@dataclass(frozen=True, slots=True)
class VendorClock:
    """
    The vendor's clock as it was seen: seconds ahead of the database's.

    Args:
        ahead: Of the time by which mirrors are dated.
        date_ahead: Of its Dates, believed or not.
        data_ahead: Of the newest change, where that is later than the database's time; None: it is not.
    """

    ahead: float
    date_ahead: float
    data_ahead: float | None = None

    def differs(self, other: VendorClock | None) -> bool:
        """Say whether it is news: the clocks tick in whole seconds or less."""
        if other is None or (self.data_ahead is None) != (other.data_ahead is None):
            return True
        return abs(self.ahead - other.ahead) > 1 or abs(self.date_ahead - other.date_ahead) > 1


def wrong_clock(
    *, vendor_ahead: float | None, computer_ahead: float, tolerance: float = TOLERANCE_SECONDS
) -> WrongClock | None:
    """
    Return which clock is wrong; None: all agree.

    Args:
        vendor_ahead: Seconds by which the vendor's clock is ahead of the database's; None: not known.
        computer_ahead: Seconds by which this computer's is.
        tolerance: Seconds by which clocks may differ.
    """
    computer = abs(computer_ahead) > tolerance
    if vendor_ahead is None:
        if not computer:
            return None
        return WrongClock(
            f"{_off('this computer', computer_ahead)}, or {_off('the database', -computer_ahead, then=True)}",
            f"set both clocks: {_SET}",
        )
    database = abs(vendor_ahead) > tolerance
    of_both = computer_ahead - vendor_ahead
    if not database:
        if not computer:
            return None
        return WrongClock(_off("this computer", of_both), f"set this computer's clock: {_SET}")
    if not computer:
        return WrongClock(
            f"{_off('this computer', of_both)}, or {_off('RunSignup', -of_both, then=True)}",
            f"set this computer's clock, and that of the database's server: {_SET}",
        )
    if abs(of_both) <= tolerance:
        fix = f"set the clock of the database's server: {_SET}"
        return WrongClock(_off("the database", -vendor_ahead), fix)
    return WrongClock(
        f"{_off('this computer', of_both)} and {_off('the database', -vendor_ahead, then=True)}, "
        "by RunSignup's",
        f"set both clocks: {_SET}",
    )


def in_words(seconds: float) -> str:
    """Return a length of time in its largest unit that says enough, as "11 minutes"."""
    seconds = abs(seconds)
    for name, unit in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= 2 * unit:
            return f"{round(seconds / unit):,} {name}s"
    return f"{round(seconds):,} seconds"


def elapsed(since: datetime, now: datetime) -> timedelta:
    """
    Return the time since a stored instant, zero or more.

    One that is still to come was stored while a clock was ahead, and says nothing: as if long ago.
    """
    passed = now - since
    if passed < -SLACK:
        return timedelta.max
    return max(passed, timedelta())


def _off(whose: str, ahead: float, *, then: bool = False) -> str:
    clock = "is" if then else "clock is"
    return f"{whose}'s {clock} {in_words(ahead)} {'fast' if ahead > 0 else 'slow'}"
