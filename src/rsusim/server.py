"""
The simulator on a real socket: uvicorn in a thread of its own, on a free loopback port.

    with rsusim.Server(world) as server:
        httpx2.get(server.base_url + "/races", params={"format": "json"})

The world may be changed from any thread meanwhile. Nothing of the thread or the socket is left
after `stop`, whatever calls were hanging.
"""

import asyncio
import contextlib
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Self

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from rsusim.app import create_app
from rsusim.life import Life
from rsusim.sending import Connections
from rsusim.world import World

START_SECONDS = 10.0
LIFE_TICK_SECONDS = 0.2
TICK_SECONDS = 0.1
GRACE_SECONDS = 1.0


def configure(world: World, connections: Connections, port: int = 0) -> uvicorn.Config:
    """Return uvicorn's settings: no Date and no Server header of its own, no logs."""

    class Protocol(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            connections.opened(self.client, transport)

        def connection_lost(self, exc: Exception | None) -> None:
            connections.lost(self.client)
            super().connection_lost(exc)

    return uvicorn.Config(
        create_app(world, connections),
        host="127.0.0.1",
        port=port,
        http=Protocol,
        loop="asyncio",
        lifespan="off",
        date_header=False,
        server_header=False,
        access_log=False,
        log_config=None,
        log_level="critical",
        timeout_keep_alive=30,
    )


def listen(port: int = 0) -> socket.socket:
    """Return a socket bound to loopback; port 0 takes a free one."""
    # With the protocol named, asyncio switches Nagle's delay off: head and body are two writes,
    # and every answer would wait 40 ms for the client's delayed acknowledgement.
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(("127.0.0.1", port))
    except OSError:
        bound.close()
        raise
    return bound


def url_of(bound: socket.socket) -> str:
    return f"http://127.0.0.1:{bound.getsockname()[1]}/rest"


class _Uvicorn(uvicorn.Server):
    """Stops sleeping answers first, so that stopping takes no longer than its tick."""

    def __init__(self, config: uvicorn.Config, connections: Connections) -> None:
        super().__init__(config)
        self._connections = connections
        self._wake: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def stop(self) -> None:
        """Ask to stop, from any thread, without waiting for the next tick."""
        self.should_exit = True
        if self._loop is not None and self._wake is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended already
                self._loop.call_soon_threadsafe(self._wake.set)

    async def main_loop(self) -> None:
        self._wake, self._loop = asyncio.Event(), asyncio.get_running_loop()
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), TICK_SECONDS)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """
        As uvicorn's, without its fixed pauses: tests start and stop hundreds of servers.

        Sleeping answers are woken, running ones get a second, the rest is cut.
        """
        self._connections.close()
        for server in self.servers:
            server.close()
        for bound in sockets or []:
            bound.close()
        state = self.server_state
        for connection in list(state.connections):
            connection.shutdown()
        if state.tasks:
            _, running = await asyncio.wait(state.tasks, timeout=GRACE_SECONDS)
            for task in running:
                task.cancel()
        await asyncio.sleep(0.001)  # idle connections close by themselves
        self._connections.abort()
        for server in self.servers:
            await server.wait_closed()


class Server:
    """
    A world served in the background.

    Args:
        world: What is served.
        port: 0 takes a free one.
        life: Happenings to go on in the background, with the running clock.
    """

    def __init__(self, world: World, port: int = 0, life: Life | None = None) -> None:
        self.world = world
        self._port = port
        self._life = life
        self._uvicorn: _Uvicorn | None = None
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()
        self.base_url = ""

    def start(self) -> Self:
        """Start and return once connections are accepted."""
        bound = listen(self._port)
        connections = Connections()
        server = _Uvicorn(configure(self.world, connections), connections)
        self._uvicorn, self.base_url = server, url_of(bound)
        self._stopping.clear()
        self._threads = [threading.Thread(target=server.run, args=([bound],), name="rsusim", daemon=True)]
        if self._life is not None:
            self._threads.append(
                threading.Thread(target=self._live, args=(self._life,), name="life", daemon=True)
            )
        for thread in self._threads:
            thread.start()
        until = time.monotonic() + START_SECONDS
        while not server.started:
            if time.monotonic() > until or not self._threads[0].is_alive():
                bound.close()
                raise RuntimeError("the simulator did not start")
            time.sleep(0.002)
        return self

    def stop(self) -> None:
        """Stop and return once the thread has ended."""
        self._stopping.set()
        if self._uvicorn is not None:
            self._uvicorn.stop()
        for thread in self._threads:
            thread.join(START_SECONDS)
        self._threads, self._uvicorn = [], None

    @property
    def control_url(self) -> str:
        """Base of the control path."""
        return self.base_url.removesuffix("/rest") + "/_control"

    def _live(self, life: Life) -> None:
        while not self._stopping.wait(LIFE_TICK_SECONDS):
            life.catch_up()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def serve_forever(world: World, bound: socket.socket, life: Life | None, ready: Callable[[], None]) -> None:
    """Serve on this thread until SIGINT or SIGTERM; `ready` is called once both are heeded."""
    connections = Connections()
    server = _Uvicorn(configure(world, connections), connections)
    stopping = threading.Event()

    def stop(*_: object) -> None:
        # uvicorn puts its own handlers in front, and raises the signal again once it has ended.
        server.should_exit = True

    def live() -> None:
        while life is not None and not stopping.wait(LIFE_TICK_SECONDS):
            life.catch_up()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    thread = threading.Thread(target=live, name="life", daemon=True)
    thread.start()
    try:
        ready()
        server.run([bound])
    finally:
        stopping.set()
        thread.join()
