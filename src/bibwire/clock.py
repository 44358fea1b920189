"""
The only file that reads the time or sleeps.

Everything below is handed a `Clock`, or `now` itself; tests hand in one they move.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


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
    """The machine's own clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
