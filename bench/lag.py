"""
How soon changes of hot races are seen, by the schedule itself in moved time: `python -m bench.lag`.

One credential of 1,000 calls an hour, so many hot races with two changes a minute each, four more far
away; an hour of it. The vendor answers at once: to the figures come its own seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import psycopg
from tests.e2e.simulation import Simulation, busiest_hour

import rsusim
from bibwire import logs
from bibwire.store import embedded, migrate

# domain.md 6.2: hot races, and seconds between polls with 850 calls an hour and others every 2 min.
ARITHMETIC = {1: 6.3, 2: 11.9, 3: 17.0, 6: 29.6}
BEGIN = datetime(2026, 9, 12, 12, 0, tzinfo=UTC)


async def hour(conninfo: str, hot: int) -> tuple[list[float], int]:
    """Return the lags of an hour's changes, in order of size, and the calls of the busiest hour."""
    world = rsusim.World(seed=hot, now=BEGIN)
    account = world.add_partner("Peak Timing")
    events = []
    for number in range(hot + 4):
        start = BEGIN + (timedelta(hours=3) if number < hot else timedelta(days=40))
        race = world.add_race([account], f"Race {number}", "America/Denver")
        event = world.add_event(race, "10K", start.replace(tzinfo=None) - timedelta(hours=6))
        for _ in range(40):
            world.register(event)
        events.append(event)

    async def check_in(event: int, seed: int) -> None:
        random, bib = Random(seed), seed * 10_000
        while True:
            await simulation.clock.sleep(random.expovariate(2 / 60))
            world.assign_bib(random.choice(world.active(event)), bib)
            bib += 1

    with rsusim.Server(world) as server:
        async with Simulation(world, server.base_url, conninfo) as simulation:
            await simulation.add_partner(account)
            await simulation.run_until(BEGIN + timedelta(minutes=10))
            for number, event in enumerate(events[:hot], start=1):
                simulation.happen(check_in(event, number))
            await simulation.run_until(world.now + timedelta(hours=1))
            rows = simulation.rows(
                "SELECT extract(epoch FROM seen_at - modified_at)::float8 AS lag"
                " FROM bibwire.bib_changes ORDER BY 1"
            )
    return [row["lag"] for row in rows], busiest_hour(world)[account.name]


def main() -> int:
    """Run the command; the exit code is 0 whatever the figures are."""
    argparse.ArgumentParser(prog="python -m bench.lag", description=__doc__).parse_args()
    logs.set_up(level="ERROR")
    print("| hot races | changes | p50 s | p95 s | arithmetic, 0.95 T + 1 s | busiest hour, calls |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="bibwire-bench-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        with embedded.start(Path(name)) as running:
            for hot, seconds in ARITHMETIC.items():
                with psycopg.connect(running.conninfo, autocommit=True) as connection:
                    connection.execute(f"CREATE DATABASE lag_{hot}".encode())
                conninfo = psycopg.conninfo.make_conninfo(running.conninfo, dbname=f"lag_{hot}")
                migrate.upgrade(conninfo)
                lags, calls = asyncio.run(hour(conninfo, hot))
                p50, p95 = lags[len(lags) // 2], lags[int(len(lags) * 0.95)]
                print(
                    f"| {hot} | {len(lags)} | {p50:.1f} | {p95:.1f} | {0.95 * seconds + 1:.1f} | {calls} |",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
