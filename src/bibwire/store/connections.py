"""
What a session of ours is: every connection to PostgreSQL is made here, and each says all that matters.

A role, a database, postgresql.conf, PGOPTIONS, PGCLIENTENCODING, the address or a pooler may set
anything else. None of it decides what is stored, what is read back or whether a statement works.
What is not in `SETTINGS` is the operator's (memory, planner, durability, tablespaces).

The encoding is part of the connecting itself, so that no connection ever works under another.
The rest is set after it, because poolers refuse settings in the start of a session.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow

from bibwire.domain.errors import DatabaseUnavailable
from bibwire.store.statements import statements
from bibwire.store.watched import CONNECT_SECONDS, Pool, Timed, Watched

Connection = psycopg.AsyncConnection[TupleRow]

# Ours name every table with its schema; the queue engine's functions do not.
SEARCH_PATH: Final = "bibwire_jobs"

SETTINGS: Final = {
    # How values are written and read.
    "timezone": "UTC",
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "lc_monetary": "C",
    "lc_numeric": "C",
    "lc_time": "C",
    # What a statement means.
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "search_path": SEARCH_PATH,
    "plpgsql.extra_errors": "none",
    "restrict_nonsystem_relation_kind": "",
    # A policy that hides rows becomes an error: it must not look as if they were gone.
    "row_security": "off",
    # With `replica` no foreign key holds, and what is removed leaves rows behind.
    "session_replication_role": "origin",
    # What a transaction is.
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    # How long one may take: what ends ours is decided by us.
    "statement_timeout": "0",
    "lock_timeout": "0",
    "transaction_timeout": "0",
    "idle_session_timeout": "0",
    # A process that freezes inside a transaction would keep its locks, and with them every other
    # process, for as long as it is frozen. Ours never stand still for more than a second or two.
    "idle_in_transaction_session_timeout": "20s",
}
# Where a foreign database is read: its tables may be anywhere, and nothing is written.
_NOT_OF_A_READER: Final = ("search_path", "session_replication_role")
# libpq sends these to the server at the start, where a wrong value refuses the connection.
_SENT_BY_LIBPQ: Final = ("PGTZ", "PGDATESTYLE", "PGGEQO")
# Of PG* that we took out of the environment: psql is the user's own, and gets them back.
taken: Final[dict[str, str]] = {}

_SETTLE: Final = statements("connections")["settle"]
# First and by itself: a time limit of milliseconds might end what follows.
_FIRST: Final = "SET statement_timeout = 0"
_FIRST_LOCAL: Final = "SET LOCAL statement_timeout = 0"


def connect(
    conninfo: str,
    *,
    application_name: str = "bibwire",
    autocommit: bool = False,
    connect_timeout: int = CONNECT_SECONDS,
    prepare_threshold: int | None = 5,
    settled: bool = True,
) -> Timed:
    """
    Open one connection, for short work outside an event loop.

    Args:
        connect_timeout: Seconds.
        settled: False: the caller calls `settle` once it knows that no pooler lends this
            connection to others, who would inherit what we set.

    Raises:
        DatabaseUnavailable: A session cannot be as it has to be.
        psycopg.Error: No connection.
    """
    connection = Timed.connect(
        conninfo,
        autocommit=autocommit,
        prepare_threshold=prepare_threshold,
        **_arguments(conninfo, application_name, connect_timeout),
    )
    if settled:
        try:
            settle(connection)
        except BaseException:
            connection.close()
            raise
    return connection


async def connect_async(conninfo: str, *, application_name: str, autocommit: bool = True) -> Watched:
    """Open one connection for an event loop. Raises what `connect` raises."""
    connection = await Watched.connect(
        conninfo, autocommit=autocommit, **_arguments(conninfo, application_name, CONNECT_SECONDS)
    )
    try:
        await settle_async(connection)
        await connection.introduce()
    except BaseException:
        await connection.close()
        raise
    return connection


def make_pool(
    conninfo: str,
    *,
    application_name: str,
    configure: Callable[[Connection], Awaitable[None]],
    max_size: int,
    timeout: float,
    check: Callable[[Watched], Awaitable[None]] | None = None,
) -> Pool:
    """
    Return a pool, not open yet.

    Args:
        configure: What else each new connection needs; it leaves no transaction open.
        timeout: Seconds that somebody waits for a free connection.
        check: Whether a connection is lent; without one the first statements after a restart of the
            server fail.
    """

    async def prepare(connection: Watched) -> None:
        await settle_async(connection)
        await connection.introduce()
        await configure(connection)

    return Pool(
        conninfo,
        min_size=1,
        max_size=max_size,
        timeout=timeout,
        configure=prepare,
        look=check,
        kwargs=_arguments(conninfo, application_name, CONNECT_SECONDS),
        name=application_name,
    )


def settle(connection: psycopg.Connection[Any]) -> None:
    """
    Make a new connection a session of ours; no transaction may be open on it.

    Raises:
        DatabaseUnavailable: Something that matters is set, and we may not change it.
    """
    autocommit = connection.autocommit
    connection.autocommit = True
    try:
        connection.execute(_FIRST)
        connection.execute(_SETTLE, _values(SETTINGS, is_local=False))
    except psycopg.errors.InsufficientPrivilege as error:
        raise _refused(error, connection.info.user) from None
    connection.autocommit = autocommit


async def settle_async(connection: Connection) -> None:
    """Do what `settle` does."""
    autocommit = connection.autocommit
    await connection.set_autocommit(True)
    try:
        await connection.execute(_FIRST)
        await connection.execute(_SETTLE, _values(SETTINGS, is_local=False))
    except psycopg.errors.InsufficientPrivilege as error:
        raise _refused(error, connection.info.user) from None
    await connection.set_autocommit(autocommit)


def settle_transaction(connection: psycopg.Connection[Any]) -> None:
    """
    Set the same for one transaction of a foreign database, but where its tables are looked for.

    Also behind a pooler that lends the connection to others afterwards.
    """
    connection.execute(_FIRST_LOCAL)
    wanted = {name: value for name, value in SETTINGS.items() if name not in _NOT_OF_A_READER}
    connection.execute(_SETTLE, _values(wanted, is_local=True))


def use_ours_alone() -> None:
    """
    Take every PG* out of the environment: the embedded server is reached by what we know of it.

    PGHOSTADDR, PGSERVICE or PGREQUIREAUTH, meant for another server, would mislead it.
    """
    _take(name for name in list(os.environ) if name.startswith("PG"))


def _take(names: Iterable[str]) -> None:
    for name in names:
        value = os.environ.pop(name, None)
        if value is not None:
            taken[name] = value


def _arguments(conninfo: str, application_name: str, connect_timeout: int) -> dict[str, Any]:
    _take(_SENT_BY_LIBPQ)
    arguments: dict[str, Any] = {
        "application_name": application_name,
        "client_encoding": "UTF8",
        "connect_timeout": connect_timeout,
    }
    try:
        if "options" not in conninfo_to_dict(conninfo):
            # Else libpq takes PGOPTIONS, which a pooler refuses.
            arguments["options"] = ""
    except psycopg.ProgrammingError:
        pass  # connecting says what is wrong with it
    return arguments


def _values(settings: dict[str, str], *, is_local: bool) -> dict[str, Any]:
    return {"names": list(settings), "wanted": list(settings.values()), "is_local": is_local}


def _refused(error: psycopg.Error, user: str) -> DatabaseUnavailable:
    said = " ".join(str(error.diag.message_primary or error).split())
    return DatabaseUnavailable(
        f"The role {user} works under settings that Bibwire cannot work under, and may not change them "
        f"({said}). As a superuser take them back: ALTER ROLE {user} RESET session_replication_role, "
        "or the same with ALTER DATABASE."
    )
