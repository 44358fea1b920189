"""
What a session is, we decide: not a role, a database, the server's file, the address or the environment.

The settings of a database stand for all of these: what is set there, every new session starts with.
"""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import bibwire
from bibwire.domain.errors import DatabaseUnavailable
from bibwire.store import connections, database
from bibwire.store.jobs import Jobs
from tests.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.every_postgres

# One value for each setting that it must not have.
HOSTILE = {
    "timezone": "Asia/Kathmandu",
    "datestyle": "German",
    "intervalstyle": "sql_standard",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "lc_monetary": "C.UTF-8",
    "lc_numeric": "C.UTF-8",
    "lc_time": "C.UTF-8",
    "standard_conforming_strings": "off",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "search_path": "nowhere",
    "plpgsql.extra_errors": "all",
    "restrict_nonsystem_relation_kind": "view",
    "row_security": "on",
    "session_replication_role": "replica",
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "default_transaction_deferrable": "on",
    # Long enough for a machine that is busy to connect and to look at what it is connected to.
    "statement_timeout": "2s",
    "lock_timeout": "1ms",
    "transaction_timeout": "3s",
    "idle_session_timeout": "5s",
    "idle_in_transaction_session_timeout": "4s",
}


def make_hostile(conninfo: str, *, leave: tuple[str, ...] = ()) -> list[str]:
    """Set all of it for the database, as far as its server knows it; return what was set."""
    done = []
    name = psycopg.conninfo.conninfo_to_dict(conninfo)["dbname"]
    with psycopg.connect(conninfo, autocommit=True) as connection:
        known = {row[0].lower() for row in connection.execute("SELECT name FROM pg_settings")}
        for setting, value in HOSTILE.items():
            if setting in leave or (setting not in known and not setting.startswith("plpgsql")):
                continue
            connection.execute(f"ALTER DATABASE {name} SET {setting} = '{value}'".encode())
            done.append(setting)
    return done


def shown(connection: psycopg.Connection[Any], settings: list[str]) -> dict[str, str]:
    connection.execute("DO $$ BEGIN END $$")  # from here on the settings of plpgsql are known
    found = {}
    for setting in settings:
        row = connection.execute(f"SHOW {setting}".encode()).fetchone()
        assert row is not None
        found[setting] = row[0]
    return found


async def shown_async(connection: database.Connection, settings: list[str]) -> dict[str, str]:
    await connection.execute("DO $$ BEGIN END $$")
    found = {}
    for setting in settings:
        row = await (await connection.execute(f"SHOW {setting}".encode())).fetchone()
        assert row is not None
        found[setting] = row[0]
    return found


def test_each_setting_has_a_value_here_that_it_must_not_have() -> None:
    assert HOSTILE.keys() == connections.SETTINGS.keys()
    assert not [name for name in HOSTILE if HOSTILE[name] == connections.SETTINGS[name]]


@pytest.fixture
def hostile(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    """A database that sets everything otherwise, and an environment that does, too."""
    done = make_hostile(database_url)
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    monkeypatch.setenv("PGTZ", "Nonsense")
    monkeypatch.setenv("PGDATESTYLE", "Nonsense")
    monkeypatch.setenv("PGGEQO", "Nonsense")
    monkeypatch.setenv("PGOPTIONS", "-c nonsense=1")
    yield make_conninfo(database_url, client_encoding="LATIN1"), done
    connections.taken.clear()


def test_every_way_to_connect_makes_a_session_of_ours(hostile: tuple[str, list[str]]) -> None:
    conninfo, done = hostile
    names = [*done, "client_encoding"]
    wanted = {name: connections.SETTINGS[name] for name in done} | {"client_encoding": "UTF8"}

    async def each() -> list[dict[str, str]]:
        single = await database.connect(conninfo)
        found = [await shown_async(single, names)]
        await single.close()
        async with database.open_database(conninfo) as db, db.transaction() as connection:
            found.append(await shown_async(connection, names))
        return found

    with connections.connect(conninfo) as connection:
        found = [shown(connection, names)]
    with connections.connect(conninfo, settled=False) as connection:
        assert connection.info.encoding == "utf-8"

    for values in (*found, *asyncio.run(each())):
        assert values == wanted


def test_the_queue_works_in_sessions_of_ours(hostile: tuple[str, list[str]]) -> None:
    conninfo, _ = hostile
    done: list[dict[str, Any]] = []

    async def work() -> None:
        stop = asyncio.Event()
        async with database.open_database(conninfo) as db:
            jobs = Jobs(db)

            async def look(args: dict[str, Any], _: asyncio.Event) -> None:
                done.append(args)
                stop.set()

            async with db.transaction() as connection:
                await jobs.defer(connection, "look", {"who": "García"}, lock=None, queueing_lock=None)
            await jobs.run_worker({"look": look}, concurrency=1, periodic=(), stop=stop)

    asyncio.run(asyncio.wait_for(work(), PATIENCE_SECONDS))

    assert done == [{"who": "García"}]


def test_a_role_under_which_no_foreign_key_holds_is_named(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as superuser:
        superuser.execute("CREATE ROLE replica_by_mistake LOGIN")
        try:
            superuser.execute("ALTER ROLE replica_by_mistake SET session_replication_role = replica")
            conninfo = make_conninfo(database_url, user="replica_by_mistake")

            with pytest.raises(DatabaseUnavailable) as caught:
                connections.connect(conninfo)

            assert "ALTER ROLE replica_by_mistake RESET session_replication_role" in str(caught.value)
        finally:
            superuser.execute("DROP ROLE replica_by_mistake")


def test_a_transaction_of_a_foreign_database_is_set_for_itself_alone(hostile: tuple[str, list[str]]) -> None:
    conninfo, _ = hostile
    with connections.connect(conninfo, settled=False) as connection:
        before = shown(connection, ["timezone", "search_path"])
        connection.rollback()

        connections.settle_transaction(connection)
        within = shown(connection, ["timezone", "search_path", "datestyle", "statement_timeout"])
        connection.rollback()

        assert within == {
            "timezone": "UTC", "search_path": "nowhere", "datestyle": "ISO, MDY", "statement_timeout": "0"
        }  # fmt: skip
        assert shown(connection, ["timezone", "search_path"]) == before


def test_nobody_connects_but_in_one_place() -> None:
    """By construction: a connection made elsewhere would inherit whatever stands around."""
    source = Path(bibwire.__file__).parent
    elsewhere = []
    for file in source.rglob("*.py"):
        if file == source / "store" / "connections.py":
            continue
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            pool = called.rpartition(".")[2].split("[")[0] in (
                "ConnectionPool", "AsyncConnectionPool", "NullConnectionPool", "AsyncNullConnectionPool"
            )  # fmt: skip
            direct = called in ("psycopg.connect", "Connection.connect", "AsyncConnection.connect")
            if pool or direct or called.endswith((".AsyncConnection.connect", ".Connection.connect")):
                elsewhere.append(f"{file.relative_to(source)}:{node.lineno} {called}")
    assert elsewhere == []


def test_a_policy_that_hides_rows_is_an_error(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as superuser:
        superuser.execute("CREATE TABLE public.hidden (number integer)")
        superuser.execute("INSERT INTO public.hidden VALUES (1)")
        superuser.execute("ALTER TABLE public.hidden ENABLE ROW LEVEL SECURITY")
        superuser.execute("CREATE ROLE sees_nothing LOGIN")
        try:
            superuser.execute("GRANT SELECT ON public.hidden TO sees_nothing")
            ours = connections.connect(make_conninfo(database_url, user="sees_nothing"))

            with ours, pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
                ours.execute("SELECT count(*) FROM public.hidden")
        finally:
            superuser.execute("DROP OWNED BY sees_nothing")
            superuser.execute("DROP ROLE sees_nothing")
