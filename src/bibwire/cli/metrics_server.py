"""
Serves `GET /metrics` beside the work of a command.

One reading of the database serves all scrapes that come meanwhile, and takes 3 s at most: however
many ask, there is one connection, and a server that is gone or frozen is told as `bibwire_up 0`.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import structlog
import uvicorn
from prometheus_client import make_asgi_app
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from bibwire.cli.exposition import registry_of
from bibwire.domain.errors import DatabaseUnavailable, SettingsError
from bibwire.store.metrics import Facts, read

PATH: Final = "/metrics"
# Below the 10 s after which Prometheus gives a scrape up, its answer included.
PATIENCE_SECONDS: Final = 3.0
# What is broken off gets so long to end, twice.
PARTING_SECONDS: Final = 0.5
# Enough for a pair of monitors and people who look; beyond it 503 is answered.
MOST_REQUESTS: Final = 20
# Connections that ask nothing take no place from those that do: beyond so many, the one that has been
# idle longest is closed, and each after a while.
MOST_CONNECTIONS: Final = 40
IDLE_SECONDS: Final = 10.0

log = structlog.get_logger()


def listen(host: str, port: int) -> socket.socket:
    """
    Take the port, before anything else is begun; 0: any free one.

    Raises:
        SettingsError: It cannot be had.
    """
    hint = "name another with --metrics-port or BIBWIRE_METRICS_PORT (0: any free one)"
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except UnicodeError:
        why = f"{host} is no address"
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            why = f"port {port} of {host} is in use: {hint}"
        elif error.errno == errno.EACCES:
            why = f"port {port} is for root alone: {hint}"
        else:
            why = (
                f"{host} is no address of this machine ({error.strerror}): name one with --metrics-host "
                "or BIBWIRE_METRICS_HOST"
            )
    raise SettingsError(f"Metrics cannot be served, {why}.")


@asynccontextmanager
async def serving(listening: socket.socket, conninfo: str, stop: asyncio.Event) -> AsyncIterator[None]:
    """
    Serve metrics on the socket until `stop` is set, or the block is left; then close it.

    Whatever becomes of it, the block goes on.
    """
    scrapes = Scrapes(conninfo)
    config = uvicorn.Config(
        Starlette(routes=[Route(PATH, _App(scrapes), methods=["GET"])]),
        http=_protocol(),
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MOST_CONNECTIONS + MOST_REQUESTS,
        timeout_graceful_shutdown=1,
    )
    server = _Server(config)

    async def end() -> None:
        server.should_exit = True
        await scrapes.close()

    async def end_when_stopped() -> None:
        await stop.wait()
        await end()

    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    log.info("metrics served", action="metrics", url=f"http://{shown}:{port}{PATH}")
    served = asyncio.create_task(server.serve(sockets=[listening]))
    stopping = asyncio.create_task(end_when_stopped())
    try:
        yield
    finally:
        stopping.cancel()
        await end()
        await served


class Scrapes:
    """Reads the database for scrapes, one reading at a time."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._reading: asyncio.Task[Facts | None] | None = None
        self._closed = False
        self._silent = False

    async def facts(self) -> Facts | None:
        """Return what the reading that goes on finds, or else a new one; None: nothing within 3 s."""
        if self._closed:
            return None
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read())
        reading = self._reading
        # A scrape that is given up does not take the reading from the others.
        await asyncio.wait({reading})
        return None if reading.cancelled() else reading.result()

    async def close(self) -> None:
        """Break off the reading that goes on; there is no other."""
        self._closed = True
        if self._reading is not None and not self._reading.done():
            self._reading.cancel()
            await asyncio.wait({self._reading}, timeout=3 * PARTING_SECONDS)

    async def _read(self) -> Facts | None:
        reading = asyncio.create_task(read(self._conninfo))
        error = f"no answer within {PATIENCE_SECONDS:.0f} s"
        try:
            await asyncio.wait({reading}, timeout=PATIENCE_SECONDS)
            if reading.done():
                self._silent = False
                return reading.result()
        except DatabaseUnavailable as caught:
            error = str(caught)
        finally:
            await _break_off(reading)
        if not self._silent:
            self._silent = True
            log.warning("metrics cannot be read", action="metrics", error=error)
        return None


async def _break_off(task: asyncio.Task[Facts]) -> None:
    # Told once, the driver asks the server to stop and waits for its word; told twice, it hangs up.
    for _ in range(2):
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=PARTING_SECONDS)


class _App:
    """Answers a scrape; the format, and whether it is compressed, is between library and scraper."""

    def __init__(self, scrapes: Scrapes) -> None:
        self._scrapes = scrapes
        self._answering = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._answering >= MOST_REQUESTS:
            await PlainTextResponse("Too many scrapes at once.", 503)(scope, receive, send)
            return
        self._answering += 1
        try:
            registry = registry_of(await self._scrapes.facts())
            await make_asgi_app(registry)(scope, receive, send)
        finally:
            self._answering -= 1


def _protocol() -> type[H11Protocol]:
    """Return how connections of one server are handled: those that idle make room for those that ask."""
    # The longest idle first.
    idle: dict[Idling, None] = {}

    class Idling(H11Protocol):
        _closing: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._idle()
            if len(idle) > MOST_CONNECTIONS:
                longest = next(iter(idle))
                longest._busy()  # at once: it is told of its end later
                longest.transport.abort()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            # Half a request, be it one sign a second, is none.
            if self._answers():
                self._busy()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if not self._answers():  # not the next one already
                self._idle()

        def _answers(self) -> bool:
            cycle: RequestResponseCycle | None = self.cycle
            return cycle is not None and not cycle.response_complete

        def connection_lost(self, exc: Exception | None) -> None:
            self._busy()
            super().connection_lost(exc)

        def _idle(self) -> None:
            self._busy()
            idle[self] = None
            self._closing = asyncio.get_running_loop().call_later(IDLE_SECONDS, self.transport.abort)

        def _busy(self) -> None:
            idle.pop(self, None)
            if self._closing is not None:
                self._closing.cancel()
                self._closing = None

    return Idling


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals to the command, which has more to end than this."""
        yield
