"""
Builds everything once, from the settings: database, session, client, engine. Closes all.

Settings stop here; what lies below is handed values.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog

from bibwire import logs
from bibwire.api.client import CallMade, VendorClient
from bibwire.api.reach import Reach
from bibwire.clock import Clock, SystemClock
from bibwire.domain.budget import Urgency
from bibwire.domain.daily import next_of_day
from bibwire.domain.errors import AccessLost, Blocked, SettingsError
from bibwire.domain.secrets import Credential
from bibwire.domain.sweeps import Lookback
from bibwire.engine import gate
from bibwire.engine.backfill import Backfill
from bibwire.engine.backfill_reports import BackfillProgress, BackfillReport, BackfillRequest
from bibwire.engine.clients import Clients, not_here
from bibwire.engine.discovery import LIST_FROM
from bibwire.engine.nightly import Nightly
from bibwire.engine.outages import Outages
from bibwire.engine.planner import DISCOVER, SWEEP, VERIFY, Planner
from bibwire.engine.reconcile import ReconcileReport, ReconcileRequest, Reconciliation
from bibwire.engine.reports import Watch
from bibwire.engine.slices import Slices
from bibwire.engine.sweeper import Sweeper
from bibwire.engine.sync import SyncEngine, Waiting
from bibwire.engine.upkeep import DiscoveryTimes, Found, Upkeep
from bibwire.engine.verify import Verifier
from bibwire.engine.worker import Worker
from bibwire.settings import Settings
from bibwire.store import embedded, migrate, schedule
from bibwire.store.database import POOL_CONNECTIONS, Database, open_database, with_time_outs
from bibwire.store.jobs import PLANNER, Jobs
from bibwire.store.partners import Partner, Partners
from bibwire.store.permits import Permits, Refusal, Throttling, in_flight
from bibwire.store.reports import Reports
from bibwire.store.session import Session, open_session
from bibwire.store.vault import Vault, load_key

# A worker's at most: its pool, its session, and three of the queue's (two in a pool, one that listens).
WORKER_CONNECTIONS: Final = POOL_CONNECTIONS + 1 + 3

log = structlog.get_logger()


@dataclass(slots=True)
class Runtime:
    """What the commands work with; made by `open_runtime`."""

    settings: Settings
    clock: Clock
    conninfo: str
    db: Database
    session: Session
    partners: Partners
    reports: Reports
    jobs: Jobs
    sweeper: Sweeper
    engine: SyncEngine
    # Rows asked for at once.
    page_size: int
    # What is known of the way to the vendor.
    reach: Reach
    # For simulations: the time the budget is counted by, instead of the database's.
    budget_time: Callable[[], datetime] | None = None
    # Told of a partner whose call has to wait, before it does; what it raises ends the wait.
    on_wait: Callable[[str, Refusal], None] | None = None

    @asynccontextmanager
    async def open_worker(self) -> AsyncIterator[Worker]:
        """Build a worker; it is closed with the last of its calls."""
        clients = Clients(self.open_client, self.clock)
        outages = Outages(self.clock)
        caller = caller_name(self.settings)
        try:
            yield Worker(
                jobs=self.jobs,
                planner=Planner(
                    self.db,
                    self.jobs,
                    self.clock,
                    caller=caller,
                    budget_time=self.budget_time,
                    next_verification=self._next_verification,
                ),
                slices=Slices(
                    db=self.db,
                    partners=self.partners,
                    clients=clients,
                    clock=self.clock,
                    sweeper=self.sweeper,
                    outages=outages,
                    wake=self.wake_planner,
                ),
                upkeep=self._upkeep(clients, outages),
                nightly=Nightly(
                    db=self.db,
                    partners=self.partners,
                    verifier=self.verifier,
                    clock=self.clock,
                    next_verification=self._next_verification,
                ),
            )
        finally:
            await clients.close()

    async def check_connections(self, workers: int) -> None:
        """
        Find out that the server has no room for so many workers' connections.

        Raises:
            SettingsError: It has not.
        """
        # Room for ourselves, and for somebody who looks on.
        room = max(0, await self.reports.connections() - 2 * POOL_CONNECTIONS)
        if workers * WORKER_CONNECTIONS > room:
            raise SettingsError(
                f"{workers} workers may need {workers * WORKER_CONNECTIONS} connections, and this "
                f"PostgreSQL has room for {room}: run at most {room // WORKER_CONNECTIONS} with "
                "--workers, or raise the server's max_connections."
            )

    async def discover(self, partner: Partner) -> Found:
        """Read a partner's race list now; an error is told, not raised."""
        clients = Clients(self.open_client, self.clock)
        try:
            return await self._upkeep(clients, Outages(self.clock)).read_list(partner)
        finally:
            await clients.close()

    async def backfill(
        self, request: BackfillRequest, watch: Callable[[BackfillProgress], None] | None = None
    ) -> BackfillReport:
        """
        Load history; see `Backfill.run`.

        Raises:
            SettingsError: The partner or race is unknown, or the partner is paused.
            DatabaseUnavailable: PostgreSQL cannot be used. What was committed stays.
        """
        partners = await self.engine.chosen(request.partner)
        clients = Clients(self.open_client, self.clock)
        try:
            backfill = Backfill(
                db=self.db,
                partners=self.partners,
                clients=clients,
                clock=self.clock,
                sweeper=self.sweeper,
                budget_time=self.budget_time,
            )
            return await backfill.run(partners, request, watch)
        finally:
            await clients.close()

    async def reconcile(self, request: ReconcileRequest, watch: Watch | None = None) -> ReconcileReport:
        """
        Look for what deltas missed; see `Reconciliation.run`.

        Raises:
            SettingsError: The partner or race is unknown, or the partner is paused.
            DatabaseUnavailable: PostgreSQL cannot be used. What was committed stays.
        """
        partners = await self.engine.chosen(request.partner)
        clients = Clients(self.open_client, self.clock)
        try:
            reconciliation = Reconciliation(
                db=self.db, partners=self.partners, clients=clients, clock=self.clock, sweeper=self.sweeper
            )
            return await reconciliation.run(partners, request, watch)
        finally:
            await clients.close()

    @property
    def verifier(self) -> Verifier:
        """What holds the mirror against the vendor; its calls are those of reconciliation."""

        def open_counted(
            partner: Partner, on_call: Callable[[CallMade], None], may_call: Callable[[], None]
        ) -> AbstractAsyncContextManager[VendorClient]:
            return self.open_client(partner, on_call, not_here, Urgency.RECONCILE, may_call)

        return Verifier(
            db=self.db,
            open_client=open_counted,
            clock=self.clock,
            page_size=self.page_size,
            budget_time=self.budget_time,
        )

    async def discover_at_start(self) -> None:
        """Let the workers read every race list at once."""
        await schedule.discover_all(self.db)

    async def wake_planner(self) -> None:
        """Let a worker, if there is one, plan at once instead of within seconds."""
        await self.jobs.wake(PLANNER)

    async def drop_work(self, partner: Partner) -> None:
        """Take a partner's polls, race lists and verifications out of the queue; what runs ends by itself."""
        await self.jobs.cancel((SWEEP, DISCOVER, VERIFY), {"partner_id": partner.partner_id})

    @property
    def _next_verification(self) -> Callable[[datetime], datetime] | None:
        """When mirrors are verified next, after an instant; None: not by themselves."""
        at, zone = self.settings.verify_at, self.settings.timezone
        return None if at is None else lambda now: next_of_day([at], zone, now=now)

    def _upkeep(self, clients: Clients, outages: Outages) -> Upkeep:
        return Upkeep(
            db=self.db,
            partners=self.partners,
            clients=clients,
            clock=self.clock,
            times=DiscoveryTimes(self.settings.discovery_times, self.settings.timezone),
            outages=outages,
        )

    async def check_credential(
        self, credential: Credential, on_call: Callable[[CallMade], None] | None = None
    ) -> list[int]:
        """
        Try a credential on a method that needs rights; return the races it sees.

        A key can be ignored by public methods, so the participants of one race are asked for.
        These few calls are made before the credential has a budget; who stores it then counts them.

        Args:
            on_call: Told of each attempt.

        Raises:
            KeyRefused: The vendor does not accept it.
            AccessLost: It sees races, but may not read the participants of the one tried.
            BibwireError: The vendor could not be asked.
        """
        async with self._client(
            credential, _Unlimited(self.session, self.clock, self.settings), on_call
        ) as client:
            races = [race async for page in client.races(start_date=LIST_FROM) for race in page.races]
            tried = next((race for race in reversed(races) if race.events), None)
            if tried is not None:
                pages = client.participants(tried.race_id, [tried.events[0].event_id], page_size=1)
                try:
                    await anext(pages, None)
                except AccessLost:
                    raise AccessLost(
                        f"The key sees {len(races)} races, but may not read the participants "
                        f"of race {tried.race_id}: is it the timer's own key?"
                    ) from None
                finally:
                    await pages.aclose()
            return [race.race_id for race in races]

    def _client(
        self,
        credential: Credential,
        permits: Permits | _Unlimited,
        on_call: Callable[[CallMade], None] | None = None,
        may_call: Callable[[], None] | None = None,
    ) -> VendorClient:
        return VendorClient(
            base_url=self.settings.api_url,
            credential=credential,
            caller=self.settings.caller,
            permits=permits,
            clock=self.clock,
            timeout_seconds=self.settings.timeout_seconds,
            retry_seconds=self.settings.retry_seconds,
            on_call=on_call,
            may_call=may_call,
            aside=gate.aside,
            reach=self.reach,
        )

    @asynccontextmanager
    async def open_client(
        self,
        partner: Partner,
        on_call: Callable[[CallMade], None],
        aside: Waiting,
        urgency: Urgency = Urgency.DELTA,
        may_call: Callable[[], None] | None = None,
    ) -> AsyncIterator[VendorClient]:
        """
        Open a client under a partner's credential, which the settings may override.

        Args:
            on_call: Told of each attempt.
            aside: Entered while the budget has no room, or the vendor wants no calls.
            urgency: What the calls are for: how much of the budget they may use.
            may_call: Asked before each attempt; what it raises ends the call.
        """

        @asynccontextmanager
        async def waiting(refusal: Refusal) -> AsyncIterator[None]:
            if self.on_wait is not None:
                self.on_wait(partner.name, refusal)
            if not refusal.again:
                # Whoever is told of it tells it to people.
                (log.warning if self.on_wait is None else log.info)(
                    refusal.reason or "the hour's calls are used up",
                    action="wait",
                    partner=partner.name,
                    urgency=str(urgency),
                    seconds=round(refusal.seconds),
                )
            async with aside(refusal.seconds):
                yield

        def on_throttle(throttling: Throttling) -> None:
            log.warning(
                throttling.reason,
                action="throttled",
                partner=partner.name,
                seconds=round(throttling.seconds, 1),
                calls_an_hour=throttling.limit_in_use,
                configured=throttling.limit,
                all_partners_seconds=round(throttling.caller_seconds, 1),
            )

        credential = self.settings.partner_override(
            partner.name, partner.kind
        ) or await self.partners.credential(partner)
        logs.hide(each for each in (credential.key, credential.secret) if each is not None)
        permits = Permits(
            self.db,
            self.session,
            self.clock,
            credential_id=partner.credential_id,
            caller=caller_name(self.settings),
            calls_in_flight=self.settings.max_calls_in_flight,
            urgency=urgency,
            waiting=waiting,
            on_throttle=on_throttle,
            now=self.budget_time,
        )
        async with self._client(credential, permits, on_call, may_call) as client:
            yield client


class _Unlimited:
    """Permits for a credential that is not stored yet: only the calls in flight are limited."""

    def __init__(self, session: Session, clock: Clock, settings: Settings) -> None:
        self._session = session
        self._clock = clock
        self._settings = settings
        self._pause_seconds = 0.0

    @asynccontextmanager
    async def permit(self, endpoint: str, *, patience_seconds: float) -> AsyncIterator[float]:
        pause, self._pause_seconds = self._pause_seconds, 0.0
        if pause > patience_seconds:
            raise Blocked(
                f"The vendor wants no calls for {pause:,.0f} s: try again then.", retry_after_seconds=pause
            )
        if pause:
            await self._clock.sleep(pause)
        async with in_flight(
            self._session, self._clock, caller_name(self._settings), self._settings.max_calls_in_flight
        ):
            yield pause

    async def throttled(self, reason: str, seconds: float) -> None:
        self._pause_seconds = seconds

    async def record(self, endpoint: str, *, failed: bool, bytes_received: int, seconds: float) -> None:
        """Nothing: there is no credential yet to keep it for."""


def caller_name(settings: Settings) -> str:
    """Return whose calls are limited together; empty without a caller registration."""
    return "" if settings.caller is None else settings.caller.registration.reveal()


@asynccontextmanager
async def open_runtime(
    settings: Settings,
    *,
    clock: Clock | None = None,
    lookback: Lookback | None = None,
    page_size: int = 2500,
    budget_time: Callable[[], datetime] | None = None,
) -> AsyncIterator[Runtime]:
    """
    Start or reach the database, bring its schema up to date, and build the engine.

    Args:
        settings: As read by `load_settings`.
        clock: For tests; the machine's own by default.
        lookback: How far deltas read back; the design's spans by default.
        page_size: Rows asked for at once; by default the most the vendor allows.
        budget_time: For simulations: the time calls are counted by, instead of the database's.

    Raises:
        SettingsError: Something in the settings cannot be used.
        DatabaseUnavailable: The database cannot be reached, or its schema not brought up to date.
    """
    clock = clock or SystemClock()
    async with AsyncExitStack() as stack:
        if settings.database_url is not None:
            conninfo = with_time_outs(settings.database_url.reveal())
        else:
            server = await asyncio.to_thread(embedded.start, settings.home)
            stack.push_async_callback(asyncio.to_thread, server.close)
            conninfo = server.conninfo
        await asyncio.to_thread(migrate.upgrade, conninfo)
        key = load_key(key=settings.secret_key, key_file=settings.secret_key_file, home=settings.home)
        db = await stack.enter_async_context(open_database(conninfo))
        session = await stack.enter_async_context(open_session(conninfo))
        partners = Partners(db, Vault(key))

        def open_client(
            partner: Partner,
            on_call: Callable[[CallMade], None],
            aside: Waiting,
            urgency: Urgency = Urgency.DELTA,
        ) -> AbstractAsyncContextManager[VendorClient]:
            return runtime.open_client(partner, on_call, aside, urgency)

        sweeper = Sweeper(db, session, clock, lookback=lookback or Lookback(), page_size=page_size)
        engine = SyncEngine(db=db, partners=partners, open_client=open_client, clock=clock, sweeper=sweeper)
        runtime = Runtime(
            settings=settings,
            clock=clock,
            conninfo=conninfo,
            db=db,
            session=session,
            partners=partners,
            reports=Reports(db),
            jobs=Jobs(db),
            sweeper=sweeper,
            engine=engine,
            page_size=page_size,
            reach=Reach(clock),
            budget_time=budget_time,
        )
        yield runtime
