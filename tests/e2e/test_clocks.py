"""Clocks that are wrong, or set while all goes on: no race waits for it, nothing is deleted, nothing lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from structlog.testing import capture_logs

import rsusim
from bibwire.clock import SystemClock
from bibwire.domain.secrets import Credential, Secret
from bibwire.engine.clients import Clients
from bibwire.engine.outages import Outages
from bibwire.engine.reports import SyncRequest
from bibwire.engine.upkeep import DiscoveryTimes, Upkeep
from bibwire.runtime import open_runtime
from bibwire.settings import Settings
from tests.e2e.simulation import Simulation, SkewedClock, polls, utc
from tests.house import KEY, House
from tests.waiting import PATIENCE_SECONDS, wait_until

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
SLACK = timedelta(seconds=10)


@pytest.fixture
def world() -> rsusim.World:
    return rsusim.World(seed=5, now=utc("2026-09-08T16:00:00+00:00"))


@pytest.fixture
def server(world: rsusim.World) -> Iterator[rsusim.Server]:
    with rsusim.Server(world) as server:
        yield server


@pytest.fixture
def account(world: rsusim.World) -> rsusim.Account:
    return world.add_partner("Peak Timing")


def a_race(world: rsusim.World, account: rsusim.Account, starts_in: timedelta) -> int:
    """Add a race of three people."""
    race = world.add_race([account], f"Race {len(world.races)}", "America/Denver")
    start = (world.now + starts_in).astimezone(ZoneInfo("America/Denver"))
    event = world.add_event(race, "10K", start.replace(second=0, microsecond=0, tzinfo=None))
    for _ in range(3):
        world.register(event)
    return race


def longest_gap(world: rsusim.World, race: int, begin: datetime) -> float:
    """Return the most seconds without a poll of a race from `begin` to now."""
    asked = [at for (_, each), at in polls(world).items() if each == race]
    inside = [at for instants in asked for at in instants if at >= begin.timestamp()]
    return max(b - a for a, b in pairwise([begin.timestamp(), *inside, world.now.timestamp()]))


def too_far_ahead(simulation: Simulation) -> list[dict[str, Any]]:
    """Return the scopes that are due later than their tier allows, and what else lies ahead."""
    return simulation.rows(
        """
        SELECT s.race_id, s.tier, s.next_due_at, s.claimed_until, p.planned_at, p.next_plan_at
        FROM bibwire.scopes AS s
        JOIN bibwire.plans AS p USING (partner_id)
        WHERE s.next_due_at > %(now)s + make_interval(secs => greatest(s.poll_every_seconds, 60) + 10)
           OR s.claimed_until > %(now)s + interval '160 seconds'
           OR s.polled_at > %(now)s + interval '10 seconds'
           OR p.planned_at > %(now)s + interval '10 seconds'
           OR p.next_plan_at > %(now)s + interval '61 minutes'
        """,
        now=simulation.world.now,
    )


@pytest.mark.parametrize("skews", [(3 * DAY, -10 * MINUTE), (-10 * MINUTE, 3 * DAY)])
def test_workers_with_wrong_clocks_of_their_own_poll_as_if_theirs_were_right(
    world: rsusim.World,
    server: rsusim.Server,
    database_url: str,
    account: rsusim.Account,
    skews: tuple[timedelta, ...],
) -> None:
    race = a_race(world, account, 2 * HOUR)

    async def live() -> None:
        async with Simulation(world, server.base_url, database_url, workers=2, skews=skews) as simulation:
            await simulation.add_partner(account)
            await simulation.run_until(world.now + 2 * MINUTE)
            begin = world.now
            await simulation.run_until(begin + 20 * MINUTE)

            assert longest_gap(world, race, begin) <= 65
            assert simulation.rows("SELECT tier FROM bibwire.scopes") == [{"tier": "hot"}]
            assert too_far_ahead(simulation) == []

    asyncio.run(live())


@pytest.mark.parametrize("skew", [-30 * MINUTE, 3 * DAY])
def test_a_pause_that_the_vendor_asked_for_ends_though_the_workers_clock_is_wrong(
    world: rsusim.World,
    server: rsusim.Server,
    database_url: str,
    account: rsusim.Account,
    skew: timedelta,
) -> None:
    race = a_race(world, account, 2 * HOUR)

    async def live() -> None:
        skews = (skew,)
        async with Simulation(world, server.base_url, database_url, skews=skews) as simulation:
            await simulation.add_partner(account)
            await simulation.run_until(world.now + 2 * MINUTE)
            world.faults.add(rsusim.Fault(path="participants", kind="http_429", retry_after=90, times=1))
            await simulation.run_until(world.now + MINUTE)
            begin = world.now
            await simulation.run_until(begin + 10 * MINUTE)

            assert longest_gap(world, race, begin) <= 120

    asyncio.run(live())


def test_polls_that_waited_for_calls_are_not_put_down_to_a_clock(
    world: rsusim.World, server: rsusim.Server, database_url: str, account: rsusim.Account
) -> None:
    race = a_race(world, account, 3 * HOUR)

    async def live() -> list[str]:
        async with Simulation(world, server.base_url, database_url, every_tick=True) as simulation:
            await simulation.add_partner(account)
            await simulation.run_until(world.now + 20 * MINUTE)
            with capture_logs() as logged:
                await simulation.runtime.partners.limit(account.name, 50)
                await simulation.run_until(world.now + 10 * MINUTE)
                await simulation.runtime.partners.limit(account.name, 1000)
                begin = world.now
                await simulation.run_until(begin + 3 * MINUTE)
            assert longest_gap(world, race, begin + MINUTE) <= 60
            return [entry["event"] for entry in logged]

    events = asyncio.run(live())

    assert "polls that waited for calls are due again" in events
    assert not any("clock" in event for event in events)


@pytest.mark.parametrize("ahead", [2 * HOUR, 3 * DAY])
def test_what_was_planned_while_the_databases_clock_was_ahead_is_pulled_back(
    world: rsusim.World,
    server: rsusim.Server,
    database_url: str,
    account: rsusim.Account,
    ahead: timedelta,
) -> None:
    hot, near = a_race(world, account, 2 * HOUR), a_race(world, account, 10 * HOUR)

    async def live() -> None:
        async with Simulation(
            world, server.base_url, database_url, skews=(timedelta(),), every_tick=True
        ) as simulation:
            await simulation.add_partner(account)
            await simulation.run_until(world.now + 2 * MINUTE)
            simulation.clock.ahead = ahead
            await simulation.run_until(world.now + MINUTE)
            simulation.clock.ahead = timedelta()
            begin = world.now
            with capture_logs() as logged:
                await simulation.run_until(begin + MINUTE)
            assert too_far_ahead(simulation) == []
            assert any("a clock was set back" in entry["event"] for entry in logged)
            await simulation.run_until(begin + 20 * MINUTE)

            assert longest_gap(world, hot, begin) <= 95, "half a minute until it is seen, and its minute"
            assert longest_gap(world, near, begin) <= 16 * 60
            tiers = simulation.rows("SELECT race_id, tier FROM bibwire.scopes ORDER BY race_id")
            assert [each["tier"] for each in tiers] == ["hot", "near"]

    asyncio.run(live())


def test_calls_counted_while_the_clock_was_ahead_count_for_an_hour_and_not_until_then(
    world: rsusim.World, server: rsusim.Server, database_url: str, account: rsusim.Account
) -> None:
    race = a_race(world, account, 2 * HOUR)

    async def live() -> None:
        async with Simulation(
            world, server.base_url, database_url, skews=(timedelta(),), every_tick=True
        ) as simulation:
            await simulation.add_partner(account, calls_per_hour=100)
            simulation.clock.ahead = 3 * DAY
            while len(world.log.requests) < 90:  # by a person, and more than an hour's polls
                await simulation.runtime.engine.sync(SyncRequest())
            await simulation.run_until(world.now + 5 * MINUTE)
            simulation.clock.ahead = timedelta()
            await simulation.run_until(world.now + 62 * MINUTE)
            begin = world.now
            await simulation.run_until(begin + 5 * MINUTE)

            assert longest_gap(world, race, begin) <= 95

    asyncio.run(live())


def test_a_worker_whose_clock_is_a_hundred_days_fast_deletes_nothing(
    database_url: str,
) -> None:
    world = rsusim.World(seed=5, now=datetime.now(UTC))
    world.clock.run(1)
    account = world.add_partner("Peak Timing")
    a_race(world, account, 30 * DAY)

    async def live(base_url: str) -> None:
        settings = Settings(
            database_url=Secret(database_url), api_url=base_url, secret_key=Secret(KEY), retry_seconds=5
        )
        async with open_runtime(settings) as runtime:
            key = Credential(kind="key", key=Secret(account.api_key), secret=Secret(account.api_secret))
            await runtime.partners.add(account.name, key, calls_per_hour=1000)
            await runtime.engine.sync(SyncRequest())
            runs, calls = kept(database_url)
            assert runs
            assert calls
        async with open_runtime(settings, machine=SkewedClock(SystemClock(), 100 * DAY)) as runtime:
            stop = asyncio.Event()
            async with runtime.open_worker() as worker, asyncio.timeout(PATIENCE_SECONDS):
                working = asyncio.create_task(worker.run(stop))
                await asyncio.to_thread(wait_until, lambda: chore_ran(database_url, "maintain"))
                stop.set()
                await working
            runs_after, calls_after = kept(database_url)
            assert runs_after >= runs
            assert calls_after >= world.log.calls, "the hour's calls are counted still"
            [[ahead]] = await runtime.db.fetch(
                "SELECT max(next_due_at) - clock_timestamp() FROM bibwire.scopes"
            )
            assert ahead is None or ahead < 5 * HOUR

    with rsusim.Server(world) as server:
        asyncio.run(live(server.base_url))


def test_nothing_is_deleted_while_the_databases_clock_is_a_hundred_days_ahead_of_the_vendors(
    house: House, world: rsusim.World, database_url: str
) -> None:
    account = world.add_partner("Peak Timing")
    a_race(world, account, 30 * DAY)
    house.add_partner(account)
    house.sync()
    before = kept(database_url)
    assert all(before)

    async def maintain() -> None:
        ahead = SkewedClock(house.clock, 100 * DAY)
        async with open_runtime(house.settings, clock=ahead) as runtime:
            clients = Clients(runtime.open_client, ahead)
            upkeep = Upkeep(
                db=runtime.db,
                partners=runtime.partners,
                clients=clients,
                clock=ahead,
                times=DiscoveryTimes([], ZoneInfo("America/Denver")),
                outages=Outages(ahead),
                vendor_time=runtime.vendor_time,
            )
            await upkeep.maintain({}, asyncio.Event())  # the vendor was not asked yet
            assert kept(database_url) == before
            await runtime.engine.sync(SyncRequest())
            await upkeep.maintain({}, asyncio.Event())
            await clients.close()

    house.run(maintain())

    runs, calls = kept(database_url)
    assert runs > before[0]
    assert calls > before[1]


def kept(database_url: str) -> tuple[set[int], int]:
    """Return the runs in the history, and how many calls the budget counts."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        runs = connection.execute("SELECT run_id FROM bibwire.sync_history").fetchall()
        calls = connection.execute("SELECT coalesce(sum(calls), 0) FROM bibwire.call_minutes").fetchall()
    return {run_id for (run_id,) in runs}, int(calls[0][0])


def chore_ran(database_url: str, task: str) -> bool:
    with psycopg.connect(database_url, autocommit=True) as connection:
        found = connection.execute("SELECT FROM bibwire_jobs.chores WHERE task = %s", [task]).fetchone()
    return found is not None


# Further ahead than the long look back would read again.
@pytest.mark.parametrize("offset", [0.0, 1500.0], ids=["a right Date", "a Date ahead of the data"])
def test_one_answer_from_the_future_moves_no_cursor(house: House, world: rsusim.World, offset: float) -> None:
    account = world.add_partner("Peak Timing")
    world.quirks.date_offset_seconds = offset
    race = a_race(world, account, 2 * HOUR)
    house.add_partner(account)
    house.sync()
    world.advance(60)
    odd = rsusim.Fault(
        path="participants", kind="quirk", quirks={"date_offset_seconds": offset + 3600}, race_id=race
    )
    world.faults.add(odd)
    house.sync()
    [stream] = house.rows("SELECT cursor_at FROM bibwire.streams WHERE stream = 'participants'")
    assert stream["cursor_at"] <= world.now + timedelta(seconds=offset)

    world.advance(60)
    [first, *_] = [row["registration_id"] for row in house.rows("SELECT * FROM bibwire.participants")]
    for bib in (7, 8):
        world.assign_bib(first, bib)
        world.advance(60)
        house.sync()

    assert house.bib_changes() == [(first, None, 7), (first, 7, 8)]
