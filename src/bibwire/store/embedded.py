"""
The embedded PostgreSQL under BIBWIRE_HOME: started by the first process, stopped by the last.

Every process that uses the server holds a shared lock, which the system drops when the process dies,
however it dies; who can make it exclusive is the last, and stops the server. Making, starting and
stopping happen under a second lock, one process at a time. Nothing is believed but an answer to
`select 1`: pid files outlive their server and may name a stranger, so they are removed when no server
runs on the folder.

A server whose last user was killed goes on running; the next start uses it, and its end stops it.
This waits for processes of the system and not for the world's time, so it takes no Clock.

    HOME/postgres/              ours; as root owned by root, so that nothing in it can be swapped
        data/                   the database and its socket, 0700; data/log: a file a weekday
        startup.log             what the newest start said
        starting.lock, users.lock
        programs-VERSION/       a copy, only where root's programs are out of reach
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import socket
import stat
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

import psutil
import psycopg
from psycopg import sql

from bibwire.domain.errors import DatabaseUnavailable, SettingsError
from bibwire.store import connections
from bibwire.store.embedded_folder import SHARED_MEMORY, USER, check_owner, make_data, make_folder
from bibwire.store.embedded_programs import (
    UNFINISHED,
    Programs,
    check_reachable,
    find_account,
    find_programs,
)
from bibwire.store.file_lock import FileLock
from bibwire.store.refusals import EMBEDDED

# Names the socket; outside Windows nothing listens on TCP.
PORT = 5432
# By it an error tells that it is about this server.
_AS_EMBEDDED: Final = f"fallback_application_name={EMBEDDED}"
# A socket's path may have 107 characters on Linux and 103 on macOS.
SOCKET_PATH_LENGTH = 100
# The title of a server of ours; the sixteen digits say of which folder.
MARK = re.compile(r"bibwire-[0-9a-f]{16}")
# A server that ends right after its start three times has a fault that waiting does not mend.
LAUNCHES = 3
POLL_SECONDS = 0.02
# PostgreSQL's own default; a shutdown writes all that is not yet on disk.
STOP_SECONDS = 60
FULL = (errno.ENOSPC, errno.EDQUOT)
# As the server words it, whose messages are in English.
FULL_TEXT = os.strerror(errno.ENOSPC)
# A larger log is removed at the next start.
LOG_BYTES = 10_000_000


def start(home: Path, *, database: str = "bibwire", wait_seconds: float = 60) -> EmbeddedServer:
    """
    Return the server under `home`, made and started if need be; it has answered `select 1`.

    Args:
        home: BIBWIRE_HOME; made if missing.
        database: Made if missing.
        wait_seconds: How long another process, a start or a crash recovery may take.

    Raises:
        SettingsError: If the folder cannot be used or is of another version; it was left alone.
        DatabaseUnavailable: If the server does not start or does not answer.
    """
    connections.use_ours_alone()
    deadline = time.monotonic() + wait_seconds
    base = home.expanduser().resolve() / "postgres"
    try:
        if sys.platform != "win32" and os.geteuid() == 0:
            check_owner(base.parent)
        check_owner(base)
        account = find_account()
        if account is not None:
            check_reachable(base, account)
        # The database's own user must be able to pass, where there is one.
        make_folder(base, 0o700 if account is None else 0o711)
        with contextlib.closing(FileLock(base / "starting.lock")) as starting:
            if not starting.acquire(exclusive=True, wait_seconds=deadline - time.monotonic()):
                raise DatabaseUnavailable(
                    f"Another process has been starting or stopping the database under {base} for "
                    "too long: wait for it, or end it, and try again."
                )
            for rubbish in base.glob(f"{UNFINISHED}*"):
                shutil.rmtree(rubbish, ignore_errors=True)
            programs = find_programs(account, base)
            make_data(base, programs)
            server = EmbeddedServer(base, database, programs)
            server._bring_up(deadline)
    except OSError as error:
        if error.errno in FULL:
            raise _disk_full(base) from error
        raise SettingsError(
            f"The embedded PostgreSQL cannot use {error.filename or base} ({error.strerror}): mend "
            "that, or set BIBWIRE_HOME to another folder."
        ) from error
    except psycopg.Error as error:
        raise DatabaseUnavailable(
            f"The embedded PostgreSQL refused its set-up ({_first_line(error)}): look into "
            f"{base / 'data' / 'log'}."
        ) from error
    return server


def stop_abandoned(home: Path, *, wait_seconds: float = 5) -> None:
    """
    Stop the server under `home` if nobody holds it any more, as after its last user was killed.

    Args:
        wait_seconds: How long to wait for locks of the dead, which the system drops.
    """
    base = home.expanduser().resolve() / "postgres"
    if not (base / "data").exists():
        return
    with contextlib.closing(FileLock(base / "starting.lock")) as starting:
        if not starting.acquire(exclusive=True, wait_seconds=wait_seconds):
            return
        server = EmbeddedServer(base, "bibwire", find_programs(find_account(), base))
        try:
            if server._users.acquire(exclusive=True, wait_seconds=wait_seconds):
                server._stop()
        finally:
            server._users.close()


class EmbeddedServer:
    """
    One process's hold on the running server. Made by `start`.

    Attributes:
        conninfo: A URI for libpq. It may contain a password (on Windows): not to be logged.
        version: For instance `18.6`.
    """

    conninfo: str
    version: str

    def __init__(self, base: Path, database: str, programs: Programs) -> None:
        self._base = base
        self._data = base / "data"
        self._database = database
        self._programs = programs
        self._users = FileLock(base / "users.lock")
        self._holder = os.getpid()
        # Stands in the title of every process of this server, to know them by also where the system
        # hides their folder, as it does from root in a container. From the inode, because the folder
        # may be moved while in use.
        status = self._data.stat()
        self._owner = status.st_uid
        identity = hashlib.sha256(f"{status.st_dev}:{status.st_ino}".encode()).hexdigest()[:16]
        self._mark = f"bibwire-{identity}"
        assert MARK.fullmatch(self._mark)
        self._socket_folder = self._data
        path = os.fsencode(self._data / f".s.PGSQL.{PORT}")
        if len(path) > SOCKET_PATH_LENGTH or b"," in path:  # libpq would read a list of hosts
            self._socket_folder = _short_folder(self._mark)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """
        Let go of the server; the last process stops it.

        May be called again. Does nothing in a forked child, whose parent holds the server for both.

        Raises:
            DatabaseUnavailable: If the server does not stop. Its data is safe; the next start uses it.
        """
        if self._holder != os.getpid():
            return
        self._holder = 0
        try:
            if not self._users.is_current():
                return  # the folder was removed or replaced: what runs there now is not ours
            starting = FileLock(self._base / "starting.lock")
            try:
                # Not had in time: another process is starting, and so goes on with the server.
                if starting.acquire(exclusive=True, wait_seconds=STOP_SECONDS) and self._users.acquire(
                    exclusive=True, wait_seconds=0
                ):
                    self._stop()
            finally:
                starting.close()
        finally:
            self._users.close()

    def is_up(self) -> bool:
        """
        Say whether the server's first process lives. Quick, and no proof that it answers.

        Of a folder that was moved or replaced nothing is known: as far as we are concerned it does.
        """
        try:
            if not self._users.is_current():
                return True
            pid = self._pid_on_file()
            if pid is None:
                return False
            process = psutil.Process(pid)
            return process.status() != psutil.STATUS_ZOMBIE and self._is_ours(process)
        except (psutil.Error, OSError):
            return False

    def start_again(self, *, wait_seconds: float = 60) -> None:
        """
        Start the server after it ended by itself or was killed; another process may be first.

        Raises:
            SettingsError, DatabaseUnavailable: As `start`.
        """
        deadline = time.monotonic() + wait_seconds
        try:
            with contextlib.closing(FileLock(self._base / "starting.lock")) as starting:
                if not starting.acquire(exclusive=True, wait_seconds=wait_seconds):
                    raise DatabaseUnavailable(
                        f"Another process has been starting or stopping the database under {self._base} "
                        "for too long: wait for it, or end it."
                    )
                self._wait_for_answer(deadline)
        except OSError as error:
            raise SettingsError(
                f"The embedded PostgreSQL cannot use {error.filename or self._base} ({error.strerror})."
            ) from error
        except psycopg.Error as error:
            raise DatabaseUnavailable(
                f"The embedded PostgreSQL refused its set-up ({_first_line(error)}): look into "
                f"{self._data / 'log'}."
            ) from error

    # What follows runs under the lock `starting.lock`.

    def _bring_up(self, deadline: float) -> None:
        try:
            # At once, because whoever takes it exclusively holds `starting.lock` all the while.
            if not self._users.acquire(exclusive=False, wait_seconds=0):
                raise DatabaseUnavailable(
                    f"A process keeps {self._base / 'users.lock'} locked: end it and try again."
                )
            self._wait_for_answer(deadline)
        except BaseException as error:
            # Not if it takes too long: a recovery would have to begin anew.
            if not isinstance(error, DatabaseUnavailable) and self._users.acquire(
                exclusive=True, wait_seconds=0
            ):
                self._stop()
            self._users.close()
            raise

    def _wait_for_answer(self, deadline: float) -> None:
        launches = 0
        while True:
            try:
                return self._connect(deadline)
            except psycopg.OperationalError as error:
                reason = _first_line(error)
            processes = self._processes()
            if FULL_TEXT in reason or (launches and not processes and FULL_TEXT in self._last_words()):
                raise _disk_full(self._base)
            if not processes and launches == LAUNCHES:
                raise DatabaseUnavailable(
                    f"The embedded PostgreSQL does not start ({self._last_words() or reason}): look "
                    f"into {self._base / 'startup.log'} and {self._data / 'log'}."
                )
            if time.monotonic() >= deadline:
                pids = ", ".join(str(process.pid) for process in processes)
                raise DatabaseUnavailable(
                    f"The embedded PostgreSQL under {self._base} does not answer yet ({reason}): wait "
                    f"if it recovers from a crash, else end its processes ({pids}), and try again."
                )
            if processes:  # starting, recovering, or what is left of a killed one
                time.sleep(POLL_SECONDS)
            else:
                self._remove_leftovers()
                self._launch(deadline)
                launches += 1

    def _connect(self, deadline: float) -> None:
        """Make the database if it is missing; believe the server when it answers `select 1`."""
        # A frozen server accepts connections and says nothing. libpq knows no less than 2 s.
        patience = max(2, min(10, int(deadline - time.monotonic())))
        with connections.connect(self._uri("postgres"), autocommit=True, connect_timeout=patience) as server:
            known = "SELECT FROM pg_database WHERE datname = %s"
            if server.execute(known, [self._database]).fetchone() is None:
                server.limit = None  # it copies a database, on whatever disk there is
                self._make_database(server)
        conninfo = self._uri(self._database)
        with connections.connect(conninfo, autocommit=True, connect_timeout=patience) as server:
            if server.execute("SELECT 1").fetchone() != (1,):
                raise psycopg.OperationalError("no answer to select 1")
            self.version = server.info.parameter_status("server_version") or self._programs.version
        self.conninfo = conninfo

    def _make_database(self, server: psycopg.Connection) -> None:
        name = sql.Identifier(self._database)
        server.execute(sql.SQL("CREATE DATABASE {}").format(name))
        # Not every build has it, and a server without it refuses the setting.
        setting = "SELECT enumvals FROM pg_settings WHERE name = 'default_toast_compression'"
        (kinds,) = server.execute(setting).fetchone() or ([],)
        if "lz4" in kinds:
            compress = "ALTER DATABASE {} SET default_toast_compression = 'lz4'"
            server.execute(sql.SQL(compress).format(name))

    def _uri(self, database: str) -> str:
        if sys.platform == "win32":
            try:
                port = int(_lines(self._data / "postmaster.pid")[3])
            except (IndexError, ValueError) as error:
                raise psycopg.OperationalError("no server has written its port") from error
            password = quote((self._base / "password").read_text(), safe="")
            return (
                f"postgresql://{USER}:{password}@127.0.0.1:{port}/{quote(database, safe='')}?{_AS_EMBEDDED}"
            )
        folder = quote(os.fsencode(self._socket_folder), safe="")
        return f"postgresql://{USER}@/{quote(database, safe='')}?host={folder}&port={PORT}&{_AS_EMBEDDED}"

    def _processes(self) -> list[psutil.Process]:
        """Return every process of a PostgreSQL that runs on the data folder."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        command = ""
        try:
            if not process.name().startswith("postgres"):
                return False
            if sys.platform != "win32" and process.uids().effective != self._owner:
                return False
            command = " ".join(process.cmdline())
            return self._mark in command or self._data.samefile(process.cwd())
        except psutil.AccessDenied:
            # Its folder is hidden. If nothing says otherwise, it is the one the pid file means.
            return process.pid == self._pid_on_file() and not MARK.search(command)
        except (psutil.Error, OSError):  # ended meanwhile
            return False

    def _pid_on_file(self) -> int | None:
        first = _lines(self._data / "postmaster.pid")[:1]
        return int(first[0]) if first and first[0].isdecimal() else None

    def _remove_leftovers(self) -> None:
        """
        Remove what dead servers left, where no process runs on the folder.

        PostgreSQL refuses to start if a lock file is empty, or names any process that lives.
        """
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        for name in (f".s.PGSQL.{PORT}", f".s.PGSQL.{PORT}.lock"):
            (self._socket_folder / name).unlink(missing_ok=True)
        for log in (self._data / "log").glob("postgres-*.log"):
            if log.lstat().st_size > LOG_BYTES:
                log.unlink()

    def _launch(self, deadline: float) -> None:
        if self._socket_folder != self._data:
            self._make_socket_folder()
        # No path of the user's is among the options, because pg_ctl passes them through a shell: "."
        # is the data folder.
        options = {"cluster_name": self._mark, "logging_collector": "on"}
        if sys.platform == "linux":
            options["dynamic_shared_memory_type"] = SHARED_MEMORY
        if sys.platform == "win32":
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                options["port"] = str(free.getsockname()[1])
            options["listen_addresses"] = "127.0.0.1"
        else:
            folder = "." if self._socket_folder == self._data else str(self._socket_folder)
            options |= {"listen_addresses": "''", "port": str(PORT)}
            options |= {"unix_socket_directories": folder, "unix_socket_permissions": "0700"}
        with open(self._base / "startup.log", "wb", opener=_private) as log:
            self._programs.run(
                "pg_ctl",
                "start",
                f"--timeout={max(1, int(deadline - time.monotonic()))}",
                f"--options={' '.join(f'-c {name}={value}' for name, value in options.items())}",
                environment={"PGDATA": str(self._data)},
                output=log,
            )

    def _make_socket_folder(self) -> None:
        """
        Make the short folder for a socket whose path would be too long, for its server alone.

        Raises:
            SettingsError: If somebody else made it first: the place is open to all.
        """
        folder = self._socket_folder
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            if self._owner != os.geteuid():
                os.chown(folder, self._owner, -1, follow_symlinks=False)
        status = folder.lstat()
        private = stat.S_ISDIR(status.st_mode) and stat.S_IMODE(status.st_mode) == 0o700
        if not private or status.st_uid != self._owner:
            raise SettingsError(
                f"The folder {folder} for the database's socket belongs to somebody else or is open to "
                "others: remove it, or set BIBWIRE_HOME to a shorter path."
            )

    def _last_words(self) -> str:
        """Return why the server ended, as far as it wrote it down."""
        logs = list((self._data / "log").glob("postgres-*.log"))
        newest = sorted(logs, key=lambda log: log.stat().st_mtime)[-1:]
        for log in (self._base / "startup.log", *newest):
            for line in reversed(_lines(log)):
                if found := re.search(r"(?:FATAL|PANIC):\s*(.*)", line):
                    return found[1]
        return ""

    def _stop(self) -> None:
        if self._pid_on_file() not in [process.pid for process in self._processes()]:
            return  # it ended by itself, and its number may be a stranger's by now
        done = self._programs.run(
            "pg_ctl",
            "stop",
            "--mode=fast",
            f"--timeout={STOP_SECONDS}",
            environment={"PGDATA": str(self._data)},
        )
        if done.returncode != 0 and self._processes():
            raise DatabaseUnavailable(
                f"The embedded PostgreSQL under {self._base} has not stopped within {STOP_SECONDS} s: "
                "leave it to finish, its data is safe and the next start uses it."
            )
        if self._socket_folder != self._data:
            with contextlib.suppress(OSError):
                self._socket_folder.rmdir()


def _disk_full(folder: Path) -> DatabaseUnavailable:
    return DatabaseUnavailable(
        f"The disk of {folder} is full, so the embedded PostgreSQL cannot work: make room there, then try "
        "again. What is stored is safe."
    )


def _private(path: str, flags: int) -> int:
    descriptor = os.open(path, flags, 0o600)
    if sys.platform != "win32":
        os.fchmod(descriptor, 0o600)  # one that an earlier Bibwire made for all to write
    return descriptor


def _short_folder(name: str) -> Path:
    """Return a short path for a folder of that name: where it is, or else where it can be made."""
    places = [Path("/tmp"), Path("/var/tmp"), Path(f"/run/user/{os.geteuid()}")]  # noqa: S108  checked: ours alone
    usable = [place for place in places if os.access(place, os.W_OK | os.X_OK)]
    there = [place for place in places if (place / name).exists()]
    return (there or usable or places)[0] / name


def _lines(path: Path) -> list[str]:
    """Return a file's lines; none if it is missing or unreadable."""
    try:
        return [line.strip() for line in path.read_text(errors="replace").splitlines()]
    except OSError:
        return []


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
