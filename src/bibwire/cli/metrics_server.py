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
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from bibwire.cli.exposition import registry_of
from bibwire.domain.errors import DatabaseUnavailable, SettingsError
from bibwire.store.metrics import Facts, read

PATH: Final = "/metrics"
# Below the 10 s after which Prometheus gives a scrape up, its answer included.
PATIENCE_SECONDS: Final = 3.0
# What is broken off gets so long to end, twice.
PARTING_SECONDS: Final = 0.5
# Enough for a pair of monitors and people who look; beyond it 503 is answered.
MOST_CONNECTIONS: Final = 20

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
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MOST_CONNECTIONS,
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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        registry = registry_of(await self._scrapes.facts())
        await make_asgi_app(registry)(scope, receive, send)


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals to the command, which has more to end than this."""
        yield
