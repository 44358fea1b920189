"""A real HTTP proxy on loopback: CONNECT, and plain requests handed on, with a list of what it was asked."""

from __future__ import annotations

import base64
import select
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from urllib.parse import urlsplit


class Proxy(socketserver.ThreadingTCPServer):
    """
    Attributes:
        asked: Method and target of each request.
        login: `user:password` that it demands; None: nothing.
        refuses: The status it answers all with; None: it hands on.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, login: str | None, refuses: str | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, str]] = []
        self.login = login
        self.refuses = refuses

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class _Handler(socketserver.StreamRequestHandler):
    server: Proxy

    def handle(self) -> None:
        head = [self.rfile.readline()]
        while (line := self.rfile.readline()) not in (b"\r\n", b""):
            head.append(line)
        method, target, _ = head[0].decode().split()
        self.server.asked.append((method, target.partition("?")[0]))
        if self.server.login is not None:
            wanted = base64.b64encode(self.server.login.encode())
            if not any(line.lower().startswith(b"proxy-authorization:") and wanted in line for line in head):
                return self._answer("407 Proxy Authentication Required")
        if self.server.refuses is not None:
            return self._answer(self.server.refuses)
        to = urlsplit(f"//{target}" if method == "CONNECT" else target)
        with closing(socket.create_connection((to.hostname or "", to.port or 80))) as vendor:
            if method == "CONNECT":
                self._answer("200 Connection established")
            else:
                path = target[target.index("/", len("http://")) :]
                kept = [line for line in head[1:] if not line.lower().startswith((b"proxy-", b"connection"))]
                request = [f"{method} {path} HTTP/1.1\r\n".encode(), *kept, b"Connection: close\r\n\r\n"]
                vendor.sendall(b"".join(request))
            self._pass_on(vendor)

    def _answer(self, status: str) -> None:
        self.wfile.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())

    def _pass_on(self, vendor: socket.socket) -> None:
        ends = {vendor: self.connection, self.connection: vendor}
        with suppress(OSError):
            while True:
                for end in select.select(list(ends), [], [])[0]:
                    data = end.recv(65536)
                    if not data:
                        return
                    ends[end].sendall(data)


@contextmanager
def proxy(*, login: str | None = None, refuses: str | None = None) -> Iterator[Proxy]:
    """Run one."""
    with Proxy(login, refuses) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
