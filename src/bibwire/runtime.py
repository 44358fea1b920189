"""
Builds everything once, from the settings: database, session, client, engine. Closes all.

Settings stop here; what lies below is handed values.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import structlog

from bibwire import logs
from bibwire.api.client import CallMade, VendorClient
from bibwire.clock import Clock, SystemClock
from bibwire.domain.errors import AccessLost
from bibwire.domain.secrets import Credential
from bibwire.domain.sweeps import Lookback
from bibwire.engine.discovery import LIST_FROM
from bibwire.engine.sweeper import Sweeper
from bibwire.engine.sync import SyncEngine, Waiting
from bibwire.settings import Settings
from bibwire.store import embedded, migrate
from bibwire.store.database import Database, open_database
from bibwire.store.partners import Partner, Partners
from bibwire.store.permits import Permits, in_flight
from bibwire.store.reports import Reports
from bibwire.store.session import Session, open_session
from bibwire.store.vault import Vault, load_key

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
    sweeper: Sweeper
    engine: SyncEngine

    async def check_credential(self, credential: Credential) -> list[int]:
        """
        Try a credential on a method that needs rights; return the races it sees.

        A key can be ignored by public methods, so the participants of one race are asked for.
        These few calls are made before the credential has a budget.

        Raises:
            KeyRefused: The vendor does not accept it.
            AccessLost: It sees races, but may not read the participants of the one tried.
            BibwireError: The vendor could not be asked.
        """
        async with self._client(credential, _Unlimited(self.session, self.clock, self.settings)) as client:
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
        )

    @asynccontextmanager
    async def open_client(
        self, partner: Partner, on_call: Callable[[CallMade], None], aside: Waiting
    ) -> AsyncIterator[VendorClient]:
        """
        Open a client under a partner's credential, which the settings may override.

        Args:
            on_call: Told of each attempt.
            aside: Entered while the budget has no room.
        """

        @asynccontextmanager
        async def waiting(seconds: float) -> AsyncIterator[None]:
            log.warning(
                "the hour's calls are used up", action="wait", partner=partner.name, seconds=round(seconds)
            )
            async with aside(seconds):
                yield

        credential = self.settings.partner_override(
            partner.name, partner.kind
        ) or await self.partners.credential(partner)
        logs.hide(each for each in (credential.key, credential.secret) if each is not None)
        permits = Permits(
            self.db,
            self.session,
            self.clock,
            credential_id=partner.credential_id,
            caller=_caller_name(self.settings),
            calls_in_flight=self.settings.max_calls_in_flight,
            waiting=waiting,
        )
        async with self._client(credential, permits, on_call) as client:
            yield client


class _Unlimited:
    """Permits for a credential that is not stored yet: only the calls in flight are limited."""

    def __init__(self, session: Session, clock: Clock, settings: Settings) -> None:
        self._session = session
        self._clock = clock
        self._settings = settings

    @asynccontextmanager
    async def permit(self, endpoint: str) -> AsyncIterator[None]:
        async with in_flight(
            self._session, self._clock, _caller_name(self._settings), self._settings.max_calls_in_flight
        ):
            yield


def _caller_name(settings: Settings) -> str:
    return "" if settings.caller is None else settings.caller.registration.reveal()


@asynccontextmanager
async def open_runtime(
    settings: Settings,
    *,
    clock: Clock | None = None,
    lookback: Lookback | None = None,
    page_size: int = 2500,
) -> AsyncIterator[Runtime]:
    """
    Start or reach the database, bring its schema up to date, and build the engine.

    Args:
        settings: As read by `load_settings`.
        clock: For tests; the machine's own by default.
        lookback: How far deltas read back; the design's spans by default.
        page_size: Rows asked for at once; by default the most the vendor allows.

    Raises:
        SettingsError: Something in the settings cannot be used.
        DatabaseUnavailable: The database cannot be reached, or its schema not brought up to date.
    """
    clock = clock or SystemClock()
    async with AsyncExitStack() as stack:
        if settings.database_url is not None:
            conninfo = settings.database_url.reveal()
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
            partner: Partner, on_call: Callable[[CallMade], None], aside: Waiting
        ) -> AbstractAsyncContextManager[VendorClient]:
            return runtime.open_client(partner, on_call, aside)

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
            sweeper=sweeper,
            engine=engine,
        )
        yield runtime
