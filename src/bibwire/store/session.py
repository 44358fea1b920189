"""
This process, as the other processes on the same database see it.

One connection, kept as long as the process works, holds an advisory lock: the others know by
it that the process lives, whatever way it ends.

A process that is frozen (a closed lid, a paused machine) is not dead, and its connection stands.
So a live one gives a sign on it every few seconds, and the server ends a connection that gave
none for `SILENT_SECONDS`; who thaws begins anew under another number.

The places for calls in flight are rows, each with the time when it is free by itself. RunSignup goes
on with the call of a process that died or lost its connection, so a place is free when its call
is over, or when no call can last any longer; not when the connection is gone (decision 12). What
could not be given back while the database was away is given back as soon as it answers.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, LiteralString
from uuid import UUID, uuid4

import psycopg
import structlog
from psycopg import sql
from psycopg.rows import TupleRow

from bibwire.domain.errors import BibwireError, DatabaseCutOff, DatabaseUnavailable
from bibwire.domain.secrets import Secret
from bibwire.store import database
from bibwire.store.database import Database, statements
from bibwire.store.finishing import to_its_end
from bibwire.store.line import Line
from bibwire.store.refusals import translated
from bibwire.store.watched import Watched

# "bibi" in ASCII: advisory locks of instances.
INSTANCE_LOCKS = 0x62696269
# Four signs in it. Less than a job's worker may be silent: when its work is taken over, nothing of
# it is in the way.
SILENT_SECONDS: Final = 20.0
# Of one call: the time-out of the settings, by default.
CALL_SECONDS: Final = 30.0
# A time-out of minutes is for slow networks: others wait no longer for the calls of who died.
MOST_CALL_SECONDS: Final = 60.0
# So long before others may take its place, a call whose place could not be kept is broken off; the
# client lets a call that was sent come to its end for as long.
BROKEN_OFF_BEFORE: Final = 2.0
# As many as one caller may have in flight at most.
MOST_PLACES: Final = 16
# Between two tries to keep a place, or to give it back, while the database is gone.
TRY_AGAIN_SECONDS: Final = 1.0
# Who leaves while the database is gone tries no longer to give places back.
LAST_TRY_SECONDS: Final = 2.0
# A crash of the server takes back what was given back in its last moments, by default 0.6 s.
GIVEN_KEPT: Final = 100

log = structlog.get_logger()


@dataclass(slots=True)
class Place:
    """
    A place for one call in flight, taken at `taken_at` by the event loop's clock, or earlier.

    `is_used`: its call may have been sent. Whoever leaves before that leaves nothing at RunSignup.
    """

    caller_digest: bytes
    call: UUID
    taken_at: float
    is_used: bool = False


class Session:
    """
    This process's standing in the database. Open it with `open_session`.

    Args:
        call_seconds: How long a call may be in flight before its place has to be kept anew.
    """

    def __init__(
        self, conninfo: str, *, silent_seconds: float = SILENT_SECONDS, call_seconds: float = CALL_SECONDS
    ) -> None:
        self._conninfo = conninfo
        self._silent_seconds = silent_seconds
        self._call_seconds = min(call_seconds, MOST_CALL_SECONDS)
        self._connection: Watched | None = None
        self._opening = asyncio.Lock()
        # Callers whose places are known to have rows.
        self._opened: set[tuple[bytes, int]] = set()
        self._lines: dict[Secret, Line] = {}
        # Places whose calls are over: those still to be given back, and the last that were.
        self._owed: dict[UUID, Place] = {}
        self._given: deque[Place] = deque(maxlen=GIVEN_KEPT)
        self._paying: asyncio.Task[None] | None = None
        self.instance = 0

    async def ensure(self) -> int:
        """Return this process's instance number; connect again if the connection was lost."""
        async with self._opening:
            if self._connection is None or self._connection.closed:
                # Not ours before it holds the lock: who is told to leave in between leaves nothing behind.
                self._connection, self.instance = await self._open()
                # It may be after a crash, or on another server that has not seen the last moments.
                self._opened.clear()
                self._owed.update((place.call, place) for place in self._given)
                self._given.clear()
                self._pay_later()
            return self.instance

    async def _open(self) -> tuple[Watched, int]:
        connection = await database.connect(self._conninfo)
        try:
            await connection.execute(
                sql.SQL("SET idle_session_timeout = {}").format(int(self._silent_seconds * 1000))
            )
            await _ask(connection, "lasting")
            while True:
                instance = random.randrange(1, 2**31)
                held = await _ask(connection, "hold_instance", lock_class=INSTANCE_LOCKS, instance=instance)
                if held is not None and held[0]:
                    return connection, instance
        except psycopg.Error as error:
            await connection.close()
            raise translated(error) from None
        except BaseException:
            await connection.close()
            raise

    def line(self, caller: Secret, places: int) -> Line:
        """Return where this process's own calls wait for their turn, so that few ask the database."""
        return self._lines.setdefault(caller, Line(min(places, MOST_PLACES)))

    async def take_place(self, caller: Secret, places: int) -> Place | None:
        """
        Take one of a caller's places for calls in flight; None if all are taken.

        Args:
            caller: Whose calls are limited together, over all processes.
            places: How many may be in flight, at most 16.
        """
        place = Place(digest(caller), uuid4(), asyncio.get_running_loop().time())
        try:
            # To its end even if we are cancelled: a place taken and not known of would be lost for a while.
            return place if await to_its_end(self._take(place, min(places, MOST_PLACES))) else None
        except (asyncio.CancelledError, DatabaseUnavailable):
            # Nobody knows whether it was taken; nothing was sent.
            await to_its_end(self.give_place_back(place))
            raise

    @asynccontextmanager
    async def holding(self, place: Place) -> AsyncIterator[None]:
        """
        Keep a place while its call is in flight, and give it back when the call is over.

        A call that is broken off may not be over for RunSignup: its place is left to run out.

        Raises:
            DatabaseCutOff: The place could not be kept; the call was broken off.
        """
        longest = self._call_seconds - min(BROKEN_OFF_BEFORE, self._call_seconds / 4)
        try:
            async with asyncio.timeout_at(place.taken_at + longest) as limit:
                keeping = asyncio.create_task(self._keep(place, limit, longest))
                try:
                    yield
                finally:
                    keeping.cancel()
        except TimeoutError:
            if not limit.expired() or not place.is_used:
                await to_its_end(self.give_place_back(place))
            if not limit.expired():
                raise
            raise DatabaseCutOff(
                "PostgreSQL cannot be used: a call to RunSignup was broken off, because others might have "
                "taken its place."
            ) from None
        except (asyncio.CancelledError, GeneratorExit):
            if not place.is_used:
                await to_its_end(self.give_place_back(place))
            raise
        except BaseException:
            await to_its_end(self.give_place_back(place))
            raise
        else:
            await to_its_end(self.give_place_back(place))

    async def give_place_back(self, place: Place) -> None:
        """
        Give a place back whose call is over: now, or as soon as the database answers.

        While it does not answer nobody can take one; if we are gone by then, it runs out by itself.
        """
        self._owed[place.call] = place
        try:
            await self._pay()
        except BibwireError as error:
            log.info("a place for a call is given back later", action="place", error=str(error))
            self._pay_later()

    async def _pay(self) -> None:
        """Give back all places that are owed, for all callers at once."""
        owed = list(self._owed.values())
        if not owed:
            return
        await self._asked(
            "give_places_back",
            callers=list({place.caller_digest for place in owed}),
            calls=[place.call for place in owed],
        )
        for place in owed:
            # Another of our calls may have done it meanwhile: twice does no harm.
            if self._owed.pop(place.call, None) is not None:
                self._given.append(place)

    def _pay_later(self) -> None:
        if self._paying is None or self._paying.done():
            self._paying = asyncio.create_task(self._pay_until_done())

    async def _pay_until_done(self) -> None:
        """Give back what is owed, trying until the database answers."""
        while self._owed:
            try:
                await self._pay()
            except BibwireError:
                await asyncio.sleep(TRY_AGAIN_SECONDS)

    async def give_signs(self) -> None:
        """Tell the server every few seconds that we live, until cancelled."""
        while True:
            await asyncio.sleep(self._silent_seconds / 4)
            connection = self._connection
            if connection is None:
                continue
            try:
                await _ask(connection, "sign")
            except psycopg.Error:
                with suppress(DatabaseUnavailable):  # the next sign tries again
                    await self.ensure()

    async def close(self) -> None:
        """Let go of everything."""
        if self._paying is not None:
            self._paying.cancel()
        if self._owed:
            with suppress(DatabaseUnavailable, TimeoutError):
                async with asyncio.timeout(LAST_TRY_SECONDS):
                    await self._pay()
        if self._connection is not None:
            await self._connection.close()

    async def _take(self, place: Place, places: int) -> bool:
        wanted = {
            "caller_digest": place.caller_digest,
            "call": place.call,
            "places": places,
            "instance": await self.ensure(),
            "seconds": self._call_seconds,
        }
        await self._pay()
        taken = await self._asked("take_place", **wanted)
        if taken is None and (place.caller_digest, places) not in self._opened:
            await self._asked("open_places", caller_digest=place.caller_digest, places=places)
            self._opened.add((place.caller_digest, places))
            taken = await self._asked("take_place", **wanted)
        return taken is not None

    async def _keep(self, place: Place, limit: asyncio.Timeout, longest: float) -> None:
        """Keep a place for as long as its call is in flight; `limit` then ends it that much later."""
        clock = asyncio.get_running_loop()
        wait = self._call_seconds / 3
        while True:
            await asyncio.sleep(wait)
            asked_at = clock.time()
            try:
                kept = await self._asked(
                    "keep_place",
                    caller_digest=place.caller_digest,
                    call=place.call,
                    seconds=self._call_seconds,
                )
            except DatabaseUnavailable:
                wait = min(TRY_AGAIN_SECONDS, self._call_seconds / 3)
                continue
            if kept is None:
                return
            wait = self._call_seconds / 3
            limit.reschedule(asked_at + longest)

    async def _asked(self, name: str, **values: Any) -> TupleRow | None:
        """Ask on the session's connection, once more on another one if it was lost meanwhile."""
        for last in (False, True):
            await self.ensure()
            connection = self._connection
            assert connection is not None
            try:
                return await _ask(connection, name, **values)
            except psycopg.Error as error:
                # Lost while nobody used it, or ended because we stood still: that is no outage yet.
                if last or not connection.closed:
                    raise translated(error) from None
        raise AssertionError("the second try returns or raises")


async def _ask(connection: Watched, name: str, **values: Any) -> TupleRow | None:
    statement: LiteralString = statements("session")[name]
    cursor = await connection.execute(statement, values)
    return await cursor.fetchone() if cursor.description else None


def digest(caller: Secret) -> bytes:
    """Return by what the database knows a caller."""
    return hashlib.sha256(caller.reveal().encode()).digest()


@asynccontextmanager
async def open_session(
    conninfo: str, *, silent_seconds: float = SILENT_SECONDS, call_seconds: float = CALL_SECONDS
) -> AsyncIterator[Session]:
    """Open this process's session and close it at the end; arguments as of `Session`."""
    session = Session(conninfo, silent_seconds=silent_seconds, call_seconds=call_seconds)
    await session.ensure()
    signs = asyncio.create_task(session.give_signs())
    try:
        yield session
    finally:
        signs.cancel()
        await session.close()


async def end_frozen(db: Database, *, silent_seconds: float = SILENT_SECONDS) -> int:
    """Free the locks of processes that froze while they sent a page; return how many there were."""
    [[ended]] = await db.fetch(statements("session")["end_frozen"], silent_seconds=silent_seconds)
    return int(ended)
