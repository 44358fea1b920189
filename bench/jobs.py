"""
`python -m bench.jobs`: what the queue costs, and how soon a lost worker's job goes on.

Real workers in processes of their own, on an embedded PostgreSQL as it is installed, with the
constants that are in use.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import psutil
import psycopg

from bibwire.store import embedded, jobs_engine, migrate
from bibwire.store.database import open_database
from bibwire.store.jobs import PLANNER, Jobs, Periodic

Observer = psycopg.Connection[Any]


async def work(conninfo: str) -> None:
    """Be a worker until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)

    async def plan(_: dict[str, Any], __: asyncio.Event) -> None:
        pass

    async with open_database(conninfo) as db:

        async def sweep(args: dict[str, Any], stopping: asyncio.Event) -> None:
            await db.fetch("INSERT INTO public.begun VALUES (%(job)s, clock_timestamp())", job=args["job"])
            if args["seconds"]:
                await asyncio.wait({asyncio.create_task(stopping.wait())}, timeout=args["seconds"])

        await Jobs(db).run_worker(
            {"sweep": sweep, PLANNER: plan},
            concurrency=10,
            periodic=[Periodic(PLANNER, PLANNER, 5)],
            stop=stop,
        )


@contextmanager
def workers(conninfo: str, number: int) -> Iterator[list[psutil.Popen]]:
    """Run worker processes, and end them."""
    command = [sys.executable, "-m", "bench.jobs", "--worker", conninfo]
    started = [psutil.Popen(command) for _ in range(number)]
    try:
        yield started
    finally:
        for each in started:
            if each.poll() is None:
                each.send_signal(signal.SIGCONT)
                each.terminate()
        for each in started:
            each.wait()


def wait(happened: Callable[[], bool]) -> float:
    """Return how many seconds it took."""
    started = time.monotonic()
    while not happened():
        time.sleep(0.002)
    return time.monotonic() - started


def number(observer: Observer, query: str, *values: object) -> float:
    """Return the one number a query gives."""
    [found] = observer.execute(query.encode(), values).fetchone() or (0,)
    return float(found or 0)


async def queue(conninfo: str, count: int, seconds: float = 0) -> float:
    """Queue jobs in one transaction; return the milliseconds each took."""
    async with open_database(conninfo) as db:
        jobs = Jobs(db)
        async with db.transaction() as connection:
            started = time.monotonic()
            for i in range(count):
                await jobs.defer(
                    connection,
                    "sweep",
                    {"job": i, "seconds": seconds},
                    lock=f"scope:{i}",
                    queueing_lock=f"sweep:{i}",
                )
            return (time.monotonic() - started) * 1000 / count


async def fetches(conninfo: str, observer: Observer, jobs: int) -> list[float]:
    """Return the database's milliseconds of fetches by a worker that began on an empty queue."""
    fetch = b"SELECT id FROM procrastinate_fetch_job_v2(%s::varchar[], %s)"
    observer.execute("TRUNCATE bibwire_jobs.procrastinate_jobs CASCADE")
    observer.execute("VACUUM ANALYZE bibwire_jobs.procrastinate_jobs")
    async with await psycopg.AsyncConnection.connect(conninfo) as connection:
        await jobs_engine.configure(connection)
        cursor = await connection.execute("SELECT * FROM procrastinate_register_worker_v1()")
        [worker_id] = await cursor.fetchone() or (0,)
        for _ in range(10):
            await connection.execute(fetch, (["sweep"], worker_id))
        await queue(conninfo, jobs)
        found = []
        for _ in range(50):
            cursor = await connection.execute(
                b"EXPLAIN (ANALYZE, FORMAT JSON) " + fetch, (["sweep"], worker_id)
            )
            [[[explained]]] = await cursor.fetchall()
            found.append(explained["Execution Time"])
    observer.execute("TRUNCATE bibwire_jobs.procrastinate_jobs, bibwire_jobs.procrastinate_workers CASCADE")
    return found


def idle(conninfo: str, observer: Observer, seconds: float) -> None:
    """Tell what workers cost that have nothing to do but plan and rescue."""
    calls = "SELECT sum(calls) FROM pg_stat_statements WHERE query !~ 'pg_stat_statements'"
    for count in (1, 4):
        with workers(conninfo, count) as running:
            wait(lambda: number(observer, "SELECT count(*) FROM bibwire_jobs.chores") >= 2)
            time.sleep(8)  # until the first plans and heartbeats are past
            cpu = sum(sum(each.cpu_times()[:2]) for each in running)
            before, began = number(observer, calls), time.monotonic()
            time.sleep(seconds)
            took = time.monotonic() - began
            statements = (number(observer, calls) - before) / took
            cpu = (sum(sum(each.cpu_times()[:2]) for each in running) - cpu) / took / count
            connections = number(
                observer, "SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '^bibwire'"
            )
            memory = max(each.memory_info().rss for each in running) / 2**20
            print(
                f"idle, {count} workers: {statements / count:.1f} statements/s, {cpu:.2%} of a core, "
                f"{connections / count:.0f} connections each; {memory:.0f} MiB",
                flush=True,
            )
        observer.execute("TRUNCATE bibwire_jobs.chores")


def throughput(conninfo: str, observer: Observer) -> None:
    """Tell how fast 2,000 jobs that are queued at once are done."""
    with workers(conninfo, 2):
        wait(lambda: number(observer, "SELECT count(*) FROM bibwire_jobs.chores") >= 2)
        each = asyncio.run(queue(conninfo, 2000))
        done = "SELECT count(*) FROM public.begun"
        began = time.monotonic()
        wait(lambda: number(observer, done) >= 2000)
        took = time.monotonic() - began
        print(
            f"2,000 jobs queued at once: {each:.2f} ms each to queue, {2000 / took:.0f} jobs/s of 2 workers"
        )
        observer.execute("TRUNCATE public.begun")
        waits = []
        for _ in range(40):
            began = time.monotonic()
            asyncio.run(queue(conninfo, 1))
            wait(lambda: number(observer, done) >= 1)
            waits.append((time.monotonic() - began) * 1000)
            observer.execute("TRUNCATE public.begun")
        print(f"queued on its own connection to begun: {median(waits):.0f} ms", flush=True)


def takeover(conninfo: str, observer: Observer, number_of_signal: signal.Signals, rounds: int) -> None:
    """Tell after how long the job of a worker that is killed or frozen begins on another."""
    took = []
    begun = "SELECT count(*) FROM public.begun"
    living = "SELECT count(*) FROM bibwire_jobs.procrastinate_workers"
    for _ in range(rounds):
        with workers(conninfo, 1) as [first]:
            asyncio.run(queue(conninfo, 1, seconds=600))
            wait(lambda: number(observer, begun) == 1)
            with workers(conninfo, 1) as [second]:
                wait(lambda: number(observer, living) == 2)
                first.send_signal(number_of_signal)
                took.append(wait(lambda: number(observer, begun) == 2))
                began = time.monotonic()
                second.terminate()
                second.wait()
                left = time.monotonic() - began
        observer.execute("TRUNCATE public.begun, bibwire_jobs.procrastinate_jobs CASCADE")
    told = ", ".join(f"{seconds:.1f}" for seconds in took)
    print(f"{number_of_signal.name}: taken over after {told} s; SIGTERM to gone {left:.2f} s", flush=True)


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m bench.jobs", description=__doc__)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--idle-seconds", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=2, help="of each takeover; default: 2")
    args = parser.parse_args()
    if args.worker:
        asyncio.run(work(args.worker))
        return 0
    with tempfile.TemporaryDirectory(prefix="bibwire-bench-", dir="/tmp") as name:
        home = Path(name)
        home.chmod(0o755)
        with embedded.start(home) as running, psycopg.connect(running.conninfo, autocommit=True) as observer:
            observer.execute("ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'")
        with embedded.start(home) as running, psycopg.connect(running.conninfo, autocommit=True) as observer:
            conninfo = running.conninfo
            migrate.upgrade(conninfo)
            observer.execute("CREATE TABLE public.begun (job bigint, at timestamptz)")
            observer.execute("CREATE EXTENSION pg_stat_statements")
            for jobs in (60, 1000, 2000, 10_000):
                times = asyncio.run(fetches(conninfo, observer, jobs))
                p95 = quantiles(times, n=20)[-1]
                print(f"fetch, {jobs:,} jobs: {median(times):.2f} ms, p95 {p95:.2f}", flush=True)
            throughput(conninfo, observer)
            idle(conninfo, observer, args.idle_seconds)
            takeover(conninfo, observer, signal.SIGKILL, args.rounds)
            takeover(conninfo, observer, signal.SIGSTOP, args.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
