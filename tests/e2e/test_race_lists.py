"""Whatever a race list leaves out, the races to come are found; and it is told."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import datetime, timedelta
from typing import Any

import pytest

import rsusim
from bibwire.engine.discovery import Discovered, discover
from tests.house import House


@pytest.fixture
def account(house: House, world: rsusim.World) -> rsusim.Account:
    account = world.add_partner("Peak Timing")
    house.add_partner(account)
    return account


def race_on(world: rsusim.World, account: rsusim.Account, name: str, days: float) -> int:
    """Add a race with one event so many days from now."""
    race = world.add_race([account], name, "America/Chicago")
    start = (world.now + timedelta(days=days)).replace(tzinfo=None, hour=8, minute=0)
    world.add_event(race, "5K", start)
    return race


def read(house: House, *, everything: bool = True) -> Discovered:
    async def run() -> Discovered:
        runtime = house.runtime
        [partner] = await runtime.partners.list()
        async with runtime.open_client(partner, lambda _: None, lambda _: nullcontext()) as client:
            return await discover(runtime.db, client, house.clock, partner.partner_id, everything=everything)

    return house.run(run())


def listed(house: House) -> set[int]:
    return {
        row["race_id"] for row in house.rows("SELECT race_id FROM bibwire.races WHERE unlisted_at IS NULL")
    }


def queries(world: rsusim.World) -> list[dict[str, Any]]:
    return [dict(info.query) for info in world.log.of("races")]


def test_a_short_list_is_one_call(house: House, world: rsusim.World, account: rsusim.Account) -> None:
    races = {race_on(world, account, f"Race {number}", number) for number in range(-3, 4)}

    found = read(house)

    assert found.race_ids == races == listed(house)
    assert len(world.log.of("races")) == 1
    assert found.note is None


def test_what_is_to_come_is_one_call_however_long_the_past_is(
    house: House, world: rsusim.World, account: rsusim.Account
) -> None:
    world.quirks.races_max_page = 50
    coming = {race_on(world, account, f"Coming {number}", number + 1) for number in range(3)}
    over = {race_on(world, account, f"Over {number}", -30 - number) for number in range(120)}

    assert read(house, everything=False).race_ids == coming
    assert len(world.log.of("races")) == 1
    assert read(house).race_ids == coming | over


def test_a_race_of_this_week_is_among_those_to_come(
    house: House, world: rsusim.World, account: rsusim.Account
) -> None:
    over = race_on(world, account, "Last Saturday", -6)

    assert read(house, everything=False).race_ids == {over}


@pytest.mark.parametrize("most", [50, 100])
def test_a_list_that_ends_early_is_asked_for_by_days(
    house: House, world: rsusim.World, account: rsusim.Account, most: int
) -> None:
    # By name, the order of lists, those to come are the last.
    over = {race_on(world, account, f"A {number}", -20 - 3 * number) for number in range(130)}
    coming = {race_on(world, account, f"Z {number}", number + 1) for number in range(60 if most > 50 else 20)}
    world.quirks.races_max_page = 50
    world.quirks.races_most = most

    found = read(house)

    assert found.race_ids == over | coming == listed(house)
    assert found.note is not None
    assert f"ended the list of all races after {most}" in found.note


def test_a_day_whose_list_ends_early_marks_nothing_as_gone(
    house: House, world: rsusim.World, account: rsusim.Account
) -> None:
    known = {race_on(world, account, f"Race {number}", 3) for number in range(60)}
    assert read(house).race_ids == known
    world.quirks.races_max_page = 50
    world.quirks.races_most = 50

    found = read(house)

    assert listed(house) == known
    assert found.note is not None
    assert "may be missing" in found.note


def test_a_race_that_left_the_list_of_those_to_come_is_looked_for_in_all(
    house: House, world: rsusim.World, account: rsusim.Account
) -> None:
    race, other = (race_on(world, account, name, 5) for name in ("Harbor", "Frosty"))
    read(house, everything=False)
    world.withdraw(account, race)

    found = read(house, everything=False)

    assert found.everything
    assert listed(house) == {other}
    world.log.clear()
    assert not read(house, everything=False).everything
    assert len(world.log.of("races")) == 1


def test_a_race_that_is_over_and_out_of_that_list_costs_one_look_at_all(
    house: House, world: rsusim.World, account: rsusim.Account
) -> None:
    race = race_on(world, account, "Harbor", -9)
    read(house, everything=False)
    world.advance(timedelta(days=3).total_seconds())

    assert read(house, everything=False).everything
    assert listed(house) == {race}
    assert not read(house, everything=False).everything


def test_a_fast_clock_hides_no_race(house: House, world: rsusim.World, account: rsusim.Account) -> None:
    race = race_on(world, account, "Harbor", 5)
    ahead = timedelta(days=30)

    class Fast:
        def now(self) -> datetime:
            return house.clock.now() + ahead

        def monotonic(self) -> float:
            return house.clock.monotonic()

        async def sleep(self, seconds: float) -> None:
            await house.clock.sleep(seconds)

    async def run() -> Discovered:
        runtime = house.runtime
        [partner] = await runtime.partners.list()
        async with runtime.open_client(partner, lambda _: None, lambda _: nullcontext()) as client:
            return await discover(runtime.db, client, Fast(), partner.partner_id, everything=False)

    assert race in house.run(run()).race_ids
