"""
Four workers through a storm: killed, frozen, cut off from the database, refused by the vendor.

In real time, with real processes: what holds afterwards is the mirror, the feed, the calls in
flight, and that every race is polled as before within a minute.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from zoneinfo import ZoneInfo

import psycopg
import pytest

import rsusim
from tests.children import ROOT
from tests.e2e import truth
from tests.house import KEY, House
from tests.waiting import PATIENCE_SECONDS

WORKERS = 4
SCOPES = 5


@pytest.fixture
def world() -> rsusim.World:
    """Two partners and four hot races, one of them shared; time runs."""
    world = rsusim.World(seed=11, now=datetime.now(UTC))
    peak, lakeside = world.add_partner("Peak Timing"), world.add_partner("Lakeside Race Services")
    start = (world.now + timedelta(hours=2)).astimezone(ZoneInfo("America/Denver")).replace(tzinfo=None)
    for owners in ([peak], [peak, lakeside], [lakeside], [lakeside]):
        race = world.add_race(owners, None, "America/Denver")
        for name in ("10K", "5K"):
            event = world.add_event(race, name, start.replace(second=0, microsecond=0))
            for number in range(20):
                world.register(event, bib_num=number + 1)
    world.advance(60)
    world.clock.run(1)
    return world


class Crew:
    """Worker processes, with what can happen to them."""

    def __init__(self, **environment: str) -> None:
        self._environment = {**os.environ, **environment, "BIBWIRE_LOG_LEVEL": "ERROR"}
        self.workers = [self._start() for _ in range(WORKERS)]

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", "bibwire", "worker"], cwd=ROOT, env=self._environment)

    def kill(self, number: int) -> None:
        """Kill one, and start another in its place."""
        self.workers[number].kill()
        self.workers[number].wait()
        self.workers[number] = self._start()

    def freeze(self, number: int) -> None:
        self.workers[number].send_signal(signal.SIGSTOP)

    def thaw(self, number: int) -> None:
        self.workers[number].send_signal(signal.SIGCONT)

    def end(self) -> list[int]:
        """Tell all to end; return their exit codes."""
        for worker in self.workers:
            worker.send_signal(signal.SIGCONT)
            worker.terminate()
        return [worker.wait(PATIENCE_SECONDS) for worker in self.workers]

    def destroy(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.wait()


@pytest.fixture
def crew(house: House, database_url: str) -> Iterator[Crew]:
    for account in house.world.accounts.values():
        house.add_partner(account, calls_per_hour=100_000)
    crew = Crew(
        BIBWIRE_DATABASE_URL=database_url,
        BIBWIRE_API_URL=house.settings.api_url,
        BIBWIRE_SECRET_KEY=KEY,
    )
    yield crew
    crew.destroy()


def wait_until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def all_since(house: House, instant: datetime, column: str) -> bool:
    """Say whether the mirror of every race is complete to that instant."""
    rows = house.rows("SELECT * FROM bibwire.freshness")
    return len(rows) == SCOPES and all(row[column] and row[column] >= instant for row in rows)


def cut_connections(database_url: str) -> None:
    """End every session in the database, as a restart of the server does."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            # Those without a name are the test's own.
            " AND application_name <> ''"
        )


@pytest.mark.slow
def test_a_storm_leaves_the_mirror_whole(house: House, crew: Crew, database_url: str) -> None:
    world, random = house.world, Random(4)
    begin = world.now
    wait_until(lambda: all_since(house, begin, "as_of"), "the first load")
    life = rsusim.Life(world, rate=2.0, seed=3)
    frozen: int | None = None

    for blow in range(30):
        victim = random.randrange(WORKERS)
        match blow % 6:
            case 0:
                frozen = victim
                crew.freeze(victim)
            case 1 if victim != frozen:
                crew.kill(victim)
            case 2:
                cut_connections(database_url)
            case 3:
                world.faults.add(rsusim.Fault(kind="http_503", times=20))
            case 4 if frozen is not None:
                crew.thaw(frozen)
                frozen = None
            case 5:
                world.faults.add(
                    rsusim.Fault(kind=random.choice(["reset", "truncated", "html_200"]), times=10)
                )
        for _ in range(random.randint(2, 8)):
            time.sleep(0.25)
            life.catch_up()
    if frozen is not None:
        crew.thaw(frozen)
    world.faults.clear()
    calm = world.now

    wait_until(lambda: all_since(house, calm, "participants_as_of"), "every race polled after the storm")
    assert world.now - calm < timedelta(minutes=1)
    wait_until(lambda: all_since(house, calm, "as_of"), "every removed list read after the storm")
    assert crew.end() == [0] * WORKERS
    assert sum(life.happened.values()) > 50
    accounts = tuple(world.accounts.values())
    truth.assert_mirror_equals_world(house.rows, world, *accounts)
    truth.assert_feed_is_sound(house.rows, *accounts)
    truth.assert_no_cursor_is_ahead(house.rows, world)
    assert world.log.highest_in_flight <= 2


def test_an_outage_of_the_vendor_is_told_by_freshness_and_ends_by_itself(house: House, crew: Crew) -> None:
    world = house.world
    begin = world.now
    wait_until(lambda: all_since(house, begin, "as_of"), "the first load")
    world.faults.add(rsusim.Fault(kind="http_503", times=None))
    out = world.now

    def all_failing() -> bool:
        return not house.rows("SELECT FROM bibwire.freshness WHERE failing_since IS NULL")

    wait_until(all_failing, "every race known as failing")
    assert not house.rows(
        "SELECT FROM bibwire.freshness WHERE as_of > %(out)s", out=out + timedelta(seconds=5)
    )
    calls = len(world.log.requests)
    time.sleep(5)
    assert len(world.log.requests) - calls < 5 * 20, "a vendor that is down is not flooded"
    everyone = [world.register(event) for event in list(world.events)[:3]]

    world.faults.clear()

    back = world.now
    wait_until(lambda: all_since(house, back, "participants_as_of"), "every race polled again")
    assert world.now - back < timedelta(minutes=1, seconds=5)
    failing = "SELECT FROM bibwire.freshness WHERE failing_since IS NOT NULL"
    wait_until(lambda: not house.rows(failing), "no race known as failing any more")
    assert {
        row["registration_id"] for row in house.rows("SELECT registration_id FROM bibwire.participants")
    } >= set(everyone)
