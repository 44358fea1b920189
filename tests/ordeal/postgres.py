"""A PostgreSQL that gets into every trouble: a server with a replica, each on a small disk of its own."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psutil
import psycopg
from psycopg.rows import DictRow, dict_row

from bibwire.store import embedded_programs
from tests.ordeal.disk import Disk
from tests.waiting import PATIENCE_SECONDS

DATABASE: Final = "bibwire"
# What the program connects as: it owns its database and is no superuser.
ROLE: Final = "timer"
# Room for the database and its log, and little more.
DISK_MEGABYTES: Final = 300
SETTINGS: Final = (
    "listen_addresses=",
    "max_connections=80",
    "shared_buffers=32MB",
    "fsync=off",  # its processes are killed, never the computer
    "wal_level=replica",
    "max_wal_size=64MB",
    "wal_keep_size=32MB",
    "wal_receiver_timeout=5s",
    "hot_standby=on",
)
# The observer waits for nobody's lock: then it looks a second later.
OBSERVER: Final = "-c lock_timeout=2s -c statement_timeout=20s -c idle_in_transaction_session_timeout=20s"


def programs() -> Path:
    """Return the folder of the programs of the system's newest PostgreSQL, or else of the embedded one."""
    found = [
        path
        for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")
        if path.parts[-3].isdigit() and int(path.parts[-3]) >= 15
    ]
    if found:
        return max(found, key=lambda path: int(path.parts[-3])).parent
    copies = Path(tempfile.gettempdir()) / "bibwire-ordeal-programs"
    return embedded_programs.find_programs(embedded_programs.find_account(), copies).folder / "bin"


class Node:
    """One server: its data on a disk of its own, its socket in the same folder."""

    def __init__(self, folder: Path, bin_folder: Path, user: str | None) -> None:
        self.folder = folder
        self._programs = bin_folder
        self._user = user
        folder.mkdir()
        self.disk = Disk(folder / "disk", DISK_MEGABYTES)
        self.disk.make(user)
        self._own(folder)
        self.data = self.disk.folder / "data"
        self.log = folder / "log"

    def _own(self, path: Path) -> None:
        if self._user is not None:
            entry = pwd.getpwnam(self._user)
            os.chown(path, entry.pw_uid, entry.pw_gid)

    @property
    def socket(self) -> Path:
        return self.folder / ".s.PGSQL.5432"

    def conninfo(self, database: str = DATABASE) -> str:
        """Return how its superuser connects, past the network that the program uses."""
        return f"host={self.folder} port=5432 user=postgres dbname={database}"

    @property
    def is_up(self) -> bool:
        return self.run("pg_ctl", "-D", self.data, "status", check=False) == 0

    def start(self) -> None:
        options = " ".join(f"-c {each}" for each in (*SETTINGS, f"unix_socket_directories={self.folder}"))
        self.run("pg_ctl", "-D", self.data, "-w", "-t", "60", "-l", self.log, "-o", options, "start")

    def processes(self) -> list[psutil.Process]:
        """Return its processes, the first one before its children."""
        try:
            postmaster = psutil.Process(int((self.data / "postmaster.pid").read_text().split()[0]))
            return [postmaster, *postmaster.children(recursive=True)]
        except (OSError, psutil.NoSuchProcess):
            return []

    def kill(self) -> None:
        """End it as a power cut does: none of its processes writes down what it has in memory."""
        killed = self.processes()
        for process in killed:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(killed, PATIENCE_SECONDS)
        self.socket.unlink(missing_ok=True)

    def restart(self) -> None:
        """Restart it as a package upgrade does."""
        self.run("pg_ctl", "-D", self.data, "-w", "-t", "60", "-m", "fast", "restart")

    def run(self, program: str, *arguments: str | Path, check: bool = True) -> int:
        """Run one of its programs as its user; return the exit code. What it says goes to a file."""
        with (self.folder / "said").open("ab") as said:
            return subprocess.run(
                [self._programs / program, *arguments],
                check=check,
                user=self._user,
                cwd=self.folder,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            ).returncode


class Cluster:
    """The server in use, and its replica where one can be made. Close it at the end."""

    def __init__(self) -> None:
        self._programs = programs()
        self.home = Path(tempfile.mkdtemp(prefix="bibwire-ordeal-db-", dir="/tmp"))
        self.home.chmod(0o755)
        self._user: str | None = None
        if os.geteuid() == 0:
            names = {entry.pw_name for entry in pwd.getpwall()}
            self._user = next(name for name in ("postgres", "nobody") if name in names)
        self._numbers = 0
        self._nodes: list[Node] = []
        self.primary = self._node()
        self.replica: Node | None = None
        try:
            self._make()
        except BaseException:
            self.close()
            raise

    def _make(self) -> None:
        node = self.primary
        node.run(
            *("initdb", "-D", node.data, "-A", "trust", "-U", "postgres", "--no-sync"),
            *("-E", "UTF8", "--locale=C.UTF-8", "--wal-segsize=4"),
        )
        node.start()
        with self.superuser("postgres") as connection:
            connection.execute(f"CREATE ROLE {ROLE} LOGIN".encode())
            connection.execute(f"CREATE DATABASE {DATABASE} OWNER {ROLE}".encode())

    def _node(self) -> Node:
        self._numbers += 1
        node = Node(self.home / str(self._numbers), self._programs, self._user)
        self._nodes.append(node)
        return node

    @property
    def has_replicas(self) -> bool:
        return (self._programs / "pg_basebackup").exists()

    def add_replica(self) -> None:
        """Copy the server, and let the copy follow it."""
        node = self._node()
        node.run(
            *("pg_basebackup", "-D", node.data, "-R", "-X", "stream", "-c", "fast", "--no-sync"),
            *("-h", self.primary.folder, "-U", "postgres"),
        )
        node.start()
        self.replica = node
        until = time.monotonic() + PATIENCE_SECONDS
        while not self.rows("SELECT FROM pg_stat_replication WHERE state = 'streaming'"):
            assert time.monotonic() < until, "the replica does not follow"
            time.sleep(0.1)

    def hold_back_replica(self) -> None:
        """From now on what is committed does not reach the replica; all that was has."""
        behind = "SELECT FROM pg_stat_replication WHERE flush_lsn < %(at)s::pg_lsn"
        [row] = self.rows("SELECT pg_current_wal_flush_lsn()::text AS at")
        until = time.monotonic() + PATIENCE_SECONDS
        while self.rows(behind, at=row["at"]):
            assert time.monotonic() < until, "the replica does not follow"
            time.sleep(0.01)
        for row in self.rows("SELECT pid FROM pg_stat_replication"):
            os.kill(row["pid"], signal.SIGSTOP)

    def promote(self) -> None:
        """Kill the server, and let the replica take its place."""
        assert self.replica is not None
        old, self.primary, self.replica = self.primary, self.replica, None
        old.kill()
        self.primary.run("pg_ctl", "-D", self.primary.data, "-w", "-t", "60", "promote")
        old.disk.remove()

    @contextmanager
    def superuser(self, database: str = DATABASE) -> Iterator[psycopg.Connection[DictRow]]:
        """Connect as a DBA does."""
        with psycopg.connect(
            self.primary.conninfo(database), autocommit=True, row_factory=dict_row, connect_timeout=10
        ) as connection:
            yield connection

    def rows(self, query: str, **values: Any) -> list[dict[str, Any]]:
        with self.superuser() as connection:
            return connection.execute(query.encode(), values).fetchall()

    @contextmanager
    def snapshot(self) -> Iterator[psycopg.Connection[DictRow]]:
        """Look at one moment of the database."""
        with psycopg.connect(
            self.primary.conninfo(), row_factory=dict_row, connect_timeout=5, options=OBSERVER
        ) as connection:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield connection

    def dump(self, file: Path) -> None:
        """Keep what the database holds, where it can be read."""
        node = self.primary
        if (self._programs / "pg_dump").exists():
            node.run("pg_dump", "-h", node.folder, "-U", "postgres", "-f", "dump.sql", DATABASE, check=False)
            with contextlib.suppress(OSError):
                shutil.copy(node.folder / "dump.sql", file)

    def close(self) -> None:
        for node in self._nodes:
            node.kill()
            node.disk.remove()
        shutil.rmtree(self.home, ignore_errors=True)
