"""
What PostgreSQL's errors become at the store's edge: sentences that may be shown and logged.

The server's own text and DETAIL may quote a row, a runner's name and all. What goes on from here is
the kind of error (SQLSTATE) and the names of constraint, table and column.
"""

from __future__ import annotations

import re
from typing import Final

import psycopg
from psycopg import errors
from psycopg_pool import PoolTimeout

from bibwire.domain.errors import (
    BibwireError,
    Collided,
    DatabaseCutOff,
    DatabaseDenied,
    DatabaseUnavailable,
    StatementRefused,
)

_COLLISIONS: Final = (errors.DeadlockDetected, errors.SerializationFailure)
# Not "operational" to psycopg, but the connection or the server cannot be used all the same.
_UNUSABLE: Final = (
    psycopg.OperationalError,
    PoolTimeout,
    errors.IdleInTransactionSessionTimeout,
    errors.IdleSessionTimeout,
)
# What a server says when it ends a session by itself, or is about to be there again.
_ENDED: Final = (
    errors.AdminShutdown,
    errors.CrashShutdown,
    errors.CannotConnectNow,
    errors.IdleInTransactionSessionTimeout,
    errors.IdleSessionTimeout,
)
# A standby or a server at rest says so in words that a race timer need not know.
READ_ONLY: Final = (
    "PostgreSQL takes no changes: it is a standby. Name the primary server in BIBWIRE_DATABASE_URL"
)


# What libpq says of a server that was not reached: each address it tried, and the system's reason.
_TRIED: Final = re.compile(
    r'connection to server (?:at "(?P<host>[^"]+)"(?: \([^)]*\))?, port (?P<port>\d+)|'
    r'on socket "(?P<socket>[^"]+)") '
    r"failed: (?P<reason>Connection refused|Connection timed out|No such file or directory|No route to host"
    r"|Network is unreachable|Host is down|timeout expired)"
)
_UNKNOWN_HOST: Final = re.compile(r"failed to resolve host '([^']+)'")


def translated(error: psycopg.Error) -> BibwireError:
    """Return the error of ours that says the same and quotes nothing."""
    if isinstance(error, _COLLISIONS):
        return Collided("The database let another transaction go first; the next run repeats it.")
    if isinstance(error, errors.ReadOnlySqlTransaction):
        return DatabaseDenied(f"{READ_ONLY}.")
    if isinstance(error, errors.InsufficientPrivilege):
        # Its text names objects and nothing else.
        return DatabaseDenied(
            f"PostgreSQL denies access: {error.diag.message_primary or 'privileges are missing'}. "
            "Run: bibwire doctor."
        )
    if isinstance(error, errors.ForeignKeyViolation):
        # Nothing else that others refer to is ever deleted.
        return StatementRefused("The partner was removed meanwhile.", sqlstate=error.sqlstate)
    # What is too large for PostgreSQL is "operational" too, and no wait ends that.
    if isinstance(error, _UNUSABLE) and not (error.sqlstate or "").startswith("54"):
        kind = DatabaseCutOff if _cuts_off(error) else DatabaseUnavailable
        return kind(f"PostgreSQL cannot be used: {told(error)}")
    return StatementRefused(f"PostgreSQL refused a statement: {told(error)}.", sqlstate=error.sqlstate)


def _cuts_off(error: psycopg.Error) -> bool:
    """Say whether the server or the connection went away, and not: it is there, and cannot do it."""
    if isinstance(error, PoolTimeout):
        return False
    # Without a code no server said it: the connection was lost, or none was made.
    return error.sqlstate is None or isinstance(error, _ENDED) or error.sqlstate.startswith("08")


def told(error: psycopg.Error) -> str:
    """Say what an error was, without what it was about."""
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        # Of the connection, the network or the server as a whole: no row is in it.
        said = error.diag.message_primary or _unreached(str(error)) or str(error)
        return " ".join(said.split()) or type(error).__name__
    kind = type(error).__name__ if error.sqlstate is None else f"{type(error).__name__} ({error.sqlstate})"
    named = [
        f"{what} {name}"
        for what, name in (
            ("constraint", error.diag.constraint_name),
            ("table", error.diag.table_name),
            ("column", error.diag.column_name),
        )
        if name
    ]
    return ", ".join([kind, *named])


def _unreached(text: str) -> str | None:
    """Say in a sentence where no server was reached, why, and what to do; None: one was."""
    if found := _UNKNOWN_HOST.search(text):
        return (
            f"the host {found[1]} of BIBWIRE_DATABASE_URL cannot be looked up: check the network, or correct "
            "the name"
        )
    tried = {
        f"{each['host']}, port {each['port']}" if each["host"] else f"the socket {each['socket']}": each
        for each in _TRIED.finditer(text)
    }
    if not tried:
        return None
    reason = next(iter(tried.values()))["reason"]
    fix = "start it there"
    if any(each["host"] for each in tried.values()):
        fix += ", or correct host and port in BIBWIRE_DATABASE_URL"
    return f"no server answers at {' nor at '.join(tried)} ({reason[0].lower()}{reason[1:]}): {fix}"
