"""
Who may ask the database next: one at a time, in the order in which they came.

Two statements that a server works on at the same time take effect in an order that nobody can repeat.
Who waits for a lock of another's is passed over, and so is whoever is frozen or dead.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.seasons.moved import MACHINE, Machine


@dataclass(eq=False)
class _Turn:
    socket: int
    machine: Machine | None
    granted: asyncio.Future[None] = field(default_factory=asyncio.Future)
    waits_for_a_lock: bool = False

    @property
    def runs(self) -> bool:
        return self.machine is None or self.machine.runs


class Turns:
    """
    The turns of one season.

    Args:
        is_blocked: Says of a connection's socket whether the server's process behind it waits for a lock.
    """

    def __init__(self, is_blocked: Callable[[int], bool]) -> None:
        self._is_blocked = is_blocked
        self._asking: list[_Turn] = []
        self._waiting: deque[_Turn] = deque()

    @asynccontextmanager
    async def turn(self, socket: int) -> AsyncIterator[None]:
        """Wait for the turn of a connection, and keep it for one question and its answer."""
        mine = _Turn(socket, MACHINE.get())
        self._waiting.append(mine)
        self.let_next()
        try:
            await mine.granted
            yield
        finally:
            if mine in self._asking:
                self._asking.remove(mine)
            if mine in self._waiting:
                self._waiting.remove(mine)
            self._look_again()
            self.let_next()

    def let_next(self) -> bool:
        """Let the next one ask, if nobody does who can be answered; say whether there was one."""
        if any(each.runs and not each.waits_for_a_lock for each in self._asking):
            return False
        for each in self._waiting:
            if each.runs:
                self._waiting.remove(each)
                self._asking.append(each)
                if not each.granted.done():
                    each.granted.set_result(None)
                return True
        return False

    def pass_over(self, socket: int) -> None:
        """Note that the answer on a connection has to wait for the end of somebody's transaction."""
        for each in self._asking:
            if each.socket == socket:
                each.waits_for_a_lock = True

    def _look_again(self) -> None:
        """What has just been answered may have let others go on: theirs is the next answer."""
        for each in self._asking:
            if each.waits_for_a_lock and each.runs:
                each.waits_for_a_lock = self._is_blocked(each.socket)
