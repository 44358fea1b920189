"""A database that lost changes that were shown, as a standby may, is told apart from one that knows them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

import rsusim
from tests.cli.conftest import Shell
from tests.cli.test_outages import Saying, wait_until
from tests.cli.test_sync import first_race
from tests.waiting import PATIENCE_SECONDS


class Standby:
    """A copy of a database as it stood, which can take over under its name."""

    def __init__(self, server: psycopg.Connection[Any], name: str) -> None:
        self._server = server
        self._name = name
        self._run("CREATE DATABASE {copy} TEMPLATE {name}")

    def take_over(self) -> None:
        self._run("ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        self._server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (self._name,)
        )
        self._run("DROP DATABASE {name} WITH (FORCE)")
        self._run("ALTER DATABASE {copy} RENAME TO {name}")

    def _run(self, statement: str) -> None:
        name, copy = sql.Identifier(self._name), sql.Identifier(f"{self._name}_standby")
        self._server.execute(sql.SQL(statement).format(name=name, copy=copy))


@pytest.fixture
def standby(postgres: str, shell: Shell, peak: rsusim.Account, database_url: str) -> Iterator[Standby]:
    """As the database stands after a sync."""
    assert shell.run("sync").code == 0
    name = str(psycopg.conninfo.conninfo_to_dict(database_url)["dbname"])
    with psycopg.connect(postgres, autocommit=True) as server:
        yield Standby(server, name)


@pytest.mark.parametrize("behind", [True, False])
def test_a_feed_that_went_back_is_said_with_where_to_go_on(
    shell: Shell, world: rsusim.World, peak: rsusim.Account, standby: Standby, behind: bool
) -> None:
    """`behind`: it is seen before the lost numbers are given out again, or after."""
    _, event = first_race(world)
    ada, bob = world.active(event)[:2]

    def change(registration: int, bib: int) -> None:
        world.advance(5)
        world.assign_bib(registration, bib)
        assert shell.run("sync").code == 0

    following = Saying(shell, "bibs", "--follow", "--json")
    try:
        change(ada, 9001)
        wait_until(lambda: "9001" in following.shown, following.everything)
        if not behind:
            following.freeze()
        standby.take_over()
        if not behind:
            change(bob, 9002)
            following.thaw()
        code = following.process.wait(PATIENCE_SECONDS)
    finally:
        following.end()

    told = following.told[-1]
    assert code == 1
    assert "The feed of Peak Timing went back" in told
    assert "Nothing is lost" not in told
    since = re.search(r'bibwire bibs --follow --partner "Peak Timing" --since (\d+)\.$', told)
    assert since is not None
    change(bob, 9002)
    again = shell.run("bibs", "--partner", peak.name, "--since", since[1], "--json").json["changes"]
    assert 9002 in [each["bib_to"] for each in again]
