"""A slice of work on one race: what ends it, and what it leaves to the next one."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest

import rsusim
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

    async def when_loaded(stop: asyncio.Event) -> None:
        loaded = "SELECT FROM bibwire.scopes WHERE loaded_at IS NOT NULL"
        await asyncio.to_thread(wait_until, lambda: house.rows(loaded))
        stop.set()

    work(house, when_loaded)

    asked = Counter((info.endpoint, tuple(sorted(info.query.items()))) for info in listings(world))
    assert set(asked.values()) == {1}
    truth.assert_mirror_equals_world(house.rows, world, peak)
    assert house.kinds() == ["loaded"]
