"""Without a network every command says so within ten seconds, once, for all partners together."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

import rsusim
from tests.cli.conftest import Ended, Shell
from tests.cli.test_sync import first_race

# Of the ten that a person waits, a second is for the start of the program; on a machine that is busy
# with other tests that takes longer, and so is measured.
SOON_SECONDS = 9.0
NOBODY = "http://127.0.0.1:9/rest"


@contextmanager
def black_hole() -> Iterator[str]:
    """An address that answers nothing at all, as behind a network whose packets are dropped."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        # Its queue is full: the system drops whoever else comes.
        for _ in range(4):
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(listening.getsockname())
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/rest"


@pytest.fixture
def synced(shell: Shell, world: rsusim.World) -> rsusim.Account:
    """Both partners added and synced, with somebody who has bib 9001; the first one."""
    accounts = list(world.accounts.values())
    for account in accounts:
        assert shell.add(account).code == 0
    _, event = first_race(world)
    world.assign_bib(world.active(event)[0], 9001)
    world.advance(1)
    assert shell.run("sync").code == 0
    return accounts[0]


@pytest.fixture(params=["refused", "dropped"])
def away(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where RunSignup is looked for in vain: nobody listens there, or nothing comes back."""
    if request.param == "refused":
        yield NOBODY
    else:
        with black_hole() as url:
            yield url


class Watch:
    """Runs commands that ask RunSignup, and looks at the time."""

    def __init__(self, shell: Shell, away: str) -> None:
        self._shell = shell
        self._away = away
        began = time.monotonic()
        assert shell.run("status").code == 0
        self._start_seconds = time.monotonic() - began

    def run(self, *command: str) -> Ended:
        began = time.monotonic()
        ended = self._shell.run(*command, API_URL=self._away, RETRY_SECONDS=None)
        assert time.monotonic() - began < SOON_SECONDS + 4 * self._start_seconds, command
        return ended


def is_said_once(ended: Ended) -> None:
    assert ended.code == 1
    last = ended.err.rstrip().splitlines()[-1]
    assert last.startswith("bibwire: RunSignup cannot be reached: ")
    assert "2 partners" in last
    assert "Check the network" in last
    assert ended.out.count("cannot be reached") <= 1


def test_every_command_says_it_in_one_sentence_for_all_partners(shell: Shell, synced: rsusim.Account) -> None:
    watch = Watch(shell, NOBODY)
    for command in (["reconcile"], ["verify"], ["discover"], ["backfill", "--since", "2020-01-01"]):
        is_said_once(watch.run(*command))


def test_a_sync_and_a_live_lookup_without_network(
    shell: Shell, synced: rsusim.Account, world: rsusim.World, database_url: str, away: str
) -> None:
    race, _ = first_race(world)
    watch = Watch(shell, away)
    calls = spent(database_url)

    ended = watch.run("sync")
    is_said_once(ended)
    # At once, before it is given up.
    assert [line for line in ended.err.splitlines() if line.endswith("; trying again ...")]
    where = ("--race", str(race), "--partner", synced.name)
    looked_up = watch.run("lookup", "9001", *where, "--live", "--json")

    assert looked_up.code == 3
    assert looked_up.told.startswith("RunSignup gave no answer: RunSignup cannot be reached")
    assert len(looked_up.json["answers"][0]["now"]) == 1
    # What never reached the vendor does not count.
    assert spent(database_url) == calls


def test_a_live_lookup_waits_for_no_silent_vendor(
    shell: Shell, synced: rsusim.Account, world: rsusim.World, simulator: rsusim.Server
) -> None:
    race, _ = first_race(world)
    world.faults.add(rsusim.Fault(kind="hang", times=None))

    where = ("--race", str(race), "--partner", synced.name)
    looked_up = Watch(shell, simulator.base_url).run("lookup", "9001", *where, "--live", "--json")

    assert looked_up.code == 3
    assert looked_up.told.startswith("RunSignup gave no answer")
    assert len(looked_up.json["answers"][0]["now"]) == 1


def spent(database_url: str) -> int:
    with psycopg.connect(database_url) as connection:
        row = connection.execute("SELECT sum(calls) FROM bibwire.call_minutes").fetchone()
    return 0 if row is None else int(row[0])


def test_a_new_partner_s_key_is_not_stored_unchecked(shell: Shell, world: rsusim.World) -> None:
    shell.environment |= {"BIBWIRE_API_URL": NOBODY}
    del shell.environment["BIBWIRE_RETRY_SECONDS"]

    ended = shell.add(world.accounts["Peak Timing"])

    assert ended.code == 1
    assert "RunSignup cannot be reached" in ended.told
    assert "nothing was stored" in ended.told
