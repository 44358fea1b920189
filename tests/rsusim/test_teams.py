"""Teams: what happens to them, what their members' rows show of it, and how a call lists them."""

from datetime import datetime
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


def test_the_control_path_edits_teams_and_tells_of_them(scene: Scene) -> None:
    team = scene.api.control("do", {"op": "add_team", "event": scene.five, "name": "A", "team_bib_num": 4})
    scene.api.control("do", {"op": "rename_team", "team_id": team["result"], "name": "B"})

    url = f"{scene.api.server.control_url}/teams"
    told = scene.api.http.get(url, params={"partner": "Peak Timing"}).json()

    assert told == scene.world.teams_truth(scene.account, scene.race)
    assert [(row["team_name"], row["team_bib_num"]) for row in told] == [("B", 4)]
    assert scene.world.teams_truth(scene.account, scene.race + 1) == []
