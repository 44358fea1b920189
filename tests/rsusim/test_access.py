"""Who may see what, and which error says no (sections 1 to 4)."""

import json
from typing import Any

import httpx2
import pytest

import rsusim
from tests.rsusim.conftest import Scene

QUIET: dict[str, Any] = {"api_key": None, "api_secret": None}


def test_the_default_format_is_not_json(scene: Scene) -> None:
    for path in ("races", f"race/{scene.race}", f"race/{scene.race}/participants"):
        answer = scene.api.get(path, format=None, event_id=scene.five)
        assert answer.status_code == 200
        assert "xml" in answer.headers["content-type"]
        with pytest.raises(ValueError):
            json.loads(answer.text)
    assert scene.api.get("races", format="JSON").json()["races"]
    assert scene.api.get("races", format="csv").text.startswith("<?xml")


def test_paths_ignore_case_and_a_trailing_slash(scene: Scene) -> None:
    base = scene.api.server.base_url.removesuffix("/rest")
    query: dict[str, Any] = {"format": "json", **scene.api.credentials, "event_id": scene.five}
    for path in (
        f"Rest/Race/{scene.race}/Participants",
        f"rest/race/{scene.race}/participants/",
        f"REST/race/participants?race_id={scene.race}",
    ):
        url, _, more = path.partition("?")
        extra = {"race_id": str(scene.race)} if more else {}
        assert isinstance(scene.api.http.get(f"{base}/{url}", params={**query, **extra}).json(), list)
    query["race_id"] = scene.race
    assert "race" in scene.api.http.get(f"{base}/rest/race/", params=query).json()
    assert scene.api.http.get(f"{base}/elsewhere").status_code == 404


def test_an_unknown_method_and_a_wrong_http_method_are_errors_1_and_2(scene: Scene) -> None:
    assert scene.api.error("race/1/nothing/at/all") == 1
    answer = scene.api.http.post(f"{scene.api.server.base_url}/races", params={"format": "json"})
    assert answer.json()["error"]["error_code"] == 2


def test_every_scheme_of_credentials_opens_the_same_race(scene: Scene) -> None:
    account, path = scene.account, f"race/{scene.race}/participants"
    http, base = scene.api.http, scene.api.server.base_url
    query = {"format": "json", "event_id": str(scene.five)}
    for params, headers in (
        ({"api_key": account.api_key, "api_secret": account.api_secret}, {}),
        ({"rsu_api_key": account.v2_key}, {"X-RSU-API-SECRET": account.v2_secret}),
        ({}, {"Authorization": f"Bearer {account.bearer_token}"}),
    ):
        assert isinstance(
            http.get(f"{base}/{path}", params={**query, **params}, headers=headers).json(), list
        )
    for params, headers, code in (
        ({"api_key": account.api_key}, {}, 6),
        ({"api_key": account.v2_key, "api_secret": account.v2_secret}, {}, 6),
        ({"rsu_api_key": account.v2_key, "api_secret": account.v2_secret}, {}, 6),
        ({}, {"Authorization": "Bearer nobody"}, 6),
        ({"sp_api_key": "x"}, {"X-RSU-API-SECRET": "y"}, 6),
        (
            {"api_key": account.api_key, "api_secret": account.api_secret, "rsu_api_key": account.v2_key},
            {"X-RSU-API-SECRET": account.v2_secret},
            6,
        ),
        ({}, {}, 7),
    ):
        answer = http.get(f"{base}/{path}", params={**query, **params}, headers=headers)
        assert answer.status_code == 200
        assert answer.json()["error"]["error_code"] == code


def test_rights_are_per_race_and_can_be_withdrawn_and_given_back(scene: Scene) -> None:
    path = f"race/{scene.race}/participants"
    scene.world.register(scene.five)
    scene.world.withdraw(scene.account, scene.race)

    assert scene.api.error(path, event_id=scene.five) == 7
    assert scene.api.error(f"race/{scene.race}/participant-counts") == 7
    assert scene.api.error(f"race/{scene.race}/removed-participants", event_id=scene.five) == 7
    assert scene.api.json("races")["races"] == []
    assert scene.api.json(f"race/{scene.race}")["race"]["race_id"] == scene.race  # public
    assert scene.world.truth(scene.account) == []
    scene.world.quirks.lost_rights = "empty"
    assert scene.api.ids(scene.race, scene.five) == []
    scene.world.grant(scene.account, scene.race)
    assert len(scene.api.ids(scene.race, scene.five)) == 1


def test_which_error_wins_can_be_chosen(scene: Scene) -> None:
    wrong: dict[str, Any] = {"api_secret": "wrong", "event_id": "x", "page": "x"}
    path = "race/9999999/participants"

    assert scene.api.error(path, **wrong) == 6
    scene.world.quirks.error_order = "race,key"
    assert scene.api.error(path, **wrong) == 201
    scene.world.quirks.error_order = "params"
    assert scene.api.error(path, **wrong) == 3


def test_an_event_of_another_race_is_not_found(scene: Scene) -> None:
    other = scene.world.add_event(scene.world.add_race([scene.account]))
    path = f"race/{scene.race}/participants"

    assert scene.api.error(path, event_id=other) == 301
    assert scene.api.error(path, event_id=f"{scene.five},{other}") == 301
    scene.world.quirks.unknown_event_in_list = "skip"
    assert scene.api.ids(scene.race, scene.five, other) == []
    assert scene.api.error(path) == 3


def test_races_without_credentials_are_all_public_ones(scene: Scene) -> None:
    scene.world.add_race([], "Somebody else's", "America/Denver")
    scene.world.add_race([scene.account], "Draft", is_draft_race=True)

    def names(**params: Any) -> list[str]:
        return [row["race"]["name"] for row in scene.api.json("races", **params)["races"]]

    assert names() == ["Draft", "Harbor Lights"]
    assert names(**QUIET) == ["Harbor Lights", "Somebody else's"]
    assert scene.api.error("races", api_secret="wrong") == 6
    scene.world.quirks.bad_key_on_public = "ignored"
    assert names(api_secret="wrong") == ["Harbor Lights", "Somebody else's"]


def caller(scene: Scene, registration: str | None, secret: str | None) -> httpx2.Response:
    params = {"format": "json"} | ({} if registration is None else {"rsu_api_reg": registration})
    headers = {} if secret is None else {"X-RSU-API-REG-SECRET": secret}
    return scene.api.http.get(f"{scene.api.server.base_url}/races", params=params, headers=headers)


def test_a_caller_registration_is_optional_but_a_wrong_one_is_refused_with_http_400(scene: Scene) -> None:
    good = scene.world.caller

    assert "races" in caller(scene, None, None).json()
    assert "races" in caller(scene, good.registration, good.secret).json()
    for registration, secret in (
        (good.registration, "wrong"),
        (good.registration, None),
        (None, good.secret),
        ("1.x", good.secret),
        (good.registration, good.secret + "x"),
    ):
        answer = caller(scene, registration, secret)
        assert answer.status_code == 400
        assert answer.json()["error"]["error_code"] == 17
        assert answer.json()["error_details"]


def test_a_caller_registration_can_be_required_or_ignored(scene: Scene) -> None:
    scene.world.quirks.caller_registration = "required"
    assert caller(scene, None, None).json()["error"]["error_code"] == 17
    good = scene.world.caller
    assert "races" in caller(scene, good.registration, good.secret).json()
    scene.world.quirks.caller_registration = "ignored"
    assert "races" in caller(scene, "1.x", "wrong").json()


def test_oauth_tokens_are_issued_refreshed_and_run_out(scene: Scene) -> None:
    client, base = scene.world.oauth_client, scene.api.server.base_url
    form = {"client_id": client.client_id, "client_secret": client.client_secret}

    def post(method: str, **more: str) -> httpx2.Response:
        return scene.api.http.post(f"{base}/v2/auth/{method}.json", data={**form, **more})

    code = scene.world.issue_code(scene.account)
    first = post("auth-code-redemption", grant_type="authorization_code", code=code)
    assert first.status_code == 200
    body = first.json()
    assert set(body) == {"access_token", "token_type", "expires_in", "refresh_token", "scope"}
    again = post("auth-code-redemption", grant_type="authorization_code", code=code)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")

    def races(token: str) -> Any:
        headers = {"Authorization": f"Bearer {token}"}
        return scene.api.http.get(f"{base}/races", params={"format": "json"}, headers=headers).json()

    assert len(races(body["access_token"])["races"]) == 1
    scene.world.advance(body["expires_in"])
    assert races(body["access_token"])["error"]["error_code"] == 6
    renewed = post("refresh-token", grant_type="refresh_token", refresh_token=body["refresh_token"])
    assert "races" in races(renewed.json()["access_token"])
    form["client_secret"] = "wrong"
    refused = post("refresh-token", grant_type="refresh_token", refresh_token=body["refresh_token"])
    assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")


def test_the_date_header_is_the_simulated_clock_in_whole_seconds(scene: Scene) -> None:
    scene.world.advance(1.999)
    assert scene.api.get("races").headers["date"] == "Fri, 02 Oct 2026 12:00:01 GMT"
    scene.world.quirks.date_offset_seconds = -3600
    assert scene.api.get("races").headers["date"] == "Fri, 02 Oct 2026 11:00:01 GMT"
    scene.world.quirks.date_header = False
    assert "date" not in scene.api.get("races").headers


def test_a_vendor_clock_that_is_wrong_dates_answers_and_changes_alike(scene: Scene) -> None:
    world = scene.world
    [event] = list(world.events)[:1]
    began = int(world.clock.time())
    world.clock.ahead = 300
    early = world.register(event)
    world.advance(10)
    world.clock.ahead = 0

    late = world.register(event)

    assert [world.registrations[each].head.last_modified - began for each in (early, late)] == [300, 10]
    world.clock.ahead = -60
    assert scene.api.get("races").headers["date"] == "Fri, 02 Oct 2026 11:59:10 GMT"


def test_the_log_tells_when_a_call_was_over(scene: Scene) -> None:
    scene.api.get("races")

    [info] = scene.world.log.of("races")
    assert info.over_at == info.at


def test_headers_are_those_of_the_recording(scene: Scene) -> None:
    headers = scene.api.get("races").headers

    assert headers["server"] == "nginx"
    assert headers["content-type"] == "application/json; charset=utf-8"
    for absent in ("etag", "last-modified", "retry-after", "x-ratelimit-limit"):
        assert absent not in headers


def test_accounts_have_long_distinct_secrets_from_the_seed() -> None:
    worlds = [rsusim.World(seed=seed) for seed in (1, 1, 2)]
    accounts = [world.add_partner("Peak Timing") for world in worlds]
    secrets = [
        accounts[0].api_key,
        accounts[0].api_secret,
        accounts[0].v2_key,
        accounts[0].v2_secret,
        accounts[0].bearer_token,
    ]
    assert accounts[0] == accounts[1] != accounts[2]
    assert len(set(secrets)) == 5
    assert all(len(secret) >= 20 for secret in secrets)
