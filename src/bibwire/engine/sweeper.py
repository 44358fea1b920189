"""
One scope swept by this process: its lease, and what an error means for it.

Whoever sweeps holds the scope's lease meanwhile, wherever it was asked for: by a person, or by
the schedule.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import structlog

from bibwire.api.client import VendorClient
from bibwire.clock import Clock
from bibwire.domain.clocks import VendorClock
from bibwire.domain.errors import (
    AccessLost,
    BibwireError,
    Blocked,
    BudgetSpent,
    Collided,
    DatabaseReplaced,
    DatabaseUnavailable,
    LeaseLost,
    RaceGone,
    ScopeBusy,
    Stopped,
)
from bibwire.domain.sweeps import Lookback, Stream
from bibwire.engine.scope import ScopeSync
from bibwire.store import catalog, leases, streams
from bibwire.store.catalog import Scope
from bibwire.store.database import Database
from bibwire.store.finishing import to_its_end
from bibwire.store.leases import Lease
from bibwire.store.loader import Outcome
from bibwire.store.session import Session

LEASE_POLL_SECONDS = 0.5
# What a race, or its partner's key, cannot be blamed for.
NOBODYS_FAULT: Final = (ScopeBusy, BudgetSpent, Blocked, Stopped)

log = structlog.get_logger()


@dataclass(slots=True)
class Swept:
    """
    What a sweep came to.

    `error` is why it ended early; `text` is that, or what stayed open, in one sentence. `listed` are
    the rows that a full listing showed, by event. `people_read`: registrations were read to the end.
    """

    outcome: Outcome = field(default_factory=Outcome)
    notes: list[str] = field(default_factory=list)
    error: BibwireError | None = None
    text: str | None = None
    vendor_clock: VendorClock | None = None
    listed: dict[int, int] = field(default_factory=dict)
    people_read: bool = False


class Sweeper:
    """Sweeps scopes under their leases."""

    def __init__(
        self,
        db: Database,
        session: Session,
        clock: Clock,
        *,
        lookback: Lookback,
        page_size: int,
        lease_wait_seconds: float = 60.0,
    ) -> None:
        self._db = db
        self._session = session
        self._clock = clock
        self._lookback = lookback
        self.page_size = page_size
        self._lease_wait_seconds = lease_wait_seconds

    async def sweep(
        self,
        client: VendorClient,
        scope: Scope,
        *,
        full: bool,
        on_page: Callable[[int], None],
        only: Collection[Stream] = tuple(Stream),
        lease_wait_seconds: float | None = None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> Swept:
        """
        Make a scope fresh and note how it stands; errors are returned, not raised.

        Args:
            full: List everything again.
            only: The streams to sweep; a full sweep takes both.
            lease_wait_seconds: How long to wait for another process that sweeps it.
            stopping: Asked before each page; true ends the sweep there, with `Stopped`.

        Raises:
            DatabaseUnavailable: PostgreSQL cannot be used. What was committed stays.
        """
        swept = Swept()
        key = (scope.partner_id, scope.race_id)
        sync: ScopeSync | None = None
        try:
            async with self.leased(scope, wait_seconds=lease_wait_seconds) as lease:
                sync = self.scope_sync(client, lease, scope, on_page=on_page, stopping=stopping)
                result = await sync.run(full=full, only=only, compare_stored=full)
            swept.text = result.unsettled
            await streams.run(self._db, "works" if swept.text else "works_well", *key)
        except DatabaseUnavailable:
            raise
        except BibwireError as caught:
            swept.error, swept.text = caught, str(caught)
        except Exception as caught:  # a fault of ours in one scope must not stop the others
            log.exception("scope failed", action="sweep", partner_id=scope.partner_id, race_id=scope.race_id)
            swept.error = BibwireError(
                f"An unexpected {type(caught).__name__} stopped this race; see the log."
            )
            swept.text = str(swept.error)
        if sync is not None:
            swept.outcome, swept.notes = sync.result.outcome, sync.result.notes
            swept.vendor_clock, swept.listed = sync.result.vendor_clock, sync.result.listed
            swept.people_read = sync.result.people_read
        await self.note_lost(*key, swept.error)
        if swept.text is not None and not isinstance(
            swept.error, NOBODYS_FAULT
        ):  # nothing is wrong with the race
            await streams.run(self._db, "set_failing", *key, now=self._clock.now(), error=swept.text)
        return swept

    async def note_lost(self, partner_id: int, race_id: int, error: BibwireError | None) -> None:
        """Note that the vendor denies us a race, or does not know it, if that is what an error says."""
        now = self._clock.now()
        if isinstance(error, AccessLost):
            await catalog.lose_access(self._db, partner_id, race_id, now=now)
        if isinstance(error, RaceGone):
            await catalog.run(self._db, "race_gone", partner_id, race_id=race_id, now=now)

    def scope_sync(
        self,
        client: VendorClient,
        lease: Lease,
        scope: Scope,
        *,
        on_page: Callable[[int], None],
        stopping: Callable[[], bool] = lambda: False,
    ) -> ScopeSync:
        """Return the sync of a scope whose lease is held."""
        return ScopeSync(
            self._db,
            client,
            self._clock,
            lease,
            scope,
            lookback=self._lookback,
            page_size=self.page_size,
            on_page=on_page,
            stopping=stopping,
        )

    @asynccontextmanager
    async def leased(self, scope: Scope, *, wait_seconds: float | None = None) -> AsyncIterator[Lease]:
        """
        Hold the lease of a scope, waiting for another process to finish with it.

        Raises:
            ScopeBusy: It did not in time.
        """
        if wait_seconds is None:
            wait_seconds = self._lease_wait_seconds
        deadline = self._clock.monotonic() + wait_seconds
        key = (scope.partner_id, scope.race_id)
        opened = False
        while (lease := await leases.acquire(self._db, self._session, *key)) is None:
            if not opened:
                # Its first sweep, which is rarer than that another process has it.
                await streams.open_scope(self._db, *key)
                opened = True
                continue
            if self._clock.monotonic() >= deadline:
                raise ScopeBusy(
                    f"Race {scope.race_id} has been swept by another process for "
                    f"{wait_seconds:.0f} s: it was left to that one."
                )
            await self._clock.sleep(LEASE_POLL_SECONDS)
        renewing = asyncio.create_task(self._renew(lease))
        try:
            yield lease
        finally:
            renewing.cancel()
            await to_its_end(self._release(lease))

    async def _release(self, lease: Lease) -> None:
        """Give a lease back; where the database is gone, it runs out."""
        try:
            await leases.release(self._db, lease)
        except (DatabaseUnavailable, Collided) as error:
            log.info("a lease runs out by itself", action="lease", race_id=lease.race_id, error=str(error))

    async def _renew(self, lease: Lease) -> None:
        """Renew a lease as long as we live, also after a blip; if it is lost, the next commit says so."""
        wait = leases.RENEW_SECONDS
        while True:
            await asyncio.sleep(wait)
            wait = leases.RENEW_SECONDS
            try:
                async with asyncio.timeout(leases.RENEW_SECONDS):
                    await leases.renew(self._db, lease)
            except (LeaseLost, DatabaseReplaced):
                return
            except (BibwireError, TimeoutError):
                wait = leases.RENEW_AGAIN_SECONDS
