"""What can be told of a database without changing it: reached or not, which version, which schema."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import TupleRow

from bibwire.domain.errors import DatabaseDenied
from bibwire.store import connections, migrate
from bibwire.store.database import Database, statements
from bibwire.store.pooler import are_shared
from bibwire.store.refusals import translated


@dataclass(frozen=True, slots=True)
class Denial:
    """Something of our work that the server would refuse, and what a person can do about it."""

    check: str
    found: str
    fix: str


@dataclass(frozen=True, slots=True)
class Health:
    """
    A database as it stands.

    `schema` is None before the first migration; `now` is the server's clock, aware, in UTC.
    `is_pooled`: connections are no sessions of their own. `encoding` is the database's. `denials`: what
    would be refused.
    """

    server_version: str
    is_old: bool
    is_pooled: bool
    encoding: str
    database: str
    schema: str | None
    lz4: bool
    now: datetime
    size: str
    denials: Sequence[Denial]


def inspect(conninfo: str) -> Health:
    """
    Look at a database and change nothing.

    Raises:
        DatabaseUnavailable: It cannot be reached, or what is there cannot be read.
    """
    try:
        with connections.connect(conninfo, autocommit=True, settled=False) as connection:
            is_pooled = are_shared(connection, conninfo)
            if not is_pooled:
                connections.settle(connection)
            row = connection.execute(statements("reports")["server"]).fetchone()
            assert row is not None
            version, database, lz4, now, size = row
            schema = _schema(connection)
            named = statements("health")
            access = connection.execute(named["access"]).fetchone()
            change = {"to_change_them": schema != migrate.HEAD}
            denied = connection.execute(named["denied"], change).fetchall()
            return Health(
                server_version=version,
                is_old=connection.info.server_version < migrate.MINIMUM_SERVER_VERSION,
                is_pooled=is_pooled,
                encoding=connection.info.parameter_status("server_encoding") or "",
                database=database,
                schema=schema,
                lz4=lz4,
                now=now,
                size=size,
                denials=_denials(access, denied, is_current=schema == migrate.HEAD),
            )
    except psycopg.Error as error:
        raise translated(error) from None


async def check_access(db: Database) -> None:
    """
    Find out that the server would refuse our work.

    Raises:
        DatabaseDenied: It would; the text says what to do.
    """
    named = statements("health")
    [access] = await db.fetch(named["access"])
    denied = await db.fetch(named["denied"], to_change_them=False)
    for denial in _denials(access, denied, is_current=True):
        raise DatabaseDenied(f"PostgreSQL does not let us work: {denial.found}. To fix it: {denial.fix}.")


def _denials(access: TupleRow | None, denied: Sequence[TupleRow], *, is_current: bool) -> list[Denial]:
    assert access is not None
    is_standby, may_temp, may_create, is_made, role, database = access
    found: list[Denial] = []
    if is_standby:
        found.append(
            Denial(
                "changes",
                "the server is a standby and takes no changes",
                "name the primary server in BIBWIRE_DATABASE_URL",
            )
        )
    if not may_temp:
        found.append(
            Denial(
                "temporary tables",
                f"{role} may not make temporary tables, through which every page is stored",
                f"GRANT TEMPORARY ON DATABASE {_quoted(database)} TO {_quoted(role)}",
            )
        )
    if not is_made and not may_create:
        found.append(
            Denial(
                "schema",
                f"{role} may not make a schema in database {database}",
                f"GRANT CREATE ON DATABASE {_quoted(database)} TO {_quoted(role)}",
            )
        )
    for owner, one, number in denied:
        what = (
            f"{one} belongs to {owner}" if number == 1 else f"{one} and {number - 1} more belong to {owner}"
        )
        found.append(
            Denial(
                "tables",
                f"{what}, and {role} may not {'use' if is_current else 'change'} them",
                f"name {owner} as the user in BIBWIRE_DATABASE_URL, or "
                f"GRANT {_quoted(owner)} TO {_quoted(role)}",
            )
        )
    return found


def _schema(connection: psycopg.Connection[Any]) -> str | None:
    """Return the schema's version; None also where we may not look."""
    try:
        return migrate.current_version(connection)
    except psycopg.errors.InsufficientPrivilege:
        return None


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
