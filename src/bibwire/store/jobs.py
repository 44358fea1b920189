"""
Durable work: queued in the transaction that decides on it, done by whoever is free.

The engine behind is procrastinate, on the same PostgreSQL; no other file but `jobs_engine` knows
it, and another can take its place. What a caller may rely on:

- A job is done at least once. It runs again if its worker dies, is frozen or loses the database
  before the job was settled: what a job writes is guarded by the caller's own fencing numbers.
- Of jobs with the same `lock` one runs at a time, in the order of priority and queueing; with the
  same `queueing_lock` one waits at a time. A frozen worker that comes back goes on with its job
  beside its successor until its next guarded commit, but can neither settle it nor free its lock.
- The queue holds only what is to be done now. Nothing is put off in it, since a job that waits
  for its time would hold up all later ones of its lock.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import psycopg
import structlog
from psycopg import errors

from bibwire.domain.errors import StatementRefused
from bibwire.store.database import Connection, Database, fetch, statements
from bibwire.store.refusals import translated
from bibwire.store.session import end_frozen

HEARTBEAT_SECONDS: Final = 5.0
STALLED_AFTER_SECONDS: Final = 30.0
RESCUE_EVERY_SECONDS: Final = 15
# Only a fallback: workers are told of new jobs.
POLL_SECONDS: Final = 5.0
# Failed jobs are done again after this pause, then twice of it and so on, up to the longest.
FIRST_PAUSE_SECONDS: Final = 15.0
LONGEST_PAUSE_SECONDS: Final = 300.0
# Between two tries to reach the database; more or less by half, so that not all come at once.
LONGEST_BACKOFF_SECONDS: Final = 5.0

# Names of the periodic tasks whose silence is an alarm.
PLANNER: Final = "plan"
RESCUE: Final = "rescue"

Task = Callable[[dict[str, Any], asyncio.Event], Awaitable[None]]
"""Does one job. The event is set when the worker leaves: finish the page, and return."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Periodic:
    """
    A task to be queued every so often, once over all workers; never two wait, never two run.

    Attributes:
        every_seconds: A whole part of a minute or, in minutes, of an hour.
    """

    name: str
    task: str
    every_seconds: float


@dataclass(frozen=True, slots=True)
class JobStats:
    """
    How the queue stands.

    Attributes:
        stalled: Of those that run, how many have a worker that gives no sign.
        oldest_todo_seconds: For how long the first of those that wait has waited; None: none waits.
        workers: How many give signs.
        ran_seconds: How long ago each periodic task last came to its end.
    """

    todo: int
    doing: int
    failed: int
    stalled: int
    oldest_todo_seconds: float | None
    workers: int
    ran_seconds: Mapping[str, float]

    @property
    def planner_seconds(self) -> float | None:
        """How long ago the planner last came to its end; None: never."""
        return self.ran_seconds.get(PLANNER)

    @property
    def rescue_seconds(self) -> float | None:
        """How long ago the rescue last came to its end; None: never."""
        return self.ran_seconds.get(RESCUE)


class Jobs:
    """
    The queue of work in one database.

    Args:
        stalled_after_seconds: A worker that gave no sign for so long is dead. Its connection gone
            as well, two missed heartbeats are enough.
    """

    def __init__(
        self,
        db: Database,
        *,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        stalled_after_seconds: float = STALLED_AFTER_SECONDS,
        rescue_every_seconds: int = RESCUE_EVERY_SECONDS,
        poll_seconds: float = POLL_SECONDS,
        first_pause_seconds: float = FIRST_PAUSE_SECONDS,
    ) -> None:
        self._db = db
        self._heartbeat = heartbeat_seconds
        self._stalled_after = stalled_after_seconds
        self._rescue_every = rescue_every_seconds
        self._poll = poll_seconds
        self._first_pause = first_pause_seconds

    async def defer(
        self,
        connection: Connection,
        task: str,
        args: dict[str, Any],
        *,
        lock: str | None,
        queueing_lock: str | None,
        priority: int = 0,
    ) -> bool:
        """
        Queue a job in the caller's transaction, on a connection of `Database`.

        Returns:
            False if a job with this queueing lock waits already; the transaction goes on either way.
        """
        # Loaded by who queues or works: it costs 0.1 s, and most commands do neither.
        from bibwire.store import jobs_engine

        return await jobs_engine.defer(
            connection, task, args, lock=lock, queueing_lock=queueing_lock, priority=priority
        )

    async def wake(self, task: str) -> bool:
        """
        Queue a periodic task's next turn now.

        Returns:
            False if it waits already, or if no worker lives: the next one takes its turn by itself.
        """
        [[living]] = await self._db.fetch(statements("jobs")["any_worker"], stalled_after=self._stalled_after)
        if not living:
            return False
        from bibwire.store.jobs_engine import CHORE_PRIORITY

        async with self._db.transaction() as connection:
            lock = None if task == RESCUE else task
            return await self.defer(
                connection, task, {}, lock=lock, queueing_lock=task, priority=CHORE_PRIORITY
            )

    async def cancel(self, tasks: Collection[str], args: Mapping[str, Any]) -> int:
        """
        Take jobs out of the queue, also those that failed; one that runs ends by itself.

        Args:
            args: Which ones: those that have these among their arguments.

        Returns:
            How many there were.
        """
        named = statements("jobs")["cancel"]
        return len(await self._db.fetch(named, tasks=list(tasks), args=json.dumps(dict(args))))

    async def rescue(self, *, stalled_after: float | None = None, dead: Sequence[int] = ()) -> int:
        """
        Queue the jobs of dead workers again, and those that failed long enough ago.

        Args:
            dead: Workers of whom it is known.

        Any number may do it at once. Returns how many jobs had a dead worker.
        """
        from bibwire.store.jobs_engine import WORKER_LOCKS

        named = statements("jobs")
        if frozen := await end_frozen(self._db):
            log.warning("connections of frozen processes ended", action="rescue", connections=frozen)
        stalled_after = self._stalled_after if stalled_after is None else stalled_after
        [[jobs, queued, dropped, workers]] = await self._repeated(
            lambda: self._db.fetch(
                named["rescue"],
                stalled_after=stalled_after,
                silent_after=min(stalled_after, 2 * self._heartbeat),
                lock_class=WORKER_LOCKS,
                dead=list(dead),
            )
        )
        [[retried, _]] = await self._repeated(
            lambda: self._db.fetch(
                named["retry_failed"],
                first_pause=self._first_pause,
                longest_pause=LONGEST_PAUSE_SECONDS,
            )
        )
        if queued or retried:
            await self._db.fetch(named["tell_workers"])
        if jobs or workers:
            log.warning(
                "dead workers' jobs queued again",
                action="rescue",
                workers=workers,
                jobs=queued,
                queued_meanwhile=dropped,
            )
        return int(jobs)

    async def stats(self) -> JobStats:
        """Return how the queue stands."""
        return await stats(self._db, stalled_after=self._stalled_after)

    async def run_worker(
        self,
        tasks: Mapping[str, Task],
        *,
        concurrency: int,
        periodic: Sequence[Periodic],
        stop: asyncio.Event,
        graceful_seconds: float = 8.0,
    ) -> None:
        """
        Do jobs until `stop` is set, and return within `graceful_seconds` and 1.5 more.

        Holds at most three connections of its own beside those of `Database`: two in a pool, and one
        that listens. A database that is gone is waited for; what was cut off is done again.

        Args:
            concurrency: Jobs at a time; periodic tasks have places of their own beside them.
            graceful_seconds: How long jobs may take to leave; then they are cancelled and given back.
        """
        from bibwire.store.jobs_engine import Chore, TakenForDead, Timing, WorkerRun

        chores = [
            Chore(each.name, each.task, _whole(each.every_seconds), exclusive=True) for each in periodic
        ]
        # Without a lock: one that died over a rescue would keep it, and nobody could rescue it.
        chores.append(Chore(RESCUE, RESCUE, self._rescue_every, exclusive=False))
        outage = _Outage()
        # Our own numbers of before: what they had in hand nobody does any more.
        former: list[int] = []

        async def take_back() -> None:
            if former:
                await self.rescue(dead=former)
                former.clear()

        while not stop.is_set():
            run = WorkerRun(
                self._db.conninfo,
                {**tasks, RESCUE: self._rescue},
                chores,
                concurrency=concurrency,
                timing=Timing(self._heartbeat, self._stalled_after, self._poll, graceful_seconds),
                on_alive=outage.over,
                on_open=take_back,
                on_broken=lambda error: None if isinstance(error, TakenForDead) else outage.begins(error),
            )
            try:
                await run.run(stop)
            except TakenForDead:
                log.warning("worker stood still for too long and begins anew", action="worker")
            except Exception as error:
                if not stop.is_set():
                    with suppress(TimeoutError):
                        await asyncio.wait_for(stop.wait(), outage.pause(error))
            if run.worker_id is not None:
                former.append(run.worker_id)

    async def _rescue(self, _: dict[str, Any], __: asyncio.Event) -> None:
        await self.rescue()

    async def _repeated(self, ask: Callable[[], Awaitable[list[Any]]]) -> list[Any]:
        # The same work may be queued by another at this very instant; next time we see it.
        for _ in range(3):
            try:
                return await ask()
            except StatementRefused as error:
                if error.sqlstate != errors.UniqueViolation.sqlstate:
                    raise
        return await ask()


async def stats(db: Database | Connection, *, stalled_after: float = STALLED_AFTER_SECONDS) -> JobStats:
    """Return how the queue stands; a worker that gave no sign for `stalled_after` seconds is dead."""
    named = statements("jobs")
    [row] = await fetch(db, named["stats"], stalled_after=stalled_after)
    todo, doing, failed, stalled, oldest, workers = row
    ran: dict[str, float] = dict(await fetch(db, named["chores"]))
    return JobStats(todo, doing, failed, stalled, oldest, workers, ran)


class _Outage:
    """Says once that the worker cannot work, and once that it can again."""

    def __init__(self) -> None:
        self._is_told = False
        self._tries = 0
        self._began = 0.0

    def begins(self, error: BaseException) -> None:
        """Note that the worker cannot work."""
        if not self._is_told:
            self._is_told = True
            self._began = asyncio.get_running_loop().time()
            if isinstance(error, psycopg.Error):
                error = translated(error)
            known = type(error).__module__.startswith("bibwire.domain")
            log.warning(
                "worker waits for the database",
                action="worker",
                error=" ".join(str(error).split()),
                exc_info=None if known else error,
            )

    def pause(self, error: BaseException) -> float:
        """Return how many seconds to wait before the next try."""
        self.begins(error)
        self._tries += 1
        longest = min(LONGEST_BACKOFF_SECONDS, 0.5 * 2.0 ** min(self._tries, 10))
        return longest * random.uniform(0.5, 1.0)

    def over(self) -> None:
        """Note that the database answers the worker."""
        if self._is_told:
            seconds = asyncio.get_running_loop().time() - self._began
            log.warning("back: worker works again", action="worker", lasted_seconds=round(seconds))
            self._is_told, self._tries = False, 0


def _whole(seconds: float) -> int:
    if seconds != int(seconds):
        raise ValueError(f"{seconds} s is not a whole number of seconds")
    return int(seconds)
