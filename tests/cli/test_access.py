"""A database that takes no changes from us is named, with the fix, by every command that would make some."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import psycopg
import pytest

from bibwire.store import embedded, migrate
from tests.cli.conftest import Shell

_numbers = count()


@pytest.fixture
def role(database_url: str) -> Iterator[str]:
    """A role that may do with our tables what it likes, and nothing else."""
    name = f"timer_{next(_numbers)}_{psycopg.conninfo.conninfo_to_dict(database_url)['dbname']}"
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute(f"CREATE ROLE {name} LOGIN".encode())
        for schema in ("bibwire", "bibwire_jobs"):
            owner.execute(f"GRANT USAGE ON SCHEMA {schema} TO {name}".encode())
            for what in ("TABLES", "SEQUENCES"):
                owner.execute(f"GRANT ALL ON ALL {what} IN SCHEMA {schema} TO {name}".encode())
        yield name
        owner.execute(f"DROP OWNED BY {name}".encode())
        owner.execute(f"DROP ROLE {name}".encode())


def do(database_url: str, statement: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(statement.encode())


def refused(
    shell: Shell, check: str, *, found: str, fix: str, commands: tuple[str, ...], **settings: str
) -> None:
    """Assert that `doctor` fails with a finding, and each command in one sentence that says the same."""
    ended = shell.run("doctor", "--json", **settings)
    assert ended.code == 1
    [finding] = [each for each in ended.json["findings"] if each["check"] == check]
    assert finding["grade"] == "FAIL"
    assert found in finding["found"]
    assert fix in finding["fix"]
    for command in commands:
        ended = shell.run(command, **settings)
        assert ended.code == 1, command
        assert found in ended.told
        assert fix in ended.told
        assert "Traceback" not in ended.err


def test_a_standby(shell: Shell) -> None:
    home = Path(tempfile.mkdtemp(prefix="bibwire-standby-", dir="/tmp"))
    home.chmod(0o755)
    try:
        with embedded.start(home) as server:
            migrate.upgrade(server.conninfo)
        data = home / "postgres" / "data"
        (data / "standby.signal").touch()
        with embedded.start(home) as standby:
            refused(
                shell,
                "changes",
                found="is a standby",
                fix="name the primary server in BIBWIRE_DATABASE_URL",
                commands=("init", "run"),
                DATABASE_URL=standby.conninfo,
            )
    finally:
        shutil.rmtree(home)


def test_a_role_that_may_not_make_temporary_tables(shell: Shell, role: str, database_url: str) -> None:
    name = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]
    do(database_url, f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC")

    refused(
        shell,
        "temporary tables",
        found="may not make temporary tables",
        fix=f'GRANT TEMPORARY ON DATABASE "{name}" TO "{role}"',
        commands=("init", "sync"),
        DATABASE_URL=psycopg.conninfo.make_conninfo(database_url, user=role),
    )
    do(database_url, f"GRANT TEMPORARY ON DATABASE {name} TO {role}")
    assert shell.run("init", DATABASE_URL=psycopg.conninfo.make_conninfo(database_url, user=role)).code == 0


def test_tables_of_another_owner(shell: Shell, role: str, database_url: str) -> None:
    owner = psycopg.conninfo.conninfo_to_dict(database_url)["user"]
    do(database_url, f"REVOKE ALL ON ALL TABLES IN SCHEMA bibwire FROM {role}")
    do(database_url, f"GRANT SELECT ON ALL TABLES IN SCHEMA bibwire TO {role}")

    refused(
        shell,
        "tables",
        found=f"belong to {owner}",
        fix=f'GRANT "{owner}" TO "{role}"',
        commands=("init", "sync"),
        DATABASE_URL=psycopg.conninfo.make_conninfo(database_url, user=role),
    )


def test_a_role_that_may_not_even_look(shell: Shell, role: str, database_url: str) -> None:
    do(database_url, f"REVOKE ALL ON SCHEMA bibwire FROM {role}")
    address = psycopg.conninfo.make_conninfo(database_url, user=role)

    ended = shell.run("init", DATABASE_URL=address)
    doctor = shell.run("doctor", DATABASE_URL=address)

    assert ended.code == 1
    assert (
        ended.told == "PostgreSQL denies access: permission denied for schema bibwire. Run: bibwire doctor."
    )
    assert doctor.code == 1
    assert "FAIL tables: bibwire" in doctor.out


def test_a_role_that_may_not_make_a_schema(shell: Shell, role: str, empty_database_url: str) -> None:
    address = psycopg.conninfo.make_conninfo(empty_database_url, user=role)

    ended = shell.run("init", DATABASE_URL=address)
    doctor = shell.run("doctor", DATABASE_URL=address)

    assert ended.code == 1
    assert "permission denied for database" in ended.told
    assert doctor.code == 1
    assert "fix: GRANT CREATE ON DATABASE" in doctor.out
