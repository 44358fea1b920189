"""A replica that lost the newest commits takes over in the middle of a sweep: what is lost is read again."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

import rsusim
from rsusim.log import RequestInfo
from tests.conftest import NOON
from tests.e2e import truth
from tests.house import House
from tests.ordeal.postgres import DATABASE, ROLE, Cluster
from tests.relay import Relay

PAGE, PEOPLE = 20, 50


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    try:
        if not cluster.has_replicas:
            pytest.skip("a PostgreSQL of the system is needed: apt-get install postgresql")
        cluster.add_replica()
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def relay(cluster: Cluster) -> Iterator[Relay]:
    """The address of the database, which stays the same."""
    relay = Relay(cluster.primary.socket)
    relay.start()
    yield relay
    relay.stop()


@pytest.fixture
def world() -> rsusim.World:
    """One race of some pages."""
    world = rsusim.World(seed=1, now=NOON)
    race = world.add_race([world.add_partner("Peak Timing")], None, "America/Denver")
    event = world.add_event(race)
    for _ in range(PEOPLE):
        world.register(event)
    world.advance(60)
    return world


@pytest.mark.slow
def test_no_cursor_covers_a_page_that_a_promotion_lost(
    world: rsusim.World, simulator: rsusim.Server, cluster: Cluster, relay: Relay
) -> None:
    conninfo = psycopg.conninfo.make_conninfo(host="127.0.0.1", port=relay.port, user=ROLE, dbname=DATABASE)
    account = world.accounts["Peak Timing"]
    with House(world, simulator.base_url, conninfo, page_size=PAGE) as house:
        house.add_partner(account)
        assert not house.sync().errors
    asked: list[RequestInfo] = []

    def promote(info: RequestInfo) -> None:
        """The first page of changes reaches no replica; before the second one is answered, it takes over."""
        if info.endpoint != "participants":
            return
        asked.append(info)
        if len(asked) == 1:
            cluster.hold_back_replica()
        elif len(asked) == 2:
            cluster.promote()
            relay.lead_to(cluster.primary.socket)

    [event] = world.events
    world.bulk_assign(event, 101)
    world.advance(60)
    with House(world, simulator.base_url, conninfo, page_size=PAGE) as house:
        world.before_answer(promote)
        house.sync()
        world.clear_hooks()
        assert len(asked) >= 2
        world.advance(60)
        assert not house.sync().errors

    with cluster.superuser() as connection:

        def rows(query: str, **values: object) -> list[truth.Row]:
            return connection.execute(query.encode(), values).fetchall()

        truth.assert_mirror_equals_world(rows, world, account)
        truth.assert_feed_is_sound(rows, account)
