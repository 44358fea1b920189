"""A network between Bibwire and PostgreSQL that can be cut: a relay on loopback that goes silent."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg


class Relay:
    """
    Hands every byte on, until it is cut.

    Then nothing is closed and nothing comes through any more, as where packets are dropped; new
    connections hang. Once it is mended, new connections work. Those of before stay silent for ever.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._cut = False
        self._silent: set[int] = set()
        self._numbers = 0
        self._lines: set[asyncio.Task[None]] = set()
        self._ends: list[asyncio.StreamWriter] = []
        # By number, the server's ends.
        self._far_ends: dict[int, asyncio.StreamWriter] = {}
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self.port = 0

    def start(self) -> None:
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self) -> None:
        """Let nothing through any more."""
        self._silent |= set(range(self._numbers))
        self._cut = True

    def mend(self) -> None:
        """Let new connections through."""
        self._silent |= set(range(self._numbers))
        self._cut = False

    def lead_to(self, socket: Path) -> None:
        """Lead new connections to another server; where it does not listen, they are closed at once."""
        self._socket = socket

    def bury(self) -> None:
        """Let the server notice that nobody is behind the silent connections, as its keep-alives do."""
        self._loop.call_soon_threadsafe(self._bury)

    def _bury(self) -> None:
        for number in self._silent & self._far_ends.keys():
            self._far_ends.pop(number).transport.abort()

    async def _listen(self) -> int:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        for line in self._lines:
            line.cancel()
        await asyncio.gather(*self._lines, return_exceptions=True)
        for end in self._ends:
            end.transport.abort()
        await asyncio.sleep(0.01)  # lets the loop close them

    async def _accept(self, near: asyncio.StreamReader, to_near: asyncio.StreamWriter) -> None:
        number = self._numbers
        self._numbers += 1
        try:
            far, to_far = await asyncio.open_unix_connection(str(self._socket))
        except OSError:
            to_near.close()
            return
        self._ends += [to_near, to_far]
        self._far_ends[number] = to_far
        for source, target in ((near, to_far), (far, to_near)):
            line = asyncio.create_task(self._carry(number, source, target))
            self._lines.add(line)
            line.add_done_callback(self._lines.discard)

    async def _carry(self, number: int, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                if not self._cut and number not in self._silent:
                    target.write(data)
                    await target.drain()
        # Also of an end that was reset, as that of a process is which is killed with answers unread.
        if not self._cut and number not in self._silent:
            target.close()


@contextmanager
def relay_to(conninfo: str) -> Iterator[tuple[Relay, str]]:
    """Put a relay before a database reached through a socket's folder; yield it and how to go through it."""
    to = psycopg.conninfo.conninfo_to_dict(conninfo)
    relay = Relay(Path(str(to["host"])) / f".s.PGSQL.{to.get('port', 5432)}")
    relay.start()
    try:
        yield relay, psycopg.conninfo.make_conninfo(conninfo, host="127.0.0.1", port=relay.port)
    finally:
        relay.stop()
