"""
Sending an answer, or something that is none: scripted faults at the level of bytes and sockets.

`Connections` knows the transport behind each request, so that a connection can really be reset or
cut, and wakes every sleeper when the server stops.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from starlette.requests import Request
from starlette.types import Send

from rsusim import wire
from rsusim.errors import error_object
from rsusim.faults import Fault

HTML: Final = "text/html; charset=UTF-8"
JSON: Final = "application/json; charset=utf-8"
_BAD_HTML: Final = (
    "<!DOCTYPE html><html><head><title>{title}</title></head><body><center><h1>{title}</h1>"
    "</center><hr><center>{by}</center>{more}</body></html>"
)


@dataclass(slots=True)
class Answer:
    status: int
    body: bytes
    content_type: str
    headers: dict[str, str] = field(default_factory=dict)


class Connections:
    """The open connections of one server, by the client's address."""

    def __init__(self) -> None:
        self._transports: dict[tuple[str, int], asyncio.Transport] = {}
        self._closing: asyncio.Event | None = None
        self._closed = False

    def opened(self, client: tuple[str, int] | None, transport: asyncio.Transport) -> None:
        if client is not None:
            self._transports[client] = transport

    def lost(self, client: tuple[str, int] | None) -> None:
        if client is not None:
            self._transports.pop(client, None)

    def transport(self, request: Request) -> asyncio.Transport | None:
        if request.client is None:
            return None
        return self._transports.get((request.client.host, request.client.port))

    async def sleep(self, seconds: float) -> None:
        """Wait, or until the server stops."""
        if self._closing is None:
            self._closing = asyncio.Event()
        if not self._closed:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), seconds)

    def abort(self) -> None:
        """Cut what is still open."""
        for transport in list(self._transports.values()):
            transport.abort()

    def close(self) -> None:
        """Wake all that sleep; call on the event loop's thread."""
        self._closed = True
        if self._closing is not None:
            self._closing.set()


def sabotage(answer: Answer, fault: Fault, request: Request) -> Answer:
    """Return what a fault makes of an answer; row faults and waits have been applied before."""
    kind = fault.kind
    if kind.startswith("http_"):
        return _page(int(kind[5:]), fault)
    if kind.startswith("error_") and kind[6:].isdigit():
        return Answer(fault.status, wire.encode(error_object(int(kind[6:]))), JSON, _retry(fault))
    bodies = {
        "error_string": b'{"error":"Something went wrong","details":{}}',
        "empty_body": b"",
        "empty_object": b"{}",
        "empty_array": b"[]",
        "null": b"null",
        "string": b'"OK"',
        "number": b"0",
    }
    if kind in bodies:
        return Answer(fault.status, bodies[kind], JSON)
    if kind == "html_200":
        return _page(200, fault)
    if kind == "body":
        return Answer(fault.status, fault.body.encode("utf-8", "surrogatepass"), fault.content_type)
    if kind == "truncated":
        answer.body = answer.body[: len(answer.body) // 2]
    elif kind == "bad_utf8":
        middle = len(answer.body) // 2
        answer.body = answer.body[:middle] + b"\xff\xfe\xc3(" + answer.body[middle:]
    elif kind == "credentials_echoed":
        return _page(500, fault, _sent(request))
    elif kind == "credentials_in_error":
        return Answer(200, wire.encode(error_object(4, f"Bad call: {_sent(request)}")), JSON)
    return answer


def _retry(fault: Fault) -> dict[str, str]:
    return {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}


def _page(status: int, fault: Fault, more: str = "") -> Answer:
    if status == 522:  # section 1: the api host is behind Cloudflare
        title, by = "522: Connection timed out", "cloudflare"
    elif status == 200:
        title, by = "We&rsquo;ll be back soon", "RunSignup"
    else:
        known = status in HTTPStatus.__members__.values()
        title, by = f"{status} {HTTPStatus(status).phrase if known else 'Unknown'}", "nginx"
    body = fault.body or _BAD_HTML.format(title=title, by=by, more=more)
    return Answer(status, body.encode(), HTML, _retry(fault))


def _sent(request: Request) -> str:
    headers = "; ".join(f"{k}: {v}" for k, v in request.headers.items() if k != "accept-encoding")
    return f"{request.method} {request.url} [{headers}]"


async def send_answer(
    answer: Answer,
    fault: Fault | None,
    request: Request,
    send: Send,
    connections: Connections,
    before_end: Callable[[], None],
) -> None:
    """
    Send an answer, as far as the fault lets it.

    Args:
        before_end: Called right before the caller can learn that the call is over.
    """
    kind = fault.kind if fault is not None else ""
    transport = connections.transport(request)
    if kind == "hang" and fault is not None:
        await connections.sleep(3600.0 if fault.seconds is None else fault.seconds)
    if kind in ("reset", "hang") and transport is not None:
        before_end()
        if kind == "reset" and (sock := transport.get_extra_info("socket")) is not None:
            # Linger 0 makes the kernel send RST instead of FIN.
            linger = struct.pack("ii", 1, 0)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()
        await asyncio.sleep(0.01)  # lets uvicorn learn of it, so that it does not complain
        return
    headers = {"Content-Type": answer.content_type, "Content-Length": str(len(answer.body))}
    headers |= answer.headers
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    body = b"" if request.method == "HEAD" else answer.body
    if not body:
        before_end()
    await send({"type": "http.response.start", "status": answer.status, "headers": raw})
    half = len(body) // 2
    if kind == "cut_off" and transport is not None:
        before_end()
        await send({"type": "http.response.body", "body": body[:half], "more_body": True})
        transport.close()
        await asyncio.sleep(0.01)
        return
    if kind == "slow_body" and fault is not None:
        await send({"type": "http.response.body", "body": body[:half], "more_body": True})
        await connections.sleep(1.4 if fault.seconds is None else fault.seconds)
        body = body[half:]
    before_end()
    await send({"type": "http.response.body", "body": body})
