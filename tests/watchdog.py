"""Watches how long the event loop is kept, in CPU time: a busy machine fails no test by it."""

from __future__ import annotations

import asyncio
import time


class Watchdog:
    """Notes the most CPU seconds that this process, all its threads, used between two turns of the loop."""

    def __init__(self) -> None:
        self.worst = 0.0

    async def run(self) -> None:
        while True:
            before = time.process_time()
            await asyncio.sleep(0.002)
            self.worst = max(self.worst, time.process_time() - before)
