"""
Brings the schema up to date: plain SQL files, in order, once, under a lock.

All pending files are applied in one transaction: an error leaves the schema as it was and
stops the start. Alembic keeps the order and the version; the SQL is ours. SQLAlchemy is
loaded only when something is pending, because it costs 0.4 s. What a later package of the queue
engine brings follows, under the same lock (`jobs_schema`).
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import psycopg

from bibwire.domain.errors import DatabaseUnavailable
from bibwire.store import connections, jobs_schema
from bibwire.store.pooler import check_sessions
from bibwire.store.refusals import told, translated

HEAD = "0028"
# "bibw" in ASCII; keeps two processes from migrating at the same time.
MIGRATION_LOCK = 0x62696277
MINIMUM_SERVER_VERSION = 140000
ENCODING = "UTF8"
NOT_EVERY_NAME = "which cannot hold every name"
OTHER_DATABASE = (
    "make another with CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0, and name it in "
    "BIBWIRE_DATABASE_URL"
)


def run_sql_file(name: str) -> None:
    """Run one file of `migrations/` on the connection Alembic works on."""
    from alembic import op

    text = (resources.files("bibwire.store") / "migrations" / name).read_text("utf-8")
    op.get_bind().exec_driver_sql(text)


def check_server(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    """Raise DatabaseUnavailable if the server is older than PostgreSQL 14."""
    version = connection.info.server_version
    if version < MINIMUM_SERVER_VERSION:
        raise DatabaseUnavailable(
            f"The server runs PostgreSQL {version // 10000}; Bibwire needs 14 or later. "
            "Upgrade it, or name another one in BIBWIRE_DATABASE_URL."
        )
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != ENCODING:
        raise DatabaseUnavailable(
            f"The database is encoded in {encoding}, {NOT_EVERY_NAME}: {OTHER_DATABASE}."
        )


def current_version(connection: psycopg.Connection[tuple[object, ...]]) -> str | None:
    """Return the schema's version, None before the first migration."""
    row = connection.execute("SELECT to_regclass('bibwire.schema_version')").fetchone()
    if row is None or row[0] is None:
        return None
    row = connection.execute("SELECT version_num FROM bibwire.schema_version").fetchone()
    return None if row is None else str(row[0])


def is_current(conninfo: str) -> bool:
    """
    Whether the schema is up to date; nothing is changed.

    Raises:
        DatabaseUnavailable: The server cannot be reached.
    """
    try:
        with connections.connect(conninfo, autocommit=True) as connection:
            return current_version(connection) == HEAD and not jobs_schema.missing(connection)
    except psycopg.Error as error:
        raise translated(error) from None


def upgrade(conninfo: str) -> bool:
    """
    Bring the schema up to date. Return whether anything had to be done.

    Raises:
        DatabaseUnavailable: The server cannot be reached, is too old, or stands behind a pooler that
            lends its connections; the schema is newer than this program; or a migration failed: then
            nothing of it was kept.
    """
    try:
        with connections.connect(conninfo, autocommit=True, settled=False) as connection:
            check_server(connection)
            check_sessions(connection, conninfo)
            connections.settle(connection)
            version = current_version(connection)
            if version == HEAD and not jobs_schema.missing(connection):
                return False
            if version is not None and version > HEAD:
                raise DatabaseUnavailable(
                    f"The database has schema version {version}, this Bibwire knows {HEAD}: "
                    "it was used by a newer Bibwire. Upgrade this one."
                )
            # Another's migration, and ours, take as long as they take.
            connection.limit = None
            connection.execute("SELECT pg_advisory_lock(%s)", (MIGRATION_LOCK,))
            if version != HEAD:
                _run_alembic(connection)
                connection.autocommit = True
            jobs_schema.bring_up_to_date(connection)
            return True
    except psycopg.Error as error:
        known = translated(error)
        if isinstance(known, DatabaseUnavailable):
            raise known from None
        raise DatabaseUnavailable(
            f"The schema could not be brought up to date, nothing was changed: {told(error)}"
        ) from None


def _run_alembic(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    import sqlalchemy
    from alembic import command
    from alembic.config import Config

    # SQLAlchemy wants to begin and commit itself.
    connection.autocommit = False
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://", creator=lambda: connection, poolclass=sqlalchemy.pool.StaticPool
    )
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    try:
        with engine.connect() as bound:
            config.attributes["connection"] = bound
            # Inside the transaction, so that an error leaves not even the empty schema.
            bound.exec_driver_sql("CREATE SCHEMA IF NOT EXISTS bibwire")
            command.upgrade(config, "head")
            bound.commit()
    except sqlalchemy.exc.DBAPIError as error:
        if isinstance(error.orig, psycopg.Error):
            raise error.orig from None
        raise
