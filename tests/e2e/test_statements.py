"""What a poll that finds nothing asks of the database, by the server's own log."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta

import psycopg
import pytest

import rsusim
from bibwire.engine.clients import Clients
from bibwire.engine.outages import Outages
from bibwire.engine.planner import Planner
from bibwire.engine.slices import Slices
from bibwire.store.jobs import Jobs
from rsusim.log import RequestInfo
from tests.house import House
from tests.waiting import wait_until

# Eleven times the pool asks whether a connection lives, and twice there are BEGIN and COMMIT.
MOST_STATEMENTS = 14
MOST_IN_ALL = 14 + 10 + 4
CALLS = 10


@pytest.fixture
def race(house: House, world: rsusim.World, database_url: str) -> int:
    """A hot race that is loaded; what is asked of the database from now on is logged."""
    account = world.add_partner("Peak Timing")
    race = world.add_race([account], "Harbor Lights", "UTC")
    world.register(world.add_event(race, "10K", (world.now + timedelta(hours=2)).replace(tzinfo=None)))
    house.add_partner(account)
    assert house.sync().errors == []
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute(f"ALTER DATABASE {owner.info.dbname} SET log_statement = 'all'".encode())
    house.restart()
    return race


def test_a_quiet_hot_poll_takes_few_statements(
    house: House, world: rsusim.World, race: int, database_url: str
) -> None:
    asked: list[str] = []

    async def poll(marker: psycopg.Connection) -> None:
        loop, stopping, runtime = asyncio.get_running_loop(), asyncio.Event(), house.runtime
        await Planner(runtime.db, Jobs(runtime.db), house.clock).tick()

        def hook(info: RequestInfo) -> None:
            asked.append(info.endpoint)
            marker.execute(f"SELECT 'call {len(asked)}'".encode())
            world.advance(7)  # the next poll is due at once
            if len(asked) == CALLS:
                loop.call_soon_threadsafe(stopping.set)

        world.after_answer(hook)
        clients = Clients(runtime.open_client, house.clock)
        slices = Slices(
            db=runtime.db,
            partners=runtime.partners,
            clients=clients,
            clock=house.clock,
            sweeper=runtime.sweeper,
            outages=Outages(house.clock),
            wake=runtime.wake_planner,
        )
        await slices.sweep({"partner_id": 1, "race_id": race}, stopping)
        await clients.close()

    with psycopg.connect(database_url, autocommit=True) as marker:
        house.run(poll(marker))

    quiet = [n for n in range(3, CALLS) if asked[n - 1 : n + 1] == ["participants"] * 2]
    assert quiet, asked
    polls = [logged(house, f"call {n}", f"call {n + 1}") for n in quiet]
    fewest = min(polls, key=len)
    assert len([each for each in fewest if each not in ("BEGIN", "COMMIT", "")]) <= MOST_STATEMENTS
    assert len(fewest) <= MOST_IN_ALL, len(fewest)


def logged(house: House, begin: str, end: str) -> list[str]:
    """Return the first line of each statement between two of them."""

    def log() -> str:
        [row] = house.rows("SELECT pg_read_file(pg_current_logfile()) AS said")
        return str(row["said"])

    wait_until(lambda: f"'{end}'" in log())
    said = log().split(f"'{begin}'")[1].split(f"'{end}'")[0]
    return [line.strip() for line in re.findall(r"LOG:  (?:statement|execute [^:]+):(.*)", said)[:-1]]
