"""What an operator changes of a partner is taken up at once, and nothing of it stays in the queue."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import pytest

import rsusim
from bibwire.engine import worker as working
from bibwire.engine.planner import DISCOVER, SWEEP, Planner
from tests.house import House
from tests.waiting import PATIENCE_SECONDS


@pytest.fixture
def world() -> rsusim.World:
    """Four races of today, because the database's clock says what is due."""
    world = rsusim.World(seed=1, now=datetime.now(UTC))
    account = world.add_partner("Peak")
    for number in range(4):
        race = world.add_race([account], f"Race {number}", "America/Chicago")
        world.register(world.add_event(race, "10K", world.now.replace(tzinfo=None) + timedelta(days=2)))
    return world


def waiting(house: House, *tasks: str) -> int:
    [row] = house.rows(
        "SELECT count(*) AS jobs FROM bibwire_jobs.procrastinate_jobs"
        " WHERE status = 'todo' AND task_name = ANY (%(tasks)s)",
        tasks=list(tasks),
    )
    return int(row["jobs"])


def plan(house: House) -> None:
    """Make the planner's turn, as a worker would."""
    runtime = house.runtime
    house.run(Planner(runtime.db, runtime.jobs, runtime.clock).tick())


async def within_patience(happening: Coroutine[Any, Any, None]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        await happening


def test_a_new_partner_waits_for_no_turn_of_the_planner(
    house: House, world: rsusim.World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody plans for an hour, unless woken.
    monkeypatch.setattr(working, "TICK_SECONDS", 3600.0)
    account = world.accounts["Peak"]

    async def until(query: LiteralString, wanted: int) -> None:
        while (await house.runtime.db.fetch(query))[0][0] < wanted:  # noqa: ASYNC110, the database tells nobody
            await asyncio.sleep(0.05)

    async def go() -> None:
        stop = asyncio.Event()
        async with house.runtime.open_worker() as worker:
            run = asyncio.create_task(worker.run(stop))
            await until("SELECT count(*) FROM bibwire_jobs.procrastinate_workers", 1)
            await house.runtime.partners.add(account.name, house.credential(account), calls_per_hour=1000)
            await house.runtime.wake_planner()
            await until("SELECT count(*) FROM bibwire.scopes WHERE loaded_at IS NOT NULL", 4)
            stop.set()
            await run

    house.run(within_patience(go()))


def test_a_paused_partner_has_nothing_in_the_queue_and_goes_on_where_it_was(
    house: House, world: rsusim.World
) -> None:
    partner = house.add_partner(world.accounts["Peak"])
    house.sync()
    runtime = house.runtime
    plan(house)
    assert (waiting(house, SWEEP), waiting(house, DISCOVER)) == (4, 1)

    house.run(runtime.partners.pause(partner.name))
    house.run(runtime.drop_work(partner))

    assert waiting(house, SWEEP, DISCOVER) == 0
    assert house.rows("SELECT FROM bibwire.scopes WHERE claimed_until IS NOT NULL") == []
    plan(house)
    assert waiting(house, SWEEP, DISCOVER) == 0
    house.run(runtime.partners.resume(partner.name))
    plan(house)
    assert (waiting(house, SWEEP), waiting(house, DISCOVER)) == (4, 1)
