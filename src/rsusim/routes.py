"""Paths: case does not matter, nor a trailing slash, and `race?race_id=1` is `race/1` (section 1)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_RACE_METHODS: Final = frozenset({"participants", "removed-participants", "participant-counts", "teams"})
_TOKEN_PATHS: Final = frozenset({"v2/auth/auth-code-redemption.json", "v2/auth/refresh-token.json"})


@dataclass(frozen=True, slots=True)
class Route:
    """
    Attributes:
        path: Lower case, no trailing slash.
        endpoint: See `RequestInfo.endpoint`; None is outside `/rest`.
        version: 1, or 2 where the suffix selects JSON.
    """

    path: str
    endpoint: str | None
    race_id: int | None = None
    version: int = 1


def resolve(raw_path: str, query: Mapping[str, str]) -> Route:
    """Return what a path means."""
    path = "/" + re.sub(r"/+", "/", raw_path.lower()).strip("/")
    if path != "/rest" and not path.startswith("/rest/"):
        return Route(path, None)
    parts = path.split("/")[2:]
    if parts == ["races"]:
        return Route(path, "races")
    if parts and parts[0] == "race" and len(parts) <= 3:
        rest = parts[1:]
        if rest and (race_id := _number(rest[0])) is not None:
            del rest[0]
        else:
            race_id = _number(query.get("race_id", ""))
        if race_id is not None:
            if not rest:
                return Route(path, "race", race_id)
            if len(rest) == 1 and rest[0] in _RACE_METHODS:
                return Route(path, rest[0], race_id)
    if parts[:1] == ["v2"]:
        method = "/".join(parts)
        if method == "v2/participants/checkin-timestamps.json":
            return Route(path, "checkin-timestamps", _number(query.get("race_id", "")), 2)
        if method in _TOKEN_PATHS:
            return Route(path, "token", None, 2)
    return Route(path, "unknown", version=2 if parts[:1] == ["v2"] else 1)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None
