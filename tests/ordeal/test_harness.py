"""The ordeal itself: what it must not take for a fault, and what it must not pass over."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.ordeal import __main__ as program
from tests.ordeal import crew, troubles
from tests.ordeal.crew import Crew, environment
from tests.ordeal.ordeal import Ordeal, Told
from tests.ordeal.troubles import Going, Trouble

NOBODY = "http://127.0.0.1:1"


class Alone(Ordeal):
    """One without a database and without services, which nothing is looked at in."""

    def __init__(self, folder: Path) -> None:
        super().__init__(1, Told(), has_own_network=False)
        self.crew = Crew(folder, environment(folder, NOBODY, NOBODY))

    def _turn(self) -> None:
        pass

    def recover(self, since: float) -> float:
        return 0.0


def nothing(_: Ordeal) -> Going:
    yield


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Alone:
    """Every command ends with 1, after a moment; nobody stops one."""
    failing = tmp_path / "failing"
    failing.write_text("#!/bin/sh\nsleep 0.2\nexit 1\n")
    failing.chmod(0o755)
    monkeypatch.setattr(crew, "BIBWIRE", str(failing))
    monkeypatch.setattr(troubles, "STOPPED", {})
    monkeypatch.setitem(troubles.TROUBLES, "nothing", Trouble("nothing", nothing, (0.1, 0.1), "vendor"))
    return Alone(tmp_path)


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
