"""A statement of its own leaves its connection as it found it, however it ends."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import psycopg
import pytest

from bibwire.domain.errors import DatabaseUnavailable, StatementRefused
from bibwire.store.database import Database, open_database
from tests.waiting import wait_until


async def rolls_back(db: Database) -> bool:
    """Say whether what is written in a transaction that fails is gone."""
    with suppress(ZeroDivisionError):
        async with db.transaction() as connection:
            await connection.execute("INSERT INTO bibwire.partners (name) VALUES ('Ada')")
            raise ZeroDivisionError
    return await db.fetch("SELECT FROM bibwire.partners") == []


def test_one_that_works_and_one_that_fails(database_url: str) -> None:
    async def go() -> None:
        async with open_database(database_url, connections=1) as db:
            assert await db.fetch("SELECT 1") == [(1,)]
            assert await rolls_back(db)
            with pytest.raises(StatementRefused, match="DivisionByZero"):
                await db.fetch("SELECT 1 / 0")
            assert await rolls_back(db)

    asyncio.run(go())


def test_one_that_is_cancelled(database_url: str) -> None:
    sleeping = "SELECT FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)' AND state = 'active'"

    async def go() -> None:
        async with open_database(database_url, connections=1) as db:
            slow = asyncio.create_task(db.fetch("SELECT pg_sleep(600)"))
            with psycopg.connect(database_url, autocommit=True) as other:
                await asyncio.to_thread(wait_until, lambda: other.execute(sleeping).fetchall())
            slow.cancel()
            with pytest.raises(asyncio.CancelledError):
                await slow
            assert await rolls_back(db)

    asyncio.run(go())


def test_one_whose_connection_is_lost(database_url: str) -> None:
    async def go() -> None:
        async with open_database(database_url, connections=1) as db:
            with pytest.raises(DatabaseUnavailable):
                await db.fetch("SELECT pg_terminate_backend(pg_backend_pid())")
            assert await rolls_back(db)

    asyncio.run(go())
