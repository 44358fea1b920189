"""A short ordeal of real processes; ten minutes of it with `make soak`."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Final

import pytest

from tests.children import ROOT

# One of each kind: a process, the database twice, a network, the vendor, an operator.
TROUBLES: Final = (
    "run killed",
    "database crashed",
    "replica promoted",
    "database's network silent",
    "vendor: http_503",
    "command sync",
)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_short_ordeal_leaves_the_mirror_whole() -> None:
    # As a process of its own: it may move to a network of its own.
    played = subprocess.run(
        [
            *(sys.executable, "-m", "tests.ordeal"),
            *("--seed", "1", "--once", "--longest", "8", "--only", *TROUBLES),
        ],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )

    assert played.returncode == 0, played.stdout + played.stderr
    summary = re.search(r"(\d+) troubles, ([\d,]+) calls, (\d+) looks", played.stdout)
    assert summary is not None, played.stdout
    assert int(summary[1]) >= 5
    assert int(summary[3]) > 20
