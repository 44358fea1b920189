"""
No key and no secret leaves Bibwire by any door but the request, whatever goes wrong at the vendor.

Looked through: standard output and error, what is reported, every log line at DEBUG, every column
of every table, and a dump of the database. Looked for: each secret as it is, in part, quoted,
escaped, in hexadecimal and in base64.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

import rsusim
from bibwire import logs
from bibwire.domain.secrets import Credential, Secret
from rsusim.faults import KINDS
from tests.conftest import DEBIAN_15
from tests.house import House
from tests.waiting import PATIENCE_SECONDS

ENCRYPTION_KEY = "c0ffee15deadbeef" * 4
DATABASE_PASSWORD = "canary-Pässword/42"
PART = 10
# Kinds of fault whose answers hold secrets.
ECHOES = ("credentials_echoed", "credentials_in_error", "body", "hostile_rows")
# What stands for the kinds that need a number.
NUMBERED = {"http_<status>": ("http_401", "http_403", "http_302", "http_503"), "error_<code>": ()}
ERRORS = (
    "error_3",
    "error_4",
    "error_6",
    "error_7",
    "error_14",
    "error_17",
    "error_201",
    "error_301",
    "error_999",
)


def secrets_of(world: rsusim.World) -> tuple[str, ...]:
    accounts = world.accounts.values()
    return (
        *(secret for a in accounts for secret in (a.api_key, a.api_secret, a.v2_key, a.v2_secret)),
        *(account.bearer_token for account in accounts),
        world.caller.registration,
        world.caller.secret,
        ENCRYPTION_KEY,
        DATABASE_PASSWORD,
    )


def traces_of(secret: str) -> set[str]:
    """Return what a leak of a secret, or of a part of it, looks like."""
    parts = {secret} | {secret[start : start + PART] for start in range(0, len(secret) - PART + 1, 3)}
    whole = secret.encode()
    return (
        parts
        | {quote(secret, safe=""), json.dumps(secret)[1:-1], whole.hex()}
        | {base64.b64encode(whole[skip:])[: PART * 2].decode() for skip in range(3)}
    )


def leaks(told: str, world: rsusim.World) -> set[str]:
    return {trace for secret in secrets_of(world) for trace in traces_of(secret) if trace in told}


def everything_stored(conninfo: str) -> str:
    """Return every row of every table as text, and a dump where there is a program for it."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        tables = connection.execute(
            "SELECT c.oid::regclass::text FROM pg_class AS c"
            " WHERE c.relnamespace = 'bibwire'::regnamespace AND c.relkind IN ('r', 'v')"
        ).fetchall()
        assert len(tables) > 12
        told = [
            text
            for (table,) in tables
            for (text,) in connection.execute(f"SELECT t::text FROM {table} AS t".encode()).fetchall()
        ]
        is_15 = connection.info.server_version // 10000 == 15
    if is_15:
        dump = subprocess.run(
            [DEBIAN_15 / "pg_dump", "--inserts", "-d", conninfo], check=True, capture_output=True, text=True
        )
        assert "INSERT INTO bibwire.credentials" in dump.stdout
        told.append(dump.stdout)
    return "\n".join(told)


def faults_of(sent: list[str]) -> list[rsusim.Fault]:
    """Return a fault of every kind there is, some of them holding every secret that was sent."""
    every = " ".join(sent)
    rows = [
        json.dumps({"registration_id": 95_000_000, "event_id": 801_001, "user": {"first_name": every}}),
        json.dumps({"registration_id": "R-1", "note": every}),
        json.dumps({"registration_id": 95_000_001, "event_id": 801_001, "x": "\0", every: every}),
        json.dumps({"registration_id": 95_000_002, "removed_reason": every, "last_modified_ts": 1}),
    ]
    special: dict[str, list[rsusim.Fault]] = {
        "hang": [rsusim.Fault(kind="hang", seconds=0.05)],
        "slow": [rsusim.Fault(kind="slow", seconds=0.01)],
        "slow_after_reading": [rsusim.Fault(kind="slow_after_reading", seconds=0.01)],
        "slow_body": [rsusim.Fault(kind="slow_body", seconds=0.01)],
        "http_<status>": [rsusim.Fault(kind=kind, body=every) for kind in NUMBERED["http_<status>"]],
        "error_<code>": [rsusim.Fault(kind=kind) for kind in ERRORS],
        "body": [
            rsusim.Fault(kind="body", status=status, body=body)
            for status in (200, 500)
            for body in (
                json.dumps({"error": {"error_code": 3, "error_msg": every}}),
                json.dumps({"error": f"who is {every}?"}),
                json.dumps({"error": {"error_code": 6, "error_msg": every.replace("/", "\\/")}}),
                json.dumps([{"event": {"event_id": 1, every: every}, "participants": [every]}]),
                f"<html>{quote(every)}</html>",
            )
        ],
        "hostile_rows": [rsusim.Fault(kind="hostile_rows", rows=rows)],
        "quirk": [rsusim.Fault(kind="quirk", quirks={"comma_list": "foreign_rows"})],
    }
    return [fault for kind in KINDS for fault in special.get(kind, [rsusim.Fault(kind=kind)])]


@pytest.fixture
def log_file(tmp_path: Path) -> Iterator[Path]:
    """Everything that is logged, at DEBUG; also what other handlers than ours would be given."""
    path, raw = tmp_path / "bibwire.log", tmp_path / "raw.log"
    handler = logging.FileHandler(raw)
    root = logging.getLogger()
    level = root.level
    logs.set_up(level="DEBUG", log_file=path)
    root.addHandler(handler)
    yield path
    root.removeHandler(handler)
    handler.close()
    for ours in [each for each in root.handlers if getattr(each, "of_bibwire", False)]:
        root.removeHandler(ours)
        ours.close()
    root.setLevel(level)


@pytest.fixture
def world() -> rsusim.World:
    return rsusim.worlds.small(now=datetime.now(UTC))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["key", "v2", "bearer"])
def test_no_fault_of_the_vendors_brings_a_secret_out(
    kind: str,
    world: rsusim.World,
    simulator: rsusim.Server,
    database_url: str,
    log_file: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    account = world.accounts["Peak Timing"]
    key, secret = {
        "key": (account.api_key, account.api_secret),
        "v2": (account.v2_key, account.v2_secret),
        "bearer": (account.bearer_token, ""),
    }[kind]
    credential = Credential(kind, Secret(key), Secret(secret) if secret else None)  # type: ignore[arg-type]
    sent = [text for text in (key, secret, world.caller.registration, world.caller.secret) if text]
    reports: list[object] = []
    world.quirks.echo_credentials = True
    with House(
        world,
        simulator.base_url,
        database_url,
        caller_reg=Secret(world.caller.registration),
        caller_secret=Secret(world.caller.secret),
        retry_seconds=0,
    ) as house:
        house.run(house.runtime.partners.add(account.name, credential, calls_per_hour=1_000_000))
        assert house.sync().errors == []
        race = min(world.races)
        for path in ("participants", "races"):
            for fault in faults_of(sent):
                if not (fault.kind in ECHOES or (path, kind) == ("participants", "key")):
                    continue
                world.advance(60)
                fault.path, fault.times = path, None
                world.faults.clear()
                world.faults.add(fault)
                report = house.sync(full=True) if path == "races" else house.sync(race=race, full=True)
                reports.append(report.as_json())
                assert fault.struck, fault
        world.faults.clear()
        # The vendor's own errors repeat what was sent.
        world.withdraw(account, race)
        reports.append(house.sync().as_json())
        wrong = Credential("key", Secret("WrongKey-" + account.v2_key), Secret(account.v2_secret))
        house.run(house.runtime.partners.rotate(account.name, wrong))
        reports.append(house.sync().as_json())

        told = "\n".join(
            [
                *map(str, reports),
                *capfd.readouterr(),
                log_file.read_text(),
                log_file.with_name("raw.log").read_text(),
                everything_stored(database_url),
            ]
        )
    echoes = told.count("[redacted]")
    assert "sync_scope" in told
    assert echoes > 20, "the faults echoed nothing: this test looks for what cannot be there"
    assert leaks(told, world) == set()


@pytest.mark.every_postgres
def test_no_table_and_no_dump_holds_a_secret(house: House, world: rsusim.World, database_url: str) -> None:
    account = world.accounts["Peak Timing"]
    house.add_partner(account)
    for fault in faults_of([account.api_key, account.api_secret]):
        if fault.kind in ("hostile_rows", "credentials_in_error"):
            fault.path, fault.times = "participants", None
            world.faults.clear()
            world.faults.add(fault)
            house.sync()

    stored = everything_stored(database_url)

    assert stored.count("[redacted]") > 5
    assert leaks(stored, world) == set()


class Program:
    """The program `bibwire` as people start it."""

    def __init__(
        self, folder: Path, database_url: str, simulator: rsusim.Server, world: rsusim.World
    ) -> None:
        self.log_file = folder / "bibwire.log"
        self.told: list[str] = []
        self._environment = {
            **os.environ,
            "BIBWIRE_HOME": str(folder / "home"),
            "BIBWIRE_DATABASE_URL": database_url,
            "BIBWIRE_API_URL": simulator.base_url,
            "BIBWIRE_SECRET_KEY": ENCRYPTION_KEY,
            "BIBWIRE_CALLER_REG": world.caller.registration,
            "BIBWIRE_CALLER_SECRET": world.caller.secret,
            "BIBWIRE_LOG_FILE": str(self.log_file),
            "BIBWIRE_LOG_LEVEL": "DEBUG",
            "BIBWIRE_RETRY_SECONDS": "0",
        }

    def run(self, *arguments: str, said: str = "", **environment: str) -> int:
        """Run a command; keep what it says; return its exit code."""
        done = subprocess.run(
            [sys.executable, "-m", "bibwire", *arguments],
            input=said,
            env=self._environment | environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        self.told.append(f"$ {arguments[0]}\n{done.stdout}\n{done.stderr}")
        return done.returncode


@pytest.mark.slow
def test_no_command_says_a_secret(
    world: rsusim.World, simulator: rsusim.Server, database_url: str, tmp_path: Path
) -> None:
    world.clock.run(1)
    program = Program(tmp_path, database_url, simulator, world)
    account = world.accounts["Peak Timing"]
    race = str(min(world.races))
    add = ("--debug", "partner", "add", "Peak Timing", "--api-key", account.api_key, "--secret-stdin")

    world.quirks.echo_credentials = True
    assert program.run(*add, said=account.v2_secret) == 1
    assert program.run(*add, said=account.api_secret) == 0
    assert program.run("sync", "--json", "--debug") == 0
    for kind in ("credentials_echoed", "credentials_in_error"):
        world.faults.clear()
        world.faults.add(rsusim.Fault(path="", kind=kind, times=None))
        assert program.run("sync", "--json", "--debug") == 1
    assert program.run("lookup", "7", "--race", race, "--live", "--debug") != 0
    assert program.run("doctor", "--debug") in (0, 1)
    world.faults.clear()
    assert program.run("status") == 0
    assert program.run("metrics") == 0
    assert program.run("--debug", "sync", BIBWIRE_CALLER_SECRET=account.api_secret) == 1
    assert program.run("--debug", "sync", BIBWIRE_SECRET_KEY=ENCRYPTION_KEY[::-1]) == 1
    where = f"host=127.0.0.1 port=1 user=bibwire dbname=bibwire password='{DATABASE_PASSWORD}'"
    assert program.run("--debug", "sync", BIBWIRE_DATABASE_URL=where) == 1
    override = {"BIBWIRE_KEY_PEAK_TIMING": account.v2_key, "BIBWIRE_SECRET_PEAK_TIMING": account.v2_secret}
    assert program.run("--debug", "sync", **override) == 1

    told = "\n".join([*program.told, program.log_file.read_text(), everything_stored(database_url)])
    assert told.count("[redacted]") > 5
    assert "Traceback" in told
    assert leaks(told, world) == set()
