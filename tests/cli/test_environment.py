"""
Nothing outside decides: the same commands do the same whatever a database, a shell or a machine sets.

Each test is a command as a user runs it, in surroundings that somebody has.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

import rsusim
from tests.cli.conftest import Shell
from tests.pooler import needs_pgbouncer, pooled
from tests.store.test_session_settings import make_hostile
from tests.waiting import wait_until

MISLEADING = {
    "PGCLIENTENCODING": "LATIN1",
    "PGOPTIONS": "-c default_transaction_read_only=on -c nonsense=1",
    "PGTZ": "Nonsense",
    "PGDATESTYLE": "Nonsense",
}
NAME = ("José", "García Ñúñez")


@pytest.fixture
def world() -> rsusim.World:
    world = rsusim.worlds.small(now=datetime.now(UTC))
    world.clock.run(1)
    return world


@dataclass(frozen=True)
class Entry:
    """A registration for a race of the first partner."""

    race: int
    number: int


@pytest.fixture
def garcia(world: rsusim.World) -> Entry:
    """Somebody with bib 4321 whose name no two encodings spell alike."""
    race = world.add_race([world.accounts["Peak Timing"]], "Fiesta 5K", "America/Chicago")
    start = datetime.now(UTC).replace(tzinfo=None, microsecond=0) + timedelta(days=2)
    number = world.register(world.add_event(race, "5K", start), first_name=NAME[0], last_name=NAME[1])
    world.assign_bib(number, 4321)
    return Entry(race, number)


def stored(conninfo: str, registration: int) -> tuple[object, ...]:
    with psycopg.connect(conninfo, client_encoding="UTF8") as connection:
        row = connection.execute(
            "SELECT first_name, last_name FROM bibwire.participants WHERE registration_id = %s",
            (registration,),
        ).fetchone()
    assert row is not None
    return row


def owned_by_a_role(conninfo: str, role: str) -> str:
    """Give the database to an ordinary role, whose own settings are against us; return how to reach it."""
    name = conninfo_to_dict(conninfo)["dbname"]
    with psycopg.connect(conninfo, autocommit=True) as superuser:
        superuser.execute(f"CREATE ROLE {role} LOGIN".encode())
        superuser.execute(f"ALTER DATABASE {name} OWNER TO {role}".encode())
        for setting in (
            "client_encoding = 'LATIN1'",
            "datestyle = 'German'",
            "standard_conforming_strings = off",
            "default_transaction_isolation = 'serializable'",
            "lock_timeout = '1ms'",
            "search_path = nowhere",
        ):
            superuser.execute(f"ALTER ROLE {role} SET {setting}".encode())
    return make_conninfo(conninfo, user=role)


@pytest.mark.every_postgres
def test_what_role_database_address_and_environment_set_decides_nothing(
    shell: Shell, empty_database_url: str, world: rsusim.World, garcia: Entry
) -> None:
    address = owned_by_a_role(empty_database_url, "against_us")
    make_hostile(empty_database_url, leave=("session_replication_role",))
    shell.environment |= MISLEADING
    shell.environment["BIBWIRE_DATABASE_URL"] = make_conninfo(address, client_encoding="LATIN1")
    try:
        assert shell.run("init").code == 0
        assert shell.add(world.accounts["Peak Timing"]).code == 0
        synced = shell.run("sync")
        assert synced.code == 0, synced.err + synced.out

        assert stored(empty_database_url, garcia.number) == NAME
        assert shell.run("verify").code == 0
        found = shell.run("lookup", "4321", "--race", str(garcia.race))
        assert " ".join(NAME) in found.out
        for command in (["status"], ["plan"], ["reconcile"], ["partner", "list"]):
            ended = shell.run(*command)
            assert ended.code == 0, f"{command}: {ended.err}{ended.out}"
        assert "FAIL database" not in (told := shell.run("doctor").out)
        assert "FAIL schema" not in told
    finally:
        ours = "-c default_transaction_read_only=off -c lock_timeout=0"
        with psycopg.connect(empty_database_url, autocommit=True, options=ours) as superuser:
            superuser.execute("REASSIGN OWNED BY against_us TO CURRENT_USER")
            superuser.execute("DROP OWNED BY against_us")
            superuser.execute("DROP ROLE against_us")


def test_run_works_where_a_database_sets_everything_against_it(
    shell: Shell, database_url: str, peak: rsusim.Account, garcia: Entry
) -> None:
    make_hostile(database_url)
    shell.environment |= MISLEADING
    process = shell.start("run", "--workers", "1")

    def arrived() -> bool:
        assert process.poll() is None
        with psycopg.connect(database_url, options="-c transaction_timeout=0") as connection:
            counted = connection.execute(
                "SELECT count(*) FROM bibwire.participants WHERE registration_id = %s", (garcia.number,)
            ).fetchone()
        return counted == (1,)

    wait_until(arrived)
    shell.stop(process, signal.SIGTERM)

    assert stored(database_url, garcia.number) == NAME


@pytest.mark.every_postgres
@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_that_cannot_hold_every_name_is_refused_by_name(
    encoding: str, shell: Shell, postgres: str
) -> None:
    name = f"encoded_{encoding.lower()}"
    with psycopg.connect(postgres, autocommit=True) as server:
        provider = " LOCALE_PROVIDER libc" if server.info.server_version >= 150000 else ""
        server.execute(
            f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0{provider} LOCALE 'C'".encode()
        )
        try:
            shell.environment["BIBWIRE_DATABASE_URL"] = make_conninfo(postgres, dbname=name)
            for command in (["init"], ["sync"], ["run"], ["status"], ["partner", "list"]):
                ended = shell.run(*command)
                assert ended.code == 1, command
                assert f"encoded in {encoding}" in ended.told
                assert "CREATE DATABASE ... ENCODING 'UTF8'" in ended.told

            ended = shell.run("doctor", "--json")

            assert ended.code == 1
            [finding] = [each for each in ended.json["findings"] if each["check"] == "database"]
            assert finding["grade"] == "FAIL"
            assert f"encoded in {encoding}" in finding["found"]
            assert "ENCODING 'UTF8'" in finding["fix"]
        finally:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@needs_pgbouncer
def test_a_pooler_in_session_mode_hands_on_no_settings_of_others(
    shell: Shell, database_url: str, peak: rsusim.Account, garcia: Entry
) -> None:
    make_hostile(database_url)
    shell.environment |= MISLEADING
    with pooled(database_url, "session") as address:
        ended = shell.run("sync", DATABASE_URL=address)

    assert ended.code == 0, ended.err
    assert stored(database_url, garcia.number) == NAME


@needs_pgbouncer
def test_what_a_pooler_lends_to_others_is_left_as_it_was(shell: Shell, database_url: str) -> None:
    with pooled(database_url, "transaction", connections=1) as address:
        assert shell.run("init", DATABASE_URL=address).code == 1
        assert shell.run("doctor", DATABASE_URL=address).code == 1

        with psycopg.connect(address) as others:
            assert others.execute("SHOW search_path").fetchone() == ('"$user", public',)
            assert others.execute("SHOW row_security").fetchone() == ("on",)
            assert others.execute("SHOW idle_in_transaction_session_timeout").fetchone() == ("0",)
