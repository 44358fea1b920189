"""An ordeal without a database, in which a script stands for every command."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.ordeal import crew, troubles
from tests.ordeal.crew import Crew, environment
from tests.ordeal.ordeal import Ordeal, Told
from tests.ordeal.troubles import Going, Trouble
from tests.waiting import PATIENCE_SECONDS

NOBODY = "http://127.0.0.1:1"


class Remembered(Crew):
    """One that waits for everybody when it is destroyed."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        super().__init__(folder, environment)
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, *arguments: str, stdin: str = "", **extra: str) -> subprocess.Popen[bytes]:
        process = super().start(name, *arguments, stdin=stdin, **extra)
        self.started.append(process)
        return process

    def destroy(self) -> None:
        super().destroy()
        for process in self.started:
            process.wait(PATIENCE_SECONDS)


class Alone(Ordeal):
    """
    Nothing but its processes is looked at in it.

    Attributes:
        is_polled: Whether its races are taken for polled again after each trouble.
    """

    def __init__(self, folder: Path, script: Path) -> None:
        super().__init__(1, Told(), has_own_network=False)
        self.is_polled = True
        self.moving.__enter__()
        self.crew: Remembered = Remembered(folder, environment(folder, NOBODY, NOBODY))
        self._script = script
        script.touch(mode=0o755)

    def commands_do(self, what: str) -> None:
        """Let every command and service do that, in the words of a shell."""
        self._script.write_text(f"#!/bin/sh\n{what}\n")

    def _look(self) -> None:
        self._look_at_services()

    def recover(self, since: float) -> float:
        return 0.0 if self.is_polled else super().recover(since)


def nothing(_: Ordeal) -> Going:
    yield


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Alone]:
    """Every command ends with 1, after a moment; nobody stops one."""
    monkeypatch.setattr(crew, "BIBWIRE", str(tmp_path / "script"))
    monkeypatch.setitem(troubles.TROUBLES, "nothing", Trouble("nothing", nothing, (0.1, 0.1), "vendor"))
    alone = Alone(tmp_path, tmp_path / "script")
    alone.commands_do("sleep 0.2; exit 1")
    monkeypatch.setattr(alone.random, "choice", lambda of: of[0])  # of what to stop it with: nothing
    yield alone
    alone.crew.destroy()
    alone.moving.__exit__()
