"""
So many pieces of work at once, each from its call until what the call brought is stored.

A process that dies so loses an answer a place at most. Who only waits, for calls or after a failure,
lets others have its place meanwhile: a partner the vendor fails must not hold up the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar


class Gate:
    """A number of places, taken in the order they are asked for."""

    def __init__(self, places: int) -> None:
        self._free = asyncio.Semaphore(places)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold a place in the present task, and the tasks it starts, as soon as one is free."""
        place = _Place(self._free)
        await place.take()
        token = _present.set(place)
        try:
            yield
        finally:
            _present.reset(token)
            place.leave()


class _Place:
    """A place of one task and of those it started: taken once, however many of them come back to it."""

    def __init__(self, free: asyncio.Semaphore) -> None:
        self._free = free
        self._taken = False
        self._taking = asyncio.Lock()

    async def take(self) -> None:
        async with self._taking:
            if not self._taken:
                await self._free.acquire()
                self._taken = True

    def leave(self) -> None:
        if self._taken:
            self._taken = False
            self._free.release()


_present: ContextVar[_Place | None] = ContextVar("place", default=None)


@asynccontextmanager
async def aside() -> AsyncIterator[None]:
    """
    Let others have the place of the present task while it waits, if it has one.

    What ends the wait by an error does not take the place again: the task leaves anyway.
    """
    place = _present.get()
    if place is None:
        yield
        return
    place.leave()
    yield
    await place.take()
