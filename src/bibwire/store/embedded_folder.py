"""
The folders of the embedded PostgreSQL: whose they are, and the data folder, made as a whole or not at all.

No permissions of a folder that exists are changed; what does not fit is an error, and stays untouched.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from bibwire.domain.errors import DatabaseUnavailable, SettingsError
from bibwire.store.embedded_programs import UNFINISHED, Programs

# The role that owns everything.
USER = "bibwire"
# Where parallel queries and the like meet: files in the data folder. /dev/shm, the default, has 64 MB
# in a container and less elsewhere, and what does not fit there fails.
SHARED_MEMORY = "mmap"
# Written to postgresql.conf once, where an operator may change them. fsync and checksums are on by
# default, and stay so.
SETTINGS = {
    # A worker holds up to twelve: enough for as many workers as two dozen cores could use.
    "max_connections": "300",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # A file a weekday, begun anew each week.
    "logging_collector": "on",
    "log_filename": "postgres-%u.log",
    "log_rotation_age": "1d",
    "log_rotation_size": "0",
    "log_truncate_on_rotation": "on",
    "log_checkpoints": "off",
    # No statements and no details: they would name runners.
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
}


def check_owner(folder: Path) -> None:
    """
    Check that a folder, if it exists, belongs to us: another user could swap what we make in it.

    Raises:
        SettingsError: If it belongs to another user.
    """
    if sys.platform == "win32" or not folder.exists():
        return
    owner = folder.stat().st_uid
    if owner != os.geteuid():
        raise SettingsError(
            f"The folder {folder} belongs to another user (uid {owner}): run Bibwire as that user, "
            "or set BIBWIRE_HOME to another folder."
        )


def make_folder(folder: Path, mode: int) -> None:
    """
    Make a folder and those missing above it, with this mode whatever the umask.

    Raises:
        OSError: If it cannot be made, or is there and cannot be written to.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        with contextlib.suppress(FileExistsError):  # made by another process meanwhile
            each.mkdir()
            each.chmod(mode)
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(folder))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "no right to write there", str(folder))


def make_data(base: Path, programs: Programs) -> None:
    """
    Make `base/data` if it is missing: beside its place, and put there when it is complete.

    Raises:
        SettingsError: If what is there is not a data folder of ours and of this version.
        DatabaseUnavailable: If initdb fails.
    """
    data = base / "data"
    if data.exists() and any(data.iterdir()):
        _check_data(data, programs)
        return
    account = programs.account
    unfinished = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=base))
    if account is not None:
        os.chown(unfinished, account.uid, account.gid)
    options = ["--encoding=UTF8", "--locale=C"]
    options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    options += [f"--set={name}={value}" for name, value in SETTINGS.items()]
    if sys.platform == "linux":
        options.append(f"--set=dynamic_shared_memory_type={SHARED_MEMORY}")
    if sys.platform == "win32":
        (base / "password").write_text(secrets.token_urlsafe(32))
        options += ["--auth=scram-sha-256", f"--pwfile={base / 'password'}"]
    else:  # only we and root can enter the folder of the socket
        options += ["--auth-local=trust", "--auth-host=reject"]
    done = programs.run("initdb", f"--pgdata={unfinished}", f"--username={USER}", *options)
    if done.returncode != 0:
        shutil.rmtree(unfinished, ignore_errors=True)
        words = done.stderr.decode(errors="replace").strip() or "it was killed"
        if os.strerror(errno.ENOSPC) in words:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(base))
        raise DatabaseUnavailable(
            f"The embedded PostgreSQL could not make its data folder under {base} "
            f"({words.splitlines()[-1]}): make room there, check the permissions, and try again."
        )
    unfinished.rename(data)
    if sys.platform != "win32":
        _sync(base)


def _check_data(data: Path, programs: Programs) -> None:
    account = programs.account
    try:
        found = (data / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        raise SettingsError(
            f"The folder {data} holds something else than a PostgreSQL database: move it away, "
            "or set BIBWIRE_HOME to another folder."
        ) from None
    if found != programs.major:
        raise SettingsError(
            f"The folder {data} was made by PostgreSQL {found}, and the embedded PostgreSQL is "
            f"version {programs.major}: move the data over with pg_dump or pg_upgrade, or set "
            "BIBWIRE_HOME to another folder."
        )
    owner = data.stat().st_uid
    if account is not None and owner != account.uid:
        raise SettingsError(
            f"The folder {data} belongs to uid {owner} and not to the system user {account.name!r}: "
            f"give it back with 'chown -R {account.name} {data}', or set BIBWIRE_HOME to another."
        )


def _sync(folder: Path) -> None:
    """Write a rename in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
