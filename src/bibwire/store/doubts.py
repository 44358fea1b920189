"""
What a full listing showed too few people of to be believed by itself; kept from run to run.

Written in the transaction that decides on the people missing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from bibwire.store.database import Connection, Database, statements


async def doubted_before(
    db: Database, partner_id: int, race_id: int, event_ids: Collection[int], *, high: datetime
) -> frozenset[int]:
    """Return those of the events that a listing begun before `high` showed alike."""
    rows = await db.fetch(
        statements("doubts")["doubted_before"],
        partner_id=partner_id,
        race_id=race_id,
        event_ids=list(event_ids),
        high=high,
    )
    return frozenset(row[0] for row in rows)


async def keep(
    connection: Connection,
    partner_id: int,
    race_id: int,
    *,
    listed: Mapping[int, int],
    undecided: Collection[int],
    believed: Collection[int],
    high: datetime,
    now: datetime,
) -> None:
    """
    Note what a full listing leaves in doubt, and forget what it clears up.

    Args:
        listed: Rows it listed of each of its events.
        undecided, believed: Of which of them it is in doubt, and which doubt is now believed.
        high: Vendor's `Date` on its first answer.
        now: Our clock.
    """
    named, key = statements("doubts"), {"partner_id": partner_id, "race_id": race_id}
    cleared = listed.keys() - set(undecided) - set(believed)
    people = [event_id for event_id, rows in listed.items() if rows]
    await connection.execute(named["forget"], {**key, "event_ids": list(cleared), "people": people})
    for name, event_ids in (("doubt", undecided), ("believe", believed)):
        if event_ids:
            values: dict[str, Any] = {"event_ids": list(event_ids), "high": high, "now": now}
            values["listed"] = [listed.get(event_id, 0) for event_id in event_ids]
            await connection.execute(named[name], key | values)


async def forget(connection: Connection, partner_id: int, race_id: int, event_ids: Collection[int]) -> None:
    """Forget that events were seen without people."""
    await connection.execute(
        statements("doubts")["forget"],
        {
            "partner_id": partner_id,
            "race_id": race_id,
            "event_ids": list(event_ids),
            "people": list(event_ids),
        },
    )
