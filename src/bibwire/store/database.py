"""
Pool, transactions, and the named statements of `sql/`.

What a session is, is said in `connections`. jsonb comes back with Decimal for every non-integer number, so
that what was stored compares equal to what was sent.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from functools import cache
from importlib import resources
from typing import Any, Final, LiteralString, cast

import msgspec
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow
from psycopg.types.json import set_json_loads
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from bibwire.clock import DatabaseClock
from bibwire.domain.errors import Collided, DatabaseUnavailable
from bibwire.store import connections as sessions

Connection = psycopg.AsyncConnection[TupleRow]

# The last one is an "internal error" to psycopg; it ends the connection like the first.
_COLLISIONS = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)
_UNUSABLE = (psycopg.OperationalError, PoolTimeout, psycopg.errors.IdleInTransactionSessionTimeout)

# Of one process at most, beside its session's and, in a worker, three of the queue's.
POOL_CONNECTIONS: Final = 8

# A host that is gone says nothing: without these a statement would wait for a quarter of an hour.
LOST_AFTER: Final = {
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}

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

    def __init__(self, conninfo: str, pool: AsyncConnectionPool[Connection]) -> None:
        self.conninfo = conninfo
        self._pool = pool

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Lend a connection inside a transaction: committed at the end, rolled back on error."""
        try:
            async with self._pool.connection() as connection:
                yield connection
        except _COLLISIONS as error:
            raise Collided(
                "The database let another transaction go first; the next run repeats it."
            ) from error
        except _UNUSABLE as error:
            raise DatabaseUnavailable(f"PostgreSQL cannot be used: {' '.join(str(error).split())}") from error

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
        check=AsyncConnectionPool.check_connection if clock is None else _measuring(clock, time),
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


def with_time_outs(conninfo: str) -> str:
    """Add when a connection over a network is taken for lost: after 30 s, unless the user says otherwise."""
    try:
        missing = LOST_AFTER.keys() - conninfo_to_dict(conninfo).keys()
        return make_conninfo(conninfo, **{name: LOST_AFTER[name] for name in missing})
    except psycopg.ProgrammingError:
        return conninfo  # who connects with it says what is wrong


def _measuring(
    clock: DatabaseClock, time: Callable[[], datetime] | None
) -> Callable[[Connection], Awaitable[None]]:
    """Return a check of connections that asks for the time along the way."""

    async def check(connection: Connection) -> None:
        if not clock.is_due:
            await AsyncConnectionPool.check_connection(connection)
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


async def connect(conninfo: str, *, autocommit: bool = True) -> Connection:
    """Open a connection outside the pool, for what lives as long as a session."""
    try:
        connection = await sessions.connect_async(
            conninfo, application_name="bibwire session", autocommit=autocommit
        )
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(f"PostgreSQL cannot be used: {' '.join(str(error).split())}") from error
    set_json_loads(_decode_json, connection)
    return connection
