"""The queue of the seasons and the real one: what is asked of a queue, both do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import psycopg
import pytest

from bibwire.domain.errors import DatabaseCutOff, DatabaseDenied, DatabaseUnavailable
from bibwire.store import jobs_engine
from bibwire.store.database import Database, open_database
from bibwire.store.jobs import RESCUE, Jobs, Task
from tests.seasons.queue import Bell, SeasonJobs
from tests.waiting import PATIENCE_SECONDS

FAST: Final = {
    "heartbeat_seconds": 0.4,
    "stalled_after_seconds": 60,
    "rescue_every_seconds": 1,
    "poll_seconds": 1,
    "first_pause_seconds": 0.5,
}
LEFT: Final = "SELECT count(*) FROM bibwire_jobs.procrastinate_jobs WHERE task_name = 'sweep'"
# What failed is not done again while a test looks.
PATIENT: Final = {**FAST, "first_pause_seconds": 1000.0}
MakeJobs = Callable[..., Jobs]


class _Rung(SeasonJobs):
    """The double, with what a season does for it: it is told that there is work, and rescues."""

    def __init__(self, db: Database, *, first_pause_seconds: float) -> None:
        super().__init__(db, Bell(), first_pause_seconds=first_pause_seconds)

    async def run_worker(self, *args: Any, **options: Any) -> None:
        ringing = asyncio.create_task(self._ring())
        try:
            await super().run_worker(*args, **options)
        finally:
            ringing.cancel()

    async def _ring(self) -> None:
        while True:
            for _ in range(20):
                await asyncio.sleep(0.02)
                self._bell.ring()
            async with self._db.transaction() as connection:
                await self.defer(connection, RESCUE, {}, lock=None, queueing_lock=RESCUE)


@pytest.fixture(params=["real", "double"])
def make_jobs(request: pytest.FixtureRequest) -> MakeJobs:
    """Make a queue whose failed jobs are done again after half a second, unless `timing` says otherwise."""

    def make(db: Database, timing: Mapping[str, float] = FAST) -> Jobs:
        if request.param == "double":
            return _Rung(db, first_pause_seconds=timing["first_pause_seconds"])
        return Jobs(db, **timing)  # type: ignore[arg-type]

    return make


@asynccontextmanager
async def working(jobs: Jobs, tasks: dict[str, Task], *, concurrency: int = 4) -> AsyncIterator[None]:
    """Run a worker in this process, and have it leave at the end."""
    stop = asyncio.Event()
    run = asyncio.create_task(
        jobs.run_worker(tasks, concurrency=concurrency, periodic=(), stop=stop, graceful_seconds=1)
    )
    try:
        yield
    finally:
        stop.set()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await run


async def queue(db: Database, race: int, *, lock: str | None = None, same: str | None = None) -> bool:
    async with db.transaction() as connection:
        return await Jobs(db).defer(connection, "sweep", {"race": race}, lock=lock, queueing_lock=same)


async def until_empty(db: Database) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            if await db.fetch(LEFT) == [(0,)]:
                return
            await asyncio.sleep(0.02)


def in_database(
    database_url: str, make_jobs: MakeJobs, use: Callable[[Database, Jobs], Coroutine[Any, Any, None]]
) -> None:
    async def run() -> None:
        async with open_database(database_url) as db:
            await use(db, make_jobs(db))

    asyncio.run(run())


def test_each_job_is_done_once_by_one_of_several_workers(database_url: str, make_jobs: MakeJobs) -> None:
    done: list[int] = []

    async def sweep(args: dict[str, Any], _: asyncio.Event) -> None:
        await asyncio.sleep(0.005)
        done.append(args["race"])

    async def use(db: Database, jobs: Jobs) -> None:
        async with working(jobs, {"sweep": sweep}), working(make_jobs(db), {"sweep": sweep}):
            for race in range(30):
                await queue(db, race)
            await until_empty(db)

    in_database(database_url, make_jobs, use)
    assert sorted(done) == list(range(30))


def test_of_one_lock_one_runs_at_a_time_in_the_order_of_the_queue(
    database_url: str, make_jobs: MakeJobs
) -> None:
    order: list[tuple[str, int]] = []

    async def sweep(args: dict[str, Any], _: asyncio.Event) -> None:
        order.append(("begin", args["race"]))
        await asyncio.sleep(0.03)
        order.append(("end", args["race"]))

    async def use(db: Database, jobs: Jobs) -> None:
        for race in range(5):
            await queue(db, race, lock="7")
        async with working(jobs, {"sweep": sweep}), working(make_jobs(db), {"sweep": sweep}):
            await until_empty(db)

    in_database(database_url, make_jobs, use)
    assert order == [(what, race) for race in range(5) for what in ("begin", "end")]


def test_what_waits_already_is_refused(database_url: str, make_jobs: MakeJobs) -> None:
    done: list[int] = []

    async def sweep(args: dict[str, Any], _: asyncio.Event) -> None:
        done.append(args["race"])

    async def use(db: Database, jobs: Jobs) -> None:
        assert await queue(db, 1, same="7")
        assert not await queue(db, 2, same="7")
        async with working(jobs, {"sweep": sweep}):
            await until_empty(db)

    in_database(database_url, make_jobs, use)
    assert done == [1]


def test_what_failed_is_done_again_until_it_succeeds(database_url: str, make_jobs: MakeJobs) -> None:
    tries: list[float] = []

    async def sweep(_: dict[str, Any], __: asyncio.Event) -> None:
        tries.append(asyncio.get_running_loop().time())
        if len(tries) < 2:
            raise ValueError("on purpose")

    async def use(db: Database, jobs: Jobs) -> None:
        async with working(jobs, {"sweep": sweep}):
            await queue(db, 1, lock="7", same="7")
            await until_empty(db)

    in_database(database_url, make_jobs, use)
    assert len(tries) == 2


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (DatabaseCutOff("PostgreSQL was started again"), jobs_engine.TRIED_AT_ONCE + 1),
        (DatabaseUnavailable("PostgreSQL cannot be used: its disk is full"), 1),
        (DatabaseDenied("PostgreSQL takes no changes"), 1),
    ],
    ids=["cut off", "full disk", "denied"],
)
def test_only_what_was_cut_off_is_done_again_at_once_and_not_for_ever(
    database_url: str, make_jobs: MakeJobs, error: Exception, tries: int
) -> None:
    tried = 0

    async def sweep(_: dict[str, Any], __: asyncio.Event) -> None:
        nonlocal tried
        tried += 1
        raise error

    async def run() -> None:
        async with open_database(database_url) as db:
            jobs = make_jobs(db, PATIENT)
            async with working(jobs, {"sweep": sweep}), asyncio.timeout(PATIENCE_SECONDS):
                await queue(db, 1, lock="7", same="7")
                while (await jobs.stats()).failed == 0 and tried < 10:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)

    asyncio.run(run())
    assert tried == tries


def test_who_is_told_to_leave_tells_its_jobs_and_gives_back_what_stays(
    database_url: str, make_jobs: MakeJobs
) -> None:
    told: list[bool] = []

    async def deaf(_: dict[str, Any], stopping: asyncio.Event) -> None:
        started.set()
        await stopping.wait()
        told.append(True)
        await asyncio.Event().wait()

    async def sweep(_: dict[str, Any], __: asyncio.Event) -> None:
        told.append(False)

    async def use(db: Database, jobs: Jobs) -> None:
        await queue(db, 1, lock="7")
        async with working(jobs, {"sweep": deaf}), asyncio.timeout(PATIENCE_SECONDS):
            await started.wait()
        async with working(make_jobs(db), {"sweep": sweep}):
            await until_empty(db)

    started = asyncio.Event()
    in_database(database_url, make_jobs, use)
    assert told == [True, False]


def test_what_was_in_hand_when_all_sessions_were_ended_is_done_again(
    database_url: str, make_jobs: MakeJobs
) -> None:
    begun: list[int] = []

    async def sweep(args: dict[str, Any], stopping: asyncio.Event) -> None:
        begun.append(args["race"])
        started.set()
        if len(begun) == 1:
            await stopping.wait()
            raise asyncio.CancelledError

    async def use(db: Database, jobs: Jobs) -> None:
        async with working(jobs, {"sweep": sweep}):
            await queue(db, 1, lock="7", same="7")
            async with asyncio.timeout(PATIENCE_SECONDS):
                await started.wait()
            with psycopg.connect(database_url, autocommit=True) as dba:
                dba.execute(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            if isinstance(jobs, SeasonJobs):
                jobs.lose_sessions()  # the real one keeps a connection, and hears of its end
            await until_empty(db)

    started = asyncio.Event()
    in_database(database_url, make_jobs, use)
    assert begun == [1, 1]


def test_work_of_a_kind_that_nobody_knows_stays(database_url: str, make_jobs: MakeJobs) -> None:
    async def sweep(_: dict[str, Any], __: asyncio.Event) -> None:
        raise AssertionError("not this one's")

    async def use(db: Database, jobs: Jobs) -> None:
        await queue(db, 1)
        async with working(jobs, {"discover": sweep}):
            await asyncio.sleep(0.3)
        assert (await jobs.stats()).todo == 1

    in_database(database_url, make_jobs, use)
