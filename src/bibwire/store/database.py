"""
Pool, transactions, and the named statements of `sql/`.

What a session is, is said in `connections`. jsonb comes back with Decimal for every non-integer number, so
that what was stored compares equal to what was sent.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import cache
from importlib import resources
from typing import Any, Final, LiteralString, cast

import msgspec
import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow
from psycopg.types.json import set_json_loads
from psycopg_pool import PoolTimeout

from bibwire.domain.errors import DatabaseUnavailable
from bibwire.store import connections as sessions
from bibwire.store.refusals import translated
from bibwire.store.watched import Pool, Watched, with_time_outs

__all__ = ["Connection", "Database", "connect", "fetch", "open_database", "statements", "with_time_outs"]

Connection = psycopg.AsyncConnection[TupleRow]

# Of one process at most, beside its session's and, in a worker, three of the queue's.
POOL_CONNECTIONS: Final = 8

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_decode_json = msgspec.json.Decoder(float_hook=Decimal).decode


@cache
def statements(stem: str) -> dict[str, LiteralString]:
    """Return the statements of `sql/<stem>.sql` by name."""
    text = (resources.files("bibwire.store") / "sql" / f"{stem}.sql").read_text("utf-8")
    parts = _NAME.split(text)[1:]
    # The files are part of the program: as literal as a string in the code.
    return {
        name: cast(LiteralString, body.strip().rstrip(";"))
        for name, body in zip(parts[::2], parts[1::2], strict=True)
    }


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

    async def fetch(self, statement: LiteralString, **values: Any) -> list[TupleRow]:
        """Run one statement in a transaction of its own and return its rows."""
        async with self.transaction() as connection:
            # The server makes that transaction by itself: BEGIN and COMMIT would be two more ways there.
            await connection.set_autocommit(True)
            try:
                cursor = await connection.execute(statement, values)
                return await cursor.fetchall() if cursor.description else []
            finally:
                # One that was broken off in the middle is not lent again.
                if connection.info.transaction_status is TransactionStatus.IDLE:
                    await connection.set_autocommit(False)


@asynccontextmanager
async def open_database(conninfo: str, *, connections: int = POOL_CONNECTIONS) -> AsyncIterator[Database]:
    """
    Open a pool of at most `connections` connections and close it at the end.

    Raises:
        DatabaseUnavailable: No connection within 10 s.
    """
    pool = sessions.make_pool(
        conninfo, application_name="bibwire", configure=_configure, max_size=connections, timeout=30
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


async def _configure(connection: Connection) -> None:
    set_json_loads(_decode_json, connection)


async def fetch(db: Database | Connection, statement: LiteralString, **values: Any) -> list[TupleRow]:
    """Run one statement and return its rows: on a connection as it stands, or in a transaction of its own."""
    if isinstance(db, Database):
        return await db.fetch(statement, **values)
    return await (await db.execute(statement, values)).fetchall()


async def connect(conninfo: str, *, autocommit: bool = True, name: str = "bibwire session") -> Watched:
    """Open a connection outside the pool, for what lives as long as a session; the server shows `name`."""
    try:
        connection = await sessions.connect_async(conninfo, application_name=name, autocommit=autocommit)
    except psycopg.Error as error:
        raise translated(error) from None
    set_json_loads(_decode_json, connection)
    return connection
