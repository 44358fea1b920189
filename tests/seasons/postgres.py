"""A PostgreSQL of its own whose clock stands in a file: it is moved, not waited for."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

import psutil
import psycopg

from bibwire.store import migrate

FAKETIME: Final = next(
    (path for path in Path("/usr/lib").glob("*/faketime/libfaketime.so.1")),
    Path("/usr/lib/faketime/libfaketime.so.1"),
)


def programs() -> Path | None:
    """Return the folder of a PostgreSQL's programs, the newest; None where there is none, or no faketime."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found and FAKETIME.exists() else None


# Waits for the end of who started it, however that ends, and sees to what is left then.
_GUARD: Final = """
import os, shutil, subprocess, sys
sys.stdin.read()
program, data, user, *folders = sys.argv[1:]
if os.path.exists(data):
    stop = [program, "-D", data, "-m", "immediate", "stop"]
    subprocess.run(stop, capture_output=True, user=user or None, cwd="/")
for folder in folders:
    shutil.rmtree(folder, ignore_errors=True)
"""


class MovedPostgres:
    """
    A server that is started, killed and started again, and whose time is what it is told.

    Use it as a context; its folder is gone afterwards.
    """

    def __init__(self, bin_folder: Path) -> None:
        self._programs = bin_folder
        self._home = Path(tempfile.mkdtemp(prefix="bibwire-season-", dir="/tmp"))
        self._user: str | None = None
        if os.geteuid() == 0:
            names = {entry.pw_name for entry in pwd.getpwall()}
            self._user = next(name for name in ("postgres", "nobody") if name in names)
            os.chown(self._home, pwd.getpwnam(self._user).pw_uid, pwd.getpwnam(self._user).pw_gid)
        self._home.chmod(0o755)
        # In memory where there is such a folder: it is written with each leap.
        shared = Path("/dev/shm")
        self._shared = Path(
            tempfile.mkdtemp(prefix="bibwire-season-", dir=shared if shared.is_dir() else "/tmp")
        )
        self._shared.chmod(0o755)
        self._clock = self._shared / "time"
        self.is_up = False

    def __enter__(self) -> Self:
        left = [self._data, self._user or "", str(self._home), str(self._shared)]
        self._guard = subprocess.Popen(
            [sys.executable, "-c", _GUARD, str(self._program("pg_ctl")), *left],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        self._run(
            "initdb",
            "-D",
            self._data,
            "-A",
            "trust",
            "-U",
            "postgres",
            "--no-sync",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
        )
        self.set_clock(datetime(2026, 1, 1, tzinfo=UTC))
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_up:
            self.kill()
        shutil.rmtree(self._home)
        shutil.rmtree(self._shared)
        self._guard.communicate()

    @property
    def _kept(self) -> Path:
        return self._home / "kept"

    @property
    def _data(self) -> str:
        return str(self._home / "data")

    def conninfo(self, database: str) -> str:
        """Return how to connect to one of its databases."""
        return f"host={self._home} user=postgres dbname={database}"

    def set_clock(self, now: datetime) -> None:
        """Let it be this instant."""
        fresh = self._shared / "later"
        fresh.write_text(f"{now.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}\n")
        fresh.replace(self._clock)

    def start(self) -> None:
        """Start it, and return once it answers."""
        options = (
            f"-c listen_addresses= -c unix_socket_directories={self._home} -c fsync=off -c jit=off"
            " -c synchronous_commit=off -c full_page_writes=off -c autovacuum=off -c timezone=UTC"
        )
        faked = {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(self._clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "TZ": "UTC",
        }
        self._run(
            "pg_ctl", "-D", self._data, "-w", "-l", str(self._home / "log"), "-o", options, "start", **faked
        )
        self.is_up = True

    def kill(self) -> None:
        """End it as a crash does; nothing if it is down already."""
        if not self.is_up:
            return
        self._run("pg_ctl", "-D", self._data, "-w", "-m", "immediate", "stop")
        self.is_up = False

    def stop(self) -> None:
        """End it as an administrator does: sessions are ended, and what they did is kept."""
        self._run("pg_ctl", "-D", self._data, "-w", "-m", "fast", "stop")
        self.is_up = False

    def keep(self) -> None:
        """Keep how it stands, as a replica would have it that sees nothing from now on."""
        postmaster = psutil.Process(int(Path(self._data, "postmaster.pid").read_text().split()[0]))
        family = [postmaster, *postmaster.children()]
        for process in family:
            process.suspend()
        try:
            shutil.rmtree(self._kept, ignore_errors=True)
            self._run("cp", "-a", self._data, str(self._kept))
        finally:
            for process in family:
                process.resume()

    def take_back(self) -> None:
        """Let it be as it was when it was kept. It is down meanwhile."""
        shutil.rmtree(self._data)
        self._kept.rename(self._data)
        Path(self._data, "postmaster.pid").unlink()

    def make_template(self) -> None:
        """Make the database that others are copied from."""
        with psycopg.connect(self.conninfo("postgres"), autocommit=True) as connection:
            connection.execute("CREATE DATABASE season")
        migrate.upgrade(self.conninfo("season"))

    def fresh(self, name: str) -> str:
        """Return how to connect to a new, migrated, empty database; one of the same name is gone."""
        with psycopg.connect(self.conninfo("postgres"), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
            connection.execute(f"CREATE DATABASE {name} TEMPLATE season".encode())
        return self.conninfo(name)

    def _program(self, name: str) -> str | Path:
        return self._programs / name if (self._programs / name).exists() else name

    def _run(self, program: str, *arguments: str, **environment: str) -> None:
        subprocess.run(
            [self._program(program), *arguments],
            check=True,
            user=self._user,
            cwd=self._home,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C", **environment},
            stdout=subprocess.DEVNULL,
        )
