"""An outage on race day is told soon, once, and so is its end; hot races are polled again within seconds."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest

import rsusim
from rsusim import worlds
from tests.cli.conftest import BIBWIRE, Shell
from tests.cli.test_watch import screens
from tests.e2e.crew import own_server
from tests.network import Network
from tests.waiting import PATIENCE_SECONDS

# What is promised: that it fails is told, and that it does no longer; hot races are polled again.
TOLD_SECONDS, BACK_SECONDS, POLLED_SECONDS = 15.0, 15.0, 30.0
# What a machine may add that does other work besides: alone, the slowest is told after 6 to 10 s.
BUSY_SECONDS = 5.0


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


class Watching:
    """`status --watch` on a terminal of its own."""

    def __init__(self, shell: Shell) -> None:
        self.process, self._ours = shell.start_on_screen("status", "--watch")
        self._shown = b""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with suppress(OSError):
            while chunk := os.read(self._ours, 65536):
                self._shown += chunk

    def fails(self) -> str:
        """Return what stands above the races, on one line; empty: nothing fails."""
        drawn = [each for each in screens(self._shown.decode("utf-8", "replace")) if len(each) > 1]
        if not drawn:
            return "nothing is shown yet"
        head = itertools.takewhile(lambda line: not re.match(" *race name", line), drawn[-1])
        return " ".join(" ".join(head).split())

    def end(self) -> None:
        os.write(self._ours, b"q")
        self.process.wait(PATIENCE_SECONDS)
        os.close(self._ours)


@dataclass
class Onlookers:
    """What people look at on race day."""

    running: Saying
    following: Saying
    watching: Watching
    hot: tuple[str, ...]

    def everything(self) -> str:
        return "\n".join((*self.running.told, *self.following.told, self.watching.fails()))

    def failing_is_told(self, run: str, follow: str, watch: str) -> float:
        """Wait until each of them says so; return after how many seconds the last did."""
        began = time.monotonic()
        told: dict[str, float] = {}

        def all_tell() -> bool:
            telling = {
                "run": self.running.lines(run),
                "bibs --follow": self.following.lines(follow),
                "status --watch": re.search(watch, self.watching.fails()),
            }
            for name in telling:
                if telling[name]:
                    told.setdefault(name, round(time.monotonic() - began, 1))
            return all(telling.values())

        wait_until(all_tell, self.everything)
        print(told)
        return max(told.values())

    def back_is_told(self, run: str, follow: str) -> float:
        """Wait until each of them says so; return after how many seconds the last did."""

        def is_told() -> bool:
            fails = self.watching.fails()
            over = not any(name in fails for name in (*self.hot, "database", "worker"))
            return bool(self.running.lines(run) and self.following.lines(follow) and over)

        return wait_until(is_told, self.everything)


@contextmanager
def onlookers(shell: Shell, world: rsusim.World) -> Iterator[Onlookers]:
    """Add the partners, and look on from when all races are loaded."""
    del shell.environment["BIBWIRE_RETRY_SECONDS"]
    for account in world.accounts.values():
        assert shell.add(account).code == 0
    with ExitStack() as ending:
        running = Saying(shell, "run")
        ending.callback(running.end)
        wait_until(lambda: running.lines("race loaded"), running.everything)
        wait_until(lambda: all(race["as_of"] for race in shell.run("status", "--json").json["races"]), list)
        following = Saying(shell, "bibs", "--follow", "--json")
        ending.callback(following.end)
        watching = Watching(shell)
        ending.callback(watching.end)
        hot = tuple(f"{name}'s 10K" for name in world.accounts)
        looking = Onlookers(running, following, watching, hot)
        wait_until(lambda: "nothing fails" in watching.fails(), looking.everything)
        yield looking
    assert running.process.returncode == 143
    assert not running.lines("Traceback")


def hot_polls_since(world: rsusim.World, number: int) -> set[int | None]:
    """Return the hot races that were polled after a request, with success."""
    return {
        request.race_id
        for request in world.log.requests
        if request.number > number
        and request.endpoint == "participants"
        and request.status == 200
        and request.race_id is not None
        and world.races[request.race_id].name.endswith("'s 10K")
    }


def hold_what_is_promised(how: str, told: float, polled: float, back: float) -> None:
    """Compare what an outage took, in seconds, with what is promised."""
    print(f"{how}: told after {told:.1f} s, polled after {polled:.1f} s, back {back:.1f} s later")
    assert told < TOLD_SECONDS + BUSY_SECONDS
    assert polled < POLLED_SECONDS
    assert back < BACK_SECONDS + BUSY_SECONDS


@pytest.mark.parametrize("how", ["refused", "silent", "http_503"])
def test_an_outage_is_told_once_and_its_end_too(
    shell: Shell, world: rsusim.World, network: Network, how: str
) -> None:
    shell.environment["BIBWIRE_API_URL"] = f"http://127.0.0.1:{network.port}/rest"
    with onlookers(shell, world) as looking:
        match how:
            case "refused":
                network.cut()
            case "silent":
                network.fall_silent()
            case _:
                world.faults.add(rsusim.Fault(kind="http_503", times=None))
        told = looking.failing_is_told(" warning .* not ", "not fresh: ", "10K .* since")
        # Long enough for several polls of each race, and for the silence to be given up.
        time.sleep(8 if how != "silent" else 22)
        if how == "refused":
            assert len(looking.running.lines(" warning ")) == 1, looking.running.told
            assert "RunSignup cannot be reached: connection refused" in looking.running.lines(" warning ")[0]

        last = max(request.number for request in world.log.requests)
        match how:
            case "refused":
                network.restore()
            case "silent":
                network.speak()
            case _:
                world.faults.clear()
        polled = wait_until(lambda: len(hot_polls_since(world, last)) == 2, looking.everything)
        back = looking.back_is_told("back: .* lasted_seconds=", "fresh again, after")
        hold_what_is_promised(how, told, polled, back)


def test_a_crash_of_the_database_under_two_calls_is_told_and_hot_races_are_polled_again_soon(
    shell: Shell, world: rsusim.World
) -> None:
    with own_server() as server:
        shell.environment["BIBWIRE_DATABASE_URL"] = server.conninfo
        with onlookers(shell, world) as looking:
            world.quirks.set("latency_seconds", 3.0)

            def two_in_flight() -> bool:
                return sum(not request.over for request in world.log.requests) == 2

            wait_until(two_in_flight, looking.everything)
            told = 0.0

            def meanwhile() -> None:
                nonlocal told
                told = looking.failing_is_told(
                    " warning .* waits for the database",
                    "database does not answer",
                    "database has not answered",
                )
                # Their ends cannot be told to anybody.
                wait_until(lambda: not any(not each.over for each in world.log.requests), looking.everything)

            server.crash(meanwhile)
            world.quirks.set("latency_seconds", 0.0)
            last = max(request.number for request in world.log.requests)
            polled = wait_until(lambda: len(hot_polls_since(world, last)) == 2, looking.everything)
            back = looking.back_is_told("back: .* lasted_seconds=", "database answers again, after")
            hold_what_is_promised("crash", told, polled, back)
            assert world.log.highest_in_flight == 2
            assert len(looking.running.lines("waits for the database|the database is away")) == 1
            assert len(looking.running.lines("back: ")) == 1
