"""One row of `sync_history` a race swept, and one a discovery."""

from __future__ import annotations

from datetime import datetime

from bibwire.store.database import Database, statements
from bibwire.store.loader import Outcome


async def begin(db: Database, partner_id: int, race_id: int | None, kind: str, *, now: datetime) -> int:
    """Note that a run begins; return its number."""
    [row] = await db.fetch(
        statements("runs")["begin"],
        partner_id=partner_id,
        race_id=race_id,
        kind=kind,
        started_at=now,
    )
    return int(row[0])


async def finish(
    db: Database, run_id: int, outcome: Outcome, *, calls: int, error: str | None, failed: bool, now: datetime
) -> None:
    """Note how a run ended: failed, partial (something could not be done or read) or ok."""
    word = "failed" if failed else "partial" if error or outcome.quarantined else "ok"
    await db.fetch(
        statements("runs")["finish"],
        run_id=run_id,
        finished_at=now,
        outcome=word,
        calls=calls,
        inserted=outcome.inserted,
        updated=outcome.updated + outcome.restored,
        unchanged=outcome.unchanged,
        removed=outcome.removed,
        quarantined=outcome.quarantined,
        error=error,
    )
