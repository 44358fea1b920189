"""Worker processes on a database of their own, with what can happen to them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import psycopg
from psycopg.rows import dict_row

from bibwire.store import embedded
from bibwire.store.session import INSTANCE_LOCKS
from tests.children import ROOT
from tests.waiting import PATIENCE_SECONDS


class Server:
    """An embedded PostgreSQL that can be killed and started again."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._holds = [embedded.start(home)]
        self.conninfo = self._holds[0].conninfo

    def crash(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Kill it as a power cut would, and start it again after `meanwhile`: every session is gone."""
        data = self._home / "postgres" / "data"
        postmaster = psutil.Process(int((data / "postmaster.pid").read_text().split()[0]))
        # None of its processes may write down what it has in memory.
        for process in (postmaster, *postmaster.children()):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        meanwhile()
        self._holds.append(embedded.start(self._home))

    def rows(self, query: str, **values: Any) -> list[dict[str, Any]]:
        """Read from it."""
        with psycopg.connect(self.conninfo, autocommit=True, row_factory=dict_row) as connection:
            return connection.execute(query.encode(), values).fetchall()

    def close(self) -> None:
        for hold in reversed(self._holds):
            hold.close()


@contextmanager
def own_server() -> Iterator[Server]:
    """A server for one test."""
    home = Path(tempfile.mkdtemp(prefix="bibwire-storm-", dir="/tmp"))
    home.chmod(0o755)  # as root the database's own user has to get in
    server = Server(home)
    try:
        yield server
    finally:
        server.close()
        shutil.rmtree(home, ignore_errors=True)


class Crew:
    """Worker processes."""

    def __init__(self, number: int, server: Server, **environment: str) -> None:
        self._environment = {**os.environ, **environment, "BIBWIRE_LOG_LEVEL": "ERROR"}
        self.workers: list[subprocess.Popen[bytes]] = []
        # Of each as it began, the server's process that keeps its places for calls.
        self.backends: list[int] = []
        try:
            for _ in range(number):
                self._add(server)
        except BaseException:
            self.destroy()
            raise

    def _add(self, server: Server) -> None:
        before = backends(server)
        self.workers.append(self._start())
        wait_until(lambda: backends(server) > before, "a worker at work")
        self.backends += backends(server) - before

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", "bibwire", "worker"], cwd=ROOT, env=self._environment)

    def kill(self, number: int) -> None:
        """Kill one, and start another in its place."""
        self.workers[number].kill()
        self.workers[number].wait()
        self.workers[number] = self._start()

    def tend(self) -> None:
        """Start again who ended because it found no database when it began, as `bibwire run` does."""
        for number, worker in enumerate(self.workers):
            if worker.poll() is not None:
                self.workers[number] = self._start()

    def freeze(self, number: int) -> None:
        self.workers[number].send_signal(signal.SIGSTOP)

    def thaw(self, number: int) -> None:
        self.workers[number].send_signal(signal.SIGCONT)

    def end(self) -> list[int]:
        """Tell all to end; return their exit codes."""
        for worker in self.workers:
            worker.send_signal(signal.SIGCONT)
            worker.terminate()
        return [worker.wait(PATIENCE_SECONDS) for worker in self.workers]

    def destroy(self) -> None:
        for worker in self.workers:
            with contextlib.suppress(psutil.Error):
                worker.kill()
            worker.wait()


def backends(server: Server) -> set[int]:
    """Return the server's processes that stand for a process of ours."""
    query = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = %(instances)s::oid"
    return {row["pid"] for row in server.rows(query, instances=INSTANCE_LOCKS)}


def wait_until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def all_since(server: Server, scopes: int, instant: datetime, column: str) -> bool:
    """Say whether the mirror of every race is complete to that instant."""
    rows = server.rows("SELECT * FROM bibwire.freshness")
    return len(rows) == scopes and all(row[column] and row[column] >= instant for row in rows)
