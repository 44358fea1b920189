"""Waits for a database that is away for a while: a server that is started anew costs a long run nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import structlog

from bibwire.domain.errors import DatabaseDenied, DatabaseUnavailable

# A server that is started anew, or recovers from a crash, is mostly back within that.
PATIENCE_SECONDS: Final = 60.0
PAUSE_SECONDS: Final = 1.0

T = TypeVar("T")
log = structlog.get_logger()


class Patience:
    """The patience of one run, shared by all that it does side by side. For what may be done twice."""

    def __init__(self, *, seconds: float = PATIENCE_SECONDS) -> None:
        self._seconds = seconds
        self._away_since: float | None = None

    async def __call__(self, do: Callable[[], Awaitable[T]]) -> T:
        """
        Do something, again and again while the database is away.

        Raises:
            DatabaseUnavailable: It has been for too long, or refuses us, which no wait ends.
        """
        clock = asyncio.get_running_loop()
        while True:
            try:
                result = await do()
            except DatabaseDenied:
                raise
            except DatabaseUnavailable as error:
                if self._away_since is None:
                    self._away_since = clock.time()
                    log.warning(
                        "the database is away; waiting for it",
                        action="database",
                        at_most_seconds=round(self._seconds),
                        error=str(error),
                    )
                elif clock.time() - self._away_since > self._seconds:
                    raise
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                if self._away_since is not None:
                    away = clock.time() - self._away_since
                    self._away_since = None
                    log.warning("the database is back", action="database", seconds=round(away))
                return result
