"""Partners and races as the program itself stores them: no test of the schedule writes a row of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from typing import TypeVar

from bibwire.domain.records import Event, Race
from bibwire.domain.secrets import Credential, Secret
from bibwire.domain.sweeps import Stream, StreamState
from bibwire.store import catalog, schedule, streams
from bibwire.store.database import Database, open_database
from bibwire.store.partners import Partner, Partners
from bibwire.store.vault import Vault

T = TypeVar("T")
VAULT = Vault(bytes(32))


def with_database(database_url: str, do: Callable[[Database], Awaitable[T]]) -> T:
    """Do something with the database open, as a process does."""

    async def run() -> T:
        async with open_database(database_url) as db:
            return await do(db)

    return asyncio.run(run())


async def add_partner(db: Database, number: int, *, calls: int = 1000, calls_made: int = 0) -> Partner:
    """Add `Partner N`, whose key makes so many calls an hour and has made some already."""
    key = Credential(kind="key", key=Secret(f"Key{number}"), secret=Secret(f"Secret{number}"))
    partners = Partners(db, VAULT)
    return await partners.add(f"Partner {number}", key, calls_per_hour=calls, calls_made=calls_made)


async def list_races(
    db: Database,
    partner_id: int,
    race_ids: Iterable[int],
    *,
    start: datetime,
    now: datetime,
    again_at: datetime | None = None,
) -> None:
    """
    Store a race list as a discovery does: races of one event each, all starting at once.

    Args:
        again_at: When the list is read next; None: not in what the test sees.
    """
    found = [
        Race(
            race_id=race_id,
            name=f"Race {race_id}",
            timezone="UTC",
            url=None,
            address=None,
            next_date=start.date(),
            last_modified_at=now,
            additional_data={},
            events=(Event(race_id, race_id, "10K", start, None, None, None, None, {}),),
        )
        for race_id in race_ids
    ]
    if found:
        reading = await catalog.next_reading(db)
        await catalog.store_races(db, partner_id, found, [], reading=reading, now=now)
    later = now + timedelta(hours=20) if again_at is None else again_at
    await schedule.record_discovery(
        db, partner_id, next_at=later, next_full_at=later, error=None, note=None, now=now
    )


async def load(db: Database, partner_id: int, race_ids: Iterable[int], *, now: datetime) -> None:
    """End the first loads of races, as the last pages of their sweeps do."""
    async with db.transaction() as connection:
        for race_id in race_ids:
            for stream in Stream:
                state = StreamState(cursor_at=now, event_ids=frozenset([race_id]))
                await streams.save(connection, partner_id, race_id, stream, state)
            await streams.mark_loaded(connection, partner_id, race_id, now=now)
