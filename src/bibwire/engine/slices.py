"""
One scope's work in a slice of at most a minute.

A job takes a scope that is due, polls it, and keeps it as long as the next poll comes soon: a
hot race costs no job a poll. At the end of its slice the scope is handed over. The lease is held
for each poll alone, so that a person's look-up never waits for a slice.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AbstractContextManager, AsyncExitStack, nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import structlog

from bibwire.api.client import VendorClient
from bibwire.api.haste import Haste, in_haste
from bibwire.clock import Clock
from bibwire.domain import reconcile as drift
from bibwire.domain import schedule as rules
from bibwire.domain.budget import Urgency, room
from bibwire.domain.clocks import elapsed
from bibwire.domain.errors import (
    BibwireError,
    Blocked,
    BudgetSpent,
    CallerRefused,
    CredentialSealed,
    DatabaseUnavailable,
    EventGone,
    PartnerStopped,
    RaceGone,
    ScopeBusy,
    Stopped,
    VendorUnavailable,
)
from bibwire.domain.schedule import Tier
from bibwire.domain.sweeps import Stream
from bibwire.engine.calls import CallCounter, count_calls
from bibwire.engine.clients import Clients
from bibwire.engine.outages import Outages
from bibwire.engine.planner import urgency_of
from bibwire.engine.reconcile import Reconciled, Reconciler
from bibwire.engine.sweeper import NOBODYS_FAULT, Sweeper, Swept
from bibwire.store import catalog, clocks, reconciliations, runs, schedule, streams
from bibwire.store.catalog import Scope
from bibwire.store.database import Database
from bibwire.store.loader import Outcome
from bibwire.store.partners import Partner, Partners
from bibwire.store.permits import budget_of_partner
from bibwire.store.schedule import Turn

SLICE_SECONDS: Final = 60.0
# A scope that is due again within this time stays with its job.
KEEP_SECONDS: Final = 20.0
BUSY_SECONDS: Final = 3.0
RETRY_SECONDS: Final = 60.0
GONE_AGAIN: Final = timedelta(minutes=10)
# Races that are not hot wait for each other here, so that they never fill the line of calls.
OTHERS_AT_ONCE: Final = 5
# A hot race's poll is tried again by the schedule rather than within the call, so that what is wrong is
# known soon. A delta that is not answered for so long is hardly answered any more; a vendor that is only
# slow gets its full time with every third try.
HOT_RETRY_SECONDS: Final = 5.0
HOT_TIMEOUT_SECONDS: Final = 20.0
FULL_TIME_EVERY: Final = 3
# With the few seconds between two polls of a hot race, its operator hears of it within fifteen.
HOT_SILENT_SECONDS: Final = 6.0

log = structlog.get_logger()


@dataclass(slots=True)
class _Slice:
    """What one slice came to, for its line of sync_history."""

    counter: CallCounter
    outcome: Outcome
    run_id: int | None = None
    error: str | None = None
    failed: bool = False


class Slices:
    """The sweep job."""

    def __init__(
        self,
        *,
        db: Database,
        partners: Partners,
        clients: Clients,
        clock: Clock,
        sweeper: Sweeper,
        outages: Outages,
        wake: Callable[[], Awaitable[None]],
    ) -> None:
        """
        Make the job.

        Args:
            wake: Lets the planner plan at once.
        """
        self._db = db
        self._partners = partners
        self._clients = clients
        self._clock = clock
        self._sweeper = sweeper
        self._outages = outages
        self._wake = wake
        self._telling: set[asyncio.Task[None]] = set()
        # Races whose present call is silent, and those whose last one was and was answered in the end.
        self._silent: set[tuple[int, int]] = set()
        self._slow: set[tuple[int, int]] = set()
        self._others = asyncio.Semaphore(OTHERS_AT_ONCE)
        self._reconciler = Reconciler(db, clock, sweeper)

    async def sweep(self, args: Mapping[str, Any], stopping: asyncio.Event) -> None:
        """
        Poll one scope for at most a minute.

        Args:
            args: `partner_id` and `race_id`.
            stopping: Set when the worker is to leave: the page under way is stored, no other asked for.
        """
        partner_id, race_id = int(args["partner_id"]), int(args["race_id"])
        slice_ = _Slice(count_calls(), Outcome())
        over_at = self._clock.monotonic() + SLICE_SECONDS
        partner = await self._partners.find(partner_id)
        try:
            turn: Turn | None = None
            if partner is not None and partner.paused_at is None:
                turn = await schedule.turn(self._db, partner_id, race_id)
            while partner is not None and turn is not None and not stopping.is_set():
                if turn.tier is None or turn.next_due_at is None:
                    break
                wait = (turn.next_due_at - self._clock.now()).total_seconds()
                if wait > KEEP_SECONDS or self._clock.monotonic() + wait > over_at:
                    break
                if wait > 0 and await self._stopped_in(wait, stopping):
                    break
                turn = await self._poll(slice_, partner, race_id, turn, stopping)
        finally:
            await schedule.let_go(self._db, partner_id, race_id)
            if slice_.run_id is not None:
                await runs.finish(
                    self._db,
                    slice_.run_id,
                    slice_.outcome,
                    calls=slice_.counter.made,
                    error=slice_.error,
                    failed=slice_.failed,
                    now=self._clock.now(),
                )

    async def _stopped_in(self, seconds: float, stopping: asyncio.Event) -> bool:
        """Wait; say whether the worker was told to leave meanwhile."""
        sleep = asyncio.ensure_future(self._clock.sleep(seconds))
        stop = asyncio.ensure_future(stopping.wait())
        try:
            await asyncio.wait((sleep, stop), return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleep.cancel()
            stop.cancel()
        return stopping.is_set()

    async def _poll(
        self, slice_: _Slice, partner: Partner, race_id: int, turn: Turn, stopping: asyncio.Event
    ) -> Turn | None:
        """Poll the scope once and note what became of it; return its next turn, None if it failed."""
        assert turn.tier is not None
        began_at, started = self._clock.now(), self._clock.monotonic()
        scopes = await catalog.live_scopes(self._db, partner.partner_id, now=began_at, race_id=race_id)
        if not scopes:
            self._outages.forget((partner.partner_id, race_id))
            await schedule.close(self._db, partner.partner_id, race_id, now=began_at)
            return None
        [scope] = scopes
        if slice_.run_id is None:
            kind = "delta" if scope.is_loaded else "full"
            if drift.is_due(
                turn.tier, now=began_at, loaded_at=turn.loaded_at, reconciled_at=turn.reconciled_at
            ):
                kind = "reconcile"
            slice_.run_id = await runs.begin(self._db, partner.partner_id, race_id, kind, now=began_at)
        full = await self._is_to_be_listed(partner, scope, turn, began_at)
        with_removed = full or _removed_is_due(turn, began_at)
        only = tuple(Stream) if with_removed else (Stream.PARTICIPANTS,)
        with self._haste(partner, scope, turn, full=full, started=started):
            swept = await self._sweep(partner, scope, turn.tier, only, full, slice_, stopping)
        slice_.outcome.add(swept.outcome)
        if not isinstance(swept.error, NOBODYS_FAULT):
            slice_.error = swept.text or slice_.error
            slice_.failed = swept.error is not None
        key = (partner.partner_id, race_id)
        (self._slow.add if key in self._silent and swept.error is None else self._slow.discard)(key)
        self._silent.discard(key)
        if swept.error is not None:
            read_at = began_at if swept.people_read else None
            await self._note_failure(partner, scope, turn, swept.error, started, read_at)
            return None
        if self._outages.worked(key, partner=partner.name):
            await schedule.try_hot_again(self._db, now=self._clock.now())
            with suppress(BibwireError):  # it plans within seconds anyway
                await self._wake()
        counts = drift.counts_are_due(
            turn.tier, now=began_at, loaded_at=turn.loaded_at, counted_at=turn.counted_at
        )
        if counts and not stopping.is_set():
            await self._hold_against_counts(slice_, partner, scope, stopping)
        return await self._note_success(partner, scope, turn, swept, began_at, with_removed)

    def _haste(
        self, partner: Partner, scope: Scope, turn: Turn, *, full: bool, started: float
    ) -> AbstractContextManager[None]:
        """Give the polls of a hot race up sooner, and say it when the vendor is silent."""
        if turn.tier is not Tier.HOT or full or not scope.is_loaded:
            return nullcontext()

        key = (scope.partner_id, scope.race_id)

        def on_silent() -> None:
            self._silent.add(key)
            telling = asyncio.create_task(self._tell_silence(partner, scope, started))
            self._telling.add(telling)
            telling.add_done_callback(self._telling.discard)

        return in_haste(
            Haste(
                # While it fails each poll is one attempt: the calls are kept for when it works again.
                retry_seconds=0.0 if turn.failures else HOT_RETRY_SECONDS,
                timeout_seconds=(
                    math.inf
                    if turn.failures % FULL_TIME_EVERY == FULL_TIME_EVERY - 1
                    else HOT_TIMEOUT_SECONDS
                ),
                # Who answered late the last time is slow, which is not told with every poll.
                silent_seconds=HOT_SILENT_SECONDS * (2 if key in self._slow else 1),
                on_silent=on_silent,
            )
        )

    async def _tell_silence(self, partner: Partner, scope: Scope, started: float) -> None:
        """Say that the vendor does not answer, before the call is given up."""
        error = VendorUnavailable(f"the vendor has not answered for {HOT_SILENT_SECONDS:g} s")
        key = (scope.partner_id, scope.race_id)
        self._outages.failed(key, error, began_at=started, partner=partner.name)
        with suppress(BibwireError):  # said by whoever works with the database
            await streams.run(self._db, "set_failing", *key, now=self._clock.now(), error=str(error))

    async def _is_to_be_listed(self, partner: Partner, scope: Scope, turn: Turn, now: datetime) -> bool:
        """
        Say whether this poll lists everything again, to find what deltas cannot see.

        A small race costs no more that way than the poll that it is in place of; a large one waits
        for calls that nobody else needs.
        """
        assert turn.tier is not None
        if not scope.is_loaded or not drift.is_due(
            turn.tier, now=now, loaded_at=turn.loaded_at, reconciled_at=turn.reconciled_at
        ):
            return False
        active = await schedule.active(self._db, scope.partner_id, scope.race_id)
        pages = active // self._sweeper.page_size
        if not pages:
            return True
        budget = await budget_of_partner(self._db, scope.partner_id)
        return room(budget, Urgency.RECONCILE) > pages

    async def _hold_against_counts(
        self, slice_: _Slice, partner: Partner, scope: Scope, stopping: asyncio.Event
    ) -> None:
        """Hold a hot race against the vendor's counts, and list it in full where they differ."""
        try:
            async with self._clients.use(partner, Urgency.DELTA) as client:
                if not await self._reconciler.differing(client, scope):
                    return
                found = await self._reconciler.list_all(
                    client,
                    scope,
                    with_counts=False,
                    lease_wait_seconds=0,
                    stopping=stopping.is_set,
                    run_id=slice_.run_id,
                )
                await self._list_teams(client, scope, found, stopping)
        except DatabaseUnavailable:
            raise
        except BibwireError as error:  # the next poll says what is to be said of it
            log.info("counts not compared", action="reconcile", race_id=scope.race_id, error=str(error))
            await reconciliations.note_counted(
                self._db, scope.partner_id, scope.race_id, now=self._clock.now()
            )
            return
        slice_.outcome.add(found.swept.outcome)

    async def _sweep(
        self,
        partner: Partner,
        scope: Scope,
        tier: Tier,
        only: Collection[Stream],
        full: bool,
        slice_: _Slice,
        stopping: asyncio.Event,
    ) -> Swept:
        async with AsyncExitStack() as stack:
            if tier is not Tier.HOT:
                await stack.enter_async_context(self._others)
            using = self._clients.use(partner, urgency_of(tier, loaded=scope.is_loaded))
            try:
                client = await stack.enter_async_context(using)
            except BibwireError as error:
                key, now = (scope.partner_id, scope.race_id), self._clock.now()
                await streams.run(self._db, "set_failing", *key, now=now, error=str(error))
                return Swept(error=error, text=str(error))
            if full:
                over_at = self._clock.monotonic() + SLICE_SECONDS
                found = await self._reconciler.list_all(
                    client,
                    scope,
                    with_counts=False,
                    lease_wait_seconds=0,
                    stopping=lambda: stopping.is_set() or self._clock.monotonic() > over_at,
                    run_id=slice_.run_id,
                )
                await self._list_teams(client, scope, found, stopping)
                return found.swept
            return await self._sweeper.sweep(
                client,
                scope,
                full=False,
                only=only,
                on_page=lambda _: None,
                lease_wait_seconds=0,
                stopping=stopping.is_set,
            )

    async def _list_teams(
        self, client: VendorClient, scope: Scope, found: Reconciled, stopping: asyncio.Event
    ) -> None:
        """List a race's teams after its people; what keeps it from that waits for the next listing."""
        if found.swept.error is not None:
            return
        try:
            await self._reconciler.list_teams(client, scope, found, stopping=stopping.is_set)
        except DatabaseUnavailable:
            raise
        except BibwireError as error:  # the next poll says what is to be said of it
            log.info("teams not listed", action="reconcile", race_id=scope.race_id, error=str(error))

    async def _note_success(
        self,
        partner: Partner,
        scope: Scope,
        turn: Turn,
        swept: Swept,
        began_at: datetime,
        with_removed: bool,
    ) -> Turn | None:
        assert turn.tier is not None
        outcome, now = swept.outcome, self._clock.now()
        # A first load is no sign of how much goes on.
        changes = outcome.changes if scope.is_loaded else 0
        every = turn.poll_every_seconds or turn.tier.seconds
        # A poll cut off before the removed list, and ended now, is as old as its first half.
        polled_at = began_at if swept.people_read else turn.polled_at or began_at
        wait = rules.wait_after_poll(every, changes)
        next_turn = await schedule.record_poll(
            self._db,
            scope.partner_id,
            scope.race_id,
            polled_at=polled_at,
            removed_polled_at=began_at if with_removed or not scope.is_loaded else None,
            rate=rules.rate_after(turn.changes_per_minute, turn.rate_at, changes, now),
            next_due_at=max(now, polled_at + timedelta(seconds=wait)),
            goes_on=wait <= KEEP_SECONDS,
            now=now,
        )
        if partner.failing_since is not None:
            await self._partners.mark_verified(partner)
        if swept.vendor_clock is not None and swept.vendor_clock.differs(turn.vendor_clock):
            await clocks.note(self._db, scope.partner_id, swept.vendor_clock)
        if outcome.changes or swept.text or not scope.is_loaded:
            note = {} if swept.text is None else {"note": swept.text}
            log.info(
                "race polled" if scope.is_loaded else "race loaded",
                action="sweep",
                partner=partner.name,
                race_id=scope.race_id,
                inserted=outcome.inserted,
                updated=outcome.updated,
                removed=outcome.removed,
                **note,
            )
        return next_turn

    async def _note_failure(
        self,
        partner: Partner,
        scope: Scope,
        turn: Turn,
        error: BibwireError,
        started: float,
        read_at: datetime | None,
    ) -> None:
        """
        Say when to try again, and whose fault it was.

        Args:
            started: When the poll began, by the monotonic clock.
            read_at: The same by the clock if registrations were read to the end before it failed.
        """
        assert turn.tier is not None
        now = self._clock.now()
        key = (scope.partner_id, scope.race_id)
        if isinstance(error, Stopped):
            return  # it is due as it was, for whoever comes next
        if isinstance(error, ScopeBusy):
            again_at = now + timedelta(seconds=BUSY_SECONDS)
            await schedule.record_failure(self._db, *key, next_due_at=again_at, now=now, counts=False)
            return
        if isinstance(error, BudgetSpent | Blocked):
            seconds = error.seconds if isinstance(error, BudgetSpent) else error.retry_after_seconds
            again_at = now + timedelta(seconds=seconds or RETRY_SECONDS)
            await schedule.record_failure(
                self._db, *key, next_due_at=again_at, now=now, counts=False, read_at=read_at
            )
        elif isinstance(error, RaceGone):
            # If the list still shows it, it comes back with the list.
            again_at = now + GONE_AGAIN
            await schedule.close(self._db, *key, now=now, discover_by=again_at)
        elif isinstance(error, CallerRefused):
            again_at = now + schedule.PUT_OFF
            await schedule.put_partner_off(self._db, partner.partner_id, until=again_at)
            await schedule.record_failure(self._db, *key, next_due_at=again_at, now=now, counts=False)
        elif isinstance(error, CredentialSealed):
            # Nobody was asked, and another worker may have the key that fits.
            again_at = now + timedelta(seconds=RETRY_SECONDS)
            await schedule.record_failure(self._db, *key, next_due_at=again_at, now=now, counts=False)
        elif isinstance(error, PartnerStopped):
            again_at = now + schedule.PUT_OFF
            if not await self._partners.mark_failing(partner, str(error), until=again_at):
                again_at = now  # the key was replaced: it is due as it was, under the new one
        else:
            slowest = max(turn.tier.seconds, turn.poll_every_seconds or 0)
            longest = math.inf
            if turn.tier is Tier.HOT:
                others = await schedule.failing_hot(self._db, partner.partner_id) - bool(turn.failures)
                longest = rules.probe_seconds(others + 1, partner.calls_per_hour)
                # What the poll itself took is waited already.
                longest = max(1.0, longest - (self._clock.monotonic() - started))
            seconds = rules.wait_after_failure(
                turn.failures + 1, slowest, spread=scope.race_id % 100 / 100, longest=longest
            )
            again_at = now + timedelta(seconds=seconds)
            await schedule.record_failure(self._db, *key, next_due_at=again_at, now=now, read_at=read_at)
            if isinstance(error, EventGone):
                # The list tells whether it is.
                await schedule.discover_by(self._db, *key, by=now + GONE_AGAIN, now=now)
        again = again_at.isoformat(timespec="seconds")
        self._outages.failed(key, error, began_at=started, partner=partner.name, again_at=again)


def _removed_is_due(turn: Turn, now: datetime) -> bool:
    if turn.removed_polled_at is None or turn.removed_every_seconds is None:
        return True
    # Polls come a little early or late: the nearest one takes the removed list along.
    half_a_poll = (turn.poll_every_seconds or 0) / 2
    passed = elapsed(turn.removed_polled_at, now).total_seconds()
    return passed >= turn.removed_every_seconds - half_a_poll
