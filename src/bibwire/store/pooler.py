"""
Whether a connection is a session of its own, as locks, LISTEN and prepared statements need.

A pooler in transaction mode lends a server connection for a transaction at a time. A lock that a
process believes to hold then stays with whoever comes next, two processes do the same work, and
nothing says so.
"""

from __future__ import annotations

from typing import Final

import psycopg
from psycopg.rows import TupleRow

from bibwire.domain.errors import DatabaseUnavailable
from bibwire.store import connections

POOLED: Final = "the address leads to a connection pooler in transaction mode"
REMEDY: Final = "Name the server itself in BIBWIRE_DATABASE_URL, or a pool in session mode."
# A pooler may have several servers' connections to choose from.
_TRIES: Final = 3


def check_sessions(connection: psycopg.Connection[TupleRow], conninfo: str) -> None:
    """
    Raise DatabaseUnavailable if connections are not sessions of their own.

    Args:
        connection: One to `conninfo` that commits by itself.
    """
    if are_shared(connection, conninfo):
        raise DatabaseUnavailable(f"Locks would not hold, because {POOLED}. {REMEDY}")


def are_shared(connection: psycopg.Connection[TupleRow], conninfo: str) -> bool:
    """
    Say whether another connection's transaction takes the server's side of ours.

    It is seen where the pool is idle, as good as always; where it is not, by one of the next starts.
    """
    with connections.connect(conninfo, settled=False) as other:
        for _ in range(_TRIES):
            ours = _backend(connection)
            # First, because of a pool of one connection, in which ours would wait for the other's end.
            if _backend(other) == ours or _backend(connection) != ours:
                return True
            other.rollback()
    return False


def _backend(connection: psycopg.Connection[TupleRow]) -> int:
    row = connection.execute("SELECT pg_backend_pid()", prepare=False).fetchone()
    assert row is not None
    return int(row[0])
