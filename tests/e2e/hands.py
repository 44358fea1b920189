"""
Who does a simulation's jobs: runtimes of this process, or worker processes of their own.

A worker process reads jobs from its standard input and says on its standard output when one is done,
a line of JSON each. Its clock is the simulation's: the instant stands in a file both map, and a sleep
is told to the simulation, which wakes the sleeper when time has leapt that far.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import mmap
import os
import struct
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol
from zoneinfo import ZoneInfo

from bibwire import logs
from bibwire.engine.clients import Clients
from bibwire.engine.outages import Outages
from bibwire.engine.planner import DISCOVER, SWEEP
from bibwire.engine.slices import Slices
from bibwire.engine.upkeep import DiscoveryTimes, Upkeep
from bibwire.runtime import Runtime, open_runtime
from bibwire.settings import Settings, load_settings

Job = Callable[[dict[str, Any], asyncio.Event], Awaitable[None]]
ROOT: Final = Path(__file__).parent.parent.parent
SLEEP_NOT_AT_ALL: Final = 0.001
PATIENCE_SECONDS: Final = 10


class Hands(Protocol):
    async def do(self, task: str, args: dict[str, Any], stopping: asyncio.Event) -> None:
        """Do a job to its end."""


class Sleeping(Protocol):
    """What hands elsewhere need of the simulation's clock."""

    async def sleep_until(self, instant: float) -> None:
        """Sleep until an instant, in epoch seconds."""


class Instant:
    """Where the time stands, in a file that several processes map."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 8)

    def set(self, seconds: float) -> None:
        self._map[:] = struct.pack("d", seconds)

    def get(self) -> float:
        return float(struct.unpack("d", self._map[:])[0])


class RuntimeHands:
    """A runtime's own jobs, as a worker of it has them."""

    def __init__(self, runtime: Runtime, clients: Clients) -> None:
        outages = Outages(runtime.clock)
        slices = Slices(
            db=runtime.db,
            partners=runtime.partners,
            clients=clients,
            clock=runtime.clock,
            sweeper=runtime.sweeper,
            outages=outages,
            wake=runtime.wake_planner,
        )
        upkeep = Upkeep(
            db=runtime.db,
            partners=runtime.partners,
            clients=clients,
            clock=runtime.clock,
            times=DiscoveryTimes(runtime.settings.discovery_times, ZoneInfo("America/New_York")),
            outages=outages,
        )
        self._jobs: dict[str, Job] = {SWEEP: slices.sweep, DISCOVER: upkeep.discover}

    async def do(self, task: str, args: dict[str, Any], stopping: asyncio.Event) -> None:
        await self._jobs[task](args, stopping)


@asynccontextmanager
async def runtime_hands(runtime: Runtime) -> AsyncIterator[RuntimeHands]:
    """Hands in this process; their clients are closed at the end."""
    clients = Clients(runtime.open_client, runtime.clock)
    try:
        yield RuntimeHands(runtime, clients)
    finally:
        await clients.close()


class ProcessHands:
    """A worker process. Open it with `process_hands`."""

    def __init__(self, process: asyncio.subprocess.Process, clock: Sleeping) -> None:
        self._process = process
        self._clock = clock
        self._numbers = itertools.count()
        self._doing: dict[int, asyncio.Future[None]] = {}
        self._asleep: dict[int, asyncio.Task[None]] = {}

    async def do(self, task: str, args: dict[str, Any], stopping: asyncio.Event) -> None:
        """Do a job in the process, which is not told of `stopping`."""
        number = next(self._numbers)
        self._doing[number] = asyncio.get_running_loop().create_future()
        self._say(do=number, task=task, args=args)
        try:
            await self._doing[number]
        finally:
            del self._doing[number]

    async def listen(self) -> None:
        """Take what the process says, until it leaves."""
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            match json.loads(line):
                case {"sleep": number, "until": until}:
                    self._asleep[number] = asyncio.create_task(self._sleep(number, until))
                case {"cancelled": number}:
                    if (task := self._asleep.pop(number, None)) is not None:
                        task.cancel()
                case {"done": number, "error": error}:
                    future = self._doing.get(number)
                    if future is None or future.done():
                        pass
                    elif error is None:
                        future.set_result(None)
                    else:
                        future.set_exception(RuntimeError(error))
        for future in self._doing.values():
            if not future.done():
                future.set_exception(RuntimeError("The worker process ended."))

    async def _sleep(self, number: int, until: float) -> None:
        await self._clock.sleep_until(until)
        del self._asleep[number]
        self._say(wake=number)

    def _say(self, **what: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what).encode() + b"\n")


@asynccontextmanager
async def process_hands(settings: Settings, clock: Sleeping, instant: Path) -> AsyncIterator[ProcessHands]:
    """
    Start a worker process on the settings' database and vendor; it ends with the context.

    Args:
        instant: The file of the simulation's `Instant`.
    """
    assert settings.database_url is not None
    assert settings.secret_key is not None
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.e2e.hands",
        str(instant),
        cwd=ROOT,
        env=os.environ
        | {
            "BIBWIRE_DATABASE_URL": settings.database_url.reveal(),
            "BIBWIRE_API_URL": settings.api_url,
            "BIBWIRE_SECRET_KEY": settings.secret_key.reveal(),
            "BIBWIRE_RETRY_SECONDS": str(settings.retry_seconds),
        },
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    hands = ProcessHands(process, clock)
    listening = asyncio.create_task(hands.listen())
    try:
        yield hands
    finally:
        process.stdin.close()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise
        finally:
            listening.cancel()


class _DistantClock:
    """The simulation's clock, seen from a worker process."""

    def __init__(self, instant: Instant) -> None:
        self._instant = instant
        self._numbers = itertools.count()
        self._asleep: dict[int, asyncio.Future[None]] = {}

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.monotonic(), UTC)

    def monotonic(self) -> float:
        return self._instant.get()

    async def sleep(self, seconds: float) -> None:
        number = next(self._numbers)
        self._asleep[number] = asyncio.get_running_loop().create_future()
        _say(sleep=number, until=self.monotonic() + max(seconds, SLEEP_NOT_AT_ALL))
        try:
            await self._asleep[number]
        except asyncio.CancelledError:
            _say(cancelled=number)
            raise
        finally:
            del self._asleep[number]

    def wake(self, number: int) -> None:
        """Wake a sleeper, if it still sleeps."""
        future = self._asleep.get(number)
        if future is not None and not future.done():
            future.set_result(None)


def _say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


async def _do(hands: RuntimeHands, number: int, task: str, args: dict[str, Any]) -> None:
    error: str | None = None
    try:
        await hands.do(task, args, asyncio.Event())
    except Exception:
        error = traceback.format_exc()
    _say(done=number, error=error)


async def _work(instant: Path) -> None:
    """Be a worker process: do what standard input says, until it ends."""
    logs.set_up(level="ERROR")
    clock = _DistantClock(Instant(instant))
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    opening = open_runtime(load_settings(), clock=clock, budget_time=clock.now)
    async with opening as runtime, runtime_hands(runtime) as hands:
        print("ready", flush=True)
        doing: set[asyncio.Task[None]] = set()
        while line := await lines.readline():
            match json.loads(line):
                case {"wake": number}:
                    clock.wake(number)
                case {"do": number, "task": task, "args": args}:
                    job = asyncio.create_task(_do(hands, number, task, args))
                    doing.add(job)
                    job.add_done_callback(doing.discard)
        for job in doing:
            job.cancel()
        await asyncio.gather(*doing, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(_work(Path(sys.argv[1])))
