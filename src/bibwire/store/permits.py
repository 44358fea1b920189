"""
The budget of calls, held over all processes by the database.

Per credential never more than its limit, less a margin, in any rolling hour: one-minute
counters by the database's clock, taken under a lock before the call is sent. Per caller never
more than the allowed calls in flight: advisory locks, which a dead process gives back.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

from bibwire.clock import Clock
from bibwire.domain.errors import BibwireError
from bibwire.store.database import Database, statements
from bibwire.store.session import Session

# The vendor's clock is not ours: measured, a callee saw 201 of 200.
MARGIN = 0.02
SLOT_POLL_SECONDS = 0.02
LONGEST_WAIT_SECONDS = 30.0


@asynccontextmanager
async def in_flight(session: Session, clock: Clock, caller: str, calls: int) -> AsyncIterator[None]:
    """Hold one of the caller's places for calls in flight, waiting until one is free."""
    while (slot := await session.take_slot(caller, calls)) is None:
        await clock.sleep(SLOT_POLL_SECONDS)
    try:
        yield
    finally:
        await session.give_slot_back(slot)


class Permits:
    """
    Permits for the calls of one credential.

    Args:
        waiting: Entered, with the seconds it will take at most, while the budget has no room.
    """

    def __init__(
        self,
        db: Database,
        session: Session,
        clock: Clock,
        *,
        credential_id: int,
        caller: str,
        calls_in_flight: int,
        waiting: Callable[[float], AbstractAsyncContextManager[None]] = lambda _: nullcontext(),
    ) -> None:
        self._db = db
        self._session = session
        self._clock = clock
        self._credential_id = credential_id
        self._caller = caller
        self._calls_in_flight = calls_in_flight
        self._waiting = waiting

    @asynccontextmanager
    async def permit(self, endpoint: str) -> AsyncIterator[None]:
        """Wait until one more call may be made, and hold its place while it is in flight."""
        while True:
            # The place comes first: a call counted now must not be sent in a later minute.
            async with in_flight(self._session, self._clock, self._caller, self._calls_in_flight):
                wait = await self._spend()
                if wait is None:
                    yield
                    return
            async with self._waiting(wait):
                await self._clock.sleep(min(max(wait, 1.0), LONGEST_WAIT_SECONDS))

    async def _spend(self) -> float | None:
        """Count one call if the budget has room; else return the seconds until it may have."""
        named = statements("permits")
        values = {"credential_id": self._credential_id}
        async with self._db.transaction() as connection:
            limit = await (await connection.execute(named["lock_budget"], values)).fetchone()
            spent = await (await connection.execute(named["spent"], values)).fetchone()
            assert spent is not None
            if limit is None:
                raise BibwireError("The partner was removed meanwhile.")
            if spent[0] + 1 > max(1, int(limit[0] * (1 - MARGIN))):
                return float(spent[1])
            await connection.execute(named["spend"], values)
            return None
