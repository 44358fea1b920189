"""The main job: what happens at the vendor stands in the mirror and once in the feed."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

import rsusim
from tests.house import House

pytestmark = pytest.mark.every_postgres
SATURDAY = datetime(2026, 9, 19, 8, 0)


@pytest.fixture
def race(world: rsusim.World) -> tuple[rsusim.Account, int, int, int]:
    """A partner with a race of two events and a few people in each."""
    account = world.add_partner("Peak Timing")
    race = world.add_race([account], "Harbor Lights", "America/Chicago")
    ten, five = (world.add_event(race, name, SATURDAY) for name in ("10K", "5K"))
    for event in (ten, five):
        for _ in range(5):
            world.register(event)
    return account, race, ten, five


def test_a_first_sync_stores_everybody_and_writes_one_line_to_the_feed(
    house: House, race: tuple[rsusim.Account, int, int, int]
) -> None:
    house.add_partner(race[0])

    report = house.sync()

    assert report.errors == []
    assert (report.participants.inserted, report.races, report.events) == (10, 1, 2)
    assert house.kinds() == ["loaded"]
    [loaded] = house.rows("SELECT * FROM bibwire.changes")
    assert loaded["fields"] == {"participants": 10, "removed": 0, "with_bib": 0, "events": 2}


def test_a_bib_assigned_changed_and_cleared_is_told_once_each(
    house: House, world: rsusim.World, race: tuple[rsusim.Account, int, int, int]
) -> None:
    house.add_partner(race[0])
    ada = world.register(race[2], first_name="Ada")
    house.sync()

    for bib in (101, 102, None):
        world.advance(60)
        world.assign_bib(ada, bib) if bib else world.clear_bib(ada)
        report = house.sync()
        assert report.participants.updated == 1
        house.sync()

    assert house.bib_changes() == [(ada, None, 101), (ada, 101, 102), (ada, 102, None)]
    assert house.kinds() == ["loaded", "bib_assigned", "bib_changed", "bib_cleared"]
    assert house.participant(ada)["bib_num"] is None


def test_a_transfer_removes_here_and_registers_there_and_links_both(
    house: House, world: rsusim.World, race: tuple[rsusim.Account, int, int, int]
) -> None:
    house.add_partner(race[0])
    ada = world.register(race[2], bib_num=7)
    house.sync()
    world.advance(60)

    new = world.transfer(ada, race[3])
    house.sync()

    old = house.participant(ada)
    assert (old["removed_reason"], old["new_registration_id"]) == ("transferred", new)
    assert old["removed_at"] == world.now.replace(microsecond=0)
    assert house.participant(new)["event_id"] == race[3]
    assert sorted(house.kinds()) == ["loaded", "registered", "removed"]
    assert (ada, 7, None) in house.bib_changes()


def test_a_registration_gone_without_a_trace_is_absent_after_a_full_sync(
    house: House, world: rsusim.World, race: tuple[rsusim.Account, int, int, int]
) -> None:
    house.add_partner(race[0])
    ada = world.register(race[2])
    house.sync()
    world.advance(60)
    world.vanish(ada)

    house.sync()
    assert house.participant(ada)["removed_at"] is None
    report = house.sync(full=True)

    assert report.errors == []
    assert house.participant(ada)["removed_reason"] == "absent"
    assert house.kinds() == ["loaded", "removed"]


def test_a_delta_with_nothing_new_costs_one_call_a_stream(
    house: House, world: rsusim.World, race: tuple[rsusim.Account, int, int, int]
) -> None:
    house.add_partner(race[0])
    house.sync()
    world.advance(timedelta(hours=1).total_seconds())
    world.log.clear()

    house.sync()

    asked = [request.endpoint for request in world.log.requests]
    assert sorted(asked) == ["participants", "races", "removed-participants"]
