"""
This process, as the other processes on the same database see it.

One connection, kept as long as the process works, holds an advisory lock: the others know by
it that the process lives, whatever way it ends. The same connection holds the places for calls
in flight, so that a dead process gives them back at once.

A process that is frozen (a closed lid, a paused machine) is not dead, and its connection stands.
So a live one gives a sign on it every few seconds, and the server ends a connection that gave
none for `SILENT_SECONDS`; who thaws begins anew under another number.
"""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, LiteralString

import psycopg
from psycopg import sql

from bibwire.domain.errors import DatabaseUnavailable
from bibwire.store import database
from bibwire.store.database import Connection, Database, statements
from bibwire.store.line import Line

# "bibi" and "bibs" in ASCII: advisory locks of instances and of slots.
INSTANCE_LOCKS = 0x62696269
SLOT_LOCKS = 0x62696273
# Four signs in it. Less than a job's worker may be silent: when its work is taken over, nothing of
# it is in the way.
SILENT_SECONDS: Final = 20.0
# Slots of one caller follow each other; the last four bits number them.
MOST_SLOTS = 16


class Session:
    """This process's standing in the database. Open it with `open_session`."""

    def __init__(self, conninfo: str, *, silent_seconds: float = SILENT_SECONDS) -> None:
        self._conninfo = conninfo
        self._silent_seconds = silent_seconds
        self._connection: Connection | None = None
        self._opening = asyncio.Lock()
        self._slots: set[int] = set()
        self._lines: dict[str, Line] = {}
        self.instance = 0

    async def ensure(self) -> int:
        """Return this process's instance number; connect again if the connection was lost."""
        async with self._opening:
            if self._connection is None or self._connection.closed:
                self._connection = await database.connect(self._conninfo)
                await self._connection.execute(
                    sql.SQL("SET idle_session_timeout = {}").format(int(self._silent_seconds * 1000))
                )
                # The server dropped the old locks with the old connection.
                self._slots.clear()
                while True:
                    self.instance = random.randrange(1, 2**31)
                    if await self._ask("hold_instance", lock_class=INSTANCE_LOCKS, instance=self.instance):
                        break
            return self.instance

    def line(self, caller: str, slots: int) -> Line:
        """Return where this process's own calls wait for their turn, so that few ask the database."""
        return self._lines.setdefault(caller, Line(min(slots, MOST_SLOTS)))

    async def take_slot(self, caller: str, slots: int) -> int | None:
        """
        Take one of a caller's places for calls in flight; None if all are taken.

        Args:
            caller: Whose calls are limited together, over all processes.
            slots: How many may be in flight, at most 16.
        """
        await self.ensure()
        # To its end even if we are cancelled: a place taken and not known of would be lost.
        taking = asyncio.create_task(self._take_slot(caller, slots))
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            with suppress(DatabaseUnavailable):
                slot = await taking
                if slot is not None:
                    await self._give_slot_back(slot)
            raise

    async def give_slot_back(self, slot: int) -> None:
        """Give a place back, to the end even if cancelled meanwhile."""
        await asyncio.shield(asyncio.create_task(self._give_slot_back(slot)))

    async def give_signs(self) -> None:
        """Tell the server every few seconds that we live, until cancelled."""
        while True:
            await asyncio.sleep(self._silent_seconds / 4)
            with suppress(DatabaseUnavailable):  # whoever needs the connection next opens another
                await self._ask("sign")

    async def _take_slot(self, caller: str, slots: int) -> int | None:
        try:
            return await self._try_slots(caller, slots)
        except DatabaseUnavailable:
            # Lost while nobody used it, or ended because we stood still: that is no outage yet.
            await self.ensure()
            return await self._try_slots(caller, slots)

    async def _try_slots(self, caller: str, slots: int) -> int | None:
        base = zlib.crc32(caller.encode()) & 0x7FFFFFF0
        for slot in range(base, base + min(slots, MOST_SLOTS)):
            # An advisory lock can be taken twice by its own session: our own slots are kept here.
            if slot in self._slots:
                continue
            self._slots.add(slot)
            taken = False
            try:
                taken = await self._ask("take_slot", lock_class=SLOT_LOCKS, slot=slot)
            finally:
                if not taken:
                    self._slots.discard(slot)
            if taken:
                return slot
        return None

    async def _give_slot_back(self, slot: int) -> None:
        if slot not in self._slots:
            return
        try:
            with suppress(DatabaseUnavailable):  # then the server has dropped the lock by itself
                await self._ask("give_slot_back", lock_class=SLOT_LOCKS, slot=slot)
        finally:
            self._slots.discard(slot)

    async def close(self) -> None:
        """Let go of everything."""
        if self._connection is not None:
            await self._connection.close()

    async def _ask(self, name: str, **values: Any) -> bool:
        statement: LiteralString = statements("session")[name]
        assert self._connection is not None
        try:
            cursor = await self._connection.execute(statement, values)
            row = await cursor.fetchone()
        except psycopg.OperationalError as error:
            raise DatabaseUnavailable("The connection to PostgreSQL was lost.") from error
        return bool(row and row[0])


@asynccontextmanager
async def open_session(conninfo: str, *, silent_seconds: float = SILENT_SECONDS) -> AsyncIterator[Session]:
    """Open this process's session and close it at the end."""
    session = Session(conninfo, silent_seconds=silent_seconds)
    await session.ensure()
    signs = asyncio.create_task(session.give_signs())
    try:
        yield session
    finally:
        signs.cancel()
        await session.close()


async def end_frozen(db: Database, *, silent_seconds: float = SILENT_SECONDS) -> int:
    """Free the locks of processes that froze while they sent a page; return how many there were."""
    [[ended]] = await db.fetch(statements("session")["end_frozen"], silent_seconds=silent_seconds)
    return int(ended)
