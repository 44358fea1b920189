"""
Reads and writes how far the backfill of each race is.

The position is written in the transaction that stores the page it covers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

import msgspec

from bibwire.domain.backfill import PastRace, Position, Progressed
from bibwire.store import feed
from bibwire.store.database import Connection, Database, of_partner, statements
from bibwire.store.loader import Target

_encode = msgspec.json.Encoder().encode


async def open_races(db: Database, partner_id: int, race_ids: Collection[int], *, now: datetime) -> None:
    """Note that these races are to be looked at; those noted before stay as they are."""
    await db.fetch(statements("backfill")["open"], partner_id=partner_id, race_ids=list(race_ids), now=now)


async def want(db: Database, race: PastRace, *, now: datetime) -> Progressed:
    """Note what of a race is to be loaded; return how far it is."""
    values = {"event_ids": sorted(race.past), "now": now}
    return _progressed(*of_partner(await run(db, "want", race.partner_id, race.race_id, **values)))


async def want_nothing(db: Database, partner_id: int, race_id: int, *, now: datetime) -> None:
    """Note that nothing of a race is to be loaded."""
    await run(db, "want", partner_id, race_id, event_ids=[], now=now)


async def state(db: Database, partner_id: int, race_id: int) -> Progressed:
    """Return how far the backfill of a race is."""
    return _progressed(*of_partner(await run(db, "state", partner_id, race_id)))


async def save_counts(db: Database, partner_id: int, race_id: int, counts: Mapping[int, int]) -> None:
    """Keep the vendor's numbers of registrations by event."""
    await run(db, "save_counts", partner_id, race_id, counts=_encode(dict(counts)).decode())


async def save_position(connection: Connection, target: Target, position: Position) -> None:
    """Write where the sweep stands."""
    await _write(connection, target, "save_position", position=_encode(position).decode())


async def finish_events(connection: Connection, target: Target, position: Position, *, live: bool) -> None:
    """
    Note that their people are loaded, and have the feed tell of it; their teams are to be listed anew.

    The first time it tells of the whole race, unless events that are kept fresh are still to be
    loaded (`live`), which then does; later, of those events of which nothing was known.
    """
    await _write(connection, target, "finish_events", event_ids=sorted(position.event_ids), now=target.now)
    await _write(connection, target, "list_teams_again", event_ids=sorted(position.event_ids))
    events: list[int] | None = None
    if target.loaded:
        events = sorted(position.silent)
    if events == [] or (events is None and live):
        return
    [row] = await _write(connection, target, "loaded_counts", event_ids=events)
    counts: dict[str, Any] = dict(zip(("participants", "removed", "with_bib", "events"), row, strict=True))
    if events is None:
        await _write(connection, target, "set_loaded", now=target.now)
    else:
        counts["event_ids"] = events
    await feed.write_loaded(
        connection,
        target.partner_id,
        target.race_id,
        counts,
        seen_at=target.now,
        history=events is not None,
    )


async def unstored(db: Database, partner_id: int, race_id: int, events: Collection[int]) -> frozenset[int]:
    """Return those of some events of which no registration is stored."""
    rows = await run(db, "unstored", partner_id, race_id, event_ids=sorted(events))
    return frozenset(row[0] for row in rows)


async def run(db: Database, name: str, partner_id: int, race_id: int, **values: Any) -> list[tuple[Any, ...]]:
    """Run one of the statements of `backfill.sql` on a race."""
    return await db.fetch(statements("backfill")[name], partner_id=partner_id, race_id=race_id, **values)


async def _write(connection: Connection, target: Target, name: str, **values: Any) -> list[tuple[Any, ...]]:
    key = {"partner_id": target.partner_id, "race_id": target.race_id}
    cursor = await connection.execute(statements("backfill")[name], key | values)
    return await cursor.fetchall() if cursor.description else []


def _progressed(event_ids: list[int], counts: dict[str, int], one_event: bool, position: Any) -> Progressed:
    return Progressed(
        event_ids=frozenset(event_ids),
        counts={int(event_id): number for event_id, number in counts.items()},
        one_event=one_event,
        position=None if position is None else msgspec.convert(position, Position, str_keys=True),
    )
