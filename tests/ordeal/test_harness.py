"""The ordeal itself: what it must not take for a fault, and what it must not pass over."""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ordeal import __main__ as program
from tests.ordeal import crew, troubles
from tests.ordeal import ordeal as ordeals
from tests.ordeal.crew import Crew, environment
from tests.ordeal.ordeal import Ordeal, Told
from tests.ordeal.troubles import Going, Trouble
from tests.waiting import PATIENCE_SECONDS

NOBODY = "http://127.0.0.1:1"


class Alone(Ordeal):
    """One without a database and without services, which nothing is looked at in."""

    def __init__(self, folder: Path) -> None:
        super().__init__(1, Told(), has_own_network=False)
        self.moving.__enter__()
        self.crew = Crew(folder, environment(folder, NOBODY, NOBODY))

    def _look(self) -> None:
        pass

    def recover(self, since: float) -> float:
        return 0.0


def nothing(_: Ordeal) -> Going:
    yield


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Alone]:
    """Every command ends with 1, after a moment; nobody stops one."""
    failing = tmp_path / "failing"
    failing.write_text("#!/bin/sh\nsleep 0.2\nexit 1\n")
    failing.chmod(0o755)
    monkeypatch.setattr(crew, "BIBWIRE", str(failing))
    monkeypatch.setattr(troubles, "STOPPED", {})
    monkeypatch.setitem(troubles.TROUBLES, "nothing", Trouble("nothing", nothing, (0.1, 0.1), "vendor"))
    alone = Alone(tmp_path)
    yield alone
    alone.moving.__exit__()


@pytest.mark.parametrize("names", [["nothing", "command sync"], ["command sync", "nothing"]])
def test_a_command_that_any_trouble_met_may_fail(alone: Alone, names: list[str]) -> None:
    program.play_together(alone, names, 0.5, compare=False)

    assert alone.told.codes == {"sync-whole 1": 1}


def test_a_command_that_no_trouble_met_may_not_fail_after_one_that_a_trouble_met(alone: Alone) -> None:
    program.play_together(alone, ["command sync", "nothing"], 0.5, compare=False)
    with pytest.raises(AssertionError, match="sync-whole ended with 1"):
        program.play_together(alone, ["command sync"], 0.5, compare=False)


def test_a_command_that_leaves_when_the_signal_comes_ends_as_it_would_have(
    alone: Alone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failing").write_text("#!/bin/sh\ntrap '' INT\nsleep 3.5\nexit 3\n")
    monkeypatch.setattr(troubles, "STOPPED", {signal.SIGINT: (130,)})
    monkeypatch.setattr(alone.random, "choice", lambda of: of[-1])

    program.play_together(alone, ["command sync without calls left"], 0.5, compare=False)

    assert alone.told.codes == {"sync-without-calls-left-SIGINT 3": 1}


def test_a_world_that_stands_still_ends_the_ordeal(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    alone.wait(0.1)

    def fail(**_: object) -> None:
        raise RuntimeError("canary")

    monkeypatch.setattr(alone.moving.life, "catch_up", fail)
    with pytest.raises(AssertionError, match=r"the world stands still: RuntimeError\('canary'\)"):
        alone.wait(PATIENCE_SECONDS)


def test_a_set_up_that_fails_is_told_with_where_and_the_summary(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def made(prefix: str, **_: object) -> str:
        folder = tmp_path / prefix
        folder.mkdir()
        return str(folder)

    def no_cluster() -> None:
        raise RuntimeError("canary")

    monkeypatch.setattr(tempfile, "mkdtemp", made)
    monkeypatch.setattr(ordeals, "Cluster", no_cluster)
    monkeypatch.setenv(program.INSIDE, "no")  # as if no network of its own could be made
    monkeypatch.setattr(sys, "argv", ["ordeal", "--minutes", "0"])

    assert program.main() == 1

    told = capsys.readouterr()
    assert "seed 1 FAILS: RuntimeError: canary" in told.out
    assert "seed 1: 0.0 minutes, 0 troubles, 0 calls, 0 looks" in told.out
    assert "in no_cluster" in told.err
