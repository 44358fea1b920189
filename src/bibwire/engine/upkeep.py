"""Race lists read at their times, and what is counted and cleared away now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import structlog

from bibwire.api.dates import VendorTime
from bibwire.clock import Clock
from bibwire.domain.budget import Urgency
from bibwire.domain.daily import next_of_day
from bibwire.domain.errors import BibwireError, DatabaseUnavailable, KeyRefused
from bibwire.domain.pace import discovery_seconds
from bibwire.engine.clients import Clients
from bibwire.engine.discovery import Discovered, discover
from bibwire.engine.outages import Outages
from bibwire.store import schedule
from bibwire.store.call_stats import prune
from bibwire.store.database import Database
from bibwire.store.partners import Partner, Partners
from bibwire.store.permits import budget_of_partner

MAINTAIN: Final = "maintain"
MAINTAIN_SECONDS: Final = 300.0
AGAIN_AFTER_FAILURE: Final = timedelta(minutes=5)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class DiscoveryTimes:
    """When all race lists are read each day, and in which zone; between, the lists of coming races are."""

    times: Sequence[time]
    zone: ZoneInfo

    def next_full(self, now: datetime) -> datetime:
        """Return when all of a partner's race lists are read next."""
        return next_of_day(self.times, self.zone, now=now)


@dataclass(frozen=True, slots=True)
class Found:
    """What a reading of a partner's race list found; `error`: why it was not read to its end."""

    partner: str
    races: int
    new_races: int
    new_events: int
    error: str | None


class Upkeep:
    """The discovery and maintenance jobs."""

    def __init__(
        self,
        *,
        db: Database,
        partners: Partners,
        clients: Clients,
        clock: Clock,
        times: DiscoveryTimes,
        outages: Outages,
        vendor_time: VendorTime | None = None,
    ) -> None:
        self._db = db
        self._partners = partners
        self._clients = clients
        self._clock = clock
        self._times = times
        self._outages = outages
        self._vendor_time = vendor_time

    async def discover(self, args: Mapping[str, Any], stopping: asyncio.Event) -> None:
        """
        Read a partner's race list; new races are planned, and loaded, at once.

        Args:
            args: `partner_id`.
            stopping: Not needed: a list is a call or two.
        """
        partner = await self._partners.find(int(args["partner_id"]))
        if partner is not None and partner.paused_at is None:
            full = await schedule.full_list_is_due(self._db, partner.partner_id, now=self._clock.now())
            await self.read_list(partner, everything=full)

    async def read_list(self, partner: Partner, *, everything: bool = True) -> Found:
        """
        Read a partner's race lists and note when to read them next; an error is told, not raised.

        Args:
            everything: All of them, or that of coming races alone.
        """
        error: str | None = None
        read: Discovered | None = None
        began_at, started = self._clock.now(), self._clock.monotonic()
        key = (partner.partner_id, None)
        try:
            async with self._clients.use(partner, Urgency.DELTA) as client:
                read = await discover(
                    self._db, client, self._clock, partner.partner_id, everything=everything
                )
        except DatabaseUnavailable:
            raise
        except BibwireError as caught:
            error = str(caught)
            if isinstance(caught, KeyRefused):
                await self._partners.mark_failing(partner, error)
            self._outages.failed(key, caught, began_at=started, partner=partner.name)
        else:
            if self._outages.worked(key, partner=partner.name):
                await schedule.try_hot_again(self._db, now=self._clock.now())
            # Every 15 minutes is no news.
            (log.info if read.everything else log.debug)(
                "race list read",
                action="discover",
                partner=partner.name,
                races=len(read.race_ids),
                everything=read.everything,
            )
        now = self._clock.now()
        budget = await budget_of_partner(self._db, partner.partner_id)
        await schedule.record_discovery(
            self._db,
            partner.partner_id,
            next_at=now
            + (
                timedelta(seconds=discovery_seconds(budget.limit_ahead))
                if error is None
                else AGAIN_AFTER_FAILURE
            ),
            next_full_at=self._times.next_full(now) if read is not None and read.everything else None,
            error=error,
            note=None if read is None else read.note,
            now=now,
        )
        new = await schedule.found_since(self._db, partner.partner_id, since=began_at)
        return Found(partner.name, 0 if read is None else len(read.race_ids), *new, error)

    async def maintain(self, args: Mapping[str, Any], stopping: asyncio.Event) -> None:
        """Count detection lags, and clear away what nobody needs any more."""
        now = self._clock.now()
        # What is deleted does not come back: it is old by the database's clock and by the vendor's.
        seen = None if self._vendor_time is None else self._vendor_time.seen()
        if seen is not None:
            now += timedelta(seconds=min(seen.date_ahead, 0.0))
            await prune(self._db, now)
            await schedule.prune(self._db, now=now)
        await schedule.count_lag(self._db)
