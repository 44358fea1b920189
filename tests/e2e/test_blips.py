"""A database that fails for a moment takes nobody's lease away."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

import rsusim
from bibwire.domain.errors import DatabaseGone, DatabaseReplaced, DatabaseUnavailable
from bibwire.engine import patience
from bibwire.engine.patience import Patience
from bibwire.store import catalog, leases
from bibwire.store.database import open_database
from rsusim import worlds
from tests.conftest import NOON
from tests.house import House
from tests.network import network_to
from tests.waiting import PATIENCE_SECONDS


@pytest.fixture
def world() -> rsusim.World:
    return worlds.small(now=NOON)


def test_a_lease_is_renewed_again_after_a_renewal_that_failed(
    house: House, world: rsusim.World, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    partner = house.add_partner(world.accounts["Peak Timing"])
    house.sync()
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.3)
    monkeypatch.setattr(leases, "RENEW_AGAIN_SECONDS", 0.1)

    def expires(connection: psycopg.Connection[Any], race_id: int) -> datetime:
        row = connection.execute(
            "SELECT lease_expires_at FROM bibwire.scopes WHERE race_id = %s", (race_id,)
        ).fetchone()
        assert row is not None
        found: datetime = row[0]
        return found

    async def run() -> None:
        scopes = await catalog.live_scopes(house.runtime.db, partner.partner_id, now=house.clock.now())
        with psycopg.connect(database_url, autocommit=True) as connection:
            async with house.runtime.sweeper.leased(scopes[0]):
                connection.execute("ALTER TABLE bibwire.scopes RENAME TO scopes_elsewhere")
                await asyncio.sleep(1)
                connection.execute("ALTER TABLE bibwire.scopes_elsewhere RENAME TO scopes")
                before = expires(connection, scopes[0].race_id)
                async with asyncio.timeout(PATIENCE_SECONDS):
                    while expires(connection, scopes[0].race_id) == before:  # noqa: ASYNC110
                        await asyncio.sleep(0.05)

    house.run(run())


def test_a_lease_of_a_server_that_was_replaced_is_not_renewed_again(
    house: House, world: rsusim.World, monkeypatch: pytest.MonkeyPatch
) -> None:
    partner = house.add_partner(world.accounts["Peak Timing"])
    house.sync()
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.05)
    monkeypatch.setattr(leases, "RENEW_AGAIN_SECONDS", 0.05)
    acquire, renew = leases.acquire, leases.renew
    tried: list[str] = []

    async def acquired_before_a_restart(*arguments: Any) -> leases.Lease | None:
        lease = await acquire(*arguments)
        return lease and replace(lease, server_started_at=lease.server_started_at - timedelta(hours=1))

    async def noted(*arguments: Any) -> None:
        try:
            await renew(*arguments)
        except DatabaseReplaced as error:
            tried.append(str(error))
            raise

    monkeypatch.setattr(leases, "acquire", acquired_before_a_restart)
    monkeypatch.setattr(leases, "renew", noted)

    async def run() -> None:
        scopes = await catalog.live_scopes(house.runtime.db, partner.partner_id, now=house.clock.now())
        before = asyncio.all_tasks()
        async with house.runtime.sweeper.leased(scopes[0]), asyncio.timeout(PATIENCE_SECONDS):
            [renewing] = [task for task in asyncio.all_tasks() - before if "_renew" in str(task.get_coro())]
            await renewing

    house.run(run())
    assert len(tried) == 1
    assert "started again" in tried[0]


def test_a_database_that_stays_away_is_waited_for_once_and_then_told_with_the_way_on(
    database_url: str,
) -> None:
    with network_to(database_url) as (network, conninfo):

        async def run() -> None:
            async with open_database(conninfo) as db:
                patiently = Patience(db, seconds=1)
                network.cut()
                began = time.monotonic()
                with pytest.raises(DatabaseGone, match="waited for 1 s"):
                    # What is in a piece of work that is repeated itself is not waited for twice.
                    await Patience(db, seconds=PATIENCE_SECONDS)(lambda: patiently(db.check))
                with pytest.raises(DatabaseGone):
                    await patiently(db.check)
                assert time.monotonic() - began < 20

        asyncio.run(run())


@pytest.mark.parametrize(
    ("statement", "error", "most"),
    [
        # As with a full disk: each try may cost calls to RunSignup.
        ("DO $$ BEGIN RAISE 'on purpose' USING ERRCODE = 'disk_full'; END $$", "on purpose", 3),
        ("SELECT pg_terminate_backend(pg_backend_pid())", "terminating connection", 10),
    ],
    ids=["its disk is full", "it ends the session"],
)
def test_what_a_server_that_is_there_fails_at_each_time_is_not_tried_for_ever(
    database_url: str, monkeypatch: pytest.MonkeyPatch, statement: str, error: str, most: int
) -> None:
    monkeypatch.setattr(patience, "PAUSE_SECONDS", 0.01)
    tries = 0

    async def run() -> None:
        async with open_database(database_url) as db:

            async def work() -> None:
                nonlocal tries
                tries += 1
                await db.fetch(statement)

            with pytest.raises(DatabaseUnavailable, match=error):
                await Patience(db)(work)

    asyncio.run(run())
    assert tries == most


def test_what_was_cut_off_is_done_again_once_the_database_is_back(database_url: str) -> None:
    with network_to(database_url) as (network, conninfo):

        async def run() -> int:
            tries = 0

            async def work() -> int:
                nonlocal tries
                tries += 1
                if tries == 1:
                    network.cut()
                    asyncio.get_running_loop().call_later(8, network.restore)
                await db.check()
                return tries

            async with open_database(conninfo) as db:
                return await Patience(db)(work)

        assert asyncio.run(run()) == 2
