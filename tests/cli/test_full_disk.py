"""A full disk is called that, and what to do about it."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.cli.conftest import Shell


@contextmanager
def disk(megabytes: int) -> Iterator[Path]:
    """A disk of that size, where the system lets us mount one."""
    with tempfile.TemporaryDirectory(prefix="bibwire-disk-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "tmpfs", folder]
        if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
            pytest.skip("no disk can be mounted here")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_a_disk_that_is_too_small_for_a_database_is_said(bare: Shell) -> None:
    with disk(8) as folder:
        ended = bare.run("init", DATABASE_URL=None, HOME=str(folder / "home"))

    assert ended.code == 1
    assert f"The disk of {folder}" in ended.told
    assert "is full" in ended.told
    assert "make room" in ended.told


def test_a_disk_that_filled_up_is_said_and_all_works_once_there_is_room(bare: Shell) -> None:
    with disk(100) as folder:
        settings: dict[str, str | None] = {"DATABASE_URL": None, "HOME": str(folder / "home")}
        assert bare.run("init", **settings).code == 0
        filler = folder / "filler"
        fill(filler)

        full = bare.run("status", **settings)
        filler.unlink()
        after = bare.run("status", **settings)

    assert full.code == 1
    assert "is full" in full.told
    assert "make room" in full.told
    assert "end its processes" not in full.told
    assert after.code == 0


def test_a_key_file_on_a_full_disk_is_said(bare: Shell, database_url: str) -> None:
    with disk(1) as folder:
        fill(folder / "filler")
        ended = bare.run("init", DATABASE_URL=database_url, HOME=str(folder), SECRET_KEY=None)

    assert ended.code == 2
    assert f"The disk of {folder} is full" in ended.told
