"""Which run a call to the vendor was made for: clients are shared, so the task tells."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from bibwire.api.client import CallMade


@dataclass(slots=True)
class CallCounter:
    """Calls made for one run, retries counted."""

    made: int = 0


_counter: ContextVar[CallCounter | None] = ContextVar("calls", default=None)


def count_calls() -> CallCounter:
    """Begin to count the calls of the present task, and of those it starts."""
    counter = CallCounter()
    _counter.set(counter)
    return counter


def note_call(call: CallMade) -> None:
    """Count a call where somebody counts; one that was never sent is none."""
    counter = _counter.get()
    if counter is not None and call.sent:
        counter.made += 1
