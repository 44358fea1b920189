"""Seasons in moved time: each seed is another one; more of them with `make soak`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.seasons.__main__ import play_one
from tests.seasons.happenings import season_of
from tests.seasons.postgres import MovedPostgres, programs

HOURS = 0.75

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
@pytest.mark.parametrize("seed", [1, 2])
def test_a_season_in_which_the_world_alone_moves(server: MovedPostgres, seed: int) -> None:
    played = play_one(server, seed, season_of(seed, hours=HOURS, troubles=0), hours=HOURS)

    assert played.why is None
    assert played.calls > 100
    assert played.checks > 5
