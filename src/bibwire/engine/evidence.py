"""
What a verification reads of the vendor, within the calls it was given, and each thing once.

A listing is made by a list of events and held against the vendor's own count; what lacks is asked
for beyond the last row, then one event at a time. So what is compared with the mirror is complete
even at a vendor that cuts pages or reads lists wrongly, and each of these habits is noted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field
from datetime import datetime

from bibwire.api import wire
from bibwire.api.client import CallMade, VendorClient
from bibwire.api.dates import VendorTime
from bibwire.domain.errors import BadRecord, CallsUsedUp, ListingNotTrusted
from bibwire.domain.records import Page, Registration, Removal
from bibwire.domain.sweeps import EVENTS_A_REQUEST, Stream, grouped
from bibwire.domain.verify import MORE_CALLS, PUBLISHED_LATE
from bibwire.store.catalog import Scope
from bibwire.store.partners import Partner
from bibwire.store.verify import Size

OpenCounted = Callable[
    [Partner, Callable[[CallMade], None], Callable[[], None]], AbstractAsyncContextManager[VendorClient]
]


class Purse:
    """
    The calls of one run: how many may be made, were begun, and were reported as made.

    Args:
        most: Attempts at most, those that are retries too.
        on_call: Told after each.
        of: What gives it so many.
    """

    def __init__(
        self, most: int, on_call: Callable[[], None] = lambda: None, *, of: str = MORE_CALLS
    ) -> None:
        self.most = most
        self.of = of
        self.begun = 0
        self.made = 0
        self._on_call = on_call

    @property
    def left(self) -> int:
        return self.most - self.begun

    def take(self) -> None:
        """
        Note that an attempt begins.

        Raises:
            CallsUsedUp: None is left.
        """
        if self.left <= 0:
            raise CallsUsedUp(f"All {self.most} calls that this verification may make ({self.of}) are made.")
        self.begun += 1

    def note(self, call: CallMade) -> None:
        """Note that an attempt has ended; one that was never sent is none."""
        if call.sent:
            self.made += 1
        else:
            self.begun -= 1
        self._on_call()


@dataclass(slots=True)
class Listing:
    """
    A complete listing of some events.

    Args:
        rows: By id. `unreadable` are ids of rows that cannot be decoded, which the mirror quarantines.
        events: The event each was listed under.
        listed_at, until: Vendor instants of the first request and the last answer.
        pages: Rows of each page, of each request sequence.
        of_list: The events by id that a list of several events brought; None: none was asked for.
        untrusted: Why that list is not believed; `contradicted`: it does not even fit what was asked.
    """

    rows: dict[int, Registration] = field(default_factory=dict)
    removals: dict[int, Removal] = field(default_factory=dict)
    unreadable: set[int] = field(default_factory=set)
    events: dict[int, int | None] = field(default_factory=dict)
    listed_at: datetime | None = None
    until: datetime | None = None
    pages: list[list[int]] = field(default_factory=list)
    of_list: dict[int, int | None] | None = None
    untrusted: str | None = None
    contradicted: bool = False

    def add(self, page: Page, stream: Stream) -> None:
        """Add a page to the request sequence that goes on."""
        self.listed_at = min(self.listed_at or page.as_of, page.as_of)
        self.until = max(self.until or page.answered_at, page.answered_at)
        self.pages[-1].append(len(page.rows) + len(page.unreadable))
        for row in page.rows:
            try:
                if stream is Stream.REMOVED:
                    self.removals[row.registration_id] = wire.decode_removed(row.raw, row.event_id)
                    continue
                registration = wire.decode_participant(row.raw)
            except BadRecord:
                self.unreadable.add(row.registration_id)
                continue
            if registration.event_id is None:
                registration.event_id = row.event_id
            self.rows[row.registration_id] = registration
            self.events[row.registration_id] = registration.event_id

    def counted(self) -> Counter[int]:
        """Return the rows by event."""
        return Counter(event_id for event_id in self.events.values() if event_id is not None)

    def changed_since(self, instant: datetime, left_since: datetime | None = None) -> set[int]:
        """Return the ids that changed since then, or left since then or `left_since`, or shortly before."""
        since = instant - PUBLISHED_LATE
        changed = {
            i for i, row in self.rows.items() if row.last_modified_at and row.last_modified_at >= since
        }
        since = (left_since or instant) - PUBLISHED_LATE
        return changed | {i for i, removal in self.removals.items() if removal.removed_at >= since}

    def bring_up(self, later: Listing) -> None:
        """Add what changed and left since this was listed."""
        for i, removal in later.removals.items():
            row = self.rows.get(i)
            self.removals[i] = removal
            if row is not None and (
                row.last_modified_at is None or row.last_modified_at <= removal.removed_at
            ):
                del self.rows[i]
        self.rows |= later.rows
        self.events |= later.events
        self.unreadable |= later.unreadable
        self.listed_at = later.listed_at or self.listed_at
        self.until = max(filter(None, (self.until, later.until)), default=None)


class Evidence:
    """What is read of one partner's races."""

    def __init__(self, client: VendorClient, purse: Purse, *, page_size: int) -> None:
        self._client = client
        self.purse = purse
        self.page_size = page_size
        self.counts: dict[int, dict[int, int]] = {}
        self.listings: dict[int, Listing] = {}

    @property
    def vendor_time(self) -> VendorTime:
        """The vendor's clock, by the answers that were read."""
        return self._client.vendor_time

    async def first_page(self, scope: Scope) -> int:
        """Return how many rows a page of one row of a race has: the cheapest protected call there is."""
        pages = self._client.participants(scope.race_id, [min(scope.event_ids)], page_size=1)
        async with aclosing(pages):
            page = await anext(pages)
        return len(page.rows) + len(page.unreadable)

    async def count(self, scope: Scope) -> dict[int, int]:
        """Return the vendor's own count of a race's live events."""
        self.counts[scope.race_id] = await self._client.participant_counts(
            scope.race_id, sorted(scope.event_ids)
        )
        return self.counts[scope.race_id]

    async def listing(self, scope: Scope, size: Size) -> Listing:
        """Return the complete listing of a race's live events; it is read once."""
        known = self.listings.get(scope.race_id)
        if known is None:
            known = await self._list(scope, sorted(scope.event_ids), one_event=size.one_event)
            self.listings[scope.race_id] = known
        return known

    async def add_removed(self, scope: Scope, listing: Listing, size: Size) -> None:
        """Add the complete removed list of a race's live events."""
        one_by_one = size.one_event or listing.untrusted is not None
        found = Listing()
        for events in _groups(scope.event_ids, one_by_one=one_by_one):
            await self._read(found, scope.race_id, events, Stream.REMOVED)
        listing.until = max(filter(None, (listing.until, found.until)))
        listing.removals = found.removals

    async def changes(
        self, scope: Scope, size: Size, *, since: datetime, expected: Mapping[int, int]
    ) -> Listing:
        """Return the active registrations changed since then; `expected`: how many, by event."""
        listing = self.listings[scope.race_id]
        one_by_one = size.one_event or listing.untrusted is not None
        found = Listing()
        for events in _groups(scope.event_ids, one_by_one=one_by_one):
            await self._read(found, scope.race_id, events, Stream.PARTICIPANTS, since=since)
            await self._read_beyond(found, scope.race_id, events, expected, since=since)
        return found

    async def meanwhile(
        self, scope: Scope, since: datetime, *, left_since: datetime | None = None, one_by_one: bool
    ) -> Listing:
        """Return what changed since then, or left since then or `left_since`, shortly before included."""
        found = Listing()
        begins = {Stream.PARTICIPANTS: since, Stream.REMOVED: left_since or since}
        for stream, begin in begins.items():
            for events in _groups(scope.event_ids, one_by_one=one_by_one):
                await self._read(found, scope.race_id, events, stream, since=begin - PUBLISHED_LATE)
        return found

    async def by_list(self, scope: Scope, size: Size) -> Listing:
        """Return the listing of a race with what a list of all its events brings, asked for if it was not."""
        listing = await self.listing(scope, size)
        if listing.of_list is None:
            await self._try_list(listing, scope, sorted(scope.event_ids))
        return listing

    async def one_by_one(self, scope: Scope) -> dict[int, int | None]:
        """Return the event by id of all that single lists show, one request an event."""
        found = Listing()
        counts = self.counts.get(scope.race_id, {})
        for event_id in sorted(scope.event_ids):
            await self._read(found, scope.race_id, [event_id], Stream.PARTICIPANTS)
            await self._read_beyond(found, scope.race_id, [event_id], counts)
        return found.events

    async def first_of_many(self, scope: Scope, event_ids: Collection[int]) -> int:
        """Return how many rows the first page of these events has."""
        pages = self._client.participants(scope.race_id, sorted(event_ids), page_size=self.page_size)
        async with aclosing(pages):
            page = await anext(pages)
        return len(page.rows) + len(page.unreadable)

    async def wearing(self, scope: Scope, event_ids: Collection[int], bib: int) -> Page:
        """Return those of these events who have the bib now."""
        page = await self._client.search_bib(scope.race_id, sorted(event_ids), bib)
        return page

    async def _list(self, scope: Scope, event_ids: list[int], *, one_event: bool) -> Listing:
        listing = Listing()
        if len(event_ids) > 1 and not one_event:
            await self._try_list(listing, scope, event_ids)
            if listing.untrusted is None:
                return listing
        counts = self.counts.get(scope.race_id, {})
        for event_id in event_ids:
            await self._read(listing, scope.race_id, [event_id], Stream.PARTICIPANTS)
            await self._read_beyond(listing, scope.race_id, [event_id], counts)
        return listing

    async def _try_list(self, listing: Listing, scope: Scope, event_ids: list[int]) -> None:
        """Read several events together, and note whether that can be believed."""
        counts = self.counts.get(scope.race_id, {})
        found = Listing()
        try:
            for events in _groups(event_ids, one_by_one=False):
                await self._read(found, scope.race_id, events, Stream.PARTICIPANTS)
                await self._read_beyond(found, scope.race_id, events, counts)
        except ListingNotTrusted as error:
            listing.untrusted, listing.contradicted = str(error), True
        listing.of_list = dict(found.events)
        if listing.untrusted is None and _short(event_ids, found, counts):
            # Somebody may have left since they were counted.
            counts = await self.count(scope)
            if short := _short(event_ids, found, counts):
                event_id = short[0]
                listing.untrusted = (
                    f"a list of {len(event_ids)} events shows {found.counted()[event_id]:,} of event "
                    f"{event_id}, and the vendor counts {counts[event_id]:,}"
                )
        if listing.untrusted is None and not listing.rows:
            listing.rows, listing.unreadable, listing.events = found.rows, found.unreadable, found.events
        listing.pages += found.pages
        listing.listed_at = _earlier(listing.listed_at, found.listed_at)
        listing.until = max(filter(None, (listing.until, found.until)), default=None)

    async def _read_beyond(
        self,
        found: Listing,
        race_id: int,
        events: list[int],
        counts: Mapping[int, int],
        *,
        since: datetime | None = None,
    ) -> None:
        """Ask on after the last row of a listing that shows fewer than there are: pages may be cut."""
        while True:
            listed, before = found.counted(), len(found.events)
            mine = [i for i, event_id in found.events.items() if event_id in events]
            if not mine or sum(listed[e] for e in events) >= sum(counts.get(e, 0) for e in events):
                return
            pages = found.pages
            found.pages = [[]]
            await self._read(found, race_id, events, Stream.PARTICIPANTS, since=since, after=max(mine))
            pages[-1] += [rows for sequence in found.pages for rows in sequence]
            found.pages = pages
            if len(found.events) == before:
                return

    async def _read(
        self,
        found: Listing,
        race_id: int,
        events: list[int],
        stream: Stream,
        *,
        since: datetime | None = None,
        after: int = 0,
    ) -> None:
        """Read a request sequence to its end."""
        ask = (
            self._client.participants if stream is Stream.PARTICIPANTS else self._client.removed_participants
        )
        found.pages.append([])
        pages = ask(race_id, events, after=after, modified_after=since, page_size=self.page_size)
        async with aclosing(pages):
            async for page in pages:
                found.add(page, stream)


def _groups(event_ids: Collection[int], *, one_by_one: bool) -> list[list[int]]:
    return [list(events) for events in grouped(event_ids, 1 if one_by_one else EVENTS_A_REQUEST)]


def _short(event_ids: Collection[int], found: Listing, counts: Mapping[int, int]) -> list[int]:
    """Return the events of which fewer are listed than counted."""
    listed = found.counted()
    return [e for e in event_ids if counts.get(e, 0) > listed[e] + len(found.unreadable)]


def _earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    return min(filter(None, (one, other)), default=None)
