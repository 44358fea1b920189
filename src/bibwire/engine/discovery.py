"""
A partner's races and events: one request a page of the list, none a race.

A race or event that the list does not show is marked at most, and only after a complete list:
the list shows a race's current events alone, and pages can shift while they are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from bibwire.api.client import VendorClient
from bibwire.clock import Clock
from bibwire.store import catalog, runs
from bibwire.store.database import Database
from bibwire.store.loader import Outcome

# Before RunSignup itself: the list's own default would hide races that began earlier today.
LIST_FROM = date(2000, 1, 1)


@dataclass(frozen=True, slots=True)
class Discovered:
    """
    What a discovery saw.

    Args:
        race_ids: Races listed.
        event_ids: Events listed.
        unreadable: Races that could not be read.
        answered_at: Vendor's `Date` on the first page.
    """

    race_ids: frozenset[int]
    event_ids: frozenset[int]
    unreadable: int
    answered_at: datetime


async def discover(db: Database, client: VendorClient, clock: Clock, partner_id: int) -> Discovered:
    """
    List a partner's races with their events and store them.

    Raises:
        BibwireError: The list could not be read to its end; what was read is stored.
    """
    began_at = clock.now()
    run_id = await runs.begin(db, partner_id, None, "discovery", now=began_at)
    pages = unreadable = 0
    race_ids: set[int] = set()
    answered_at: datetime | None = None
    event_ids: set[int] = set()
    failed, error = True, None
    try:
        first = reading = await catalog.next_reading(db)
        async for page in client.races(start_date=LIST_FROM):
            await catalog.store_races(
                db, partner_id, page.races, page.unreadable, reading=reading, now=clock.now()
            )
            race_ids |= {race.race_id for race in page.races}
            event_ids |= {event.event_id for race in page.races for event in race.events}
            unreadable += len(page.unreadable)
            pages += 1
            answered_at = answered_at or page.dated.answered_at
            reading = await catalog.next_reading(db)  # before the next page is asked for
        if not unreadable:
            await catalog.note_list(
                db,
                partner_id,
                race_ids=race_ids,
                event_ids=event_ids,
                reading=first,
                began_at=began_at,
                now=clock.now(),
            )
        await catalog.resolve_races(db, partner_id, since=began_at)
        failed = False
    except Exception as caught:
        error = str(caught)
        raise
    finally:
        outcome = Outcome(quarantined=unreadable)
        await runs.finish(db, run_id, outcome, calls=pages, error=error, failed=failed, now=clock.now())
    assert answered_at is not None, "a list has a page"
    return Discovered(frozenset(race_ids), frozenset(event_ids), unreadable, answered_at)
