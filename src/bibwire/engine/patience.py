"""
Waits for a database that is away for a while: a server that is started anew costs a long run nothing.

What a person started repeats the piece of work that was cut off. A command repeats as a whole what was
in no such piece (`cli/session.py`), so there is one rule for all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import structlog

from bibwire.domain.errors import DatabaseCutOff, DatabaseDenied, DatabaseGone, DatabaseUnavailable
from bibwire.store.database import Database

# A server that is started anew, or recovers from a crash, is mostly back within that.
PATIENCE_SECONDS: Final = 60.0
PAUSE_SECONDS: Final = 1.0
# A server that answers and fails us each time is not away.
MOST_TRIES: Final = 10
# One that is there and cannot do it, as with a full disk: each try may cost calls to RunSignup.
MOST_TRIES_OF_ONE_THERE: Final = 3

T = TypeVar("T")
log = structlog.get_logger()


class Patience:
    """The patience of one run, shared by all that it does side by side. For what may be done twice."""

    def __init__(self, db: Database, *, seconds: float = PATIENCE_SECONDS) -> None:
        self._db = db
        self._seconds = seconds
        self._waiting = asyncio.Lock()
        # Waited for in vain: nobody waits again.
        self._gone: DatabaseGone | None = None

    async def __call__(self, do: Callable[[], Awaitable[T]]) -> T:
        """
        Do something; if the database goes away meanwhile, do it again once it is back.

        Raises:
            DatabaseDenied: It refuses us, which no wait ends.
            DatabaseGone: It did not come back in time.
        """
        tries = 0
        while True:
            try:
                return await do()
            except (DatabaseDenied, DatabaseGone):
                raise
            except DatabaseUnavailable as error:
                tries += 1
                most = MOST_TRIES if isinstance(error, DatabaseCutOff) else MOST_TRIES_OF_ONE_THERE
                if tries >= most:
                    raise
                async with self._waiting:
                    await self._until_back(error)

    async def _until_back(self, error: DatabaseUnavailable) -> None:
        if self._gone is not None:
            raise self._gone
        clock = asyncio.get_running_loop()
        since, is_told = clock.time(), False
        while True:
            await asyncio.sleep(PAUSE_SECONDS)
            try:
                await self._db.check()
            except DatabaseDenied:
                raise
            except DatabaseUnavailable as still:
                if not is_told:
                    log.warning(
                        "the database is away; waiting for it",
                        action="database",
                        at_most_seconds=round(self._seconds),
                        error=str(still),
                    )
                    is_told = True
                if clock.time() - since > self._seconds:
                    self._gone = DatabaseGone(
                        f"{str(error).rstrip('.')}. It was waited for {self._seconds:g} s. Once it is "
                        "back, run the same command again: what was stored stays, and it goes on from there."
                    )
                    raise self._gone from None
            else:
                if is_told:
                    log.warning(
                        "the database is back", action="database", seconds=round(clock.time() - since)
                    )
                return
