"""The view `freshness` and the planner never disagree on how urgent a race is."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

import psycopg
import pytest

from bibwire.domain.schedule import EventTimes, next_boundary, tier_of

pytestmark = pytest.mark.every_postgres

TICK = timedelta(microseconds=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
# What an event's start can be away from now at a boundary.
EDGES = (DAY, 4 * HOUR, -HOUR, -7 * DAY)
AROUND = (-TICK, timedelta(0), TICK)


Races = Sequence[tuple[EventTimes, ...]]


class Mirror:
    """One transaction, so that the database's `now()` stands still."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection
        made = connection.execute(
            "INSERT INTO bibwire.partners (name) VALUES ('Peak') RETURNING partner_id, now()"
        ).fetchone()
        assert made is not None
        self._partner_id: int = made[0]
        self.now: datetime = made[1]

    def targets(self, races: Races) -> list[int | None]:
        """Store races with these events; return their target by the view."""
        key = {"partner_id": self._partner_id}
        with self._connection.cursor() as cursor:
            cursor.executemany(
                """
                WITH race AS (
                    INSERT INTO bibwire.races (partner_id, race_id, name, first_seen_at, changed_at)
                    VALUES (%(partner_id)s, %(race_id)s, 'Race', now(), now())
                )
                INSERT INTO bibwire.scopes (partner_id, race_id) VALUES (%(partner_id)s, %(race_id)s)
                """,
                [key | {"race_id": number} for number in range(len(races))],
            )
            cursor.executemany(
                """
                INSERT INTO bibwire.events
                    (partner_id, event_id, race_id, name, starts_at, ends_at, hot_from, hot_until,
                     first_seen_at, changed_at)
                SELECT
                    %(partner_id)s, count(*), %(race_id)s, 'Event', %(starts_at)s, %(ends_at)s,
                    %(hot_from)s, %(hot_until)s, now(), now()
                FROM bibwire.events
                """,
                [
                    key
                    | {
                        "race_id": number,
                        "starts_at": event.starts_at,
                        "ends_at": event.ends_at,
                        "hot_from": event.hot_from,
                        "hot_until": event.hot_until,
                    }
                    for number, events in enumerate(races)
                    for event in events
                ],
            )
            cursor.execute("SELECT target_seconds FROM bibwire.freshness ORDER BY race_id")
            return [row[0] for row in cursor.fetchall()]


@pytest.fixture
def mirror(database_url: str) -> Iterator[Mirror]:
    with psycopg.connect(database_url) as connection:
        connection.execute("SET TimeZone = 'UTC'")  # as every session of ours
        yield Mirror(connection)
        connection.rollback()


def targets(races: Races, now: datetime) -> list[float | None]:
    """Return what the planner says."""
    tiers = [tier_of(events, now) for events in races]
    return [None if tier is None else tier.seconds for tier in tiers]


def test_they_agree_around_each_boundary(mirror: Mirror) -> None:
    now = mirror.now
    instants = [None, *(now + edge + by for edge in EDGES for by in AROUND)]
    races = [(EventTimes(starts_at, ends_at),) for starts_at in instants for ends_at in instants]

    assert mirror.targets(races) == targets(races, now)


def test_they_agree_around_each_boundary_of_a_race_day(mirror: Mirror) -> None:
    now = mirror.now
    edges = (20 * HOUR, timedelta(0), -2 * HOUR, -7 * DAY)
    instants = [now + edge + by for edge in edges for by in AROUND]
    races = [
        (EventTimes(starts_at, None, hot_from, hot_until),)
        for starts_at in (None, now, now - 7 * DAY)
        for hot_from in instants
        for hot_until in instants
        if hot_from < hot_until
    ]

    assert mirror.targets(races) == targets(races, now)
    assert set(targets(races, now)) == {60, 900, 3600, 14_400, None}


def test_they_agree_on_races_of_several_events(mirror: Mirror) -> None:
    now, chance = mirror.now, random.Random(3)

    def instant() -> datetime | None:
        if chance.random() < 0.2:
            return None
        near = now + chance.choice(EDGES) + chance.choice(AROUND)
        return chance.choice((near, now + chance.uniform(-10, 10) * DAY))

    races = [tuple(EventTimes(instant(), instant()) for _ in range(chance.randrange(5))) for _ in range(1000)]

    assert mirror.targets(races) == targets(races, now)
    assert len(set(targets(races, now))) == 5


def test_a_plan_is_due_anew_at_the_very_instant_the_view_changes(mirror: Mirror) -> None:
    now = mirror.now
    races = [(EventTimes(now + edge, None),) for edge in EDGES]
    just_before = [(EventTimes(now + edge + TICK, None),) for edge in EDGES]

    view = mirror.targets([*races, *just_before])

    assert [next_boundary(events, now - TICK) for events in races] == [now] * 4
    assert view == [900, 60, 3600, None, 14_400, 900, 60, 3600]
