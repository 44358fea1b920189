"""`bibwire run` keeps workers going, and everything ends with it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

import rsusim
from rsusim import worlds
from tests.cli.conftest import Shell
from tests.waiting import PATIENCE_SECONDS


@pytest.fixture
def world() -> rsusim.World:
    world = worlds.small(now=datetime.now(UTC))
    world.clock.run(1)
    return world


class Running:
    """A `bibwire run` in the background; what it says goes to a file."""

    def __init__(self, shell: Shell, folder: Path, *arguments: str) -> None:
        self._told = folder / "told"
        with self._told.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bibwire", "run", *arguments],
                cwd=shell.folder,
                env=shell.environment,
                stderr=file,
                stdout=file,
            )

    @property
    def told(self) -> str:
        return re.sub(r"\x1b\[[0-9;]*m", "", self._told.read_text())

    @property
    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()


@pytest.fixture
def running(shell: Shell, tmp_path: Path) -> Iterator[Running]:
    running = Running(shell, tmp_path, "--workers", "2")
    yield running
    running.process.kill()
    running.process.wait()


def wait_until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def races(shell: Shell) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(shell.run("status", "--json").out)["races"]
    return found


def test_a_partner_added_meanwhile_is_taken_up_and_all_ends_on_sigterm(
    shell: Shell, running: Running, world: rsusim.World
) -> None:
    wait_until(lambda: "No partner yet" in running.told, "said that there is nothing to do")
    assert shell.add(world.accounts["Peak Timing"]).code == 0

    def loaded() -> bool:
        found = races(shell)
        return bool(found) and all(race["as_of"] for race in found)

    wait_until(loaded, "every race loaded")
    workers = running.workers
    running.process.terminate()

    # As README says of every command: a service manager is to know a stop from an end.
    assert running.process.wait(PATIENCE_SECONDS) == 143
    # Once: its workers leave the word to it.
    assert running.told.count("bibwire: stopped. Nothing is lost") == 1
    assert running.told.endswith("goes on where this one was.\n")
    assert not any(worker.is_running() for worker in workers)
    assert "Traceback" not in running.told


def test_a_hostile_answer_keeps_nobody_from_leaving(
    shell: Shell, running: Running, world: rsusim.World
) -> None:
    row = '{"registration_id":%d,"x":NaN,"y":"' + "z" * 400 + '"}'
    body = '[{"event":{},"participants":[' + ",".join(row % i for i in range(10**8, 10**8 + 15_000)) + "]}]"
    fault = world.faults.add(rsusim.Fault(path="participants", kind="body", body=body, times=None))
    assert shell.add(world.accounts["Peak Timing"]).code == 0
    wait_until(lambda: fault.struck > 0, "an answer on its way")

    family = [psutil.Process(running.process.pid), *running.workers]

    def spent() -> list[float]:
        """CPU seconds of each; of one that has ended, what it had when it was last seen."""
        for at, each in enumerate(family):
            with suppress(psutil.NoSuchProcess):
                seen[at] = sum(each.cpu_times()[:2])
        return list(seen)

    seen = [0.0] * len(family)
    begun = sum(spent())
    wait_until(lambda: sum(spent()) > begun + 0.5, "reading it")
    before = spent()
    running.process.terminate()
    wait_until(lambda: bool(spent()) and running.process.poll() is not None, "its end")

    assert running.process.returncode == 143
    # Of the processor, so that a busy machine fails no test; each of them has an answer to read.
    assert max(after - then for after, then in zip(spent(), before, strict=True)) < 5


def test_a_race_that_appears_later_is_polled_too(shell: Shell, running: Running, world: rsusim.World) -> None:
    account = world.accounts["Peak Timing"]
    assert shell.add(account).code == 0
    wait_until(lambda: bool(races(shell)) and all(race["as_of"] for race in races(shell)), "all loaded")
    late = world.add_race([account], "Late Entry 5K", "America/Denver")
    world.register(world.add_event(late, "5K"))
    assert shell.run("discover").code == 0

    wait_until(lambda: any(race["race_id"] == late and race["as_of"] for race in races(shell)), "loaded")


def test_a_worker_that_is_killed_is_started_again(shell: Shell, running: Running) -> None:
    wait_until(lambda: len(running.workers) == 2, "two workers")
    first = running.workers[0]
    first.kill()

    wait_until(lambda: "worker ended" in running.told, "said that one ended")
    wait_until(
        lambda: len(running.workers) == 2 and first.pid not in {each.pid for each in running.workers},
        "another one in its place",
    )


@pytest.mark.skipif(not hasattr(psutil.Process, "rlimit"), reason="no limits to set from outside")
def test_a_worker_that_cannot_be_started_is_tried_again_and_the_others_work_on(
    shell: Shell, running: Running
) -> None:
    wait_until(lambda: len(running.workers) == 2, "two workers")
    first, second = running.workers
    parent = psutil.Process(running.process.pid)
    _, most = parent.rlimit(psutil.RLIMIT_NOFILE)
    # Without room for another open file nothing can be started.
    parent.rlimit(psutil.RLIMIT_NOFILE, (3, most))
    first.kill()

    wait_until(lambda: "worker not started" in running.told, "said that it could not be started")
    assert "Too many open files" in running.told
    assert running.process.poll() is None
    assert second.is_running()
    parent.rlimit(psutil.RLIMIT_NOFILE, (most, most))
    wait_until(
        lambda: len(running.workers) == 2 and first.pid not in {each.pid for each in running.workers},
        "another one in its place",
    )
    assert second in running.workers


def test_workers_end_with_a_parent_that_is_killed(running: Running) -> None:
    wait_until(lambda: len(running.workers) == 2, "two workers")
    workers = running.workers
    running.process.kill()

    _, alive = psutil.wait_procs(workers, timeout=PATIENCE_SECONDS)
    assert alive == []


def test_more_workers_than_the_database_has_connections_for_are_refused(shell: Shell) -> None:
    ended = shell.run("run", "--workers", "60")

    assert ended.code == 2
    assert "--workers" in ended.told
    most = int(re.findall(r"at most (\d+)", ended.told)[0])
    assert most * 12 <= 300 < 60 * 12


def test_ctrl_c_ends_it_in_order(shell: Shell, running: Running) -> None:
    wait_until(lambda: len(running.workers) == 2, "two workers")
    time.sleep(1)  # until their handlers stand; without them they end too, only not in order
    running.process.send_signal(signal.SIGINT)

    assert running.process.wait(PATIENCE_SECONDS) == 130
    assert "Traceback" not in running.told


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)]
)
def test_a_worker_that_is_stopped_says_so(shell: Shell, number: signal.Signals, code: int) -> None:
    # Tests that are run with nohup ignore it, and what they start would too.
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    process = shell.start("worker")
    signal.signal(signal.SIGHUP, before)
    assert process.stderr is not None
    said = process.stderr.readline()
    assert "Working for this database" in said

    ended = shell.stop(process, number)

    assert ended.code == code
    assert ended.told == "stopped. Nothing is lost: the next run goes on where this one was."


def test_plan_says_how_often_and_why(shell: Shell, peak: rsusim.Account) -> None:
    assert "Is it before the first sync?" in shell.run("plan").out
    assert shell.run("discover").code == 0

    told = shell.run("plan").out
    assert "every" in told
    assert "gun in" in told
    found = json.loads(shell.run("plan", "--json").out)["partners"]
    assert [each["partner"] for each in found] == [peak.name]
    assert found[0]["polls"]
    assert not found[0]["short"]
    assert shell.run("plan", "--partner", "Nobody").code == 2


def test_discover_tells_what_is_new(shell: Shell, world: rsusim.World, peak: rsusim.Account) -> None:
    first = json.loads(shell.run("discover", "--json").out)["partners"]
    second = json.loads(shell.run("discover", "--json").out)["partners"]

    assert first[0]["new_races"] == first[0]["races"] > 0
    assert (second[0]["new_races"], second[0]["new_events"], second[0]["error"]) == (0, 0, None)
    world.faults.add(rsusim.Fault(kind="http_503", times=None))
    failed = shell.run("discover", RETRY_SECONDS="0")
    assert failed.code == 1
    assert "nothing was read: Peak Timing: " in failed.err
