"""Small disks in memory, where the system lets us mount them."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path


class Disk:
    """
    A folder that is a file system of its own, of so many megabytes; an ordinary folder where none may be
    mounted.
    """

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder = folder
        self._megabytes = megabytes
        self.is_small = False

    def make(self, user: str | None = None) -> None:
        """Mount it; it belongs to `user`."""
        self.folder.mkdir()
        options = f"size={self._megabytes}m,mode=755"
        mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.folder)]
        with suppress(FileNotFoundError):
            self.is_small = subprocess.run(mount, check=False, capture_output=True).returncode == 0
        if user is not None:
            entry = pwd.getpwnam(user)
            os.chown(self.folder, entry.pw_uid, entry.pw_gid)

    def fill(self) -> None:
        """Leave no room at all."""
        with (self.folder / "filler").open("wb", buffering=0) as file:
            for size in (1 << 20, 4096):
                with suppress(OSError):
                    while True:
                        file.write(bytes(size))

    def make_room(self) -> None:
        (self.folder / "filler").unlink(missing_ok=True)

    def remove(self) -> None:
        if self.is_small:
            # Lazily: a process that just died may not have let go of it.
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True)
            self.is_small = False
        shutil.rmtree(self.folder, ignore_errors=True)
