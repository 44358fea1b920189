"""The lists are read without anybody's doing, and what they bring is in the mirror a minute later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import pytest

import rsusim
from tests.e2e import truth
from tests.e2e.simulation import Simulation, polls, utc

DENVER: Final = ZoneInfo("America/Denver")
MINUTE: Final = timedelta(minutes=1)
# Read at least every 15 minutes, then loaded within a minute; the planner looks every 5 s.
FOLLOWS_WITHIN: Final = 16 * MINUTE + timedelta(seconds=10)


@pytest.fixture
def world() -> rsusim.World:
    """A Tuesday morning in Denver, one partner with two races weeks away."""
    world = rsusim.World(seed=5, now=utc("2026-09-08T16:00:00+00:00"))
    account = world.add_partner("Peak Timing")
    for number in range(2):
        race = world.add_race([account], f"Race {number}", "America/Denver")
        event = world.add_event(race, "10K", at(world, days=40 + number))
        for _ in range(3):
            world.register(event)
    return world


@pytest.fixture
def server(world: rsusim.World) -> Iterator[rsusim.Server]:
    with rsusim.Server(world) as server:
        yield server


def at(world: rsusim.World, *, days: float = 0, hour: int = 9, minute: int = 0) -> datetime:
    """A wall time in Denver so many days from now."""
    day = world.now.astimezone(DENVER) + timedelta(days=days)
    return day.replace(hour=hour, minute=minute, second=0, microsecond=0, tzinfo=None)


def people(world: rsusim.World, event: int) -> None:
    for _ in range(3):
        world.register(event)


def a_new_race(world: rsusim.World) -> None:
    race = world.add_race(["Peak Timing"], "New", "America/Denver")
    people(world, world.add_event(race, "5K", at(world, days=30)))


def an_event_added_to_a_race_far_away(world: rsusim.World) -> None:
    people(world, world.add_event(next(iter(world.races)), "1 Mile", at(world, days=40)))


def next_years_events(world: rsusim.World) -> None:
    for number in range(3):
        people(world, world.add_event(next(iter(world.races)), f"{number}K", at(world, days=400)))


def a_weekly_series(world: rsusim.World) -> None:
    race = world.add_race(["Peak Timing"], "Thursdays", "America/Denver")
    for week in range(6):
        people(world, world.add_event(race, f"Week {week}", at(world, days=2 + 7 * week, hour=18)))


def a_new_name(world: rsusim.World) -> None:
    world.edit_race(next(iter(world.races)), name="Renamed")


def another_zone(world: rsusim.World) -> None:
    world.edit_race(next(iter(world.races)), timezone="America/New_York")


def a_canceled_event(world: rsusim.World) -> None:
    world.remove_event(next(iter(world.races.values())).event_ids[0])


def a_canceled_race(world: rsusim.World) -> None:
    world.remove_race(next(iter(world.races)))


@pytest.mark.parametrize(
    "happen",
    [
        a_new_race,
        an_event_added_to_a_race_far_away,
        next_years_events,
        a_weekly_series,
        a_new_name,
        another_zone,
        a_canceled_event,
        a_canceled_race,
    ],
)
def test_what_happens_is_found_and_followed(
    happen: Callable[[rsusim.World], None],
    world: rsusim.World,
    server: rsusim.Server,
    database_url: str,
) -> None:
    async def live() -> None:
        async with Simulation(world, server.base_url, database_url) as simulation:
            await simulation.add_partner(world.accounts["Peak Timing"])
            await simulation.run_until(world.now + 20 * MINUTE)
            with world:
                happen(world)
            await simulation.run_until(world.now + FOLLOWS_WITHIN)

            truth.assert_mirror_equals_world(simulation.rows, world, "Peak Timing")
            gone = [
                *simulation.rows("SELECT race_id FROM bibwire.races WHERE removed_at IS NOT NULL"),
                *simulation.rows("SELECT event_id FROM bibwire.events WHERE removed_at IS NOT NULL"),
            ]
            assert len(gone) == (happen in (a_canceled_event, a_canceled_race))

    asyncio.run(live())


def test_a_race_pulled_to_this_afternoon_is_hot_at_the_next_reading(
    world: rsusim.World, server: rsusim.Server, database_url: str
) -> None:
    race = next(iter(world.races))

    async def live() -> None:
        async with Simulation(world, server.base_url, database_url) as simulation:
            await simulation.add_partner(world.accounts["Peak Timing"], calls_per_hour=120)
            await simulation.run_until(world.now + 20 * MINUTE)
            world.edit_event(world.races[race].event_ids[0], start=at(world, hour=13))
            await simulation.run_until(world.now + FOLLOWS_WITHIN)
            begin = world.now
            await simulation.run_until(begin + 10 * MINUTE)

            asked = [each for each in polls(world)["Peak Timing", race] if each >= begin.timestamp()]
            assert len(asked) >= 9

    asyncio.run(live())


def test_a_race_typed_at_midnight_is_polled_every_minute_on_its_morning(
    world: rsusim.World, server: rsusim.Server, database_url: str
) -> None:
    morning = at(world, days=1, hour=7, minute=40).replace(tzinfo=DENVER)
    world.advance((morning - world.now).total_seconds() - 600)
    race = world.add_race(["Peak Timing"], "Typed At Midnight", "America/Denver")
    people(world, world.add_event(race, "5K", at(world, hour=0)))

    async def live() -> None:
        async with Simulation(world, server.base_url, database_url) as simulation:
            await simulation.add_partner(world.accounts["Peak Timing"], calls_per_hour=120)
            await simulation.run_until(morning)
            await simulation.run_until(morning + 10 * MINUTE)

            asked = [each for each in polls(world)["Peak Timing", race] if each >= morning.timestamp()]
            assert len(asked) >= 9
            [row] = simulation.rows(
                "SELECT hot_because FROM bibwire.events WHERE race_id = %(race)s", race=race
            )
            assert row["hot_because"] == "a start at 00:00 is taken for a placeholder"

    asyncio.run(live())


def test_a_partner_with_few_calls_spends_a_twentieth_of_them_on_lists(
    world: rsusim.World, server: rsusim.Server, database_url: str
) -> None:
    async def live() -> None:
        async with Simulation(world, server.base_url, database_url) as simulation:
            await simulation.add_partner(world.accounts["Peak Timing"], calls_per_hour=20)
            await simulation.run_until(world.now + 60 * MINUTE)
            world.log.clear()
            await simulation.run_until(world.now + 4 * 60 * MINUTE)

            assert 3 <= len(world.log.of("races")) <= 5

    asyncio.run(live())
