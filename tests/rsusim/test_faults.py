"""Each scripted fault strikes the calls its rule names, and no others."""

import asyncio
import json
import time
from itertools import pairwise
from typing import Any

import httpx2
import pytest

import rsusim
from rsusim.sending import Connections
from tests.rsusim.conftest import Scene
from tests.waiting import PATIENCE_SECONDS, wait_until


def ask(scene: Scene, endpoint: str = "participants", **params: Any) -> httpx2.Response:
    return scene.api.get(f"race/{scene.race}/{endpoint}", event_id=scene.five, **params)


def test_a_rule_strikes_from_the_nth_matching_call_on_and_so_many_times(scene: Scene) -> None:
    scene.world.faults.add(rsusim.Fault(path="participants", kind="http_503", nth=2, times=2))

    statuses = []
    for _ in range(4):
        ask(scene, "removed-participants")
        statuses.append(ask(scene).status_code)

    assert statuses == [200, 503, 503, 200]
    assert all(row.status == 200 for row in scene.world.log.of("removed-participants"))


def test_a_rule_can_be_bound_to_partner_race_and_parameters(scene: Scene) -> None:
    for miss in (
        rsusim.Fault(partner="Nobody"),
        rsusim.Fault(race_id=1),
        rsusim.Fault(query={"page": "2"}),
        rsusim.Fault(path="^/rest/races$"),
    ):
        scene.world.faults.add(miss)
    hit = scene.world.faults.add(
        rsusim.Fault(
            path=r"race/\d+/participants",
            partner="Peak Timing",
            race_id=scene.race,
            query={"event_id": str(scene.five)},
        )
    )
    assert ask(scene).status_code == 503
    assert hit.struck == 1
    scene.world.faults.add(rsusim.Fault(times=None))
    scene.world.faults.clear()
    assert ask(scene).status_code == 200


def test_a_probability_is_kept_roughly_and_repeats_with_the_seed() -> None:
    runs = []
    for _ in range(2):
        faults = rsusim.World(seed=5).faults
        faults.add(rsusim.Fault(times=None, probability=0.3))
        info = rsusim.RequestInfo(1, 0, "GET", "races", "/rest/races", {})
        runs.append([faults.pick(info) is not None for _ in range(500)])
    assert runs[0] == runs[1]
    assert 100 < sum(runs[0]) < 200


@pytest.mark.parametrize(
    ("kind", "status", "text"),
    [
        ("http_408", 408, "<html"),
        ("http_500", 500, "<html"),
        ("http_522", 522, "cloudflare"),
        ("html_200", 200, "<!DOCTYPE html>"),
        ("error_4", 200, '{"error":{"error_code":4,"error_msg":"Unknown error"}}'),
        ("error_14", 200, '{"error":{"error_code":14,"error_msg":"Request throttled."}}'),
        ("error_string", 200, '{"error":"Something went wrong","details":{}}'),
        ("empty_body", 200, ""),
        ("empty_object", 200, "{}"),
        ("empty_array", 200, "[]"),
        ("null", 200, "null"),
        ("string", 200, '"OK"'),
        ("number", 200, "0"),
    ],
)
def test_an_answer_can_be_replaced(scene: Scene, kind: str, status: int, text: str) -> None:
    scene.world.faults.add(rsusim.Fault(kind=kind))

    answer = ask(scene)

    assert answer.status_code == status
    assert text in answer.text
    assert (text == "") == (answer.text == "")
    assert scene.world.log.requests[0].fault == kind


def test_retry_after_is_sent_only_when_given(scene: Scene) -> None:
    scene.world.faults.add(rsusim.Fault(kind="http_429"))
    scene.world.faults.add(rsusim.Fault(kind="http_429", nth=2, retry_after=7))

    assert "retry-after" not in ask(scene).headers
    assert ask(scene).headers["retry-after"] == "7"


def test_bodies_can_be_anything(scene: Scene) -> None:
    scene.world.register(scene.five)
    scene.world.faults.add(rsusim.Fault(kind="body", body="pong", status=203, content_type="text/x"))
    answer = ask(scene)
    assert (answer.status_code, answer.text, answer.headers["content-type"]) == (203, "pong", "text/x")
    for kind in ("truncated", "bad_utf8"):
        scene.world.faults.add(rsusim.Fault(kind=kind))
        with pytest.raises(ValueError):
            json.loads(ask(scene).content)


def test_a_connection_can_be_reset_cut_off_or_hang(scene: Scene) -> None:
    for _ in range(5):
        scene.world.register(scene.five)
    for kind, error in (
        ("reset", httpx2.ReadError),
        ("cut_off", httpx2.RemoteProtocolError),
        ("hang", httpx2.TransportError),
    ):
        scene.world.faults.add(rsusim.Fault(kind=kind, seconds=0.05))
        with pytest.raises(error):
            ask(scene)
        assert scene.world.log.requests[-1].status == 0
        assert ask(scene).status_code == 200


@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_answer_can_be_slow_before_or_after_its_rows_are_read(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    """The wait lies between two moments: a slow machine makes it longer, and moves it nowhere."""
    kind = ("slow", "slow_after_reading", "slow_body")[place]
    scene.world.faults.add(rsusim.Fault(kind=kind, seconds=0.25))
    settle = scene.world.settle
    moments: list[float] = []

    def read() -> None:
        settle()
        moments.append(time.monotonic())

    # Settled is what is about to be read.
    monkeypatch.setattr(scene.world, "settle", read)
    scene.world.after_answer(lambda _: moments.append(time.monotonic()))

    assert ask(scene).status_code == 200

    moments.append(time.monotonic())
    [info] = scene.world.log.requests
    waits = [later - earlier for earlier, later in pairwise([info.started, *moments])]
    assert len(waits) == 3
    assert waits[place] >= 0.25


def test_hostile_rows_are_put_into_the_page_as_they_are(scene: Scene) -> None:
    number = scene.world.register(scene.five)
    rows = ['{"registration_id":"not a number"}', "[1,2]", "null"]
    scene.world.faults.add(rsusim.Fault(kind="hostile_rows", rows=rows))
    scene.world.faults.add(rsusim.Fault(kind="hostile_rows", rows=rows, position="start", nth=2))

    assert ask(scene).json()[0]["participants"][1:] == [json.loads(row) for row in rows]
    assert ask(scene).json()[0]["participants"][3]["registration_id"] == number


def test_rows_can_be_dropped_cut_or_doubled(scene: Scene) -> None:
    a, b = scene.world.register(scene.five), scene.world.register(scene.five)
    for kind, wanted in (
        ("no_rows", []),
        ("short_page", [a]),
        ("skip_rows", [b]),
        ("duplicate_rows", [a, a, b, b]),
    ):
        scene.world.faults.add(rsusim.Fault(kind=kind))
        assert scene.api.ids(scene.race, scene.five) == wanted


def test_a_quirk_can_hold_for_one_call(scene: Scene) -> None:
    scene.world.faults.add(rsusim.Fault(path="race", kind="quirk", quirks={"race_in_array": "T"}))

    assert isinstance(scene.api.json(f"race/{scene.race}"), list)
    assert isinstance(scene.api.json(f"race/{scene.race}"), dict)


def test_credentials_come_back_in_errors(scene: Scene) -> None:
    secret = scene.account.api_secret
    for kind in ("credentials_echoed", "credentials_in_error"):
        scene.world.faults.add(rsusim.Fault(kind=kind))
        assert secret in ask(scene).text
    scene.world.quirks.echo_credentials = True
    assert secret in scene.api.get("race/9999999/participants").text


def test_unknown_kinds_quirks_and_fields_are_refused(scene: Scene) -> None:
    with pytest.raises(ValueError, match="no fault kind"):
        rsusim.Fault(kind="gremlins")
    with pytest.raises(ValueError, match="no quirk"):
        rsusim.Fault(kind="quirk", quirks={"gremlins": 1})
    with pytest.raises(ValueError, match="layout is one of"):
        scene.world.quirks.set("layout", "spiral")
    with pytest.raises(ValueError, match="error_order names"):
        scene.world.quirks.set("error_order", "key,luck")
    with pytest.raises(TypeError, match="unknown fields"):
        scene.world.register(scene.five, firstname="Ada")


@pytest.mark.parametrize(
    ("throttle", "status"), [("error14", 200), ("http429", 429), ("http429_retry_after", 429)]
)
def test_a_third_simultaneous_call_is_throttled(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, throttle: str, status: int
) -> None:
    async def until_all_are_there(_: Connections, seconds: float) -> None:
        while len(scene.world.log.requests) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    monkeypatch.setattr(Connections, "sleep", until_all_are_there)
    scene.world.quirks.throttle = throttle
    scene.world.quirks.latency_seconds = 1
    rule = scene.world.faults.add(rsusim.Fault(kind="quirk", times=None))

    async def three() -> list[httpx2.Response]:
        params = {"format": "json", **scene.api.credentials}
        async with httpx2.AsyncClient(verify=False, timeout=PATIENCE_SECONDS) as http:
            calls = [http.get(f"{scene.api.server.base_url}/races", params=params) for _ in range(3)]
            return await asyncio.gather(*calls)

    answers = asyncio.run(three())
    refused = [answer for answer in answers if "races" not in answer.text]

    assert len(refused) == 1
    assert refused[0].status_code == status
    assert ("retry-after" in refused[0].headers) == (throttle == "http429_retry_after")
    assert ("error_code" in refused[0].text) == (throttle == "error14")
    assert rule.struck == 2  # a throttled call uses up no fault
    assert scene.world.log.highest_in_flight == 3
    assert scene.world.log.highest_in_flight_of_callers() == {"Peak Timing": 3}


def test_the_server_stops_at_once_while_calls_hang(world: rsusim.World) -> None:
    world.faults.add(rsusim.Fault(kind="hang", times=None))
    server = rsusim.Server(world).start()

    async def hang() -> None:
        async with httpx2.AsyncClient(verify=False, timeout=None) as http:
            call = asyncio.create_task(http.get(server.base_url + "/races"))
            await asyncio.to_thread(wait_until, lambda: world.log.requests)
            [thread] = server._threads
            await asyncio.to_thread(server.stop)
            assert not thread.is_alive(), "the call goes on hanging"
            with pytest.raises(httpx2.TransportError):
                await call

    asyncio.run(hang())


def test_a_hostile_row_that_is_no_json_spoils_the_page_in_either_format(scene: Scene) -> None:
    scene.world.faults.add(rsusim.Fault(kind="hostile_rows", rows=["{oops"], times=2))

    with pytest.raises(ValueError):
        json.loads(ask(scene).text)
    assert "oops" in ask(scene, format="xml").text
