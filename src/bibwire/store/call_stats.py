"""
What calls came to, by credential, minute and endpoint: for dashboards, decisive for nothing.

Trouble in writing them never fails a call.
"""

from __future__ import annotations

from bisect import bisect_left
from datetime import datetime
from typing import Final

from bibwire.store.database import Database, statements

# Upper bounds of the histogram's places, in seconds; the last place is for what took longer.
# Stored arrays have these places: a change needs a migration. A page takes about 1.4 s.
LATENCY_BOUNDS_SECONDS: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
STATS_DAYS: Final = 35
MINUTES_DAYS: Final = 2


async def record(
    db: Database,
    credential_id: int,
    endpoint: str,
    *,
    failed: bool,
    bytes_received: int,
    seconds: float,
    now: datetime | None = None,
) -> None:
    """Add one attempt that ended to its minute; waits for no lock of the budget."""
    place = bisect_left(LATENCY_BOUNDS_SECONDS, seconds)
    await db.fetch(
        statements("call_stats")["record"],
        credential_id=credential_id,
        endpoint=endpoint,
        failed=failed,
        bytes=bytes_received,
        latency=[int(each == place) for each in range(len(LATENCY_BOUNDS_SECONDS) + 1)],
        bucket=place + 1,
        now=now,
    )


async def prune(db: Database, now: datetime) -> int:
    """Delete statistics older than 35 days and counters older than 2; return how many rows."""
    named, deleted = statements("call_stats"), 0
    async with db.transaction() as connection:
        for name, days in (
            ("prune_call_stats", STATS_DAYS),
            ("prune_call_minutes", MINUTES_DAYS),
            ("prune_callers", STATS_DAYS),
        ):
            deleted += (await connection.execute(named[name], {"now": now, "days": days})).rowcount
    return deleted
