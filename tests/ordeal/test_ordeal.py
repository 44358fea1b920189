"""A short ordeal of real processes; ten minutes of it with `make soak`."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from typing import Final

import pytest

from tests.children import ROOT
from tests.ordeal.postgres import programs

# One of each kind: a process, the database twice, a network, the vendor, an operator.
TROUBLES: Final = (
    "run killed",
    "database crashed",
    "replica promoted",
    "database's network silent",
    "vendor: http_503",
    "command sync",
)


# Well below the limit of the test: then nothing is left of it.
LONGEST_SECONDS: Final = 780.0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_short_ordeal_leaves_the_mirror_whole() -> None:
    # As a process of its own: it may move to a network of its own.
    playing = subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.ordeal"),
            *("--seed", "1", "--once", "--longest", "8", "--only", *TROUBLES),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    )
    try:
        out, err = playing.communicate(timeout=LONGEST_SECONDS)
    finally:
        if playing.poll() is None:
            _end(playing)

    assert playing.returncode == 0, out + err
    summary = re.search(r"(\d+) troubles, ([\d,]+) calls, (\d+) looks .* (\d+) happenings", out)
    assert summary is not None, out
    impossible = set() if (programs() / "pg_basebackup").exists() else {"replica promoted"}
    assert set(re.findall(r"^not played: (.+?): ", out, re.MULTILINE)) == impossible
    assert int(summary[1]) == len(TROUBLES) - len(impossible)
    assert int(summary[3]) > 20
    assert int(summary[4]) > 0, "the world stood still"


def _end(playing: subprocess.Popen[str]) -> None:
    """End an ordeal that takes too long: told to, it removes its servers and disks."""
    playing.terminate()
    try:
        playing.wait(60)
    except subprocess.TimeoutExpired:
        os.killpg(playing.pid, signal.SIGKILL)
        playing.wait()
