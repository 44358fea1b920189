"""
A vendor of a few lines on a loopback socket: it answers what a test tells it to.

It speaks plain HTTP/1.1 from bytes, so that it can also break off, drip, and lie.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

from bibwire.api.client import CallMade, VendorClient
from bibwire.clock import Clock
from bibwire.domain.errors import Blocked
from bibwire.domain.secrets import CallerRegistration, Credential, Secret

DATE = "Mon, 05 Oct 2026 12:00:00 GMT"
DATE_AT = datetime(2026, 10, 5, 12, 0, 0, tzinfo=UTC)


@dataclass
class Request:
    """A request as it came in; `query` holds the last value of each name."""

    target: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]


@dataclass
class Reply:
    """What to send back. `head` replaces status line and headers if given."""

    body: bytes = b"[]"
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"Date": DATE})
    cut_at: int | None = None  # send that many bytes of the body, then close
    before: float = 0.0  # seconds of silence first
    hang_up: bool = False  # close without a word
    drip: float = 0.0  # seconds between single bytes of the body


def reply(value: Any, **rest: Any) -> Reply:
    """Answer with that value as JSON."""
    return Reply(body=json.dumps(value).encode(), **rest)


def error(code: int, text: str = "A text.", **rest: Any) -> Reply:
    return reply({"error": {"error_code": code, "error_msg": text}}, **rest)


def person(registration_id: int, event_id: int | None = 1, **more: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"registration_id": registration_id, "user": {"first_name": "Ada"}}
    if event_id is not None:
        row["event_id"] = event_id
    return row | more


def listing(*rows: dict[str, Any], event_id: int = 1) -> list[dict[str, Any]]:
    """Lay rows out as the vendor does for one event."""
    element: dict[str, Any] = {"event": {"event_id": event_id, "participants": []}}
    if rows:
        element["participants"] = list(rows)
    return [element]


class LoopbackVendor:
    """Keeps what it was asked; answers by `script` (the last entry for ever) or `handler`."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.script: list[Reply] = []
        self.handler: Callable[[Request], Reply] | None = None
        self.asked_twice = asyncio.Event()
        self.base_url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._serve_one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        target = first.split(" ")[1]
        parts = urlsplit(target)
        request = Request(
            target=target,
            path=parts.path,
            query={key: values[-1] for key, values in parse_qs(parts.query).items()},
            headers={
                name.strip().lower(): value.strip()
                for name, _, value in (line.partition(":") for line in lines if line)
            },
        )
        self.requests.append(request)
        if len(self.requests) == 2:
            self.asked_twice.set()
        return await self._answer(self._reply_to(request), writer)

    def _reply_to(self, request: Request) -> Reply:
        if self.handler is not None:
            return self.handler(request)
        return self.script[min(len(self.requests), len(self.script)) - 1]

    async def _answer(self, answer: Reply, writer: asyncio.StreamWriter) -> bool:
        if answer.before:
            await asyncio.sleep(answer.before)
        if answer.hang_up:
            return False
        headers = {"Content-Type": "application/json", "Content-Length": str(len(answer.body))}
        headers |= answer.headers
        lines = [f"HTTP/1.1 {answer.status} Whatever"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        step = 1 if answer.drip else len(answer.body) or 1
        for at in range(0, len(answer.body[: answer.cut_at]), step):
            writer.write(answer.body[: answer.cut_at][at : at + step])
            await writer.drain()
            await asyncio.sleep(answer.drip)
        return answer.cut_at is None


class MovedClock:
    """A clock that a test moves; sleeping moves it too, and takes no time."""

    def __init__(self, now: datetime = DATE_AT) -> None:
        self._start = now
        self._passed = 0.0
        self.slept: list[float] = []

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._passed)

    def monotonic(self) -> float:
        return self._passed

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._passed += seconds

    def advance(self, seconds: float) -> None:
        self._passed += seconds


class CountingPermits:
    """Permits for the asking, unless throttled; remembers each, and whether one is held."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock
        self.taken: list[str] = []
        self.held = 0
        self.pauses: list[tuple[str, float]] = []  # reason and seconds of each throttle answer
        self.recorded: list[tuple[str, bool, int, float]] = []
        self._pause = 0.0

    @asynccontextmanager
    async def permit(self, endpoint: str, *, patience_seconds: float) -> AsyncIterator[float]:
        pause, self._pause = self._pause, 0.0
        if pause > patience_seconds:
            raise Blocked("too long", retry_after_seconds=pause)
        if pause and self.clock is not None:
            await self.clock.sleep(pause)
        self.taken.append(endpoint)
        self.held += 1
        try:
            yield pause
        finally:
            self.held -= 1

    async def throttled(self, reason: str, seconds: float) -> None:
        self.pauses.append((reason, seconds))
        self._pause = seconds

    async def answered(self, *, accepted: bool) -> None:
        pass

    async def record(self, endpoint: str, *, failed: bool, bytes_received: int, seconds: float) -> None:
        self.recorded.append((endpoint, failed, bytes_received, seconds))


KEY = "Kq7fA0zX9bL2mN4pRunnerKey"
SECRET = "s3cr3t/With+Signs&More=Tw0"
CALLER_ID = "417.tok/en+Caller9"
CALLER_SECRET = "caller-S3cret-0987654321"
EVERY_SECRET = (KEY, SECRET, CALLER_ID, CALLER_SECRET)

BY_KEY = Credential("key", Secret(KEY), Secret(SECRET))
CALLER = CallerRegistration(Secret(CALLER_ID), Secret(CALLER_SECRET))


@dataclass
class Scene:
    """A vendor, and a client that speaks to it."""

    vendor: LoopbackVendor
    client: VendorClient
    clock: MovedClock
    permits: CountingPermits
    calls: list[CallMade]


@asynccontextmanager
async def scene(
    *script: Reply,
    handler: Callable[[Request], Reply] | None = None,
    credential: Credential = BY_KEY,
    caller: CallerRegistration | None = CALLER,
    **options: Any,
) -> AsyncIterator[Scene]:
    """Start both; stop both."""
    vendor = LoopbackVendor()
    vendor.script = list(script)
    vendor.handler = handler
    server = await asyncio.start_server(vendor.serve, "127.0.0.1", 0, limit=1 << 20)
    vendor.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/rest"
    clock = MovedClock()
    permits, calls = CountingPermits(clock), list[CallMade]()
    client = VendorClient(
        base_url=vendor.base_url,
        credential=credential,
        caller=caller,
        permits=permits,
        clock=clock,
        on_call=calls.append,
        **options,
    )
    try:
        async with client:
            yield Scene(vendor, client, clock, permits, calls)
    finally:
        server.close()
        await asyncio.sleep(0)
