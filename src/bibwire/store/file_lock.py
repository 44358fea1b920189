"""
A lock between processes that the system drops when its holder dies, however it dies.

Shared or exclusive. Two instances on one path exclude each other also inside one process.
A child made by `fork` shares its parent's lock; a program started with `exec` does not inherit it.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
    import secrets
else:
    import fcntl

# Windows: a shared holder locks one byte of these, an exclusive one locks them all.
BYTES = 1 << 16
POLL_SECONDS = 0.01


class FileLock:
    """A lock on a file, which is made if it is missing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._held: tuple[int, int] | None = None

    def acquire(self, *, exclusive: bool, wait_seconds: float) -> bool:
        """
        Take the lock, or turn the one held into the other kind; False if it stays taken.

        A lock held before is given up even where the new kind cannot be had.
        """
        deadline = time.monotonic() + wait_seconds
        while not self._try(exclusive):
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def is_current(self) -> bool:
        """Tell whether the path still names the file that was opened: it may have been replaced."""
        try:
            return os.path.samestat(os.fstat(self._file), self._path.stat())
        except OSError:
            return False

    def close(self) -> None:
        """Give the lock up, also where a forked child keeps the file open. May be called again."""
        if self._file < 0:
            return
        self._unlock()
        os.close(self._file)
        self._file = -1

    if sys.platform == "win32":

        def _try(self, exclusive: bool) -> bool:
            self._unlock()
            start, size = (0, BYTES) if exclusive else (secrets.randbelow(BYTES), 1)
            os.lseek(self._file, start, os.SEEK_SET)
            try:
                msvcrt.locking(self._file, msvcrt.LK_NBLCK, size)
            except OSError:
                return False
            self._held = (start, size)
            return True

        def _unlock(self) -> None:
            if self._held is not None:
                os.lseek(self._file, self._held[0], os.SEEK_SET)
                msvcrt.locking(self._file, msvcrt.LK_UNLCK, self._held[1])
                self._held = None

    else:

        def _try(self, exclusive: bool) -> bool:
            kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
            try:
                fcntl.flock(self._file, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        def _unlock(self) -> None:
            fcntl.flock(self._file, fcntl.LOCK_UN)
