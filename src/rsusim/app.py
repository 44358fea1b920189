"""
The ASGI program: one path for every data request.

In this order: route, who asks, arrival noted, throttling, the scripted fault, waiting, hooks, the
answer under the world's lock, the `Date` header from the simulated clock, sending, log. Data
requests are answered one at a time on the event loop; waiting is not, so calls in flight overlap
as they do with a slow vendor.
"""

import asyncio
import gzip
import json
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.routing import Route as StarletteRoute
from starlette.types import Receive, Scope, Send

from rsusim import oauth, wire
from rsusim.answers import METHODS, Call
from rsusim.auth import Identity, check_caller, identify
from rsusim.control import Control
from rsusim.errors import ApiError, error_object
from rsusim.faults import Fault
from rsusim.log import SECRET_PARAMETERS, RequestInfo
from rsusim.params import Params
from rsusim.quirks import Quirks
from rsusim.routes import Route, resolve
from rsusim.sending import Answer, Connections, sabotage, send_answer

if TYPE_CHECKING:
    from rsusim.world import World

JSON: Final = "application/json; charset=utf-8"
XML: Final = "text/xml; charset=utf-8"
_GZIP_FROM: Final = 1024


class DataApp:
    """Everything under `/rest`."""

    def __init__(self, world: "World", connections: Connections) -> None:
        self._world = world
        self._connections = connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        route = resolve(scope["path"], query)
        form: dict[str, str] = {}
        if request.method == "POST":
            body = (await request.body()).decode("utf-8", "replace")
            form = dict(parse_qsl(body, keep_blank_values=True))
        world, headers = self._world, request.headers
        identity = identify(world, world.quirks, query, headers)
        info = RequestInfo(
            number=world.log.number(),
            at=world.clock.time(),
            method=request.method,
            endpoint=route.endpoint or "unknown",
            path=route.path,
            query={k: v for k, v in query.items() if k.lower() not in SECRET_PARAMETERS},
            race_id=route.race_id,
            scheme=identity.scheme,
            account=identity.account,
            caller=query.get("rsu_api_reg", "").split(".")[0] or None,
        )
        caller = info.caller or info.account or "-"

        def leave() -> None:
            world.log.leave(info, caller, world.clock.time())

        world.log.enter(info, caller)
        try:
            await self._serve(request, route, query, form, identity, info, send, leave)
        except Exception:
            # Answered with 500 by uvicorn; told apart here from what a test has scripted.
            world.log.failures.append(traceback.format_exc())
            raise
        finally:
            leave()

    async def _serve(
        self,
        request: Request,
        route: Route,
        query: Mapping[str, str],
        form: Mapping[str, str],
        identity: Identity,
        info: RequestInfo,
        send: Send,
        before_end: Callable[[], None],
    ) -> None:
        world = self._world
        quirks = world.quirks
        throttled = quirks.throttle != "off" and info.in_flight_of_caller > quirks.max_in_flight
        fault = None if throttled else world.faults.pick(info)
        if fault is not None:
            info.fault = fault.kind
            if fault.quirks:
                quirks = quirks.with_changes(fault.quirks)
                identity = identify(world, quirks, query, request.headers)
        await self._wait(quirks.latency_seconds)
        if fault is not None and fault.kind == "slow":
            if fault.until is None:
                await self._wait(1.4 if fault.seconds is None else fault.seconds)
            while fault.until is not None and not fault.until.is_set():
                await self._wait(0.01)
        world.call_before(info)
        started = time.perf_counter()
        if throttled:
            answer = _throttled(quirks, query)
        else:
            answer = self._answer(request, route, query, form, identity, info, quirks, fault)
        info.work_seconds = time.perf_counter() - started
        await self._wait(quirks.latency_after_reading_seconds)
        if quirks.world_seconds_after_reading > 0:
            world.advance(quirks.world_seconds_after_reading)
        if fault is not None and fault.kind == "slow_after_reading":
            await self._wait(1.4 if fault.seconds is None else fault.seconds)
        if fault is not None:
            answer = sabotage(answer, fault, request)
        started = time.perf_counter()
        self._dress(answer, quirks, request.headers)
        info.work_seconds += time.perf_counter() - started
        info.status, info.body_bytes = answer.status, len(answer.body)
        if fault is not None and fault.kind in ("reset", "hang", "cut_off"):
            info.status = 0
        world.call_after(info)
        await send_answer(answer, fault, request, send, self._connections, before_end)

    async def _wait(self, seconds: float) -> None:
        # Even without a wait, let requests that have arrived be noted before this is answered.
        await (self._connections.sleep(seconds) if seconds > 0 else asyncio.sleep(0))

    def _answer(
        self,
        request: Request,
        route: Route,
        query: Mapping[str, str],
        form: Mapping[str, str],
        identity: Identity,
        info: RequestInfo,
        quirks: Quirks,
        fault: Fault | None,
    ) -> Answer:
        world = self._world
        if route.endpoint is None:
            return Answer(404, b"<html><body><h1>404 Not Found</h1></body></html>", "text/html")
        if route.endpoint == "token" and request.method == "POST":
            with world.lock:
                status, body = oauth.token(world, route.path, form)
            return Answer(status, wire.encode(body), JSON)
        chosen = "json" if route.version == 2 else query.get("format", quirks.format_default)
        answer_format = chosen.lower()
        try:
            check_caller(world, quirks, query, request.headers)
            if route.endpoint == "unknown":
                raise ApiError(1)
            if request.method not in ("GET", "HEAD") or route.endpoint == "token":
                raise ApiError(2)
            if answer_format not in ("json", "xml"):
                raise ApiError(10)
            with world.lock:
                world.settle()
                params = Params(query, quirks, world.clock.time())
                call = Call(world, info, quirks, params, identity, fault)
                content = METHODS[route.endpoint](call)
        except ApiError as error:
            info.error = error.code
            text = _echo(query, request.headers) if quirks.echo_credentials else None
            value: object = error_object(error.code, text, error.details)
            if quirks.error_as_string:
                value = {"error": text or str(error), "details": {}}
            content = wire.encode(value, quirks.wire_escapes)
            return _formatted(error.status, content, answer_format)
        return _formatted(200, content, answer_format)

    def _dress(self, answer: Answer, quirks: Quirks, headers: Headers) -> None:
        """Add the headers of section 1; `Date` is the moment of sending, by the vendor's clock."""
        answer.headers["P3P"] = 'CP="CAO PSA OUR"'
        answer.headers["X-Frame-Options"] = "SAMEORIGIN"
        answer.headers["Access-Control-Allow-Origin"] = "*"
        answer.headers["Server"] = "nginx"
        if quirks.date_header:
            now = self._world.clock.shown() + quirks.date_offset_seconds
            instant = datetime.fromtimestamp(int(now // 1), UTC)
            answer.headers["Date"] = format_datetime(instant, usegmt=True)
        if quirks.gzip and len(answer.body) >= _GZIP_FROM:
            answer.headers["Vary"] = "Accept-Encoding"
            if "gzip" in headers.get("accept-encoding", ""):
                answer.headers["Content-Encoding"] = "gzip"
                answer.body = gzip.compress(answer.body, 1)


def _throttled(quirks: Quirks, query: Mapping[str, str]) -> Answer:
    if quirks.throttle == "error14":
        body = wire.encode(error_object(14))
        return _formatted(200, body, query.get("format", quirks.format_default).lower())
    answer = Answer(429, b"<html><body><h1>429 Too Many Requests</h1></body></html>", "text/html")
    if quirks.throttle == "http429_retry_after":
        answer.headers["Retry-After"] = str(quirks.retry_after_seconds)
    return answer


def _formatted(status: int, content: bytes, answer_format: str) -> Answer:
    if answer_format == "json":
        return Answer(status, content, JSON)
    try:
        value = json.loads(content)
    except ValueError:  # a hostile row that is no JSON
        value = {"result": content.decode("utf-8", "replace")}
    if isinstance(value, dict) and len(value) == 1:
        root = next(iter(value))
        return Answer(status, wire.xml(value[root], root), XML)
    return Answer(status, wire.xml(value, "events" if isinstance(value, list) else "result"), XML)


def _echo(query: Mapping[str, str], headers: Mapping[str, str]) -> str:
    sent = {k: v for k, v in query.items() if k.lower() in SECRET_PARAMETERS}
    sent |= {k: v for k, v in headers.items() if k.lower() == "authorization" or "secret" in k.lower()}
    return "Rejected: " + ", ".join(f"{name}={value}" for name, value in sent.items())


def create_app(world: "World", connections: Connections | None = None) -> Starlette:
    """Return the ASGI program for a world."""
    connections = connections or Connections()
    control = Control(world)
    return Starlette(
        routes=[
            StarletteRoute("/_control/{name}", endpoint=control.get, methods=["GET"]),
            StarletteRoute("/_control/{name}", endpoint=control.post, methods=["POST"]),
            StarletteRoute("/{path:path}", endpoint=DataApp(world, connections)),
        ]
    )
