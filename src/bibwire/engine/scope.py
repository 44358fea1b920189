"""
One scope made fresh: its participants, then its removed list, then what a full listing missed.

The two streams are independent facts: a transfer removes a registration here and adds another
there. A page is one transaction: rows, feed, position and the check that the scope is still
ours. The next page is asked for only after that commit, so that a killed process repeats at
most one call; what overlaps with storing are the calls of other scopes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

import structlog

from bibwire.api import wire
from bibwire.api.client import VendorClient
from bibwire.clock import Clock
from bibwire.domain.clocks import VendorClock, elapsed
from bibwire.domain.doubts import CONFIRMED_AFTER, doubtful_events
from bibwire.domain.errors import (
    AnswerUnreadable,
    BibwireError,
    DatabaseUnavailable,
    EventGone,
    ListingNotTrusted,
    Stopped,
)
from bibwire.domain.records import Page, Registration
from bibwire.domain.sweeps import (
    RESUME_FULL,
    Listing,
    Lookback,
    Stream,
    StreamState,
    Sweep,
    SweepKind,
    Wish,
    plan,
)
from bibwire.engine.discovery import discover
from bibwire.engine.reading import READING
from bibwire.store import catalog, doubts, feed, leases, loader, quarantine, streams
from bibwire.store.catalog import Scope
from bibwire.store.database import Connection, Database, of_partner
from bibwire.store.leases import Lease
from bibwire.store.loader import Outcome, Target

# The vendor's filter is inclusive by its own words; if it is not, the second itself must be read.
SECOND: Final = timedelta(seconds=1)
# How long a scope is asked for one event at a time before a list is tried again.
ONE_EVENT_FOR: Final = timedelta(days=7)

log = structlog.get_logger()


class _OneEventGone(Exception):
    """The vendor does not know this event."""

    def __init__(self, event_id: int) -> None:
        super().__init__(event_id)
        self.event_id = event_id


@dataclass(slots=True)
class ScopeResult:
    """What became of a scope's rows; what stayed open; what a person should know."""

    outcome: Outcome = field(default_factory=Outcome)
    unsettled: str | None = None
    # Rows a full listing showed, by event.
    listed: dict[int, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    # None: it was not seen, or not so that it can be believed.
    vendor_clock: VendorClock | None = None
    # Registrations were read to the end; a run that goes on after them reads removals alone.
    people_read: bool = False


class ScopeSync:
    """The sync of one scope under a lease."""

    def __init__(
        self,
        db: Database,
        client: VendorClient,
        clock: Clock,
        lease: Lease,
        scope: Scope,
        *,
        lookback: Lookback,
        page_size: int,
        on_page: Callable[[int], None],
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._db = db
        self._client = client
        self._clock = clock
        self._lease = lease
        self._scope = scope
        self._page_size = page_size
        self._on_page = on_page
        self._stopping = stopping
        self._key = (scope.partner_id, scope.race_id)
        self._wish = Wish(
            live=scope.event_ids, now=clock.now(), vendor_now=client.vendor_time.now(), lookback=lookback
        )
        # Of how many events together the vendor was seen to list the first ones and the last.
        self._trusted = 1
        self._pages_proven = self._try_lists = False
        self._longest_page = 0
        # Whether a full listing compares the columns of rows whose digests are the same.
        self._compare_stored = False
        # What the full listing of this run showed, for what is decided at its end.
        self._listing: Listing | None = None
        self._before: dict[Stream, StreamState] = {}
        self._shadowed: dict[int, Registration] = {}
        self._removed_listed = False
        self._not_found: list[int] = []
        # People of these in a delta contradict the listing that showed nobody.
        self._empty: frozenset[int] = frozenset()
        self.result = ScopeResult()

    async def run(
        self, *, full: bool, only: Collection[Stream] = tuple(Stream), compare_stored: bool = False
    ) -> ScopeResult:
        """
        Make the scope fresh.

        Args:
            full: List everything again; what the listing misses is then held against the counts.
            compare_stored: In a full sweep, compare what is stored column by column: slower, and finds
                what was altered in the mirror itself.
            only: The streams to sweep; both in a full sweep, and until both were loaded.

        Raises:
            Stopped: `stopping` said so before a page was asked for.
            EventGone: The vendor does not find an event; the others are fresh.
            BibwireError: A sweep could not be finished; what it stored stays, its cursor does not
                move, and the next run goes on at the page that was not committed.
        """
        state = await streams.scope(self._db, *self._key)
        now = self._clock.now()
        full_since: datetime | None = None
        if full:
            [full_since] = of_partner(
                await streams.run(self._db, "begin_full", *self._key, now=now, resume_after=now - RESUME_FULL)
            )
        self._trusted, self._pages_proven = state.trusted_length, state.pages_proven
        self._longest_page = state.longest_page
        self._compare_stored = compare_stored and full and state.loaded_at is not None
        self._wish = replace(
            self._wish, now=now, vendor_now=self._client.vendor_time.now(), full_since=full_since
        )
        self._empty = frozenset(state.empty_event_ids)
        # A vendor's habit may be over: the list is tried again, and counted.
        self._try_lists = state.one_event_since is not None and (
            elapsed(state.one_event_since, now) >= ONE_EVENT_FOR
        )
        if state.one_event_since is not None and not self._try_lists:
            self._ask_one_event()
        if self._try_lists or state.relist_since or state.reread_from:
            await self._take_back()
        both = full or state.loaded_at is None or state.relist_since is not None or self._try_lists
        left = [stream for stream in Stream if both or stream in only]
        while self._wish.live and left:
            try:
                await self._freshen(left[0])
                left.pop(0)
            except ListingNotTrusted as error:
                if self._wish.full_list == 1:
                    raise
                await self._fall_back(str(error))
                left = list(Stream)  # neither has a cursor any more
            except _OneEventGone as gone:
                await self._drop_event(gone.event_id)
            except EventGone:
                self._ask_one_event()  # one of several: asking for each tells which
        self.result.vendor_clock = self._client.vendor_time.seen()
        await self._restore_shadowed()
        if self._listing is not None:
            self.result.listed = self._listing.counts
            await self._settle_missing(self._listing)
        if self._not_found:
            numbers = ", ".join(map(str, self._not_found))
            raise EventGone(
                f"The vendor does not find event {numbers}: it is asked for again until the race list does "
                "not show it either."
            )
        if full:
            assert full_since is not None
            await self._end_full(full_since)
        if self.result.outcome.altered:
            self._tell_altered(self.result.outcome.altered)
        return self.result

    def _tell_altered(self, rows: int) -> None:
        log.warning(
            "rows of the mirror were altered",
            action="sweep",
            partner_id=self._scope.partner_id,
            race_id=self._scope.race_id,
            rows=rows,
        )
        self.result.notes.append(
            f"Race {self._scope.race_id}: {rows:,} {'row' if rows == 1 else 'rows'} of the mirror did not "
            "hold what RunSignup lists, though nothing had changed there: somebody altered the mirror, or it "
            "was stored wrong. RunSignup's values are back."
        )

    async def merge_found(self, page: Page) -> None:
        """Store what a search found, outside any sweep: no cursor moves."""
        async with self._db.transaction() as connection:
            target = await self._target(connection)
            self.result.outcome.add(
                await loader.merge_listed_page(connection, target, page, reading=READING, complete_for=None)
            )

    async def _take_back(self) -> None:
        """List everything again, or read changes again, as was asked for since the last sweep."""
        async with self._db.transaction() as connection:
            target = await self._target(connection)
            if self._try_lists:
                await streams.write(connection, "try_lists", *self._key, now=target.now)
            for name in ("take_back", "taken_back"):
                await streams.write(connection, name, *self._key)

    def _ask_one_event(self) -> None:
        self._wish = replace(self._wish, full_list=1, delta_list=1)

    async def _fall_back(self, why: str) -> None:
        """Ask for one event at a time for good, and list again what lists of events brought."""
        async with self._db.transaction() as connection:
            target = await self._target(connection)
            await streams.write(connection, "ask_one_event", *self._key, now=target.now)
        self._ask_one_event()
        self.result.notes.append(
            f"Race {self._scope.race_id}: {why}; from now on its events are asked for one at a time."
        )

    async def _drop_event(self, event_id: int) -> None:
        """Go on without an event; whether it is gone, the next complete race list tells."""
        await catalog.run(
            self._db, "event_not_found", self._scope.partner_id, event_id=event_id, now=self._clock.now()
        )
        self._wish = replace(self._wish, live=self._wish.live - {event_id})
        self._not_found.append(event_id)

    async def _freshen(self, stream: Stream) -> None:
        state = await streams.load(self._db, *self._key, stream)
        # A delta or a removed list cannot be held against counts: it believes only proven lists.
        proven = min(self._wish.full_list, self._trusted)
        wish = replace(
            self._wish,
            full_list=self._wish.full_list if stream is Stream.PARTICIPANTS else proven,
            delta_list=proven,
        )
        self._before.setdefault(stream, state)
        listing = state.listing if stream is Stream.PARTICIPANTS else None
        if listing is not None and wish.full_since and listing.ended_at >= wish.full_since:
            # Listed by a run that was cut off before it could decide on what is missing.
            self._listing = listing
        sweeps = plan(state, wish)
        for sweep in sweeps:
            state = await self._sweep(stream, replace(state, sweep=None), sweep)
            if stream is Stream.REMOVED and sweep.kind is SweepKind.FULL and sweep.high is None:
                self._removed_listed = sweep.event_ids >= wish.live
        if sweeps and stream is Stream.PARTICIPANTS:
            self.result.people_read = True

    async def _sweep(self, stream: Stream, state: StreamState, sweep: Sweep) -> StreamState:
        """Run a sweep from its position to its end; return the state it leaves."""
        ask = (
            self._client.participants if stream is Stream.PARTICIPANTS else self._client.removed_participants
        )
        ahead: Sweep | None = sweep
        while ahead is not None:
            self._leave_if_told()
            group = ahead.groups[ahead.group]
            pages = ask(
                self._scope.race_id,
                group,
                after=ahead.after,
                modified_after=ahead.since,
                page_size=self._page_size,
                longest_page=self._longest_page if sweep.kind is SweepKind.FULL else None,
            )
            async with aclosing(pages):
                try:
                    async for page in pages:
                        assert ahead is not None
                        ahead, state = await self._commit(stream, state, ahead, page)
                        self._on_page(len(page.rows))
                        if ahead is not None:
                            self._leave_if_told()
                except EventGone:
                    if len(group) > 1:
                        raise
                    raise _OneEventGone(group[0]) from None
        return state

    def _leave_if_told(self) -> None:
        if self._stopping():
            raise Stopped(f"The sync of race {self._scope.race_id} was stopped; the next one goes on there.")

    async def _commit(
        self, stream: Stream, state: StreamState, sweep: Sweep, page: Page, *, counted: bool = False
    ) -> tuple[Sweep | None, StreamState]:
        """
        Store a page and where the sweep then stands, in one transaction.

        The last page of a list that is to be counted leaves the sweep at its last row; the list
        ends when it was (`counted`).
        """
        listing = stream is Stream.PARTICIPANTS and sweep.kind is SweepKind.FULL
        received = len(page.rows) + len(page.unreadable)
        if sweep.kind is SweepKind.FULL and received > self._longest_page:
            self._longest_page = received
            await catalog.run(self._db, "note_page", self._scope.partner_id, rows=received)
        to_count = listing and page.is_last and not counted and await self._is_to_be_counted(sweep, page)
        last_id = max((row.registration_id for row in page.rows), default=sweep.after)
        still_listed = await self._still_listed(page) if stream is Stream.REMOVED else frozenset()
        async with self._db.transaction() as connection:
            target = await self._target(connection)
            if listing and sweep.high is None:
                await streams.write(connection, "forget_missing", *self._key)
            if stream is Stream.PARTICIPANTS:
                outcome = await loader.merge_listed_page(
                    connection,
                    target,
                    page,
                    reading=READING,
                    complete_for=frozenset(sweep.groups[sweep.group]) if listing and not counted else None,
                    compare_stored=self._compare_stored,
                )
            else:
                outcome = await loader.merge_removed_page(
                    connection,
                    target,
                    page,
                    decode=wire.decode_removed,
                    still_listed=still_listed,
                    compare_stored=self._compare_stored and sweep.kind is SweepKind.FULL,
                )
            if stream is Stream.PARTICIPANTS and not listing:
                await self._note_returned(connection, target, outcome)
            as_of = await self._as_of(connection, page)
            sweep = sweep.counted(as_of=as_of, listed=outcome.listed if listing else {})
            ahead = sweep.advanced(through=last_id if to_count else page.through)
            if ahead is not None:
                state = replace(state, sweep=ahead)
            elif not (self._scope.is_listed or page.rows or sweep.kind is SweepKind.FULL):
                # Nothing changed, or access was withdrawn without a word: the cursor waits.
                state = replace(state, sweep=None)
            else:
                state = state.finished(sweep, self._wish.live, now=target.now)
                if self._wish.full_since is None:
                    state = replace(state, listing=None)  # it matters to a full sync that goes on
            await streams.save(connection, *self._key, stream, state)
            if ahead is None and not target.loaded:
                await self._note_loaded(connection, target)
        self.result.outcome.add(outcome)
        self._shadowed |= {row.registration_id: row for row in outcome.shadowed} if listing else {}
        if to_count:
            assert ahead is not None
            await self._count_list(sweep)
            end = replace(page, rows=(), unreadable=(), after=last_id)
            return await self._commit(stream, state, ahead, end, counted=True)
        if listing:
            if ahead is None:
                assert sweep.high is not None
                self._listing = Listing(ended_at=target.now, high=sweep.high, counts=sweep.counts)
        elif sweep.kind is SweepKind.FULL:
            for row in page.rows:
                self._shadowed.pop(row.registration_id, None)
        return ahead, state

    async def _as_of(self, connection: Connection, page: Page) -> datetime:
        """Return as of which vendor instant a page that was just stored is, by its changes where need be."""
        if page.claimed is None or not page.rows:
            return page.as_of
        ids = [row.registration_id for row in page.rows]
        [[newest]] = await streams.write(connection, "newest_change", *self._key, registration_ids=ids)
        is_believed = self._client.vendor_time.show(newest, page.claimed)
        return page.claimed if is_believed else page.as_of

    async def _target(self, connection: Connection) -> Target:
        loaded_at = await leases.hold(connection, self._lease)
        return Target(*self._key, loaded=loaded_at is not None, now=self._clock.now())

    async def _note_loaded(self, connection: Connection, target: Target) -> None:
        counts = await streams.mark_loaded(connection, *self._key, now=target.now)
        if counts is not None:
            await feed.write_loaded(connection, target.partner_id, target.race_id, counts, seen_at=target.now)

    async def _is_to_be_counted(self, sweep: Sweep, page: Page) -> bool:
        """
        Say whether a list that ends here is held against the vendor's count, which costs a call.

        A list of several events is, the first time under a credential that one is as long, or
        takes several pages; and any list without the people it should show.
        """
        group = sweep.groups[sweep.group]
        seen = {row.event_id for row in page.rows} | {each for each, rows in sweep.listed.items() if rows}
        silent = [event_id for event_id in group if event_id not in seen]
        if len(group) > 1:
            unproven = len(group) > self._trusted or (page.after > 0 and not self._pages_proven)
            if unproven or self._try_lists:
                return True
        elif silent and not self._before[Stream.PARTICIPANTS].event_ids >= set(group):
            return True  # nobody, the first time
        return bool(silent) and bool(await self._active(silent))

    async def _count_list(self, sweep: Sweep) -> None:
        """
        Hold a list, stored to its end, against the vendor's count, and trust such lists if it agrees.

        People sign up meanwhile: before a list is called short, the changes since it began are read.

        Raises:
            ListingNotTrusted: The list is short: ask for one event at a time.
            AnswerUnreadable: The same of a single event.
        """
        group = sweep.groups[sweep.group]
        expected = Counter({event_id: sweep.listed.get(event_id, 0) for event_id in group})
        counts = await self._client.participant_counts(self._scope.race_id, group)
        if any(counts.get(event_id, 0) > expected[event_id] for event_id in group):
            before = await self._shown(sweep)
            await self._read_changes(sweep)
            expected.update(await self._shown(sweep))
            expected.subtract(before)
            counts = await self._client.participant_counts(self._scope.race_id, group)
        for event_id in group:
            if counts.get(event_id, 0) > expected[event_id]:
                said = (
                    f"the vendor listed {expected[event_id]} registrations of event {event_id} "
                    f"and counts {counts[event_id]}"
                )
                raise ListingNotTrusted(said) if len(group) > 1 else AnswerUnreadable(said)
        shown = [place for place, event_id in enumerate(group, start=1) if sweep.listed.get(event_id)]
        several_pages = sweep.after > 0 and len(group) > 1
        if len(shown) > 1 and (shown[-1] > self._trusted or several_pages):
            self._trusted = max(self._trusted, shown[-1])
            self._pages_proven |= several_pages
            await catalog.run(
                self._db,
                "trust_lists",
                self._scope.partner_id,
                length=self._trusted,
                several_pages=several_pages,
                now=self._clock.now(),
            )

    async def _shown(self, sweep: Sweep) -> Counter[int]:
        """Return the active registrations of the list's events, without those it did not show."""
        assert sweep.high is not None
        rows = await streams.run(self._db, "missing", *self._key, high=sweep.high)
        shown = await self._active(sweep.groups[sweep.group])
        shown.subtract(Counter(event_id for _, event_id in rows if event_id in shown))
        return shown

    async def _read_changes(self, sweep: Sweep) -> None:
        """Store what changed since a list began; no cursor moves."""
        assert sweep.high is not None
        since = sweep.high - self._wish.lookback.short
        events, race_id, size = sweep.groups[sweep.group], self._scope.race_id, self._page_size
        async for page in self._client.participants(race_id, events, modified_after=since, page_size=size):
            await self.merge_found(page)
        async for page in self._client.removed_participants(
            race_id, events, modified_after=since, page_size=size
        ):
            async with self._db.transaction() as connection:
                target = await self._target(connection)
                self.result.outcome.add(
                    await loader.merge_removed_page(connection, target, page, decode=wire.decode_removed)
                )

    async def _still_listed(self, page: Page) -> frozenset[int]:
        """
        Return those of a removed page that are listed as active too, their times being the same.

        What this run's listing showed is no answer: it may be a delta that begins later, and the
        removal may have come after it, within the second.
        """
        if not page.rows:
            return frozenset()
        async with self._db.transaction() as connection:
            target = await self._target(connection)
            contested = await loader.contested(connection, target, page, decode=wire.decode_removed)
        listed: set[int] = set()
        for event_id in sorted(self._wish.live & contested.keys()):
            ids = {removal.registration_id for removal in contested[event_id]}
            pages = self._client.participants(
                self._scope.race_id,
                [event_id],
                after=min(ids) - 1,
                modified_after=min(removal.removed_at for removal in contested[event_id]) - SECOND,
                page_size=self._page_size,
            )
            async with aclosing(pages):
                try:
                    async for shown in pages:
                        listed |= ids & {row.registration_id for row in shown.rows}
                        if shown.through is not None and shown.through >= max(ids):
                            break
                except EventGone:
                    raise _OneEventGone(event_id) from None
        return frozenset(listed)

    async def _restore_shadowed(self) -> None:
        """Restore those a full listing shows as active and the full removed list no longer holds."""
        if self._shadowed and self._listing is not None and self._removed_listed:
            async with self._db.transaction() as connection:
                target = await self._target(connection)
                rows = list(self._shadowed.values())
                self.result.outcome.add(
                    await loader.restore(connection, target, rows, high=self._listing.high)
                )

    async def _note_returned(self, connection: Connection, target: Target, outcome: Outcome) -> None:
        """Have everything listed again if people are back whom a listing took for gone."""
        back = self._empty & outcome.listed.keys()
        if back or outcome.returned:
            await streams.write(connection, "ask_relist", *self._key, now=target.now)
            await doubts.forget(connection, *self._key, back)
            self._empty -= back

    async def _settle_missing(self, listing: Listing) -> None:
        """
        Decide on stored registrations a full listing did not show, by the vendor's own counts.

        Where too many are missing, rights may have been lost without a word, and the counts with
        them: that takes a second listing, and a race list that shows race and event after it.
        """
        missing = await self._missing(listing)
        if not missing:
            await self._settle(listing, [])
            return
        if not self._scope.is_listed and not any(listing.counts.values()):
            await self._leave_missing(
                "the race is not in the race list any more and shows nobody: its "
                f"{len(missing)} stored registrations stay as they are"
            )
            return
        # Of all events: one may have got whom another one lost.
        event_ids = sorted(listing.counts.keys() | set(missing.values()))
        expected = {event_id: listing.counts.get(event_id, 0) for event_id in event_ids}
        counts = await self._client.participant_counts(self._scope.race_id, event_ids)
        if any(counts.get(event_id) != expected[event_id] for event_id in event_ids):
            # People sign up meanwhile: hold what is stored after their changes against a new count.
            vendor_now = self._client.vendor_time.now()
            self._wish = replace(self._wish, full_since=None, now=self._clock.now(), vendor_now=vendor_now)
            for stream in Stream:
                await self._freshen(stream)
            missing = await self._missing(listing)
            expected = await self._active(event_ids) - Counter(missing.values())
            counts = await self._client.participant_counts(self._scope.race_id, event_ids)
        gone, stored = Counter(missing.values()), await self._active(event_ids)
        odd = [each for each in gone if counts.get(each) != expected.get(each, 0)]
        doubtful = doubtful_events(gone, stored=stored, listed=listing.counts, counted=counts)
        believed = await self._confirmed(listing, doubtful.difference(odd))
        open_ = doubtful.difference(odd, believed)
        absent = [each for each, event_id in missing.items() if event_id not in open_ and event_id not in odd]
        await self._settle(listing, absent, undecided=open_, believed=believed)
        if odd:
            await self._leave_missing(
                f"{sum(gone[each] for each in odd)} stored registrations are not listed any more, but for "
                f"event {odd[0]} the vendor counts {counts.get(odd[0], 'nothing')} and lists "
                f"{expected.get(odd[0], 0)}: they stay as they are until both agree"
            )
        elif open_:
            await self._leave_missing(
                f"{sum(gone[each] for each in open_)} of {sum(stored[each] for each in open_)} stored "
                "registrations are neither listed nor counted any more, which lost access would look like "
                "too: they stay as they are; if they are gone indeed, another 'bibwire sync --full' in ten "
                "minutes marks them, provided that the race list still shows the race and its events"
            )

    async def _settle(
        self,
        listing: Listing,
        absent: Sequence[int],
        *,
        undecided: Collection[int] = (),
        believed: Collection[int] = (),
    ) -> None:
        """Mark registrations as absent, and keep what the listing leaves in doubt."""
        async with self._db.transaction() as connection:
            target = await self._target(connection)
            if absent:
                self.result.outcome.add(
                    await loader.mark_absent(connection, target, absent, high=listing.high)
                )
            await doubts.keep(
                connection,
                *self._key,
                listed=listing.counts,
                undecided=undecided,
                believed=believed,
                high=listing.high,
                now=target.now,
            )

    async def _confirmed(self, listing: Listing, event_ids: Collection[int]) -> frozenset[int]:
        """Return those events that a listing long before showed alike and the race list still shows now."""
        before = await doubts.doubted_before(
            self._db, *self._key, event_ids, high=listing.high - CONFIRMED_AFTER
        )
        if not before:
            return before
        try:
            found = await discover(self._db, self._client, self._clock, self._scope.partner_id)
        except DatabaseUnavailable:
            raise
        except BibwireError:
            return frozenset()  # discovery has its own line of sync_history
        if self._scope.race_id not in found.race_ids:
            return frozenset()
        return before & found.event_ids

    async def _active(self, event_ids: Collection[int]) -> Counter[int]:
        """Return how many active registrations of each event are stored."""
        rows = await streams.run(self._db, "active_by_event", *self._key, event_ids=list(event_ids))
        return Counter(dict(rows))

    async def _missing(self, listing: Listing) -> dict[int, int]:
        """Return the event of each active registration that neither the listing nor anything since showed."""
        return dict(await streams.run(self._db, "missing", *self._key, high=listing.high))

    async def _leave_missing(self, why: str) -> None:
        """Say that a listing was not complete, and let the cursors stand where they stood before it."""
        self.result.unsettled = f"{why[0].upper()}{why[1:]}."
        async with self._db.transaction() as connection:
            await self._target(connection)
            for stream, before in self._before.items():
                if before.cursor_at is not None:
                    await streams.write(
                        connection,
                        "take_cursor_back",
                        *self._key,
                        stream=stream.value,
                        cursor_at=before.cursor_at,
                    )

    async def _end_full(self, began_at: datetime) -> None:
        """Note that both streams were listed, and what of the quarantine is over."""
        async with self._db.transaction() as connection:
            target = await self._target(connection)
            await streams.write(connection, "forget_missing", *self._key)
            await streams.write(connection, "end_full", *self._key, now=target.now)
            await quarantine.resolve_unmet(
                connection, *self._key, [stream.value for stream in Stream], since=began_at
            )
