"""
The queue engine's own tables: its SQL comes out of the installed package, never out of ours.

A new database gets the package's whole schema in revision 0003. When a later package brings
migration files, those the database has not had are applied in the order of their names, each in a
transaction with its record. What `pre` in a name does to the schema, workers of the version before
can live with; what `post` does, they cannot: the last `post` files wait for a start at which no
worker lives.
"""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import psycopg

from bibwire.domain.errors import DatabaseUnavailable

PACKAGE: Final = "procrastinate"
# Engine and functions of ours name each other without schema: every session of ours has this path.
_LOCAL_PATH: Final = "SET LOCAL search_path = bibwire_jobs"

Connection = psycopg.Connection[Any]


def files() -> dict[str, Path]:
    """Return the package's migrations by name, in order."""
    return {file.stem: file for file in sorted((_folder() / "migrations").glob("*.sql"))}


def install(connection: Connection) -> None:
    """Make the engine's tables, inside the caller's transaction."""
    connection.execute("CREATE SCHEMA bibwire_jobs")
    connection.execute(
        """
        CREATE TABLE bibwire_jobs.engine_migrations (
            name text PRIMARY KEY,
            engine_version text NOT NULL,
            applied_at timestamptz NOT NULL DEFAULT now()
        )
        """
    )
    [before] = connection.execute("SELECT current_setting('search_path')").fetchone() or ("",)
    connection.execute(_LOCAL_PATH)
    _run(connection, _folder() / "schema.sql")
    connection.execute("SELECT set_config('search_path', %s, true)", (before,))
    for name in files():
        _record(connection, name)


def missing(connection: Connection) -> list[str]:
    """
    Return the migrations to be applied now; empty before the schema is there.

    Raises:
        DatabaseUnavailable: A newer package took away what this one needs.
    """
    [there] = connection.execute("SELECT to_regclass('bibwire_jobs.engine_migrations')").fetchone() or (None,)
    if there is None:
        return []
    applied = {name for (name,) in connection.execute("SELECT name FROM bibwire_jobs.engine_migrations")}
    known = files()
    if any(_is_post(name) for name in applied - known.keys()):
        raise DatabaseUnavailable("The database's queue was used by a newer Bibwire. Upgrade this one.")
    names = [name for name in known if name not in applied]
    if names and _is_post(names[-1]) and _workers_live(connection):
        while names and _is_post(names[-1]):
            names.pop()
    return names


def bring_up_to_date(connection: Connection) -> None:
    """Apply what is missing. The caller holds the lock of migrations; the connection is in autocommit."""
    known = files()
    for name in missing(connection):
        with connection.transaction():
            connection.execute(_LOCAL_PATH)
            _run(connection, known[name])
            _record(connection, name)


def _folder() -> Path:
    # Found without importing it: every start of a command asks.
    spec = find_spec(PACKAGE)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "sql"


def _is_post(name: str) -> bool:
    return "_post_" in name


def _run(connection: Connection, file: Path) -> None:
    connection.execute(file.read_bytes())


def _record(connection: Connection, name: str) -> None:
    connection.execute(
        "INSERT INTO bibwire_jobs.engine_migrations (name, engine_version) VALUES (%s, %s)",
        (name, version(PACKAGE)),
    )


def _workers_live(connection: Connection) -> bool:
    [living] = connection.execute(
        """
        SELECT EXISTS (
            SELECT FROM bibwire_jobs.procrastinate_workers
            WHERE last_heartbeat > now() - interval '30 seconds'
        )
        """
    ).fetchone() or (False,)
    return bool(living)
