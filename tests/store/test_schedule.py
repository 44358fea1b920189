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
from bibwire.domain.merge import BibMove
from bibwire.domain.schedule import Tier
from bibwire.domain.secrets import NOBODY
from bibwire.engine.planner import DISCOVER, SWEEP, Planner
from bibwire.store import feed, schedule
from bibwire.store.database import Database, open_database, statements
from bibwire.store.jobs import Jobs
from bibwire.store.partners import Partners
from bibwire.store.permits import Permits
from bibwire.store.session import open_session
from tests.store.mirrored import VAULT, add_partner, list_races, load, with_database

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
    database_url: str,
    *,
    partners: int,
    races: int,
    start: datetime,
    calls: int = 1000,
    calls_made: int = 0,
    loaded: bool = True,
    now: datetime = NOW,
) -> None:
    """Add partners whose races, of one event each, were listed and loaded; all are to be planned."""

    async def go(db: Database) -> None:
        for number in range(1, partners + 1):
            partner = await add_partner(db, number, calls=calls, calls_made=calls_made)
            await list_races(db, partner.partner_id, range(1, races + 1), start=start, now=now)
            if loaded:
                await load(db, partner.partner_id, range(1, races + 1), now=now)

    with_database(database_url, go)


def find_more(
    database_url: str, partner_id: int, *, races: int, start: datetime, now: datetime = NOW
) -> None:
    """Let a race list show so many races of a partner, and load them."""

    async def go(db: Database) -> None:
        await list_races(db, partner_id, range(1, races + 1), start=start, now=now)
        await load(db, partner_id, range(1, races + 1), now=now)

    with_database(database_url, go)


def crowd(database_url: str, *, partners: int, races: int, others: int = 0) -> None:
    """
    Add partners with no call left this hour, whose races were found, planned and put off.

    Args:
        others: How many more partners there are, without a race.
    """

    async def go(db: Database) -> None:
        start, later = NOW + timedelta(days=9), NOW + schedule.PUT_OFF
        for number in range(1, partners + others + 1):
            await add_partner(db, number, calls=20, calls_made=20)
            found = range(1, races + 1 if number <= partners else 1)
            await list_races(db, number, found, start=start, now=NOW, again_at=later)
            if number > partners:
                async with db.transaction() as connection:
                    await schedule.put_plan_off(connection, number, again_at=later)
        await Planner(db, Jobs(db), Still()).tick()
        for number in range(1, partners + 1):
            # As where nothing works under a key.
            await schedule.put_partner_off(db, number, until=later)

    with_database(database_url, go)


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
    furnish(database_url, partners=1, races=40, start=NOW + timedelta(days=9))

    ticked = tick(database_url, times=3)
    again = tick(database_url)

    assert sum(each.planned for each in ticked) == 1
    assert sum(each.queued for each in ticked) == 40
    assert again[0].queued == 0
    assert queued(connection, SWEEP) == 40


def test_a_scope_whose_job_is_lost_comes_up_again(
    connection: psycopg.Connection[Any], database_url: str
) -> None:
    furnish(database_url, partners=1, races=1, start=NOW + timedelta(days=9))
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
    furnish(database_url, partners=1, races=30, start=NOW + timedelta(days=9), calls=20, calls_made=10)

    [ticked] = tick(database_url)

    # 95 % of the 19 calls a limit of 20 allows, less the 10 spent.
    assert (ticked.queued, ticked.put_off) == (8, 22)
    row = connection.execute(
        "SELECT count(*) FROM bibwire.scopes WHERE next_due_at = %s", (NOW + timedelta(minutes=1),)
    ).fetchone()
    assert row == (22,)


def test_what_is_queued_and_not_polled_yet_is_paid_for(database_url: str) -> None:
    start = NOW + timedelta(days=9)
    furnish(database_url, partners=2, races=0, start=start, calls=20)
    find_more(database_url, 1, races=10, start=start)
    assert tick(database_url)[0].queued == 10
    for partner_id in (1, 2):
        find_more(database_url, partner_id, races=30, start=start)

    [ticked] = tick(database_url)

    # 95 % of the 19 calls are 18: 8 more of the first partner's, and as many of the other's as it has.
    assert (ticked.queued, ticked.put_off) == (8 + 18, 12 + 12)


def test_a_poll_that_is_over_or_whose_job_was_lost_reserves_no_call(database_url: str) -> None:
    start, clock = NOW + timedelta(days=9), Still()
    furnish(database_url, partners=1, races=12, start=start, calls=20)
    assert tick(database_url, clock)[0].queued == 12
    clock.at += schedule.CLAIM

    async def poll_ten(db: Database) -> None:
        for race_id in range(1, 11):
            # Its job has its next poll in hand, which is far away.
            await schedule.record_poll(
                db, 1, race_id, polled_at=clock.at, removed_polled_at=clock.at, rate=0.0,
                next_due_at=clock.at + timedelta(minutes=2), goes_on=True, now=clock.at,
            )  # fmt: skip

    with_database(database_url, poll_ten)
    find_more(database_url, 1, races=30, start=start, now=clock.at)

    [ticked] = tick(database_url, clock)

    assert (ticked.queued, ticked.put_off) == (18, 2)


def test_a_blocked_credential_is_left_alone_until_its_block_ends_and_others_are_not(
    connection: psycopg.Connection[Any], database_url: str
) -> None:
    clock = Still()
    clock.at = datetime.now(UTC)  # the budget's clock is the database's
    furnish(database_url, partners=2, races=3, start=clock.at + timedelta(days=9), now=clock.at)

    async def throttle(db: Database) -> None:
        async with open_session(database_url) as session:
            permits = Permits(db, session, clock, credential_id=1, caller=NOBODY, calls_in_flight=2)
            await permits.throttled("fewer calls", 7 * 60)

    with_database(database_url, throttle)

    [ticked] = tick(database_url, clock)

    assert (ticked.queued, ticked.put_off) == (3, 3)
    row = connection.execute(
        "SELECT count(*), min(c.blocked_until) FROM bibwire.scopes AS s JOIN bibwire.credentials AS c"
        " ON c.partner_id = s.partner_id WHERE s.partner_id = 1 AND s.next_due_at = c.blocked_until"
    ).fetchone()
    assert row is not None
    assert row[0] == 3
    assert abs(row[1] - clock.at - timedelta(minutes=7)) < timedelta(minutes=1)


def test_hot_races_are_queued_first_whatever_else_is_due(
    connection: psycopg.Connection[Any], database_url: str
) -> None:
    clock = Still()
    clock.at -= timedelta(hours=1)
    furnish(database_url, partners=6, races=0, start=NOW, calls=100_000, now=clock.at)
    for partner_id in range(1, 6):
        find_more(database_url, partner_id, races=100, start=NOW + timedelta(days=9), now=clock.at)
    tick(database_url, clock)  # more are due than one tick queues
    clock.at = NOW
    find_more(database_url, 6, races=100, start=NOW + timedelta(hours=2))

    tick(database_url, clock)

    rows = connection.execute(
        "SELECT priority, count(*) FROM bibwire_jobs.procrastinate_jobs"
        " WHERE args ->> 'partner_id' = '6' GROUP BY 1"
    ).fetchall()
    assert rows == [(1, 100)]


def test_discovery_is_queued_when_it_is_due_and_not_for_a_paused_partner(
    connection: psycopg.Connection[Any], database_url: str
) -> None:
    furnish(database_url, partners=3, races=1, start=NOW + timedelta(days=9))

    async def go(db: Database) -> None:
        for partner_id in (2, 3):
            await list_races(db, partner_id, [1], start=NOW + timedelta(days=9), now=NOW, again_at=NOW)
        await Partners(db, VAULT).pause("Partner 3")

    with_database(database_url, go)

    assert tick(database_url)[0].discoveries == 1
    assert tick(database_url)[0].discoveries == 0
    assert queued(connection, DISCOVER) == 1


def test_a_plan_opens_scopes_and_a_pause_closes_them(
    connection: psycopg.Connection[Any], database_url: str
) -> None:
    furnish(database_url, partners=1, races=2, start=NOW + timedelta(days=9))

    assert (tick(database_url)[0].planned, queued(connection, SWEEP)) == (1, 2)
    with_database(database_url, lambda db: Partners(db, VAULT).pause("Partner 1"))
    # Whoever planned it may have read the partner before.
    find_more(database_url, 1, races=2, start=NOW + timedelta(days=9))
    assert tick(database_url)[0].planned == 1

    rows = connection.execute("SELECT next_due_at, tier FROM bibwire.scopes").fetchall()
    assert rows == [(None, None), (None, None)]


def test_finding_what_is_due_reads_an_index_and_not_what_is_idle(
    connection: psycopg.Connection[Any], database_url: str
) -> None:
    crowd(database_url, partners=4, races=600, others=500)

    async def find_hot_ones(db: Database) -> None:
        start, again_at = NOW + timedelta(hours=2), NOW + schedule.PUT_OFF
        await list_races(db, 1, range(601, 621), start=start, now=NOW, again_at=again_at)

    with_database(database_url, find_hot_ones)
    [ticked] = tick(database_url)
    assert (ticked.planned, ticked.put_off) == (1, 20)
    connection.execute("VACUUM ANALYZE bibwire.scopes, bibwire.plans, bibwire.credentials, bibwire.partners")
    # For lack of calls the new ones are due in a minute; by then their partner is planned anew.
    at = NOW + timedelta(minutes=1)

    for name, due in (("hot_due", 20), ("others_due", 0), ("partners_to_plan", 1), ("discoveries_due", 0)):
        plan = explained(connection, name, now=at, horizon=at, most=200)
        assert "Seq Scan" not in json.dumps(plan), plan
        # What is found is locked, and its credential looked up.
        assert pages_read(plan) < 20 + 5 * due, plan
        assert plan["Actual Rows"] == due, name


def test_what_jobs_have_in_hand_is_counted_without_reading_what_is_idle(
    connection: psycopg.Connection[Any], database_url: str
) -> None:
    crowd(database_url, partners=2, races=2000)

    async def find_more_under_a_higher_limit(db: Database) -> None:
        for number in (1, 2):
            await Partners(db, VAULT).limit(f"Partner {number}", 1000)
            start = NOW + timedelta(days=9)
            await list_races(db, number, range(2001, 2021), start=start, now=NOW)

    with_database(database_url, find_more_under_a_higher_limit)
    [ticked] = tick(database_url)
    assert ticked.queued == 40
    connection.execute("VACUUM ANALYZE bibwire.scopes, bibwire.credentials")

    plan = explained(connection, "claimed", now=NOW, horizon=NOW, credential_ids=[1, 2])

    # All scopes would be 200.
    assert pages_read(plan) < 100, plan
    assert plan["Actual Rows"] == 2


def test_a_first_load_leaves_half_of_the_calls_to_what_is_loaded(database_url: str) -> None:
    furnish(database_url, partners=1, races=30, start=NOW + timedelta(days=9), calls=20, loaded=False)

    [ticked] = tick(database_url)

    assert (ticked.queued, ticked.put_off) == (9, 21)


def test_a_poll_that_began_under_a_slower_plan_does_not_undo_the_faster_one(database_url: str) -> None:
    furnish(database_url, partners=1, races=1, start=NOW + timedelta(hours=3))
    tick(database_url)
    slow = NOW + timedelta(minutes=15)

    async def go(db: Database) -> list[Any]:
        planned = await schedule.turn(db, 1, 1)
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
        return [planned, polled, failed, await schedule.turn(db, 1, 1)]

    planned, *found = with_database(database_url, go)
    assert planned.tier is Tier.HOT
    soon = NOW + timedelta(seconds=planned.poll_every_seconds)
    assert soon <= NOW + timedelta(minutes=1)
    assert [(each.next_due_at, each.failures) for each in found] == [(soon, 0), (soon, 1), (slow, 1)]


def test_a_failing_race_that_becomes_urgent_is_tried_at_its_new_tier(
    connection: psycopg.Connection[Any], database_url: str
) -> None:
    furnish(database_url, partners=1, races=1, start=NOW + timedelta(days=9))
    tick(database_url)

    async def fail(db: Database) -> None:
        for _ in range(9):
            await schedule.record_failure(db, 1, 1, next_due_at=NOW + timedelta(hours=3), now=NOW)

    with_database(database_url, fail)
    find_more(database_url, 1, races=1, start=NOW + timedelta(hours=2))

    tick(database_url)

    [(due, tier, every)] = connection.execute(
        "SELECT next_due_at, tier, poll_every_seconds FROM bibwire.scopes"
    ).fetchall()
    assert (due, tier) == (NOW + timedelta(seconds=every), "hot")
    assert every <= 60


def test_urgencies_follow_the_tiers() -> None:
    from bibwire.engine.planner import urgency_of

    assert [urgency_of(tier, loaded=True) for tier in Tier] == [
        Urgency.RACE_DAY,
        Urgency.DELTA,
        Urgency.DELTA,
        Urgency.DELTA,
    ]


def tell(database_url: str, seen_at: datetime, lags: list[float], *, race_id: int = 1) -> int:
    """Write changes of partner 1 to the feed, seen so many seconds late; return the last one's seq."""

    async def go(db: Database) -> int:
        moved = [BibMove(1, race_id, None, 7, None, seen_at - timedelta(seconds=lag)) for lag in lags]
        async with db.transaction() as connection:
            await feed.write(
                connection, 1, [feed.line_of_move(race_id, each, seen_at=seen_at) for each in moved]
            )
        [[last]] = await db.fetch("SELECT last_seq FROM bibwire.feed_heads")
        return int(last)

    return with_database(database_url, go)


def count_lag(database_url: str) -> None:
    with_database(database_url, schedule.count_lag)


def lags(connection: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    return connection.execute(
        "SELECT race_id, hour, changes, p50_seconds, p95_seconds, worst_seconds, first_seq"
        " FROM bibwire.detection_lag ORDER BY 1, 2"
    ).fetchall()


def test_lags_are_of_all_changes_of_an_hour_whenever_they_are_counted(
    connection: psycopg.Connection[Any], database_url: str
) -> None:
    furnish(database_url, partners=1, races=2, start=NOW, now=NOW - timedelta(hours=5))
    minute = timedelta(minutes=1)
    tell(database_url, NOW - minute, [9.0])
    tell(database_url, NOW + minute, [1.0, 2.0])
    tell(database_url, NOW + minute, [7.0], race_id=2)
    count_lag(database_url)
    first = lags(connection)
    tell(database_url, NOW + 2 * minute, [3.0, 6 * 3600.0])
    # By a clock that is behind: to an hour that seemed to be over.
    tell(database_url, NOW - minute, [11.0])
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
    furnish(database_url, partners=1, races=20, start=NOW, now=NOW - timedelta(days=9))
    for hour in range(48, 0, -1):
        for race_id in (1, 2, 3):
            tell(database_url, NOW - timedelta(hours=hour), [1.0] * 400, race_id=race_id)
    count_lag(database_url)
    connection.execute("VACUUM ANALYZE bibwire.changes, bibwire.scopes, bibwire.detection_lag")
    last = tell(database_url, NOW - timedelta(minutes=1), [5.0] * 10, race_id=2)

    plan = explained(connection, "count_lag", partner_id=1, after=last - 10, through=last, clock_ahead=0.0)

    # The race's whole feed would be several hundred.
    assert pages_read(plan) < 100, plan
    [(changes, worst)] = connection.execute(
        "SELECT changes, worst_seconds FROM bibwire.detection_lag WHERE race_id = 2 AND hour = %s",
        (NOW - timedelta(hours=1),),
    ).fetchall()
    assert (changes, worst) == (410, 5.0)
