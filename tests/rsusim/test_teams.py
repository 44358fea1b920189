"""Teams: what happens to them, what their members' rows show of it, and how a call lists them."""

from datetime import datetime
from random import Random
from typing import Any

import pytest

import rsusim
from rsusim.life import Life
from tests.rsusim.conftest import NOW, Scene

T0 = int(NOW.timestamp())


@pytest.fixture
def crowd(scene: Scene) -> int:
    """An event of the scene with five derived teams and forty people."""
    event = scene.world.add_event(scene.race, "Relay", datetime(2026, 10, 4, 10), team_count=5)
    for _ in range(40):
        scene.world.register(event)
    scene.world.advance(100)
    return event


def shown(scene: Scene, event: int, number: int) -> dict[str, Any]:
    rows = scene.api.rows(scene.race, event, results_per_page=2500)
    return next(row for row in rows if row["registration_id"] == number)


def truth(scene: Scene, team: int) -> dict[str, Any]:
    return next(row for row in scene.world.teams_truth(scene.account) if row["team_id"] == team)


def test_the_truth_counts_those_whose_rows_show_the_team(scene: Scene, crowd: int) -> None:
    teams = scene.world.teams_truth(scene.account)
    rows = scene.api.rows(scene.race, crowd)

    assert [row["team_id"] for row in teams] == [crowd * 100 + i for i in range(5)]
    for team in teams:
        members = [row["registration_id"] for row in rows if row["team_id"] == team["team_id"]]
        assert (team["registration_ids"], team["team_member_current_count"]) == (members, len(members))
    sizes = {team["team_member_current_count"] for team in teams}
    assert 0 in sizes
    assert len(sizes) > 1


def test_a_renamed_team_is_seen_in_its_members_rows_whose_last_modified_stays(
    scene: Scene, crowd: int
) -> None:
    team = next(row for row in scene.world.teams_truth(scene.account) if row["registration_ids"])
    number = team["registration_ids"][0]
    before = shown(scene, crowd, number)

    scene.world.rename_team(team["team_id"], "Café/Crew")
    scene.world.assign_team_bib(team["team_id"], 77)

    after = shown(scene, crowd, number)
    changed = {"team_name": "Café/Crew", "team_bib_num": 77}
    assert after == before | changed
    assert truth(scene, team["team_id"]) == team | changed | {"last_modified_ts": T0 + 100}
    others = [row for row in scene.world.teams_truth(scene.account) if row["team_id"] != team["team_id"]]
    assert all(row["last_modified_ts"] <= T0 for row in others)


def test_a_rename_can_move_the_members_last_modified(scene: Scene, crowd: int) -> None:
    team = next(row for row in scene.world.teams_truth(scene.account) if row["registration_ids"])
    scene.world.quirks.team_edit_moves_members = True

    scene.world.rename_team(team["team_id"], "Crew")

    moved = scene.api.ids(scene.race, crowd, modified_after_timestamp=T0 + 1)
    assert moved == team["registration_ids"]
    assert shown(scene, crowd, moved[0])["team_name"] == "Crew"


def test_a_rename_published_late_keeps_its_moment_and_undoes_no_later_one(scene: Scene) -> None:
    team = scene.world.add_team(scene.five, "A")
    scene.world.advance(10)
    scene.world.rename_team(team, "B", published_after=40)
    assert truth(scene, team)["team_name"] == "A"
    scene.world.advance(5)
    scene.world.assign_team_bib(team, 3, published_after=10)
    scene.world.advance(10)
    for _ in range(2):  # the bib was published with the name, and the name's own turn changes nothing
        row = truth(scene, team)
        assert (row["team_name"], row["team_bib_num"], row["last_modified_ts"]) == ("B", 3, T0 + 15)
        scene.world.advance(60)


def test_those_who_come_and_go_move_the_team(scene: Scene) -> None:
    team, other = scene.world.add_team(scene.five, "A", team_bib_num=5), scene.world.add_team(scene.five)
    numbers = [scene.world.register(scene.five) for _ in range(2)]

    def now(team_id: int) -> tuple[int, int]:
        row = truth(scene, team_id)
        return row["team_member_current_count"], row["last_modified_ts"] - T0

    assert now(team) == (0, 0)
    scene.world.advance(10)
    for number in numbers:
        scene.world.join_team(number, team)
    assert now(team) == (2, 10)
    row = shown(scene, scene.five, numbers[0])
    assert (row["team_id"], row["team_name"], row["team_bib_num"]) == (team, "A", 5)
    assert (row["team_gender"], row["last_modified"]) == (None, T0 + 10)
    scene.world.advance(10)
    scene.world.join_team(numbers[0], other)
    assert (now(team), now(other)) == ((1, 20), (1, 20))
    scene.world.advance(10)
    scene.world.leave_team(numbers[0])
    assert (now(team), now(other)) == ((1, 20), (0, 30))
    row = shown(scene, scene.five, numbers[0])
    assert {name for name in row if name.startswith("team_") and row[name] is not None} == set()
    scene.world.advance(10)
    scene.world.edit(numbers[1], city="Elsewhere")
    assert now(team) == (1, 20)
    scene.world.remove(numbers[1])
    assert now(team) == (0, 40)
    scene.world.advance(10)
    scene.world.restore(numbers[1])
    assert now(team) == (1, 50)
    scene.world.advance(10)
    scene.world.edit_silently(numbers[1], team_id=other)
    assert (now(team), now(other)) == ((0, 60), (1, 60))
    assert shown(scene, scene.five, numbers[1])["last_modified"] == T0 + 50
    assert scene.world.members_of(other) == [numbers[1]]


def test_somebody_who_joins_unseen_is_not_counted_yet(scene: Scene) -> None:
    team = scene.world.add_team(scene.five)
    scene.world.advance(10)
    scene.world.register(scene.five, team_id=team, published_after=30)
    assert truth(scene, team)["team_member_current_count"] == 0
    scene.world.advance(30)
    row = truth(scene, team)
    assert (row["team_member_current_count"], row["last_modified_ts"]) == (1, T0 + 10)


def test_a_removed_team_loses_its_members(scene: Scene, crowd: int) -> None:
    team = next(row for row in scene.world.teams_truth(scene.account) if row["registration_ids"])
    number = team["registration_ids"][0]
    before = shown(scene, crowd, number)

    scene.world.remove_team(team["team_id"])

    after = shown(scene, crowd, number)
    assert after == before | {name: None for name in before if name.startswith("team_")}
    assert team["team_id"] not in [row["team_id"] for row in scene.world.teams_truth(scene.account)]
    with pytest.raises(KeyError):
        scene.world.rename_team(team["team_id"], "Again")
    joined = scene.world.add_team(crowd)
    scene.world.join_team(number, joined)
    scene.world.quirks.team_removal_moves_members = True
    scene.world.advance(10)
    scene.world.remove_team(joined)
    assert scene.api.ids(scene.race, crowd, modified_after_timestamp=T0 + 110) == [number]
    assert shown(scene, crowd, number)["team_id"] is None


def test_a_team_stays_behind_when_its_member_goes_to_another_event(scene: Scene) -> None:
    team = scene.world.add_team(scene.five)
    number = scene.world.register(scene.five, team_id=team)
    scene.world.transfer(number, scene.ten)
    assert scene.api.rows(scene.race, scene.ten)[0]["team_id"] is None
    assert truth(scene, team)["team_member_current_count"] == 0
    moved = scene.world.register(scene.five, team_id=team)
    scene.world.move(moved, scene.ten)
    assert shown(scene, scene.ten, moved)["team_id"] is None
    with pytest.raises(ValueError, match="none of event"):
        scene.world.join_team(moved, team)


def test_joining_and_leaving_undo_what_was_edited_in_the_row(scene: Scene) -> None:
    team = scene.world.add_team(scene.five, "A")
    number = scene.world.register(scene.five, team_name="By hand", city="Lakeport")
    assert shown(scene, scene.five, number)["team_name"] == "By hand"
    scene.world.join_team(number, team)
    row = shown(scene, scene.five, number)
    assert (row["team_name"], row["user"]["address"]["city"]) == ("A", "Lakeport")
    scene.world.edit(number, team_name="By hand")
    scene.world.rename_team(team, "B")
    assert shown(scene, scene.five, number)["team_name"] == "By hand"
    scene.world.leave_team(number)
    assert shown(scene, scene.five, number)["team_name"] is None


def test_a_removed_row_that_is_still_listed_shows_its_team_and_is_not_counted(scene: Scene) -> None:
    team = scene.world.add_team(scene.five, "A")
    number = scene.world.register(scene.five, team_id=team)
    scene.world.quirks.removed_stays_listed_seconds = 30
    scene.world.remove(number)
    assert shown(scene, scene.five, number)["team_name"] == "A"
    scene.world.rename_team(team, "B")
    assert shown(scene, scene.five, number)["team_name"] == "B"
    assert scene.world.members_of(team) == []


def test_people_loaded_and_teams_derived_later_are_counted(scene: Scene, crowd: int) -> None:
    def counted() -> int:
        return sum(row["team_member_current_count"] for row in scene.world.teams_truth(scene.account))

    before = counted()
    scene.world.populate(crowd, ((n, T0, T0, None) for n in range(1000, 1100)))
    assert counted() > before
    scene.world.populate(scene.five, ((n, T0, T0, None) for n in range(2000, 2100)))
    before = counted()
    scene.world.edit_event(scene.five, team_count=2)
    assert counted() > before


def test_unknown_teams_fields_and_too_many_derived_ones_are_refused(scene: Scene) -> None:
    with pytest.raises(KeyError):
        scene.world.rename_team(1, "X")
    with pytest.raises(TypeError, match="no fields"):
        scene.world.add_team(scene.five, bib=1)
    with pytest.raises(ValueError, match="add_team adds more"):
        scene.world.add_event(scene.race, team_count=101)


def test_life_edits_teams_without_disturbing_what_else_happens() -> None:
    lives = []
    for share in (0.0, 0.2):
        world = rsusim.worlds.lively_demo(1, NOW)
        life = Life(world, 4, rate=0.05, team_edits=share)
        life.step(7200)
        teams = world.teams_truth("Peak Timing")
        people = {n: (r.head.last_modified, r.head.bib_num) for n, r in world.registrations.items()}
        lives.append((teams, people, {"rename_team", "team_bib"} & set(life.happened)))
    (still, people, none), (edited, same_people, both) = lives
    assert people == same_people
    assert (none, both) == (set(), {"rename_team", "team_bib"})
    assert still != edited


@pytest.mark.parametrize("seed", range(4))
def test_rows_and_teams_agree_whatever_happened(scene: Scene, seed: int) -> None:
    world, random = scene.world, Random(seed)
    events = [world.add_event(scene.race, str(i), datetime(2026, 10, 3, 9), team_count=3) for i in range(2)]
    events.append(world.bundle(scene.race, events))
    life = Life(world, seed, rate=0.05, mischief=0.1, team_edits=0.3)
    for _ in range(25):
        world.quirks.publication_delay_seconds = random.choice((0, 0, 45))
        world.quirks.team_edit_moves_members = random.random() < 0.3
        life.step(random.randrange(60, 1200))
        event = random.choice(events)
        team = world.add_team(event) if random.random() < 0.3 else None
        teams = [row.team_id for row in world.teams_of(event)]
        for number in random.sample(world.active(event), min(5, len(world.active(event)))):
            if world.registrations[number].head.event_id == event and teams:
                world.join_team(number, random.choice(teams))
            if random.random() < 0.3:
                world.leave_team(number)
        if team is None and teams and random.random() < 0.3:
            world.remove_team(random.choice(teams))
        rows = [row for number in events for row in scene.api.rows(scene.race, number, results_per_page=2500)]
        for row in world.teams_truth(scene.account):
            members = [other for other in rows if other["team_id"] == row["team_id"]]
            assert [other["registration_id"] for other in members] == row["registration_ids"]
            assert {other["team_name"] for other in members} <= {row["team_name"]}
            assert {other["team_bib_num"] for other in members} <= {row["team_bib_num"]}
    assert sum(len(row["registration_ids"]) for row in world.teams_truth(scene.account)) > 5


def test_the_control_path_edits_teams_and_tells_of_them(scene: Scene) -> None:
    team = scene.api.control("do", {"op": "add_team", "event": scene.five, "name": "A", "team_bib_num": 4})
    scene.api.control("do", {"op": "rename_team", "team_id": team["result"], "name": "B"})

    url = f"{scene.api.server.control_url}/teams"
    told = scene.api.http.get(url, params={"partner": "Peak Timing"}).json()

    assert told == scene.world.teams_truth(scene.account, scene.race)
    assert [(row["team_name"], row["team_bib_num"]) for row in told] == [("B", 4)]
    assert scene.world.teams_truth(scene.account, scene.race + 1) == []


def listed(scene: Scene, *events: int, **params: Any) -> list[dict[str, Any]]:
    body = scene.api.json(f"race/{scene.race}/teams", event_id=",".join(map(str, events)), **params)
    assert list(body) == ["teams"], body
    rows: list[dict[str, Any]] = body["teams"]
    return rows


def ids(scene: Scene, *events: int, **params: Any) -> list[int]:
    return [row["team_id"] for row in listed(scene, *events, **params)]


KEYS = (
    "team_id",
    "team_name",
    "team_type_id",
    "team_age_restriction_id",
    "team_gender",
    "team_bib_num",
    "team_member_current_count",
    "last_modified_ts",
)


def test_a_listing_equals_the_truth_and_has_the_documented_keys(scene: Scene, crowd: int) -> None:
    scene.world.add_team(crowd, "駅伝/Ekiden", team_gender="C", team_age_restriction_id=31)

    rows = listed(scene, crowd)

    wanted = [{key: row[key] for key in KEYS} for row in scene.world.teams_truth(scene.account)]
    assert sorted(rows, key=lambda row: row["team_id"]) == wanted
    assert [list(row) for row in rows] == [list(KEYS)] * 6
    text = scene.api.get(f"race/{scene.race}/teams", event_id=crowd).text
    assert r"\u99c5\u4f1d\/Ekiden" in text
    assert scene.api.get(f"race/{scene.race}/teams", event_id=crowd, format=None).text.startswith("<?xml")


def test_teams_are_ordered_by_name_and_with_modified_since_by_change(scene: Scene) -> None:
    b, c, a = (scene.world.add_team(scene.five, name) for name in ("b", "C", "a"))
    for seconds, team in ((60, c), (120, a)):
        scene.world.advance(60)
        scene.world.assign_team_bib(team, seconds)

    assert ids(scene, scene.five) == [a, b, c]
    assert ids(scene, scene.five, modified_since=T0) == [b, c, a]
    assert ids(scene, scene.five, modified_since=T0 + 60) == [c, a]
    assert ids(scene, scene.five, modified_since=T0 + 61) == [a]
    assert ids(scene, scene.five, modified_since="2026-10-02 08:02:00") == [a]  # Eastern
    assert ids(scene, scene.five, modified_since="tomorrow") == []
    scene.world.quirks.teams_change_order = "descending"
    assert ids(scene, scene.five, modified_since=T0) == [a, c, b]
    scene.world.quirks.teams_since_inclusive = False
    assert ids(scene, scene.five, modified_since=T0 + 60) == [a]
    scene.world.quirks.teams_modified_since = "day"
    assert ids(scene, scene.five, modified_since=T0 + 1000) == [a, c, b]
    scene.world.advance(86_400)
    assert ids(scene, scene.five, modified_since="today") == []
    scene.world.quirks.teams_modified_since = "ignored"
    assert ids(scene, scene.five, modified_since=T0 + 100_000) == [a, b, c]


def test_a_member_who_joins_brings_the_team_into_the_delta(scene: Scene) -> None:
    team = scene.world.add_team(scene.five)
    scene.world.advance(30)
    assert ids(scene, scene.five, modified_since=T0 + 1) == []
    scene.world.register(scene.five, team_id=team)
    rows = listed(scene, scene.five, modified_since=T0 + 30)
    assert [(row["team_member_current_count"], row["last_modified_ts"]) for row in rows] == [(1, T0 + 30)]


def test_pages_count_teams_over_all_events(scene: Scene) -> None:
    made = [scene.world.add_team((scene.five, scene.ten)[i % 2], f"{i:03}") for i in range(60)]

    assert ids(scene, scene.five, scene.ten) == made[:50]
    assert ids(scene, scene.five, scene.ten, page=2) == made[50:]
    assert ids(scene, scene.five, scene.ten, page=3) == []
    assert ids(scene, scene.five, scene.ten, results_per_page=7, page=2) == made[7:14]
    assert ids(scene, scene.five, results_per_page=9999) == made[::2]
    scene.world.quirks.teams_max_page = 20
    assert ids(scene, scene.five, scene.ten, results_per_page=9999) == made[:20]
    scene.world.quirks.page_size_excess = "error3"
    path = f"race/{scene.race}/teams"
    assert scene.api.error(path, event_id=scene.five, results_per_page=21) == 3


def test_each_layout_shows_the_same_teams(scene: Scene) -> None:
    team = scene.world.add_team(scene.ten, "A")
    path, both = f"race/{scene.race}/teams", f"{scene.five},{scene.ten}"
    row = listed(scene, scene.ten)[0]
    five, ten = {"event_id": scene.five}, {"event_id": scene.ten}
    layouts: dict[str, tuple[Any, Any]] = {
        "flat": ({"teams": [row]}, {"teams": [row]}),
        "per_event": (
            [{"event": five, "teams": []}, {"event": ten, "teams": [row]}],
            [{"event": five}, {"event": ten, "teams": [row]}],
        ),
        "inside": (
            [{"event": five | {"teams": []}}, {"event": ten | {"teams": [row]}}],
            [{"event": five}, {"event": ten | {"teams": [row]}}],
        ),
        "events": (
            {"events": [five | {"teams": []}, ten | {"teams": [row]}]},
            {"events": [five, ten | {"teams": [row]}]},
        ),
    }
    for name, forms in layouts.items():
        scene.world.quirks.set("teams_layout", name)
        for empty, form in zip(("empty", "absent"), forms, strict=True):
            scene.world.quirks.set("teams_key_when_empty", empty)
            assert scene.api.json(path, event_id=both) == form, name
    scene.world.quirks.set("teams_layout", "flat")
    assert scene.api.json(path, event_id=scene.five) == {}
    scene.world.quirks.set("teams_layout", "per_event")
    scene.world.quirks.set("event_when_empty", "array")
    assert scene.api.json(path, event_id=scene.five) == [{"event": []}]
    assert row["team_id"] == team


def test_rows_can_be_bent(scene: Scene) -> None:
    scene.world.add_team(scene.five, "a", team_bib_num=7)
    scene.world.add_team(scene.five, "b")

    def fields(name: str) -> list[Any]:
        return [row.get(name, "absent") for row in listed(scene, scene.five)]

    assert (fields("team_bib_num"), fields("team_member_current_count")) == ([7, None], [0, 0])
    assert fields("event_id") == ["absent"] * 2
    quirks = scene.world.quirks
    quirks.teams_bib, quirks.teams_no_bib, quirks.teams_count = "text", "empty", "text"
    quirks.teams_event_id = True
    assert (fields("team_bib_num"), fields("team_member_current_count")) == (["7", ""], ["0", "0"])
    assert fields("event_id") == [scene.five] * 2
    quirks.teams_no_bib = "absent"
    assert fields("team_bib_num") == ["7", "absent"]
    quirks.ints_as_strings = "some"
    assert all(isinstance(value, str) for value in fields("team_id"))
    assert all(isinstance(value, int) for value in fields("last_modified_ts"))
    quirks.unknown_fields = True
    body = scene.api.json(f"race/{scene.race}/teams", event_id=scene.five)
    assert "zz_unknown" in body
    assert "zz_unknown" in body["teams"][0]


def test_group_sizes_come_when_asked_for_in_the_row_or_beside(scene: Scene) -> None:
    scene.world.add_team(scene.five)
    path, sizes = f"race/{scene.race}/teams", {"min_size": 2, "max_size": 10}

    def asked() -> Any:
        return scene.api.json(path, event_id=scene.five, include_group_sizes="T")

    assert "group_sizes" not in listed(scene, scene.five)[0]
    assert asked()["teams"][0]["group_sizes"] == sizes
    scene.world.quirks.teams_group_sizes = "beside"
    assert asked()["group_sizes"] == sizes
    assert "group_sizes" not in asked()["teams"][0]
    scene.world.quirks.teams_group_sizes = "ignored"
    assert asked() == scene.api.json(path, event_id=scene.five)
    assert scene.api.error(path, event_id=scene.five, include_group_sizes="yes") == 3


def test_errors_and_rights_are_those_of_participants(scene: Scene) -> None:
    scene.world.add_team(scene.five)
    other = scene.world.add_event(scene.world.add_race([scene.account]))
    path = f"race/{scene.race}/teams"

    assert scene.api.error(path) == 3
    assert scene.api.error(path, event_id="x") == 3
    assert scene.api.error(path, event_id=other) == 301
    assert scene.api.error(path, event_id=f"{scene.five},{other}") == 301
    assert scene.api.error("race/9999999/teams", event_id=scene.five) == 201
    assert scene.api.error(path, event_id=scene.five, api_secret="wrong") == 6
    assert scene.api.error(path, event_id=scene.five, api_key=None, api_secret=None) == 7
    assert scene.api.error(path, event_id=scene.five, modified_since="yesterday") == 9
    assert scene.api.error(path, event_id=scene.five, page=0) == 3
    scene.world.quirks.unknown_event_in_list = "skip"
    assert len(listed(scene, scene.five, other)) == 1
    scene.world.withdraw(scene.account, scene.race)
    assert scene.api.error(path, event_id=scene.five) == 7
    assert scene.world.teams_truth(scene.account) == []
    scene.world.quirks.lost_rights = "empty"
    assert listed(scene, scene.five) == []


def test_a_comma_list_can_be_ignored_or_answered_with_foreign_teams(scene: Scene) -> None:
    a, b = scene.world.add_team(scene.five, "a"), scene.world.add_team(scene.ten, "b")

    assert ids(scene, scene.five) == [a]
    scene.world.quirks.comma_list = "first_only"
    assert ids(scene, scene.five, scene.ten) == [a]
    scene.world.quirks.comma_list = "foreign_rows"
    assert ids(scene, scene.five) == [a, b]


def test_teams_calls_are_logged_and_struck_by_their_own_faults(scene: Scene) -> None:
    a, b = scene.world.add_team(scene.five, "a"), scene.world.add_team(scene.five, "b")
    faults = scene.world.faults
    faults.add(rsusim.Fault(path="participants", times=None))
    for kind, wanted in (("no_rows", []), ("short_page", [a]), ("duplicate_rows", [a, a, b, b])):
        faults.add(rsusim.Fault(path="teams", kind=kind))
        assert scene.api.error("v2/teams/get-removed-teams.json") == 1  # another method, not struck
        assert ids(scene, scene.five) == wanted
    faults.add(rsusim.Fault(path="teams", kind="hostile_rows", rows=['{"team_id":"x"}'], position="start"))
    assert ids(scene, scene.five) == ["x", a, b]
    faults.add(rsusim.Fault(path="teams", kind="quirk", quirks={"teams_count": "text"}))
    assert listed(scene, scene.five)[0]["team_member_current_count"] == "0"
    faults.add(rsusim.Fault(path="teams", kind="http_503"))
    assert scene.api.get(f"race/{scene.race}/teams", event_id=scene.five).status_code == 503

    calls = scene.world.log.of("teams")
    assert [row.rows for row in calls] == [0, 1, 4, 2, 2, 2]
    assert [row.fault for row in calls[-2:]] == ["quirk", "http_503"]
    assert {row.query["event_id"] for row in calls} == {str(scene.five)}
    assert calls[0].race_id == scene.race


def test_teams_of_a_big_event_are_listed_in_milliseconds(scene: Scene) -> None:
    event = scene.world.add_event(scene.race, "Relay", team_count=12)
    rows = ((n, T0 - 100_000 + n, T0 - 100_000 + n, None) for n in range(1, 30_001))
    scene.world.populate(event, rows)
    assert sum(row["team_member_current_count"] for row in listed(scene, event)) > 3000
    for _ in range(4):
        number = scene.world.register(event)
        scene.world.assign_bib(number, 1)
        assert len(listed(scene, event)) == 12
    assert min(row.work_seconds for row in scene.world.log.of("teams")) < 0.02
