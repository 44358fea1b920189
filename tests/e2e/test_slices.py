"""A slice of work on one race: what ends it, and what it leaves to the next one."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

import rsusim
from bibwire.domain.secrets import Credential, Secret
from bibwire.engine.planner import Planner
from rsusim.faults import Fault
from rsusim.log import RequestInfo
from tests.e2e import truth
from tests.house import House
from tests.waiting import PATIENCE_SECONDS, wait_until

SATURDAY = datetime(2026, 9, 19, 8, 0)
PAGE = 3
STREAMS = ("participants", "removed-participants")


@pytest.fixture
def peak(world: rsusim.World) -> rsusim.Account:
    return world.add_partner("Peak Timing")


@pytest.fixture
def race(world: rsusim.World, peak: rsusim.Account) -> int:
    """A race of six pages."""
    race = world.add_race([peak], "Harbor Lights", "America/Chicago")
    event = world.add_event(race, "10K", SATURDAY)
    for _ in range(6 * PAGE - 1):
        world.register(event)
    return race


@pytest.fixture
def house(world: rsusim.World, simulator: rsusim.Server, database_url: str) -> Iterator[House]:
    with House(world, simulator.base_url, database_url, page_size=PAGE) as house:
        yield house


def work(house: House, stop_when: Callable[[asyncio.Event], Any]) -> None:
    """Run a worker until it is stopped."""

    async def go() -> None:
        stop = asyncio.Event()
        async with house.runtime.open_worker() as worker:
            working = asyncio.create_task(worker.run(stop))
            watching = asyncio.ensure_future(stop_when(stop))
            try:
                await asyncio.wait_for(stop.wait(), PATIENCE_SECONDS)
                await asyncio.wait_for(working, PATIENCE_SECONDS)
            finally:
                watching.cancel()
                working.cancel()

    house.run(go())


def until_loaded(house: House) -> Callable[[asyncio.Event], Any]:
    async def wait(stop: asyncio.Event) -> None:
        loaded = "SELECT FROM bibwire.scopes WHERE loaded_at IS NOT NULL"
        await asyncio.to_thread(wait_until, lambda: house.rows(loaded))
        stop.set()

    return wait


def listings(world: rsusim.World) -> list[RequestInfo]:
    return [info for info in world.log.requests if info.endpoint in STREAMS]


def test_a_worker_told_to_leave_ends_after_the_page_under_way_and_the_next_goes_on_there(
    house: House, world: rsusim.World, peak: rsusim.Account, race: int
) -> None:
    house.add_partner(peak)
    world.faults.add(Fault(path="participants", kind="slow", nth=2, seconds=0.3))

    async def at_the_second_page(stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()

        def hook(info: RequestInfo) -> None:
            if info.endpoint == "participants" and info.query.get("after_registration_id"):
                loop.call_soon_threadsafe(stop.set)

        world.before_answer(hook)

    work(house, at_the_second_page)
    world.clear_hooks()

    assert [info.endpoint for info in listings(world)] == ["participants"] * 2
    assert house.rows("SELECT count(*) AS people FROM bibwire.participants") == [{"people": 2 * PAGE}]
    [scope] = house.rows("SELECT * FROM bibwire.scopes")
    assert (scope["lease_instance"], scope["claimed_until"], scope["loaded_at"]) == (None, None, None)
    assert scope["next_due_at"] <= world.now
    assert (scope["failures"], scope["failing_since"]) == (0, None)
    [run] = house.rows("SELECT * FROM bibwire.sync_history WHERE race_id IS NOT NULL")
    assert (run["outcome"], run["error"], run["rows_inserted"], run["calls"]) == ("ok", None, 2 * PAGE, 2)
    jobs = "SELECT FROM bibwire_jobs.procrastinate_jobs WHERE task_name = 'sweep' AND status <> 'succeeded'"
    assert house.rows(jobs) == []

    work(house, until_loaded(house))

    asked = Counter((info.endpoint, tuple(sorted(info.query.items()))) for info in listings(world))
    assert set(asked.values()) == {1}
    truth.assert_mirror_equals_world(house.rows, world, peak)
    assert house.kinds() == ["loaded"]


def test_a_key_that_is_refused_after_it_was_replaced_stops_nothing(
    house: House, world: rsusim.World, peak: rsusim.Account, race: int
) -> None:
    house.add_partner(peak)
    world.faults.add(Fault(path="participants", kind="error_6"))
    new = Credential(kind="v2", key=Secret(peak.v2_key), secret=Secret(peak.v2_secret))

    async def rotate_at_the_first_page(stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()

        def hook(info: RequestInfo) -> None:
            if info.endpoint == "participants" and info.scheme == "api_key":
                rotating = house.runtime.partners.rotate(peak.name, new)
                asyncio.run_coroutine_threadsafe(rotating, loop).result(PATIENCE_SECONDS)
                # Its polls are planned anew before the refusal is heard of.
                planning = Planner(house.runtime.db, house.runtime.jobs, house.clock).tick()
                asyncio.run_coroutine_threadsafe(planning, loop).result(PATIENCE_SECONDS)
                due = "SELECT FROM bibwire.scopes WHERE next_due_at <= %(now)s"
                wait_until(lambda: house.rows(due, now=world.now))

        world.before_answer(hook)
        await until_loaded(house)(stop)

    work(house, rotate_at_the_first_page)

    first, *others = listings(world)
    assert (first.scheme, first.fault) == ("api_key", "error_6")
    assert {info.scheme for info in others} == {"v2_key"}
    [key] = house.rows("SELECT failing_since, verified_at FROM bibwire.credentials")
    assert key["failing_since"] is None
    [scope] = house.rows("SELECT failing_since, failures FROM bibwire.scopes")
    assert scope == {"failing_since": None, "failures": 0}


def test_a_key_that_is_refused_puts_all_its_races_off(
    house: House, world: rsusim.World, peak: rsusim.Account, race: int
) -> None:
    world.register(world.add_event(world.add_race([peak], "Dawn", "America/Chicago"), "5K", SATURDAY))
    house.add_partner(peak)
    world.faults.add(Fault(path="participants", kind="error_6", times=None))
    later = "SELECT FROM bibwire.scopes WHERE next_due_at = %(at)s AND claimed_until IS NULL"

    async def until_put_off(stop: asyncio.Event) -> None:
        quarter = world.now + timedelta(minutes=15)
        await asyncio.to_thread(wait_until, lambda: len(house.rows(later, at=quarter)) == 2)
        stop.set()

    work(house, until_put_off)

    [key] = house.rows("SELECT failing_since FROM bibwire.credentials")
    assert key["failing_since"] is not None
    assert house.rows("SELECT sum(failures) AS failures FROM bibwire.scopes") == [{"failures": 0}]
