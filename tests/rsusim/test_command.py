"""The command, the control path and the log, as another process uses them."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest

import rsusim
from tests.rsusim.conftest import NOW, Scene
from tests.waiting import PATIENCE_SECONDS


@contextmanager
def command(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "rsusim", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_tells_its_address_serves_and_ends_cleanly(number: signal.Signals) -> None:
    with command("--json", "--scale", "small", "--quirk", "layout=object", "--seed", "3") as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        account = told["accounts"][0]
        query = {"api_key": account["api_key"], "api_secret": account["api_secret"], "format": "json"}
        answer = httpx2.get(told["base_url"] + "/races", params=query, timeout=PATIENCE_SECONDS)
        assert len(answer.json()["races"]) == 2
        control = told["base_url"].replace("/rest", "/_control/state")
        state = httpx2.get(control, timeout=PATIENCE_SECONDS).json()
        assert state["quirks"]["layout"] == "object"
        assert state["speed"] == 1.0
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
        assert (process.returncode, out, err) == (0, "", "")


def test_without_json_the_address_is_the_first_line_and_accounts_follow() -> None:
    with command("--scale", "200", "--rate", "0", "--speed", "0", "--now", NOW.isoformat()) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        name, key, secret = process.stdout.readline().rstrip("\n").split("\t")
        assert name == "Peak Timing"
        assert min(len(key), len(secret)) >= 20


@pytest.mark.parametrize(
    "arguments",
    [["--scale", "huge"], ["--quirk", "layout=spiral"], ["--quirk", "layout"], ["--now", "2026-10-02T12:00"]],
)
def test_wrong_use_is_told_in_one_line_with_exit_code_2(arguments: list[str]) -> None:
    with command(*arguments) as process:
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 2
    assert out == ""
    assert "Traceback" not in err


def test_the_selfcheck_measures_and_passes() -> None:
    with command("--scale", "9000", "--selfcheck") as process:
        out, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0
    assert "people 9000" in out


def test_the_world_is_changed_over_the_control_path(scene: Scene) -> None:
    made = scene.api.control("do", {"op": "register", "event": scene.five, "first_name": "Ada"})["result"]
    scene.api.control("do", {"op": "assign_bib", "registration_id": made, "bib": 101, "published_after": 5})
    assert scene.api.rows(scene.race, scene.five)[0]["bib_num"] is None
    scene.api.control("advance", {"seconds": 5})
    assert scene.api.rows(scene.race, scene.five)[0]["bib_num"] == 101
    event = {"op": "add_event", "race": scene.race, "name": "New", "start": "2026-10-04T10:00:00"}
    assert scene.api.control("do", event)["result"] > scene.ten
    scene.api.control("clock", {"speed": 2})
    assert scene.world.clock.speed == 2


def test_faults_and_quirks_are_set_over_the_control_path(scene: Scene) -> None:
    scene.api.control("faults", [{"path": "races", "kind": "http_500"}, {"kind": "error_5", "nth": 2}])
    assert scene.api.get("races").status_code == 500
    scene.api.control("faults", {"clear": True})
    assert scene.api.get("races").status_code == 200
    assert scene.api.control("quirks", {"date_offset_seconds": "-2.5"})["date_offset_seconds"] == -2.5


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("do", {"op": "clock"}),
        ("do", {"op": "assign_bib", "registration_id": 1, "bib": 1}),
        ("do", {"op": "register", "event": 1, "nonsense": 1}),
        ("do", {}),
        ("faults", {"kind": "gremlins"}),
        ("faults", {"sort": "wrong"}),
        ("quirks", {"gremlins": 1}),
        ("advance", {"seconds": -1}),
        ("advance", []),
    ],
)
def test_what_the_control_path_cannot_do_is_refused_with_a_reason(scene: Scene, name: str, body: Any) -> None:
    answer = scene.api.http.post(f"{scene.api.server.control_url}/{name}", json=body)
    assert answer.status_code == 400
    assert answer.json()["refused"]


def test_truth_over_the_control_path_is_that_of_the_world(scene: Scene) -> None:
    number = scene.world.register(scene.five, bib_num=7)
    url = f"{scene.api.server.control_url}/truth"
    races = scene.api.http.get(url, params={"partner": "Peak Timing"}).json()
    row = races[0]["events"][0]["active"][0]
    assert (row["registration_id"], row["bib_num"]) == (number, 7)
    assert scene.api.http.get(url, params={"partner": "Nobody"}).status_code == 400


def test_the_log_keeps_order_queries_and_counts_but_no_secret(scene: Scene) -> None:
    scene.api.get("races", page=2)
    scene.world.advance(60)
    scene.api.get(f"race/{scene.race}/participants", event_id=scene.five, modified_after_timestamp=5)
    scene.api.http.get(
        f"{scene.api.server.base_url}/races",
        params={"rsu_api_reg": scene.world.caller.registration, "rsu_api_key": scene.account.v2_key},
        headers={
            "X-RSU-API-SECRET": scene.account.v2_secret,
            "X-RSU-API-REG-SECRET": scene.world.caller.secret,
        },
    )

    log = scene.api.http.get(f"{scene.api.server.control_url}/log").json()

    assert [row["endpoint"] for row in log["requests"]] == ["races", "participants", "races"]
    assert log["requests"][1]["query"]["modified_after_timestamp"] == "5"
    assert log["requests"][1]["race_id"] == scene.race
    assert log["requests"][2]["caller"] == scene.world.caller.registration.split(".")[0]
    assert [row["account"] for row in log["requests"]] == ["Peak Timing"] * 3
    minute = int(NOW.timestamp()) // 60
    assert scene.world.log.per_minute() == {
        ("Peak Timing", "races", minute): 1,
        ("Peak Timing", "participants", minute + 1): 1,
        ("Peak Timing", "races", minute + 1): 1,
    }
    text = json.dumps(log)
    account = scene.account
    for secret in (account.api_key, account.api_secret, account.v2_key, account.v2_secret):
        assert secret not in text
    assert scene.world.caller.registration not in text
    assert scene.world.caller.secret not in text
    scene.world.log.clear()
    assert scene.world.log.calls == 0


def test_hooks_see_each_request_before_and_after_its_answer(scene: Scene) -> None:
    seen: list[Any] = []
    scene.world.before_answer(lambda info: seen.append(("before", info.endpoint, info.status)))
    scene.world.after_answer(lambda info: seen.append(("after", info.endpoint, info.status)))
    scene.api.get("races")
    scene.world.clear_hooks()
    scene.api.get("races")
    assert seen == [("before", "races", 0), ("after", "races", 200)]


def test_many_worlds_can_be_served_at_once() -> None:
    worlds = [rsusim.worlds.small(seed, NOW) for seed in (1, 2)]
    with rsusim.Server(worlds[0]) as first, rsusim.Server(worlds[1]) as second:
        assert first.base_url != second.base_url
        for server in (first, second):
            url = f"{server.base_url}/races?format=json"
            assert httpx2.get(url, timeout=PATIENCE_SECONDS).status_code == 200
