"""`status --watch` on the smallest window shows what fails, then the most urgent races, page by page."""

from __future__ import annotations

import os
import re
import select
import time
from datetime import datetime, timedelta

import pytest

import rsusim
from bibwire.cli.freshness import Watch
from bibwire.domain.errors import DatabaseUnavailable
from tests.cli.conftest import Shell
from tests.conftest import NOON
from tests.waiting import PATIENCE_SECONDS

CLEAR = re.compile(r"\x1b\[H")


def screens(shown: str) -> list[list[str]]:
    """Return what stood on the window, each time it was drawn."""
    found = []
    for part in CLEAR.split(shown)[1:]:
        plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", part).replace("\r", "")
        found.append([line.rstrip() for line in plain.split("\n")])
    return found


@pytest.fixture
def many(shell: Shell, world: rsusim.World, peak: rsusim.Account) -> Shell:
    """Thirty hot races, of which none can be reached any more."""
    start = (world.now + timedelta(hours=2)).replace(tzinfo=None)
    for number in range(30):
        race = world.add_race([peak], f"A Race With Quite a Long Name, the {number}th of Many", "UTC")
        world.register(world.add_event(race, "5K", start))
    assert shell.run("sync", "--json").code == 0
    world.faults.add(rsusim.Fault(path="participants", kind="http_503", times=None))
    assert shell.run("sync").code == 1
    shell.environment |= {"LINES": "24", "BIBWIRE_LOG_LEVEL": "ERROR"}
    return shell


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.at = NOON

    def now(self) -> datetime:
        return self.at

    def pass_by(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


def test_right_after_an_outage_nobody_is_told_that_no_worker_is_running(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = Hand()
    watch = Watch(clock.now)
    watch.look([], workers=1)
    watch.no_answer(DatabaseUnavailable("PostgreSQL cannot be used: connection refused"))
    clock.pass_by(40)
    watch.look([], workers=0)
    clock.pass_by(4)
    watch.look([], workers=1)
    said = capsys.readouterr().err
    assert "the database answers again, after 40 s" in said
    assert "worker" not in said

    watch.look([], workers=0)
    assert "worker" not in capsys.readouterr().err
    clock.pass_by(12)
    watch.look([], workers=0)
    assert "no worker is running" in capsys.readouterr().err


def test_what_fails_comes_first_and_the_races_are_turned_over_by_keys(many: Shell) -> None:
    code, shown = many.on_terminal(
        "status", "--watch", columns=80, answers=[("page 1 of 2", " "), ("page 2 of 2", "q")]
    )

    assert code == 0, shown
    full = [screen for screen in screens(shown) if any("page" in line for line in screen)]
    first = next(screen for screen in full if any("A Race With" in line for line in screen))
    last = full[-1]
    for screen in (first, last):
        assert len(screen) <= 24
        assert max(map(len, screen)) <= 80
        head = " ".join(screen[:6])
        assert "what fails:" in screen[0]
        assert re.search(r"and \d\d more since", " ".join(head.split()))
        assert "the vendor answered HTTP 503" in " ".join(head.split())

    def races(screen: list[str]) -> list[str]:
        return [line.split()[0] for line in screen if re.match(r" *\d{4,} ", line)]

    assert len(races(first)) >= 12
    assert not set(races(first)) & set(races(last))
    # No word is broken, and each line says how old the race is.
    assert all(re.search(r"\d (s|min) +60 s$", line) for line in first if re.match(r" *\d{4,} A Race", line))


def test_it_ends_with_its_terminal(shell: Shell, peak: rsusim.Account) -> None:
    """Also where no signal says so: in a session that has no terminal of its own."""
    watching, ours = shell.start_on_screen("status", "--watch")
    shown, deadline = b"", time.monotonic() + PATIENCE_SECONDS
    try:
        try:
            while b"page 1" not in shown:
                assert select.select([ours], [], [], deadline - time.monotonic())[0], shown
                shown += os.read(ours, 10_000)
        finally:
            os.close(ours)
        # As after a SIGHUP, though what it shows last cannot be written any more.
        assert watching.wait(PATIENCE_SECONDS) == 143
    finally:
        watching.kill()
        watching.wait()
    assert "Traceback" not in (shell.folder / "screen.err").read_text()
