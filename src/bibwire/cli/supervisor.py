"""Starts worker processes, starts again those that end, and ends all of them."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

import structlog

log = structlog.get_logger()

# A worker that lived this long was all right: what ended it gets a quick second chance.
SOUND_SECONDS = 60.0


async def supervise(workers: int, stop: asyncio.Event, *, grace_seconds: float, pause_seconds: float) -> None:
    """
    Keep so many workers running until `stop` is set.

    Args:
        grace_seconds: How long they may take to end.
        pause_seconds: The longest pause before one that keeps ending is started again.
    """
    async with asyncio.TaskGroup() as group:
        for number in range(1, workers + 1):
            group.create_task(_keep(number, stop, grace_seconds, pause_seconds))


async def _keep(number: int, stop: asyncio.Event, grace_seconds: float, pause_seconds: float) -> None:
    loop = asyncio.get_running_loop()
    pause = 1.0
    why: dict[str, object]
    while not stop.is_set():
        started = loop.time()
        try:
            process = await _start()
        # No memory, no processes or no open files left, or the program just being replaced. Where a
        # thread waits for each child, none left is a RuntimeError.
        except (OSError, RuntimeError) as error:
            what, why = "worker not started", {"error": str(error)}
        else:
            log.info("worker started", action="supervise", worker=number, pid=process.pid)
            await _watch(process, stop, grace_seconds)
            if stop.is_set():
                return
            what, why = "worker ended", {"code": process.returncode}
        pause = 1.0 if loop.time() - started > SOUND_SECONDS else min(pause * 2, pause_seconds)
        log.error(what, action="supervise", worker=number, **why, again_in_seconds=pause)
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), pause)


async def _start() -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bibwire", "worker", "--supervised"),
        # It ends when this pipe does, even if we are killed.
        stdin=asyncio.subprocess.PIPE,
        # A Ctrl-C is for us; we tell them.
        start_new_session=True,
    )


async def _watch(process: asyncio.subprocess.Process, stop: asyncio.Event, grace_seconds: float) -> None:
    """Return once the process has ended; end it when `stop` is set."""
    ended = asyncio.create_task(process.wait())
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((ended, stopped), return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            await _end(process, ended, grace_seconds)
    finally:
        stopped.cancel()
        with suppress(ProcessLookupError):
            if process.returncode is None:
                process.kill()


async def _end(process: asyncio.subprocess.Process, ended: asyncio.Task[int], grace_seconds: float) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(ended, grace_seconds)
    except TimeoutError:
        log.warning("worker killed: it did not end in time", action="supervise", pid=process.pid)
        process.kill()
        await process.wait()
