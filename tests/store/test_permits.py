"""
The hour's calls, their shares, the vendor's throttling and the two in flight hold for all
processes together, however they end.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import psycopg
import pytest

from bibwire.clock import SystemClock
from bibwire.domain.budget import Urgency
from bibwire.domain.errors import BibwireError, Blocked
from bibwire.domain.secrets import NOBODY, Secret
from bibwire.store import permits as store
from bibwire.store.database import Database, open_database, statements
from bibwire.store.partners import Partners
from bibwire.store.permits import Permits, Refusal, Throttling
from bibwire.store.session import Place, Session, open_session
from tests import children
from tests.store.mirrored import VAULT, add_partner, with_database
from tests.waiting import PATIENCE_SECONDS

LIMIT = 150
ALLOWED = 147  # the limit less the margin of 2 %


@pytest.fixture
def database(database_url: str) -> Iterator[psycopg.Connection[tuple[int]]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def add_credential(database_url: str, number: int, limit: int = LIMIT) -> int:
    return with_database(database_url, lambda db: add_partner(db, number, calls=limit)).credential_id


@pytest.fixture
def credential_id(database_url: str) -> int:
    """A credential of LIMIT calls an hour."""
    return add_credential(database_url, 1)


def spend(
    database_url: str, credential_id: int, *, processes: int, calls: int = 10_000, urgency: str = "live"
) -> list[int]:
    """Spend in several processes at once; return how many calls each made."""
    started = children.start_together(processes, "spend", database_url, credential_id, calls, urgency)
    return [int(child.communicate(timeout=PATIENCE_SECONDS)[0]) for child in started]


@pytest.mark.every_postgres
def test_eight_processes_together_make_the_hours_calls_and_not_one_more(
    database_url: str, credential_id: int, database: psycopg.Connection[tuple[int]]
) -> None:
    # Each so few that one alone cannot take all.
    made = spend(database_url, credential_id, processes=8, calls=LIMIT // 5)

    assert sum(made) == ALLOWED
    assert database.execute("SELECT sum(calls) FROM bibwire.call_minutes").fetchone() == (ALLOWED,)


def test_a_call_counts_for_a_whole_hour_and_no_longer(database_url: str, credential_id: int) -> None:
    now = datetime(2026, 9, 12, 6, 0, 17, tzinfo=UTC)

    async def do(o: Opened) -> list[int]:
        nonlocal now
        permits = o.permits(credential_id, now=lambda: now)
        made = [await calls_until_refused(permits, 40)]
        for minutes in (59, 3):
            now += timedelta(minutes=minutes)
            made.append(await calls_until_refused(permits))
        return made

    assert on(database_url, do) == [40, ALLOWED - 40, 40]


def test_four_processes_together_have_two_calls_in_flight_and_not_three(database_url: str) -> None:
    started = children.start_together(4, "call", database_url, 15)
    held = [
        line.split()
        for child in started
        for line in child.communicate(timeout=PATIENCE_SECONDS)[0].splitlines()
    ]

    edges = sorted(
        [(float(begun), 1) for begun, _ in held] + [(float(ended), -1) for _, ended in held],
    )
    in_flight = highest = 0
    for _, step in edges:
        in_flight += step
        highest = max(highest, in_flight)
    assert len(held) == 4 * 3 * 15
    assert highest == 2


@pytest.mark.every_postgres
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
def test_the_calls_of_a_process_that_is_gone_count_until_they_can_last_no_longer(
    end: signal.Signals, database_url: str, database: psycopg.Connection[tuple[int]]
) -> None:
    holder = children.start("hold_places", database_url, 3)
    assert children.said(holder).readline() == "held\n"
    [waiting] = children.start_together(1, "call", database_url, 1)
    holder.send_signal(end)
    [[left]] = database.execute(
        "SELECT extract(epoch FROM min(taken_until) - clock_timestamp())::float FROM bibwire.call_places"
    ).fetchall()
    began = time.monotonic()

    out, _ = waiting.communicate(timeout=PATIENCE_SECONDS)

    first = min(float(line.split()[0]) for line in out.splitlines())
    assert left > 0.5
    assert first - began > left - 0.2
    assert len(out.splitlines()) == 3
    holder.kill()
    holder.communicate()


@pytest.mark.every_postgres
def test_a_process_that_lives_and_does_nothing_is_not_taken_for_a_frozen_one(database_url: str) -> None:
    async def run() -> set[int]:
        async with open_session(database_url, silent_seconds=10) as session:
            connections, signs = set[int](), set[datetime]()
            async with open_database(database_url, connections=1) as db, asyncio.timeout(PATIENCE_SECONDS):
                while len(signs) < 3:
                    [[pid, at]] = await db.fetch(
                        "SELECT pid, state_change FROM pg_stat_activity WHERE pid = ("
                        " SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = %(it)s::oid)",
                        it=session.instance,
                    )
                    connections.add(pid)
                    signs.add(at)
                    await asyncio.sleep(0.1)
            return connections

    assert len(asyncio.run(run())) == 1


@pytest.mark.every_postgres
def test_a_process_whose_session_was_ended_takes_places_under_another_number(database_url: str) -> None:
    async def run() -> tuple[int, int, Place | None]:
        async with open_session(database_url) as session, open_database(database_url) as db:
            before = session.instance
            await db.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = 'bibwire session'"
            )
            place = await session.take_place(NOBODY, 2)
            return before, session.instance, place

    before, after, place = asyncio.run(run())
    assert place is not None
    assert before != after


class Slept(Exception):
    """Somebody wanted to wait."""


class WakefulClock(SystemClock):
    """Notes for how long it was to sleep, and does something instead: raise, unless told otherwise."""

    def __init__(self, instead: Callable[[float], None] | None = None) -> None:
        self.slept: list[float] = []
        self._instead = instead

    async def sleep(self, seconds: float) -> None:
        if seconds == store.SLOT_POLL_SECONDS:
            return await super().sleep(seconds)
        self.slept.append(seconds)
        if self._instead is None:
            raise Slept
        self._instead(seconds)


class Opened:
    """A database and a session, and permits on them."""

    def __init__(self, db: Database, session: Session) -> None:
        self.db = db
        self.session = session
        self.throttlings: list[Throttling] = []

    def permits(
        self,
        credential_id: int,
        urgency: Urgency = Urgency.LIVE,
        *,
        caller: Secret = NOBODY,
        clock: WakefulClock | None = None,
        **more: Any,
    ) -> Permits:
        return Permits(
            self.db,
            self.session,
            clock or WakefulClock(),
            credential_id=credential_id,
            caller=caller,
            calls_in_flight=16,
            urgency=urgency,
            on_throttle=self.throttlings.append,
            **more,
        )


@asynccontextmanager
async def opened(database_url: str) -> AsyncIterator[Opened]:
    async with open_database(database_url) as db, open_session(database_url) as session:
        yield Opened(db, session)


T = TypeVar("T")


def on(database_url: str, do: Callable[[Opened], Coroutine[Any, Any, T]]) -> T:
    async def run() -> T:
        async with opened(database_url) as o:
            return await do(o)

    return asyncio.run(run())


async def calls_until_refused(permits: Permits, most: int = 10_000) -> int:
    for made in range(most):
        try:
            async with permits.permit("races", patience_seconds=0):
                pass
        except (Slept, Blocked):
            return made
    return most


def test_no_rolling_hour_has_more_calls_than_allowed_and_a_busy_one_hardly_fewer(
    database_url: str, credential_id: int
) -> None:
    start = now = datetime(2026, 9, 12, 6, 0, 17, tzinfo=UTC)
    made: list[float] = []
    dice = random.Random(1)

    async def task(permits: Permits) -> None:
        while True:
            try:
                async with permits.permit("races"):
                    made.append((now - start).total_seconds())
            except Slept:
                return
            if dice.random() < 0.2:
                return

    async def do(o: Opened) -> None:
        nonlocal now
        tasks = [o.permits(credential_id, now=lambda: now) for _ in range(8)]
        while now < start + timedelta(hours=4):
            await asyncio.gather(*(task(each) for each in tasks))
            now += timedelta(seconds=dice.choice((1, 20, 59, 300)))

    on(database_url, do)

    for at in made:
        assert sum(at - 3600 < other <= at for other in made) <= ALLOWED
    # A counted minute is 60 to 61 minutes in the window: 1/61 less, and the last of an hour's edge.
    assert len(made) >= 4 * ALLOWED * 60 / 61 - 1


@pytest.mark.every_postgres
@pytest.mark.parametrize(
    ("urgency", "ceiling"), [("race_day", 142), ("delta", 139), ("reconcile", 44), ("backfill", 73)]
)
def test_a_class_stops_at_its_ceiling_and_a_more_urgent_one_gets_through(
    urgency: str, ceiling: int, database_url: str, credential_id: int
) -> None:
    made = spend(database_url, credential_id, processes=2, urgency=urgency)

    assert sum(made) == ceiling
    assert sum(spend(database_url, credential_id, processes=2)) == ALLOWED - ceiling


def test_classes_together_stop_where_each_must(database_url: str, credential_id: int) -> None:
    async def do(o: Opened) -> dict[Urgency, int]:
        return {
            urgency: await calls_until_refused(o.permits(credential_id, urgency))
            for urgency in reversed(Urgency)
        }

    # Of 147: backfill half, reconciliation to 0.7 of all, the others what is left to theirs.
    assert on(database_url, do) == {
        Urgency.BACKFILL: 73,
        Urgency.RECONCILE: 102 - 73,
        Urgency.DELTA: 139 - 102,
        Urgency.RACE_DAY: 142 - 139,
        Urgency.LIVE: 147 - 142,
    }


def test_what_is_told_of_a_budget_is_what_was_spent(
    database_url: str, credential_id: int, database: psycopg.Connection[tuple[int]]
) -> None:
    other = add_credential(database_url, 2, 1000)

    async def do(o: Opened) -> None:
        for urgency, calls in zip(Urgency, (1, 2, 3, 4, 5), strict=True):
            assert await calls_until_refused(o.permits(credential_id, urgency), calls) == calls
        found = await store.budgets(o.db, [credential_id, other, 4711])
        assert set(found) == {credential_id, other}
        assert dict(found[credential_id].spent_by_urgency) == dict(zip(Urgency, (1, 2, 3, 4, 5), strict=True))
        assert (found[credential_id].spent_total, found[other].spent_total) == (15, 0)
        assert (found[other].limit, found[other].limit_in_use, found[other].blocked_until) == (
            1000,
            1000,
            None,
        )
        assert await o.permits(credential_id).room() == ALLOWED - 15
        assert await o.permits(credential_id).room(Urgency.BACKFILL) == 73 - 15
        assert await o.permits(credential_id, Urgency.RECONCILE).room() == 44 - 4
        async with o.db.transaction() as connection:
            assert set(await store.budgets(connection, {other})) == {other}
        with pytest.raises(BibwireError, match="removed"):
            await o.permits(4711).room()

    on(database_url, do)


def test_a_wait_is_one_sleep_that_ends_when_enough_minutes_have_fallen_out(
    database_url: str, credential_id: int
) -> None:
    """Ten calls a minute for ten minutes of backfill: the 74th waits for the first minute's end."""
    now = datetime(2026, 9, 12, 6, 0, 30, tzinfo=UTC)

    def pass_by(seconds: float) -> None:
        nonlocal now
        now += timedelta(seconds=seconds)

    async def do(o: Opened) -> list[float]:
        nonlocal now
        clock = WakefulClock(pass_by)
        first = o.permits(credential_id, Urgency.BACKFILL, now=lambda: now)
        for _ in range(7):
            assert await calls_until_refused(first, 10) == 10
            pass_by(60)
        assert await calls_until_refused(first, 3) == 3
        pass_by(53 * 60 + 20)  # 7:00:50; the first minute falls out at 7:01:00
        tasks = [
            o.permits(credential_id, Urgency.BACKFILL, clock=clock, now=lambda: now, seed=seed)
            for seed in range(3)
        ]
        async with tasks[0].permit("races"):
            pass
        return clock.slept

    [slept] = on(database_url, do)

    assert 10 < slept < 12


def test_who_waits_for_the_same_minute_does_not_wake_in_the_same_instant(
    database_url: str, credential_id: int
) -> None:
    async def do(o: Opened) -> list[float]:
        assert await calls_until_refused(o.permits(credential_id)) == ALLOWED
        clock = WakefulClock()
        now = datetime.now(UTC) + timedelta(minutes=58)
        for seed in range(8):
            with pytest.raises(Slept):
                async with o.permits(credential_id, clock=clock, now=lambda: now, seed=seed).permit("races"):
                    pass
        return clock.slept

    slept = on(database_url, do)

    assert len(set(slept)) == 8
    assert 0.5 < max(slept) - min(slept) <= store.LONGEST_JITTER_SECONDS


def test_who_waits_holds_no_place_in_flight_and_no_connection(database_url: str, credential_id: int) -> None:
    seen: list[tuple[int, int]] = []

    async def do(o: Opened) -> None:
        @asynccontextmanager
        async def look(refusal: Refusal) -> AsyncIterator[None]:
            assert refusal.reason is None
            with psycopg.connect(database_url, autocommit=True) as other:
                row = other.execute(
                    """
                    SELECT
                        (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 1651077747),
                        (SELECT count(*) FROM pg_stat_activity
                         WHERE datname = current_database() AND state LIKE 'idle in%')
                    """
                ).fetchone()
            assert row is not None
            seen.append(row)
            yield

        await calls_until_refused(o.permits(credential_id))
        with pytest.raises(Slept):
            async with o.permits(credential_id, waiting=look).permit("races"):
                pass

    on(database_url, do)

    assert seen == [(0, 0)]


# The vendor asks for fewer calls


def test_a_block_seen_by_one_process_stops_another_and_no_other_credential(
    database_url: str, credential_id: int, database: psycopg.Connection[tuple[int]]
) -> None:
    other = add_credential(database_url, 2)

    async def do(o: Opened) -> None:
        await o.permits(credential_id).throttled("the vendor asks for fewer calls (HTTP 429)", 3600)
        assert await calls_until_refused(o.permits(credential_id)) == 0
        assert await o.permits(credential_id).room() == 0
        assert await calls_until_refused(o.permits(other), 5) == 5
        found = await store.budgets(o.db, [credential_id, other])
        assert found[credential_id].blocked_reason == "the vendor asks for fewer calls (HTTP 429)"
        assert found[other].blocked_until is None
        assert found[other].limit_in_use == LIMIT

    on(database_url, do)
    [mine] = children.start_together(1, "wait_for_permit", database_url, credential_id)
    [theirs] = children.start_together(1, "wait_for_permit", database_url, other)

    assert theirs.communicate(timeout=PATIENCE_SECONDS)[0] == "let through\n"
    told = mine.communicate(timeout=PATIENCE_SECONDS)[0]
    assert "HTTP 429" in told
    assert "BIBWIRE_RETRY_SECONDS" in told
    assert database.execute(
        "SELECT count(*) FROM bibwire.call_minutes WHERE credential_id = %s", (credential_id,)
    ).fetchone() == (0,)


def test_a_short_block_is_waited_for_once_and_counted_against_patience(
    database_url: str, credential_id: int
) -> None:
    now = datetime(2026, 9, 12, 6, 0, 30, tzinfo=UTC)

    def pass_by(seconds: float) -> None:
        nonlocal now
        now += timedelta(seconds=seconds)

    async def do(o: Opened) -> None:
        clock = WakefulClock(pass_by)
        permits = o.permits(credential_id, clock=clock, now=lambda: now)
        await permits.throttled("fewer", 20)
        with pytest.raises(Blocked) as caught:
            async with permits.permit("races", patience_seconds=19):
                pass
        assert caught.value.retry_after_seconds == pytest.approx(20)
        assert clock.slept == []
        async with permits.permit("races", patience_seconds=21) as waited:
            assert 20 <= waited < 23
        assert len(clock.slept) == 1
        async with permits.permit("races", patience_seconds=0) as waited:
            assert waited == 0

    on(database_url, do)


def test_throttle_answers_lower_the_limit_of_all_processes_and_are_told_once_each(
    database_url: str, credential_id: int
) -> None:
    async def do(o: Opened) -> list[Throttling]:
        await asyncio.gather(*(o.permits(credential_id).throttled("fewer", 0) for _ in range(4)))
        [found] = (await store.budgets(o.db, [credential_id])).values()
        assert (found.limit, found.limit_in_use) == (LIMIT, 105)
        assert await calls_until_refused(o.permits(credential_id)) == 102  # 105 less the margin
        return o.throttlings

    told = on(database_url, do)

    assert [(each.limit, each.limit_in_use, each.reason) for each in told] == [(LIMIT, 105, "fewer")] * 4


def test_calls_before_a_throttle_answer_count_for_the_limit_as_configured_alone(
    database_url: str, credential_id: int
) -> None:
    now = datetime(2026, 9, 12, 16, 0, 30, tzinfo=UTC)

    async def do(o: Opened) -> int:
        nonlocal now
        permits = o.permits(credential_id, now=lambda: now)
        for _ in range(120):  # more than 105, the limit that one answer leaves
            async with permits.permit("races"):
                pass
        now += timedelta(minutes=1)
        await permits.throttled("fewer", 0)
        [found] = (await store.budgets(o.db, [credential_id], now=now)).values()
        assert found.spent_since_throttle is not None
        assert (found.spent_total, sum(found.spent_since_throttle.values())) == (120, 0)
        return await calls_until_refused(permits)

    assert on(database_url, do) == ALLOWED - 120


def test_a_limit_configured_anew_is_in_force_at_the_next_call_of_its_partner_alone(
    database_url: str, credential_id: int
) -> None:
    other = add_credential(database_url, 2)

    async def do(o: Opened) -> None:
        partners = Partners(o.db, VAULT)
        # Of a process that goes on meanwhile.
        permits = o.permits(credential_id)
        assert await calls_until_refused(permits, 60) == 60
        await partners.limit("Partner 1", 50)
        assert await calls_until_refused(permits) == 0
        await partners.limit("Partner 1", 100)
        assert await calls_until_refused(permits) == 98 - 60
        assert await calls_until_refused(o.permits(other)) == ALLOWED

    on(database_url, do)


def test_two_credentials_throttled_together_block_their_caller_and_no_other(
    database_url: str, credential_id: int, database: psycopg.Connection[tuple[int]]
) -> None:
    others = [add_credential(database_url, number, 1000) for number in (2, 3)]

    async def do(o: Opened) -> None:
        await o.permits(credential_id, caller=Secret("417.token")).throttled("fewer", 0)
        assert await calls_until_refused(o.permits(others[1], caller=Secret("417.token")), 3) == 3
        await o.permits(others[0], caller=Secret("417.token")).throttled("fewer", 50)
        assert await calls_until_refused(o.permits(others[1], caller=Secret("417.token")), 3) == 0
        assert await o.permits(others[1], caller=Secret("417.token")).room() == 0
        assert await calls_until_refused(o.permits(others[1], caller=Secret("another")), 3) == 3
        [[until, reason]] = await store.blocked_callers(o.db)
        assert (until > datetime.now(UTC), reason) == (True, "fewer")

    on(database_url, do)

    rows = database.execute("SELECT encode(caller_digest, 'escape') FROM bibwire.callers").fetchall()
    assert len(rows) == 1
    assert "417" not in str(rows)


# Beside an older version, and what it costs

OLD_SPEND = """
    INSERT INTO bibwire.call_minutes AS m (credential_id, minute, calls)
    VALUES (%s, date_trunc('minute', clock_timestamp()), 1)
    ON CONFLICT (credential_id, minute) DO UPDATE
    SET calls = m.calls + 1
"""
OLD_SPENT = """
    SELECT coalesce(sum(calls), 0)::bigint FROM bibwire.call_minutes
    WHERE credential_id = %s
      AND minute > date_trunc('minute', clock_timestamp()) - interval '61 minutes' AND calls > 0
"""


@pytest.mark.every_postgres
def test_an_older_version_still_running_counts_deltas_and_is_counted(
    database_url: str, credential_id: int, database: psycopg.Connection[tuple[int]]
) -> None:
    async def do(o: Opened) -> dict[Urgency, int]:
        for _ in range(20):
            database.execute(OLD_SPEND, (credential_id,))
            assert await calls_until_refused(o.permits(credential_id, Urgency.RACE_DAY), 1) == 1
        assert database.execute(OLD_SPENT, (credential_id,)).fetchone() == (40,)
        [found] = (await store.budgets(o.db, [credential_id])).values()
        assert await calls_until_refused(o.permits(credential_id)) == ALLOWED - 40
        return dict(found.spent_by_urgency)

    spent = on(database_url, do)

    assert (spent[Urgency.DELTA], spent[Urgency.RACE_DAY]) == (20, 20)


@pytest.mark.every_postgres
@pytest.mark.parametrize("name", ["spend", "minutes", "budgets"])
def test_the_hour_is_read_by_the_key_however_many_minutes_there_are(
    name: str, database_url: str, credential_id: int, database: psycopg.Connection[tuple[int]]
) -> None:
    for number in range(2, 42):
        add_credential(database_url, number)
    # How a statement is planned depends on the number of rows: two days' minutes would be 118,000 calls
    # to make, some minutes of work.
    database.execute(
        """
        INSERT INTO bibwire.call_minutes (credential_id, minute, calls)
        SELECT credential_id, date_trunc('minute', now()) - make_interval(mins => back), 1
        FROM bibwire.credentials CROSS JOIN generate_series(0, 2879) AS back
        """
    )
    database.execute("ANALYZE bibwire.call_minutes, bibwire.credentials")
    values = {
        "credential_id": credential_id,
        "credential_ids": [credential_id],
        "partner_id": None,
        "caller_digest": b"",
        "urgency": "delta",
        "most": 1000,
        "most_own": 1000,
        "since": None,
        "most_lately": 1000,
        "most_own_lately": 1000,
        "now": None,
        "at": datetime.now(UTC),
    }

    row = database.execute(
        b"EXPLAIN (FORMAT JSON) " + statements("permits")[name].encode(), values
    ).fetchone()

    assert row is not None
    nodes = list(_nodes(row[0]))
    text = json.dumps(nodes)
    assert not any(
        node["Node Type"] == "Seq Scan" and node["Relation Name"] == "call_minutes" for node in nodes
    ), text
    scans = [node for node in nodes if node.get("Index Name", "").startswith("call_minutes")]
    assert [node["Index Name"] for node in scans] == ["call_minutes_pkey"], text
    assert "minute" in scans[0]["Index Cond"], text


def _nodes(plan: Any) -> Iterator[dict[str, Any]]:
    if isinstance(plan, list):
        for each in plan:
            yield from _nodes(each)
    elif isinstance(plan, dict):
        if "Node Type" in plan:
            yield plan
        for each in plan.values():
            yield from _nodes(each)
