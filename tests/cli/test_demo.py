"""`bibwire demo`: shows live changes, ends when told to, and leaves nothing behind."""

from __future__ import annotations

import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.cli.conftest import Shell
from tests.waiting import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """With settings that the demo must not follow."""
    shell = Shell(
        tmp_path,
        [],
        BIBWIRE_DATABASE_URL="host=127.0.0.1 port=1 user=x",
        BIBWIRE_API_URL="https://api.runsignup.com/rest",
    )
    yield shell
    for process in shell.started:
        if process.poll() is None:  # the test failed: its server must not stay
            shell.stop(process)


def home_of(out: str) -> Path:
    found = re.search(r"embedded PostgreSQL in (\S+) ", out)
    assert found, out
    return Path(found[1])


def nothing_is_left(home: Path) -> bool:
    """No folder, and no process that names it or works in it."""
    return not home.exists() and not [
        process
        for process in psutil.process_iter(["cmdline", "cwd"])
        if str(home) in " ".join(process.info["cmdline"] or []) + str(process.info["cwd"] or "")
    ]


def said_until(process: subprocess.Popen[str], awaited: str) -> str:
    """Read on until a line says what is awaited; return all that was said."""
    assert process.stdout is not None
    said = ""
    while not re.search(awaited, said):
        line = process.stdout.readline()
        assert line, said
        said += line
    return said


def test_the_demo_ends_by_itself_after_its_seconds_and_leaves_nothing(shell: Shell) -> None:
    ended = shell.run("demo", "--seconds", "1")

    assert ended.code == 0, ended.err
    assert "people/s" in ended.out
    assert ended.out.splitlines()[-1].startswith("Ended: ")
    home = home_of(ended.out)
    assert home.parent == Path(tempfile.gettempdir()) or home.parent == Path("/tmp")
    assert not home.exists()
    wait_until(lambda: nothing_is_left(home))


def test_the_demo_shows_changes_as_they_happen(shell: Shell) -> None:
    process = shell.start("demo")

    said_until(process, r"\d\d:\d\d:\d\d (registered|bib|edited|removed)")

    ended = shell.stop(process)
    assert (ended.code, ended.err) == (0, "")
    assert re.match(r"Ended: [1-9]\d* changes", ended.out.splitlines()[-1])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_ends_in_order_when_told_to(shell: Shell, number: int) -> None:
    process = shell.start("demo")
    home = home_of(said_until(process, "Partner"))

    ended = shell.stop(process, number)

    assert (ended.code, ended.err) == (0, "")
    assert re.fullmatch(r"Ended: 0 changes.*\n", said_after_stopping(ended.out))
    assert not home.exists()
    wait_until(lambda: nothing_is_left(home))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_stopped_in_its_first_moment_ends_as_any_other(shell: Shell, number: int) -> None:
    process = shell.start("demo")
    # Its guard is started before anything is said.
    wait_until(lambda: psutil.Process(process.pid).children())

    ended = shell.stop(process, number)

    assert (ended.code, ended.err) == (0, "")
    assert "Stopping ..." in ended.out
    assert re.match("Ended", said_after_stopping(ended.out))


def test_a_demo_stopped_while_it_starts_says_so_at_once_and_nothing_else(shell: Shell) -> None:
    process = shell.start("demo")
    home = home_of(said_until(process, "Starting an embedded PostgreSQL"))

    ended = shell.stop(process)

    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines()[0] == "Stopping ..."
    assert re.fullmatch(r"Ended: 0 changes.*\n", said_after_stopping(ended.out))
    assert not home.exists()


def said_after_stopping(out: str) -> str:
    return out.partition("Stopping ...\n")[2]


def test_a_demo_that_is_killed_leaves_no_server_and_no_folder(shell: Shell) -> None:
    process = shell.start("demo")
    home = home_of(said_until(process, "Partner"))

    process.kill()
    process.communicate()

    wait_until(lambda: nothing_is_left(home))


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder the database's own user can enter, as root has it: pytest's own are closed."""
    with tempfile.TemporaryDirectory(prefix="bibwire-test-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_a_named_folder_is_kept_and_can_be_used_again(shell: Shell, open_folder: Path) -> None:
    home = open_folder / "demo"

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
