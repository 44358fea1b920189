"""What the ordeal looks at while it goes on, and once a trouble is over."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial

import httpx2
import psutil
import pytest

import rsusim
from tests.ordeal import __main__ as program
from tests.ordeal import crew, watch
from tests.ordeal import ordeal as ordeals
from tests.ordeal.conftest import Alone
from tests.ordeal.vendor import AMPLE
from tests.waiting import PATIENCE_SECONDS, wait_until


class Poller:
    """Polls the ordeal's races as their partner does."""

    def __init__(self, world: rsusim.World, base_url: str) -> None:
        self.world = world
        self._url = base_url
        self._threads: list[threading.Thread] = []

    def poll(self, race: int) -> None:
        account = self.world.accounts[AMPLE]
        keys = {"format": "json", "api_key": account.api_key, "api_secret": account.api_secret}
        [events] = [each.events for each in self.world.truth(AMPLE) if each.race_id == race]
        asked = keys | {"event_id": ",".join(str(event.event_id) for event in events)}
        httpx2.get(f"{self._url}/race/{race}/participants", params=asked, timeout=PATIENCE_SECONDS)

    def start(self, race: int) -> None:
        """Poll beside; return once the vendor has the call."""
        before = self.world.log.calls
        self._threads.append(threading.Thread(target=self.poll, args=(race,)))
        self._threads[-1].start()
        wait_until(lambda: self.world.log.calls > before)

    def join(self) -> None:
        for thread in self._threads:
            thread.join()


@pytest.fixture
def poller(alone: Alone) -> Iterator[Poller]:
    alone.is_polled = False
    with rsusim.Server(alone.world) as server:
        poller = Poller(alone.world, server.base_url)
        yield poller
        poller.join()


def test_hot_races_have_to_be_polled_again_after_a_trouble(
    alone: Alone, poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordeals, "POLLED_SECONDS", 2.0)
    first, *others = sorted(alone.hot_races)
    for race in (first, *others):
        poller.poll(race)  # before it is over: that does not count
    # Nor does a call that the vendor refuses.
    alone.world.faults.add(rsusim.Fault(kind="http_503", times=1))
    alone.later(0.6, partial(poller.poll, first))
    for race in others:
        alone.later(0.7, partial(poller.poll, race))

    with pytest.raises(AssertionError, match=rf"races \[{first}\] polled again: not within 2 s"):
        program.play_together(alone, ["nothing"], 0.1, compare=False)

    alone.later(0.5, partial(poller.poll, first))
    for race in others:
        alone.later(0.5, partial(poller.poll, race))
    program.play_together(alone, ["nothing"], 0.1, compare=False)
    assert 0.3 < alone.told.slowest < 2.0


def test_who_is_killed_in_two_calls_leaves_their_places_taken_for_a_while(
    alone: Alone, poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordeals, "POLLED_SECONDS", 0.5)
    monkeypatch.setattr(ordeals, "CALL_SECONDS", PATIENCE_SECONDS)
    alone.world.faults.add(rsusim.Fault(kind="slow", seconds=3.0, times=2))
    for race in sorted(alone.hot_races)[:2]:
        alone.note_kill()
        assert alone.places_taken_until == 0.0
        poller.start(race)

    alone.note_kill()

    assert alone.places_taken_until > alone.now
    for race in alone.hot_races:
        alone.later(1.0, partial(poller.poll, race))
    assert alone.recover(alone.now) > 0.5


def test_three_calls_in_flight_are_seen(alone: Alone, poller: Poller) -> None:
    alone.world.faults.add(rsusim.Fault(kind="slow", seconds=1.0, times=3))
    race = min(alone.hot_races)
    poller.start(race)
    poller.start(race)
    alone.watch._calls_made()
    poller.start(race)

    with pytest.raises(AssertionError, match="3 calls in flight at the vendor"):
        alone.watch._calls_made()


def test_more_calls_than_the_hour_has_are_seen(
    alone: Alone, poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "CALLS_PER_HOUR", {AMPLE: 2})
    race = min(alone.hot_races)
    poller.poll(race)
    poller.poll(race)
    alone.watch._calls_made()
    poller.poll(race)

    with pytest.raises(AssertionError, match=f"{AMPLE}: more than 2 calls in the hour before"):
        alone.watch._calls_made()


def test_a_service_may_end_by_itself_with_1_while_something_is_wrong_alone(alone: Alone) -> None:
    alone.active.add("nothing")
    alone.crew.add("run", "run")
    alone.wait(2.5)
    assert len(alone.crew.started) > 1, "it was not started again"

    alone.active.clear()
    with pytest.raises(AssertionError, match="run ended with 1 though nothing was wrong"):
        alone.wait(PATIENCE_SECONDS)

    alone.active.add("nothing")
    alone.crew.ended.clear()
    alone.commands_do("exit 2")
    with pytest.raises(AssertionError, match="run ended with 2"):
        alone.wait(PATIENCE_SECONDS)


def test_a_worker_that_outlives_its_killed_run_is_seen(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "ORPHAN_SECONDS", 0.5)
    alone.commands_do("sleep 60 & wait")
    alone.crew.add("run", "run")
    wait_until(lambda: len(alone.crew.pids()) == 2)

    alone.crew.kill("run")

    with pytest.raises(AssertionError, match="the worker of a `run` that was killed is still there"):
        alone.wait(PATIENCE_SECONDS)


@pytest.mark.parametrize("how", ["at the end", "to be replaced"])
def test_a_service_that_is_told_to_end_ends_with_the_signals_code(alone: Alone, how: str) -> None:
    alone.commands_do("trap 'exit 0' TERM; touch ready; while :; do sleep 0.05; done")
    alone.crew.add("run", "run")
    wait_until((alone.crew.folder / "ready").exists)

    with pytest.raises(AssertionError, match="run ended with 0 on SIGTERM"):
        alone.crew.end() if how == "at the end" else alone.crew.replace("run")


def test_a_process_that_takes_more_and_more_is_seen(alone: Alone) -> None:
    opens = "import sys; kept = []\nfor line in sys.stdin:\n"
    opens += "    kept += [open('/dev/null') for _ in range(int(line))]; print(flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", opens], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        for more in (0, watch.MORE_DESCRIPTORS, 1):
            child.stdin.write(f"{more}\n")
            child.stdin.flush()
            child.stdout.readline()
            if more != 1:
                alone.watch.processes({"run": psutil.Process(child.pid)})
        with pytest.raises(AssertionError, match=r"run has .* open descriptors and .*; at first "):
            alone.watch.processes({"run": psutil.Process(child.pid)})
        child.stdin.close()
