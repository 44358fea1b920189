"""
The control path: a test in another process sees and moves the world over HTTP.

    GET  /_control/state                    now, speed, quirks, fault rules, sizes
    GET  /_control/accounts                 every account with its secrets
    GET  /_control/log?last=1000            what was asked
    GET  /_control/truth?partner=NAME       what a perfect mirror would hold
    GET  /_control/teams?partner=NAME       and which teams there are
    POST /_control/advance  {"seconds": 60}
    POST /_control/clock    {"speed": 1.0}
    POST /_control/do       {"op": "assign_bib", "registration_id": 92000001, "bib": 101}
    POST /_control/faults   {"kind": "http_503", "path": "participants"} or a list, or {"clear": true}
    POST /_control/quirks   {"layout": "object"}
    POST /_control/clear-log

Names are those of the Python API. It answers ordinary HTTP statuses: 400 for what it cannot do.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from rsusim.faults import KINDS, Fault
from rsusim.records import ABSENT

if TYPE_CHECKING:
    from rsusim.world import World

OPERATIONS: Final = frozenset(
    [
        "register",
        "edit",
        "edit_silently",
        "assign_bib",
        "clear_bib",
        "swap_bibs",
        "bulk_assign",
        "check_in",
        "set_raw",
        "transfer",
        "remove",
        "clear",
        "defer",
        "restore",
        "vanish",
        "active",
        "add_team",
        "edit_team",
        "rename_team",
        "assign_team_bib",
        "remove_team",
        "join_team",
        "leave_team",
        "members_of",
        "grant",
        "withdraw",
        "add_race",
        "edit_race",
        "remove_race",
        "add_event",
        "edit_event",
        "remove_event",
        "bundle",
        "issue_code",
        "add_partner",
    ]
)
_TIMES: Final = ("start", "end")


class Control:
    """Handlers of the control path."""

    def __init__(self, world: "World") -> None:
        self._world = world

    async def get(self, request: Request) -> Response:
        world, name = self._world, request.path_params["name"]
        query = request.query_params
        if name == "log":
            last = query.get("last", "1000")
            return _reply(world.log.as_dict(int(last) if last.isdigit() else 1000))
        if name in ("truth", "teams"):
            partner = query.get("partner", "")
            if partner not in world.accounts:
                return _refusal(f"no partner {partner!r}")
            return _reply(world.truth(partner) if name == "truth" else world.teams_truth(partner))
        if name == "accounts":
            return _reply(describe(world))
        if name == "state":
            return _reply(self._state())
        return _refusal(f"nothing is called {name!r}", 404)

    async def post(self, request: Request) -> Response:
        world, name = self._world, request.path_params["name"]
        text = await request.body()
        try:
            body: Any = msgspec.json.decode(text) if text else {}
            if name == "faults":
                return _reply(self._faults(body))
            if not isinstance(body, dict):
                return _refusal("the body is a JSON object")
            if name == "advance":
                world.advance(float(body["seconds"]))
                return _reply({"now": world.clock.time()})
            if name == "clock":
                with world.lock:
                    world.clock.run(float(body["speed"]))
                return _reply({"now": world.clock.time(), "speed": world.clock.speed})
            if name == "quirks":
                for quirk, value in body.items():
                    world.quirks.set(quirk, value)
                return _reply(world.quirks.as_dict())
            if name == "clear-log":
                world.log.clear()
                return _reply({})
            if name == "do":
                return _reply({"result": self.do(body)})
        except (msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
            return _refusal(f"{type(error).__name__}: {error}")
        return _refusal(f"nothing is called {name!r}", 404)

    def do(self, body: Mapping[str, Any]) -> Any:
        """Call one operation of the world by name; the other keys are its arguments."""
        arguments = dict(body)
        operation = arguments.pop("op")
        if operation not in OPERATIONS:
            raise ValueError(f"no operation {operation!r}; there are: {sorted(OPERATIONS)}")
        for name in _TIMES:
            if isinstance(arguments.get(name), str):
                arguments[name] = datetime.fromisoformat(arguments[name])
        method: Callable[..., Any] = getattr(self._world, operation)
        return method(**arguments)

    def _faults(self, body: Any) -> Any:
        rows = body if isinstance(body, list) else [body]
        for row in rows:
            if row.get("clear"):
                self._world.faults.clear()
            else:
                self._world.faults.add(Fault(**row))
        return {"rules": self._world.faults.rules, "kinds": KINDS}

    def _state(self) -> dict[str, Any]:
        world = self._world
        return {
            "now": world.clock.time(),
            "speed": world.clock.speed,
            "races": len(world.races),
            "events": len(world.events),
            "registrations": len(world.registrations),
            "quirks": world.quirks.as_dict(),
            "faults": world.faults.rules,
        }


def describe(world: "World", base_url: str | None = None) -> dict[str, Any]:
    """Return all that a client needs to call this world, secrets included."""
    return {
        "base_url": base_url,
        "now": world.clock.time(),
        "caller": {"registration": world.caller.registration, "secret": world.caller.secret},
        "oauth_client": world.oauth_client,
        "accounts": list(world.accounts.values()),
    }


def _plain(value: Any) -> Any:
    return None if value is ABSENT else str(value)


def _reply(value: Any, status: int = 200) -> Response:
    body = msgspec.json.encode(value, enc_hook=_plain)
    return Response(body, status, media_type="application/json")


def _refusal(text: str, status: int = 400) -> Response:
    return _reply({"refused": text}, status)
