"""
The commands as a user runs them: processes, with a database and a simulated vendor of today.

Every run checks that no secret left by standard output, standard error or the log.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import pytest

import rsusim
from tests.waiting import PATIENCE_SECONDS

BIBWIRE = str(Path(sys.executable).with_name("bibwire"))
ENCRYPTION_KEY = "5a" * 32


@dataclass(frozen=True)
class Ended:
    """A run that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON object on standard output; anything else there is an error."""
        return json.loads(self.out)

    @property
    def told(self) -> str:
        """The one sentence on standard error, without warnings of the log."""
        lines = [line for line in self.err.splitlines() if line.startswith("bibwire: ")]
        assert len(lines) == 1, self.err
        return lines[0].removeprefix("bibwire: ")


class Shell:
    """Runs `bibwire` with an environment of its own."""

    def __init__(self, folder: Path, secrets: list[str], **settings: str) -> None:
        self.folder = folder
        self.started: list[subprocess.Popen[str]] = []
        self.home = folder / "home"
        self.log_file = folder / "bibwire.jsonl"
        self.secrets = [*secrets, ENCRYPTION_KEY]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("BIBWIRE_")}
        self.environment = clean | {
            "BIBWIRE_HOME": str(self.home),
            "BIBWIRE_LOG_FILE": str(self.log_file),
            "BIBWIRE_SECRET_KEY": ENCRYPTION_KEY,
            "BIBWIRE_RETRY_SECONDS": "0",
            **settings,
        }

    def run(self, *arguments: str, stdin: str | None = None, **settings: str | None) -> Ended:
        """Run a command to its end. A setting that is None is taken out of the environment."""
        ended = subprocess.run(
            [BIBWIRE, *arguments],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            encoding="utf-8",
            cwd=self.folder,
            env=self._with(settings),
            timeout=PATIENCE_SECONDS,
        )
        self.check_secrets(ended.stdout, ended.stderr)
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    def start(self, *arguments: str, **settings: str | None) -> subprocess.Popen[str]:
        """Start a command that goes on; `stop` ends it."""
        process = subprocess.Popen(
            [BIBWIRE, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            cwd=self.folder,
            env=self._with(settings),
        )
        self.started.append(process)
        return process

    def stop(self, process: subprocess.Popen[str], number: int = signal.SIGINT) -> Ended:
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
        self.check_secrets(out, err)
        return Ended(process.returncode, out, err)

    def start_on_screen(self, *arguments: str) -> tuple[subprocess.Popen[bytes], int]:
        """
        Start what draws a screen, in a session without a terminal of its own; back: its terminal's end.

        What it says on standard error goes to the file `screen.err`.
        """
        with (self.folder / "screen.err").open("wb") as told:
            return self._start_on_terminal(*arguments, told=told, COLUMNS="80", LINES="24")

    def on_terminal(
        self, *arguments: str, answers: Sequence[tuple[str, str]] = (), columns: int = 150
    ) -> tuple[int, str]:
        """
        Run a command on a terminal and return its exit code and all that was shown.

        Args:
            answers: What to wait for, and what to type then; a text that is asked for hidden is
                typed once the terminal does not echo, for what is typed before is thrown away.
            columns: How wide the terminal is.
        """
        process, ours = self._start_on_terminal(
            *arguments, prepare=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0), COLUMNS=str(columns)
        )
        shown = b""
        with suppress(OSError):  # Linux's way to say that the other end is closed
            for awaited, text in answers:
                while awaited.encode() not in shown:
                    shown += os.read(ours, 1000)
                if text in self.secrets:
                    while termios.tcgetattr(ours)[3] & termios.ECHO:
                        time.sleep(0.01)
                os.write(ours, f"{text}\n".encode())
            while chunk := os.read(ours, 1000):
                shown += chunk
        os.close(ours)
        code, told = process.wait(PATIENCE_SECONDS), shown.decode("utf-8", "replace")
        self.check_secrets(told)
        return code, told

    def _start_on_terminal(
        self,
        *arguments: str,
        told: IO[bytes] | None = None,
        prepare: Callable[[], object] | None = None,
        **variables: str,
    ) -> tuple[subprocess.Popen[bytes], int]:
        """
        Start a command in a session of its own; back: its terminal's end.

        Args:
            told: Where standard error goes; None: to the terminal as well.
            prepare: What the new process does before it becomes the command.
        """
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [BIBWIRE, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs if told is None else told,
            cwd=self.folder,
            env=self.environment | {"TERM": "xterm"} | variables,
            start_new_session=True,
            preexec_fn=prepare,
        )
        os.close(theirs)
        return process, ours

    def check_secrets(self, *texts: str) -> None:
        log = self.log_file.read_text("utf-8") if self.log_file.exists() else ""
        for secret in self.secrets:
            for text in (*texts, log):
                assert secret not in text

    def _with(self, settings: dict[str, str | None]) -> dict[str, str]:
        changed = {f"BIBWIRE_{name}": value for name, value in settings.items()}
        merged = {**self.environment, **changed}
        return {name: value for name, value in merged.items() if value is not None}

    def add(self, account: rsusim.Account, *options: str) -> Ended:
        """Add a partner with the account's name and key."""
        return self.run(
            "partner", "add", account.name, "--api-key", account.api_key, "--secret-stdin", *options,
            stdin=account.api_secret,
        )  # fmt: skip


@pytest.fixture
def world() -> rsusim.World:
    """Two partners, three races of today, one of them shared; at rest."""
    return rsusim.worlds.small(now=datetime.now(UTC))


@pytest.fixture
def shell(tmp_path: Path, database_url: str, simulator: rsusim.Server) -> Iterator[Shell]:
    secrets = [
        secret
        for account in simulator.world.accounts.values()
        for secret in (
            account.api_key,
            account.api_secret,
            account.v2_key,
            account.v2_secret,
            account.bearer_token,
        )
    ]
    shell = Shell(tmp_path, secrets, BIBWIRE_DATABASE_URL=database_url, BIBWIRE_API_URL=simulator.base_url)
    yield shell
    for process in shell.started:
        if process.poll() is None:  # of a test that failed
            process.kill()
            process.communicate()


@pytest.fixture
def peak(shell: Shell, world: rsusim.World) -> rsusim.Account:
    """The first partner, added."""
    account = world.accounts["Peak Timing"]
    assert shell.add(account).code == 0
    return account


@pytest.fixture
def bare(tmp_path: Path) -> Shell:
    """A shell without database or vendor, for what ends before it needs one."""
    return Shell(
        tmp_path,
        [],
        BIBWIRE_DATABASE_URL="host=127.0.0.1 port=1 user=x",
        BIBWIRE_API_URL="http://127.0.0.1:9",
    )
