"""
Moving in from the original: partners and keys come over, its database stays as it is, nothing leaks.

The original is built from our script with the content such databases have: names with spaces, a key
that is refused, duplicates, rows without id or partner, people who left, secrets in clear text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

import rsusim
from tests.cli.conftest import Ended, Shell
from tests.cli.test_partner import everything_stored
from tests.pooler import needs_pgbouncer, pooled

SCHEMA = Path(__file__).with_name("original.sql")
PASSWORD = "hunter2-access-password"
OTHER_SECRET = "chronotrack-secret-123456"
DSN_PASSWORD = "dsn-password-77"
REFUSED_KEY = "WrongKeyWrongKeyWrong99"
TABLES = (
    "timing_partners",
    "providers",
    "partner_provider_credentials",
    "runsignup_races",
    "runsignup_events",
    "runsignup_participants",
    "sync_history",
)
MONITORING = "SELECT COUNT(*), COUNT(DISTINCT timing_partner_id) FROM runsignup_participants"


def content(conninfo: str, schemas: tuple[str, ...] = ("public",)) -> str:
    """Every row of every table and the last value of every sequence, in order."""
    with psycopg.connect(conninfo) as connection:
        kinds: dict[str, str] = dict(
            connection.execute(
                "SELECT format('%%I.%%I', n.nspname, c.relname), c.relkind::text FROM pg_class AS c"
                " JOIN pg_namespace AS n ON n.oid = c.relnamespace"
                " WHERE n.nspname = ANY (%s) AND c.relkind IN ('r', 'S')"
                # Whoever calls RunSignup takes a place for it, and gives it back.
                " AND c.relname <> 'call_places' ORDER BY 1",
                (list(schemas),),
            ).fetchall()
        )
        assert kinds
        found: list[Any] = []
        for name, kind in kinds.items():
            if kind == "S":
                query = f"SELECT last_value, is_called FROM {name}"
                found.append((name, connection.execute(query.encode()).fetchone()))
                continue
            with connection.cursor().copy(
                f"COPY (SELECT * FROM {name} AS t ORDER BY t::text) TO STDOUT".encode()
            ) as copy:
                found.append((name, b"".join(bytes(block) for block in copy)))
    return repr(found)


@dataclass
class Old:
    """The original's database."""

    conninfo: str
    rows: int = 0

    @property
    def dsn(self) -> str:
        return self.conninfo

    def run(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            cursor = connection.execute(query.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def partner(self, number: int, name: str, password: str | None = None) -> None:
        self.run("INSERT INTO timing_partners VALUES (%s, %s, %s)", number, name, password)

    def credential(
        self,
        number: int,
        partner: int | None,
        principal: str | None,
        secret: str | None,
        *,
        provider: int = 2,
        kind: str | None = "api_key",
        config: Any = None,
    ) -> None:
        self.run(
            "INSERT INTO partner_provider_credentials VALUES (%s, %s, %s, %s, %s, %s, %s)",
            *(number, provider, partner, principal, secret, kind, None if config is None else Jsonb(config)),
        )

    def registration(
        self, partner: int | None, event: int | None, number: int | None, key: str | None
    ) -> None:
        self.run(
            "INSERT INTO runsignup_participants (race_id, event_id, registration_id, first_name, bib_num,"
            " registration_date, credentials_used, timing_partner_id)"
            " VALUES (1, %s, %s, 'Ada', '12', '2026-01-02 03:04', %s, %s)",
            *(event, number, key, partner),
        )
        self.rows += 1


@pytest.fixture
def old(embedded_server: str) -> Iterator[Old]:
    """An empty original in a database of its own."""
    name = "original_under_test"
    with psycopg.connect(embedded_server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0".encode())
        conninfo = psycopg.conninfo.make_conninfo(embedded_server, dbname=name)
        original = Old(conninfo)
        original.run(SCHEMA.read_text("utf-8"))
        original.run(
            "INSERT INTO providers VALUES (1, 'ChronoTrack', NULL, NULL, 2000),"
            " (2, 'RunSignUp', 'registration', 'https://runsignup.com/REST', 700),"
            " (3, 'Haku', NULL, NULL, -5)"
        )
        yield original
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@dataclass
class Moved:
    """What the filled original holds, by what is to come of it."""

    active: dict[int, int]
    ghost: int
    lacking: int


@pytest.fixture
def filled(old: Old, world: rsusim.World, shell: Shell) -> Moved:
    """
    Number 7 is Peak Timing, 4 Lakeside, 9 has a key that is refused, 11 no RunSignup key, 12 no name.

    Peak's rows: everybody active in its live events but one, one of them three times, one without
    an id, one who left, and one of an event of years ago.
    """
    peak, lake = world.accounts["Peak Timing"], world.accounts["Lakeside Race Services"]
    shell.secrets += [PASSWORD, OTHER_SECRET, DSN_PASSWORD, REFUSED_KEY, "refused-secret-000"]
    old.partner(7, "  Peak Timing ", PASSWORD)
    old.partner(4, "Lakeside Race Services")
    old.partner(9, "Gone Timing Co.")
    old.partner(11, "Other Provider Only")
    old.partner(12, "   ")
    old.credential(31, 7, f" {peak.api_key} ", peak.api_secret, kind=None)
    old.credential(32, 4, lake.api_key, lake.api_secret, config={"note": "none"})
    old.credential(33, 9, REFUSED_KEY, "refused-secret-000")
    old.credential(34, 11, "someone@example.com", OTHER_SECRET, provider=1)
    old.credential(35, 12, "client-id-0123456789", "refused-secret-000", kind="oauth")
    active = {
        registration.registration_id: event.event_id
        for race in world.truth(peak)
        for event in race.events
        if event.current and event.starts_at > world.clock.time()
        for registration in event.active
    }
    lacking, twice, *_ = active
    for number, event in active.items():
        if number != lacking:
            old.registration(7, event, number, peak.api_key)
    for _ in range(2):
        old.registration(7, active[twice], twice, peak.api_key)
    old.registration(7, active[twice], None, peak.api_key)
    old.registration(7, active[twice], 5, peak.api_key)
    old.registration(7, 600_001, 6, None)
    old.registration(None, active[twice], 8, None)
    old.registration(99, active[twice], 9, None)
    return Moved(active, ghost=5, lacking=lacking)


def adopt(shell: Shell, old: Old, *options: str) -> Ended:
    return shell.run("adopt", "--from", old.dsn, *options)


def by_number(ended: Ended) -> dict[int, Any]:
    return {each["timing_partner_id"]: each for each in ended.json["partners"]}


def test_partners_and_keys_come_over_and_one_bad_key_stops_no_other(
    shell: Shell, old: Old, filled: Moved, world: rsusim.World
) -> None:
    before = content(old.conninfo)

    ended = adopt(shell, old, "--json")

    assert ended.code == 3, ended.err
    assert "only a part could be taken over" in ended.told
    found = by_number(ended)
    assert {number: each["outcome"] for number, each in found.items()} == {
        4: "added",
        7: "added",
        9: "not taken over",
        11: "no RunSignup key",
        12: "not taken over",
    }
    assert "refuse" in found[9]["why"] or "key" in found[9]["why"]
    assert found[12]["why"] == "its name is blank"
    peak = world.accounts["Peak Timing"]
    assert (found[7]["fingerprint"], found[7]["races"], found[7]["calls_per_hour"]) == (
        peak.api_key[-4:],
        2,
        700,
    )
    partners = {each["name"]: each for each in shell.run("partner", "list", "--json").json["partners"]}
    assert partners.keys() == {"Peak Timing", "Lakeside Race Services"}
    assert all(each["verified_at"] and each["calls_per_hour"] == 700 for each in partners.values())
    assert shell.run("sync").code == 0
    assert content(old.conninfo) == before


@needs_pgbouncer
def test_the_original_may_stand_behind_a_pooler(shell: Shell, old: Old, filled: Moved) -> None:
    before = content(old.conninfo)
    with pooled(old.conninfo, "transaction") as address:
        ended = shell.run("adopt", "--from", address, "--json")

    assert ended.code == 3, ended.err
    assert {each["partner"] for each in ended.json["partners"] if each["outcome"] == "added"} == {*ADOPTED}
    assert content(old.conninfo) == before


def test_a_second_run_changes_nothing(shell: Shell, old: Old, filled: Moved, database_url: str) -> None:
    adopt(shell, old, "--zone", "America/Denver")
    ours, theirs = content(database_url, OURS), content(old.conninfo)

    again = adopt(shell, old, "--zone", "America/Denver", "--json")

    assert {each["outcome"] for each in again.json["partners"] if each["partner"] in ADOPTED} == {
        "already here"
    }
    assert content(database_url, OURS) == ours
    assert content(old.conninfo) == theirs


OURS = ("bibwire", "bibwire_compat", "bibwire_jobs")
ADOPTED = ("Peak Timing", "Lakeside Race Services")


def test_a_dry_run_tells_all_and_writes_nothing(
    shell: Shell, old: Old, filled: Moved, database_url: str
) -> None:
    ours, theirs = content(database_url, OURS), content(old.conninfo)

    ended = adopt(shell, old, "--dry-run", "--json", "--zone", "America/Denver")

    assert ended.code == 3
    assert ended.json["dry_run"] is True
    assert [each["outcome"] for each in ended.json["partners"] if each["partner"] in ADOPTED] == [
        "would be added"
    ] * 2
    assert by_number(ended)[7]["races"] == 2
    assert content(database_url, OURS) == ours
    assert content(old.conninfo) == theirs


def test_a_dry_run_makes_no_tables_and_no_database(bare: Shell, old: Old, embedded_server: str) -> None:
    with psycopg.connect(embedded_server, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS never_ours")
        connection.execute("CREATE DATABASE never_ours TEMPLATE template0")
        url = psycopg.conninfo.make_conninfo(embedded_server, dbname="never_ours")

        on_server = bare.run("adopt", "--from", old.dsn, "--dry-run", DATABASE_URL=url)
        embedded = bare.run("adopt", "--from", old.dsn, "--dry-run", DATABASE_URL=None)

        with psycopg.connect(url) as ours:
            assert ours.execute("SELECT to_regnamespace('bibwire')").fetchone() == (None,)
        connection.execute("DROP DATABASE never_ours")
    assert (on_server.code, embedded.code) == (1, 1)
    assert "run bibwire init" in on_server.told
    assert "run bibwire init" in embedded.told
    assert not bare.home.exists()


def test_what_the_rows_are_worth_is_told_once_the_races_are_loaded(
    shell: Shell, old: Old, filled: Moved
) -> None:
    first = by_number(adopt(shell, old, "--json"))[7]["rows"]
    assert (first["compared"], first["ghosts"], first["lacking"]) == (0, None, None)
    assert shell.run("sync").code == 0

    ended = adopt(shell, old, "--json")

    there = len(filled.active) - 1
    assert by_number(ended)[7]["rows"] == {
        "rows": there + 5,
        "trusted": there + 1,  # the one of the event of years ago is not compared
        "duplicates": 2,
        "null_registration_ids": 1,
        "compared": there + 1,
        "not_compared": 1,
        "ghosts": 1,
        "lacking": 1,
    }
    assert ended.json["rows_without_partner"] == 2
    assert "not compared yet: run bibwire sync" in ended.json["notes"][0]
    shown = adopt(shell, old).out
    assert "2 rows of no partner" in shown
    assert "not compared yet: run bibwire sync" in shown


def test_secrets_that_remain_are_named_and_not_shown(
    shell: Shell, old: Old, filled: Moved, database_url: str, world: rsusim.World
) -> None:
    ended = adopt(shell, old, "--json")
    shown = adopt(shell, old)

    named = {
        (each["where"], each["timing_partner_id"], each["credential_id"]) for each in ended.json["secrets"]
    }
    assert named == {
        *(("partner_provider_credentials", partner, number) for partner, number in OWNERS.items()),
        ("timing_partners.access_password", 7, None),
        ("runsignup_participants.credentials_used", 7, 31),
    }
    [noted] = [each for each in ended.json["secrets"] if each["where"].startswith("runsignup_part")]
    assert noted["fingerprint"] == world.accounts["Peak Timing"].api_key[-4:]
    assert noted["rows"] == old.rows - 3
    assert "In clear text in the original, still" in shown.out
    stored = everything_stored(database_url)
    # Standard output and error were looked through by the shell.
    assert [secret for secret in shell.secrets if secret in stored] == []


OWNERS = {7: 31, 4: 32, 9: 33, 11: 34, 12: 35}


@pytest.mark.every_postgres
def test_the_owner_s_monitoring_query_counts_people_once_and_nobody_who_left(
    shell: Shell, old: Old, filled: Moved, database_url: str, world: rsusim.World
) -> None:
    assert old.run(MONITORING)[0][0] == old.rows
    adopt(shell, old)
    shell.run("sync")
    world.remove(next(iter(filled.active)))
    shell.run("sync")

    live = {
        (account, registration.registration_id)
        for account in ADOPTED
        for race in world.truth(account)
        for event in race.events
        if event.current and event.starts_at > world.clock.time()
        for registration in event.active
    }
    with psycopg.connect(database_url) as ours:
        ours.execute("SET search_path = bibwire_compat")
        assert ours.execute(MONITORING.encode()).fetchone() == (len(live), 2)
        assert ours.execute("SELECT DISTINCT timing_partner_id FROM runsignup_events").fetchall() != []
        names = "SELECT timing_partner_id, company_name FROM timing_partners ORDER BY 1"
        assert ours.execute(names.encode()).fetchall() == [(4, ADOPTED[1]), (7, ADOPTED[0])]
        secret = "SELECT count(*), count(principal), count(secret) FROM partner_provider_credentials"
        assert ours.execute(secret.encode()).fetchone() == (2, 0, 0)
        joined = (
            "SELECT count(*) FROM runsignup_participants JOIN runsignup_events USING (event_id)"
            " JOIN runsignup_races ON runsignup_races.race_id = runsignup_events.race_id"
        )
        assert ours.execute(joined.encode()).fetchone() == (len(live),)
        assert ours.execute("SELECT count(*) FROM unified_participants").fetchone() == (len(live),)
        # No command gives a partner another name: it is the table's word that the view passes on.
        ours.execute("UPDATE bibwire.partners SET name = 'Peak & Sons' WHERE name = 'Peak Timing'")
        assert ours.execute(names.encode()).fetchall()[1] == (7, "Peak & Sons")


def test_a_dashboard_s_role_needs_its_search_path_and_no_right_on_the_mirror(
    shell: Shell, old: Old, filled: Moved, database_url: str
) -> None:
    adopt(shell, old)
    shell.run("sync")
    with psycopg.connect(database_url, autocommit=True) as ours:
        ours.execute("CREATE ROLE dashboard LOGIN")
        try:
            ours.execute("GRANT USAGE ON SCHEMA bibwire_compat TO dashboard")
            ours.execute("GRANT SELECT ON ALL TABLES IN SCHEMA bibwire_compat TO dashboard")
            ours.execute("ALTER ROLE dashboard SET search_path = bibwire_compat")
            url = psycopg.conninfo.make_conninfo(database_url, user="dashboard")
            with psycopg.connect(url, autocommit=True) as theirs:
                [(rows, partners)] = theirs.execute(MONITORING.encode()).fetchall()
                assert rows > 0
                assert partners == 2
                for table in (*TABLES, "unified_participants", "unified_events"):
                    assert theirs.execute(f"SELECT * FROM {table}".encode()).fetchall() != []
                for refused in ("SELECT * FROM bibwire.credentials", "DELETE FROM timing_partners"):
                    with pytest.raises(psycopg.Error):
                        theirs.execute(refused.encode())
        finally:
            ours.execute("DROP OWNED BY dashboard")
            ours.execute("DROP ROLE dashboard")


def test_the_original_s_own_database_can_be_ours_and_its_tables_stay(
    shell: Shell, old: Old, filled: Moved
) -> None:
    before = content(old.conninfo)
    shell.environment["BIBWIRE_DATABASE_URL"] = old.conninfo

    assert shell.run("init").code == 0
    assert adopt(shell, old).code == 3
    assert shell.run("sync").code == 0

    assert content(old.conninfo) == before
    assert old.run("SELECT company_name FROM bibwire_compat.timing_partners WHERE timing_partner_id = 7") == [
        ("Peak Timing",)
    ]


def test_a_password_that_is_a_common_word_blots_out_no_message(shell: Shell, old: Old) -> None:
    old.partner(1, "One", "name")
    old.partner(2, "  ", "is")

    found = by_number(adopt(shell, old, "--json"))

    assert found[2]["why"] == "its name is blank"


@pytest.mark.every_postgres
def test_every_column_of_the_original_is_there_with_its_type(old: Old, database_url: str) -> None:
    columns = (
        "SELECT table_name::text, column_name::text, data_type::text FROM information_schema.columns"
        " WHERE table_schema = '{}' AND table_name NOT IN ('settings', 'numbers')"
    )
    theirs = set(old.run(columns.format("public")))
    with psycopg.connect(database_url) as ours:
        there = set(ours.execute(columns.format("bibwire_compat").encode()).fetchall())

    assert {table for table, _, _ in theirs} == {*TABLES, "unified_participants", "unified_events"}
    assert theirs - there == set()


@pytest.mark.every_postgres
def test_the_views_hold_what_was_sent_in_the_zone_that_was_set(
    shell: Shell, old: Old, filled: Moved, database_url: str
) -> None:
    adopt(shell, old, "--zone", "America/Denver")
    shell.run("sync")
    with psycopg.connect(database_url) as ours:
        ours.execute("SET search_path = bibwire_compat; SET TimeZone = 'Asia/Tokyo'")
        events = (
            "SELECT count(*), count(*) FILTER"
            " (WHERE v.start_time = e.starts_at AT TIME ZONE 'America/Denver'),"
            " count(v.registration_opens), count(v.require_dob), count(v.distance)"
            " FROM runsignup_events AS v JOIN bibwire.events AS e ON e.event_id = v.event_id"
            " AND e.partner_id = "
            " (SELECT min(o.partner_id) FROM bibwire.events AS o WHERE o.event_id = e.event_id)"
        )
        count, *held, distances = ours.execute(events.encode()).fetchone() or ()
        assert count > 0
        assert held == [count] * 3
        assert distances > 0
        races = "SELECT count(*), count(created), count(last_date), count(is_draft_race) FROM runsignup_races"
        count, created, _, drafts = ours.execute(races.encode()).fetchone() or ()
        assert count == created == drafts == 3
        people = (
            "SELECT count(*) FILTER "
            " (WHERE registration_date IS NULL OR last_modified IS NULL OR payment_info IS NULL),"
            " count(*) FILTER (WHERE bib_num !~ '^[0-9]+$'), "
            " max(payment_info ->> 'transaction_id') IS NOT NULL"
            " FROM runsignup_participants"
        )
        assert ours.execute(people.encode()).fetchone() == (0, 0, True)
        runs = "SELECT DISTINCT status, sync_direction, provider_id FROM sync_history"
        assert ours.execute(runs.encode()).fetchall() == [("success", "pull", 2)]


def test_a_partner_with_another_key_is_reported_and_left_alone(
    shell: Shell, old: Old, filled: Moved, world: rsusim.World, database_url: str
) -> None:
    adopt(shell, old)
    peak = world.accounts["Peak Timing"]
    rotate = ("partner", "rotate", "Peak Timing", "--kind", "v2", "--api-key", peak.v2_key, "--secret-stdin")
    assert shell.run(*rotate, "--yes", stdin=peak.v2_secret).code == 0
    before = content(database_url, OURS)

    ended = adopt(shell, old, "--json")

    found = by_number(ended)[7]
    assert (found["outcome"], found["kind"]) == ("here with another key", "v2")
    assert content(database_url, OURS) == before


def test_each_kind_of_key_that_can_be_mapped_is_and_a_key_goes_to_one_partner(
    shell: Shell, old: Old, world: rsusim.World
) -> None:
    peak, lake = world.accounts["Peak Timing"], world.accounts["Lakeside Race Services"]
    for number, name in enumerate(("One", "Two", "Three", "Four", "Five", "Six"), 1):
        old.partner(number, name)
    old.credential(1, 1, peak.v2_key, peak.v2_secret, config={"kind": "v2"})
    old.credential(2, 2, "client", None, kind="oauth", config={"access_token": lake.bearer_token})
    old.credential(3, 3, peak.v2_key, peak.v2_secret, kind="V2")
    old.credential(4, 4, lake.api_key, None)
    old.credential(5, 5, lake.api_key, lake.api_secret, provider=3)
    old.run("UPDATE providers SET name = 'Run Signup (old)' WHERE provider_id = 3")
    old.credential(6, 6, peak.api_key, "nonsense-secret-42")
    old.credential(7, 6, "nonsense-key-424242", "nonsense-secret-42", kind="basic_auth")

    found = by_number(adopt(shell, old, "--json"))

    assert [(number, each["outcome"], each["kind"]) for number, each in sorted(found.items())][:5] == [
        (1, "added", "v2"),
        (2, "added", "bearer"),
        (3, "not taken over", "v2"),
        (4, "not taken over", None),
        (5, "added", "key"),
    ]
    assert "One has this key already" in found[3]["why"]
    assert found[4]["why"] == "credential 4: its API secret (secret) is empty"
    assert found[5]["calls_per_hour"] == 1000  # -5 is no limit
    assert found[6]["outcome"] == "not taken over"
    assert "credential 7: its credential_type" in found[6]["why"]


def test_of_two_partners_of_one_name_the_first_with_a_key_is_taken_and_again_so(
    shell: Shell, old: Old, world: rsusim.World
) -> None:
    peak, lake = world.accounts["Peak Timing"], world.accounts["Lakeside Race Services"]
    for number, name in enumerate(("Peak", " Peak", "Peak ", "peak"), 1):
        old.partner(number, name)
    for number, account in ((2, peak), (3, lake), (4, lake)):
        old.credential(number, number, account.api_key, account.api_secret)

    for first in ("added", "already here"):
        ended = adopt(shell, old, "--json")
        found = by_number(ended)
        assert ended.code == 3
        assert [found[number]["outcome"] for number in (1, 2, 3, 4)] == [
            "no RunSignup key",
            first,
            "not taken over",
            "not taken over",
        ]
        assert found[3]["why"] == "number 2 of the original has the same name"
        assert "too much like" in found[4]["why"]


def test_nothing_that_can_be_taken_over_is_exit_code_1(shell: Shell, old: Old) -> None:
    ended = adopt(shell, old)
    assert (ended.code, "nothing could be taken over" in ended.told) == (1, True)

    old.partner(1, "One")
    old.credential(1, 1, REFUSED_KEY, "refused-secret-000")
    ended = adopt(shell, old)
    assert (ended.code, "nothing could be taken over: One" in ended.told) == (1, True)

    old.run("UPDATE providers SET name = 'Nobody' WHERE provider_id = 2")
    ended = adopt(shell, old)
    assert (ended.code, "no partner there has a RunSignup key" in ended.told) == (1, True)


@pytest.mark.parametrize(
    ("dsn", "code", "told"),
    [
        (f"mysql://u:{DSN_PASSWORD}@h/d", 2, "address cannot be read"),
        (f"u {DSN_PASSWORD}", 2, "address cannot be read"),
        (" ", 2, "Name the database"),
        (f"postgresql://u:{DSN_PASSWORD}@127.0.0.1:1/d", 1, "original's database cannot be used"),
        (f"postgresql://u:x@{DSN_PASSWORD}@127.0.0.1:1/d", 1, "original's database cannot be used"),
        (f"host=127.0.0.1 port=1 password={DSN_PASSWORD}", 1, "original's database cannot be used"),
    ],
)
def test_a_wrong_address_is_one_sentence_and_nothing_is_made(
    bare: Shell, dsn: str, code: int, told: str
) -> None:
    bare.secrets.append(DSN_PASSWORD)
    for ended in (
        bare.run("adopt", "--from", dsn, DATABASE_URL=None),
        bare.run("adopt", DATABASE_URL=None, ADOPT_FROM=dsn),
    ):
        assert ended.out == ""
        assert "Traceback" not in ended.err
        assert ended.code in (code, 2)
        assert bare.run("adopt", "--from", dsn, DATABASE_URL=None).code == code
    assert told in bare.run("adopt", "--from", dsn, DATABASE_URL=None).told
    assert not bare.home.exists()


@pytest.mark.parametrize("dsn", [f"postgresql://u:{DSN_PASSWORD}@h/d", f"host=h password={DSN_PASSWORD}"])
def test_an_address_in_the_wrong_place_is_not_repeated(bare: Shell, dsn: str) -> None:
    bare.secrets.append(DSN_PASSWORD)

    assert bare.run("adopt", dsn).code == 2
    assert bare.run("adopt", "--form", dsn).code == 2


@pytest.mark.parametrize("table", TABLES[:3] + TABLES[5:6])
def test_a_missing_table_is_named_and_nothing_is_written(
    shell: Shell, old: Old, filled: Moved, database_url: str, table: str
) -> None:
    before = content(database_url, OURS)
    old.run(f"DROP TABLE {table} CASCADE")

    ended = adopt(shell, old)

    assert (ended.code, ended.out) == (2, "")
    assert f"it has no table {table}." in ended.told
    assert content(database_url, OURS) == before


def test_a_missing_column_and_a_missing_right_are_named(shell: Shell, old: Old, filled: Moved) -> None:
    old.run("CREATE ROLE reader_of_nothing LOGIN")
    try:
        dsn = psycopg.conninfo.make_conninfo(old.conninfo, user="reader_of_nothing")
        ended = shell.run("adopt", "--from", dsn)
        assert ended.code == 1
        assert "does not let this user read" in ended.told
    finally:
        old.run("DROP ROLE reader_of_nothing")
    old.run("ALTER TABLE partner_provider_credentials DROP COLUMN secret")

    ended = adopt(shell, old)

    assert ended.code == 2
    assert "it has no column partner_provider_credentials.secret." in ended.told


def test_columns_that_later_versions_added_need_not_be_there(shell: Shell, old: Old, filled: Moved) -> None:
    old.run(
        "ALTER TABLE partner_provider_credentials DROP COLUMN credential_type, DROP COLUMN additional_config"
    )
    old.run("ALTER TABLE timing_partners DROP COLUMN access_password")
    old.run("ALTER TABLE providers DROP COLUMN rate_limit_per_hour")
    old.run("DROP TABLE sync_history, runsignup_races")

    found = by_number(adopt(shell, old, "--json"))

    assert (found[7]["outcome"], found[7]["calls_per_hour"]) == ("added", 1000)


def test_an_unknown_zone_is_refused_and_a_known_one_needs_no_original(
    shell: Shell, old: Old, filled: Moved, database_url: str
) -> None:
    before = content(database_url, OURS)
    for zone in ("Mars/Olympus", "", "localtime", "America"):
        ended = adopt(shell, old, "--zone", zone)
        assert (ended.code, ended.out) == (2, "")
        assert "--zone has to be one like" in ended.told
    assert content(database_url, OURS) == before

    assert shell.run("adopt", "--zone", "Europe/London", "--json").json == {
        "dry_run": False,
        "zone": "Europe/London",
    }
    with psycopg.connect(database_url) as ours:
        assert ours.execute("SELECT zone FROM bibwire_compat.settings").fetchone() == ("Europe/London",)
    assert "--from postgresql://" in shell.run("adopt").told


def test_the_address_is_read_from_the_environment(shell: Shell, old: Old, filled: Moved) -> None:
    dsn = psycopg.conninfo.make_conninfo(old.conninfo, password=DSN_PASSWORD)

    assert shell.run("adopt", "--json", ADOPT_FROM=dsn).code == 3


def test_a_vendor_that_does_not_answer_is_told_and_nothing_is_stored(
    shell: Shell, old: Old, filled: Moved
) -> None:
    shell.environment["BIBWIRE_API_URL"] = "http://127.0.0.1:9/rest"

    ended = adopt(shell, old, "--json")

    assert ended.code == 1
    assert "not asked, because RunSignup does not answer" in by_number(ended)[9]["why"]
    assert shell.run("partner", "list", "--json").json == {"partners": []}
