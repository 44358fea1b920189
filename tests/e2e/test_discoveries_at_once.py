"""Of two readings of a race list at once the later one counts, whichever is stored first."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext
from datetime import UTC, date, datetime
from typing import cast

import pytest

import rsusim
from bibwire.api.client import VendorClient
from bibwire.domain.records import RacePage
from bibwire.engine.discovery import discover
from tests.e2e.truth import assert_mirror_equals_world
from tests.house import House

SATURDAY = datetime(2026, 9, 19, 8, 0)


class Held:
    """A client that keeps each page of the race list back until something else is over."""

    def __init__(self, client: VendorClient, meanwhile: Callable[[], Awaitable[None]]) -> None:
        self._client = client
        self._meanwhile = meanwhile

    async def races(
        self, *, start_date: date, end_date: date | None = None, soonest_first: bool = False
    ) -> AsyncIterator[RacePage]:
        async for page in self._client.races(
            start_date=start_date, end_date=end_date, soonest_first=soonest_first
        ):
            await self._meanwhile()
            yield page


@pytest.fixture
def account(house: House, world: rsusim.World) -> rsusim.Account:
    account = world.add_partner("Peak Timing")
    house.add_partner(account)
    return account


def discover_around(house: House, happen: Callable[[], None]) -> None:
    """Read the list; before it is stored something happens, and another reading comes first."""

    async def run() -> None:
        runtime = house.runtime
        [partner] = await runtime.partners.list()
        async with runtime.open_client(partner, lambda _: None, lambda _: nullcontext()) as client:

            async def meanwhile() -> None:
                happen()
                await discover(runtime.db, client, house.clock, partner.partner_id)

            held = cast(VendorClient, Held(client, meanwhile))
            await discover(runtime.db, held, house.clock, partner.partner_id)

    house.run(run())


def test_a_start_that_was_moved_is_not_put_back(
    house: House, world: rsusim.World, account: rsusim.Account
) -> None:
    race = world.add_race([account], "Harbor", "America/Chicago")
    event = world.add_event(race, "5K", SATURDAY)

    def happen() -> None:
        world.edit_event(event, start=SATURDAY.replace(hour=7))
        world.edit_race(race, name="Harbor Lights")

    discover_around(house, happen)

    assert_mirror_equals_world(house.rows, world, account)
    [row] = house.rows("SELECT starts_at FROM bibwire.events")
    assert row["starts_at"] == datetime(2026, 9, 19, 12, 0, tzinfo=UTC)


def test_a_race_that_appears_in_between_is_not_taken_for_unlisted(
    house: House, world: rsusim.World, account: rsusim.Account
) -> None:
    world.add_event(world.add_race([account], "Harbor", "America/Chicago"), "5K", SATURDAY)

    def happen() -> None:
        world.add_event(world.add_race([account], "Frosty Toes", "America/Chicago"), "5K", SATURDAY)

    discover_around(house, happen)

    assert [r["unlisted_at"] for r in house.rows("SELECT unlisted_at FROM bibwire.races")] == [None, None]


def test_a_race_that_comes_back_in_between_stays_listed_though_nothing_of_it_differs(
    house: House, world: rsusim.World, account: rsusim.Account
) -> None:
    race = world.add_race([account], "Harbor", "America/Chicago")
    world.add_event(race, "5K", SATURDAY)
    discover_around(house, lambda: None)
    world.withdraw(account, race)

    discover_around(house, lambda: world.grant(account, race))

    assert [r["unlisted_at"] for r in house.rows("SELECT unlisted_at FROM bibwire.races")] == [None]


def test_a_race_that_is_withdrawn_in_between_stays_unlisted_until_a_later_list_shows_it(
    house: House, world: rsusim.World, account: rsusim.Account
) -> None:
    race = world.add_race([account], "Harbor", "America/Chicago")
    world.add_event(race, "5K", SATURDAY)
    discover_around(house, lambda: None)

    discover_around(house, lambda: world.withdraw(account, race))

    assert [r["unlisted_at"] for r in house.rows("SELECT unlisted_at FROM bibwire.races")] != [None]
    world.grant(account, race)
    discover_around(house, lambda: None)
    assert [r["unlisted_at"] for r in house.rows("SELECT unlisted_at FROM bibwire.races")] == [None]
