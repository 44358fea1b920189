"""A process's standing in the database holds its lock, or there is none."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine, Generator
from contextlib import suppress
from itertools import count
from typing import Any

from bibwire.store.database import open_database
from bibwire.store.session import INSTANCE_LOCKS, Session
from tests.waiting import PATIENCE_SECONDS

# Sessions of ours, and whether each holds the lock of its number.
STANDING = """
SELECT l.objid IS NOT NULL AND l.objid = %(instance)s::oid
FROM pg_stat_activity AS a
LEFT JOIN pg_locks AS l ON l.pid = a.pid AND l.locktype = 'advisory' AND l.classid = %(locks)s::oid
WHERE a.datname = current_database() AND a.application_name = 'bibwire session'
"""


class Leaving:
    """Awaits a coroutine, and has its task told to leave while it waits for the nth time."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], nth: int) -> None:
        self._waits = coroutine.__await__()
        self._left = nth

    @property
    def was_told(self) -> bool:
        return self._left <= 0

    def __await__(self) -> Generator[Any, Any, Any]:
        return self  # type: ignore[return-value]  # close() is never asked of it

    def __iter__(self) -> Leaving:
        return self

    def __next__(self) -> Any:
        return self.send(None)

    def send(self, value: Any) -> Any:
        waiting = self._waits.send(value)
        self._left -= 1
        if self._left == 0:
            task = asyncio.current_task()
            assert task is not None
            asyncio.get_running_loop().call_soon(task.cancel)
        return waiting

    def throw(self, error: BaseException) -> Any:
        return self._waits.throw(error)


def test_who_is_told_to_leave_while_it_connects_leaves_no_session_without_a_lock(database_url: str) -> None:
    """Wherever it waits, from the first packet to the lock."""

    async def leave_at(nth: int) -> bool:
        session = Session(database_url, silent_seconds=1000)  # or the server would tidy up
        leaving = Leaving(session.ensure(), nth)

        async def open_it() -> None:
            await leaving

        with suppress(asyncio.CancelledError):
            await asyncio.create_task(open_it())

        instance = await session.ensure()

        async with open_database(database_url, connections=1) as db:
            standing = await db.fetch(STANDING, instance=instance, locks=INSTANCE_LOCKS)
            assert (True,) in standing, f"told to leave at its wait {nth}"
            async with asyncio.timeout(PATIENCE_SECONDS):
                while standing != [(True,)]:
                    gc.collect()  # what was only connecting is closed with its last reference
                    await asyncio.sleep(0.01)
                    standing = await db.fetch(STANDING, instance=instance, locks=INSTANCE_LOCKS)
        await session.close()
        return leaving.was_told

    async def run() -> int:
        for nth in count(1):
            if not await leave_at(nth):
                return nth
        raise AssertionError("it never came to its end")

    assert asyncio.run(run()) > 5
