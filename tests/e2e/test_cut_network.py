"""A worker whose network was cut polls hot races again within half a minute of its return."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

import rsusim
from tests.cli.conftest import Shell
from tests.e2e.simulation import polls
from tests.relay import relay_to
from tests.waiting import wait_until

OUTAGE_SECONDS = 20
BACK_SECONDS = 30


@pytest.fixture
def world() -> rsusim.World:
    """A partner with one hot race; time runs."""
    world = rsusim.World(seed=5, now=datetime.now(UTC))
    peak = world.add_partner("Peak Timing")
    start = (world.now + timedelta(hours=2)).astimezone(ZoneInfo("America/Denver")).replace(tzinfo=None)
    race = world.add_race([peak], None, "America/Denver")
    event = world.add_event(race, "10K", start.replace(second=0, microsecond=0))
    for number in range(20):
        world.register(event, bib_num=number + 1)
    world.clock.run(1)
    return world


def newest_poll(world: rsusim.World) -> float:
    return max((at for instants in polls(world).values() for at in instants), default=0.0)


@pytest.mark.slow
def test_a_hot_race_is_polled_again_within_half_a_minute(
    world: rsusim.World, simulator: rsusim.Server, database_url: str, tmp_path: Path
) -> None:
    shell = Shell(tmp_path, [], BIBWIRE_DATABASE_URL=database_url, BIBWIRE_API_URL=simulator.base_url)
    assert shell.add(world.accounts["Peak Timing"]).code == 0
    world.log.clear()  # of its own question
    with relay_to(database_url) as (relay, address):
        worker = shell.start("worker", DATABASE_URL=address)
        try:
            wait_until(lambda: newest_poll(world) > 0)
            relay.cut()
            time.sleep(OUTAGE_SECONDS)
            relay.mend()
            back = time.monotonic()
            mended_at = world.now.timestamp()
            wait_until(lambda: newest_poll(world) > mended_at)
            assert time.monotonic() - back < BACK_SECONDS
        finally:
            ended = shell.stop(worker)
    assert ended.code == 130
    assert "Traceback" not in ended.err
