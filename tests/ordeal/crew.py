"""
The program's processes: kept running as systemd keeps services, and the commands of operators.

What each says on standard error goes to a file of its own.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from tests.cli.conftest import BIBWIRE, ENCRYPTION_KEY
from tests.waiting import PATIENCE_SECONDS

# As systemd does with Restart=always, RestartSec=1.
AGAIN_SECONDS: Final = 1.0
# What is promised of an end that is asked for.
END_SECONDS: Final = 10.0
# A worker whose `run` was killed notices that by its standard input, and ends in order.
ORPHAN_SECONDS: Final = 20.0
_LEFT_OUT: Final = re.compile(r"BIBWIRE_|PG|LD_PRELOAD|FAKETIME|\w+_proxy$|\w+_PROXY$")


def environment(folder: Path, database_url: str, api_url: str) -> dict[str, str]:
    """Return what all processes are started with; `folder` holds their home and what they leave behind."""
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    clean = {name: value for name, value in os.environ.items() if not _LEFT_OUT.match(name)}
    return clean | {
        "BIBWIRE_DATABASE_URL": database_url,
        "BIBWIRE_API_URL": api_url,
        "BIBWIRE_HOME": str(folder / "home"),
        "BIBWIRE_SECRET_KEY": ENCRYPTION_KEY,
        "BIBWIRE_VERIFY_AT": "off",
        "TMPDIR": str(temporary),
    }


@dataclass(frozen=True)
class Ended:
    """A process that ended by itself, and with which code."""

    name: str
    code: int
    at: float


@dataclass
class Service:
    """One service: a command that goes on. `extra` is added to its environment when it is started."""

    name: str
    arguments: Sequence[str]
    extra: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    start_at: float = 0.0
    # It was killed or told to end by us: its code says nothing.
    is_expected: bool = False


class Crew:
    """
    Services, and commands beside them.

    Attributes:
        ended: Services that ended though nobody told them to, since `ended` was last emptied.
        orphans: Workers whose `run` was killed, with the monotonic instant by which they have to be gone.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.environment = dict(environment)
        self.services: dict[str, Service] = {}
        self.ended: list[Ended] = []
        self.orphans: list[tuple[psutil.Process, float]] = []

    def add(self, name: str, *arguments: str) -> Service:
        """Start a service, and keep it running."""
        service = self.services[name] = Service(name, arguments)
        service.process = self.start(name, *arguments)
        return service

    def start(self, name: str, *arguments: str, stdin: str = "", **extra: str) -> subprocess.Popen[bytes]:
        """Start a command; what it says is appended to NAME.out and NAME.err."""
        with self._file(name, "out").open("ab") as out, self._file(name, "err").open("ab") as err:
            process = subprocess.Popen(
                [BIBWIRE, *arguments],
                cwd=self.folder,
                env=self.environment | extra,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            process.stdin.write(stdin.encode())
            process.stdin.close()
        return process

    def run(self, *arguments: str, stdin: str = "") -> int:
        """Run a command to its end."""
        return self.start(arguments[0], *arguments, stdin=stdin).wait(PATIENCE_SECONDS)

    def said(self, name: str) -> str:
        """Return what a service or command has said on standard error."""
        file = self._file(name, "err")
        return file.read_text("utf-8", "replace") if file.exists() else ""

    def _file(self, name: str, ending: str) -> Path:
        return self.folder / f"{name.replace(' ', '-')}.{ending}"

    def tend(self) -> None:
        """Note who has ended, and start it again."""
        for service in self.services.values():
            if service.process is not None and service.process.poll() is not None:
                if not service.is_expected:
                    self.ended.append(Ended(service.name, service.process.returncode, time.time()))
                service.process, service.is_expected = None, False
                service.start_at = time.monotonic() + AGAIN_SECONDS
            if service.process is None and time.monotonic() >= service.start_at:
                service.process = self.start(service.name, *service.arguments, **service.extra)

    def kill(self, name: str) -> None:
        """Kill a service (-9); it is started again."""
        service = self.services[name]
        if service.process is None:
            return
        service.is_expected = True
        until = time.monotonic() + ORPHAN_SECONDS
        self.orphans += [(child, until) for child in children(service.process.pid)]
        service.process.kill()

    def replace(self, name: str, **extra: str) -> None:
        """Stop a service in order; it is started again with `extra` in its environment."""
        service = self.services[name]
        service.extra = extra
        if service.process is not None:
            service.is_expected = True
            assert_ends(service.process, name, self.said(name))

    def pids(self) -> dict[str, psutil.Process]:
        """Return the living processes of the services by name, children of `run` too."""
        found: dict[str, psutil.Process] = {}
        for service in self.services.values():
            if service.process is not None and service.process.poll() is None:
                with suppress(psutil.NoSuchProcess):
                    found[service.name] = psutil.Process(service.process.pid)
                for number, child in enumerate(children(service.process.pid), 1):
                    found[f"{service.name}, its worker {number}"] = child
        return found

    def orphans_left(self) -> list[psutil.Process]:
        """Return workers that should be gone."""
        self.orphans = [(child, until) for child, until in self.orphans if child.is_running()]
        now = time.monotonic()
        return [child for child, until in self.orphans if now > until]

    def end(self) -> None:
        """Tell all to end; fail unless each does, in time and with the code that is promised."""
        running = {s.name: s.process for s in self.services.values() if s.process is not None}
        self.services.clear()
        for process in running.values():
            process.terminate()
        until = time.monotonic() + END_SECONDS
        for name, process in running.items():
            code = process.wait(max(0.1, until - time.monotonic()))
            assert code == 128 + signal.SIGTERM, f"{name} ended with {code} on SIGTERM"

    def destroy(self) -> None:
        """End whatever is left."""
        for process in ours(self.environment["TMPDIR"]):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)
                process.kill()


def assert_ends(process: subprocess.Popen[bytes], name: str, said: str) -> None:
    """Tell a process to end, and fail unless it does as promised."""
    process.terminate()
    code = process.wait(END_SECONDS)
    # Before it listens to signals it ends by the signal itself.
    assert code in (128 + signal.SIGTERM, -signal.SIGTERM), f"{name} ended with {code} on SIGTERM: {said}"


def children(pid: int) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def ours(temporary: str) -> list[psutil.Process]:
    """Return processes that were started with this folder for what is temporary."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get("TMPDIR") == temporary:
                found.append(process)
    return found
