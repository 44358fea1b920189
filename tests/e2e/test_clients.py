"""Clients stay open as long as they are of use, and those in use always."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from typing import Any

import pytest

import rsusim
from bibwire.api.client import VendorClient
from bibwire.domain.budget import Urgency
from bibwire.domain.secrets import Credential, Secret
from bibwire.engine.clients import IDLE_SECONDS, Clients
from bibwire.store.partners import Partner
from tests.house import House


class Opened:
    """The runtime's clients, and for which partners they are open."""

    def __init__(self, house: House, most_open: int) -> None:
        self._house = house
        self.now: list[str] = []
        self.clients = Clients(self.open_client, house.clock, most_open=most_open)

    @asynccontextmanager
    async def open_client(self, partner: Partner, *rest: Any) -> AsyncIterator[VendorClient]:
        async with self._house.runtime.open_client(partner, *rest) as client:
            self.now.append(f"{partner.name} {partner.kind}")
            try:
                yield client
            finally:
                self.now.remove(f"{partner.name} {partner.kind}")


@pytest.fixture
def accounts(world: rsusim.World) -> list[rsusim.Account]:
    return [world.add_partner(name) for name in ("Ada", "Bob", "Cy")]


async def ask(client: VendorClient) -> int:
    """Make a call; return how many pages of races came."""
    return len([page async for page in client.races(start_date=date(2026, 9, 12))])


def test_beyond_a_number_the_longest_unused_are_closed(house: House, accounts: list[rsusim.Account]) -> None:
    ada, bob, cy = (house.add_partner(account) for account in accounts)
    opened = Opened(house, most_open=2)

    async def go() -> None:
        for partner in (ada, bob, ada, cy):
            async with opened.clients.use(partner, Urgency.DELTA) as client:
                assert await ask(client) == 1
        assert opened.now == ["Ada key", "Cy key"]
        await opened.clients.close()

    house.run(go())
    assert opened.now == []


def test_what_idles_is_closed_and_what_is_in_use_never(house: House, accounts: list[rsusim.Account]) -> None:
    ada, bob, cy = (house.add_partner(account) for account in accounts)
    opened = Opened(house, most_open=2)

    async def go() -> None:
        async with opened.clients.use(ada, Urgency.DELTA) as long_used:
            async with opened.clients.use(bob, Urgency.DELTA), opened.clients.use(cy, Urgency.DELTA):
                assert opened.now == ["Ada key", "Bob key", "Cy key"]
            await house.clock.sleep(IDLE_SECONDS + 1)
            async with opened.clients.use(ada, Urgency.DELTA) as again:
                assert again is long_used
            assert opened.now == ["Ada key"]
            assert await ask(long_used) == 1
        await house.clock.sleep(IDLE_SECONDS - 1)
        async with opened.clients.use(ada, Urgency.DELTA) as kept:
            assert kept is long_used
        await house.clock.sleep(IDLE_SECONDS + 1)
        async with opened.clients.use(bob, Urgency.DELTA):
            assert opened.now == ["Bob key"]
        await opened.clients.close()

    house.run(go())
    assert opened.now == []


def test_the_client_of_a_replaced_key_is_closed_when_its_last_user_is_done(
    house: House, accounts: list[rsusim.Account]
) -> None:
    ada = house.add_partner(accounts[0])
    v2 = Credential(kind="v2", key=Secret(accounts[0].v2_key), secret=Secret(accounts[0].v2_secret))
    opened = Opened(house, most_open=9)

    async def go() -> None:
        async with opened.clients.use(ada, Urgency.DELTA) as old:
            async with opened.clients.use(ada, Urgency.DELTA):
                rotated = await house.runtime.partners.rotate("Ada", v2)
                async with opened.clients.use(rotated, Urgency.DELTA) as new:
                    assert new is not old
            assert opened.now == ["Ada key", "Ada v2"]
            assert await ask(old) == 1
        assert opened.now == ["Ada v2"]
        await opened.clients.close()

    house.run(go())
    assert opened.now == []
