"""An outage on race day is told soon, once, and so is its end; hot races are polled again at once."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import rsusim
from rsusim import worlds
from tests.cli.conftest import BIBWIRE, Shell
from tests.network import Network
from tests.waiting import PATIENCE_SECONDS

# What is promised, and what this machine may be busy with besides: alone it takes a third of it.
TOLD_SECONDS, BACK_SECONDS, BUSY_SECONDS = 15.0, 30.0, 15.0


@pytest.fixture
def world() -> rsusim.World:
    """Two partners with a hot race each; its time goes on."""
    now = datetime.now(UTC)
    world = worlds.small(now=now)
    for name in world.accounts:
        race = world.add_race([name], f"{name}'s 10K", "UTC")
        event = world.add_event(race, "10K", (now + timedelta(hours=2)).replace(tzinfo=None))
        for _ in range(3):
            world.register(event)
    world.clock.run(1)
    return world


@pytest.fixture
def network(simulator: rsusim.Server) -> Iterator[Network]:
    port = urlsplit(simulator.base_url).port
    assert port is not None
    with Network(("127.0.0.1", port)) as network:
        yield network


class Saying:
    """A command that goes on; what it says goes to files."""

    def __init__(self, shell: Shell, *arguments: str) -> None:
        self._file = shell.folder / f"{arguments[0]}.err"
        self._out = shell.folder / f"{arguments[0]}.out"
        with self._file.open("wb") as file, self._out.open("wb") as out:
            self.process = subprocess.Popen(
                [BIBWIRE, *arguments],
                cwd=shell.folder,
                env=shell.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=file,
            )

    @property
    def told(self) -> list[str]:
        return self._file.read_text("utf-8").splitlines()

    def lines(self, pattern: str) -> list[str]:
        return [line for line in self.told if re.search(pattern, line)]

    def everything(self) -> str:
        return "\n".join(self.told)

    @property
    def shown(self) -> str:
        return self._out.read_text("utf-8")

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        self.thaw()
        self.process.terminate()
        self.process.wait(PATIENCE_SECONDS)


def wait_until(holds: Callable[[], object], what: Callable[[], object]) -> float:
    """Return after how many seconds it holds."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < PATIENCE_SECONDS, what()
        time.sleep(0.05)
    return time.monotonic() - began


@pytest.mark.parametrize("how", ["refused", "silent"])
def test_an_outage_is_told_once_and_its_end_too(
    shell: Shell, world: rsusim.World, network: Network, tmp_path: Path, how: str
) -> None:
    shell.environment["BIBWIRE_API_URL"] = f"http://127.0.0.1:{network.port}/rest"
    del shell.environment["BIBWIRE_RETRY_SECONDS"]
    for account in world.accounts.values():
        assert shell.add(account).code == 0
    running, following = Saying(shell, "run"), Saying(shell, "bibs", "--follow", "--json")
    try:
        wait_until(lambda: running.lines("race loaded"), running.everything)
        wait_until(lambda: all(race["as_of"] for race in shell.run("status", "--json").json["races"]), list)

        (network.cut if how == "refused" else network.fall_silent)()
        told = wait_until(lambda: running.lines(" warning .* not "), running.everything)
        told += wait_until(lambda: following.lines("not fresh: "), following.everything)
        assert told < TOLD_SECONDS + BUSY_SECONDS
        # Long enough for several polls of each race, and for the silence to be given up.
        time.sleep(8 if how == "refused" else 22)
        if how == "refused":
            assert len(running.lines(" warning ")) == 1, running.told
            assert "RunSignup cannot be reached: connection refused" in running.lines(" warning ")[0]

        calls = world.log.calls
        (network.restore if how == "refused" else network.speak)()
        back = wait_until(lambda: running.lines("back: .* lasted_seconds="), running.everything)
        back += wait_until(lambda: world.log.calls > calls, running.everything)
        back += wait_until(lambda: following.lines("fresh again, after"), following.everything)
        assert back < BACK_SECONDS + BUSY_SECONDS
    finally:
        running.end()
        following.end()
    assert running.process.returncode == 143
    assert not running.lines("Traceback")
