"""`bibwire demo`: shows live changes, ends when told to, and leaves nothing behind."""

from __future__ import annotations

import re
import signal
import tempfile
from pathlib import Path

import psutil
import pytest

from tests.cli.conftest import Shell

pytestmark = pytest.mark.slow


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """With settings that the demo must not follow."""
    return Shell(
        tmp_path,
        [],
        BIBWIRE_DATABASE_URL="host=127.0.0.1 port=1 user=x",
        BIBWIRE_API_URL="https://api.runsignup.com/rest",
    )


def home_of(out: str) -> Path:
    found = re.search(r"embedded PostgreSQL in (\S+) ", out)
    assert found, out
    return Path(found[1])


def left_behind(home: Path) -> list[str]:
    """Processes that name the folder, or work in it."""
    return [
        str(process)
        for process in psutil.process_iter(["cmdline", "cwd"])
        if str(home) in " ".join(process.info["cmdline"] or []) + str(process.info["cwd"] or "")
    ]


def test_the_demo_shows_changes_and_leaves_nothing(shell: Shell) -> None:
    ended = shell.run("demo", "--seconds", "6")

    assert ended.code == 0, ended.err
    assert "people/s" in ended.out
    assert re.search(r"\d\d:\d\d:\d\d (registered|bib|edited|removed)", ended.out), ended.out
    assert ended.out.splitlines()[-1].startswith("Ended: ")
    home = home_of(ended.out)
    assert home.parent == Path(tempfile.gettempdir()) or home.parent == Path("/tmp")
    assert not home.exists()
    assert left_behind(home) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_ends_in_order_when_told_to(shell: Shell, number: int) -> None:
    process = shell.start("demo")
    assert process.stdout is not None
    begun = ""
    while "Partner" not in begun:
        begun += process.stdout.readline()

    ended = shell.stop(process, number)

    assert (ended.code, ended.err) == (0, "")
    assert not home_of(begun).exists()
    assert left_behind(home_of(begun)) == []


def test_a_named_folder_is_kept_and_can_be_used_again(shell: Shell, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if parent != Path("/tmp") and Path("/tmp") in parent.parents:
            parent.chmod(0o755)  # as root the database's own user has to pass
    home = tmp_path / "demo"

    for _ in range(2):
        ended = shell.run("demo", "--seconds", "0", "--home", str(home))
        assert ended.code == 0, ended.err
        assert "inserted" in ended.out
        assert (home / "postgres").exists()


def test_a_folder_that_holds_anything_else_is_left_alone(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "secret.key").write_text("of a real mirror")

    ended = shell.run("demo", "--seconds", "0", "--home", str(tmp_path))

    assert ended.code == 2
    assert "not empty" in ended.told
    assert (tmp_path / "secret.key").read_text() == "of a real mirror"
