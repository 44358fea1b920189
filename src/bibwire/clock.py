"""
The only file that reads the time or sleeps.

Everything below is handed a `Clock`, or `now` itself; tests hand in one they move. What several
processes must agree on is timed by the database: its time, carried forward by this computer's
monotonic clock, is what the engine calls `now`. This computer's own time of day decides nothing.
"""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

# How long a measurement is kept while worse ones say the same. Clocks drift apart by less than
# 0.1 ms a second.
KEPT_SECONDS: Final = 60.0
# The database is not asked more often than that.
MEASURE_EVERY_SECONDS: Final = 1.0


class Clock(Protocol):
    def now(self) -> datetime:
        """Return the present instant, aware, in UTC."""

    def monotonic(self) -> float:
        """Return seconds from an arbitrary origin that never go backwards."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class Breath:
    """
    Gives others a turn in a loop that is long and waits for nothing.

    The event loop has other races to poll: whoever goes over many rows of the vendor's calls `take`
    after each.
    """

    LONGEST_SECONDS = 0.02

    def __init__(self) -> None:
        self._since = time.perf_counter()

    async def take(self) -> None:
        """Let others have the loop, if they have not had it for a while."""
        if time.perf_counter() - self._since >= self.LONGEST_SECONDS:
            await asyncio.sleep(0)
            self._since = time.perf_counter()


class SystemClock:
    """The machine's own clock. Its monotonic seconds go on while the machine sleeps."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        # Python's own stops with the lid of a laptop on Linux and macOS.
        if sys.platform == "linux":
            return time.clock_gettime(time.CLOCK_BOOTTIME)
        elif sys.platform == "darwin":
            return time.clock_gettime(time.CLOCK_MONOTONIC)
        else:
            return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class DatabaseClock:
    """
    The database's time, carried forward by a machine's monotonic clock.

    Whoever talks to the database has it measured now and then; a step of the database's clock is
    followed at once. Before the first measurement it is the machine's own time.
    """

    def __init__(self, machine: Clock) -> None:
        self._machine = machine
        # Seconds since 1970 by the database less monotonic ones, and how well they are known.
        self._offset: float | None = None
        self._round_trip = self._best_at = 0.0
        self._measured_at = 0.0

    def now(self) -> datetime:
        if self._offset is None:
            return self._machine.now()
        return _instant(self._offset + self._machine.monotonic())

    def monotonic(self) -> float:
        return self._machine.monotonic()

    async def sleep(self, seconds: float) -> None:
        await self._machine.sleep(seconds)

    @property
    def is_due(self) -> bool:
        """Whether it is time for another measurement."""
        if self._offset is None:
            return True
        return self._machine.monotonic() - self._measured_at >= MEASURE_EVERY_SECONDS

    def measured(self, at: datetime, *, asked: float, answered: float) -> None:
        """
        Take over what the database's clock says.

        Args:
            at: Its time, read between `asked` and `answered`.
            asked, answered: Monotonic seconds.
        """
        seconds, round_trip = at.timestamp(), answered - asked
        known = self._offset
        agrees = known is not None and known + asked <= seconds <= known + answered
        self._measured_at = answered
        # The quickest answer tells best; it says nothing new while slower ones allow it, too.
        if agrees and round_trip > self._round_trip and answered - self._best_at < KEPT_SECONDS:
            return
        self._offset = seconds - (asked + answered) / 2
        self._round_trip, self._best_at = round_trip, answered


def _instant(seconds: float) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
