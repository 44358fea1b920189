"""Answers have the keys and types of the reference's samples, and its wire form."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.rsusim.conftest import Api, Scene

SAMPLES = Path(__file__).parent.parent / "samples"


def sample(name: str) -> Any:
    return json.loads((SAMPLES / f"{name}.json").read_text())


def kinds(rows: list[dict[str, Any]]) -> dict[str, set[str]]:
    """Return for each key, nested by dots, the JSON types met, null left out."""
    found: dict[str, set[str]] = {}
    for row in rows:
        for key, value in row.items():
            types = found.setdefault(key, set())
            if isinstance(value, dict):
                types.add("object")
                for inner, inner_types in kinds([value]).items():
                    found.setdefault(f"{key}.{inner}", set()).update(inner_types)
            elif value is not None:
                types.add(type(value).__name__)
    return found


def assert_same_shape(got: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    assert got
    mine, theirs = kinds(got), kinds(wanted)
    assert set(mine) == set(theirs)
    for key, types in mine.items():
        assert not types or not theirs[key] or types <= theirs[key], key


def every_row(api: Api, **params: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for wrapped in api.json("races", events="T", start_date="2010-01-01")["races"]:
        race = wrapped["race"]
        events = [event["event_id"] for event in race["events"]]
        rows += api.rows(race["race_id"], *events, results_per_page=2500, **params)
    return rows


def test_a_participant_has_the_keys_and_types_of_the_sample(small: Api) -> None:
    assert_same_shape(every_row(small), sample("participants_single_event")[0]["participants"])


def test_a_participant_with_options_has_the_keys_and_types_of_the_sample(small: Api) -> None:
    rows = every_row(
        small,
        include_questions="T",
        include_registration_addons="T",
        include_fundraisers="T",
        include_multi_race_bundle_info="T",
        supports_nb="T",
    )
    assert_same_shape(rows, sample("participants_with_options")[0]["participants"] + rows[:0])


def test_questions_and_addons_have_the_keys_and_types_of_the_sample(small: Api) -> None:
    wanted = sample("participants_with_options")[0]["participants"][0]
    rows = every_row(small, include_questions="T", include_registration_addons="T")
    for name in ("question_responses", "participant_addons"):
        assert_same_shape([part for row in rows for part in row[name]], wanted[name])


def test_a_removed_row_has_the_keys_and_types_of_the_sample(small: Api) -> None:
    race = small.json("races", name="Harbor")["races"][0]["race"]["race_id"]
    events = [event["event_id"] for event in small.json(f"race/{race}")["race"]["events"]]
    got = small.removed(race, *events)
    wanted = sample("removed_participants")[0]["event"]["participants"]
    assert_same_shape([row | {"new_registration_id": None} for row in got], wanted)


def test_the_list_of_races_has_the_keys_and_types_of_the_sample(small: Api) -> None:
    got = small.json("races", include_event_days="T", start_date="2010-01-01")
    wanted = sample("races_list")["races"] + sample("races_list_with_event_days")["races"]
    assert list(got) == ["races"]
    assert_same_shape([row["race"] for row in got["races"]], [row["race"] for row in wanted])
    days = sample("races_list_with_event_days")["races"][0]["race"]["race_event_days"]
    assert_same_shape(got["races"][-1]["race"]["race_event_days"], days)


def test_a_race_has_the_keys_and_types_of_the_samples(small: Api) -> None:
    race = small.json("races", name="Harbor")["races"][0]["race"]["race_id"]
    got = small.json(f"race/{race}", include_questions="T", include_giveaway_details="T")["race"]
    wanted = sample("race_with_giveaways_and_questions")["race"]
    assert set(got) | {"is_private_race"} == set(wanted)
    events = sample("race_with_events")["race"]["events"]
    optional = {"participant_cap", "previous_year_event_id", "giveaway_options"}
    mine, theirs = kinds(got["events"]), kinds(events)
    assert set(mine) - optional == set(theirs) - optional
    assert all(mine[k] <= theirs[k] for k in set(mine) - optional if theirs[k])
    assert_same_shape(got["events"][0]["giveaway_options"], wanted["events"][0]["giveaway_options"])
    assert set(kinds(wanted["questions"])) <= set(kinds(got["questions"]))


def test_counts_have_the_shape_of_the_sample(small: Api) -> None:
    race = small.json("races", name="Harbor")["races"][0]["race"]["race_id"]
    got = small.json(f"race/{race}/participant-counts")
    assert_same_shape(got["participant_counts"], sample("participant_counts")["participant_counts"])


def test_empty_answers_are_those_of_the_samples(scene: Scene) -> None:
    path = f"race/{scene.race}"
    no_rows = sample("participants_no_rows")
    no_rows[0]["event"]["event_id"] = scene.five

    assert scene.api.json(f"{path}/participants", event_id=scene.five) == no_rows
    assert scene.api.json(f"{path}/removed-participants", event_id=scene.five) == no_rows
    assert scene.api.json("races", page=2) == sample("races_list_past_the_end")


@pytest.mark.parametrize(
    ("name", "path", "params"),
    [
        ("error_6_bad_key", "race/{race}/participants", {"api_secret": "wrong"}),
        ("error_201_race_not_found", "race/9999999/participants", {"event_id": 1}),
        ("error_301_event_not_found", "race/{race}/participants", {"event_id": 9999999}),
    ],
)
def test_errors_are_those_of_the_samples(scene: Scene, name: str, path: str, params: dict[str, Any]) -> None:
    answer = scene.api.get(path.format(race=scene.race), **params)

    assert answer.status_code == 200
    assert answer.text == (SAMPLES / f"{name}.json").read_text()


def test_the_wire_form_of_a_row_is_that_of_the_sample_to_the_byte(scene: Scene) -> None:
    wire = (SAMPLES / "participants_single_event.wire.json").read_text()
    row = json.loads(wire)[0]["participants"][0]
    world = scene.world
    user, skip = row.pop("user"), ("registration_id", "event_id", "registration_date", "last_modified")
    fields = {key: value for key, value in (user | user.pop("address") | row).items() if key not in skip}
    world.register(
        scene.five, registered_at=1777608004, **{k: v for k, v in fields.items() if k != "address"}
    )

    answer = scene.api.get(f"race/{scene.race}/participants", event_id=scene.five).text

    number = scene.api.ids(scene.race, scene.five)[0]
    wanted = wire.replace('"registration_id":92646990', f'"registration_id":{number}')
    assert answer == wanted.replace('"event_id":901003', f'"event_id":{scene.five}')
