"""
Open clients to the vendor, kept for the polls to come and closed when there are none.

One a partner and urgency: the next poll of a hot race finds its connection open. With thousands
of partners not all of them can stay open, so those that idle are closed, and the longest idle
first where there are too many; none is while it is in use.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from bibwire.api.client import VendorClient
from bibwire.clock import Clock
from bibwire.domain.budget import Urgency
from bibwire.domain.errors import BudgetSpent
from bibwire.engine.calls import note_call
from bibwire.engine.gate import aside
from bibwire.engine.sync import OpenClient
from bibwire.store.partners import Partner

# Longer waits for the budget are left to the planner.
PATIENCE_SECONDS: Final = 5.0
# Longer than between two polls of a race that is hot, or near one.
IDLE_SECONDS: Final = 300.0
# As many as a worker polls races at once; each holds a connection or two.
MOST_OPEN: Final = 100

_Key = tuple[int, Urgency]


@asynccontextmanager
async def not_here(seconds: float) -> AsyncIterator[None]:
    """Leave a long wait for the budget to the schedule: a worker's place is for those who have calls."""
    if seconds > PATIENCE_SECONDS:
        raise BudgetSpent("No call may be made at present.", seconds=seconds)
    async with aside():
        yield


@dataclass(slots=True, eq=False)
class _Open:
    """An open client. `idle_since`: by the monotonic clock, when its last user was done."""

    credential: object
    client: VendorClient
    closing: AsyncExitStack
    users: int = 0
    idle_since: float = 0.0


class Clients:
    """The clients of one worker."""

    def __init__(self, open_client: OpenClient, clock: Clock, *, most_open: int = MOST_OPEN) -> None:
        self._open_client = open_client
        self._clock = clock
        self._most_open = most_open
        # Least recently used first.
        self._open: dict[_Key, _Open] = {}
        # Under keys that were replaced while in use.
        self._replaced: set[_Open] = set()
        self._changing = asyncio.Lock()

    @asynccontextmanager
    async def use(self, partner: Partner, urgency: Urgency) -> AsyncIterator[VendorClient]:
        """
        Lend the client of a partner's credential, opening it if need be.

        Raises:
            BibwireError: The credential cannot be read.
        """
        key = (partner.partner_id, urgency)
        async with self._changing:
            used = await self._opened(key, partner)
            used.users += 1
            self._open[key] = self._open.pop(key)
            await self._close_idle()
        try:
            yield used.client
        finally:
            used.users -= 1
            used.idle_since = self._clock.monotonic()
            if not used.users and used in self._replaced:
                self._replaced.discard(used)
                await used.closing.aclose()

    async def close(self) -> None:
        """Close all of them."""
        everything = [*self._open.values(), *self._replaced]
        self._open.clear()
        self._replaced.clear()
        for each in everything:
            await each.closing.aclose()

    async def _opened(self, key: _Key, partner: Partner) -> _Open:
        credential = (partner.credential_id, partner.fingerprint, partner.rotated_at)
        known = self._open.get(key)
        if known is not None and known.credential == credential:
            return known
        closing = AsyncExitStack()
        opening = self._open_client(partner, note_call, not_here, key[1])
        opened = _Open(credential, await closing.enter_async_context(opening), closing)
        self._open[key] = opened
        if known is not None and known.users:
            self._replaced.add(known)
        elif known is not None:
            await known.closing.aclose()
        return opened

    async def _close_idle(self) -> None:
        now = self._clock.monotonic()
        for key, each in list(self._open.items()):
            too_many = len(self._open) > self._most_open
            if not each.users and (too_many or now - each.idle_since > IDLE_SECONDS):
                del self._open[key]
                await each.closing.aclose()
