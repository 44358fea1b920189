"""One answer that an event is not found ends nothing: the race list has the last word."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
import structlog

import rsusim
from bibwire.engine.reports import SyncReport, SyncRequest
from tests.e2e.simulation import Simulation
from tests.e2e.truth import assert_mirror_equals_world
from tests.house import House

RACE_DAY = datetime(2026, 9, 19, 8, 0)
NOT_FOUND = "error_301"


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


@pytest.fixture
def peak(world: rsusim.World) -> rsusim.Account:
    return world.add_partner("Peak Timing")


def add_race(world: rsusim.World, account: rsusim.Account, *names: str) -> list[int]:
    """Add a race with a person in each event; return the events."""
    race = world.add_race([account], "Harbor Lights")
    events = [world.add_event(race, name, RACE_DAY) for name in names]
    for event in events:
        world.register(event)
    return events


def events_of(house: House) -> list[dict[str, Any]]:
    return house.rows("SELECT event_id, removed_at FROM bibwire.events ORDER BY event_id")


async def a_sync_that_does_not_find_a_far_race(
    simulation: Simulation, account: rsusim.Account
) -> asyncio.Task[SyncReport]:
    """Load a race that is weeks away, go on for half an hour, and start a person's sync that fails for it."""
    world = simulation.world
    [only] = add_race(world, account, "5K")
    world.edit_event(only, start=RACE_DAY + timedelta(days=60))
    await simulation.add_partner(account)
    await simulation.run_until(world.now + timedelta(minutes=30))
    world.faults.add(rsusim.Fault(path="participants", kind=NOT_FOUND, times=1))
    return asyncio.create_task(simulation.runtime.engine.sync(SyncRequest()))


def fails(simulation: Simulation) -> bool:
    """Say whether the only race is said to fail."""
    [fresh] = simulation.rows("SELECT failing_since FROM bibwire.freshness")
    return fresh["failing_since"] is not None


def test_one_such_answer_is_an_error_and_the_next_sync_goes_on(
    house: House, world: rsusim.World, peak: rsusim.Account
) -> None:
    [only] = add_race(world, peak, "5K")
    house.add_partner(peak)
    house.sync()
    world.advance(3600)
    world.register(only)
    world.faults.add(rsusim.Fault(path="participants", kind=NOT_FOUND, times=1))

    report = house.sync()

    assert (len(report.errors), report.exit_code) == (1, 1)
    assert events_of(house) == [{"event_id": only, "removed_at": None}]
    [fresh] = house.rows("SELECT failing_since FROM bibwire.freshness")
    assert fresh["failing_since"] == world.now
    world.advance(60)
    assert house.sync().errors == []
    assert_mirror_equals_world(house.rows, world, peak)


def test_an_event_that_the_race_list_shows_no_more_either_is_removed(
    house: House, world: rsusim.World, peak: rsusim.Account
) -> None:
    five, ten = add_race(world, peak, "5K", "10K")
    house.add_partner(peak)
    house.sync()
    world.advance(3600)
    world.register(ten)
    world.remove_event(five)

    first = house.sync()

    assert (len(first.errors), first.participants.inserted) == (1, 1)
    assert [row["removed_at"] for row in events_of(house)] == [None, None]
    world.advance(60)
    assert house.sync().errors == []
    assert [row["removed_at"] for row in events_of(house)] == [world.now, None]
    world.advance(60)
    world.log.clear()
    assert house.sync(full=True).errors == []
    assert [info.query["event_id"] for info in world.log.of("participants")] == [str(ten)]


def test_an_event_that_the_race_list_shows_is_asked_for_again_however_often_it_is_not_found(
    house: House, world: rsusim.World, peak: rsusim.Account
) -> None:
    five, ten = add_race(world, peak, "5K", "10K")
    house.add_partner(peak)
    house.sync()
    fault = rsusim.Fault(path="participants", kind=NOT_FOUND, times=None, query={"event_id": str(five)})
    both = rsusim.Fault(path="participants", kind=NOT_FOUND, times=None, query={"event_id": f"{five},{ten}"})
    world.faults.add(fault)
    world.faults.add(both)

    for _ in range(3):
        world.advance(900)
        new = world.register(ten)
        assert len(house.sync().errors) == 1
        assert house.participant(new)["event_id"] == ten

    assert [row["removed_at"] for row in events_of(house)] == [None, None]
    world.register(five)
    world.faults.clear()
    world.advance(900)
    assert house.sync().errors == []
    assert_mirror_equals_world(house.rows, world, peak)


def test_a_race_list_that_was_not_read_to_its_end_removes_no_event(
    house: House, world: rsusim.World, peak: rsusim.Account
) -> None:
    [only] = add_race(world, peak, "5K")
    house.add_partner(peak)
    house.sync()
    world.remove_event(only)
    world.faults.add(rsusim.Fault(path="races", kind="http_503", times=None))

    for _ in range(3):
        world.advance(900)
        assert house.sync().errors
        assert events_of(house) == [{"event_id": only, "removed_at": None}]


def test_the_schedule_reads_the_race_list_soon(
    world: rsusim.World, simulator: rsusim.Server, database_url: str, peak: rsusim.Account
) -> None:
    [only] = add_race(world, peak, "5K")

    async def an_afternoon() -> None:
        async with Simulation(world, simulator.base_url, database_url) as simulation:
            await simulation.add_partner(peak)
            await simulation.run_until(world.now + timedelta(minutes=10))
            world.remove_event(only)
            # Before the next race list that is due anyway, at 18:00 in New York.
            await simulation.run_until(world.now + timedelta(hours=5))
            [event] = simulation.rows("SELECT removed_at FROM bibwire.events")
            assert event["removed_at"] is not None

    asyncio.run(an_afternoon())


def test_a_far_race_that_a_persons_sync_failed_for_is_not_said_to_fail_for_hours(
    world: rsusim.World, simulator: rsusim.Server, database_url: str, peak: rsusim.Account
) -> None:
    async def an_hour() -> None:
        async with Simulation(world, simulator.base_url, database_url) as simulation:
            asked = await a_sync_that_does_not_find_a_far_race(simulation, peak)
            await simulation.run_until(world.now + timedelta(seconds=1))
            assert (await asked).errors
            assert fails(simulation)

            await simulation.run_until(world.now + timedelta(minutes=5))

            assert not fails(simulation)

    asyncio.run(an_hour())


def test_what_was_said_of_a_race_while_its_partner_paused_is_looked_at_as_soon_as_it_resumes(
    world: rsusim.World, simulator: rsusim.Server, database_url: str, peak: rsusim.Account
) -> None:
    async def an_hour() -> None:
        async with Simulation(world, simulator.base_url, database_url) as simulation:
            asked = await a_sync_that_does_not_find_a_far_race(simulation, peak)
            await simulation.runtime.partners.pause(peak.name)
            await simulation.run_until(world.now + timedelta(minutes=10))
            assert (await asked).errors

            await simulation.runtime.partners.resume(peak.name)
            await simulation.run_until(world.now + timedelta(minutes=5))

            assert not fails(simulation)

    asyncio.run(an_hour())


def test_what_failed_of_a_race_is_over_with_its_last_event(
    world: rsusim.World, simulator: rsusim.Server, database_url: str, peak: rsusim.Account
) -> None:
    """Nobody asks for the race any more, so nobody else could say that it works again."""
    [only] = add_race(world, peak, "5K")
    [race] = world.races
    soon = (world.now + timedelta(hours=2)).astimezone(world.races[race].zone)
    world.edit_event(only, start=soon.replace(tzinfo=None))

    async def an_hour() -> None:
        async with Simulation(world, simulator.base_url, database_url) as simulation:
            await simulation.add_partner(peak)
            await simulation.run_until(world.now + timedelta(minutes=10))
            world.withdraw(peak.name, race)
            await simulation.run_until(world.now + timedelta(minutes=5))
            assert fails(simulation)
            with world:
                world.grant(peak.name, race)
                world.remove_event(only)

            await simulation.run_until(world.now + timedelta(minutes=40))

            assert simulation.rows("SELECT FROM bibwire.freshness WHERE failing_since IS NOT NULL") == []
            assert simulation.rows("SELECT access_lost_at FROM bibwire.races") == [{"access_lost_at": None}]

    asyncio.run(an_hour())
