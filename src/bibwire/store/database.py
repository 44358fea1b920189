"""
Pool, transactions, and the named statements of `sql/`.

What a session is, is said in `connections`. jsonb comes back with Decimal for every non-integer number, so
that what was stored compares equal to what was sent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, LiteralString

import msgspec
import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow
from psycopg.types.json import set_json_loads
from psycopg_pool import PoolTimeout

from bibwire.clock import DatabaseClock
from bibwire.domain.errors import DatabaseUnavailable, PartnerRemoved
from bibwire.store import connections as sessions
from bibwire.store.refusals import translated
from bibwire.store.statements import statements
from bibwire.store.watched import Pool, Watched, with_time_outs

__all__ = ["Connection", "Database", "connect", "fetch", "open_database", "statements", "with_time_outs"]

Connection = psycopg.AsyncConnection[TupleRow]

# Of one process at most, beside its session's and, in a worker, three of the queue's.
POOL_CONNECTIONS: Final = 8

_decode_json = msgspec.json.Decoder(float_hook=Decimal).decode


class Database:
    """A pool of connections to one database. Open it with `open_database`."""

    def __init__(self, conninfo: str, pool: Pool) -> None:
        self.conninfo = conninfo
        self._pool = pool

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """
        Lend a connection inside a transaction: committed at the end, rolled back on error.

        Raises:
            DatabaseUnavailable, Collided, StatementRefused: What a statement failed with, without what
                it was about: no row of anybody is in the text.
        """
        lent: Watched | None = None
        try:
            async with self._pool.connection() as connection:
                lent = connection
                yield connection
        except psycopg.Error as error:
            if lent is not None and lent.closed:
                await self._pool.distrust(lent)
            raise translated(error) from None

    async def check(self) -> None:
        """
        Find out whether the server answers.

        Raises:
            DatabaseUnavailable: It does not; the text says why.
        """
        await self.fetch("SELECT true")

    async def fetch(self, statement: LiteralString, **values: Any) -> list[TupleRow]:
        """Run one statement in a transaction of its own and return its rows."""
        async with self.transaction() as connection:
            # The server makes that transaction by itself: BEGIN and COMMIT would be two more ways there.
            await connection.set_autocommit(True)
            try:
                cursor = await connection.execute(statement, values)
                return await cursor.fetchall() if cursor.description is not None else []
            finally:
                # One that was broken off in the middle is not lent again.
                if connection.info.transaction_status is TransactionStatus.IDLE:
                    await connection.set_autocommit(False)


@asynccontextmanager
async def open_database(
    conninfo: str,
    *,
    connections: int = POOL_CONNECTIONS,
    clock: DatabaseClock | None = None,
    time: Callable[[], datetime] | None = None,
) -> AsyncIterator[Database]:
    """
    Open a pool of at most `connections` connections and close it at the end.

    Args:
        clock: Measured once a second at most, whenever a connection is lent.
        time: For simulations: what the database's clock says, instead of its own.

    Raises:
        DatabaseUnavailable: No connection within 10 s.
    """
    pool = sessions.make_pool(
        conninfo,
        application_name="bibwire",
        configure=_configure,
        max_size=connections,
        timeout=30,
        check=None if clock is None else _measuring(clock, time),
    )
    try:
        await pool.open(wait=True, timeout=10)
    except PoolTimeout:
        await pool.close()
        raise DatabaseUnavailable(
            "PostgreSQL did not answer within 10 s. Is the server of BIBWIRE_DATABASE_URL running?"
        ) from None
    try:
        yield Database(conninfo, pool)
    finally:
        await pool.close()


def _measuring(
    clock: DatabaseClock, time: Callable[[], datetime] | None
) -> Callable[[Watched], Awaitable[None]]:
    """Return a check of connections that asks for the time along the way."""

    async def check(connection: Watched) -> None:
        if not clock.is_due:
            await Pool.check_connection(connection)
            return
        await connection.set_autocommit(True)
        try:
            asked = clock.monotonic()
            [[at]] = await (await connection.execute("SELECT clock_timestamp()")).fetchall()
            answered = clock.monotonic()
        finally:
            if connection.info.transaction_status is TransactionStatus.IDLE:
                await connection.set_autocommit(False)
        clock.measured(at if time is None else time(), asked=asked, answered=answered)

    return check


async def _configure(connection: Connection) -> None:
    set_json_loads(_decode_json, connection)


async def fetch(db: Database | Connection, statement: LiteralString, **values: Any) -> list[TupleRow]:
    """Run one statement and return its rows: on a connection as it stands, or in a transaction of its own."""
    if isinstance(db, Database):
        return await db.fetch(statement, **values)
    return await (await db.execute(statement, values)).fetchall()


def of_partner(rows: Sequence[TupleRow]) -> TupleRow:
    """
    Return the one row of a partner, or of something that is there as long as its partner is.

    Raises:
        PartnerRemoved: There is none any more.
    """
    if not rows:
        raise PartnerRemoved
    [row] = rows
    return row


async def connect(conninfo: str, *, autocommit: bool = True, name: str = "bibwire session") -> Watched:
    """Open a connection outside the pool, for what lives as long as a session; the server shows `name`."""
    try:
        connection = await sessions.connect_async(conninfo, application_name=name, autocommit=autocommit)
    except psycopg.Error as error:
        raise translated(error) from None
    set_json_loads(_decode_json, connection)
    return connection
