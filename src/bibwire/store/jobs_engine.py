"""
One run of a worker on procrastinate, until it is told to stop or must start anew.

The only file that knows procrastinate. What it does differently from the package:

- Whoever was taken for dead and comes back finishes nothing: a job is settled only by the worker
  that has it. The package would settle it under the second worker, and so let a third begin.
- An error of its own statements ends the run, and the port starts another. The package would go on
  with a job that is marked as running and runs nowhere.
- Periodic tasks have places of their own (a second worker inside, with the same number): planner
  and rescue wait for no sweep.
- A worker takes only tasks it knows (a queue a task), so that an older version leaves the newer
  one's work alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, LiteralString, cast

import procrastinate
import psycopg
import structlog
from procrastinate import exceptions
from procrastinate.connector import Notify
from procrastinate.jobs import Job, Status
from procrastinate.manager import JobManager, get_channel_for_queues
from procrastinate.retry import BaseRetryStrategy, RetryDecision
from psycopg import sql
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from bibwire.domain.errors import BibwireError, DatabaseCutOff, DatabaseUnavailable
from bibwire.store import connections
from bibwire.store.database import Connection, connect, statements
from bibwire.store.watched import Pool

# "bibj" in ASCII: advisory locks of workers.
WORKER_LOCKS: Final = 0x6269626A
# Of the connections a worker holds, those that are not for listening.
POOL_CONNECTIONS: Final = 2
# How long the engine waits for a connection: less than it may take to stop.
POOL_SECONDS: Final = 4.0
OPEN_SECONDS: Final = 10.0
# So often the connection that only listens is tried.
LISTEN_SECONDS: Final = 10.0
LISTENER: Final = "bibwire worker, listening"
# Before all other work.
CHORE_PRIORITY: Final = 1000

log = structlog.get_logger()
# What it has to say, we say: outages once, failed jobs without arguments and secrets.
logging.getLogger("procrastinate").setLevel(logging.CRITICAL)

Run = Callable[[dict[str, Any], asyncio.Event], Awaitable[None]]


class TakenForDead(Exception):
    """This worker stood still for so long that others may have taken its jobs over."""


# A job that was tried so often before, for whatever reason, is not done again at once but as one that failed.
TRIED_AT_ONCE: Final = 3


class JobCutOff(Exception):
    """The database went away, or another one took its place: nothing is wrong with the job."""


class JobFailed(Exception):
    """A job failed, and it was said why."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds, all of them."""

    heartbeat: float
    stalled_after: float
    poll: float
    graceful: float


@dataclass(frozen=True, slots=True)
class Chore:
    """A task that is queued every so often. `exclusive`: never two at a time."""

    name: str
    task: str
    every_seconds: int
    exclusive: bool


async def defer(
    connection: Connection,
    task: str,
    args: dict[str, Any],
    *,
    lock: str | None,
    queueing_lock: str | None,
    priority: int,
) -> bool:
    """
    Queue a job inside the caller's transaction; False if its queueing lock is in the queue.

    The connection needs the engine's search path, as those of `Database` have it.
    """
    # By hand: psycopg's own `transaction()` would commit if this is the caller's first statement.
    await connection.execute("SAVEPOINT defer_job")
    try:
        await _APP.configure_task(
            task,
            queue=task,
            lock=lock,
            queueing_lock=queueing_lock,
            priority=priority,
            connection=connection,
        ).defer_async(**args)
    except exceptions.AlreadyEnqueued:
        await connection.execute("ROLLBACK TO SAVEPOINT defer_job")
        await connection.execute("RELEASE SAVEPOINT defer_job")
        return False
    except exceptions.ConnectorException as error:
        # As the caller's own statements raise it, so that it is told apart as theirs are.
        raise (error.__cause__ or error) from None
    await connection.execute("RELEASE SAVEPOINT defer_job")
    return True


# Never opened: it only puts jobs into other people's transactions.
_APP: Final = procrastinate.App(connector=procrastinate.PsycopgConnector())


class _Connector(procrastinate.PsycopgConnector):
    """Notices errors; listens on one connection for everybody."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = asyncio.Event()
        self.error: Exception | None = None
        self._listeners: dict[str, Notify] = {}

    def break_off(self, error: Exception) -> None:
        if self.error is None:
            self.error = error
        self.broken.set()

    @contextmanager
    def _noticing(self) -> Iterator[None]:
        try:
            yield
        except exceptions.UniqueViolation:
            raise
        except exceptions.ConnectorException as error:
            cause = error.__cause__
            self.break_off(cause if isinstance(cause, Exception) else error)
            raise

    async def execute_query_async(self, query: LiteralString, **arguments: Any) -> None:
        with self._noticing():
            await super().execute_query_async(query, **arguments)

    async def execute_query_one_async(self, query: LiteralString, **arguments: Any) -> dict[str, Any]:
        with self._noticing():
            row: dict[str, Any] = await super().execute_query_one_async(query, **arguments)
            return row

    async def execute_query_all_async(self, query: LiteralString, **arguments: Any) -> list[dict[str, Any]]:
        with self._noticing():
            rows: list[dict[str, Any]] = await super().execute_query_all_async(query, **arguments)
            return rows

    async def listen_notify(self, on_notification: Notify, channels: Iterable[str]) -> None:
        self._listeners.update(dict.fromkeys(channels, on_notification))
        await asyncio.Event().wait()

    async def dispatch(self, notice: psycopg.Notify) -> None:
        if notice.channel in self._listeners:
            await self._listeners[notice.channel](channel=notice.channel, payload=notice.payload)


class _Manager(JobManager):
    """One worker to the database, however many are inside; settles only jobs that are still its own."""

    def __init__(self, connector: _Connector, timing: Timing, on_alive: Callable[[], None]) -> None:
        super().__init__(connector)
        self._engine = connector
        self._timing = timing
        self._on_alive = on_alive
        self._registering = asyncio.Lock()
        self._users = 0
        self._beat_at = 0.0
        self.worker_id: int | None = None
        self.registered = asyncio.Event()

    async def prune_stalled_workers(self, seconds_since_heartbeat: float) -> list[int]:
        return []  # the rescue does it, in one transaction with their jobs

    async def register_worker(self) -> int:
        async with self._registering:
            if self.worker_id is None:
                self.worker_id = await super().register_worker()
            self._users += 1
            self.registered.set()
            return self.worker_id

    async def unregister_worker(self, worker_id: int) -> None:
        self._users -= 1
        if self._users == 0:
            with suppress(exceptions.ConnectorException):
                await super().unregister_worker(worker_id)

    async def update_heartbeat(self, worker_id: int) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._beat_at < self._timing.heartbeat / 2:
            return  # the other one inside did it
        self._beat_at = now
        if not await self._ask("beat", worker_id=worker_id, stalled_after=self._timing.stalled_after):
            self._engine.break_off(TakenForDead())
        else:
            self._on_alive()

    async def fetch_job(self, queues: Iterable[str] | None, worker_id: int) -> Job | None:
        # Two that fetch at the same instant may want two jobs of one lock: the index lets one pass.
        for _ in range(3):
            with suppress(exceptions.UniqueViolation):
                return await super().fetch_job(queues, worker_id)
        return None

    async def finish_job(self, job: Job, status: Status, delete_job: bool) -> None:
        await self._settle(job, "finish" if status is Status.SUCCEEDED else "fail")

    async def retry_job(self, job: Job, *_: Any, **__: Any) -> None:
        await self._settle(job, "give_back")

    async def _settle(self, job: Job, name: str) -> None:
        # An error has ended the run already: the job is rescued, and done once more.
        with suppress(exceptions.ConnectorException):
            if not await self._ask(name, job_id=job.id, worker_id=job.worker_id):
                log.warning(
                    "job was taken over by another worker meanwhile", action="job", task=job.task_name
                )

    async def _ask(self, name: str, **values: Any) -> list[dict[str, Any]]:
        return await self._engine.execute_query_all_async(statements("jobs")[name], **values)


class _GiveBackWhenCutOff(BaseRetryStrategy):
    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        return RetryDecision() if isinstance(exception, asyncio.CancelledError | JobCutOff) else None


def is_done_again_at_once(error: BibwireError, *, attempts: int) -> bool:
    """Say whether a job that failed waits for nothing; `attempts`: how often it was tried before."""
    return isinstance(error, DatabaseCutOff) and attempts < TRIED_AT_ONCE


def _first_error(*tasks: asyncio.Task[Any]) -> BaseException | None:
    ended = (task for task in tasks if task.done() and not task.cancelled())
    return next((error for task in ended if (error := task.exception())), None)


class WorkerRun:
    """One run. `stopping` is set when it comes to its end; so jobs know that they are to leave."""

    def __init__(
        self,
        conninfo: str,
        tasks: Mapping[str, Run],
        chores: Sequence[Chore],
        *,
        concurrency: int,
        timing: Timing,
        on_alive: Callable[[], None],
        on_open: Callable[[], Awaitable[None]],
        on_broken: Callable[[BaseException], None],
    ) -> None:
        self._on_open = on_open
        self._on_broken = on_broken
        # That a job could not use the database was said.
        self._told = False
        self._conninfo = conninfo
        self._timing = timing
        self._tasks = list(tasks)
        self._connector = _Connector()
        self._manager = _Manager(self._connector, timing, on_alive)
        self._chores = {chore.task for chore in chores}
        self.stopping = asyncio.Event()
        sweeps = {name: run for name, run in tasks.items() if name not in self._chores}
        self._workers = [
            (self._app({name: tasks[name] for name in self._chores}, chores), len(self._chores) + 1)
        ]
        if sweeps:
            self._workers.append((self._app(sweeps, ()), concurrency))

    @property
    def worker_id(self) -> int | None:
        """The number it had in the queue; None: it was not there yet."""
        return self._manager.worker_id

    async def run(self, stop: asyncio.Event) -> None:
        """
        Work until `stop` is set.

        Raises:
            DatabaseUnavailable: No connection within 10 s.
            TakenForDead: The run must start anew, at once.
            Exception: What ended it; it must start anew.
        """
        async with self._open_pool(stop) as pool:
            if stop.is_set():
                return
            await self._on_open()
            await self._connector.open_async(cast("AsyncConnectionPool[Connection]", pool))
            workers = [
                asyncio.create_task(
                    app.run_worker_async(
                        queues=[name for name in app.tasks if not name.startswith("builtin:")],
                        concurrency=concurrency,
                        fetch_job_polling_interval=self._timing.poll,
                        abort_job_polling_interval=3600,  # nobody aborts
                        shutdown_graceful_timeout=self._timing.graceful,
                        delete_jobs="successful",
                        install_signal_handlers=False,
                        update_heartbeat_interval=self._timing.heartbeat,
                    )
                )
                for app, concurrency in self._workers
            ]
            for worker in workers:
                # Who leaves later than we wait tells nobody: what it failed with is not for the terminal.
                worker.add_done_callback(lambda task: task.cancelled() or task.exception())
            side = [
                asyncio.create_task(self._listen()),
                asyncio.create_task(self._connector.broken.wait()),
                asyncio.create_task(stop.wait()),
            ]
            try:
                await asyncio.wait((*workers, *side), return_when=asyncio.FIRST_COMPLETED)
                if not stop.is_set() and (broken := self._connector.error or _first_error(*workers, *side)):
                    # Said now: jobs may take seconds to leave.
                    self._on_broken(broken)
            finally:
                self.stopping.set()
                # While jobs leave, the connection that says that we live stays: nobody rescues them.
                for tasks in (workers, side):
                    for task in tasks:
                        task.cancel()
                    # Longer than the grace only if a job does not let itself be cancelled: it is left.
                    await asyncio.wait(tasks, timeout=self._timing.graceful + 1)
                error = _first_error(*workers, *side)
        if self._connector.error is not None:
            raise self._connector.error
        if not stop.is_set():
            raise error or RuntimeError("the worker ended by itself")

    @asynccontextmanager
    async def _open_pool(self, stop: asyncio.Event) -> AsyncIterator[Pool]:
        pool = connections.make_pool(
            self._conninfo,
            application_name="bibwire worker",
            configure=configure,
            max_size=POOL_CONNECTIONS,
            timeout=POOL_SECONDS,
        )
        try:
            opening = asyncio.create_task(pool.open(wait=True, timeout=OPEN_SECONDS))
            stopping = asyncio.create_task(stop.wait())
            try:
                await asyncio.wait((opening, stopping), return_when=asyncio.FIRST_COMPLETED)
            finally:
                stopping.cancel()
                if not opening.done():
                    opening.cancel()
            with suppress(asyncio.CancelledError):
                await opening
            yield pool
        except PoolTimeout:
            raise DatabaseUnavailable(f"PostgreSQL did not answer within {OPEN_SECONDS:g} s.") from None
        finally:
            await pool.close(timeout=0.5)

    async def _listen(self) -> None:
        """Wake the workers when there is work; while this connection stands, the worker lives."""
        await self._manager.registered.wait()
        assert self._manager.worker_id is not None
        connection = await connect(self._conninfo, name=LISTENER)
        async with connection:
            await connection.execute(
                statements("jobs")["hold_worker"],
                {"lock_class": WORKER_LOCKS, "worker_lock": self._manager.worker_id & 0x7FFFFFFF},
            )
            for channel in get_channel_for_queues(self._tasks):
                await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
            while True:
                async for notice in connection.notifies(timeout=LISTEN_SECONDS):
                    await self._connector.dispatch(notice)
                await connection.execute("SELECT 1")

    def _app(self, tasks: Mapping[str, Run], chores: Sequence[Chore]) -> procrastinate.App:
        app = procrastinate.App(connector=self._connector)
        app.job_manager = self._manager
        made = {
            name: app.task(name=name, queue=name, pass_context=True, retry=_GiveBackWhenCutOff())(
                self._wrapped(name, run)
            )
            for name, run in tasks.items()
        }
        for chore in chores:
            app.periodic(
                cron=_cron(chore.every_seconds),
                periodic_id=chore.name,
                queueing_lock=chore.task,
                lock=chore.task if chore.exclusive else None,
                priority=CHORE_PRIORITY,
            )(made[chore.task])
        return app

    def _wrapped(self, name: str, run: Run) -> Callable[..., Awaitable[None]]:
        async def task(context: procrastinate.JobContext, /, **args: Any) -> None:
            told = {"action": "job", "task": name, "attempt": context.job.attempts + 1}
            if name in self._chores:
                args.pop("timestamp", None)
            try:
                await run(args, self.stopping)
            except asyncio.CancelledError as error:
                if self.stopping.is_set():
                    log.info("job cut short and given back", **told)
                    raise
                log.error("job failed", exc_info=error, **told)
                raise JobFailed from None
            except BibwireError as error:
                # With the database it is the same for all of them.
                is_known = isinstance(error, DatabaseUnavailable) and (self._told or self.stopping.is_set())
                self._told = self._told or isinstance(error, DatabaseUnavailable)
                (log.info if is_known else log.warning)("job failed", error=str(error), **told)
                if is_done_again_at_once(error, attempts=context.job.attempts):
                    raise JobCutOff from None
                raise JobFailed from None
            except Exception as error:
                log.error("job failed", exc_info=error, **told)
                raise JobFailed from None
            if name in self._chores:
                await self._connector.execute_query_async(statements("jobs")["note_chore"], task=name)

        return task


async def configure(connection: Connection) -> None:
    """Prepare a connection that only the engine uses."""
    # Each of its statements is a transaction.
    await connection.set_autocommit(True)
    # The plan of its fetch is made when the queue is empty, and kept: by itself the server then
    # compares each job with each, 0.16 s a fetch at 1,000 jobs (docs/decisions/0007). Every
    # statement here finds what it needs by an index.
    await connection.execute("SET enable_seqscan = off")
    await connection.execute("SET enable_bitmapscan = off")
    await connection.execute("SET enable_sort = off")


def _cron(seconds: int) -> str:
    if 0 < seconds < 60 and 60 % seconds == 0:
        return f"* * * * * */{seconds}"
    minutes = seconds // 60
    if seconds % 60 == 0 and 0 < minutes <= 60 and 60 % minutes == 0:
        return f"*/{minutes} * * * * 0" if minutes < 60 else "0 * * * * 0"
    raise ValueError(f"{seconds} s is neither a part of a minute nor of an hour")
