"""The ordeal itself: what it must not take for a fault, and what it must not pass over."""

from __future__ import annotations

import signal
import sys
import tempfile
from pathlib import Path

import pytest

from tests.ordeal import __main__ as program
from tests.ordeal import ordeal as ordeals
from tests.ordeal import troubles
from tests.ordeal.conftest import Alone
from tests.ordeal.vendor import AMPLE
from tests.waiting import PATIENCE_SECONDS


@pytest.mark.parametrize("names", [["nothing", "command sync"], ["command sync", "nothing"]])
def test_a_command_that_any_trouble_met_may_fail(alone: Alone, names: list[str]) -> None:
    program.play_together(alone, names, 0.5, compare=False)

    assert alone.told.codes == {"sync-whole 1": 1}


def test_a_command_that_no_trouble_met_may_not_fail_after_one_that_a_trouble_met(alone: Alone) -> None:
    program.play_together(alone, ["command sync", "nothing"], 0.5, compare=False)
    with pytest.raises(AssertionError, match="sync-whole ended with 1"):
        program.play_together(alone, ["command sync"], 0.5, compare=False)


def test_a_command_that_leaves_when_the_signal_comes_ends_as_it_would_have(
    alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone.commands_do("trap '' INT; sleep 3.5; exit 3")
    stop_with(signal.SIGINT, alone, monkeypatch)

    program.play_together(alone, ["command sync without calls left"], 0.5, compare=False)

    assert alone.told.codes == {"sync-without-calls-left-SIGINT 3": 1}


def stop_with(number: signal.Signals, alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each command be stopped by this signal."""
    monkeypatch.setattr(alone.random, "choice", lambda of: number)


def test_a_command_that_is_stopped_may_end_by_its_signal(
    alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone.commands_do("exec sleep 60")
    stop_with(signal.SIGTERM, alone, monkeypatch)

    program.play_together(alone, ["command sync"], 0.5, compare=False)

    assert alone.told.codes == {"sync-SIGTERM -15": 1}


@pytest.mark.parametrize(
    ("does", "wrong"),
    [
        ("trap 'exit 1' TERM; while :; do sleep 0.05; done", "sync-SIGTERM ended with 1, not "),
        ("trap '' TERM; exec sleep 60", "sync-SIGTERM ended: not within 1 s"),
        # Nobody had told it to end yet.
        ("exit 143", "sync-SIGTERM ended with 143, not "),
    ],
)
def test_a_command_that_is_stopped_ends_in_no_other_way(
    alone: Alone, monkeypatch: pytest.MonkeyPatch, does: str, wrong: str
) -> None:
    monkeypatch.setattr(troubles, "STOPPED_SECONDS", 1.0)
    alone.commands_do(does)
    stop_with(signal.SIGTERM, alone, monkeypatch)

    # Longer than it takes until the signal comes.
    with pytest.raises(AssertionError, match=wrong):
        program.play_together(alone, ["command sync"], 3.5, compare=False)


@pytest.mark.parametrize(
    ("does", "wrong"),
    [
        ("exit 130", "sync-whole ended with 130, not "),
        ("exec sleep 60", "sync-whole ended: not within 1 s"),
    ],
)
def test_a_command_that_nobody_stops_ends_in_time_and_with_its_own_code(
    alone: Alone, monkeypatch: pytest.MonkeyPatch, does: str, wrong: str
) -> None:
    monkeypatch.setattr(troubles, "COMMAND_SECONDS", 1.0)
    alone.commands_do(does)

    with pytest.raises(AssertionError, match=wrong):
        program.play_together(alone, ["nothing", "command sync"], 0.5, compare=False)


RESUMED = 'echo "$*" >> asked; [ $2 = pause ] || {{ echo canary >&2; exit {code}; }}'


def test_a_partner_that_was_paused_is_resumed(alone: Alone) -> None:
    alone.commands_do(RESUMED.format(code=0))

    program.play_together(alone, ["command pause"], 0.5, compare=False)

    asked = (alone.crew.folder / "asked").read_text().splitlines()
    assert asked == [f"partner pause {AMPLE}", f"partner resume {AMPLE}"]


def test_a_partner_cannot_be_resumed_only_while_something_is_wrong(alone: Alone) -> None:
    alone.commands_do(RESUMED.format(code=1))
    program.play_together(alone, ["nothing", "command pause"], 0.5, compare=False)
    with pytest.raises(AssertionError, match="canary"):
        program.play_together(alone, ["command pause"], 0.5, compare=False)

    alone.commands_do(RESUMED.format(code=2))
    with pytest.raises(AssertionError, match="canary"):
        program.play_together(alone, ["nothing", "command pause"], 0.5, compare=False)


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
