"""Reads and writes what full listings found that deltas had missed."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any, Final

import msgspec

from bibwire.domain.merge import Kind
from bibwire.domain.reconcile import EventDrift, Line
from bibwire.domain.sweeps import RESUME_FULL
from bibwire.store.database import Database, statements

# How a row of the mirror can be wrong; columns of `reconciliations` and `drift_totals`.
DRIFT_KINDS: Final = ("differing", "missing", "extra")


async def begin(
    db: Database, partner_id: int, race_id: int, *, now: datetime
) -> tuple[int, datetime | None] | None:
    """
    Begin a reconciliation, or go on with the one that was interrupted.

    Returns where the feed ended when it began, and the vendor instant to which deltas had come by
    then, None if the race is not loaded; None if there is no such scope.
    """
    rows = await _run(db, "begin", partner_id, race_id, now=now, resume_after=now - RESUME_FULL)
    return rows[0][:2] if rows else None


async def lines(db: Database, partner_id: int, race_id: int, *, after_seq: int) -> list[Line]:
    """Return what the feed tells of a race after a line, in order."""
    rows = await _run(db, "lines", partner_id, race_id, after_seq=after_seq)
    return [Line(row[0], row[1], Kind(row[2]), frozenset(row[3]), row[4]) for row in rows]


async def end(
    db: Database,
    partner_id: int,
    race_id: int,
    events: Collection[EventDrift],
    *,
    run_id: int | None,
    now: datetime,
) -> None:
    """Keep what a reconciliation found, and add it to the totals, which are never pruned."""
    named, key = statements("reconcile"), {"partner_id": partner_id, "race_id": race_id, "now": now}
    async with db.transaction() as connection:
        for each in events:
            told = each.as_fields()
            values = told | {"run_id": run_id, "fields": msgspec.json.encode(told["fields"]).decode()}
            await connection.execute(named["write"], key | values)
        found = {name: sum(getattr(each, name) for each in events) for name in DRIFT_KINDS}
        if any(found.values()):
            await connection.execute(named["add_drift"], key | found)
        await connection.execute(named["end"], key)


async def note_counted(db: Database, partner_id: int, race_id: int, *, now: datetime) -> None:
    """Note that counts agreed."""
    await _run(db, "counted", partner_id, race_id, now=now)


async def _run(
    db: Database, name: str, partner_id: int, race_id: int, **values: Any
) -> list[tuple[Any, ...]]:
    return await db.fetch(statements("reconcile")[name], partner_id=partner_id, race_id=race_id, **values)
