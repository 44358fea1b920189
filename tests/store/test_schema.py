"""The tables are what readers were promised, every statement fits them, and migrations are whole or not."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import psycopg
import pytest

from bibwire.domain.errors import DatabaseUnavailable
from bibwire.store import migrate
from bibwire.store.database import statements
from tests import children
from tests.waiting import PATIENCE_SECONDS

# design.md section 5: names readers may rely on.
PROMISED = {
    "partners": "partner_id name created_at paused_at",
    "credentials": "credential_id partner_id kind fingerprint calls_per_hour verified_at failing_since",
    "races": "partner_id race_id name timezone url address next_date last_modified_at additional_data"
    " access_lost_at removed_at",
    "events": "partner_id event_id race_id name starts_at ends_at distance distance_m event_type"
    " additional_data removed_at",
    "participants": "partner_id registration_id race_id event_id user_id first_name middle_name last_name"
    " email phone dob gender age address city state country_code bib_num chip_num registered_at"
    " last_modified_at team_info payment_info additional_data first_seen_at changed_at removed_at"
    " removed_reason new_registration_id",
    "teams": "partner_id team_id race_id event_id name team_type_id gender bib_num member_count"
    " last_modified_at additional_data first_seen_at changed_at missing_since",
    "changes": "partner_id seq race_id event_id registration_id kind fields modified_at seen_at",
    "bib_changes": "partner_id seq race_id event_id registration_id bib_from bib_to modified_at seen_at",
    "freshness": "partner_id race_id as_of age_seconds target_seconds failing_since last_error",
    "sync_history": "run_id partner_id race_id kind started_at finished_at outcome calls rows_inserted"
    " rows_updated rows_unchanged rows_removed rows_quarantined error",
    "quarantine": "partner_id source reason raw first_seen_at last_seen_at times",
}
KEYS = {
    "partners": ["partner_id"],
    "credentials": ["credential_id"],
    "races": ["partner_id", "race_id"],
    "events": ["partner_id", "event_id"],
    "participants": ["partner_id", "registration_id"],
    "teams": ["partner_id", "team_id"],
    "changes": ["partner_id", "seq"],
    "sync_history": ["run_id"],
}
STEMS = sorted(
    Path(file.name).stem
    for file in (resources.files("bibwire.store") / "sql").iterdir()
    if file.name.endswith(".sql")
)
TABLES = """
    SELECT c.oid, c.relname
    FROM pg_class AS c
    WHERE c.relnamespace IN ('bibwire'::regnamespace, 'bibwire_compat'::regnamespace)
      AND c.relkind IN ('r', 'v', 'm', 'p')
    ORDER BY c.relname
"""


def rows(conninfo: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        return connection.execute(query.encode()).fetchall()


def with_numbers(statement: str) -> str:
    """Return a statement with $1, $2 in place of its named parameters."""
    for number, name in enumerate(dict.fromkeys(re.findall(r"%\((\w+)\)s", statement)), 1):
        statement = statement.replace(f"%({name})s", f"${number}")
    return statement.replace("%%", "%")


def objects(conninfo: str) -> list[tuple[object, ...]]:
    """Return everything in the database that is not PostgreSQL's own."""
    return rows(
        conninfo,
        """
        SELECT 'schema', nspname::text FROM pg_namespace WHERE nspname !~ '^(pg_|information_schema|public$)'
        UNION ALL
        SELECT c.relkind::text, c.oid::regclass::text FROM pg_class AS c
        JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname !~ '^(pg_|information_schema)'
        UNION ALL
        SELECT 'function', p.oid::regprocedure::text FROM pg_proc AS p
        JOIN pg_namespace AS n ON n.oid = p.pronamespace
        WHERE n.nspname !~ '^(pg_|information_schema)'
        ORDER BY 1, 2
        """,
    )


@pytest.mark.every_postgres
def test_every_table_and_column_has_a_comment(database_url: str) -> None:
    without = rows(
        database_url,
        f"""
        SELECT t.relname, a.attname
        FROM ({TABLES}) AS t
        CROSS JOIN LATERAL (
            SELECT '' AS attname, 0 AS attnum
            UNION ALL
            SELECT attname, attnum FROM pg_attribute
            WHERE attrelid = t.oid AND attnum > 0 AND NOT attisdropped
        ) AS a
        WHERE coalesce(
            CASE WHEN a.attnum = 0 THEN obj_description(t.oid) ELSE col_description(t.oid, a.attnum) END, ''
        ) = ''
        """,
    )

    assert without == []
    assert len(rows(database_url, TABLES)) >= len(PROMISED)


def test_what_readers_were_promised_is_there(database_url: str) -> None:
    there: dict[object, set[object]] = {}
    for table, column in rows(
        database_url,
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'bibwire'",
    ):
        there.setdefault(table, set()).add(column)

    missing = {table: set(names.split()) - there.get(table, set()) for table, names in PROMISED.items()}
    assert {table: names for table, names in missing.items() if names} == {}


@pytest.mark.every_postgres
def test_every_key_is_the_promised_one(database_url: str) -> None:
    found = rows(
        database_url,
        """
        SELECT c.conrelid::regclass::text, array_agg(a.attname::text ORDER BY k.place)
        FROM pg_constraint AS c
        CROSS JOIN LATERAL unnest(c.conkey) WITH ORDINALITY AS k (attnum, place)
        JOIN pg_attribute AS a ON a.attrelid = c.conrelid AND a.attnum = k.attnum
        WHERE c.contype = 'p' AND c.connamespace = 'bibwire'::regnamespace
        GROUP BY c.oid
        """,
    )

    keys = {str(table).removeprefix("bibwire."): key for table, key in found}
    assert {table: keys.get(table) for table in KEYS} == KEYS


@pytest.mark.every_postgres
@pytest.mark.parametrize("stem", STEMS)
def test_every_statement_fits_the_schema(database_url: str, stem: str) -> None:
    named = statements(stem)
    assert named, "the file holds no statement that can be named"

    with psycopg.connect(database_url, autocommit=True) as connection:
        if stem == "original":  # written for the original's tables, of which there are views
            connection.execute("SET search_path = bibwire_compat")
        for name in sorted(named, key=lambda name: not name.startswith("make_")):
            text = named[name]
            verb = re.sub(r"--.*", "", text).split()[0]
            if verb == "COPY":
                with connection.cursor().copy(text):
                    pass
            elif verb == "CREATE":
                connection.execute(text)
            else:
                connection.execute(f"PREPARE {stem}_{name} AS {with_numbers(text)}".encode())


@pytest.mark.every_postgres
def test_a_second_upgrade_changes_nothing(empty_database_url: str) -> None:
    assert migrate.upgrade(empty_database_url) is True
    once = objects(empty_database_url)
    [before] = rows(empty_database_url, "SELECT xmin::text, version_num FROM bibwire.schema_version")

    assert migrate.upgrade(empty_database_url) is False

    assert objects(empty_database_url) == once
    assert [before] == rows(empty_database_url, "SELECT xmin::text, version_num FROM bibwire.schema_version")


@pytest.mark.every_postgres
def test_an_error_in_a_migration_leaves_nothing_behind(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = migrate.run_sql_file

    def run_then_fail(name: str) -> None:
        run(name)
        from alembic import op

        op.get_bind().exec_driver_sql("SELECT 1 / 0")

    before = objects(empty_database_url)
    with monkeypatch.context() as patch:
        patch.setattr(migrate, "run_sql_file", run_then_fail)
        with pytest.raises(DatabaseUnavailable, match="nothing was changed: DivisionByZero"):
            migrate.upgrade(empty_database_url)

    assert objects(empty_database_url) == before
    assert migrate.upgrade(empty_database_url) is True


@pytest.mark.every_postgres
def test_a_schema_of_a_newer_program_is_refused_and_left_alone(database_url: str) -> None:
    rows(database_url, "UPDATE bibwire.schema_version SET version_num = '9999' RETURNING 1")
    before = objects(database_url)

    with pytest.raises(DatabaseUnavailable, match="newer Bibwire"):
        migrate.upgrade(database_url)

    assert objects(database_url) == before
    assert rows(database_url, "SELECT version_num FROM bibwire.schema_version") == [("9999",)]


@pytest.mark.every_postgres
def test_a_server_that_is_too_old_is_refused(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "MINIMUM_SERVER_VERSION", 990000)
    before = objects(empty_database_url)

    with pytest.raises(DatabaseUnavailable, match="Bibwire needs 14 or later"):
        migrate.upgrade(empty_database_url)

    assert objects(empty_database_url) == before


def test_a_server_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(DatabaseUnavailable, match="PostgreSQL cannot be used") as caught:
        migrate.upgrade("host=127.0.0.1 port=1 user=nobody dbname=nothing password=hush-hush-42")

    assert "\n" not in str(caught.value)
    assert "hush-hush-42" not in str(caught.value)


@pytest.mark.every_postgres
def test_processes_that_start_at_once_migrate_once(empty_database_url: str) -> None:
    started = [children.start("upgrade", empty_database_url) for _ in range(3)]

    assert [child.communicate(timeout=PATIENCE_SECONDS)[0].strip() for child in started] == ["done"] * 3
    assert rows(empty_database_url, "SELECT version_num FROM bibwire.schema_version") == [(migrate.HEAD,)]


def test_the_newest_migration_is_the_one_the_program_knows() -> None:
    files = [
        file.name
        for file in (resources.files("bibwire.store") / "migrations").iterdir()
        if file.name.endswith(".sql")
    ]

    assert max(files)[:4] == migrate.HEAD
