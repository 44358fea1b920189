"""
What PostgreSQL's errors become at the store's edge: sentences that may be shown and logged.

The server's own text and DETAIL may quote a row, a runner's name and all. What goes on from here is
the kind of error (SQLSTATE) and the names of constraint, table and column.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
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


# Stands in the address of the embedded server, whose user can neither start it nor correct that address.
EMBEDDED: Final = "bibwire-embedded"
# What libpq and psycopg say of each place that they tried, and of one where nobody answered.
_SEVERAL: Final = re.compile(
    r"^- host: '(?P<host>.*?)', port: '(?P<port>.*?)', hostaddr: .*?: "
    r"(?P<said>connection .*?)(?=\n- host: |\Z)",
    re.MULTILINE | re.DOTALL,
)
_FAILED: Final = re.compile(
    r'connection to server (?:at "(?P<host>[^"]+)"(?: \([^)]*\))?, port (?P<port>\d+)|'
    r'on socket "(?P<socket>[^"]+)") failed: (?P<said>.*)',
    re.DOTALL,
)
_NOBODY: Final = re.compile(
    r"(?:connection )?(?P<reason>Connection refused|Connection timed out|No such file or directory"
    r"|No route to host|Network is unreachable|Host is down|timeout expired)"
)
# What a server that answers says where it does not let us in, or is none, and what to do then.
_REMEDIES: Final = (
    (
        re.compile(
            r'password authentication failed|no password supplied|role ".*?" does not exist'
            r"|(?:Peer|Ident) authentication failed|is not permitted to log in"
        ),
        "correct user and password in BIBWIRE_DATABASE_URL",
    ),
    (
        re.compile(r'database "(?P<name>.*?)" does not exist'),
        "make it there with createdb {name}, or correct the name in BIBWIRE_DATABASE_URL",
    ),
    (
        re.compile(r"no pg_hba\.conf entry|pg_hba\.conf rejects"),
        "whoever runs that server has to allow this host, user and database in its pg_hba.conf",
    ),
    (
        re.compile(r"invalid response to \w+ negotiation|expected authentication request from server"),
        "what answers there is no PostgreSQL; correct host and port in BIBWIRE_DATABASE_URL",
    ),
)
# libpq tries again without TLS, and says both.
_AGAIN: Final = re.compile(r" connection to server (?:at|on) ")
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
        said = error.diag.message_primary
        if not said:
            text = str(error)
            said = _not_connected(text, embedded=_is_embedded(error)) or text
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


@dataclass(frozen=True, slots=True)
class _Tried:
    """A place that was tried. `reason`: why nobody answered there; None: somebody did, and `said` that."""

    place: str
    is_socket: bool
    reason: str | None
    said: str


def _tried(text: str) -> list[_Tried]:
    """Take apart what is said of a connection that was not made: each place once, as they were tried."""
    several = [(each["host"], each["port"], each["said"]) for each in _SEVERAL.finditer(text)]
    tried: dict[str, _Tried] = {}
    for host, port, whole in several or [("", "", text)]:
        failed = _FAILED.search(whole)
        if failed is None and not host:
            continue
        named = {"host": host, "port": port, "socket": None, "said": whole} if failed is None else failed
        place = (
            f"the socket {named['socket']}" if named["socket"] else f"{named['host']}, port {named['port']}"
        )
        said = " ".join((named["said"] or "").split())
        nobody = _NOBODY.match(said)
        reason = None if nobody is None else nobody["reason"][0].lower() + nobody["reason"][1:]
        tried.setdefault(place, _Tried(place, named["socket"] is not None, reason, said))
    return list(tried.values())


def _not_connected(text: str, *, embedded: bool) -> str | None:
    """Say in a sentence where no server was reached, why, and what to do; None: it is of something else."""
    if found := _UNKNOWN_HOST.search(text):
        return (
            f"the host {found[1]} of BIBWIRE_DATABASE_URL cannot be looked up: check the network, or correct "
            "the name"
        )
    tried = _tried(text)
    silent = [each for each in tried if each.reason is not None]
    if embedded and silent:
        return f"the embedded PostgreSQL is away ({silent[0].reason}): Bibwire starts it again by itself"
    answers = [] if embedded else [_advised(each) for each in tried if each.reason is None]
    if not silent:
        return "; ".join(answers) or None
    nowhere = f"no server answers at {' nor at '.join(each.place for each in silent)} ({silent[0].reason})"
    if answers:
        return "; ".join([*answers, nowhere])
    if all(each.is_socket for each in silent):
        return f"{nowhere}: start it there"
    return f"{nowhere}: start it there, or correct host and port in BIBWIRE_DATABASE_URL"


def _advised(answered: _Tried) -> str:
    """Return what was said at a place where somebody answered, and what to do about it."""
    said = _AGAIN.split(answered.said)[0]
    for pattern, remedy in _REMEDIES:
        if found := pattern.search(answered.said):
            named = {name: shlex.quote(value) for name, value in found.groupdict().items()}
            return f"{answered.place}: {said}: {remedy.format(**named)}"
    return f"{answered.place}: {said}"


def _is_embedded(error: psycopg.Error) -> bool:
    """Say whether an error is of a connection to the embedded server that was not made."""
    options = () if error.pgconn is None else error.pgconn.info
    return any(
        each.keyword == b"fallback_application_name" and each.val == EMBEDDED.encode() for each in options
    )
