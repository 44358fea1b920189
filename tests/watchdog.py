"""Watches how long the event loop is kept, in CPU time: a busy machine fails no test by it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class Watchdog:
    """
    Notes the most CPU seconds that were used between two turns of the loop.

    Args:
        used: Of this process, all its threads: also one that keeps the interpreter to itself. Of the
            loop's own thread: `time.thread_time`.
    """

    def __init__(self, used: Callable[[], float] = time.process_time) -> None:
        self.worst = 0.0
        self._used = used

    async def run(self) -> None:
        while True:
            before = self._used()
            await asyncio.sleep(0.002)
            self.worst = max(self.worst, self._used() - before)
