"""What is due is found at once however many scopes are idle, and given to one planner only."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from bibwire.domain.budget import Urgency
from bibwire.domain.schedule import Tier
from bibwire.engine.planner import DISCOVER, SWEEP, Planner
from bibwire.store import schedule
from bibwire.store.database import open_database, statements
from bibwire.store.jobs import Jobs

NOW = datetime(2026, 9, 12, 16, 0, tzinfo=UTC)


class Still:
    """A clock that stands."""

    def __init__(self) -> None:
        self.at = NOW

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.at.timestamp()

    async def sleep(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def furnish(
    connection: psycopg.Connection[Any],
    *,
    partners: int,
    races: int,
    start: datetime,
    calls: int = 1000,
    now: datetime = NOW,
) -> None:
    """Add partners with races of one event each; nothing is due, nothing planned or read anew."""
    connection.execute(
        """
        WITH p AS (
            INSERT INTO bibwire.partners (name)
            SELECT 'Partner ' || n FROM generate_series(1, %(partners)s) AS n
            RETURNING partner_id
        ), c AS (
            INSERT INTO bibwire.credentials (partner_id, kind, fingerprint, calls_per_hour, key_encrypted)
            SELECT partner_id, 'key', 'abcd', %(calls)s, '' FROM p
        ), d AS (
            INSERT INTO bibwire.plans (partner_id, next_plan_at, next_discovery_at)
            SELECT partner_id, %(later)s, %(later)s FROM p
        ), r AS (
            INSERT INTO bibwire.races (partner_id, race_id, name, first_seen_at, changed_at)
            SELECT partner_id, n, 'Race ' || n, %(now)s, %(now)s
            FROM p, generate_series(1, %(races)s) AS n
        )
        INSERT INTO bibwire.events (partner_id, event_id, race_id, name, starts_at, first_seen_at, changed_at)
        SELECT partner_id, n, n, '10K', %(start)s, %(now)s, %(now)s
        FROM p, generate_series(1, %(races)s) AS n
        """,
        {
            "partners": partners,
            "races": races,
            "now": now,
            # Sooner than whatever is planned is planned anew.
            "later": now + timedelta(minutes=30),
            "start": start,
            "calls": calls,
        },
    )


def make_due(connection: psycopg.Connection[Any], tier: Tier, *, partner_id: int = 1) -> None:
    connection.execute(
        "INSERT INTO bibwire.scopes (partner_id, race_id, tier, next_due_at, loaded_at)"
        " SELECT partner_id, race_id, %(tier)s, %(now)s, %(now)s"
        " FROM bibwire.races WHERE partner_id = %(partner_id)s"
        " ON CONFLICT (partner_id, race_id)"
        " DO UPDATE SET tier = excluded.tier, next_due_at = excluded.next_due_at",
        {"tier": tier.value, "now": NOW, "partner_id": partner_id},
    )


def tick(database_url: str, clock: Still | None = None, times: int = 1) -> list[Any]:
    async def go() -> list[Any]:
        async with open_database(database_url) as db:
            planners = [Planner(db, Jobs(db), clock or Still()) for _ in range(times)]
            return await asyncio.gather(*(planner.tick() for planner in planners))

    return asyncio.run(go())


def queued(connection: psycopg.Connection[Any], task: str) -> int:
    row = connection.execute(
        "SELECT count(*) FROM bibwire_jobs.procrastinate_jobs WHERE task_name = %s", (task,)
    ).fetchone()
    assert row is not None
    return int(row[0])


def explained(connection: psycopg.Connection[Any], name: str, **values: object) -> dict[str, Any]:
    """Run a statement of the schedule; return how the server went about it."""
    with psycopg.ClientCursor(connection) as cursor:
        cursor.execute(
            b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + statements("schedule")[name].encode(), values
        )
        [[[found]]] = cursor.fetchall()
    return dict(found["Plan"])


def pages_read(plan: dict[str, Any]) -> int:
    return int(plan["Shared Hit Blocks"]) + int(plan["Shared Read Blocks"])


def test_what_is_due_is_queued_once_however_many_plan(
    connection: psycopg.Connection[Any], database_url: str
) -> None:
    furnish(connection, partners=1, races=40, start=NOW + timedelta(days=9))
    make_due(connection, Tier.FAR)

    ticked = tick(database_url, times=3)
    again = tick(database_url)

    assert sum(each.queued for each in ticked) == 40
    assert again[0].queued == 0
    assert queued(connection, SWEEP) == 40


def test_a_scope_whose_job_is_lost_comes_up_again(
    connection: psycopg.Connection[Any], database_url: str
) -> None:
    furnish(connection, partners=1, races=1, start=NOW + timedelta(days=9))
    make_due(connection, Tier.FAR)
    clock = Still()
    assert tick(database_url, clock)[0].queued == 1
    connection.execute("SET search_path = bibwire_jobs")
    connection.execute("DELETE FROM procrastinate_jobs")

    clock.at += schedule.CLAIM - timedelta(seconds=1)
    assert tick(database_url, clock)[0].queued == 0
    clock.at += timedelta(seconds=1)
    assert tick(database_url, clock)[0].queued == 1


def test_only_what_the_budget_pays_for_is_queued_and_the_rest_is_looked_at_later(
    connection: psycopg.Connection[Any], database_url: str
) -> None:
    furnish(connection, partners=1, races=30, start=NOW + timedelta(days=9), calls=20)
    make_due(connection, Tier.FAR)
    connection.execute(
        "INSERT INTO bibwire.call_minutes (credential_id, minute, calls)"
        " SELECT credential_id, date_trunc('minute', clock_timestamp()), 10 FROM bibwire.credentials"
    )

    [ticked] = tick(database_url)

    # 95 % of the 19 calls a limit of 20 allows, less the 10 spent.
    assert (ticked.queued, ticked.put_off) == (8, 22)
    row = connection.execute(
        "SELECT count(*) FROM bibwire.scopes WHERE next_due_at = %s", (NOW + timedelta(minutes=1),)
    ).fetchone()
    assert row == (22,)


def test_what_is_queued_and_not_polled_yet_is_paid_for(
    connection: psycopg.Connection[Any], database_url: str
) -> None:
    furnish(connection, partners=2, races=30, start=NOW + timedelta(days=9), calls=20)
    make_due(connection, Tier.FAR)
    connection.execute(
        "UPDATE bibwire.scopes SET next_due_at = %s WHERE race_id > 10", (NOW + timedelta(hours=1),)
    )
    assert tick(database_url)[0].queued == 10
    connection.execute("UPDATE bibwire.scopes SET next_due_at = %s WHERE race_id > 10", (NOW,))
    make_due(connection, Tier.FAR, partner_id=2)

    [ticked] = tick(database_url)

    # 95 % of the 19 calls are 18: 8 more of the first partner's, and as many of the other's as it has.
    assert (ticked.queued, ticked.put_off) == (8 + 18, 12 + 12)


def test_a_poll_that_is_over_or_whose_job_was_lost_reserves_no_call(
    connection: psycopg.Connection[Any], database_url: str
) -> None:
    furnish(connection, partners=1, races=30, start=NOW + timedelta(days=9), calls=20)
    make_due(connection, Tier.FAR)
    connection.execute(
        "UPDATE bibwire.scopes SET"
        " next_due_at = CASE WHEN race_id > 10 THEN %(now)s ELSE %(later)s END,"
        " claimed_until = CASE WHEN race_id <= 10 THEN %(later)s WHEN race_id <= 12 THEN %(now)s END",
        {"now": NOW, "later": NOW + timedelta(minutes=2)},
    )

    [ticked] = tick(database_url)

    assert (ticked.queued, ticked.put_off) == (18, 2)


def test_a_blocked_credential_is_left_alone_until_its_block_ends_and_others_are_not(
    connection: psycopg.Connection[Any], database_url: str
) -> None:
    clock = Still()
    clock.at = datetime.now(UTC)  # the budget's clock is the database's
    furnish(connection, partners=2, races=3, start=clock.at + timedelta(days=9), now=clock.at)
    for partner_id in (1, 2):
        make_due(connection, Tier.FAR, partner_id=partner_id)
    until = clock.at + timedelta(minutes=7)
    connection.execute("UPDATE bibwire.credentials SET blocked_until = %s WHERE partner_id = 1", (until,))

    [ticked] = tick(database_url, clock)

    assert (ticked.queued, ticked.put_off) == (3, 3)
    row = connection.execute(
        "SELECT count(*) FROM bibwire.scopes WHERE partner_id = 1 AND next_due_at = %s", (until,)
    ).fetchone()
    assert row == (3,)


def test_hot_races_are_queued_first_whatever_else_is_due(
    connection: psycopg.Connection[Any], database_url: str
) -> None:
    furnish(connection, partners=6, races=100, start=NOW + timedelta(days=9), calls=100_000)
    for partner_id in range(1, 6):
        make_due(connection, Tier.FAR, partner_id=partner_id)
    make_due(connection, Tier.HOT, partner_id=6)
    connection.execute(
        "UPDATE bibwire.scopes SET next_due_at = %s WHERE partner_id < 6", (NOW - timedelta(hours=1),)
    )

    [ticked] = tick(database_url)

    assert ticked.queued == 100 + 200
    row = connection.execute(
        "SELECT count(*) FROM bibwire_jobs.procrastinate_jobs"
        " WHERE priority = 1 AND args ->> 'partner_id' = '6'"
    ).fetchone()
    assert row == (100,)


def test_discovery_is_queued_when_it_is_due_and_not_for_a_paused_partner(
    connection: psycopg.Connection[Any], database_url: str
) -> None:
    furnish(connection, partners=3, races=1, start=NOW + timedelta(days=9))
    connection.execute("UPDATE bibwire.plans SET next_discovery_at = %s WHERE partner_id > 1", (NOW,))
    connection.execute("UPDATE bibwire.partners SET paused_at = now() WHERE partner_id = 3")

    assert tick(database_url)[0].discoveries == 1
    assert tick(database_url)[0].discoveries == 0
    assert queued(connection, DISCOVER) == 1


def test_a_plan_opens_scopes_and_a_pause_closes_them(
    connection: psycopg.Connection[Any], database_url: str
) -> None:
    furnish(connection, partners=1, races=2, start=NOW + timedelta(days=9))
    connection.execute("UPDATE bibwire.plans SET next_plan_at = %s", (NOW,))

    assert (tick(database_url)[0].planned, queued(connection, SWEEP)) == (1, 2)
    connection.execute("UPDATE bibwire.partners SET paused_at = now()")
    connection.execute("UPDATE bibwire.plans SET next_plan_at = %s", (NOW,))
    assert tick(database_url)[0].planned == 1

    rows = connection.execute("SELECT next_due_at, tier FROM bibwire.scopes").fetchall()
    assert rows == [(None, None), (None, None)]


@pytest.mark.parametrize("name", ["hot_due", "others_due", "partners_to_plan", "discoveries_due"])
def test_finding_what_is_due_reads_an_index_and_not_what_is_idle(
    name: str, connection: psycopg.Connection[Any]
) -> None:
    furnish(connection, partners=500, races=20, start=NOW + timedelta(days=9))
    connection.execute(
        "INSERT INTO bibwire.scopes (partner_id, race_id, tier, next_due_at)"
        " SELECT partner_id, race_id, 'far', %s FROM bibwire.races",
        (NOW + timedelta(hours=2),),
    )
    make_due(connection, Tier.HOT)
    connection.execute("ANALYZE bibwire.scopes, bibwire.plans, bibwire.credentials, bibwire.partners")

    plan = explained(connection, name, now=NOW, horizon=NOW, most=200)

    assert "Seq Scan" not in json.dumps(plan), plan
    assert pages_read(plan) < 300


def test_what_jobs_have_in_hand_is_counted_without_reading_what_is_idle(
    connection: psycopg.Connection[Any],
) -> None:
    furnish(connection, partners=2, races=10_000, start=NOW + timedelta(days=9))
    make_due(connection, Tier.FAR)
    connection.execute(
        "UPDATE bibwire.scopes SET claimed_until = %s WHERE race_id <= 20", (NOW + timedelta(minutes=1),)
    )
    connection.execute("VACUUM ANALYZE bibwire.scopes, bibwire.credentials")

    plan = explained(connection, "claimed", now=NOW, horizon=NOW, credential_ids=[1, 2])

    assert pages_read(plan) < 50, plan


def test_a_first_load_leaves_half_of_the_calls_to_what_is_loaded(
    connection: psycopg.Connection[Any], database_url: str
) -> None:
    furnish(connection, partners=1, races=30, start=NOW + timedelta(days=9), calls=20)
    make_due(connection, Tier.FAR)
    connection.execute("UPDATE bibwire.scopes SET loaded_at = NULL")

    [ticked] = tick(database_url)

    assert (ticked.queued, ticked.put_off) == (9, 21)


def test_a_poll_that_began_under_a_slower_plan_does_not_undo_the_faster_one(
    connection: psycopg.Connection[Any], database_url: str
) -> None:
    furnish(connection, partners=1, races=1, start=NOW + timedelta(hours=4))
    make_due(connection, Tier.HOT)
    connection.execute("UPDATE bibwire.scopes SET poll_every_seconds = 60")
    slow = NOW + timedelta(minutes=15)

    async def go() -> list[Any]:
        async with open_database(database_url) as db:
            await schedule.record_poll(
                db,
                1,
                1,
                polled_at=NOW,
                removed_polled_at=None,
                rate=0.0,
                next_due_at=slow,
                goes_on=False,
                now=NOW,
            )
            polled = await schedule.turn(db, 1, 1)
            await schedule.record_failure(db, 1, 1, next_due_at=slow, now=NOW)
            failed = await schedule.turn(db, 1, 1)
            await schedule.record_failure(db, 1, 1, next_due_at=slow, now=NOW, counts=False)
            return [polled, failed, await schedule.turn(db, 1, 1)]

    found = asyncio.run(go())
    assert [(each.next_due_at, each.failures) for each in found] == [
        (NOW + timedelta(minutes=1), 0),
        (NOW + timedelta(minutes=1), 1),
        (NOW + timedelta(minutes=15), 1),
    ]


def test_a_failing_race_that_becomes_urgent_is_tried_at_its_new_tier(
    connection: psycopg.Connection[Any], database_url: str
) -> None:
    furnish(connection, partners=1, races=1, start=NOW + timedelta(hours=2))
    make_due(connection, Tier.FAR)
    connection.execute(
        "UPDATE bibwire.scopes SET failures = 9, next_due_at = %s", (NOW + timedelta(hours=3),)
    )
    connection.execute("UPDATE bibwire.plans SET next_plan_at = %s", (NOW,))

    tick(database_url)

    row = connection.execute("SELECT next_due_at, tier FROM bibwire.scopes").fetchone()
    assert row == (NOW + timedelta(minutes=1), "hot")


def test_urgencies_follow_the_tiers() -> None:
    from bibwire.engine.planner import urgency_of

    assert [urgency_of(tier, loaded=True) for tier in Tier] == [
        Urgency.RACE_DAY,
        Urgency.DELTA,
        Urgency.DELTA,
        Urgency.DELTA,
    ]


def tell(
    connection: psycopg.Connection[Any], seen_at: datetime, lags: list[float], *, race_id: int = 1
) -> None:
    """Write changes of partner 1 to the feed, seen so many seconds after the vendor knew of them."""
    connection.execute(
        """
        WITH head AS (
            INSERT INTO bibwire.feed_heads AS f (partner_id, last_seq)
            VALUES (1, cardinality(%(lags)s::float8[]))
            ON CONFLICT (partner_id) DO UPDATE SET last_seq = f.last_seq + excluded.last_seq
            RETURNING last_seq - cardinality(%(lags)s::float8[]) AS before
        )
        INSERT INTO bibwire.changes (partner_id, seq, race_id, kind, fields, modified_at, seen_at)
        SELECT 1, before + n, %(race_id)s, 'edited', '{}', %(at)s - make_interval(secs => lag), %(at)s
        FROM head, unnest(%(lags)s::float8[]) WITH ORDINALITY AS w (lag, n)
        """,
        {"lags": lags, "race_id": race_id, "at": seen_at},
    )


def count_lag(database_url: str) -> None:
    async def go() -> None:
        async with open_database(database_url) as db:
            await schedule.count_lag(db)

    asyncio.run(go())


def lags(connection: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    return connection.execute(
        "SELECT race_id, hour, changes, p50_seconds, p95_seconds, worst_seconds, first_seq"
        " FROM bibwire.detection_lag ORDER BY 1, 2"
    ).fetchall()


def test_lags_are_of_all_changes_of_an_hour_whenever_they_are_counted(
    connection: psycopg.Connection[Any], database_url: str
) -> None:
    furnish(connection, partners=1, races=2, start=NOW)
    make_due(connection, Tier.HOT)
    connection.execute("UPDATE bibwire.scopes SET loaded_at = %s", (NOW - timedelta(hours=5),))
    minute = timedelta(minutes=1)
    tell(connection, NOW - minute, [9.0])
    tell(connection, NOW + minute, [1.0, 2.0])
    tell(connection, NOW + minute, [7.0], race_id=2)
    count_lag(database_url)
    first = lags(connection)
    tell(connection, NOW + 2 * minute, [3.0, 6 * 3600.0])
    # By a clock that is behind: to an hour that seemed to be over.
    tell(connection, NOW - minute, [11.0])
    count_lag(database_url)

    assert first == [
        (1, NOW - timedelta(hours=1), 1, 9.0, 9.0, 9.0, 1),
        (1, NOW, 2, 1.5, pytest.approx(1.95), 2.0, 2),
        (2, NOW, 1, 7.0, 7.0, 7.0, 4),
    ]
    assert lags(connection) == [
        (1, NOW - timedelta(hours=1), 2, 10.0, pytest.approx(10.9), 11.0, 1),
        (1, NOW, 3, 2.0, pytest.approx(2.9), 3.0, 2),
        (2, NOW, 1, 7.0, 7.0, 7.0, 4),
    ]
    count_lag(database_url)
    assert len(lags(connection)) == 3


def test_counting_lags_reads_what_is_new_and_its_hour_alone(
    connection: psycopg.Connection[Any], database_url: str
) -> None:
    furnish(connection, partners=1, races=20, start=NOW)
    make_due(connection, Tier.HOT)
    connection.execute("UPDATE bibwire.scopes SET loaded_at = %s", (NOW - timedelta(days=9),))
    for hour in range(48, 0, -1):
        for race_id in (1, 2, 3):
            tell(connection, NOW - timedelta(hours=hour), [1.0] * 400, race_id=race_id)
    count_lag(database_url)
    connection.execute("VACUUM ANALYZE bibwire.changes, bibwire.scopes, bibwire.detection_lag")
    row = connection.execute("SELECT last_seq FROM bibwire.feed_heads").fetchone()
    assert row is not None
    tell(connection, NOW - timedelta(minutes=1), [5.0] * 10, race_id=2)

    plan = explained(
        connection, "count_lag", partner_id=1, after=row[0], through=row[0] + 10, clock_ahead=0.0
    )

    # The race's whole feed would be several hundred.
    assert pages_read(plan) < 100, plan
    [(changes, worst)] = connection.execute(
        "SELECT changes, worst_seconds FROM bibwire.detection_lag WHERE race_id = 2 AND hour = %s",
        (NOW - timedelta(hours=1),),
    ).fetchall()
    assert (changes, worst) == (410, 5.0)
