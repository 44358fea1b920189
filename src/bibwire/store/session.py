"""
This process, as the other processes on the same database see it.

One connection, kept as long as the process works, holds an advisory lock: the others know by
it that the process lives, whatever way it ends. The same connection holds the places for calls
in flight, so that a dead process gives them back at once.
"""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, LiteralString

import psycopg

from bibwire.domain.errors import DatabaseUnavailable
from bibwire.store import database
from bibwire.store.database import Connection, statements
from bibwire.store.line import Line

# "bibi" and "bibs" in ASCII: advisory locks of instances and of slots.
INSTANCE_LOCKS = 0x62696269
SLOT_LOCKS = 0x62696273
# Slots of one caller follow each other; the last four bits number them.
MOST_SLOTS = 16


class Session:
    """This process's standing in the database. Open it with `open_session`."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
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

    async def _take_slot(self, caller: str, slots: int) -> int | None:
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
async def open_session(conninfo: str) -> AsyncIterator[Session]:
    """Open this process's session and close it at the end."""
    session = Session(conninfo)
    await session.ensure()
    try:
        yield session
    finally:
        await session.close()
