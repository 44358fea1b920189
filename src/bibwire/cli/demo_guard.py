"""
Clears away after a demonstration that was killed: `python -m bibwire.cli.demo_guard FOLDER [--remove]`

It reads its standard input. Where that ends without a word, whoever started it is dead: then the server
is stopped, and the folder removed if it was a temporary one.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REMOVE = "--remove"
DONE = b"done"


@contextmanager
def guarded(folder: Path, *, remove: bool) -> Iterator[None]:
    """Have the folder cleared away if this process is killed within the block."""
    command = [sys.executable, "-m", "bibwire.cli.demo_guard", str(folder), *([REMOVE] if remove else [])]
    guard = subprocess.Popen(  # noqa: S603  our own program
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder.anchor,
        # Neither Ctrl-C nor what ends our group ends it.
        start_new_session=True,
    )
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            guard.communicate(DONE)


def main() -> None:
    """Wait for the end of whoever started us."""
    folder = Path(sys.argv[1])
    if sys.stdin.buffer.read() == DONE:
        return
    from bibwire.store import embedded

    try:
        embedded.stop_abandoned(folder)
    finally:
        if REMOVE in sys.argv[2:]:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
