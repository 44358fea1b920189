"""
A race season in moved time: the real planner and slices, against the simulator, on a real database.

Time stands still while anybody works, and leaps to the next instant at which somebody wakes or
something is due. Of the queue only its promises are kept (`Queue`): one job of a lock at a time,
one waiting of a queueing lock; what the queue itself does is tested where it lives.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import tempfile
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import psycopg
from psycopg.rows import dict_row

import rsusim
from bibwire.clock import Clock
from bibwire.domain.secrets import Credential, Secret
from bibwire.engine.planner import TICK_SECONDS, Planner
from bibwire.runtime import Runtime, open_runtime
from bibwire.settings import Settings
from bibwire.store.database import Connection
from bibwire.store.jobs import Jobs
from bibwire.store.permits import SLOT_POLL_SECONDS
from tests.e2e.hands import SLEEP_NOT_AT_ALL, Hands, Instant, process_hands, runtime_hands
from tests.house import KEY


class MovedClock:
    """The simulated world's clock; a sleep ends when the simulation has leapt that far."""

    def __init__(self, world: rsusim.World) -> None:
        self._world = world
        self._numbers = itertools.count()
        self._wakes: list[tuple[float, int, asyncio.Future[None]]] = []
        self.asleep = 0
        # By how much it is ahead of the vendor's: a test sets it as an operator sets a clock.
        self.ahead = timedelta()

    def now(self) -> datetime:
        return self._world.now + self.ahead

    def monotonic(self) -> float:
        return self._world.now.timestamp()

    async def sleep(self, seconds: float) -> None:
        await self.sleep_until(self.monotonic() + max(seconds, SLEEP_NOT_AT_ALL))

    async def sleep_until(self, instant: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._wakes, (instant, next(self._numbers), future))
        self.asleep += 1
        try:
            await future
        finally:
            self.asleep -= 1

    @property
    def next_wake(self) -> float | None:
        """When the next sleeper wakes, in epoch seconds; None: nobody sleeps."""
        while self._wakes and self._wakes[0][2].done():
            heapq.heappop(self._wakes)
        return self._wakes[0][0] if self._wakes else None

    def wake(self) -> None:
        """Wake those whose time has come."""
        now = self.monotonic()
        while (wake := self.next_wake) is not None and wake <= now + 1e-6:
            future = heapq.heappop(self._wakes)[2]
            if not future.done():
                future.set_result(None)


class SkewedClock:
    """A worker's own clock, which is wrong by so much."""

    def __init__(self, right: Clock, by: timedelta) -> None:
        self._right = right
        self._by = by

    def now(self) -> datetime:
        return self._right.now() + self._by

    def monotonic(self) -> float:
        # Another computer, another origin.
        return self._right.monotonic() - 1000 * self._by.total_seconds()

    async def sleep(self, seconds: float) -> None:
        await self._right.sleep(seconds)


@dataclass
class Queue:
    """What jobs are promised, without the queue: see module."""

    waiting: dict[str, tuple[int, str, dict[str, Any], str]] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)

    async def defer(
        self,
        connection: Connection,
        task: str,
        args: dict[str, Any],
        *,
        lock: str,
        queueing_lock: str,
        priority: int = 0,
    ) -> bool:
        if queueing_lock in self.waiting:
            return False
        self.waiting[queueing_lock] = (priority, task, args, lock)
        return True

    def take(self) -> tuple[str, dict[str, Any], str] | None:
        """Take the first job whose lock is free."""
        for name, (_, task, args, lock) in sorted(self.waiting.items(), key=lambda item: -item[1][0]):
            if lock not in self.running:
                del self.waiting[name]
                self.running.add(lock)
                return task, args, lock
        return None


class Simulation:
    """
    Workers on one world and one database.

    Args:
        workers: How many share the work.
        processes: Each is a process of its own; otherwise a runtime of this one, with its own session.
        skews: By how much the workers' own clocks are wrong, one each; the first one plans.
        every_tick: The planner looks every few seconds, even if nothing is due.
    """

    def __init__(
        self,
        world: rsusim.World,
        base_url: str,
        database_url: str,
        *,
        workers: int = 1,
        processes: bool = False,
        concurrency: int = 10,
        skews: Sequence[timedelta] = (),
        every_tick: bool = False,
    ) -> None:
        self.world = world
        self._skews = skews
        self._every_tick = every_tick
        self.clock = MovedClock(world)
        self.queue = Queue()
        self._settings = Settings(
            database_url=Secret(database_url), api_url=base_url, secret_key=Secret(KEY), retry_seconds=5
        )
        self._workers = workers
        self._processes = processes
        self._places = workers * concurrency
        self._stack = AsyncExitStack()
        self._jobs: set[asyncio.Task[None]] = set()
        self._people: set[asyncio.Task[None]] = set()
        self._turn = itertools.count()
        self._hands: list[Hands] = []
        self._instant: Instant
        self.stopping = asyncio.Event()
        self.runtime: Runtime
        self.planner: Planner
        self.ticks = 0
        self._ticked_at = self._tick_at = 0.0

    async def __aenter__(self) -> Simulation:
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bibwire-test-")))
        shared = folder / "instant"
        shared.write_bytes(bytes(8))
        self._instant = Instant(shared)
        self._instant.set(self.clock.monotonic())
        for number in range(self._workers):
            if number == 0 or not self._processes:
                skew = self._skews[number] if self._skews else None
                machine = None if skew is None else SkewedClock(self.clock, skew)
                runtime = await self._stack.enter_async_context(
                    open_runtime(
                        self._settings, clock=self.clock, machine=machine, budget_time=self.clock.now
                    )
                )
                self.runtime = runtime if number == 0 else self.runtime
            hands = (
                process_hands(self._settings, self.clock, shared)
                if self._processes
                else runtime_hands(runtime)
            )
            self._hands.append(await self._stack.enter_async_context(hands))
        self.planner = Planner(
            self.runtime.db, cast(Jobs, self.queue), self.runtime.clock, budget_time=self.clock.now
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in (*self._jobs, *self._people):
            task.cancel()
        await asyncio.gather(*self._jobs, *self._people, return_exceptions=True)
        await self._stack.aclose()

    async def add_partner(self, account: rsusim.Account, *, calls_per_hour: int = 1000) -> None:
        credential = Credential(kind="key", key=Secret(account.api_key), secret=Secret(account.api_secret))
        await self.runtime.partners.add(account.name, credential, calls_per_hour=calls_per_hour)

    def rows(self, query: str, **values: Any) -> list[dict[str, Any]]:
        """Read the mirror."""
        with psycopg.connect(self.runtime.conninfo, autocommit=True, row_factory=dict_row) as connection:
            return connection.execute(query.encode(), values).fetchall()

    def happen(self, doing: Coroutine[Any, Any, None]) -> None:
        """Let something go on beside: it sleeps by the moved clock and acts on the world."""
        self._people.add(asyncio.create_task(doing))

    def calm_down(self) -> None:
        """End all that goes on beside."""
        for task in self._people:
            task.cancel()

    async def run_until(self, end: datetime) -> None:
        """Let time pass."""
        while self.world.now < end:
            if self.clock.monotonic() >= self._tick_at:
                self._ticked_at = self.clock.monotonic()
                await self._tick()
            await self._settle()
            leap_to = await self._next_instant(end)
            self.world.advance(max(0.0, leap_to - self.world.now.timestamp()))
            self._instant.set(self.clock.monotonic())
            self.clock.wake()
            await self._settle()

    async def _tick(self) -> None:
        self.ticks += 1
        await self.planner.tick()
        self._start()

    def _start(self) -> None:
        while len(self._jobs) < self._places and (job := self.queue.take()) is not None:
            task, args, lock = job
            hands = self._hands[next(self._turn) % len(self._hands)]
            self._jobs.add(asyncio.create_task(self._do(hands, task, args, lock)))

    async def _do(self, hands: Hands, task: str, args: dict[str, Any], lock: str) -> None:
        try:
            await hands.do(task, args, self.stopping)
        finally:
            self.queue.running.discard(lock)
            self._jobs.discard(cast("asyncio.Task[None]", asyncio.current_task()))
            self._start()

    async def _settle(self) -> None:
        """Wait until all who are at work sleep, or somebody asks again in a moment for a place."""
        idle = 0
        while idle < 3 and not self._somebody_asks_again():
            await asyncio.sleep(0)
            for task in self._people:
                if task.done() and not task.cancelled():
                    task.result()
            self._people = {task for task in self._people if not task.done()}
            if self.clock.asleep >= len(self._jobs) + len(self._people):
                idle += 1
            else:
                idle = 0
                await asyncio.sleep(0.0005)

    def _somebody_asks_again(self) -> bool:
        """Say whether who sleeps waits for a place in flight; those behind it in line do not sleep."""
        wake = self.clock.next_wake
        return wake is not None and wake <= self.clock.monotonic() + 2 * SLOT_POLL_SECONDS

    async def _next_instant(self, end: datetime) -> float:
        """Return when the next sleeper wakes, or the first tick that finds something to do."""
        [[due]] = await self.runtime.db.fetch(
            """
            SELECT least(
                (
                    SELECT min(next_due_at) - interval '5 seconds'
                    FROM bibwire.scopes
                    WHERE claimed_until IS NULL
                ),
                (SELECT min(claimed_until) FROM bibwire.scopes),
                (SELECT min(next_plan_at) FROM bibwire.plans),
                (SELECT min(next_discovery_at) FROM bibwire.plans)
            )
            """
        )
        now = self.world.now.timestamp()
        instants = [end.timestamp()]
        if (wake := self.clock.next_wake) is not None:
            instants.append(wake)
        if due is not None:
            # The planner looks only every so often.
            due_at = (due - self.clock.ahead).timestamp()
            ticks = 1 if self._every_tick else max(1, -((self._ticked_at - due_at) // TICK_SECONDS))
            self._tick_at = self._ticked_at + ticks * TICK_SECONDS
            instants.append(self._tick_at)
        return max(now, min(instants))


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def polls(world: rsusim.World, endpoint: str = "participants") -> dict[tuple[str, int], list[float]]:
    """Return when each account asked for each race's listing, in epoch seconds."""
    found: dict[tuple[str, int], list[float]] = {}
    for info in world.log.of(endpoint):
        found.setdefault((info.account or "", info.race_id or 0), []).append(info.at)
    return found


def busiest_hour(world: rsusim.World) -> dict[str, int]:
    """Return the most calls each account made in any rolling hour."""
    by_account: dict[str, list[float]] = {}
    for info in world.log.requests:
        by_account.setdefault(info.account or "", []).append(info.at)
    most: dict[str, int] = {}
    for account, instants in by_account.items():
        start = 0
        for end, instant in enumerate(instants):
            while instants[start] <= instant - timedelta(hours=1).total_seconds():
                start += 1
            most[account] = max(most.get(account, 0), end - start + 1)
    return most
