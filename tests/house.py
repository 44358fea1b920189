"""
A mirror of a simulated world, for tests: the real runtime on a real database and socket.

`House` runs the engine's coroutines one after the other and reads the mirror back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from contextvars import ContextVar
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar

import psycopg
from psycopg.rows import dict_row

import rsusim
from bibwire.domain.secrets import Credential, Secret
from bibwire.engine.reports import SyncReport, SyncRequest
from bibwire.runtime import Runtime, open_runtime
from bibwire.settings import Settings
from bibwire.store.partners import Partner

KEY = "00" * 32
T = TypeVar("T")


# What each task slept: to the others no call lasts longer for it.
_slept: ContextVar[float] = ContextVar("slept", default=0.0)


class WorldClock:
    """The simulated world's time. A sleep takes no real time, and is forgotten but for `monotonic`."""

    def __init__(self, world: rsusim.World) -> None:
        self._world = world

    def now(self) -> datetime:
        return self._world.now

    def monotonic(self) -> float:
        return self._world.now.timestamp() + _slept.get()

    async def sleep(self, seconds: float) -> None:
        _slept.set(_slept.get() + seconds)
        await asyncio.sleep(min(seconds, 0.001))


class House:
    """The mirror under test."""

    def __init__(
        self,
        world: rsusim.World,
        base_url: str,
        database_url: str,
        *,
        page_size: int = 2500,
        **settings: Any,
    ) -> None:
        self.world = world
        self.page_size = page_size
        self.clock = WorldClock(world)
        settings.setdefault("retry_seconds", 5)
        self.settings = Settings(
            database_url=Secret(database_url),
            api_url=base_url,
            secret_key=Secret(KEY),
            **settings,
        )
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self.runtime: Runtime

    def __enter__(self) -> Self:
        self._open()
        self._connection = psycopg.connect(self.runtime.conninfo, autocommit=True, row_factory=dict_row)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        self.run(self._stack.aclose())
        self._runner.close()

    def restart(self) -> None:
        """Close the runtime and open another, as a new process would."""
        self.run(self._stack.aclose())
        self._open()

    def _open(self) -> None:
        opening = open_runtime(self.settings, clock=self.clock, page_size=self.page_size)
        self.runtime = self.run(self._stack.enter_async_context(opening))

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine of the runtime to its end."""
        return self._runner.run(coroutine)

    def add_partner(self, account: rsusim.Account, *, calls_per_hour: int = 1_000_000) -> Partner:
        """Add a partner with the account's name and key."""
        adding = self.runtime.partners.add(
            account.name, self.credential(account), calls_per_hour=calls_per_hour
        )
        return self.run(adding)

    def credential(self, account: rsusim.Account) -> Credential:
        """Return the account's key and secret."""
        return Credential(kind="key", key=Secret(account.api_key), secret=Secret(account.api_secret))

    def sync(self, *, full: bool = False, partner: str | None = None, race: int | None = None) -> SyncReport:
        """Run one sync."""
        return self.run(self.runtime.engine.sync(SyncRequest(partner=partner, race_id=race, full=full)))

    def rows(self, query: str, **values: Any) -> list[dict[str, Any]]:
        """Read the mirror."""
        return self._connection.execute(query.encode(), values).fetchall()

    def participant(self, registration_id: int) -> dict[str, Any]:
        """Return one stored registration."""
        [row] = self.rows(
            "SELECT * FROM bibwire.participants WHERE registration_id = %(i)s", i=registration_id
        )
        return row

    def kinds(self) -> list[str]:
        """Return the kinds of change in the feed, in order."""
        return [r["kind"] for r in self.rows("SELECT kind FROM bibwire.changes ORDER BY partner_id, seq")]

    def bib_changes(self) -> list[tuple[int, int | None, int | None]]:
        """Return registration, bib before and bib after of each bib change, in order."""
        return [
            (r["registration_id"], r["bib_from"], r["bib_to"])
            for r in self.rows("SELECT * FROM bibwire.bib_changes ORDER BY partner_id, seq")
        ]
