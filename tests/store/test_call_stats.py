"""What calls came to is kept by minute and endpoint, and trouble in keeping it fails no call."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg
import pytest

import rsusim
from bibwire.store import call_stats, permits
from bibwire.store.database import statements
from tests.house import House
from tests.store.test_permits import Opened, add_credential, on

NOW = datetime(2026, 9, 12, 12, 0, 30, tzinfo=UTC)


@pytest.fixture
def credential_id(database_url: str) -> int:
    return add_credential(database_url, 1)


def rows(database_url: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        return connection.execute(query.encode()).fetchall()


@pytest.mark.every_postgres
def test_attempts_add_up_by_minute_and_endpoint(database_url: str, credential_id: int) -> None:
    attempts = [
        ("races", 0, False, 10, 0.05),
        ("races", 20, True, 0, 0.051),
        ("participants", 20, False, 5_000_000_000, 1.4),
        ("races", 40, False, 7, 31.0),
    ]

    async def do(o: Opened) -> None:
        for endpoint, second, failed, received, seconds in attempts:
            await call_stats.record(
                o.db,
                credential_id,
                endpoint,
                failed=failed,
                bytes_received=received,
                seconds=seconds,
                now=NOW + timedelta(seconds=second),
            )

    on(database_url, do)

    minute = NOW.replace(second=0)
    found = rows(
        database_url,
        "SELECT minute, endpoint, calls, errors, bytes, latency FROM bibwire.call_stats ORDER BY 1, 2",
    )
    assert found == [
        (minute, "participants", 1, 0, 5_000_000_000, [0, 0, 0, 0, 0, 1, 0, 0, 0, 0]),
        (minute, "races", 2, 1, 10, [1, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
        (minute + timedelta(minutes=1), "races", 1, 0, 7, [0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
    ]


def test_a_call_whose_credential_was_removed_or_whose_table_is_gone_does_not_fail(
    database_url: str, credential_id: int
) -> None:
    async def do(o: Opened) -> None:
        await o.permits(4711).record("races", failed=False, bytes_received=1, seconds=0.1)
        async with o.db.transaction() as connection:
            await connection.execute("DROP TABLE bibwire.call_stats")
        await o.permits(credential_id).record("races", failed=False, bytes_received=1, seconds=0.1)

    on(database_url, do)


def test_statistics_do_not_wait_for_the_lock_of_the_budget(database_url: str, credential_id: int) -> None:
    async def do(o: Opened) -> None:
        async with o.db.transaction() as budget:
            await budget.execute(
                statements("permits")["lock_budget"], {"credential_id": credential_id, "now": None}
            )
            async with o.db.transaction() as stats:
                await stats.execute("SET LOCAL lock_timeout = '1s'")
                await stats.execute(
                    statements("call_stats")["record"],
                    {
                        "credential_id": credential_id,
                        "endpoint": "races",
                        "failed": False,
                        "bytes": 1,
                        "latency": [1] + [0] * 9,
                        "bucket": 1,
                        "now": None,
                    },
                )

    on(database_url, do)


def test_what_is_old_is_pruned_and_nothing_else(database_url: str, credential_id: int) -> None:
    ages = {"call_stats": (35.1, 34.9), "call_minutes": (2.1, 1.9, 0)}

    async def do(o: Opened) -> int:
        at = NOW
        made = o.permits(credential_id, now=lambda: at)
        for age in ages["call_stats"]:
            at = NOW - timedelta(days=age)
            await made.record("races", failed=False, bytes_received=1, seconds=1.0)
        for age in ages["call_minutes"]:
            at = NOW - timedelta(days=age)
            async with made.permit("races"):
                pass
        return await permits.prune(o.db, NOW)

    assert on(database_url, do) == 2
    assert rows(database_url, "SELECT count(*) FROM bibwire.call_stats") == [(1,)]
    assert rows(database_url, "SELECT count(*) FROM bibwire.call_minutes") == [(2,)]


@pytest.mark.parametrize(
    ("kind", "times"), [("http_503", 2), ("http_429", 1), ("error_14", 1), ("reset", 2), ("truncated", 1)]
)
def test_a_sync_s_attempts_retries_and_failures_are_all_in_it(
    kind: str, times: int, house: House, world: rsusim.World
) -> None:
    peak = world.add_partner("Peak")
    race = world.add_race([peak], "Harbor Lights", "America/Chicago")
    world.register(world.add_event(race, "10K", world.now.replace(tzinfo=None)))
    house.add_partner(peak)
    world.faults.add(rsusim.Fault(path="participants", kind=kind, times=times))

    report = house.sync()

    assert report.errors == []
    found = house.rows(
        """
        SELECT endpoint, sum(calls)::int AS calls, sum(errors)::int AS errors, sum(bytes) > 0 AS bytes,
            sum((SELECT sum(n) FROM unnest(latency) AS n))::int AS timed
        FROM bibwire.call_stats GROUP BY endpoint ORDER BY endpoint
        """
    )
    by_endpoint = {row["endpoint"]: row for row in found}
    assert by_endpoint["participants"]["errors"] == times
    assert by_endpoint["participants"]["calls"] == times + 1
    assert sum(row["errors"] for row in found) == times
    assert sum(row["calls"] for row in found) == sum(row["timed"] for row in found) == len(world.log.requests)
    assert all(row["bytes"] for row in found)
