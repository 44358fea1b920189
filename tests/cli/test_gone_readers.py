"""Whoever reads what a command says is gone: it goes on, and ends with the code it would have ended with."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence

import pytest

import rsusim
from tests.cli.conftest import BIBWIRE, Shell
from tests.waiting import PATIENCE_SECONDS, wait_until

WRONG = {"BIBWIRE_KEY_PEAK_TIMING": "key-of-another", "BIBWIRE_SECRET_PEAK_TIMING": "secret-of-another"}


@pytest.fixture
def unread() -> Iterator[int]:
    """A pipe to write to, whose reader is gone."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


def ends_with(shell: Shell, command: Sequence[str], unread: int, **settings: str) -> set[int]:
    """Return the exit codes of a command nobody reads: neither stream, not this one, not that one."""
    codes = set()
    for out, err in ((unread, unread), (unread, subprocess.PIPE), (subprocess.PIPE, unread)):
        ended = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=shell.folder,
            env=shell.environment | settings,
            timeout=PATIENCE_SECONDS,
        )
        said = (ended.stderr or b"").decode()
        assert "Traceback" not in said
        assert "Exception ignored" not in said
        codes.add(ended.returncode)
    return codes


def test_a_command_that_works_ends_with_its_own_code(shell: Shell, peak: rsusim.Account, unread: int) -> None:
    assert ends_with(shell, [BIBWIRE, "sync"], unread) == {0}
    assert shell.run("status", "--json").json["partners"][0]["participants"] > 0
    assert ends_with(shell, [BIBWIRE, "sync"], unread, **WRONG) == {1}
    assert ends_with(shell, [BIBWIRE, "reconcile"], unread) == {0}
    assert ends_with(shell, [BIBWIRE, "bibs"], unread) == {0}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["doctor"], 1),
        (["doctor", "--json"], 1),
        (["status"], 1),
        (["sync", "--json=1"], 2),
        (["sync", "--help"], 0),
        (["partner"], 2),
        (["run", "--metrics-host", "127.0.0.1"], 2),
        (["simulate", "--port", "99999"], 2),
        (["simulate", "--help"], 0),
    ],
)
def test_so_does_one_that_has_nothing_to_work_with(
    bare: Shell, unread: int, arguments: list[str], code: int
) -> None:
    assert ends_with(bare, [BIBWIRE, *arguments], unread) == {code}


def test_so_does_the_simulator(bare: Shell, unread: int) -> None:
    command = [sys.executable, "-m", "rsusim"]

    assert ends_with(bare, [*command, "--port", "99999"], unread) == {2}
    assert ends_with(bare, [*command, "--help-quirks"], unread) == {0}


@pytest.mark.parametrize("options", [[], ["--json"], ["--partner", "Peak Timing", "--since", "0"]])
def test_who_follows_a_quiet_feed_ends_with_its_reader(
    shell: Shell, peak: rsusim.Account, options: list[str]
) -> None:
    process = shell.start("bibs", "--follow", *options)
    assert process.stdout is not None
    assert process.stderr is not None
    # It says so once it follows: there is no worker.
    assert process.stderr.readline()

    process.stdout.close()

    with process.stderr:
        wait_until(lambda: process.poll() is not None)
        assert (process.returncode, process.stderr.read()) == (0, "")


@pytest.mark.parametrize("program", ["bibwire.cli", "rsusim"])
def test_unbuffered_output_stays_unbuffered(program: str) -> None:
    writes = "streams.outlast_readers(); sys.stdout.write('before '); os.write(1, b'after'); os._exit(0)"
    said = subprocess.run(
        [sys.executable, "-c", f"import os, sys; from {program} import streams; {writes}"],
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        timeout=PATIENCE_SECONDS,
    ).stdout
    assert said == b"before after"
