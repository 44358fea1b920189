"""Never more than two calls in flight, as the vendor counts them, whatever becomes of who makes them."""

from __future__ import annotations

import signal
import subprocess
from datetime import UTC, datetime

import psycopg
import pytest

import rsusim
from rsusim import worlds
from tests import children
from tests.house import KEY, House
from tests.waiting import PATIENCE_SECONDS, wait_until

# Longer than a call takes at the vendor: what it works on for a dead process is over by then.
TIMEOUT_SECONDS = 3
CALL_SECONDS = 0.7


def wait_for_a_call(world: rsusim.World, unless_ended: subprocess.Popen[str]) -> None:
    before = world.log.calls
    wait_until(lambda: world.log.calls > before or unless_ended.poll() is not None)


@pytest.mark.slow
@pytest.mark.parametrize("blow", ["sessions ended", "a process killed", "a process told to leave"])
def test_no_more_than_two_are_in_flight(blow: str, database_url: str) -> None:
    world = worlds.small(now=datetime.now(UTC))
    world.clock.run(1)
    world.quirks.latency_seconds = CALL_SECONDS
    with rsusim.Server(world) as simulator, House(world, simulator.base_url, database_url) as house:
        for account in world.accounts.values():
            house.add_partner(account)
        settings = {
            "BIBWIRE_DATABASE_URL": database_url,
            "BIBWIRE_API_URL": simulator.base_url,
            "BIBWIRE_SECRET_KEY": KEY,
            "BIBWIRE_TIMEOUT_SECONDS": str(TIMEOUT_SECONDS),
        }
        first = children.start("sync", "full", 2500, **settings)
        wait_until(lambda: world.log.highest_in_flight == 2)
        others = [children.start("sync", "delta", 2500, **settings) for _ in range(2)]
        for _ in range(3):
            wait_for_a_call(world, first)
            with psycopg.connect(database_url, autocommit=True) as connection:
                match blow:
                    case "sessions ended":
                        connection.execute(
                            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                            " WHERE datname = current_database() AND application_name = 'bibwire session'"
                        )
                    case "a process killed":
                        first.kill()
                    case _:
                        first.send_signal(signal.SIGINT)
        said = [child.communicate(timeout=PATIENCE_SECONDS)[0] for child in (first, *others)]

        # With its session a process loses its right to the race it reads, which another one reads then.
        lines = "".join(said[1:]).splitlines()
        if blow == "sessions ended":
            lines = [line for line in lines if not line.endswith("was taken over by another process.")]
        assert lines == []
        assert world.log.highest_in_flight == 2
