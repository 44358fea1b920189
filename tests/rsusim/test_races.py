"""Races and events: which are listed, in which years, and in which zone their times are."""

from datetime import datetime
from typing import Any

import rsusim
from rsusim.life import Life
from tests.rsusim.conftest import NOW, Scene


def names(scene: Scene, **params: Any) -> list[str]:
    return [row["race"]["name"] for row in scene.api.json("races", **params)["races"]]


def test_past_races_are_listed_only_from_an_early_start_date(scene: Scene) -> None:
    past = scene.world.add_race([scene.account], "Past")
    scene.world.add_event(past, start=datetime(2026, 10, 1, 9))

    assert names(scene) == ["Harbor Lights"]
    assert names(scene, start_date="2026-10-01") == ["Harbor Lights", "Past"]
    assert names(scene, start_date="2010-01-01", end_date="2026-10-03") == ["Past"]
    assert names(scene, start_date="tomorrow") == ["Harbor Lights"]
    assert names(scene, start_date=str(int(NOW.timestamp()) - 86400)) == ["Harbor Lights", "Past"]
    assert scene.api.error("races", start_date="10/01/2026") == 9


def test_today_is_simulated_and_eastern(scene: Scene) -> None:
    scene.world.advance(
        int(datetime.fromisoformat("2026-10-05T03:59:00+00:00").timestamp()) - NOW.timestamp()
    )
    assert names(scene) == ["Harbor Lights"]  # still 4 October in New York
    scene.world.advance(60)
    assert names(scene) == []


def test_the_list_shows_the_current_events_and_a_race_those_of_all_years(scene: Scene) -> None:
    last_year = scene.world.add_event(scene.race, start=datetime(2025, 10, 5, 9))
    next_year = scene.world.add_event(scene.race, start=datetime(2027, 10, 3, 9))

    listed = scene.api.json("races", events="T")["races"][0]["race"]
    whole = scene.api.json(f"race/{scene.race}")["race"]

    assert [event["event_id"] for event in listed["events"]] == [scene.five, scene.ten]
    assert {e["event_id"] for e in whole["events"]} == {scene.five, scene.ten, last_year, next_year}
    assert len({event["race_event_days_id"] for event in whole["events"]}) == 3
    assert (listed["last_date"], listed["next_date"]) == ("10/05/2025", "10/04/2026")
    truth = scene.world.truth(scene.account)[0]
    assert {event.event_id for event in truth.events if event.current} == {scene.five, scene.ten}


def test_a_race_can_be_narrowed_to_days_or_to_the_future(scene: Scene) -> None:
    old = scene.world.add_event(scene.race, start=datetime(2025, 10, 5, 9))
    days = scene.world.events[old].race_event_days_id

    def events(**params: Any) -> list[int]:
        return [e["event_id"] for e in scene.api.json(f"race/{scene.race}", **params)["race"]["events"]]

    assert events(race_event_days_id=days) == [old]
    assert events(future_events_only="T") == [scene.five, scene.ten]
    assert events(most_recent_events_only="T") == [scene.five, scene.ten]


def test_event_times_are_in_the_races_zone_and_the_rest_is_eastern(scene: Scene) -> None:
    event = scene.api.json(f"race/{scene.race}")["race"]["events"][0]
    opened = scene.world.events[scene.five].registration_opens

    assert event["start_time"] == "10/4/2026 09:00"
    assert scene.world.events[scene.five].starts_at == 1791122400  # 09:00 CDT is 14:00 UTC
    assert opened == 1791122400 - 240 * 86400
    assert event["registration_opens"] == "2/6/2026 09:00"  # 08:00 CST


def test_races_are_sorted_and_paged(scene: Scene) -> None:
    for name, day in (("Zebra", 10), ("Apple", 20)):
        race = scene.world.add_race([scene.account], name)
        scene.world.add_event(race, start=datetime(2026, 10, day, 9))

    assert names(scene) == ["Apple", "Harbor Lights", "Zebra"]
    assert names(scene, sort="date ASC") == ["Harbor Lights", "Zebra", "Apple"]
    assert names(scene, sort="date DESC", results_per_page=2) == ["Apple", "Zebra"]
    assert names(scene, sort="date DESC", results_per_page=2, page=2) == ["Harbor Lights"]
    assert scene.api.error("races", sort="distance") == 3


def test_the_modified_filter_is_by_eastern_day_and_inclusive(scene: Scene) -> None:
    scene.world.edit_race(scene.race, name="Renamed")

    assert names(scene, modified_since="2026-10-02") == ["Renamed"]
    assert names(scene, modified_since="2026-10-03") == []
    assert names(scene, modified_on_or_before="2026-10-01") == []
    assert scene.api.json("races")["races"][0]["race"]["last_modified"] == "10/2/2026 08:00"


def test_races_and_events_can_be_removed(scene: Scene) -> None:
    scene.world.remove_event(scene.five)
    assert scene.api.error(f"race/{scene.race}/participants", event_id=scene.five) == 301
    assert scene.api.ids(scene.race, scene.ten) == []
    scene.world.remove_race(scene.race)
    assert scene.api.error(f"race/{scene.race}") == 201
    assert names(scene) == []


def test_an_edited_event_shows_in_the_age_of_rows_already_served(scene: Scene) -> None:
    scene.world.register(scene.five, dob="2000-10-10")
    assert scene.api.rows(scene.race, scene.five)[0]["age"] == 25

    scene.world.edit_event(scene.five, start=datetime(2026, 10, 11, 9))

    assert scene.api.rows(scene.race, scene.five)[0]["age"] == 26


def test_a_late_event_and_a_late_race_edit_are_seen_late(scene: Scene) -> None:
    scene.world.add_event(scene.race, "Late", datetime(2026, 10, 4, 11), published_after=30)
    scene.world.edit_race(scene.race, name="New name", published_after=30)

    assert len(scene.api.json(f"race/{scene.race}")["race"]["events"]) == 2
    assert names(scene) == ["Harbor Lights"]
    scene.world.advance(30)
    assert len(scene.api.json(f"race/{scene.race}")["race"]["events"]) == 3
    assert names(scene) == ["New name"]


def test_unknown_fields_can_stand_anywhere(scene: Scene) -> None:
    scene.world.quirks.unknown_fields = True
    body = scene.api.json("races", events="T")
    race = body["races"][0]["race"]

    assert "zz_unknown" in body
    assert "zz_unknown" in race
    assert "zz_unknown" in race["events"][0]


def test_the_original_account_has_its_real_size_and_all_years() -> None:
    world = rsusim.worlds.original(1, NOW)

    assert len(world.accounts) == 13
    assert len(world.races) == 364
    assert len(world.events) == 1616
    assert len(world.registrations) == 407_053
    coming = [event for event in world.events.values() if event.starts_at > NOW.timestamp()]
    assert len(coming) == 231
    assert 20_000 < sum(len(world.active(event.event_id)) for event in coming) < 30_000
    assert len({world.races[race].timezone for race in world.races}) == 10


def test_the_demonstration_starts_within_hours_and_lives() -> None:
    world = rsusim.worlds.lively_demo(1, NOW)
    starts = [event.starts_at - NOW.timestamp() for event in world.events.values()]

    assert len(world.accounts) == 2
    assert any(0 < left < 4 * 3600 for left in starts)
    assert 300 < len(world.registrations) < 900
    life = Life(world, seed=1, rate=0.5)
    assert life.step(3600) > 1000
    assert {"hand_out", "walk_up", "check_in", "swap", "bib", "edit"} <= set(life.happened)
