"""
What choosing and recording a poll costs, beside many idle scopes: `python -m bench.schedule`.

Partners with races are made by statements; none but a few are due, and the vendor is not asked.
Times are those of whole calls, with the way to the database and back.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Final

import psycopg

from bench.__main__ import server
from bibwire.clock import SystemClock
from bibwire.engine.planner import Planner
from bibwire.store import migrate, schedule
from bibwire.store.database import Database, open_database
from bibwire.store.jobs import Jobs

DUE: Final = 50
ROUNDS: Final = 20
SIZES: Final = (100, 10_000)
RACES: Final = 8


def furnish(conninfo: str, partners: int) -> None:
    """Add partners with races whose next poll is hours away."""
    later = datetime.now(UTC) + timedelta(hours=3)
    values = {"partners": partners, "races": RACES, "later": later}
    with psycopg.connect(conninfo, autocommit=True) as connection:
        for statement in (
            "INSERT INTO bibwire.partners (name) SELECT 'P' || n FROM generate_series(1, %(partners)s) AS n",
            "INSERT INTO bibwire.credentials (partner_id, kind, fingerprint, calls_per_hour, key_encrypted)"
            " SELECT partner_id, 'key', 'abcd', 1000000, '' FROM bibwire.partners",
            "INSERT INTO bibwire.plans (partner_id, next_plan_at, next_discovery_at)"
            " SELECT partner_id, %(later)s, %(later)s FROM bibwire.partners",
            "INSERT INTO bibwire.races (partner_id, race_id, name, first_seen_at, changed_at)"
            " SELECT partner_id, n, 'R', now(), now()"
            " FROM bibwire.partners, generate_series(1, %(races)s) AS n",
            "INSERT INTO bibwire.scopes (partner_id, race_id, tier, poll_every_seconds, next_due_at)"
            " SELECT partner_id, race_id, 'far', 14400, %(later)s FROM bibwire.races",
        ):
            connection.execute(statement.encode(), values)
        connection.execute("ANALYZE")


def make_due(conninfo: str) -> None:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("SET search_path = bibwire_jobs")
        connection.execute("DELETE FROM procrastinate_jobs")
        connection.execute(
            "UPDATE bibwire.scopes SET next_due_at = now(), claimed_until = NULL, tier = 'hot'"
            " WHERE race_id = 1 AND partner_id <= %s",
            (DUE,),
        )


async def measure(conninfo: str) -> dict[str, float]:
    """Return milliseconds a poll, medians."""
    clock = SystemClock()
    async with open_database(conninfo) as db:
        planner = Planner(db, Jobs(db), clock)
        await planner.tick()
        idle = [await _timed(planner.tick) for _ in range(ROUNDS)]
        chosen, recorded = [], []
        for _ in range(ROUNDS):
            make_due(conninfo)
            chosen.append(await _timed(planner.tick) / DUE)
            recorded.append(await _timed(lambda: _record(db, clock)) / DUE)
    return {"a tick, nothing due": median(idle), "choose": median(chosen), "record": median(recorded)}


async def _record(db: Database, clock: SystemClock) -> None:
    for partner_id in range(1, DUE + 1):
        now = clock.now()
        await schedule.turn(db, partner_id, 1)
        await schedule.record_poll(
            db,
            partner_id,
            1,
            polled_at=now,
            removed_polled_at=now,
            rate=0.0,
            next_due_at=now + timedelta(hours=4),
            goes_on=False,
            now=now,
        )


async def _timed(do: Callable[[], Awaitable[object]]) -> float:
    started = time.perf_counter()
    await do()
    return (time.perf_counter() - started) * 1000


def main() -> int:
    """Run the command; the exit code is 0 whatever the figures are."""
    argparse.ArgumentParser(prog="python -m bench.schedule", description=__doc__).parse_args()
    with tempfile.TemporaryDirectory(prefix="bibwire-bench-", dir="/tmp") as name:
        home = Path(name)
        home.chmod(0o755)
        with server(home) as running:
            found = {}
            for partners in SIZES:
                database = f"bench_{partners}"
                with psycopg.connect(running.conninfo, autocommit=True) as connection:
                    connection.execute(f"CREATE DATABASE {database}".encode())
                conninfo = psycopg.conninfo.make_conninfo(running.conninfo, dbname=database)
                migrate.upgrade(conninfo)
                furnish(conninfo, partners)
                found[partners] = asyncio.run(measure(conninfo))
    print(f"milliseconds, medians of {ROUNDS}; {RACES} scopes a partner, {DUE} of them due\n")
    print("| partners | scopes | a tick, nothing due | choose and queue, a poll | record, a poll |")
    print("|---|---|---|---|---|")
    for partners, each in found.items():
        figures = " | ".join(f"{value:.2f}" for value in each.values())
        print(f"| {partners:,} | {partners * RACES:,} | {figures} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
