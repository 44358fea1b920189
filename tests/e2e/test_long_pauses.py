"""A long pause that one answer asks for is believed for minutes, then tried by one careful call."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

import rsusim
from tests.e2e.simulation import Simulation, polls, utc
from tests.house import House

MINUTE = timedelta(minutes=1)


@pytest.fixture
def world() -> rsusim.World:
    return rsusim.World(seed=8, now=utc("2026-09-12T16:00:00+00:00"))


@pytest.fixture
def account(world: rsusim.World) -> rsusim.Account:
    """A partner whose three races start within two hours."""
    account = world.add_partner("Peak Timing")
    for name in ("One", "Two", "Three"):
        race = world.add_race([account], name, "UTC")
        gun = (world.now + timedelta(hours=2)).replace(tzinfo=None)
        world.register(world.add_event(race, "10K", gun), bib_num=7)
    return account


@pytest.mark.parametrize("asked", ["86400", "Fri, 31 Dec 2099 23:59:59 GMT"])
def test_hot_races_are_polled_again_after_a_quarter_of_an_hour(
    asked: str, world: rsusim.World, account: rsusim.Account, database_url: str
) -> None:
    async def live() -> None:
        with rsusim.Server(world) as server:
            async with Simulation(world, server.base_url, database_url) as simulation:
                await simulation.add_partner(account)
                await simulation.run_until(world.now + 3 * MINUTE)
                world.faults.add(
                    rsusim.Fault(path="participants", kind="http_429", retry_after=asked, times=1)
                )
                await simulation.run_until(world.now + 2 * MINUTE)
                world.log.clear()
                began = world.now
                await simulation.run_until(began + 17 * MINUTE)
                first = min(info.at for info in world.log.requests) - began.timestamp()
                assert 10 * 60 < first <= 15 * 60
                last = {race: max(at) for (_, race), at in polls(world).items()}
                assert len(last) == 3
                assert all(world.now.timestamp() - at < 60 for at in last.values())
                [row] = simulation.rows("SELECT asked_until, blocked_until FROM bibwire.credentials")
                assert row == {"asked_until": None, "blocked_until": None}

    asyncio.run(live())


def test_a_vendor_that_means_it_is_asked_once_and_then_less_often(
    world: rsusim.World, account: rsusim.Account, database_url: str
) -> None:
    async def live() -> None:
        with rsusim.Server(world) as server:
            async with Simulation(world, server.base_url, database_url) as simulation:
                await simulation.add_partner(account)
                await simulation.run_until(world.now + 3 * MINUTE)
                world.log.clear()
                world.faults.add(rsusim.Fault(kind="http_429", retry_after=86_400, times=None))
                began = world.now
                await simulation.run_until(began + 110 * MINUTE)
                at = [(info.at - began.timestamp()) / 60 for info in world.log.requests]
                # Those that were in flight together, then one after a quarter, a half and a whole hour.
                careful = [minutes for minutes in at if minutes > 2]
                assert len(careful) == 3, at
                waits = [round(b - a) for a, b in zip([at[0], *careful], careful, strict=False)]
                assert waits == [15, 30, 60]

    asyncio.run(live())


@pytest.mark.parametrize("asked", ["-5", "soon", "", "1e9", "NaN", "Sat, 12 Sep 1999 16:00:00 GMT", "9" * 40])
def test_what_is_no_wait_blocks_nobody_for_long(
    asked: str, house: House, world: rsusim.World, account: rsusim.Account
) -> None:
    house.add_partner(account)
    world.faults.add(rsusim.Fault(path="participants", kind="http_429", retry_after=asked, times=1))
    house.sync()
    [row] = house.rows(
        "SELECT coalesce(extract(epoch FROM blocked_until - throttled_at), 0) AS seconds"
        " FROM bibwire.credentials"
    )
    assert row["seconds"] <= (15 * 60 if asked == "9" * 40 else 15)


def test_an_operator_ends_the_pause(house: House, world: rsusim.World, account: rsusim.Account) -> None:
    house.add_partner(account)
    world.faults.add(rsusim.Fault(path="participants", kind="http_429", retry_after=86_400, times=1))
    assert house.sync().errors
    assert house.sync().errors, "the pause holds"
    partner = house.run(house.runtime.partners.get("Peak Timing"))

    assert house.run(house.runtime.unblock(partner)) is True

    assert house.run(house.runtime.unblock(partner)) is False
    assert house.sync().errors == []
