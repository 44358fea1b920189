"""
Every time is the right instant, whatever the race's zone, the season, and the zone this process is in.

Held against the instants the simulated world used itself. The hours around each change of the
clocks are tried minute by minute of interest; the two special hours read as documented.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import psycopg
import pytest

import rsusim
from bibwire.store.reports import EndsBeforeStart
from tests.e2e.truth import assert_mirror_equals_world
from tests.house import House

ZONES = (
    "America/New_York",
    "America/Chicago",
    "America/Denver",
    "America/Phoenix",
    "America/Los_Angeles",
    "Pacific/Honolulu",
    "Europe/London",
    "Australia/Sydney",
)
# This process, and the database session a reader has, may be anywhere.
PROCESS_ZONES = ("UTC", "America/Los_Angeles", "Australia/Lord_Howe", "Asia/Kathmandu")
EASTERN = ZoneInfo("America/New_York")
YEAR = 2026
# Before the first change of the year in any of the zones; so every event is still to come.
NEW_YEAR = datetime(YEAR, 1, 10, 17, 0, tzinfo=UTC)


@pytest.fixture(params=PROCESS_ZONES)
def process_zone(request: pytest.FixtureRequest) -> Iterator[str]:
    """Put this process into a zone."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = request.param
    time.tzset()
    yield request.param
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


@pytest.fixture
def world() -> rsusim.World:
    return rsusim.World(seed=1, now=NEW_YEAR)


def changes_of(zone: str) -> list[datetime]:
    """Return the instants in YEAR at which a zone's clocks change, to the hour."""
    there = ZoneInfo(zone)
    hours = [datetime(YEAR, 1, 1, tzinfo=UTC) + timedelta(hours=h) for h in range(365 * 24)]
    return [
        hour
        for before, hour in pairwise(hours)
        if before.astimezone(there).utcoffset() != hour.astimezone(there).utcoffset()
    ]


def wall_times(zone: str) -> list[datetime]:
    """Return wall times that stand for one instant: around each change, and through the year."""
    there = ZoneInfo(zone)
    found = [datetime(YEAR, month, 15, hour, 30) for month in range(2, 13) for hour in (0, 7, 23)]
    for change in changes_of(zone):
        for minutes in (-1500, -181, -121, -61, 61, 120, 121, 181, 1500):
            wall = (change + timedelta(minutes=minutes)).astimezone(there).replace(tzinfo=None)
            if wall.replace(tzinfo=there).utcoffset() == wall.replace(tzinfo=there, fold=1).utcoffset():
                found.append(wall)
    return found


def at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def test_the_zones_tried_are_the_ones_that_matter() -> None:
    assert {zone: len(changes_of(zone)) for zone in ZONES} == {
        "America/New_York": 2,
        "America/Chicago": 2,
        "America/Denver": 2,
        "America/Phoenix": 0,
        "America/Los_Angeles": 2,
        "Pacific/Honolulu": 0,
        "Europe/London": 2,
        "Australia/Sydney": 2,
    }


def test_starts_and_ends_are_the_instants_of_the_world(
    process_zone: str, house: House, world: rsusim.World
) -> None:
    account = world.add_partner("Peak Timing")
    house.add_partner(account)
    for zone in ZONES:
        race = world.add_race([account], zone, zone)
        for wall in wall_times(zone):
            world.add_event(race, str(wall), wall, wall + timedelta(minutes=90))

    assert house.sync().errors == []

    stored = {row["event_id"]: row for row in house.rows("SELECT * FROM bibwire.events")}
    told = [event for race in world.truth(account) for event in race.events]
    assert len(told) > 8 * 33
    for event in told:
        row = stored[event.event_id]
        assert row["starts_at"] == at(event.starts_at), (event.name, event.race_id)
        # An end may fall into the hour that happens twice: then it is the first of the two.
        assert event.ends_at is not None
        assert row["ends_at"] == at(event.ends_at), (event.name, event.race_id)
    assert {row["timezone"] for row in house.rows("SELECT timezone FROM bibwire.races")} == set(ZONES)


def test_registrations_and_removals_are_the_instants_of_the_world(
    process_zone: str, house: House, world: rsusim.World
) -> None:
    """The vendor writes them in US Eastern, whatever the race's zone; so its changes matter here."""
    account = world.add_partner("Peak Timing")
    house.add_partner(account)
    in_zone = {}
    for zone in ZONES:
        race = world.add_race([account], zone, zone)
        in_zone[zone] = world.add_event(race, "10K", datetime(YEAR, 12, 30, 8, 0))
    spring, autumn = changes_of("America/New_York")
    leaving: list[tuple[datetime, int]] = []
    for zone, event in in_zone.items():
        for change in (spring, autumn, *changes_of(zone)):
            for minutes in (-1441, -121, -61, -31, -1, 0, 1, 29, 31, 59, 61, 121, 1441):
                moment = change + timedelta(minutes=minutes)
                registered = int(moment.timestamp())
                world.register(event, registered_at=registered)
                leaving.append((moment, world.register(event, registered_at=registered - 864_000)))
    for moment, registration_id in sorted(leaving):
        world.advance(max(0.0, (moment - world.now).total_seconds()))
        world.remove(registration_id)
    world.advance(86_400)

    assert house.sync().errors == []

    stored = {row["registration_id"]: row for row in house.rows("SELECT * FROM bibwire.participants")}
    active = [r for race in world.truth(account) for event in race.events for r in event.active]
    removed = [r for race in world.truth(account) for event in race.events for r in event.removed]
    assert len(active) == len(removed) >= 8 * 2 * 13
    for registration in active:
        row = stored[registration.registration_id]
        # The hour that happens twice is told apart by last_modified, which is an instant.
        assert row["registered_at"] == at(registration.registered_at // 60 * 60)
        assert row["last_modified_at"] == at(registration.last_modified)
    for left in removed:
        row = stored[left.registration_id]
        assert row["removed_at"] == at(left.last_modified)
        assert row["registered_at"] == at(left.registered_at)


def test_the_hour_that_happens_twice_is_its_first_unless_the_vendor_tells(
    house: House, world: rsusim.World
) -> None:
    account = world.add_partner("Peak Timing")
    house.add_partner(account)
    event = world.add_event(world.add_race([account], None, "America/Denver"), "10K", datetime(YEAR, 12, 30))
    _, autumn = changes_of("America/New_York")
    second = int((autumn + timedelta(minutes=30)).timestamp())  # 01:30, for the second time
    made, edited = (world.register(event, registered_at=second) for _ in range(2))
    world.advance((autumn + timedelta(days=1) - world.now).total_seconds())
    world.edit(edited, first_name="Ada")

    assert house.sync().errors == []

    assert house.participant(made)["registered_at"] == at(second)
    # Nothing tells any more; documented: the first of the two.
    assert house.participant(edited)["registered_at"] == at(second - 3600)


def test_what_was_known_of_the_hour_that_happens_twice_is_kept_at_the_first_edit(
    house: House, world: rsusim.World
) -> None:
    account = world.add_partner("Peak Timing")
    house.add_partner(account)
    event = world.add_event(world.add_race([account], None, "America/Denver"), "10K", datetime(YEAR, 12, 30))
    _, autumn = changes_of("America/New_York")
    second = int((autumn + timedelta(minutes=30)).timestamp())  # 01:30, for the second time
    ada = world.register(event, registered_at=second)
    world.advance((autumn + timedelta(days=1) - world.now).total_seconds())
    house.sync()

    world.assign_bib(ada, 7)
    world.advance(1)
    house.sync()

    assert house.participant(ada)["registered_at"] == at(second)
    [change] = house.rows("SELECT * FROM bibwire.changes WHERE kind = 'bib_assigned'")
    assert set(change["fields"]) == {"bib_num", "last_modified_at"}


def test_a_start_in_the_hour_that_does_not_happen_keeps_its_text(house: House, world: rsusim.World) -> None:
    account = world.add_partner("Peak Timing")
    house.add_partner(account)
    race = world.add_race([account], None, "America/Chicago")
    wall = datetime(YEAR, 3, 8, 2, 30)
    event = world.add_event(race, "10K", wall)

    assert house.sync().errors == []

    [row] = house.rows("SELECT * FROM bibwire.events WHERE event_id = %(e)s", e=event)
    assert row["starts_at"] == wall.replace(tzinfo=ZoneInfo("America/Chicago")).astimezone(UTC)
    assert row["additional_data"]["start_time"] == "3/8/2026 02:30"


def test_a_live_event_is_told_by_instants_not_by_local_dates(house: House, world: rsusim.World) -> None:
    """Seven days after its end, to the minute, in Honolulu as in Sydney."""
    account = world.add_partner("Peak Timing")
    house.add_partner(account)
    ended = world.now - timedelta(days=7)
    for zone in ("Pacific/Honolulu", "Australia/Sydney"):
        for minutes in (1, -1):
            race = world.add_race([account], f"{zone} {minutes}", zone)
            there = (ended + timedelta(minutes=minutes)).astimezone(ZoneInfo(zone)).replace(tzinfo=None)
            world.add_event(race, "10K", there)

    report = house.sync()

    live = house.rows("SELECT r.name FROM bibwire.scopes JOIN bibwire.races AS r USING (race_id)")
    assert sorted(row["name"] for row in live) == ["Australia/Sydney 1", "Pacific/Honolulu 1"]
    assert report.races == 2


def test_an_event_whose_end_was_typed_before_its_start_is_kept_fresh(
    house: House, world: rsusim.World
) -> None:
    account = world.add_partner("Peak Timing")
    race = world.add_race([account], "Harbor Lights", "America/Chicago")
    five = world.add_event(race, "5K", datetime(2026, 10, 10, 8, 0), end=datetime(2025, 10, 10, 12, 0))
    ada = world.register(five, bib_num=7)
    house.add_partner(account)

    report = house.sync()

    assert (report.races, report.events, report.notes) == (1, 1, [])
    assert house.participant(ada)["bib_num"] == 7
    assert house.run(house.runtime.reports.ends_before_start(now=world.now)) == [
        EndsBeforeStart(
            "Peak Timing",
            race,
            "Harbor Lights",
            five,
            "5K",
            datetime(2026, 10, 10, 13, 0, tzinfo=UTC),
            datetime(2025, 10, 10, 17, 0, tzinfo=UTC),
        )
    ]
    assert_mirror_equals_world(house.rows, world, account)


@pytest.mark.parametrize("zone", PROCESS_ZONES)
def test_a_reader_in_any_zone_reads_the_same_instants(
    zone: str, house: House, world: rsusim.World, database_url: str
) -> None:
    account = world.add_partner("Peak Timing")
    house.add_partner(account)
    event = world.add_event(world.add_race([account], None, "America/Denver"))
    number = world.register(event)
    assert house.sync().errors == []

    with psycopg.connect(database_url, options=f"-c timezone={zone}") as connection:
        row = connection.execute(
            "SELECT registered_at, last_modified_at FROM bibwire.participants"
        ).fetchone()

    truth = world.truth(account)[0].events[0].active[0]
    assert truth.registration_id == number
    assert row == (at(truth.registered_at // 60 * 60), at(truth.last_modified))
