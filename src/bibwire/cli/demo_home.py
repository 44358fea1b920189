"""The folder a demonstration works in: made for it, and gone with it unless it was named."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bibwire.domain.errors import SettingsError

# What tells a demonstration's folder from a mirror of real people.
MARK = "this-is-a-bibwire-demo"


@contextmanager
def demo_home(named: Path | None) -> Iterator[Path]:
    """
    Yield an empty home.

    Args:
        named: Kept afterwards; emptied first if an earlier demonstration left it.

    Raises:
        SettingsError: `named` holds anything else, or cannot be made.
    """
    if named is None:
        home = _make_temporary()
        try:
            yield home
        finally:
            shutil.rmtree(home, ignore_errors=True)
        return
    home = named.expanduser().absolute()
    try:
        if home.exists() and any(home.iterdir()):
            if not (home / MARK).exists():
                raise SettingsError(
                    f"{home} is not empty and was not made by a demo: name a new folder with --home."
                )
            _check_unused(home)
            shutil.rmtree(home / "postgres", ignore_errors=True)
            (home / "secret.key").unlink(missing_ok=True)
        home.mkdir(parents=True, exist_ok=True)
        (home / MARK).touch()
    except OSError as error:
        raise SettingsError(f"The folder {home} cannot be used: {error.strerror}.") from None
    yield home


def _make_temporary() -> Path:
    as_root = os.name == "posix" and os.geteuid() == 0
    # As root the embedded server runs as a user of its own, who has to get in.
    places = ("/tmp", "/var/tmp") if as_root else (None,)  # noqa: S108  a folder of its own, made in it
    for place in places:
        with suppress(OSError):
            home = Path(tempfile.mkdtemp(prefix="bibwire-demo-", dir=place))
            if as_root:
                home.chmod(0o755)
            return home
    raise SettingsError("No folder for temporary files can be written to: name a folder with --home.")


def _check_unused(home: Path) -> None:
    """A server that an interrupted demonstration left behind still works in the folder."""
    pid_file = home / "postgres" / "data" / "postmaster.pid"
    if pid_file.exists():
        raise SettingsError(
            f"A demo is using {home}, or was killed there: end it, or name a new folder with --home."
        )
