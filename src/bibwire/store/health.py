"""What can be told of a database without changing it: reached or not, which version, which schema."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import psycopg

from bibwire.domain.errors import DatabaseUnavailable
from bibwire.store import connections, migrate
from bibwire.store.database import statements
from bibwire.store.pooler import are_shared


@dataclass(frozen=True, slots=True)
class Health:
    """
    A database as it stands.

    `schema` is None before the first migration; `now` is the server's clock, aware, in UTC.
    `is_pooled`: connections are no sessions of their own. `encoding` is the database's.
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
            return Health(
                server_version=version,
                is_old=connection.info.server_version < migrate.MINIMUM_SERVER_VERSION,
                is_pooled=is_pooled,
                encoding=connection.info.parameter_status("server_encoding") or "",
                database=database,
                schema=migrate.current_version(connection),
                lz4=lz4,
                now=now,
                size=size,
            )
    except psycopg.Error as error:
        raise DatabaseUnavailable(f"PostgreSQL cannot be used: {' '.join(str(error).split())}") from error
