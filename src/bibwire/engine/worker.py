"""
One worker: does queued work until it is told to stop.

Every worker is alike. The planner, the discoveries and the rescue of dead workers' jobs are jobs
themselves, done by whoever is free: there is no leader to lose.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import structlog

from bibwire.domain.errors import BibwireError
from bibwire.engine.nightly import Nightly
from bibwire.engine.planner import DISCOVER, SWEEP, TICK_SECONDS, VERIFY, Planner
from bibwire.engine.slices import Slices
from bibwire.engine.upkeep import MAINTAIN, MAINTAIN_SECONDS, Upkeep
from bibwire.store.jobs import Jobs, Periodic

PLAN: Final = "plan"
# A hot race keeps its place for a minute, and sleeps for most of it: there are places for many.
CONCURRENCY: Final = 100
WATCH_SECONDS: Final = 30.0
# A planner or a rescue that has not run for so long is an alarm.
SILENT_SECONDS: Final = 60.0

log = structlog.get_logger()


class Worker:
    """What a worker process does."""

    def __init__(
        self, *, jobs: Jobs, planner: Planner, slices: Slices, upkeep: Upkeep, nightly: Nightly
    ) -> None:
        self._jobs = jobs
        self._planner = planner
        self._slices = slices
        self._upkeep = upkeep
        self._nightly = nightly

    async def run(self, stop: asyncio.Event, *, concurrency: int = CONCURRENCY) -> None:
        """
        Work until `stop` is set; then finish the pages under way and return.

        A database that is gone is waited for, and so is a vendor that is gone.
        """
        watching = asyncio.create_task(self._watch())
        try:
            await self._jobs.run_worker(
                {
                    PLAN: self._plan,
                    SWEEP: self._slices.sweep,
                    DISCOVER: self._discover,
                    VERIFY: self._nightly.verify,
                    MAINTAIN: self._upkeep.maintain,
                },
                concurrency=concurrency,
                periodic=(
                    Periodic(PLAN, PLAN, TICK_SECONDS),
                    Periodic(MAINTAIN, MAINTAIN, MAINTAIN_SECONDS),
                ),
                stop=stop,
            )
        finally:
            watching.cancel()

    async def _plan(self, args: Mapping[str, Any], stopping: asyncio.Event) -> None:
        ticked = await self._planner.tick()
        if ticked.put_off:
            log.warning("polls put off: no room in the budget", action="plan", scopes=ticked.put_off)

    async def _discover(self, args: Mapping[str, Any], stopping: asyncio.Event) -> None:
        await self._upkeep.discover(args, stopping)
        # New races are to be planned at once.
        await self._jobs.wake(PLAN)

    async def _watch(self) -> None:
        """Say it when nobody plans or rescues any more; who hears it is the operator."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                stats = await self._jobs.stats()
            except BibwireError:
                continue  # said by whoever works with the database
            for what, silent in (("planner", stats.planner_seconds), ("rescue", stats.rescue_seconds)):
                if silent is None or silent > SILENT_SECONDS:
                    seconds = None if silent is None else round(silent)
                    log.error(f"the {what} has not run", action="watch", seconds=seconds)
