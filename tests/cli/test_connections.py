"""Commands beside a database that is killed, started anew, robbed of rows, or used by a person."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import psycopg
import pytest
import typer

import rsusim
from bibwire import cli
from bibwire.cli.app import app
from bibwire.store.database import open_database
from bibwire.store.session import end_frozen
from rsusim import worlds
from tests.cli.conftest import BIBWIRE, Shell
from tests.e2e.crew import backends, own_server
from tests.waiting import PATIENCE_SECONDS, wait_until


@pytest.fixture
def world() -> rsusim.World:
    world = worlds.small(now=datetime.now(UTC))
    world.clock.run(1)
    return world


@pytest.fixture
def own_home() -> Iterator[Path]:
    """A home that the database's own user can reach."""
    home = Path(tempfile.mkdtemp(prefix="bibwire-home-", dir="/tmp"))
    home.chmod(0o755)
    yield home
    shutil.rmtree(home, ignore_errors=True)


def test_an_embedded_server_that_is_killed_under_run_is_started_again(
    shell: Shell, world: rsusim.World, own_home: Path
) -> None:
    shell.environment |= {"BIBWIRE_HOME": str(own_home)}
    del shell.environment["BIBWIRE_DATABASE_URL"]
    told = shell.folder / "told"
    assert shell.run("init").code == 0
    with told.open("wb") as file:
        running = subprocess.Popen([BIBWIRE, "run"], cwd=shell.folder, env=shell.environment, stderr=file)
    try:
        # A worker that is only starting would start the server without a word.
        wait_until(lambda: shell.run("status", "--json").json["scheduler"]["workers"])
        pid_file = own_home / "postgres" / "data" / "postmaster.pid"
        killed = int(pid_file.read_text().split()[0])
        os.kill(killed, signal.SIGKILL)

        wait_until(lambda: "the embedded PostgreSQL runs again" in told.read_text())
        assert int(pid_file.read_text().split()[0]) != killed
        assert shell.add(world.accounts["Peak Timing"]).code == 0

        def loaded() -> bool:
            races = json.loads(shell.run("status", "--json").out)["races"]
            return bool(races) and all(race["as_of"] for race in races)

        wait_until(loaded)
        running.terminate()
        assert running.wait(PATIENCE_SECONDS) == 128 + signal.SIGTERM
        assert "Traceback" not in told.read_text()
    finally:
        running.kill()
        running.wait()


# Those that take long wait for a server that is started anew; all others say at once that it is away.
LONG: Final = ("sync", "reconcile", "verify", "backfill", "discover")
QUICK: Final = {
    "adopt", "bibs", "demo", "doctor", "init", "lookup", "metrics", "partner", "plan", "psql", "run",
    "simulate", "status", "worker",
}  # fmt: skip


def test_every_long_command_waits_for_a_server_that_is_started_anew(
    shell: Shell, world: rsusim.World
) -> None:
    with own_server() as server:
        shell.environment["BIBWIRE_DATABASE_URL"] = server.conninfo
        for account in world.accounts.values():
            assert shell.add(account).code == 0
        assert shell.run("sync").code == 0
        # All of them are in their middle for as long as it takes to start them.
        world.quirks.set("latency_seconds", 4.0)
        world.log.clear()
        started = {name: shell.start(name) for name in LONG}
        wait_until(lambda: len(backends(server)) == len(LONG) and world.log.calls >= 2)

        def all_said_so() -> bool:
            said = shell.log_file.read_text().count("the database is away")
            return said >= len(LONG) or any(each.poll() is not None for each in started.values())

        server.crash(lambda: wait_until(all_said_so))
        world.quirks.set("latency_seconds", 0.0)

        for name, process in started.items():
            _, err = process.communicate(timeout=PATIENCE_SECONDS)
            assert process.returncode == 0, (name, err)
            assert err.count("the database is away") == 1, (name, err)
            assert err.count("the database is back") == 1, (name, err)
            for odd in ("Traceback", "never retrieved", "error connecting", "unexpected"):
                assert odd not in err, (name, err)
        assert world.log.highest_in_flight == 2


def test_of_every_command_it_is_known_whether_it_waits_for_the_database() -> None:
    names = set(typer.main.get_group(app).commands)

    assert names == {*LONG, *QUICK}
    for name in LONG:
        assert "repeat=True" in Path(cli.__path__[0], f"{name}.py").read_text("utf-8")


def test_a_partner_removed_while_it_is_synced_is_told_in_a_sentence(
    shell: Shell, peak: rsusim.Account, world: rsusim.World
) -> None:
    world.quirks.set("latency_seconds", 1.0)
    world.log.clear()
    syncing = shell.start("sync")
    wait_until(lambda: world.log.of("participants"))

    removed = shell.run("partner", "remove", peak.name, "--yes")

    _, err = syncing.communicate(timeout=PATIENCE_SECONDS)
    assert removed.code == 0, removed.err
    assert syncing.returncode == 1
    assert "The partner was removed meanwhile" in err
    for odd in ("Traceback", "fault of its own", "unexpected", "never retrieved"):
        assert odd not in err


def test_a_users_copy_under_psql_is_never_taken_for_a_lost_worker(shell: Shell, database_url: str) -> None:
    # Even where the address gives every program our own name.
    address = psycopg.conninfo.make_conninfo(database_url, application_name="bibwire")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE public.bibs (bib integer)")
        copying = subprocess.Popen(
            [BIBWIRE, "psql", "-c", r"\copy public.bibs FROM pstdin"],
            stdin=subprocess.PIPE,
            env=shell.environment | {"BIBWIRE_DATABASE_URL": address},
            text=True,
        )
        waits = "SELECT FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'COPY%'"
        wait_until(lambda: connection.execute(waits).fetchall())

        async def run() -> int:
            async with open_database(database_url, connections=1) as db:
                return await end_frozen(db, silent_seconds=0)

        assert asyncio.run(run()) == 0
        copying.communicate("101\n", timeout=PATIENCE_SECONDS)
        assert copying.returncode == 0
        assert connection.execute("SELECT bib FROM public.bibs").fetchall() == [(101,)]
