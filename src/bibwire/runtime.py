"""
Builds everything once, from the settings: database, session, client, engine. Closes all.

Settings stop here; what lies below is handed values.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog

from bibwire import logs
from bibwire.api.client import CallMade, VendorClient
from bibwire.api.dates import VendorTime
from bibwire.api.reach import Reach
from bibwire.clock import Clock, DatabaseClock, SystemClock
from bibwire.domain.budget import Urgency, allowed
from bibwire.domain.daily import next_of_day
from bibwire.domain.errors import AccessLost, Blocked, CallsUsedUp, SettingsError
from bibwire.domain.records import Race
from bibwire.domain.secrets import NOBODY, Credential, Secret
from bibwire.domain.sweeps import Lookback
from bibwire.engine import gate
from bibwire.engine.backfill import Backfill
from bibwire.engine.backfill_reports import BackfillProgress, BackfillReport, BackfillRequest
from bibwire.engine.clients import Clients, not_here
from bibwire.engine.discovery import LIST_FROM
from bibwire.engine.nightly import Nightly
from bibwire.engine.outages import Outages
from bibwire.engine.patience import Patience
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
from bibwire.store import clocks, embedded, migrate, schedule
from bibwire.store.database import POOL_CONNECTIONS, Database, open_database, with_time_outs
from bibwire.store.embedded_guard import look_after
from bibwire.store.health import check_access
from bibwire.store.jobs import PLANNER, Jobs
from bibwire.store.partners import Partner, Partners, number_of_credentials
from bibwire.store.permits import Permits, Refusal, Throttling, in_flight, unblock
from bibwire.store.reports import Reports
from bibwire.store.session import Session, open_session
from bibwire.store.vault import MissingKey, Vault, is_key_missing, load_key, why_no_key_is_made

# A worker's at most: its pool, its session, and three of the queue's (two in a pool, one that listens).
WORKER_CONNECTIONS: Final = POOL_CONNECTIONS + 1 + 3

log = structlog.get_logger()


@dataclass(slots=True)
class Runtime:
    """What the commands work with; made by `open_runtime`."""

    settings: Settings
    # The database's time, by which all is decided; the time as this computer has it; the vendor's.
    clock: Clock
    machine: Clock
    vendor_time: VendorTime
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
        caller = caller_of(self.settings)
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

    async def check_access(self) -> None:
        """
        Find out that the database takes no changes from us, before anything is begun.

        Raises:
            DatabaseDenied: It does not; the text says what to do.
        """
        await check_access(self.db)

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
        upkeep = self._upkeep(clients, Outages(self.clock))
        try:
            return await Patience(self.db)(lambda: upkeep.read_list(partner))
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
            computer_ahead=self.computer_ahead,
        )

    def computer_ahead(self) -> float:
        """Return by how many seconds this computer's clock is ahead of the database's."""
        return (self.machine.now() - self.clock.now()).total_seconds()

    async def discover_at_start(self) -> None:
        """Let the workers read every race list at once."""
        await schedule.discover_all(self.db)

    async def wake_planner(self) -> None:
        """Let a worker, if there is one, plan at once instead of within seconds."""
        await self.jobs.wake(PLANNER)

    async def unblock(self, partner: Partner) -> bool:
        """Make calls for a partner again, whatever pause RunSignup asked for; say whether there was one."""
        now = None if self.budget_time is None else self.budget_time()
        lifted = await unblock(self.db, partner.credential_id, caller=caller_of(self.settings), now=now)
        if lifted:
            await self.partners.take_up(partner)
            await self.wake_planner()
        return lifted

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
            vendor_time=self.vendor_time,
        )

    async def check_credential(
        self,
        credential: Credential,
        on_call: Callable[[CallMade], None] | None = None,
        *,
        every_race: bool = False,
        calls_per_hour: int | None = None,
        keep_calls: bool = True,
    ) -> list[int]:
        """
        Try a credential on a method that needs rights; return the races it sees.

        A key can be ignored by public methods, so the participants of one race are asked for.
        These few calls are made before the credential has a budget; who stores it then counts them,
        and where it is not stored they are kept under the key's digest for when it comes back.

        Args:
            on_call: Told of each attempt.
            every_race: Read the race list to its end, instead of its first page.
            calls_per_hour: Calls the credential may make; as the settings say by default.
            keep_calls: Keep the calls of a key that is refused; a dry run writes nothing.

        Raises:
            KeyRefused: The vendor does not accept it.
            AccessLost: It sees races, but may not read the participants of the one tried.
            CallsUsedUp: The key has no calls left in this hour.
            BibwireError: The vendor could not be asked.
        """
        limit = allowed(calls_per_hour or self.settings.calls_per_hour)
        permits = _Unlimited(
            self.session,
            self.clock,
            self.settings,
            most_calls=limit - await self.partners.calls_of_key(credential),
        )
        try:
            return await self._try_credential(credential, permits, on_call, every_race=every_race)
        except BaseException:
            if keep_calls:
                await self.partners.keep_calls(credential, permits.made)
            raise

    async def _try_credential(
        self,
        credential: Credential,
        permits: _Unlimited,
        on_call: Callable[[CallMade], None] | None,
        *,
        every_race: bool,
    ) -> list[int]:
        async with self._client(credential, permits, on_call) as client:
            races: list[Race] = []
            async with aclosing(client.races(start_date=LIST_FROM)) as pages:
                async for page in pages:
                    races += page.races
                    if not every_race:
                        break
            tried = next((race for race in reversed(races) if race.events), None)
            if tried is not None:
                people = client.participants(tried.race_id, [tried.events[0].event_id], page_size=1)
                try:
                    await anext(people, None)
                except AccessLost:
                    raise AccessLost(
                        f"The key sees {len(races)} races, but may not read the participants "
                        f"of race {tried.race_id}: is it the timer's own key?"
                    ) from None
                finally:
                    await people.aclose()
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
            vendor_time=self.vendor_time,
            proxy=self.settings.proxy,
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
                asked_seconds=round(throttling.asked_seconds, 1),
                calls_an_hour=throttling.limit_in_use,
                configured=throttling.limit,
                all_partners_seconds=round(throttling.caller_seconds, 1),
            )

        def on_throttle_over() -> None:
            log.info("RunSignup answers again", action="throttled", partner=partner.name)

        credential = self.settings.partner_override(
            partner.name, partner.kind
        ) or await self.partners.credential(partner)
        logs.hide(each for each in (credential.key, credential.secret) if each is not None)
        permits = Permits(
            self.db,
            self.session,
            self.clock,
            credential_id=partner.credential_id,
            caller=caller_of(self.settings),
            calls_in_flight=self.settings.max_calls_in_flight,
            urgency=urgency,
            waiting=waiting,
            on_throttle=on_throttle,
            on_throttle_over=on_throttle_over,
            now=self.budget_time,
        )
        async with self._client(credential, permits, on_call, may_call) as client:
            yield client


class _Unlimited:
    """Permits for a credential that is not stored yet: so many calls, and those in flight are limited."""

    def __init__(self, session: Session, clock: Clock, settings: Settings, *, most_calls: int) -> None:
        self._most_calls = most_calls
        self.made = 0
        self._session = session
        self._clock = clock
        self._settings = settings
        self._pause_seconds = 0.0

    @asynccontextmanager
    async def permit(self, endpoint: str, *, patience_seconds: float) -> AsyncIterator[float]:
        if self.made >= self._most_calls:
            raise CallsUsedUp("The calls this key may make in an hour are used up: try again in an hour.")
        self.made += 1
        pause, self._pause_seconds = self._pause_seconds, 0.0
        if pause > patience_seconds:
            raise Blocked(
                f"The vendor wants no calls for {pause:,.0f} s: try again then.", retry_after_seconds=pause
            )
        if pause:
            await self._clock.sleep(pause)
        async with in_flight(
            self._session, self._clock, caller_of(self._settings), self._settings.max_calls_in_flight
        ) as place:
            place.is_used = True
            yield pause

    async def throttled(self, reason: str, seconds: float) -> None:
        self._pause_seconds = seconds

    async def answered(self, *, accepted: bool) -> None:
        """Nothing: no call was a careful one."""

    async def record(self, endpoint: str, *, failed: bool, bytes_received: int, seconds: float) -> None:
        """Nothing: there is no credential yet to keep it for."""


async def _open_vault(settings: Settings, db: Database) -> Vault:
    """Return the vault; without a key for what is stored, one that says so when a credential is needed."""
    key, key_file, home = settings.secret_key, settings.secret_key_file, settings.home
    if is_key_missing(key=key, key_file=key_file, home=home) and (stored := await number_of_credentials(db)):
        # A new one would open none of them, and hide that theirs is not there.
        return MissingKey(why_no_key_is_made(home, stored))
    return Vault(load_key(key=key, key_file=key_file, home=home))


def caller_of(settings: Settings) -> Secret:
    """Return whose calls are limited together."""
    return NOBODY if settings.caller is None else settings.caller.registration


@asynccontextmanager
async def open_runtime(
    settings: Settings,
    *,
    clock: Clock | None = None,
    machine: Clock | None = None,
    lookback: Lookback | None = None,
    page_size: int = 2500,
    budget_time: Callable[[], datetime] | None = None,
) -> AsyncIterator[Runtime]:
    """
    Start or reach the database, bring its schema up to date, and build the engine.

    Args:
        settings: As read by `load_settings`.
        clock: For simulations: stands for the database's clock, and for this computer's.
        machine: For tests: this computer's own clock, which may be wrong.
        lookback: How far deltas read back; the design's spans by default.
        page_size: Rows asked for at once; by default the most the vendor allows.
        budget_time: For simulations: the time calls are counted by, instead of the database's.

    Raises:
        SettingsError: Something in the settings cannot be used.
        DatabaseUnavailable: The database cannot be reached, or its schema not brought up to date.
    """
    time = None if clock is None else clock.now
    measured: DatabaseClock | None = None
    if clock is None or machine is not None:
        clock = measured = DatabaseClock(machine or SystemClock())
    machine = machine or (SystemClock() if measured is clock else clock)
    async with AsyncExitStack() as stack:
        if settings.database_url is not None:
            conninfo = with_time_outs(settings.database_url.reveal())
        else:
            server = await asyncio.to_thread(embedded.start, settings.home)
            stack.push_async_callback(asyncio.to_thread, server.close)
            stack.callback(asyncio.create_task(look_after(server)).cancel)
            conninfo = server.conninfo
        await asyncio.to_thread(migrate.upgrade, conninfo)
        db = await stack.enter_async_context(open_database(conninfo, clock=measured, time=time))
        async with db.transaction():
            pass  # the clock is measured
        vendor_time = VendorTime(clock)
        _, data_ahead = await clocks.vendor_ahead(db)
        if data_ahead is not None:
            vendor_time.remember(data_ahead)
        session = await stack.enter_async_context(
            open_session(conninfo, call_seconds=settings.timeout_seconds)
        )
        partners = Partners(
            db,
            await _open_vault(settings, db),
            is_overridden=lambda partner: settings.partner_override(partner.name, partner.kind) is not None,
        )

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
            machine=machine,
            vendor_time=vendor_time,
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
