"""A network that a test can take away: a relay to a server of this machine that refuses or falls silent."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from psycopg import conninfo


class Network:
    """
    Relays connections to `target`; `cut` refuses them, `restore` lets them through again.

    Args:
        target: Host and port, or the socket of a server of this machine.
    """

    def __init__(self, target: tuple[str, int] | Path) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._silent = threading.Event()
        self._listening = self._listen(0)
        self.port: int = self._listening.getsockname()[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut()

    def cut(self) -> None:
        """Refuse connections, and break those that stand."""
        # shutdown wakes the thread that waits in accept; close alone does not.
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        with self._lock:
            broken, self._open = self._open, set()
        for each in broken:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def restore(self) -> None:
        """Let connections through again."""
        self._silent.clear()
        self._listening = self._listen(self.port)

    def fall_silent(self) -> None:
        """From now on take what is sent and answer nothing."""
        self._silent.set()

    def speak(self) -> None:
        """End the silence; what was not relayed is lost, as on a network, with its connection."""
        self.cut()
        self.restore()

    def _listen(self, port: int) -> socket.socket:
        listening = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, args=(listening,), daemon=True).start()
        return listening

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                ours, _ = listening.accept()
            except OSError:
                return
            try:
                theirs = self._connect()
            except OSError:
                ours.close()
                continue
            with self._lock:
                self._open |= {ours, theirs}
            for one, other in ((ours, theirs), (theirs, ours)):
                threading.Thread(target=self._relay, args=(one, other), daemon=True).start()

    def _connect(self) -> socket.socket:
        if not isinstance(self._target, Path):
            return socket.create_connection(self._target)
        theirs = socket.socket(socket.AF_UNIX)
        theirs.connect(str(self._target))
        return theirs

    def _relay(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                if not self._silent.is_set():
                    other.sendall(data)
        with suppress(OSError):
            other.shutdown(socket.SHUT_RDWR)


@contextmanager
def network_to(database_url: str) -> Iterator[tuple[Network, str]]:
    """Yield a network to the database of this machine, and how to connect through it."""
    parts = conninfo.conninfo_to_dict(database_url)
    socket_file = Path(str(parts["host"])) / f".s.PGSQL.{parts.get('port', 5432)}"
    with Network(socket_file) as network:
        yield network, conninfo.make_conninfo(database_url, host="127.0.0.1", port=network.port)
