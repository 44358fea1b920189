"""
An event loop in moved time: whole programs run in it, and hours pass in milliseconds.

Time stands still while anybody works. Once nobody has anything to do, and nothing that was asked of
the database is unanswered, it leaps to the next instant for which somebody waits. Everything that
asyncio times is timed so: sleeps, time-outs, leases, what a simulated vendor takes for an answer.

The same program does the same things in the same order each time: answers of the database reach
those who asked in the order in which they asked, and what is handed to threads is done at once. Who
waits for a lock that another holds is passed over; he would wait for ever.

A `Machine` is a process of its own as far as others can tell. It can be frozen, and go on later as if
it had been away, and it can be killed: nothing of it runs any more, and its connections are cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import select
import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, Final, TypeVar, TypeVarTuple

# After so many real seconds without an answer it is looked whether a lock is waited for.
LOCK_SECONDS: Final = 0.02
PATIENCE_SECONDS: Final = 120.0
LONGEST_SECONDS: Final = 900.0
# A leap, so that timers of an instant are not missed by a rounding.
TICK: Final = 1e-6
# asyncio lets timers ring up to a nanosecond early. Who then waits for the rest would do so for ever, for
# time leaps only when nobody is due.
NEVER_EARLY: Final = 1e-8


_Arguments = TypeVarTuple("_Arguments")
_T = TypeVar("_T")


class Machine:
    """What runs in a context with it can be frozen, or killed, together."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.frozen = False
        self.dead = False
        self.tasks: list[asyncio.Task[Any]] = []
        self._parked: list[tuple[Callable[..., object], tuple[Any, ...], contextvars.Context]] = []

    @property
    def runs(self) -> bool:
        return not (self.frozen or self.dead)

    def park(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        """Keep what cannot run now."""
        if not self.dead:
            self._parked.append((callback, args, contextvars.copy_context()))

    def thaw(self) -> None:
        """Go on."""
        self.frozen = False
        loop, parked = asyncio.get_running_loop(), self._parked
        self._parked = []
        for callback, args, context in parked:
            loop.call_soon(callback, *args, context=context)

    def kill(self) -> None:
        """End it as `kill -9` does: no line of it runs any more, and its connections are gone."""
        self.dead = True
        self._parked = []
        for task in self.tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        # Kept for good: as they are thrown away, they would do what they do at their end.
        _GRAVES.append(self.tasks)
        for number in self.sockets:
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(number)) as twin:
                twin.shutdown(socket.SHUT_RDWR)

    @property
    def sockets(self) -> list[int]:
        """The connections that are its own; a number may have been another's, or be another's by now."""
        return [
            number for number, (owner, inode) in _OWNERS.items() if owner is self and _inode(number) == inode
        ]


def _inode(number: int) -> int | None:
    try:
        return os.fstat(number).st_ino
    except OSError:
        return None


# Of each descriptor, who waited on it last, and for what.
_OWNERS: Final[dict[int, tuple[Machine | None, int | None]]] = {}
_GRAVES: Final[list[list[asyncio.Task[Any]]]] = []
MACHINE: Final[contextvars.ContextVar[Machine | None]] = contextvars.ContextVar("machine", default=None)


class _Selector(selectors.DefaultSelector):
    """Waits for the database in the order in which it was asked; otherwise lets the time leap."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers: dict[int, int] = {}
        self._next = 0
        self._current = (-1, 0)
        self.loop: MovedLoop | None = None
        # The connections with the database, which works in processes of its own.
        self.foreign: set[int] = set()
        # Whether the database's process behind a connection waits for a lock.
        self.is_blocked: Callable[[int], bool] = lambda number: False
        # Told of a connection whose answer waits for a lock; and asked to let somebody else ask meanwhile.
        self.on_blocked: Callable[[int], None] = lambda number: None
        self.let_next: Callable[[], bool] = lambda: False

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = super().register(fileobj, events, data)
        # Who has just had an answer, or a part of it, goes on before all others.
        if key.fd != self._current[0]:
            self._next += 1
        self._numbers[key.fd] = self._current[1] if key.fd == self._current[0] else self._next
        if _is_unix(key.fd):
            self.foreign.add(key.fd)
        machine = MACHINE.get()
        if machine is not None or key.fd in _OWNERS:
            _OWNERS[key.fd] = machine, _inode(key.fd)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        key = super().unregister(fileobj)
        self._numbers.pop(key.fd, None)
        self.foreign.discard(key.fd)
        return key

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert self.loop is not None
        if timeout == 0:
            return []  # who has something to do does it first, whatever has arrived meanwhile
        if near := self._near():
            return near
        for key in self._asked():
            # The first that was asked is answered first, but for who waits for a lock of another's.
            if (answer := self._answer_to(key)) is not None:
                self._current = (key.fd, self._numbers[key.fd])
                return answer
        # What was sent on this machine arrives at once, or nearly.
        if near := self._near():
            return near
        if self.let_next():
            return []
        if timeout is None:
            raise RuntimeError("nobody waits for anything any more")
        self.loop.leap(timeout)
        return []

    def _near(self) -> list[tuple[selectors.SelectorKey, int]]:
        """Return the first of what arrived from within this process."""
        return [each for each in self._ready(0) if each[0].fd not in self.foreign][:1]

    def _ready(self, timeout: float) -> list[tuple[selectors.SelectorKey, int]]:
        ready = [each for each in super().select(timeout) if self._may_run(each[0])]
        return sorted(ready, key=lambda each: self._numbers[each[0].fd])

    def _asked(self) -> list[selectors.SelectorKey]:
        """Return the connections on which the database owes an answer to somebody who runs, in order."""
        asked = [key for key in self.get_map().values() if key.fd in self.foreign and self._may_run(key)]
        return sorted(asked, key=lambda key: self._numbers[key.fd])

    def _answer_to(self, key: selectors.SelectorKey) -> list[tuple[selectors.SelectorKey, int]] | None:
        """Wait for the answer on a connection; None: it has to wait for somebody else's end."""
        poll, until = select.poll(), time.monotonic() + PATIENCE_SECONDS
        poll.register(key.fd, _poll_events(key.events))
        while not poll.poll(LOCK_SECONDS * 1000):
            if self.is_blocked(key.fd):
                self.on_blocked(key.fd)
                return None
            if time.monotonic() > until:
                raise TimeoutError("the database does not answer")
        return [each for each in self._ready(0) if each[0].fd == key.fd] or [(key, key.events)]

    @staticmethod
    def _may_run(key: selectors.SelectorKey) -> bool:
        for handle in key.data or ():
            machine: Machine | None = None if handle is None else handle._context.get(MACHINE)
            if machine is not None:
                return machine.runs
        return True


class MovedLoop(asyncio.SelectorEventLoop):
    """
    The loop.

    Args:
        on_leap: Told by how many seconds the time leaps, before it is the later time.
    """

    def __init__(self, on_leap: Callable[[float], None] = lambda seconds: None) -> None:
        selector = _Selector()
        super().__init__(selector)
        selector.loop = self
        selector.foreign.clear()  # what wakes the loop itself
        self.selector = selector
        self._instant = 0.0
        self._on_leap = on_leap
        self.leaps = 0
        # By the computer's clock; a season that is still going on then goes round in circles.
        self.ends_at = time.monotonic() + LONGEST_SECONDS

    def time(self) -> float:
        return self._instant

    def leap(self, seconds: float) -> None:
        """Let so much time pass."""
        if time.monotonic() > self.ends_at:
            raise TimeoutError(f"{self.leaps:,} leaps, and no end: {_waiting(self)}")
        self._on_leap(seconds + TICK)
        self._instant += seconds + TICK
        self.leaps += 1

    def call_soon(
        self,
        callback: Callable[[*_Arguments], object],
        *args: *_Arguments,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        return super().call_soon(_guarded(callback), *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*_Arguments], object],
        *args: *_Arguments,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        return super().call_at(when + NEVER_EARLY, _guarded(callback), *args, context=context)

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = super().create_task(coro, **options)
        machine = (options.get("context") or contextvars.copy_context()).get(MACHINE)
        if machine is not None:
            machine.tasks.append(task)
        return task

    def run_in_executor(
        self,
        executor: Executor | None,
        func: Callable[[*_Arguments], _T],
        *args: *_Arguments,
    ) -> asyncio.Future[_T]:
        future: asyncio.Future[_T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


def _waiting(loop: MovedLoop) -> str:
    """Tell where some tasks stand."""
    stacks = [task.get_stack(limit=1) for task in asyncio.all_tasks(loop)]
    places = Counter(f"{frame.f_code.co_qualname}:{frame.f_lineno}" for stack in stacks for frame in stack)
    return ", ".join(f"{place} ({number})" for place, number in places.most_common(12))


def _guarded(callback: Callable[[*_Arguments], object]) -> Callable[[*_Arguments], object]:
    def run(*args: *_Arguments) -> None:
        machine = MACHINE.get()
        if machine is None or machine.runs:
            callback(*args)
        else:
            machine.park(callback, args)

    return run


def _poll_events(events: int) -> int:
    wanted = select.POLLIN if events & selectors.EVENT_READ else 0
    return wanted | (select.POLLOUT if events & selectors.EVENT_WRITE else 0)


def _is_unix(number: int) -> bool:
    try:
        with socket.socket(fileno=os.dup(number)) as twin:
            return twin.family == socket.AF_UNIX
    except OSError:
        return False
