"""
Work on a vendor's answer, done beside the event loop.

What an answer holds decides how long it takes to be read, and the loop has races to poll meanwhile. So
it is read in a thread. That alone is not enough: one call into the parser holds the interpreter to its
end, so each is small (`exact.is_bounded`, `outline.is_light`); and a thread cannot be ended from
outside, so whatever goes over many rows calls `step`, by which it ends when nobody waits for it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Final, TypeVar

_T = TypeVar("_T")

_unwanted: Final[ContextVar[threading.Event | None]] = ContextVar("unwanted", default=None)


class _Unwanted(Exception):
    """Nobody waits for the result any more."""


def step() -> None:
    """Leave the work that is done `apart` if nobody waits for its result any more."""
    unwanted = _unwanted.get()
    if unwanted is not None and unwanted.is_set():
        raise _Unwanted


async def apart(work: Callable[[], _T]) -> _T:
    """Do it in a thread, and return what it returns."""
    unwanted = threading.Event()
    token = _unwanted.set(unwanted)
    try:
        return await asyncio.to_thread(work)
    finally:
        unwanted.set()
        _unwanted.reset(token)
