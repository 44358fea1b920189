"""What a verification reads of the mirror. Nothing here writes."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg.rows import TupleRow

from bibwire.domain.merge import VENDOR_COLUMNS, Stored
from bibwire.domain.records import Registration
from bibwire.domain.tiers import EventTimes
from bibwire.store.database import Database, statements

_WIDTH = len(VENDOR_COLUMNS) + 1


@dataclass(slots=True)
class Size:
    """
    What the mirror holds of a race: active and removed registrations by event.

    `one_event`: its events are asked for one at a time.
    """

    is_loaded: bool
    one_event: bool
    active: dict[int, int] = field(default_factory=dict)
    removed: dict[int, int] = field(default_factory=dict)


async def sizes(db: Database, partner_id: int, race_ids: Collection[int]) -> dict[int, Size]:
    """Return what the mirror holds of these races; none for one that was never swept."""
    found: dict[int, Size] = {}
    for race_id, is_loaded, one_event, event_id, active, removed in await run(
        db, "sizes", partner_id, race_ids=list(race_ids)
    ):
        size = found.setdefault(race_id, Size(is_loaded, one_event))
        if event_id is not None:
            size.active[event_id], size.removed[event_id] = active, removed
    return found


async def rows(
    db: Database,
    partner_id: int,
    race_id: int,
    event_ids: Collection[int],
    registration_ids: Collection[int] = (),
) -> dict[int, Stored]:
    """Return the active registrations of these events, and those of these ids as they stand."""
    found = await run(
        db,
        "rows",
        partner_id,
        race_id=race_id,
        event_ids=list(event_ids),
        registration_ids=list(registration_ids),
    )
    return _stored(found)


async def holders(
    db: Database, partner_id: int, race_id: int, event_ids: Collection[int], bib: int
) -> dict[int, Stored]:
    """Return the active registrations of these events that have the bib."""
    return _stored(await run(db, "holders", partner_id, race_id=race_id, event_ids=list(event_ids), bib=bib))


async def bibs_in_force(db: Database, partner_id: int, race_id: int, event_ids: Collection[int]) -> list[int]:
    """Return the bibs that somebody in these events has."""
    found = await run(db, "bibs_in_force", partner_id, race_id=race_id, event_ids=list(event_ids))
    return [row[0] for row in found]


async def bibs_against_feed(db: Database, partner_id: int, race_id: int) -> tuple[int, list[int]]:
    """Return how many registrations the feed tells of, and which of them it tells wrongly."""
    [[told, odd]] = await run(db, "bibs_against_feed", partner_id, race_id=race_id)
    return int(told), list(odd)


async def feed_gaps(db: Database, partner_id: int, *, since: datetime) -> tuple[int, int]:
    """Return the newest seq of a partner's feed, and how many lines lack since that instant."""
    found = await run(db, "feed_gaps", partner_id, since=since)
    return (int(found[0][0]), int(found[0][1])) if found else (0, 0)


async def minute_now(db: Database, *, now: datetime | None) -> datetime:
    """Return the minute in which calls are counted; `now` is the database's clock by default."""
    [[minute]] = await db.fetch(statements("verify")["minute_now"], now=now)
    assert isinstance(minute, datetime)
    return minute


async def counted(db: Database, credential_id: int, *, since: datetime) -> tuple[int, int]:
    """Return the calls counted since a minute: of verifications and reconciliations, and of all."""
    [[ours, total]] = await db.fetch(
        statements("verify")["counted"], credential_id=credential_id, since=since
    )
    return int(ours), int(total)


async def others_reconciling(db: Database, partner_id: int, *, run_id: int, began_at: datetime) -> bool:
    """Say whether another run that is counted alike, a verification or reconciliation, overlaps with ours."""
    [[others]] = await run(db, "others_reconciling", partner_id, run_id=run_id, began_at=began_at)
    return bool(others)


async def planned_at(db: Database, partner_id: int) -> datetime | None:
    """Return when a scheduler last planned for the partner; None: never."""
    found = await run(db, "planned_at", partner_id)
    return found[0][0] if found else None


async def ages(db: Database, partner_id: int, race_ids: Collection[int]) -> dict[int, datetime | None]:
    """Return the vendor instant to which each race's participants are complete; None: not loaded."""
    return dict(await run(db, "ages", partner_id, race_ids=list(race_ids)))


async def event_times(
    db: Database, partner_id: int, event_ids: Collection[int]
) -> dict[int, list[EventTimes]]:
    """Return start and end of these events, by race."""
    found: dict[int, list[EventTimes]] = {}
    for race_id, starts_at, ends_at in await run(db, "event_times", partner_id, event_ids=list(event_ids)):
        found.setdefault(race_id, []).append(EventTimes(starts_at, ends_at))
    return found


async def run(db: Database, name: str, partner_id: int, **values: Any) -> list[TupleRow]:
    """Run one of the statements of `verify.sql` for a partner."""
    return await db.fetch(statements("verify")[name], partner_id=partner_id, **values)


def _stored(found: Iterable[TupleRow]) -> dict[int, Stored]:
    return {row[0]: Stored(Registration(*row[:_WIDTH]), *row[_WIDTH:]) for row in found}
