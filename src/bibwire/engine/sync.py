"""
One sync of partners and scopes, each independent of the others.

Scopes are swept a few at a time, which keeps the vendor's places for calls busy while pages
are stored; who waits for its budget lets others have its place. A scope that fails is reported
and the rest go on; a refused key stops its partner; a refused caller registration, or a
database that cannot be used, stops everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from bibwire.api.client import CallMade, VendorClient
from bibwire.clock import Clock
from bibwire.domain.budget import Urgency
from bibwire.domain.clocks import elapsed
from bibwire.domain.errors import (
    BibwireError,
    Blocked,
    CallerRefused,
    DatabaseUnavailable,
    KeyRefused,
    ListingNotTrusted,
    PartnerStopped,
    ScopeBusy,
    SettingsError,
    VendorUnavailable,
    VendorUnreachable,
)
from bibwire.domain.sweeps import FRESH, RESUME_FULL, Stream
from bibwire.engine.calls import count_calls, note_call
from bibwire.engine.discovery import discover
from bibwire.engine.gate import Gate, aside
from bibwire.engine.patience import Patience
from bibwire.engine.reports import SyncError, SyncProgress, SyncReport, SyncRequest, Watch
from bibwire.engine.sweeper import Sweeper
from bibwire.store import catalog, clocks, runs, streams
from bibwire.store.catalog import Scope
from bibwire.store.database import Database, of_partner
from bibwire.store.partners import Partner, Partners

SCOPES_AT_ONCE = 3

Waiting = Callable[[float], AbstractAsyncContextManager[None]]
OpenClient = Callable[
    [Partner, Callable[[CallMade], None], Waiting, Urgency], AbstractAsyncContextManager[VendorClient]
]

log = structlog.get_logger()


@asynccontextmanager
async def _aside(_seconds: float) -> AsyncIterator[None]:
    """Let another scope have our place while we wait for our budget, however long."""
    async with aside():
        yield


@dataclass(slots=True)
class _Run:
    """One sync: what is reported, and who watches."""

    report: SyncReport
    progress: SyncProgress
    watch: Watch | None
    patiently: Patience
    gate: Gate = field(default_factory=lambda: Gate(SCOPES_AT_ONCE))
    refused: CallerRefused | None = None
    out_of_reach: bool = False
    # By partner, the vendor instant at which its race list was read.
    began: dict[int, datetime] = field(default_factory=dict)
    # Races that were synced, or whose failure is told: of partner, race.
    settled: set[tuple[int, int]] = field(default_factory=set)

    def on_call(self, call: CallMade) -> None:
        self.report.calls += call.sent
        self.progress.calls += call.sent
        self.progress.trouble = call.error if not call.sent else None
        note_call(call)
        self.tell()

    def on_page(self, rows: int) -> None:
        self.progress.people += rows
        self.tell()

    def tell(self) -> None:
        if self.watch is not None:
            self.watch(self.progress)

    def failed(self, partner: Partner, race_id: int | None, error: str) -> None:
        self.report.errors.append(SyncError(partner.name, race_id, error))


class SyncEngine:
    """Keeps the mirror of all partners."""

    def __init__(
        self,
        *,
        db: Database,
        partners: Partners,
        open_client: OpenClient,
        clock: Clock,
        sweeper: Sweeper,
    ) -> None:
        self._db = db
        self._partners = partners
        self._open_client = open_client
        self._clock = clock
        self._sweeper = sweeper

    async def sync(self, request: SyncRequest, watch: Watch | None = None) -> SyncReport:
        """
        Make the mirror fresh: discover races, then sweep every scope with live events.

        Args:
            request: What to sync.
            watch: Called with the progress after each call and page.

        Raises:
            SettingsError: The partner or race is unknown, or the partner is paused.
            DatabaseUnavailable: PostgreSQL cannot be used. What was committed stays.
        """
        started = self._clock.monotonic()
        partners = await self.chosen(request.partner)
        patiently = Patience(self._db)
        run = _Run(SyncReport(partners=len(partners)), SyncProgress(partners=len(partners)), watch, patiently)
        knowing = [partner for partner in partners if await self._knows(partner, request.race_id)]
        if knowing:  # a race that is known needs no search under the other partners
            partners = knowing
            run.report.partners = run.progress.partners = len(partners)

        async def one(partner: Partner) -> bool:
            found = True
            try:
                found = await self._sync_partner(run, partner, request)
            except (DatabaseUnavailable, SettingsError):
                raise
            except BibwireError as error:
                await self._note_partner(run, partner, error)
                await self._name_left(run, partner, request, error)
            except Exception as error:  # a fault of ours with one partner must not stop the others
                if await self._partners.find(partner.partner_id) is None:
                    run.failed(partner, None, "The partner was removed meanwhile.")
                else:
                    log.exception("partner failed", action="sync_partner", partner=partner.name)
                    told = f"An unexpected {type(error).__name__} stopped it; see the log."
                    run.failed(partner, None, told)
            finally:
                run.progress.partners_done += 1
                run.tell()
            return found

        found = await _all(*(one(partner) for partner in partners))
        run.report.seconds = self._clock.monotonic() - started
        if request.race_id is not None and not run.report.errors and not any(found):
            raise SettingsError(
                f"No race {request.race_id} is visible to "
                f"{request.partner or 'any partner'}: check the number with 'bibwire status'."
            )
        return run.report

    async def lookup_live(
        self, partner_name: str, race_id: int, bib: int, *, within_seconds: float | None = None
    ) -> SyncReport:
        """
        Ask the vendor who wears a bib (one call), store the answer, then sync the race's changes.

        Args:
            within_seconds: For all of it; what was stored until then stays. None: it takes its time.

        Raises:
            SettingsError: The partner or the race is unknown.
            BibwireError: The vendor could not be asked.
        """
        [partner] = await self.chosen(partner_name)
        if not await self._knows(partner, race_id):
            raise SettingsError(
                f"Race {race_id} is not in the mirror of {partner.name}: run 'bibwire sync' first."
            )
        run = _Run(SyncReport(partners=1), SyncProgress(partners=1), None, Patience(self._db))
        scopes = await catalog.live_scopes(
            self._db, partner.partner_id, now=self._clock.now(), race_id=race_id
        )
        if not scopes:
            raise SettingsError(
                f"Race {race_id} has no event that is still to come or ended within 7 days: "
                "what the mirror holds of it is all there is to look up."
            )
        [scope] = scopes
        try:
            async with (
                asyncio.timeout(within_seconds),
                self._open_client(partner, run.on_call, _aside, Urgency.LIVE) as client,
                self._sweeper.leased(scope) as lease,
            ):
                sync = self._sweeper.scope_sync(client, lease, scope, on_page=run.on_page)
                try:
                    await sync.merge_found(await client.search_bib(race_id, sorted(scope.event_ids), bib))
                except ListingNotTrusted as error:
                    run.report.notes.append(f"The search itself was of no use: {error}.")
                result = await sync.run(full=False)
        except TimeoutError:
            raise VendorUnavailable(f"it took longer than {within_seconds:g} s") from None
        run.report.add(result.outcome)
        return run.report

    async def chosen(self, name: str | None) -> list[Partner]:
        """
        Return the partner of that name, or every active one.

        Raises:
            SettingsError: There is none of that name, or it is paused.
        """
        if name is None:
            return [p for p in await self._partners.list() if p.paused_at is None]
        partner = await self._partners.get(name)
        if partner.paused_at is not None:
            raise SettingsError(f"The partner {partner.name} is paused: 'bibwire partner resume' it first.")
        return [partner]

    async def _knows(self, partner: Partner, race_id: int | None) -> bool:
        if race_id is None:
            return False
        [[known]] = await catalog.run(self._db, "race_known", partner.partner_id, race_id=race_id)
        return bool(known)

    async def _sync_partner(self, run: _Run, partner: Partner, request: SyncRequest) -> bool:
        """Sync one partner. Return whether it has what was asked for."""
        if run.refused is not None:
            raise run.refused
        async with self._open_client(partner, run.on_call, _aside, Urgency.DELTA) as client:
            try:
                found = await run.patiently(
                    lambda: discover(self._db, client, self._clock, partner.partner_id)
                )
            except (DatabaseUnavailable, PartnerStopped, Blocked, VendorUnreachable):
                raise
            except BibwireError as error:
                # What is known is synced all the same.
                await self._note_partner(run, partner, error)
            else:
                run.began[partner.partner_id] = found.answered_at
                if found.unreadable:
                    run.failed(partner, None, f"{found.unreadable} races could not be read; see quarantine.")
                if request.race_id is not None and not await self._knows(partner, request.race_id):
                    return False
            scopes = await run.patiently(
                lambda: catalog.live_scopes(
                    self._db, partner.partner_id, now=self._clock.now(), race_id=request.race_id
                )
            )
            if request.race_id is not None and not scopes:
                run.report.notes.append(
                    f"Race {request.race_id} has no event that is still to come or ended within 7 days."
                )
            run.report.races += len(scopes)
            run.report.events += sum(len(scope.event_ids) for scope in scopes)
            run.progress.races += len(scopes)
            run.tell()
            if request.full and request.race_id is None:
                listed = await run.patiently(lambda: self._begin_full(run, partner, scopes))
                await self._sync_scopes(run, client, partner, scopes, full=True, listed=listed)
                await run.patiently(lambda: catalog.run(self._db, "end_full", partner.partner_id))
            else:
                await self._sync_scopes(run, client, partner, scopes, full=request.full, listed={})
            seen = client.vendor_time.seen()
            if seen is not None:
                await clocks.note(self._db, partner.partner_id, seen)
        return True

    async def _begin_full(self, run: _Run, partner: Partner, scopes: Sequence[Scope]) -> dict[int, datetime]:
        """Begin a full sync, or go on with one; return when each race was listed in it already."""
        now = self._clock.now()
        [since] = of_partner(await catalog.run(self._db, "full_sync_since", partner.partner_id))
        if since is None or elapsed(since, now) > RESUME_FULL:
            await catalog.run(self._db, "begin_full", partner.partner_id, now=now)
            return {}
        rows = await catalog.run(self._db, "scopes_listed_since", partner.partner_id, since=since)
        listed = {race_id: at for race_id, at in rows if elapsed(at, now) <= RESUME_FULL}
        done = sum(scope.race_id in listed for scope in scopes)
        if done:
            run.report.notes.append(
                f"{partner.name}: the full sync begun at {since:%Y-%m-%d %H:%M} UTC goes on; "
                f"{done} of {len(scopes)} races were listed."
            )
        return listed

    async def _sync_scopes(
        self,
        run: _Run,
        client: VendorClient,
        partner: Partner,
        scopes: Sequence[Scope],
        *,
        full: bool,
        listed: dict[int, datetime],
    ) -> None:
        """Sync scopes. `listed`: those of a full sync that only need their changes, if even that."""
        stopped: list[PartnerStopped | Blocked | VendorUnreachable] = []
        verified = False

        async def one(scope: Scope) -> None:
            nonlocal verified
            listed_at = listed.get(scope.race_id)
            if listed_at is not None and elapsed(listed_at, self._clock.now()) < FRESH:
                run.report.races_synced += 1
                run.settled.add((scope.partner_id, scope.race_id))
                return
            async with run.gate.place():
                if stopped or run.refused is not None:
                    return
                try:
                    worked = await self._sync_scope(
                        run, client, partner, scope, full=full and listed_at is None
                    )
                except (PartnerStopped, Blocked, VendorUnreachable) as error:
                    stopped.append(error)
                    return
            if worked and not verified:
                verified = True
                await run.patiently(lambda: self._partners.mark_verified(partner))

        # A queue rather than a task a scope: ten thousand tasks would wait for three places.
        waiting = iter(scopes)

        async def worker() -> bool:
            for scope in waiting:
                await one(scope)
                run.progress.races_done += 1
                run.tell()
            return True

        await _all(*(worker() for _ in range(SCOPES_AT_ONCE)))
        if stopped:
            raise stopped[0]

    async def _sync_scope(
        self, run: _Run, client: VendorClient, partner: Partner, scope: Scope, *, full: bool
    ) -> bool:
        """
        Sync one scope. Return whether the vendor answered for it; report what fails.

        Raises:
            PartnerStopped, Blocked, VendorUnreachable: It concerns the whole partner.
        """
        counter = count_calls()
        kind = "full" if full or not scope.is_loaded else "delta"
        run_id = await run.patiently(
            lambda: runs.begin(self._db, scope.partner_id, scope.race_id, kind, now=self._clock.now())
        )
        swept = await run.patiently(
            lambda: self._sweeper.sweep(client, scope, full=full, on_page=run.on_page)
        )
        outcome, error, text = swept.outcome, swept.error, swept.text
        busy = isinstance(error, ScopeBusy)
        if busy and not full and await self._passed(scope, run.began.get(scope.partner_id)):
            run.report.notes.append(f"Race {scope.race_id} was synced by another process meanwhile.")
            error = text = None
        run.report.add(outcome)
        run.report.notes.extend(swept.notes)
        run.report.races_synced += error is None
        run.report.races_busy += busy and error is not None
        await run.patiently(
            lambda: runs.finish(
                self._db,
                run_id,
                outcome,
                calls=counter.made,
                error=text,
                failed=error is not None and not busy,
                now=self._clock.now(),
            )
        )
        told = {
            "action": "sync_scope",
            "partner": partner.name,
            "race_id": scope.race_id,
            "calls": counter.made,
            "inserted": outcome.inserted,
            "updated": outcome.updated,
            "removed": outcome.removed,
            "quarantined": outcome.quarantined,
        }
        if text is None:
            log.info("race synced", **told)
        else:
            log.warning("race not synced" if error else "race not settled", error=text, **told)
        if isinstance(error, PartnerStopped | Blocked | VendorUnreachable):
            raise error
        run.settled.add((scope.partner_id, scope.race_id))
        if text is not None:
            run.failed(partner, scope.race_id, text)
        return swept.error is None

    async def _passed(self, scope: Scope, began: datetime | None) -> bool:
        """Say whether others made the scope fresh since `began`, a vendor instant in whole seconds."""
        if began is None:
            return False
        for stream in Stream:
            state = await streams.load(self._db, scope.partner_id, scope.race_id, stream)
            # In the same second it may have been before.
            if state.cursor_at is None or state.cursor_at <= began or not state.event_ids >= scope.event_ids:
                return False
        return True

    async def _name_left(
        self, run: _Run, partner: Partner, request: SyncRequest, error: BibwireError
    ) -> None:
        """
        Name the races that were left undone when a partner had to stop.

        Where its key was refused from the beginning, that is all of them, as the partner's own line says.
        """
        scopes = await catalog.live_scopes(
            self._db, partner.partner_id, now=self._clock.now(), race_id=request.race_id
        )
        left = [each.race_id for each in scopes if (each.partner_id, each.race_id) not in run.settled]
        if isinstance(error, Blocked) or len(left) < len(scopes):
            for race_id in left:
                run.failed(partner, race_id, str(error))

    async def _note_partner(self, run: _Run, partner: Partner, error: BibwireError) -> None:
        if isinstance(error, CallerRefused):
            run.refused = error
        elif isinstance(error, KeyRefused):
            await self._partners.mark_failing(partner, str(error))
        # Without a network it is the same for every partner: said once.
        tell = log.info if run.out_of_reach else log.warning
        run.out_of_reach = run.out_of_reach or isinstance(error, VendorUnreachable)
        tell("partner failed", action="sync_partner", partner=partner.name, error=str(error))
        run.failed(partner, None, str(error))


async def _all(*coroutines: object) -> list[bool]:
    """Run together; the first failure cancels the rest and is raised by itself, not in a group."""
    tasks: list[asyncio.Task[bool]] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in coroutines]  # type: ignore[arg-type]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]
