"""A served world and a small client, which knows nothing but the reference."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest

import rsusim
from tests.waiting import PATIENCE_SECONDS

NOW = datetime(2026, 10, 2, 12, 0, tzinfo=UTC)


@dataclass
class Api:
    """One account's way to call the simulator."""

    server: rsusim.Server
    account: rsusim.Account
    http: httpx2.Client

    @property
    def credentials(self) -> dict[str, str]:
        return {"api_key": self.account.api_key, "api_secret": self.account.api_secret}

    def get(self, path: str, **params: Any) -> httpx2.Response:
        """Call with JSON and the account's pair, unless `params` says otherwise; None leaves out."""
        query = {"format": "json", **self.credentials, **params}
        query = {key: str(value) for key, value in query.items() if value is not None}
        return self.http.get(f"{self.server.base_url}/{path}", params=query)

    def json(self, path: str, **params: Any) -> Any:
        answer = self.get(path, **params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def rows(self, race: int, *events: int, **params: Any) -> list[dict[str, Any]]:
        """Return the participants of one page."""
        body = self.json(f"race/{race}/participants", event_id=",".join(map(str, events)), **params)
        assert isinstance(body, list), body
        return [row for element in body for row in element.get("participants", [])]

    def ids(self, race: int, *events: int, **params: Any) -> list[int]:
        return [row["registration_id"] for row in self.rows(race, *events, **params)]

    def removed(self, race: int, *events: int, **params: Any) -> list[dict[str, Any]]:
        body = self.json(f"race/{race}/removed-participants", event_id=",".join(map(str, events)), **params)
        assert isinstance(body, list), body
        return [row for e in body for row in e.get("event", {}).get("participants", [])]

    def error(self, path: str, **params: Any) -> int:
        """Return the error code of an answer, which must be an error object."""
        code = self.get(path, **params).json()["error"]["error_code"]
        assert isinstance(code, int)
        return code

    def control(self, name: str, body: Any) -> Any:
        answer = self.http.post(f"{self.server.control_url}/{name}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()


@dataclass
class Scene:
    """An empty race with two events in Chicago, served."""

    world: rsusim.World
    account: rsusim.Account
    race: int
    five: int
    ten: int
    api: Api


@pytest.fixture
def world() -> rsusim.World:
    return rsusim.World(seed=7, now=NOW)


@pytest.fixture
def scene(world: rsusim.World) -> Iterator[Scene]:
    account = world.add_partner("Peak Timing")
    race = world.add_race([account], "Harbor Lights", "America/Chicago")
    five = world.add_event(race, "5K", datetime(2026, 10, 4, 9))
    ten = world.add_event(race, "10K", datetime(2026, 10, 4, 7, 30), distance="10K")
    with rsusim.Server(world) as server, httpx2.Client(timeout=PATIENCE_SECONDS, verify=False) as http:
        yield Scene(world, account, race, five, ten, Api(server, account, http))
    assert world.log.failures == []


@pytest.fixture
def small() -> Iterator[Api]:
    """The ready small world, as its first partner sees it."""
    world = rsusim.worlds.small(3, NOW)
    account = world.accounts["Peak Timing"]
    with rsusim.Server(world) as server, httpx2.Client(timeout=PATIENCE_SECONDS, verify=False) as http:
        yield Api(server, account, http)
    assert world.log.failures == []
