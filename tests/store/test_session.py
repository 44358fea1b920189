"""A process's standing in the database holds its lock, or there is none."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from bibwire.store.database import open_database
from bibwire.store.session import INSTANCE_LOCKS, Session

HELD = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = %s::oid AND objid = %s::oid"


@pytest.mark.parametrize("milliseconds", [0, 1, 2, 3, 4, 6, 8])
def test_who_is_told_to_leave_while_it_connects_leaves_no_session_without_a_lock(
    milliseconds: int, database_url: str
) -> None:
    async def run() -> None:
        session = Session(database_url)
        opening = asyncio.create_task(session.ensure())
        await asyncio.sleep(milliseconds / 1000)
        opening.cancel()
        with suppress(asyncio.CancelledError):
            await opening

        instance = await session.ensure()

        async with open_database(database_url, connections=1) as db:
            assert await db.fetch(
                HELD.replace("%s", "%(c)s", 1).replace("%s", "%(i)s"), c=INSTANCE_LOCKS, i=instance
            ) == [(1,)]
        await session.close()

    asyncio.run(run())
