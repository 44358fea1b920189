"""
How much patience a poll has that people wait for.

A race that is about to start is polled every few seconds, so its poll gives up soon and leaves the
next try to the schedule; and whoever polls it hears that the vendor is silent before the silence ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Haste:
    """
    What calls of a poll may take.

    Args:
        retry_seconds: How long one call is retried at most; 0: it is not.
        timeout_seconds: Of one silence of the vendor, at most.
        silent_seconds: After so long without an answer `on_silent` is called, once a call.
    """

    retry_seconds: float
    timeout_seconds: float
    silent_seconds: float
    on_silent: Callable[[], None]


_present: ContextVar[Haste | None] = ContextVar("haste", default=None)


@contextmanager
def in_haste(haste: Haste) -> Iterator[None]:
    """Make the calls of the present task, and of those it starts, with this patience."""
    token = _present.set(haste)
    try:
        yield
    finally:
        _present.reset(token)


def present() -> Haste | None:
    """Return the patience of the present task; None: that of its client."""
    return _present.get()
