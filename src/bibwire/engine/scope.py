"""
One scope made fresh: its participants, then its removed list, then what a full listing missed.

The two streams are independent facts: a transfer removes a registration here and adds another
there. A page is one transaction: rows, feed, position and the check that the scope is still
ours. The next page is asked for only after that commit, so that a killed process repeats at
most one call; what overlaps with storing are the calls of other scopes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from bibwire.api import wire
from bibwire.api.client import VendorClient
from bibwire.clock import Clock
from bibwire.domain.errors import EventGone, ListingNotTrusted, Stopped
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
from bibwire.store import catalog, feed, leases, loader, quarantine, streams
from bibwire.store.catalog import Scope
from bibwire.store.database import Connection, Database
from bibwire.store.leases import Lease
from bibwire.store.loader import Outcome, Target

# The vendor's filter is inclusive by its own words; if it is not, the second itself must be read.
SECOND: Final = timedelta(seconds=1)


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
    notes: list[str] = field(default_factory=list)
    # Seconds by which the vendor's clock is ahead of ours, from its last answer.
    clock_ahead: float | None = None


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
        self._wish = Wish(live=scope.event_ids, now=clock.now(), lookback=lookback)
        # Of how many events together the vendor was seen to list the first ones and the last.
        self._trusted = 1
        # What the full listing of this run showed, for what is decided at its end.
        self._listing: Listing | None = None
        self._before: StreamState | None = None
        self._shadowed: dict[int, Registration] = {}
        self._removed_listed = False
        self.result = ScopeResult()

    async def run(self, *, full: bool, only: Collection[Stream] = tuple(Stream)) -> ScopeResult:
        """
        Make the scope fresh.

        Args:
            full: List everything again; what the listing misses is then held against the counts.
            only: The streams to sweep; both in a full sweep, and until both were loaded.

        Raises:
            Stopped: `stopping` said so before a page was asked for.
            BibwireError: A sweep could not be finished; what it stored stays, its cursor does not
                move, and the next run goes on at the page that was not committed.
        """
        state = await streams.scope(self._db, *self._key)
        now = self._clock.now()
        full_since: datetime | None = None
        if full:
            [[full_since]] = await streams.run(
                self._db, "begin_full", *self._key, now=now, resume_after=now - RESUME_FULL
            )
        self._trusted = state.trusted_length
        self._wish = replace(self._wish, now=now, full_since=full_since)
        if state.one_event_since is not None:
            self._ask_one_event()
        left = [stream for stream in Stream if full or state.loaded_at is None or stream in only]
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
        await self._restore_shadowed()
        if self._listing is not None:
            await self._settle_missing(self._listing)
        if full:
            assert full_since is not None
            await self._end_full(full_since)
        return self.result

    async def merge_found(self, page: Page) -> None:
        """Store what a search found, outside any sweep: no cursor moves."""
        async with self._db.transaction() as connection:
            target = await self._target(connection)
            self.result.outcome.add(
                await loader.merge_listed_page(
                    connection, target, page, decode=wire.decode_participant, complete_for=None
                )
            )

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
        await catalog.run(
            self._db, "event_gone", self._scope.partner_id, event_id=event_id, now=self._clock.now()
        )
        self._wish = replace(self._wish, live=self._wish.live - {event_id})
        self.result.notes.append(f"Race {self._scope.race_id}: the vendor no longer knows event {event_id}.")

    async def _freshen(self, stream: Stream) -> None:
        state = await streams.load(self._db, *self._key, stream)
        # A delta or a removed list cannot be held against counts: it believes only proven lists.
        proven = min(self._wish.full_list, self._trusted)
        wish = replace(
            self._wish,
            full_list=self._wish.full_list if stream is Stream.PARTICIPANTS else proven,
            delta_list=proven,
        )
        if stream is Stream.PARTICIPANTS:
            self._before = self._before or state
            # Listed by a run that was cut off before it could decide on what is missing.
            if wish.full_since and state.listing and state.listing.ended_at >= wish.full_since:
                self._listing = state.listing
        for sweep in plan(state, wish):
            state = await self._sweep(stream, replace(state, sweep=None), sweep)
            if stream is Stream.REMOVED and sweep.kind is SweepKind.FULL and sweep.high is None:
                self._removed_listed = sweep.event_ids >= wish.live

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
        self, stream: Stream, state: StreamState, sweep: Sweep, page: Page
    ) -> tuple[Sweep | None, StreamState]:
        """Store a page and where the sweep then stands, in one transaction."""
        # The vendor's Date is cut to the second: half of one is the best guess of what is missing.
        self.result.clock_ahead = (page.answered_at - self._clock.now()).total_seconds() + 0.5
        listing = stream is Stream.PARTICIPANTS and sweep.kind is SweepKind.FULL
        if listing:
            await self._check_list(sweep, page)
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
                    decode=wire.decode_participant,
                    complete_for=frozenset(sweep.groups[sweep.group]) if listing else None,
                )
            else:
                outcome = await loader.merge_removed_page(
                    connection, target, page, decode=wire.decode_removed, still_listed=still_listed
                )
            sweep = sweep.counted(as_of=page.as_of, listed=outcome.listed if listing else {})
            ahead = sweep.advanced(through=page.through)
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
        if listing:
            self._shadowed |= {row.registration_id: row for row in outcome.shadowed}
            if ahead is None:
                assert sweep.high is not None
                self._listing = Listing(ended_at=target.now, high=sweep.high, counts=sweep.listed)
        elif sweep.kind is SweepKind.FULL:
            for row in page.rows:
                self._shadowed.pop(row.registration_id, None)
        return ahead, state

    async def _target(self, connection: Connection) -> Target:
        loaded_at = await leases.hold(connection, self._lease)
        return Target(*self._key, loaded=loaded_at is not None, now=self._clock.now())

    async def _note_loaded(self, connection: Connection, target: Target) -> None:
        counts = await streams.mark_loaded(connection, *self._key, now=target.now)
        if counts is not None:
            await feed.write_loaded(connection, target.partner_id, target.race_id, counts, seen_at=target.now)

    async def _check_list(self, sweep: Sweep, page: Page) -> None:
        """
        Hold the end of a listing of several events against the vendor's count where it looks odd.

        A list that is trusted (one as long was seen to show its last event beside another) and
        shows something for every event that has rows costs no call.

        Raises:
            ListingNotTrusted: Events with registrations are missing from it.
        """
        group = sweep.groups[sweep.group]
        if len(group) == 1:
            return
        seen = {row.event_id for row in page.rows} | {each for each, rows in sweep.listed.items() if rows}
        shown = [place for place, event_id in enumerate(group, start=1) if event_id in seen]
        if len(shown) > 1 and shown[-1] > self._trusted:
            self._trusted = shown[-1]
            await catalog.run(self._db, "trust_list_length", self._scope.partner_id, length=self._trusted)
        if not page.is_last:
            return
        silent = [event_id for event_id in group if event_id not in seen]
        if silent and self._trusted >= len(group):
            stored = await streams.run(self._db, "active_by_event", *self._key, event_ids=silent)
            silent = [event_id for event_id, _ in stored]
        if silent:
            counts = await self._client.participant_counts(self._scope.race_id, group)
            if any(counts.get(event_id, 0) > 0 for event_id in silent):
                raise ListingNotTrusted("an answer to a list of events left out an event with registrations")

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

    async def _settle_missing(self, listing: Listing) -> None:
        """Decide on stored registrations a full listing did not show, by the vendor's own count."""
        missing = await self._missing(listing)
        if not missing:
            return
        event_ids = sorted(set(missing.values()))
        if not self._scope.is_listed and not any(listing.counts.values()):
            # Access that is withdrawn can look like this, and then the counts are nothing too.
            await self._leave_missing(
                "the race is not in the race list any more and shows nobody: its "
                f"{len(missing)} stored registrations stay as they are"
            )
            return
        expected = {event_id: listing.counts.get(event_id, 0) for event_id in event_ids}
        counts = await self._client.participant_counts(self._scope.race_id, event_ids)
        if any(counts.get(event_id) != expected[event_id] for event_id in event_ids):
            # People sign up meanwhile: hold what is stored after their changes against a new count.
            self._wish = replace(self._wish, full_since=None, now=self._clock.now())
            for stream in Stream:
                await self._freshen(stream)
            missing = await self._missing(listing)
            stored = await streams.run(self._db, "active_by_event", *self._key, event_ids=event_ids)
            expected = Counter(dict(stored)) - Counter(missing.values())
            counts = await self._client.participant_counts(self._scope.race_id, event_ids)
        odd = [event_id for event_id in event_ids if counts.get(event_id) != expected.get(event_id, 0)]
        absent = [registration_id for registration_id, event_id in missing.items() if event_id not in odd]
        if absent:
            async with self._db.transaction() as connection:
                target = await self._target(connection)
                self.result.outcome.add(
                    await loader.mark_absent(connection, target, absent, high=listing.high)
                )
        if odd:
            await self._leave_missing(
                f"{len(missing) - len(absent)} stored registrations are not listed any more, but for event "
                f"{odd[0]} the vendor counts {counts.get(odd[0], 'nothing')} and lists "
                f"{expected.get(odd[0], 0)}: they stay as they are until both agree"
            )

    async def _missing(self, listing: Listing) -> dict[int, int]:
        """Return the event of each active registration that neither the listing nor anything since showed."""
        return dict(await streams.run(self._db, "missing", *self._key, high=listing.high))

    async def _leave_missing(self, why: str) -> None:
        """Say that a listing was not complete, and let the cursor stand where it stood before it."""
        self.result.unsettled = f"{why[0].upper()}{why[1:]}."
        if self._before is not None and self._before.cursor_at is not None:
            async with self._db.transaction() as connection:
                await self._target(connection)
                await streams.write(
                    connection, "take_cursor_back", *self._key, cursor_at=self._before.cursor_at
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
