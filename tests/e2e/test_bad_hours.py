"""Hours in which the vendor fails or throttles, in moved time: races are polled as before right after."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

import rsusim
from tests.e2e import truth
from tests.e2e.simulation import Simulation, busiest_hour, polls, utc
from tests.e2e.test_season import HOUR, TICK, a_race, check_in

HOT = 60.0
MINUTES = timedelta(minutes=1)
SECONDS = timedelta(seconds=1)


@pytest.fixture
def world() -> rsusim.World:
    return rsusim.World(seed=7, now=utc("2026-09-12T10:00:00+00:00"))


@pytest.fixture
def server(world: rsusim.World) -> Iterator[rsusim.Server]:
    with rsusim.Server(world) as server:
        yield server


def weekend(world: rsusim.World) -> list[rsusim.Account]:
    """Two partners with two hot races each, and some that are far away."""
    accounts = [world.add_partner("Peak Timing"), world.add_partner("Lakeside Race Services")]
    for account in accounts:
        for hours in (2, 3):
            a_race(world, account, world.now + hours * HOUR, "America/Denver", people=20)
        for days in (20, 40, 60):
            a_race(world, account, world.now + days * 24 * HOUR, "America/Denver")
    return accounts


async def live_through(
    world: rsusim.World,
    server: rsusim.Server,
    database_url: str,
    trouble: list[rsusim.Fault],
    lasts: timedelta,
) -> None:
    accounts = weekend(world)
    async with Simulation(world, server.base_url, database_url, workers=4) as simulation:
        for account in accounts:
            await simulation.add_partner(account)
        # An hour of races polled as fast as the calls allow, so that the hour's calls are spent.
        await simulation.run_until(world.now + HOUR)
        hot = {scope for scope, at in polls(world).items() if len(at) > 60}
        assert len(hot) == 4
        for number, (_, race) in enumerate(sorted(hot)):
            event = world.races[race].event_ids[0]
            simulation.happen(check_in(world, simulation, event, 1.0, number + 1))
        for fault in trouble:
            world.faults.add(fault)
        begin = world.now
        await simulation.run_until(begin + lasts)
        if all(fault.probability == 1 for fault in trouble):
            claims = simulation.rows(
                "SELECT FROM bibwire.freshness WHERE participants_as_of > %(begin)s",
                begin=begin + 5 * SECONDS,
            )
            assert not claims, "freshness tells of what could not be seen"
        world.faults.clear()
        end = world.now

        await simulation.run_until(end + HOUR / 3)

        asked = polls(world)
        for scope in hot:
            after = [
                end.timestamp(),
                *(at for at in asked[scope] if at >= end.timestamp()),
                world.now.timestamp(),
            ]
            assert max(b - a for a, b in pairwise(after)) <= HOT + TICK, scope
        assert all(calls <= 1000 for calls in busiest_hour(world).values())
        assert world.log.highest_in_flight <= 2
        calm = world.now
        simulation.calm_down()
        await simulation.run_until(calm + HOUR / 6)
        truth.assert_mirror_equals_world(simulation.rows, world, *accounts)
        truth.assert_feed_is_sound(simulation.rows, *accounts)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["http_503", "reset"])
def test_an_outage_of_an_hour(
    kind: str, world: rsusim.World, server: rsusim.Server, database_url: str
) -> None:
    fault = rsusim.Fault(kind=kind, times=None)
    asyncio.run(live_through(world, server, database_url, [fault], HOUR))


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "error_14"},
        {"kind": "http_429", "retry_after": 30},
        {"kind": "http_429", "probability": 0.5},
    ],
    ids=["error 14", "429 with Retry-After", "429 every other time"],
)
def test_throttling_for_ten_minutes(
    fault: dict[str, Any], world: rsusim.World, server: rsusim.Server, database_url: str
) -> None:
    trouble = [rsusim.Fault(times=None, **fault)]
    asyncio.run(live_through(world, server, database_url, trouble, 10 * MINUTES))


def test_the_first_race_that_answers_again_calls_all_others(database_url: str) -> None:
    """Of a dozen that fail each is tried now and then only, and together they are tried every ten seconds."""
    world = rsusim.World(seed=5, now=utc("2026-09-12T16:00:00+00:00"))
    account = world.add_partner("Peak Timing")
    for number in range(12):
        race = world.add_race([account], f"Race {number}", "UTC")
        gun = (world.now + timedelta(hours=2)).replace(tzinfo=None)
        world.register(world.add_event(race, "10K", gun))

    async def live(base_url: str) -> None:
        async with Simulation(world, base_url, database_url) as simulation:
            await simulation.add_partner(account)
            await simulation.run_until(world.now + 2 * MINUTES)
            world.faults.add(rsusim.Fault(path="participants", kind="http_503", times=None))
            await simulation.run_until(world.now + 4 * MINUTES)
            world.faults.clear()
            over = world.now
            await simulation.run_until(over + 30 * SECONDS)

            back = {race for (_, race), at in polls(world).items() if max(at) > over.timestamp()}
            assert back == set(world.races)

    with rsusim.Server(world) as server:
        asyncio.run(live(server.base_url))
