"""
The view `freshness` and the planner never disagree on how urgent a race is.

The program stores the races, as a discovery does, around an instant at which the database's `now()`
stands still: it is that of a transaction begun before, which sees what others commit.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import product

import psycopg
import pytest

from bibwire.domain.records import Event, Race
from bibwire.domain.schedule import EventTimes, ScopeFacts, next_boundary, tier_of
from bibwire.store import catalog, schedule
from bibwire.store.database import Database
from tests.store.mirrored import add_partner, with_database

pytestmark = pytest.mark.every_postgres

TICK = timedelta(microseconds=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
# What an event's start can be away from now at a boundary.
EDGES = (DAY, 4 * HOUR, -HOUR, -7 * DAY)
AROUND = (-TICK, timedelta(0), TICK)
FAR, AFTERGLOW, NEAR, HOT = 14_400, 3600, 900, 60

# Start and end of an event.
Times = tuple[datetime | None, datetime | None]


def zone_where(instant: datetime, hour: int) -> str:
    """Return a zone, one that keeps its offset all year, whose wall clock shows this hour at an instant."""
    behind = (instant.astimezone(UTC).hour - hour + 11) % 24 - 11
    return f"Etc/GMT{behind:+d}"


def race_of(race_id: int, events: Sequence[Times], zone: str, next_date: date | None = None) -> Race:
    return Race(
        race_id=race_id,
        name=f"Race {race_id}",
        timezone=zone,
        url=None,
        address=None,
        next_date=next_date,
        last_modified_at=None,
        additional_data={},
        events=tuple(
            Event(10 * race_id + number, race_id, "10K", starts_at, ends_at, None, None, None, {})
            for number, (starts_at, ends_at) in enumerate(events)
        ),
    )


class Mirror:
    """What the program stored, seen at one instant by the view and by the planner."""

    def __init__(self, connection: psycopg.Connection, database_url: str) -> None:
        self._connection = connection
        self._database_url = database_url
        self.partner_id = with_database(database_url, lambda db: add_partner(db, 1)).partner_id
        row = connection.execute("SELECT now()").fetchone()
        assert row is not None
        self.now: datetime = row[0]

    def discover(self, races: Sequence[Race]) -> None:
        """Let the races have been found a month ago, when none was over."""

        async def go(db: Database) -> None:
            reading = await catalog.next_reading(db)
            found_at = self.now - 30 * DAY
            await catalog.store_races(db, self.partner_id, races, [], reading=reading, now=found_at)

        with_database(self._database_url, go)

    def discover_around(self, races: Sequence[Sequence[Times]]) -> None:
        """Let races be found whose starts at a boundary are at hours that are believed."""
        zone = zone_where(self.now, 14)
        self.discover([race_of(number, events, zone) for number, events in enumerate(races)])

    def view(self, races: int) -> list[int | None]:
        """Return the target of each race by the view; None: it has none, or is not there."""
        rows = self._connection.execute("SELECT race_id, target_seconds FROM bibwire.freshness")
        found: dict[int, int | None] = dict(rows.fetchall())
        return [found.get(race_id) for race_id in range(races)]

    def known(self, now: datetime) -> Mapping[int, Sequence[EventTimes]]:
        """Return the events that the planner knows at an instant, by race."""

        async def go(db: Database) -> list[ScopeFacts]:
            async with db.transaction() as connection:
                return await schedule.facts(connection, self.partner_id, now=now)

        return {each.race_id: each.events for each in with_database(self._database_url, go)}

    def planned(self, races: int) -> list[float | None]:
        """Return the target of each race by the planner; None: it plans no polls of it."""
        known = self.known(self.now)
        tiers = [tier_of(known.get(race_id, ()), self.now) for race_id in range(races)]
        return [None if tier is None else tier.seconds for tier in tiers]


@pytest.fixture
def mirror(database_url: str) -> Iterator[Mirror]:
    with psycopg.connect(database_url) as connection:
        connection.execute("SET TimeZone = 'UTC'")  # as every session of ours
        connection.commit()
        yield Mirror(connection, database_url)
        connection.rollback()


def test_they_agree_around_each_boundary(mirror: Mirror) -> None:
    instants = [None, *(mirror.now + edge + by for edge in EDGES for by in AROUND)]
    races = [[times] for times in product(instants, instants)]
    mirror.discover_around(races)

    view = mirror.view(len(races))

    assert view == mirror.planned(len(races))
    # The owner's hours, to the tick: those of the starts alone, without ends.
    alone = view[len(instants) :: len(instants)]
    assert alone == [
        *(NEAR, NEAR, FAR),
        *(HOT, HOT, NEAR),
        *(AFTERGLOW, AFTERGLOW, HOT),
        *(None, None, AFTERGLOW),
    ]


def race_day(race_id: int, hot_from: datetime, *, lacks_a_start: bool) -> Race:
    """Make a race that is hot for 20 hours from then on, by its first start, its last, and one not given."""
    first, last = hot_from + 4 * HOUR, hot_from + 19 * HOUR
    starts: list[Times] = [(first, None), (last, None)]
    zone = zone_where(first, 5)
    behind = timedelta(hours=int(zone.removeprefix("Etc/GMT")))
    next_date = (first - behind).date() if lacks_a_start else None
    return race_of(race_id, [*starts, (None, None)] if lacks_a_start else starts, zone, next_date)


def test_they_agree_around_each_boundary_of_a_race_day(mirror: Mirror) -> None:
    now = mirror.now
    begins = [now + edge + by for edge in (20 * HOUR, timedelta(0), -20 * HOUR) for by in AROUND]
    # A day without a start of one of its events may be meant for another one.
    begins += [now - 7 * DAY - 20 * HOUR + by for by in AROUND]
    races = [
        race_day(number, hot_from, lacks_a_start=lacks)
        for number, (lacks, hot_from) in enumerate(product((True, False), begins))
    ]
    mirror.discover(races)

    view = mirror.view(len(races))

    assert view == mirror.planned(len(races))
    day = [NEAR, NEAR, FAR, HOT, HOT, NEAR, AFTERGLOW, AFTERGLOW, HOT]
    assert view == [*day, FAR, FAR, AFTERGLOW, *day, None, None, None]


def test_they_agree_on_races_of_several_events(mirror: Mirror) -> None:
    now, chance = mirror.now, random.Random(3)

    def instant() -> datetime | None:
        if chance.random() < 0.2:
            return None
        near = now + chance.choice(EDGES) + chance.choice(AROUND)
        return chance.choice((near, now + chance.uniform(-10, 10) * DAY))

    # At random hours some starts are not believed: their whole day is hot.
    races = [[(instant(), instant()) for _ in range(chance.randrange(5))] for _ in range(1000)]
    mirror.discover_around(races)

    view = mirror.view(len(races))

    assert view == mirror.planned(len(races))
    assert {*view} == {HOT, NEAR, AFTERGLOW, FAR, None}


def test_a_plan_is_due_anew_at_the_very_instant_the_view_changes(mirror: Mirror) -> None:
    now = mirror.now
    starts = [now + edge + by for by in (timedelta(0), TICK) for edge in EDGES]
    mirror.discover_around([[(start, None)] for start in starts])

    view = mirror.view(len(starts))

    known = mirror.known(now - TICK)
    assert [next_boundary(known[race_id], now - TICK) for race_id in range(4)] == [now] * 4
    assert view == [NEAR, HOT, AFTERGLOW, None, FAR, NEAR, HOT, AFTERGLOW]
