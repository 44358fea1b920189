"""Work that was queued is done, by one at a time, whoever dies, freezes or loses the database."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO, Any

import psycopg
import pytest

from bibwire.domain.errors import DatabaseCutOff, DatabaseUnavailable
from bibwire.store import connections, embedded, jobs_engine, jobs_schema, migrate
from bibwire.store.database import Database, open_database
from bibwire.store.jobs import Jobs, Periodic, Task
from tests.children import ROOT
from tests.waiting import PATIENCE_SECONDS, wait_until

Observer = psycopg.Connection[Any]
# In use, made short; but a loaded machine may stand still for seconds and is not dead.
FAST = {"heartbeat_seconds": 0.4, "stalled_after_seconds": 60, "rescue_every_seconds": 1, "poll_seconds": 1}
JOBS = "bibwire_jobs.procrastinate_jobs"


@pytest.fixture
def observer(database_url: str) -> Iterator[Observer]:
    """A connection that looks on; the tables its children write to."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        prepare(connection)
        yield connection


def prepare(connection: Observer) -> None:
    connection.execute(
        """
        CREATE TABLE public.ledger (
            id bigint GENERATED ALWAYS AS IDENTITY,
            job text NOT NULL, worker text NOT NULL, what text NOT NULL
        );
        CREATE TABLE public.gates (job text NOT NULL, worker text NOT NULL)
        """
    )


def ledger(observer: Observer, job: str) -> list[tuple[str, str]]:
    query = "SELECT worker, what FROM public.ledger WHERE job = %s ORDER BY id"
    return observer.execute(query, (job,)).fetchall()


def begun(observer: Observer, job: str, worker: str | None = None) -> bool:
    return any(what == "begin" and worker in (None, who) for who, what in ledger(observer, job))


def ended(observer: Observer, job: str) -> bool:
    return any(what == "end" for _, what in ledger(observer, job))


def open_gate(observer: Observer, job: str, worker: str = "") -> None:
    observer.execute("INSERT INTO public.gates VALUES (%s, %s)", (job, worker))


def one(observer: Observer, query: str, *values: object) -> Any:
    row = observer.execute(query.encode(), values).fetchone()
    return None if row is None else row[0]


class Child:
    """A worker process."""

    def __init__(self, conninfo: str, name: str, log: IO[str], settings: dict[str, Any]) -> None:
        self.name = name
        self._log = log
        command = [sys.executable, "-m", "tests.store.jobs_child", conninfo, name, json.dumps(settings)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stderr=log, text=True)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def wait(self) -> int:
        return self.process.wait(PATIENCE_SECONDS)

    def logged(self, text: str) -> int:
        """Return how often a text stands in its log."""
        return Path(self._log.name).read_text().count(text)


@contextmanager
def worker(conninfo: str, name: str, **settings: Any) -> Iterator[Child]:
    """Run a worker process; killed at the end."""
    settings.setdefault("jobs", FAST)
    with tempfile.NamedTemporaryFile("w", prefix=f"worker-{name}-", suffix=".log") as log:
        child = Child(conninfo, name, log, settings)
        try:
            yield child
        finally:
            child.process.kill()
            child.process.wait()


def defer(conninfo: str, *jobs: tuple[str, dict[str, Any]], **locks: Any) -> None:
    """Queue jobs in one transaction, from here."""

    async def run() -> None:
        async with open_database(conninfo) as db, db.transaction() as connection:
            for task, args in jobs:
                wanted = {"lock": None, "queueing_lock": None, **locks}
                assert await Jobs(db).defer(connection, task, args, **wanted)

    asyncio.run(run())


@asynccontextmanager
async def working(
    jobs: Jobs, tasks: Mapping[str, Task], *, periodic: Sequence[Periodic] = (), concurrency: int = 4
) -> AsyncIterator[None]:
    """Run a worker in this process."""
    stop = asyncio.Event()
    run = asyncio.create_task(
        jobs.run_worker(tasks, concurrency=concurrency, periodic=periodic, stop=stop, graceful_seconds=2)
    )
    try:
        yield
    finally:
        stop.set()
        await run


async def until(happened: Callable[[], Coroutine[Any, Any, object]]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not await happened():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.02)


def in_database(conninfo: str, use: Callable[[Database, Jobs], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        async with open_database(conninfo) as db:
            await use(db, Jobs(db, **FAST))  # type: ignore[arg-type]

    asyncio.run(run())


# Queueing


@pytest.mark.every_postgres
def test_a_job_is_queued_with_its_transaction_or_not_at_all(database_url: str) -> None:
    async def use(db: Database, jobs: Jobs) -> None:
        async def fail() -> None:
            async with db.transaction() as connection:
                # The first statement of its transaction: nothing may be committed on the way.
                assert await jobs.defer(connection, "sweep", {"race": 7}, lock="7", queueing_lock="7")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()
        assert (await jobs.stats()).todo == 0

        async with db.transaction() as connection:
            assert await jobs.defer(connection, "sweep", {"race": 7}, lock="7", queueing_lock="7")
            assert (await jobs.stats()).todo == 0
        assert (await jobs.stats()).todo == 1

    in_database(database_url, use)


@pytest.mark.every_postgres
def test_what_waits_already_is_refused_and_the_transaction_goes_on(database_url: str) -> None:
    async def use(db: Database, jobs: Jobs) -> None:
        async with db.transaction() as connection:
            assert await jobs.defer(connection, "sweep", {}, lock="7", queueing_lock="7")
        async with db.transaction() as connection:
            await connection.execute("CREATE TABLE public.before (i integer)")
            assert not await jobs.defer(connection, "sweep", {}, lock="7", queueing_lock="7")
            assert await jobs.defer(connection, "sweep", {}, lock="8", queueing_lock="8")
            assert not await jobs.defer(connection, "sweep", {}, lock="8", queueing_lock="8")
            await connection.execute("INSERT INTO public.before VALUES (1)")

        assert await db.fetch("SELECT count(*) FROM public.before") == [(1,)]
        assert (await jobs.stats()).todo == 2

    in_database(database_url, use)


def test_an_error_of_the_database_reaches_the_caller_as_its_own(database_url: str) -> None:
    async def run() -> None:
        async with open_database(database_url) as db:
            connection = await psycopg.AsyncConnection.connect(database_url)
            async with connection:
                with pytest.raises(psycopg.errors.UndefinedObject):  # not one of our pool's
                    await Jobs(db).defer(connection, "sweep", {}, lock=None, queueing_lock=None)

    asyncio.run(run())


@pytest.mark.every_postgres
def test_what_is_cancelled_is_not_done_and_can_be_queued_again(database_url: str, observer: Observer) -> None:
    async def use(db: Database, jobs: Jobs) -> None:
        async def queue(task: str, partner: int, race: int) -> bool:
            args = {"partner_id": partner, "race_id": race}
            async with db.transaction() as connection:
                return await jobs.defer(connection, task, args, lock=None, queueing_lock=f"{task} {args}")

        assert await jobs.cancel(["sweep", "discover"], {"partner_id": 1}) == 0
        for task, partner, race in (("sweep", 1, 1), ("sweep", 1, 2), ("discover", 1, 1), ("sweep", 11, 1)):
            assert await queue(task, partner, race)
        observer.execute("SET search_path = bibwire_jobs")
        observer.execute(f"UPDATE {JOBS} SET status = 'failed' WHERE args ->> 'race_id' = '2'".encode())

        assert await jobs.cancel(["sweep"], {"partner_id": 1}) == 2

        stats = await jobs.stats()
        assert (stats.todo, stats.failed) == (2, 0)
        assert await queue("sweep", 1, 1)
        assert not await queue("sweep", 11, 1)
        observer.execute(f"UPDATE {JOBS} SET status = 'doing'".encode())
        assert await jobs.cancel(["sweep", "discover"], {}) == 0

    in_database(database_url, use)


def test_who_is_woken_twice_runs_once(database_url: str, observer: Observer) -> None:
    async def use(_: Database, jobs: Jobs) -> None:
        # It rescues, and plans nothing.
        async with working(jobs, {}):
            await until(lambda: _living(jobs))
            assert await jobs.wake("plan")
            assert not await jobs.wake("plan")
            assert one(observer, f"SELECT count(*) FROM {JOBS} WHERE task_name = 'plan'") == 1

    in_database(database_url, use)


def test_nobody_is_woken_where_no_worker_lives(database_url: str, observer: Observer) -> None:
    async def use(_: Database, jobs: Jobs) -> None:
        observer.execute(
            "INSERT INTO bibwire_jobs.procrastinate_workers (last_heartbeat)"
            " VALUES (now() - interval '1 hour')"
        )
        assert not await jobs.wake("plan")
        assert (await jobs.stats()).todo == 0

    in_database(database_url, use)


async def _living(jobs: Jobs) -> bool:
    return (await jobs.stats()).workers > 0


@pytest.mark.every_postgres
def test_nothing_is_ever_put_off_in_the_queue(database_url: str, observer: Observer) -> None:
    async def fail(_: dict[str, Any], __: asyncio.Event) -> None:
        raise ValueError("on purpose")

    async def use(db: Database, jobs: Jobs) -> None:
        async with db.transaction() as connection:
            await jobs.defer(connection, "fail", {}, lock="7", queueing_lock="7")
        async with working(jobs, {"fail": fail}, periodic=[Periodic("fail", "fail", 1)]):
            await until(lambda: _failed(jobs))
            await jobs.rescue()
        assert one(observer, f"SELECT count(*) FROM {JOBS} WHERE scheduled_at IS NOT NULL") == 0

    in_database(database_url, use)


async def _failed(jobs: Jobs) -> bool:
    return (await jobs.stats()).failed > 0


# Working


@pytest.mark.every_postgres
def test_jobs_are_done_and_leave_nothing_behind(database_url: str, observer: Observer) -> None:
    done: list[Any] = []

    async def sweep(args: dict[str, Any], _: asyncio.Event) -> None:
        done.append(args)

    async def use(db: Database, jobs: Jobs) -> None:
        async with working(jobs, {"sweep": sweep}):
            async with db.transaction() as connection:
                for race in range(50):
                    await jobs.defer(
                        connection,
                        "sweep",
                        {"race": race, "why": None},
                        lock=str(race),
                        queueing_lock=str(race),
                    )
            await until(lambda: _empty(jobs))
        assert sorted(each["race"] for each in done) == list(range(50))
        assert one(observer, f"SELECT count(*) FROM {JOBS} WHERE task_name = 'sweep'") == 0
        assert one(observer, "SELECT count(*) FROM bibwire_jobs.procrastinate_workers") == 0

    in_database(database_url, use)


async def _empty(jobs: Jobs) -> bool:
    stats = await jobs.stats()
    return stats.todo == stats.doing == stats.failed == 0


def test_two_kinds_of_work_with_one_lock_run_one_after_the_other(
    database_url: str, observer: Observer
) -> None:
    defer(database_url, ("gated", {"job": "sweep"}), lock="7", queueing_lock="sweep:7")
    defer(database_url, ("quick", {"job": "reconcile"}), lock="7", queueing_lock="reconcile:7")
    defer(database_url, ("quick", {"job": "other"}), lock="8", queueing_lock="sweep:8")
    with worker(database_url, "a"), worker(database_url, "b"):
        wait_until(lambda: begun(observer, "sweep") and ended(observer, "other"))
        # It runs: the next one of the same kind may wait, and waits for the lock as well.
        defer(database_url, ("quick", {"job": "next"}), lock="7", queueing_lock="sweep:7")
        assert not begun(observer, "reconcile")
        open_gate(observer, "sweep")
        wait_until(lambda: ended(observer, "next"))

    order = observer.execute(
        "SELECT job, what FROM public.ledger WHERE job NOT IN ('plan', 'other') ORDER BY id"
    ).fetchall()
    assert order == [(job, what) for job in ("sweep", "reconcile", "next") for what in ("begin", "end")]


async def _work_off(
    database_url: str,
    sweep: Callable[[dict[str, Any], asyncio.Event], Coroutine[Any, Any, None]],
    *,
    first_pause_seconds: float,
    wait_for: Callable[[Jobs], Coroutine[Any, Any, bool]] | None = None,
) -> None:
    """Have one job done until the queue is empty; before that `wait_for` has to hold once."""
    async with open_database(database_url) as db:
        jobs = Jobs(db, **{**FAST, "first_pause_seconds": first_pause_seconds})  # type: ignore[arg-type]
        async with working(jobs, {"sweep": sweep}):
            async with db.transaction() as connection:
                await jobs.defer(connection, "sweep", {}, lock="7", queueing_lock="7")
            if wait_for is not None:
                await until(lambda: wait_for(jobs))
            await until(lambda: _empty(jobs))


def test_what_failed_is_seen_and_done_again_until_it_succeeds(
    database_url: str, observer: Observer, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[float] = []

    async def sweep(_: dict[str, Any], __: asyncio.Event) -> None:
        tries.append(time.monotonic())
        if len(tries) < 3:
            raise ValueError("on purpose")

    asyncio.run(_work_off(database_url, sweep, first_pause_seconds=1.0, wait_for=_failed))
    assert len(tries) == 3
    assert tries[1] - tries[0] >= 1
    assert tries[2] - tries[1] >= 2


def test_what_the_database_cut_off_is_done_again_without_a_pause(
    database_url: str, observer: Observer
) -> None:
    """As after a restart in the middle of a poll: hot races cannot wait for what follows a failure."""
    tries = 0

    async def sweep(_: dict[str, Any], __: asyncio.Event) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise DatabaseCutOff("PostgreSQL was started again")

    asyncio.run(_work_off(database_url, sweep, first_pause_seconds=1000.0))
    assert tries == 2


def test_what_failed_gives_way_to_the_same_work_queued_later(database_url: str, observer: Observer) -> None:
    async def use(db: Database, jobs: Jobs) -> None:
        for _ in range(2):
            async with db.transaction() as connection:
                assert await jobs.defer(connection, "sweep", {}, lock="7", queueing_lock="7")
            observer.execute(f"UPDATE {JOBS} SET status = 'doing' WHERE status = 'todo'".encode())
            observer.execute(f"UPDATE {JOBS} SET status = 'failed' WHERE status = 'doing'".encode())
        async with db.transaction() as connection:
            assert await jobs.defer(connection, "sweep", {}, lock="7", queueing_lock="7")
        assert (await jobs.stats()).failed == 2
        observer.execute("UPDATE bibwire_jobs.procrastinate_events SET at = at - interval '1 hour'")
        await jobs.rescue()
        stats = await jobs.stats()
        assert (stats.todo, stats.failed) == (1, 0)

    observer.execute("SET search_path = bibwire_jobs")
    in_database(database_url, use)


def test_periodic_tasks_run_once_over_all_workers_and_wait_for_no_other(
    database_url: str, observer: Observer
) -> None:
    # Every place for other work is taken.
    defer(database_url, *(("gated", {"job": f"long-{i}"}) for i in range(8)))
    started = time.monotonic()
    with worker(database_url, "a", concurrency=1), worker(database_url, "b", concurrency=1):
        wait_until(lambda: len(ledger(observer, "plan")) >= 8)
        runs = len(ledger(observer, "plan"))
        assert runs <= time.monotonic() - started + 2, "the planner ran in each worker"
        stats = _stats(database_url)
        assert stats.workers == 2
        assert stats.planner_seconds is not None
        assert stats.rescue_seconds is not None
        assert stats.stalled == 0
        assert stats.doing >= 2
        gated = f"SELECT count(*) FROM {JOBS} WHERE status = 'doing' AND task_name = 'gated'"
        assert one(observer, gated) == 2
        assert stats.todo >= 6
        assert stats.oldest_todo_seconds is not None


def _stats(conninfo: str) -> Any:
    async def run() -> Any:
        async with open_database(conninfo) as db:
            return await Jobs(db, **FAST).stats()  # type: ignore[arg-type]

    return asyncio.run(run())


def test_a_version_leaves_work_alone_that_it_does_not_know(database_url: str, observer: Observer) -> None:
    defer(database_url, ("invented-later", {"job": "new"}), lock="7")
    defer(database_url, ("quick", {"job": "old"}), lock="8")

    async def later(args: dict[str, Any], _: asyncio.Event) -> None:
        done.append(args["job"])

    async def use(_: Database, jobs: Jobs) -> None:
        async with working(jobs, {"invented-later": later}):
            await until(lambda: _empty(jobs))

    done: list[str] = []
    with worker(database_url, "old"):
        wait_until(lambda: ended(observer, "old"))
        assert one(observer, f"SELECT status::text FROM {JOBS} WHERE lock = '7'") == "todo"
        in_database(database_url, use)
    assert done == ["new"]


def test_a_worker_holds_no_more_connections_than_it_says(database_url: str, observer: Observer) -> None:
    defer(database_url, *(("quick", {"job": f"quick-{i}"}) for i in range(100)))
    most = 0

    def look() -> bool:
        nonlocal most
        count = "SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '^bibwire worker'"
        most = max(most, one(observer, count + " AND datname = current_database()"))
        return all(ended(observer, f"quick-{i}") for i in (0, 50, 99))

    with worker(database_url, "a", concurrency=16):
        wait_until(look)
    assert 2 <= most <= 3


@pytest.mark.every_postgres
@pytest.mark.parametrize("blocked", [0, 450])
def test_a_fetch_does_not_compare_each_job_with_each(
    database_url: str, observer: Observer, blocked: int
) -> None:
    """Its plan is made on an empty queue and kept: 1,000 jobs must not make it quadratic (15,000 pages)."""
    fetch = "SELECT id FROM procrastinate_fetch_job_v2(%s::varchar[], %s)"
    queue = """
        INSERT INTO procrastinate_jobs (queue_name, task_name, lock)
        SELECT 'sweep', 'sweep', 'l' || mod(i, %s) FROM generate_series(1, 1000) AS i
    """

    async def run() -> list[int]:
        async with await psycopg.AsyncConnection.connect(database_url) as connection:
            await connections.settle_async(connection)
            await jobs_engine.configure(connection)
            cursor = await connection.execute("SELECT * FROM procrastinate_register_worker_v1()")
            [worker_id] = await cursor.fetchone() or (0,)
            for _ in range(10):  # until the server keeps the plan
                await connection.execute(fetch, (["sweep"], worker_id))
            observer.execute(queue.encode(), (500 if blocked else 5000,))
            running = "UPDATE procrastinate_jobs SET status = 'doing' WHERE id IN"
            running += " (SELECT id FROM procrastinate_jobs ORDER BY id LIMIT %s)"
            observer.execute(running.encode(), (blocked,))
            pages = []
            for _ in range(10):
                cursor = await connection.execute(
                    f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {fetch}".encode(), (["sweep"], worker_id)
                )
                [[[explained]]] = await cursor.fetchall()
                pages.append(explained["Plan"]["Shared Hit Blocks"] + explained["Plan"]["Shared Read Blocks"])
            return pages

    observer.execute("ALTER TABLE bibwire_jobs.procrastinate_jobs SET (autovacuum_enabled = off)")
    observer.execute("SET search_path = bibwire_jobs")
    observer.execute("VACUUM ANALYZE procrastinate_jobs")
    assert max(asyncio.run(run())) < 5_000


# Dying, freezing, leaving


def test_a_killed_workers_job_is_taken_over_once_its_connection_is_gone(
    database_url: str, observer: Observer
) -> None:
    defer(database_url, ("gated", {"job": "sweep"}), lock="7", queueing_lock="7")
    with worker(database_url, "a") as first:
        wait_until(lambda: begun(observer, "sweep", "a"))
        with worker(database_url, "b"):
            first.signal(signal.SIGKILL)
            wait_until(lambda: begun(observer, "sweep", "b"))
            open_gate(observer, "sweep")
            wait_until(lambda: ended(observer, "sweep"))
    assert ledger(observer, "sweep") == [("a", "begin"), ("b", "begin"), ("b", "end")]


def test_a_frozen_worker_that_comes_back_lets_no_third_begin(database_url: str, observer: Observer) -> None:
    settings = {**FAST, "stalled_after_seconds": 5}
    defer(database_url, ("stubborn", {"job": "sweep"}), lock="7", queueing_lock="sweep:7")
    # Patient, so that what it thaws with comes to its end and is not cut short on the way.
    with worker(database_url, "frozen", jobs=settings, graceful_seconds=PATIENCE_SECONDS) as frozen:
        wait_until(lambda: begun(observer, "sweep", "frozen"))
        with worker(database_url, "second", jobs=settings):
            frozen.signal(signal.SIGSTOP)
            wait_until(lambda: begun(observer, "sweep", "second"))
            defer(database_url, ("quick", {"job": "third"}), lock="7", queueing_lock="third:7")
            open_gate(observer, "sweep", "frozen")
            frozen.signal(signal.SIGCONT)
            # Its job comes to the end, and is not the one to settle it. (A chore that it froze in the
            # middle of is not settled by it either, and may be told of before.)
            wait_until(lambda: ("frozen", "end") in ledger(observer, "sweep"))
            wait_until(
                lambda: (
                    frozen.logged("job was taken over by another worker meanwhile   action=job task=stubborn")
                    or frozen.logged("worker stood still for too long and begins anew")
                )
            )
            count = len(ledger(observer, "plan"))
            wait_until(lambda: len(ledger(observer, "plan")) > count + 1)
            assert not begun(observer, "third"), "the thawed worker freed the lock of the second"
            open_gate(observer, "sweep", "second")
            wait_until(lambda: ended(observer, "third"))
        # Alone now, it works on.
        defer(database_url, ("quick", {"job": "fourth"}), lock="7")
        wait_until(lambda: ended(observer, "fourth"))


def test_who_dies_over_a_rescue_keeps_nobody_from_rescuing(database_url: str, observer: Observer) -> None:
    observer.execute("SET search_path = bibwire_jobs")
    observer.execute(
        """
        INSERT INTO procrastinate_workers (last_heartbeat) VALUES (now() - interval '1 hour');
        INSERT INTO procrastinate_jobs (queue_name, task_name, lock, queueing_lock, status, worker_id)
        SELECT name, name, nullif(name, 'rescue'), name, 'doing', (SELECT id FROM procrastinate_workers)
        FROM unnest(ARRAY['rescue', 'plan']) AS name
        """
    )
    with worker(database_url, "a"):
        wait_until(lambda: len(ledger(observer, "plan")) >= 2)
    assert _stats(database_url).rescue_seconds is not None


def test_of_the_same_work_rescued_and_queued_again_one_is_left(database_url: str, observer: Observer) -> None:
    observer.execute("SET search_path = bibwire_jobs")
    observer.execute(
        """
        INSERT INTO procrastinate_workers (last_heartbeat) VALUES (now() - interval '1 hour'), (now());
        INSERT INTO procrastinate_jobs (queue_name, task_name, queueing_lock, status, worker_id)
        VALUES ('s', 's', 'queued again', 'doing', 1), ('s', 's', 'queued again', 'todo', NULL),
            ('s', 's', 'twice', 'doing', 1), ('s', 's', 'twice', 'doing', NULL),
            ('s', 's', NULL, 'doing', 1), ('s', 's', NULL, 'doing', 1), ('s', 's', 'alive', 'doing', 2)
        """
    )

    async def use(_: Database, jobs: Jobs) -> None:
        assert (await jobs.stats()).stalled == 5
        assert sum(await asyncio.gather(*(jobs.rescue(stalled_after=30) for _ in range(4)))) == 5
        assert (await jobs.stats()).stalled == 0

    in_database(database_url, use)
    left = observer.execute("SELECT queueing_lock, status::text FROM procrastinate_jobs").fetchall()
    assert Counter(left) == Counter(
        [("queued again", "todo"), ("twice", "todo"), (None, "todo"), (None, "todo"), ("alive", "doing")]
    )


def test_who_is_told_to_leave_finishes_its_page_and_goes(database_url: str, observer: Observer) -> None:
    defer(database_url, ("gated", {"job": "sweep"}), lock="7", queueing_lock="7")
    with worker(database_url, "a") as leaving:
        wait_until(lambda: begun(observer, "sweep"))
        leaving.signal(signal.SIGTERM)
        assert leaving.wait() == 0
    assert ledger(observer, "sweep") == [("a", "begin"), ("a", "left")]
    assert one(observer, "SELECT count(*) FROM bibwire_jobs.procrastinate_workers") == 0
    assert one(observer, f"SELECT count(*) FROM {JOBS} WHERE status = 'doing'") == 0


def test_who_does_not_leave_in_time_is_cut_short_and_another_goes_on(
    database_url: str, observer: Observer
) -> None:
    # Nothing would be rescued for a long time: it was given back.
    slow = {**FAST, "stalled_after_seconds": 10_000, "heartbeat_seconds": 1000, "rescue_every_seconds": 60}
    defer(database_url, ("stubborn", {"job": "sweep"}), lock="7", queueing_lock="7")
    with worker(database_url, "a", graceful_seconds=0.5, jobs=slow) as leaving:
        wait_until(lambda: begun(observer, "sweep", "a"))
        with worker(database_url, "b", jobs=slow):
            leaving.signal(signal.SIGTERM)
            assert leaving.wait() == 0
            wait_until(lambda: begun(observer, "sweep", "b"))
    assert ("a", "end") not in ledger(observer, "sweep")


# Without a database


@pytest.fixture
def own_home() -> Iterator[Path]:
    """A folder for a server that this test may stop."""
    home = Path(tempfile.mkdtemp(prefix="bibwire-test-", dir="/tmp"))
    home.chmod(0o755)
    yield home
    shutil.rmtree(home)


def test_a_worker_waits_for_a_database_that_is_gone_and_loses_nothing(own_home: Path) -> None:
    server = embedded.start(own_home)
    conninfo = server.conninfo
    try:
        migrate.upgrade(conninfo)
        with psycopg.connect(conninfo, autocommit=True) as observer:
            prepare(observer)
        with worker(conninfo, "a") as survivor:
            defer(conninfo, ("gated", {"job": "cut off"}), lock="7", queueing_lock="7")
            with psycopg.connect(conninfo, autocommit=True) as observer:
                wait_until(lambda: begun(observer, "cut off"))
                open_gate(observer, "cut off")
                ids = "SELECT id FROM bibwire_jobs.procrastinate_workers"
                before = one(observer, ids)
            for _ in range(2):
                told = survivor.logged("worker waits for the database")
                server.close()
                wait_until(lambda told=told: survivor.logged("worker waits for the database") > told)  # type: ignore[misc]
                server = embedded.start(own_home)
                with psycopg.connect(conninfo, autocommit=True) as observer:
                    defer(conninfo, ("quick", {"job": "afterwards"}), lock="8")
                    wait_until(lambda: ended(observer, "cut off"))
                    wait_until(lambda: ended(observer, "afterwards"))
                    wait_until(lambda: survivor.logged("back: worker works again"))
                    assert one(observer, ids + " ORDER BY id DESC") != before
                    observer.execute("DELETE FROM public.ledger WHERE job = 'afterwards'")
            assert survivor.logged("worker waits for the database") == 2
            survivor.signal(signal.SIGTERM)
            assert survivor.wait() == 0
    finally:
        server.close()


def test_a_worker_without_a_database_leaves_at_once(own_home: Path) -> None:
    server = embedded.start(own_home)
    try:
        migrate.upgrade(server.conninfo)
        with psycopg.connect(server.conninfo, autocommit=True) as observer:
            prepare(observer)
        with worker(server.conninfo, "a") as leaving:
            wait_until(lambda: _stats(server.conninfo).planner_seconds is not None)
            server.close()
            wait_until(lambda: leaving.logged("worker waits for the database"))
            leaving.signal(signal.SIGTERM)
            assert leaving.wait() == 0
            assert leaving.logged("worker waits for the database") == 1
    finally:
        server.close()


# The engine's own tables

SHAPE = """
    SELECT 'column', c.relname || '.' || a.attname, format_type(a.atttypid, a.atttypmod) || a.attnotnull
    FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
    WHERE c.relnamespace = 'bibwire_jobs'::regnamespace AND c.relkind = 'r'
      AND a.attnum > 0 AND NOT attisdropped
    UNION ALL
    SELECT 'index', indexname, indexdef FROM pg_indexes WHERE schemaname = 'bibwire_jobs'
    UNION ALL
    SELECT 'function', p.proname, regexp_replace(p.prosrc, '\\s+', ' ', 'g') FROM pg_proc AS p
    WHERE p.pronamespace = 'bibwire_jobs'::regnamespace
    UNION ALL
    SELECT 'trigger', t.tgname, pg_get_triggerdef(t.oid) FROM pg_trigger AS t
    JOIN pg_class AS c ON c.oid = t.tgrelid
    WHERE c.relnamespace = 'bibwire_jobs'::regnamespace AND NOT t.tgisinternal
    ORDER BY 1, 2, 3
"""


def as_of(conninfo: str, name: str) -> None:
    """Make the engine's tables as the package that ended with this migration had made them."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("DROP SCHEMA bibwire_jobs CASCADE; CREATE SCHEMA bibwire_jobs")
        connection.execute("SET search_path = bibwire_jobs")
        connection.execute(
            "CREATE TABLE engine_migrations (name text PRIMARY KEY, engine_version text NOT NULL,"
            " applied_at timestamptz NOT NULL DEFAULT now())"
        )
        for known, file in jobs_schema.files().items():
            if known <= name:
                connection.execute(file.read_bytes())
                connection.execute("INSERT INTO engine_migrations VALUES (%s, '3.0.0')", (known,))


@pytest.mark.every_postgres
def test_a_later_package_brings_the_tables_up_to_date(database_url: str, observer: Observer) -> None:
    new = {row for row in observer.execute(SHAPE.encode()).fetchall() if "chores" not in row[1]}
    as_of(database_url, "03.01.00_50_post_add_heartbeat")
    assert migrate.upgrade(database_url) is True
    assert migrate.upgrade(database_url) is False

    shape = observer.execute(SHAPE.encode()).fetchall()
    # What the package's own two ways to its schema differ in is not ours to judge.
    assert {row[:2] for row in shape} == {row[:2] for row in new}
    assert {name for (name,) in observer.execute("SELECT name FROM bibwire_jobs.engine_migrations")} == set(
        jobs_schema.files()
    )


def test_what_old_workers_cannot_live_with_waits_until_none_lives(
    database_url: str, observer: Observer
) -> None:
    last = list(jobs_schema.files())[-1]
    assert "_post_" in last, "choose another example"
    as_of(database_url, last.replace("50_post", "49"))
    observer.execute("INSERT INTO bibwire_jobs.procrastinate_workers DEFAULT VALUES")
    assert migrate.upgrade(database_url) is False

    observer.execute("DELETE FROM bibwire_jobs.procrastinate_workers")
    assert migrate.upgrade(database_url) is True


def test_a_queue_of_a_newer_program_is_refused(database_url: str, observer: Observer) -> None:
    note = "INSERT INTO bibwire_jobs.engine_migrations VALUES (%s, '99.0.0')"
    observer.execute(note, ("99.00.00_01_pre_something",))
    assert migrate.upgrade(database_url) is False

    observer.execute(note, ("99.00.00_50_post_something",))
    with pytest.raises(DatabaseUnavailable, match="newer Bibwire"):
        migrate.upgrade(database_url)
