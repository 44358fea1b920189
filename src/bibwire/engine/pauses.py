"""
How work that can wait does so: without a lease, a connection or a place for calls.

A worker of the schedule leaves a long wait to the planner; what a person started waits here, and
goes on at the page after the last one stored.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from bibwire.clock import Clock
from bibwire.domain.errors import BibwireError, Blocked, BudgetSpent, CallerRefused, ScopeBusy

BUSY_SECONDS: Final = 5.0
# Somebody may end the pause: to look again costs no call.
LOOK_AGAIN_SECONDS: Final = 60.0
# The permits' own clock may be a moment behind.
AFTERWARDS_SECONDS: Final = 0.1


class Pauses:
    """Waits for what is over by itself; `until` says for whom, and how long."""

    def __init__(self, clock: Clock, on_wait: Callable[[], None]) -> None:
        self._clock = clock
        self._on_wait = on_wait
        self.until: dict[str, datetime] = {}
        # Nobody need wait any more: no call is accepted from us.
        self.refused: CallerRefused | None = None

    async def wait(self, partner: str, error: BibwireError) -> None:
        """
        Wait until what an error says is over.

        Raises:
            BibwireError: The error itself, if waiting is of no use.
        """
        if self.refused is not None:
            raise self.refused
        if isinstance(error, ScopeBusy):
            await self._clock.sleep(BUSY_SECONDS)
            return
        if isinstance(error, BudgetSpent):
            seconds = error.seconds
        elif isinstance(error, Blocked):
            seconds = error.retry_after_seconds or BUSY_SECONDS
        else:
            raise error
        self.until[partner] = self._clock.now() + timedelta(seconds=seconds)
        self._on_wait()
        if isinstance(error, Blocked):
            seconds = min(seconds, LOOK_AGAIN_SECONDS)
        await self._clock.sleep(seconds + AFTERWARDS_SECONDS)
        self.until.pop(partner, None)
        self._on_wait()
