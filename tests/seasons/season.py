"""
A season in moved time: whole workers on a real database and a world that moves, and rules held all the time.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import random
import sys
import time
import traceback
from collections.abc import Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from datetime import datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any, Final
from zoneinfo import ZoneInfo

import psutil
import psycopg
import pytest
from psycopg.rows import dict_row
from uvicorn.server import ServerState

import rsusim
from bibwire import logs
from bibwire.clock import Breath
from bibwire.domain.errors import BibwireError
from bibwire.domain.secrets import Credential, Secret
from bibwire.engine.planner import TICK_SECONDS
from bibwire.engine.upkeep import MAINTAIN, MAINTAIN_SECONDS
from bibwire.runtime import Runtime, open_runtime
from bibwire.settings import Settings
from bibwire.store.jobs import PLANNER, RESCUE
from bibwire.store.session import Session, open_session
from bibwire.store.watched import Watched
from rsusim.sending import Connections
from rsusim.server import configure, listen, url_of
from tests.house import KEY
from tests.seasons.moved import MACHINE, Machine, MovedLoop
from tests.seasons.postgres import MovedPostgres
from tests.seasons.queue import Bell, SeasonJobs
from tests.seasons.turns import Turns

CHORE_PRIORITY: Final = 1000
# What holds for who looks on.
OURS: Final = (
    "-c default_transaction_read_only=off -c statement_timeout=0 -c lock_timeout=0 -c timezone=UTC"
    " -c datestyle=ISO -c standard_conforming_strings=on -c idle_in_transaction_session_timeout=0"
)
WATCH_SECONDS: Final = 600.0
NOBODYS_SOCKET: Final = -1
# In real time, for the server to see that a connection was cut.
NOTICED_SECONDS: Final = 5.0
SILENT_SECONDS: Final = 1_000_000.0
# Who reads the computer's monotonic clock beside the loop.
MONOTONIC: Final = (
    "psycopg_pool.base",
    "psycopg_pool.pool_async",
    "psycopg_pool.sched_async",
    "psycopg.connection_async",
    "psycopg.waiting",
    "bibwire.store.watched",
)


def credential_of(account: rsusim.Account) -> Credential:
    """Return the key of an account as the program has it."""
    return Credential(kind="key", key=Secret(account.api_key), secret=Secret(account.api_secret))


class MachineClock:
    """A computer's own clock."""

    def __init__(self, season: Season) -> None:
        self._season = season
        self._drifts_since = season.now
        self._drift = 0.0
        self.ahead = timedelta()

    @property
    def drift(self) -> float:
        """So many seconds it runs ahead in each, beside what it is ahead already."""
        return self._drift

    @drift.setter
    def drift(self, seconds: float) -> None:
        self._drift, self._drifts_since = seconds, self._season.now

    def now(self) -> datetime:
        return self._season.now + self.ahead + self._drift * (self._season.now - self._drifts_since)

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Worker:
    """A worker process, as far as others can tell."""

    def __init__(self, season: Season, number: int) -> None:
        self.machine = Machine(f"worker {number}")
        self.clock = MachineClock(season)
        self.stop = asyncio.Event()
        self.jobs: SeasonJobs | None = None
        self._season = season
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        context = contextvars.copy_context()
        context.run(MACHINE.set, self.machine)
        self.task = asyncio.get_running_loop().create_task(self._work(), context=context)

    async def _work(self) -> None:
        while not self.stop.is_set():
            try:
                async with open_runtime(self._season.settings, machine=self.clock) as runtime:
                    self.jobs = runtime.jobs = SeasonJobs(runtime.db, self._season.bell)
                    async with runtime.open_worker() as worker:
                        self._season.bell.ring()
                        await worker.run(self.stop)
            except BibwireError:
                await asyncio.sleep(5)  # `bibwire run` starts it again


class Season:
    """
    One world, one database, some workers. Use it as a context, in a `MovedLoop`.
    """

    def __init__(self, world: rsusim.World, server: MovedPostgres, *, workers: int = 1) -> None:
        self.world = world
        self.server = server
        self.bell = Bell()
        self.turns = Turns(self.is_blocked)
        self.database_ahead = timedelta()
        self.began = world.now.timestamp()
        self._number_of_workers = workers
        self.workers: list[Worker] = []
        # By descriptor, the server's processes behind the program's connections.
        self.backends: dict[int, int] = {}
        self._stack = AsyncExitStack()
        self.settings: Settings
        self.runtime: Runtime
        self.beside: list[asyncio.Task[None]] = []
        # What was logged of exceptions that nobody expected.
        self.faults: list[str] = []
        self._observer: psycopg.Connection[dict[str, Any]] | None = None

    @property
    def now(self) -> datetime:
        return self.world.now

    def is_blocked(self, number: int) -> bool:
        """Say whether the server's process behind a connection waits for a lock of another one's."""
        pid = self.backends.get(number)
        if pid is None or not self.server.is_up:
            return False
        return bool(self.rows("SELECT FROM unnest(pg_blocking_pids(%(pid)s)) LIMIT 1", pid=pid))

    def leap(self, seconds: float) -> None:
        self.world.advance(seconds)
        self.server.set_clock(self.world.now + self.database_ahead)

    async def __aenter__(self) -> Season:
        loop = asyncio.get_running_loop()
        bound = listen()
        self._connections = Connections()
        config = configure(self.world, self._connections)
        config.load()
        state = ServerState()

        def protocol() -> asyncio.Protocol:
            return config.http_protocol_class(config=config, server_state=state, app_state={})  # type: ignore[call-arg]

        vendor = await loop.create_server(protocol, sock=bound)
        self._stack.callback(vendor.close)
        self._stack.callback(self._connections.abort)
        self.server.set_clock(self.now)
        conninfo = self.server.fresh("played")
        self.settings = Settings(
            database_url=Secret(conninfo),
            api_url=url_of(bound),
            secret_key=Secret(KEY),
            # Nights are at the same time wherever a season is played.
            timezone=ZoneInfo("UTC"),
        )
        self.runtime = await self._stack.enter_async_context(
            open_runtime(self.settings, machine=MachineClock(self))
        )
        self._conninfo = conninfo
        for number in range(self._number_of_workers):
            worker = Worker(self, number)
            self.workers.append(worker)
            worker.start()
        self.happen(self._tick())
        return self

    async def __aexit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.stop.set()
        await asyncio.wait([worker.task for worker in self.workers if worker.task], timeout=20)
        for task in self.beside:
            task.cancel()
        await asyncio.gather(*self.beside, return_exceptions=True)
        if self._observer is not None:
            self._observer.close()
        await self._stack.aclose()

    def rows(self, query: str, **values: Any) -> list[dict[str, Any]]:
        """Read the mirror."""
        for _ in range(2):
            if self._observer is None or self._observer.closed:
                self._observer = psycopg.connect(
                    self._conninfo,
                    autocommit=True,
                    row_factory=dict_row,
                    client_encoding="UTF8",
                    options=OURS,  # whatever a DBA has set
                )
            with suppress(psycopg.OperationalError):  # lost in a crash
                return self._observer.execute(query.encode(), values).fetchall()
            self._observer.close()
        raise AssertionError("the database does not answer who looks on")

    def happen(self, doing: Coroutine[Any, Any, None]) -> None:
        """Let something go on beside."""
        self.beside.append(asyncio.create_task(doing))

    def start_worker_again(self, dead: Worker) -> None:
        """Start a worker in place of one that was killed."""
        if dead in self.workers:
            at = self.workers.index(dead)
            self.workers[at] = Worker(self, at)
            self.workers[at].start()

    def quiet(self) -> AbstractAsyncContextManager[None]:
        """Wait until the database works on nothing: what is done to it is then the same each time."""
        return self.turns.turn(NOBODYS_SOCKET)

    async def kill(self, machine: Machine) -> None:
        """Kill a machine. The server has noticed when this returns, but where it waits for a lock."""
        async with self.quiet():
            left = {
                number: pid for number in machine.sockets if (pid := self.backends.get(number)) is not None
            }
            machine.kill()
            self._noticed(left)

    def _noticed(self, left: dict[int, int]) -> None:
        """Wait until the server's processes behind connections that were cut are gone."""
        until = time.monotonic() + NOTICED_SECONDS
        while left and self.server.is_up:
            left = {
                number: pid
                for number, pid in left.items()
                if psutil.pid_exists(pid) and not self.is_blocked(number)
            }
            if time.monotonic() > until:
                raise TimeoutError("the database does not notice that connections were cut")
            time.sleep(0.001)

    def are_gone(self, pids: Sequence[int]) -> None:
        """Wait until processes of the server are gone whose connections were closed."""
        until = time.monotonic() + NOTICED_SECONDS
        while any(psutil.pid_exists(pid) for pid in pids) and time.monotonic() < until:
            time.sleep(0.001)

    def sessions_ended(self) -> None:
        """Every session with the database is gone: workers notice, since each keeps one."""
        for worker in self.workers:
            if worker.jobs is not None and not worker.machine.dead:
                worker.jobs.lose_sessions()
        self.bell.ring()

    def hire(self) -> Worker:
        """Start one worker more."""
        worker = Worker(self, len(self.workers))
        self.workers.append(worker)
        worker.start()
        return worker

    async def dismiss(self, worker: Worker) -> None:
        """Tell a worker to leave, and wait for that. One that was killed is gone already."""
        worker.stop.set()
        if worker.machine.runs and worker.task is not None:
            await asyncio.wait([worker.task], timeout=60)
        if worker in self.workers:
            self.workers.remove(worker)

    async def _tick(self) -> None:
        """Queue what is periodic, when it finds something to do."""
        loop = asyncio.get_running_loop()
        maintained = ticked = 0.0
        while True:
            while True:
                async with self.quiet():
                    wait = self._next_tick(ticked) - loop.time()
                if wait <= 0:
                    break
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self.bell.heard()
            ticked = loop.time()
            async with self.quiet():
                if not self.server.is_up:
                    continue
                self._beat()
                left_work = self._somebody_left_work()
            if loop.time() - maintained >= MAINTAIN_SECONDS:
                maintained = loop.time()
                await self._queue(MAINTAIN, MAINTAIN)
            if left_work:
                await self._queue(RESCUE, None)
            await self._queue(PLANNER, PLANNER)
            self.bell.ring()

    async def _queue(self, task: str, lock: str | None) -> None:
        with suppress(BibwireError):  # the database may be down, or full of others: it is queued next time
            async with self.runtime.db.transaction() as connection:
                await self.runtime.jobs.defer(
                    connection, task, {}, lock=lock, queueing_lock=task, priority=CHORE_PRIORITY
                )

    def _somebody_left_work(self) -> bool:
        """Say whether the rescue has anything to do: a job that failed, or a worker that is gone."""
        return bool(
            self.rows(
                "SELECT FROM bibwire_jobs.procrastinate_jobs WHERE status = 'failed'"
                " OR status = 'doing' AND worker_id <> ALL (%(alive)s)"
                " UNION ALL SELECT FROM bibwire_jobs.procrastinate_workers WHERE id <> ALL (%(alive)s)"
                " LIMIT 1",
                alive=self._alive(),
            )
        )

    def _alive(self) -> list[int]:
        numbers = [w.jobs.worker_id for w in self.workers if w.machine.runs and w.jobs is not None]
        return [number for number in numbers if number is not None]

    def _beat(self) -> None:
        self.rows(
            "UPDATE bibwire_jobs.procrastinate_workers SET last_heartbeat = now() WHERE id = ANY (%(alive)s)"
            " RETURNING id",
            alive=self._alive(),
        )

    def _next_tick(self, last: float) -> float:
        """Return the first look of the planner that finds something to do, by the loop's time."""
        if not self.server.is_up:
            return last + TICK_SECONDS
        [row] = self.rows(
            """
            SELECT extract(epoch FROM least(
                (
                    SELECT min(next_due_at) - interval '5 seconds'
                    FROM bibwire.scopes
                    WHERE claimed_until IS NULL
                ),
                (SELECT min(claimed_until) FROM bibwire.scopes),
                (SELECT min(next_plan_at) FROM bibwire.plans),
                (SELECT min(next_discovery_at) FROM bibwire.plans),
                now() + interval '1 hour'
            ) - now())::float8 AS seconds
            """
        )
        due = asyncio.get_running_loop().time() + row["seconds"]
        ticks: float = max(1, -((last - due) // TICK_SECONDS))
        return last + ticks * TICK_SECONDS


class _Faults(logging.Handler):
    """Keeps what the program logs of exceptions that it did not expect; each is a fault of its own."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._faults = faults

    def emit(self, record: logging.LogRecord) -> None:
        if isinstance(record.msg, dict):
            error = record.msg.get("exc_info")
            error = sys.exc_info()[1] if error is True else error
            if isinstance(error, BaseException):
                self._faults.append(
                    f"{record.msg.get('event')}: " + "".join(traceback.format_exception(error))[-1500:]
                )
            elif error is None and record.msg.get("action") != "watch":  # of chores: `_tick` queues them
                self._faults.append(str(record.msg))


async def _no_signs(session: Session) -> None:
    """Instead of a sign every few seconds, one before anybody looks for them: see `Season._tick`."""
    await asyncio.Event().wait()


def play(world: rsusim.World, server: MovedPostgres, story: Any, *, workers: int = 1, seed: int = 0) -> None:
    """Play a season: `story(season)` is what happens."""
    random.seed(seed)
    season = Season(world, server, workers=workers)
    logs.set_up(level="ERROR", shown="CRITICAL")
    loop = MovedLoop(season.leap)

    async def go() -> None:
        async with season:
            await story(season)

    connected = Watched.__init__

    def note(connection: Watched, *arguments: Any, **options: Any) -> None:
        connected(connection, *arguments, **options)
        season.backends[connection.pgconn.socket] = connection.info.backend_pid

    wait = Watched.wait

    async def in_turn(connection: Watched, *arguments: Any, **options: Any) -> Any:
        async with season.turns.turn(connection.pgconn.socket):
            return await wait(connection, *arguments, **options)

    loop.selector.is_blocked = season.is_blocked
    loop.selector.on_blocked = season.turns.pass_over
    loop.selector.let_next = season.turns.let_next
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Watched, "__init__", note)
        patch.setattr(Watched, "wait", in_turn)
        patch.setattr(Session, "give_signs", _no_signs)
        patch.setattr("bibwire.runtime.open_session", partial(open_session, silent_seconds=SILENT_SECONDS))
        patch.setattr("bibwire.engine.worker.WATCH_SECONDS", WATCH_SECONDS)
        for module in MONOTONIC:
            patch.setattr(f"{module}.monotonic", loop.time)
        patch.setattr("httpcore2._async.http11.time", SimpleNamespace(monotonic=loop.time))
        patch.setattr("bibwire.store.permits.random", SimpleNamespace(Random=lambda _: random.Random(seed)))
        # It goes by how long a computer takes.
        patch.setattr(Breath, "LONGEST_SECONDS", math.inf)
        heard = _Faults(season.faults)
        logging.getLogger().addHandler(heard)
        try:
            loop.run_until_complete(go())
        finally:
            logging.getLogger().removeHandler(heard)
            loop.close()
