"""A scope has one holder; whoever was overtaken writes nothing more."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from bibwire.domain.errors import DatabaseUnavailable, LeaseLost
from bibwire.domain.sweeps import Stream, StreamState
from bibwire.store import leases, streams
from bibwire.store.database import Database, open_database
from bibwire.store.leases import Lease
from bibwire.store.session import Session, end_frozen, open_session
from tests import children
from tests.store.mirrored import add_partner, list_races, with_database
from tests.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.every_postgres
RACE = 7


@pytest.fixture
def database(database_url: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def partner_id(database_url: str) -> int:
    """A partner with one scope."""

    async def go(db: Database) -> int:
        partner = await add_partner(db, 1)
        now = datetime.now(UTC)
        await list_races(db, partner.partner_id, [RACE], start=now + timedelta(days=9), now=now)
        return partner.partner_id

    return with_database(database_url, go)


@asynccontextmanager
async def processes(conninfo: str, number: int) -> AsyncIterator[tuple[Database, list[Session]]]:
    """As many standings in the database as processes would have."""
    async with AsyncExitStack() as stack:
        db = await stack.enter_async_context(open_database(conninfo))
        yield db, [await stack.enter_async_context(open_session(conninfo)) for _ in range(number)]


async def commit_page(db: Database, lease: Lease) -> None:
    """Write where a stream stands under a lease, as the sync of a page does."""
    async with db.transaction() as connection:
        state = StreamState(cursor_at=datetime.now(UTC))
        await streams.save(connection, lease.partner_id, lease.race_id, Stream.PARTICIPANTS, state)
        await leases.hold(connection, lease)


async def stand_still(db: Database) -> None:
    async with db.transaction() as connection:
        await connection.execute("SET LOCAL idle_in_transaction_session_timeout = '50ms'")
        pid = connection.info.backend_pid
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await db.fetch("SELECT 1 FROM pg_stat_activity WHERE pid = %(pid)s", pid=pid):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await connection.execute("SELECT 1")


def let_run_out(database: psycopg.Connection[tuple[Any, ...]]) -> None:
    """Let every lease have run out. The database times them, whose clock nobody moves."""
    database.execute("UPDATE bibwire.scopes SET lease_expires_at = now() - interval '1 second'")


def written(database: psycopg.Connection[tuple[Any, ...]]) -> bool:
    return database.execute("SELECT FROM bibwire.streams WHERE cursor_at IS NOT NULL").fetchone() is not None


def test_of_many_who_ask_at_once_one_gets_the_lease(database_url: str, partner_id: int) -> None:
    async def run() -> list[Lease | None]:
        async with processes(database_url, 6) as (db, sessions):
            return list(await asyncio.gather(*(leases.acquire(db, s, partner_id, RACE) for s in sessions)))

    assert sum(lease is not None for lease in asyncio.run(run())) == 1


def test_a_lease_given_back_is_free(database_url: str, partner_id: int) -> None:
    async def run() -> None:
        async with processes(database_url, 2) as (db, (one, other)):
            lease = await leases.acquire(db, one, partner_id, RACE)
            assert lease is not None
            assert await leases.acquire(db, other, partner_id, RACE) is None
            await leases.release(db, lease)
            assert await leases.acquire(db, other, partner_id, RACE) is not None

    asyncio.run(run())


def test_giving_back_a_lease_that_was_lost_takes_it_from_nobody(database_url: str, partner_id: int) -> None:
    async def run() -> None:
        async with processes(database_url, 3) as (db, (one, other, third)):
            lost = await leases.acquire(db, one, partner_id, RACE)
            assert lost is not None
            await one.close()
            assert await _soon(lambda: leases.acquire(db, other, partner_id, RACE)) is not None
            await leases.release(db, lost)
            assert await leases.acquire(db, third, partner_id, RACE) is None

    asyncio.run(run())


def test_the_lease_of_a_killed_process_is_free_at_once(
    database_url: str, partner_id: int, database: psycopg.Connection[tuple[Any, ...]]
) -> None:
    holder = children.start("hold_lease", database_url, partner_id, RACE)
    assert children.said(holder).readline() == "held\n"

    async def run() -> None:
        async with processes(database_url, 1) as (db, [session]):
            assert await leases.acquire(db, session, partner_id, RACE) is None
            holder.kill()
            holder.communicate()
            # So that it does not run out, however slow we are.
            database.execute("UPDATE bibwire.scopes SET lease_expires_at = now() + interval '1 day'")
            assert await _soon(lambda: leases.acquire(db, session, partner_id, RACE)) is not None

    asyncio.run(run())


def test_a_process_that_froze_while_it_sent_a_page_keeps_nobody_out(
    database_url: str, partner_id: int, database: psycopg.Connection[tuple[Any, ...]]
) -> None:
    holder = children.start("stop_in_a_page", database_url, partner_id, RACE)
    assert children.said(holder).readline() == "sending\n"

    async def run() -> Lease | None:
        async with processes(database_url, 1) as (db, [session]):
            # What stands still for a moment only is left alone.
            assert await end_frozen(db) == 0
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not await end_frozen(db, silent_seconds=0.1):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            let_run_out(database)
            return await _soon(lambda: leases.acquire(db, session, partner_id, RACE))

    assert asyncio.run(run()) is not None
    holder.send_signal(signal.SIGCONT)
    assert "sent" not in holder.communicate()[0], "its page was committed after all"


def test_who_comes_back_after_the_lease_ran_out_writes_nothing(
    database_url: str, partner_id: int, database: psycopg.Connection[tuple[Any, ...]]
) -> None:
    async def run() -> None:
        async with processes(database_url, 2) as (db, (frozen, other)):
            lease = await leases.acquire(db, frozen, partner_id, RACE)
            assert lease is not None
            assert await leases.acquire(db, other, partner_id, RACE) is None
            let_run_out(database)
            assert await leases.acquire(db, other, partner_id, RACE) is not None

            with pytest.raises(LeaseLost):
                await commit_page(db, lease)

    asyncio.run(run())
    assert not written(database)


def test_who_comes_back_before_anybody_took_over_goes_on(
    database_url: str, partner_id: int, database: psycopg.Connection[tuple[Any, ...]]
) -> None:
    async def run() -> None:
        async with processes(database_url, 2) as (db, (slow, other)):
            lease = await leases.acquire(db, slow, partner_id, RACE)
            assert lease is not None
            let_run_out(database)
            await commit_page(db, lease)
            assert await leases.acquire(db, other, partner_id, RACE) is None, "the commit renewed nothing"

    asyncio.run(run())
    assert written(database)


def test_a_taker_waits_for_the_commit_that_goes_on(
    database_url: str, partner_id: int, database: psycopg.Connection[tuple[Any, ...]]
) -> None:
    async def run() -> None:
        async with processes(database_url, 2) as (db, (slow, other)):
            lease = await leases.acquire(db, slow, partner_id, RACE)
            assert lease is not None
            let_run_out(database)
            async with db.transaction() as connection:
                await leases.hold(connection, lease)
                taker = asyncio.create_task(leases.acquire(db, other, partner_id, RACE))
                await asyncio.sleep(0.2)
                assert not taker.done()
            assert await taker is None, "the lease that was just renewed was taken"

    asyncio.run(run())


async def _soon(acquire: Callable[[], Coroutine[Any, Any, Lease | None]]) -> Lease | None:
    """Try for as long as a server may take to notice that a connection is gone."""
    async with asyncio.timeout(PATIENCE_SECONDS / 2):  # by then no lease has run out
        while (lease := await acquire()) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return lease


def test_a_transaction_that_stands_still_is_ended_within_the_lease(database_url: str) -> None:
    """Whoever froze inside one would keep everybody out for as long as it is frozen."""

    async def run() -> str:
        async with open_database(database_url) as db:
            [[milliseconds]] = await db.fetch(
                "SELECT setting::integer FROM pg_settings WHERE name = 'idle_in_transaction_session_timeout'"
            )
            assert 0 < milliseconds <= leases.TTL_SECONDS * 1000
            with pytest.raises(DatabaseUnavailable) as ended:
                await stand_still(db)
            assert await db.fetch("SELECT 1") == [(1,)]
            return str(ended.value)

    assert "PostgreSQL cannot be used" in asyncio.run(run())
