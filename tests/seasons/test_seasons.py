"""Seasons in moved time: each seed is another one; more of them with `make soak`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.children import ROOT
from tests.seasons.__main__ import Played, play_one
from tests.seasons.postgres import MovedPostgres, programs
from tests.seasons.shapes import season_of

HOURS = 0.75
QUIET_HOURS = 16
# How often each rule has to be held against something at least: four fifths of what the seed's season has,
# for a season is the same each time, and one whose excuses cover most of it proves little.
LEAST = {
    1: {"polled in time": 24, "polled in time while hot": 57, "nothing said": 80},
    2: {"polled in time": 44, "polled in time while hot": 16, "nothing said": 61},
    3: {"polled in time": 61, "polled in time while hot": 52, "nothing said": 105},
    4: {"polled in time": 44, "polled in time while hot": 39, "nothing said": 81},
    5: {"polled in time": 25, "polled in time while hot": 24, "nothing said": 49},
}
LEAST_ON_A_QUIET_DAY = {"polled in time": 87, "nothing said": 87}

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::RuntimeWarning")


@pytest.fixture(scope="module")
def server() -> Iterator[MovedPostgres]:
    found = programs()
    if found is None:
        pytest.skip("a PostgreSQL of the system and faketime are needed: apt-get install postgresql faketime")
    with MovedPostgres(found) as server:
        server.make_template()
        yield server


def missing(least: dict[str, int], played: Played) -> dict[str, str]:
    """Return the rules that were held too seldom, and how often."""
    return {
        rule: f"{played.checks[rule]} times, not {times}"
        for rule, times in least.items()
        if played.checks[rule] < times
    }


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", LEAST)
def test_a_season_in_which_everything_may_go_wrong(server: MovedPostgres, seed: int) -> None:
    lines = season_of(seed, hours=HOURS)

    played = play_one(server, seed, lines, hours=HOURS)

    assert played.why is None
    assert played.calls > 100
    assert missing(LEAST[seed], played) == {}
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
    assert missing(LEAST_ON_A_QUIET_DAY, played) == {}


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
