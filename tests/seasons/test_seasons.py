"""Seasons in moved time: each seed is another one; more of them with `make soak`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.children import ROOT
from tests.seasons.__main__ import play_one
from tests.seasons.postgres import MovedPostgres, programs
from tests.seasons.shapes import season_of

HOURS = 0.75
QUIET_HOURS = 16

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::RuntimeWarning")


@pytest.fixture(scope="module")
def server() -> Iterator[MovedPostgres]:
    found = programs()
    if found is None:
        pytest.skip("a PostgreSQL of the system and faketime are needed: apt-get install postgresql faketime")
    with MovedPostgres(found) as server:
        server.make_template()
        yield server


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
def test_a_season_in_which_everything_may_go_wrong(server: MovedPostgres, seed: int) -> None:
    lines = season_of(seed, hours=HOURS)

    played = play_one(server, seed, lines, hours=HOURS)

    assert played.why is None
    assert played.calls > 100
    assert played.checks["polled in time while hot"] > 5
    assert played.checks["polled in time"] > 5
    assert played.checks["nothing said"] > 20
    # What nothing disturbed was commanded, and did not fail.
    assert {"sync", "reconcile", "verify"} & set(played.checks)
    assert {"new_race", "new_event", "move_event"} <= set(played.happened)
    assert any(line.is_trouble for line in lines)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_quiet_day_with_a_night_in_it(server: MovedPostgres) -> None:
    """Mirrors are verified, and no more calls are made than a quiet world needs."""
    lines = season_of(1, shape="quiet weeks", hours=QUIET_HOURS, troubles=2)

    played = play_one(server, 1, lines, shape="quiet weeks", hours=QUIET_HOURS)

    assert played.why is None
    assert played.checks["polled in time"] > 20
    assert played.checks["nothing said"] > 20


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_same_seed_is_the_same_season(server: MovedPostgres) -> None:
    """Whatever order sets have in a process, and however fast the machine is at the moment."""
    digests: set[str] = set()
    for hash_seed in ("1", "2"):
        played = subprocess.run(
            [sys.executable, "-m", "tests.seasons", "--seed", "2", "--seeds", "1", "--hours", "0.3"],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=False,
        )
        found = re.search(r"seed 2: \d+ calls, \d+ s, (\w+): holds", played.stdout)
        assert found is not None, played.stdout + played.stderr
        digests.add(found[1])
    assert len(digests) == 1
