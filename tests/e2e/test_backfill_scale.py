"""The original's account, all of its years, loaded by processes that are killed; `make fuzz` alone."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from random import Random

import psutil
import pytest

import rsusim
from bibwire.domain.secrets import Secret
from rsusim import worlds
from tests import children
from tests.e2e import truth
from tests.house import KEY, House

PEOPLE = int(os.environ.get("BIBWIRE_FUZZ_PEOPLE", worlds.ORIGINAL_PEOPLE))
KILLS = 20
HOURS_A_YEAR = 8766
MEMORY_MIB = 200


def _run(
    world: rsusim.World, server: rsusim.Server, conninfo: str, *, kills: int = 0, calls: int = 0
) -> tuple[int, float, float]:
    """
    Load all into an empty mirror; return the calls it took, seconds, and most MiB resident.

    Args:
        kills: How often the process is killed, at random moments.
        calls: How many it takes uninterrupted: a fast machine is killed as often as a slow one.
    """
    random = Random(5)
    world.log.clear()
    with House(
        world,
        server.base_url,
        conninfo,
        caller_reg=Secret(world.caller.registration),
        caller_secret=Secret(world.caller.secret),
    ) as house:
        for account in world.accounts.values():
            house.add_partner(account)
        environment = {
            "BIBWIRE_DATABASE_URL": conninfo,
            "BIBWIRE_API_URL": server.base_url,
            "BIBWIRE_SECRET_KEY": KEY,
            "BIBWIRE_CALLER_REG": world.caller.registration,
            "BIBWIRE_CALLER_SECRET": world.caller.secret,
        }
        begun, peak, killed = time.monotonic(), 0.0, 0
        while True:
            child = children.start("backfill", 2500, **environment)
            process = psutil.Process(child.pid)
            share = random.uniform(0.3, 1.5) * calls / (kills + 2)
            last = world.log.calls + share if killed < kills else float("inf")
            while child.poll() is None and world.log.calls < last:
                with process.oneshot():
                    if process.status() != psutil.STATUS_ZOMBIE:
                        peak = max(peak, process.memory_info().rss / 2**20)
                time.sleep(random.uniform(0.01, 0.1))
            if child.poll() is not None:
                said, _ = child.communicate()
                assert (child.returncode, said) == (0, "")
                break
            child.kill()
            child.communicate()
            killed += 1
        seconds = time.monotonic() - begun
        assert killed == kills, f"it ended after {killed} kills: kill earlier"
        made = world.log.calls
        for account in world.accounts.values():
            found = truth.differences(house.rows, world, account, catalog=False, every_event=True)
            # Of the hour that happens twice, on the first Sunday of November, it is not known which.
            odd = [line for line in found if " registered_at: " not in line or ", 11, " not in line]
            assert not odd, odd[:10]
            assert len(found) <= PEOPLE / HOURS_A_YEAR  # no more than one hour's share of them
            truth.assert_feed_is_sound(house.rows, account)
            teams = house.rows(
                "SELECT t.* FROM bibwire.teams AS t JOIN bibwire.partners AS p USING (partner_id)"
                " WHERE p.name = %(name)s",
                name=account.name,
            )
            assert {
                team["team_id"]: (team["race_id"], team["name"], team["bib_num"], team["member_count"])
                for team in teams
            } == {
                team["team_id"]: (
                    team["race_id"],
                    team["team_name"],
                    team["team_bib_num"],
                    team["team_member_current_count"],
                )
                for team in world.teams_truth(account.name)
            }
        return made, seconds, peak


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.skipif("BIBWIRE_FUZZ_HISTORIES" not in os.environ, reason="takes half an hour: make fuzz")
def test_the_original_account_with_twenty_kills(database_url: str, second_database_url: str) -> None:
    world = worlds.original(seed=3, now=datetime.now(UTC), people=PEOPLE)
    world.clock.run(1)
    with rsusim.Server(world) as server:
        whole, seconds, peak = _run(world, server, database_url)
        print(f"\nuninterrupted: {whole} calls, {seconds:.0f} s, {peak:.0f} MiB")
        cut, seconds, again = _run(world, server, second_database_url, kills=KILLS, calls=whole)
        print(f"with {KILLS} kills: {cut} calls, {seconds:.0f} s, {again:.0f} MiB")
        assert cut <= 1.02 * whole
        assert max(peak, again) < MEMORY_MIB
