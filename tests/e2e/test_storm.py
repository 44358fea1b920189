"""
Four workers through a storm: killed, frozen, robbed of the database, refused by the vendor.

In real time, with real processes: what holds afterwards is the mirror, the feed, the calls in
flight, that nobody wrote without the newest lease, and that every race is polled as before within
a minute.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random
from zoneinfo import ZoneInfo

import pytest

import rsusim
from bibwire.store.session import INSTANCE_LOCKS
from tests.e2e import fences, truth
from tests.e2e.crew import Crew, Server, all_since, own_server, wait_until
from tests.e2e.simulation import polls
from tests.house import KEY, House

WORKERS = 4
SCOPES = 5
MINUTE = timedelta(minutes=1)
TICK = timedelta(seconds=5)
# So slow that both places are taken most of the time.
CALL_SECONDS = 2.0


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


@pytest.fixture
def server() -> Iterator[Server]:
    with own_server() as server:
        yield server


@pytest.fixture
def crew(world: rsusim.World, simulator: rsusim.Server, server: Server) -> Iterator[Crew]:
    """Four workers that have loaded every race."""
    begin = world.now
    with House(world, simulator.base_url, server.conninfo) as house:
        fences.watch(server.conninfo)
        crew = Crew(
            WORKERS,
            server,
            BIBWIRE_DATABASE_URL=server.conninfo,
            BIBWIRE_API_URL=house.settings.api_url,
            BIBWIRE_SECRET_KEY=KEY,
        )
        # Once all are at work: the first one would take every race.
        for account in world.accounts.values():
            house.add_partner(account, calls_per_hour=100_000)
    try:
        wait_until(lambda: all_since(server, SCOPES, begin, "as_of"), "the first load")
        yield crew
    finally:
        crew.destroy()


def assert_all_is_well(world: rsusim.World, server: Server) -> None:
    accounts = tuple(world.accounts.values())
    truth.assert_mirror_equals_world(server.rows, world, *accounts)
    truth.assert_feed_is_sound(server.rows, *accounts)
    truth.assert_no_cursor_is_ahead(server.rows, world)
    assert fences.assert_every_write_was_fenced(server.rows) > SCOPES
    assert world.log.highest_in_flight <= 2


@pytest.mark.slow
def test_a_storm_leaves_the_mirror_whole(world: rsusim.World, server: Server, crew: Crew) -> None:
    random = Random(4)
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
                server.crash()
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
            crew.tend()
    if frozen is not None:
        crew.thaw(frozen)
    world.faults.clear()
    calm = world.now

    wait_until(
        lambda: all_since(server, SCOPES, calm, "participants_as_of"), "every race polled after the storm"
    )
    assert world.now - calm < MINUTE
    wait_until(lambda: all_since(server, SCOPES, calm, "as_of"), "every removed list read after the storm")
    assert crew.end() == [128 + signal.SIGTERM] * WORKERS
    assert sum(life.happened.values()) > 50
    assert_all_is_well(world, server)


def freeze_two_in_calls(crew: Crew, server: Server) -> tuple[int, int]:
    """
    Freeze two workers, each of which then keeps one of the two places for calls in flight.

    At once: the server takes the place of one that is silent for `SILENT_SECONDS`.
    """
    frozen: list[int] = []

    def caught() -> bool:
        holders = places(server)
        if len(holders) < 2:
            return False
        frozen[:] = [number for number, backend in enumerate(crew.backends) if backend in holders]
        for number in frozen:
            crew.freeze(number)
        time.sleep(1.5 * CALL_SECONDS)  # who was not frozen has ended its call by then
        if len(frozen) == 2 and places(server) == holders:
            return True
        for number in frozen:
            crew.thaw(number)
        return False

    wait_until(caught, "two workers frozen in the middle of calls")
    one, other = frozen
    return one, other


def places(server: Server) -> set[int]:
    """Return the server's processes that keep a place for a call."""
    query = """
        SELECT l.pid
        FROM bibwire.call_places AS p
        JOIN pg_locks AS l ON l.locktype = 'advisory' AND l.classid = %(c)s::oid AND l.objid = p.instance::oid
    """
    return {row["pid"] for row in server.rows(query, c=INSTANCE_LOCKS)}


@pytest.mark.slow
def test_two_workers_frozen_for_two_minutes_keep_nobody_from_their_races(
    world: rsusim.World, server: Server, crew: Crew
) -> None:
    life = rsusim.Life(world, rate=1.0, seed=5)
    world.quirks.set("latency_seconds", CALL_SECONDS)
    frozen = freeze_two_in_calls(crew, server)
    world.quirks.set("latency_seconds", 0.5)
    begin = world.now

    while world.now - begin < 2 * MINUTE:
        time.sleep(0.25)
        life.catch_up()
    end = world.now
    for number in frozen:
        crew.thaw(number)

    for scope, instants in polls(world).items():
        inside = [at for at in instants if begin.timestamp() <= at <= end.timestamp()]
        gaps = [b - a for a, b in pairwise([begin.timestamp(), *inside, end.timestamp()])]
        assert max(gaps) <= (MINUTE + TICK).total_seconds(), scope
    world.quirks.set("latency_seconds", 0.0)
    calm = world.now
    wait_until(lambda: all_since(server, SCOPES, calm, "as_of"), "every race polled by all")
    assert crew.end() == [128 + signal.SIGTERM] * WORKERS
    assert sum(life.happened.values()) > 20
    assert_all_is_well(world, server)


def test_an_outage_of_the_vendor_is_told_by_freshness_and_ends_by_itself(
    world: rsusim.World, server: Server, crew: Crew
) -> None:
    world.faults.add(rsusim.Fault(kind="http_503", times=None))
    out = world.now

    def all_failing() -> bool:
        return not server.rows("SELECT FROM bibwire.freshness WHERE failing_since IS NULL")

    wait_until(all_failing, "every race known as failing")
    assert not server.rows(
        "SELECT FROM bibwire.freshness WHERE as_of > %(out)s", out=out + timedelta(seconds=5)
    )
    calls = len(world.log.requests)
    time.sleep(5)
    assert len(world.log.requests) - calls < 5 * 20, "a vendor that is down is not flooded"
    everyone = [world.register(event) for event in list(world.events)[:3]]

    world.faults.clear()

    back = world.now
    wait_until(lambda: all_since(server, SCOPES, back, "participants_as_of"), "every race polled again")
    assert world.now - back < MINUTE + TICK
    failing = "SELECT FROM bibwire.freshness WHERE failing_since IS NOT NULL"
    wait_until(lambda: not server.rows(failing), "no race known as failing any more")
    assert {
        row["registration_id"] for row in server.rows("SELECT registration_id FROM bibwire.participants")
    } >= set(everyone)
