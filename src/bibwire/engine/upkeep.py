"""Race lists read at their times, and what is counted and cleared away now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import structlog

from bibwire.clock import Clock
from bibwire.domain.budget import Urgency
from bibwire.domain.daily import next_of_day
from bibwire.domain.errors import BibwireError, CallerRefused, DatabaseUnavailable, PartnerStopped
from bibwire.engine.clients import Clients
from bibwire.engine.discovery import discover
from bibwire.store import schedule
from bibwire.store.call_stats import prune
from bibwire.store.database import Database
from bibwire.store.partners import Partner, Partners

MAINTAIN: Final = "maintain"
MAINTAIN_SECONDS: Final = 300.0
AGAIN_AFTER_FAILURE: Final = timedelta(minutes=10)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class DiscoveryTimes:
    """When race lists are read each day, and in which zone."""

    times: Sequence[time]
    zone: ZoneInfo

    def next_after(self, now: datetime, *, any_hot: bool) -> datetime:
        """Return when a partner's race list is read next."""
        daily = next_of_day(self.times, self.zone, now=now)
        return min(daily, now + schedule.HOT_DISCOVERY) if any_hot else daily


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
        self, *, db: Database, partners: Partners, clients: Clients, clock: Clock, times: DiscoveryTimes
    ) -> None:
        self._db = db
        self._partners = partners
        self._clients = clients
        self._clock = clock
        self._times = times

    async def discover(self, args: Mapping[str, Any], stopping: asyncio.Event) -> None:
        """
        Read a partner's race list; new races are planned, and loaded, at once.

        Args:
            args: `partner_id`.
            stopping: Not needed: a list is a call or two.
        """
        partner = await self._partners.find(int(args["partner_id"]))
        if partner is not None and partner.paused_at is None:
            await self.read_list(partner)

    async def read_list(self, partner: Partner) -> Found:
        """Read a partner's race list and note when to read it next; an error is told, not raised."""
        error: str | None = None
        races = 0
        began_at = self._clock.now()
        try:
            async with self._clients.use(partner, Urgency.DELTA) as client:
                found = await discover(self._db, client, self._clock, partner.partner_id)
            races = len(found.race_ids)
        except DatabaseUnavailable:
            raise
        except BibwireError as caught:
            error = str(caught)
            if isinstance(caught, PartnerStopped) and not isinstance(caught, CallerRefused):
                await self._partners.mark_failing(partner, error)
            log.warning("race list not read", action="discover", partner=partner.name, error=error)
        else:
            log.info("race list read", action="discover", partner=partner.name, races=races)
        now = self._clock.now()
        next_at = self._times.next_after(now, any_hot=await schedule.any_hot(self._db, partner.partner_id))
        if error is not None:
            next_at = min(next_at, now + AGAIN_AFTER_FAILURE)
        await schedule.record_discovery(self._db, partner.partner_id, next_at=next_at, error=error, now=now)
        new = await schedule.found_since(self._db, partner.partner_id, since=began_at)
        return Found(partner.name, races, *new, error)

    async def maintain(self, args: Mapping[str, Any], stopping: asyncio.Event) -> None:
        """Count detection lags, and clear away what nobody needs any more."""
        now = self._clock.now()
        await prune(self._db, now)
        await schedule.prune(self._db, now=now)
        await schedule.count_lag(self._db)
