"""What has to come to its end although whoever asked for it is told to leave: giving something back."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

import structlog

# Who is told to leave waits no longer for it; it goes on as long as the program does.
PATIENCE_SECONDS: Final = 5.0

T = TypeVar("T")
log = structlog.get_logger()
# The event loop itself keeps no task alive.
_unfinished: set[asyncio.Task[Any]] = set()


async def to_its_end(coroutine: Coroutine[Any, Any, T]) -> T:
    """
    Await a coroutine that is not cancelled with us.

    Raises:
        CancelledError: We were cancelled; it has ended by then, or `PATIENCE_SECONDS` are over.
    """
    task = asyncio.create_task(coroutine)
    _unfinished.add(task)
    task.add_done_callback(_unfinished.discard)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(_tell)
        await asyncio.wait([task], timeout=PATIENCE_SECONDS)
        raise


def _tell(task: asyncio.Task[Any]) -> None:
    """Say how it ended that nobody waits for any more."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.info("not given back", action="leave", error=str(error))
