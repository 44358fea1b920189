"""
A partner's races and events: one request a page of a list, none a race.

What is to come is a list of its own: short, and read often. All races are another one, read now and
then. RunSignup gives no total, and lists have been seen to end early, with empty pages after the
thousandth race. So a list that ends with an empty page, or lacks a race that the other one shows, is
not believed: the same is asked for by spans of days, halved until each is short.

A race or event that the list does not show is marked at most, and only after a complete list:
the list shows a race's current events alone, and pages can shift while they are read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Final

import structlog

from bibwire.api.client import VendorClient
from bibwire.clock import Clock
from bibwire.store import catalog, runs
from bibwire.store.database import Database
from bibwire.store.loader import Outcome

# Before RunSignup itself: the list's own default would hide races that began earlier today.
LIST_FROM: Final = date(2000, 1, 1)
# Races are kept fresh for a week after their end. The rest is for zones, and for a clock a day off.
COMING_FROM: Final = timedelta(days=10)
CLOCK_OFF: Final = timedelta(days=1)
# No race is announced for later: where a list without end is halved, it ends here.
LIST_UNTIL: Final = date(2100, 12, 31)
NEAR: Final = timedelta(days=90)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Discovered:
    """
    What a discovery saw.

    Args:
        race_ids: Races listed.
        event_ids: Events listed.
        unreadable: Races that could not be read.
        answered_at: Vendor's `Date` on the first page.
        everything: Whether all races were asked for, or those to come alone.
        note: What was odd about the lists, in words; None: nothing.
    """

    race_ids: frozenset[int]
    event_ids: frozenset[int]
    unreadable: int
    answered_at: datetime
    everything: bool
    note: str | None


@dataclass(frozen=True, slots=True)
class Span:
    """Days asked for together; `last` None: without end."""

    first: date
    last: date | None

    def halves(self, today: date) -> tuple[Span, Span] | None:
        """Return both halves, or near and far where there is no end; None: one day cannot be halved."""
        if self.last is None:
            if self.first >= LIST_UNTIL - NEAR:
                return None
            near = today if self.first < today else self.first + NEAR
            return Span(self.first, near), Span(near + timedelta(days=1), None)
        if self.first >= self.last:
            return None
        middle = self.first + (self.last - self.first) // 2
        return Span(self.first, middle), Span(middle + timedelta(days=1), self.last)


@dataclass(slots=True)
class _List:
    """What one list showed. `ended_early`: its last page was empty, as if it had been cut short."""

    race_ids: set[int] = field(default_factory=set)
    event_ids: set[int] = field(default_factory=set)
    pages: int = 0
    ended_early: bool = False


async def discover(
    db: Database, client: VendorClient, clock: Clock, partner_id: int, *, everything: bool = True
) -> Discovered:
    """
    List a partner's races with their events and store them.

    Args:
        everything: All races; otherwise those to come, and all if one of them is missing that the
            last such list showed.

    Raises:
        BibwireError: A list could not be read to its end; what was read is stored.
    """
    began_at = clock.now()
    run_id = await runs.begin(db, partner_id, None, "discovery", now=began_at)
    reading = _Reading(db, client, clock, partner_id)
    failed, error = True, None
    try:
        if not everything:
            everything = await reading.coming()
        if everything:
            await reading.all()
        # A race that cannot be read is there; one whose id cannot be told may be any of them.
        if everything and None not in reading.unread_race_ids and reading.is_complete:
            await catalog.note_list(
                db,
                partner_id,
                race_ids=reading.race_ids | reading.unread,
                event_ids=reading.event_ids,
                reading=reading.first,
                began_at=began_at,
                now=clock.now(),
            )
        if everything:
            await catalog.resolve_races(db, partner_id, since=began_at)
        failed = False
    except Exception as caught:
        error = str(caught)
        raise
    finally:
        outcome = Outcome(quarantined=reading.unreadable + reading.faults)
        await runs.finish(
            db, run_id, outcome, calls=reading.pages, error=error, failed=failed, now=clock.now()
        )
    assert reading.answered_at is not None, "a list has a page"
    if reading.note is not None:
        log.warning("race list cut short", action="discover", partner_id=partner_id, note=reading.note)
    return Discovered(
        frozenset(reading.race_ids),
        frozenset(reading.event_ids),
        reading.unreadable,
        reading.answered_at,
        everything,
        reading.note,
    )


class _Reading:
    """One reading of a partner's lists; what they show adds up."""

    def __init__(self, db: Database, client: VendorClient, clock: Clock, partner_id: int) -> None:
        self._db = db
        self._client = client
        self._clock = clock
        self._partner_id = partner_id
        self.race_ids: set[int] = set()
        self.event_ids: set[int] = set()
        self.unread_race_ids: set[int | None] = set()
        self.pages = self.unreadable = self.faults = 0
        self.answered_at: datetime | None = None
        self.first = 0
        self.is_complete = True
        self.note: str | None = None

    @property
    def unread(self) -> set[int]:
        """Races that are there, and could not be read."""
        return {race_id for race_id in self.unread_race_ids if race_id is not None}

    async def coming(self) -> bool:
        """Read what is to come; say whether a race is missing that the last such list showed."""
        found = await self._coming()
        if found.ended_early:
            self.note = f"RunSignup ended the list of coming races after {len(found.race_ids):,}."
            return True
        missing = await catalog.note_coming(
            self._db,
            self._partner_id,
            race_ids=found.race_ids | self.unread,
            reading=self.first,
            now=self._clock.now(),
        )
        return missing > 0

    async def all(self) -> None:
        """Read all races; a list of several pages is compared with that of what is to come."""
        found = await self._list(Span(LIST_FROM, None))
        if found.pages == 1:
            return
        coming = await self._coming()
        missing = len(coming.race_ids - found.race_ids)
        if not missing and not found.ended_early and not coming.ended_early:
            return
        self.note = f"RunSignup ended the list of all races after {len(found.race_ids):,}"
        self.note += f", without {missing:,} of those to come." if missing else "."
        self.note += " They were asked for by their days instead."
        await self._by_days(most=len(found.race_ids))

    async def _coming(self) -> _List:
        found = await self._list(Span((self._clock.now() - COMING_FROM).date(), None), soonest_first=True)
        assert self.answered_at is not None
        # Ours is the clock that said which day it is: one that is fast must not hide this week's races.
        if self._clock.now() - self.answered_at > CLOCK_OFF:
            span = Span((self.answered_at - COMING_FROM).date(), None)
            found = await self._list(span, soonest_first=True)
        return found

    async def _by_days(self, *, most: int) -> None:
        """
        Read all races by spans of days, halved while their lists end early.

        Args:
            most: A list of so many races may have been cut short where the first one was.
        """
        assert self.answered_at is not None
        today = self.answered_at.date()
        spans = list(Span(LIST_FROM, None).halves(today) or ())
        while spans:
            span = spans.pop()
            found = await self._list(span)
            if not found.ended_early and len(found.race_ids) < most:
                continue
            halves = span.halves(today)
            if halves is None:
                self.is_complete = False
                self.note = (
                    f"RunSignup ended the list of {span.first} after {len(found.race_ids):,} races: "
                    "others of that day may be missing."
                )
            else:
                spans += halves

    async def _list(self, span: Span, *, soonest_first: bool = False) -> _List:
        found = _List()
        reading = await catalog.next_reading(self._db)
        self.first = self.first or reading
        async for page in self._client.races(
            start_date=span.first, end_date=span.last, soonest_first=soonest_first
        ):
            await catalog.store_races(
                self._db,
                self._partner_id,
                page.races,
                [*page.unreadable, *page.faults],
                reading=reading,
                now=self._clock.now(),
            )
            found.race_ids |= {race.race_id for race in page.races}
            found.event_ids |= {event.event_id for race in page.races for event in race.events}
            found.pages += 1
            found.ended_early = found.pages > 1 and not page.races and not page.unreadable
            self.pages += 1
            self.unreadable += len(page.unreadable)
            self.faults += len(page.faults)
            self.unread_race_ids |= set(page.unread_race_ids)
            self.answered_at = self.answered_at or page.dated.answered_at
            reading = await catalog.next_reading(self._db)  # before the next page is asked for
        self.race_ids |= found.race_ids
        self.event_ids |= found.event_ids
        return found
