"""Teams: all years with a backfill, the live ones about daily, and none taken for gone."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

import rsusim
from bibwire.domain.secrets import Secret
from bibwire.domain.teams import TRY_AGAIN
from bibwire.engine.backfill_reports import BackfillReport, BackfillRequest
from bibwire.engine.reconcile import ReconcileReport, ReconcileRequest
from rsusim.truth import teams_truth_of
from tests.e2e import truth
from tests.e2e.simulation import Simulation, utc
from tests.e2e.test_kill import Scene
from tests.house import House
from tests.waiting import PATIENCE_SECONDS

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
YEAR = timedelta(days=365)


@pytest.fixture
def world() -> rsusim.World:
    world = rsusim.World(seed=4, now=utc("2026-09-12T16:00:00+00:00"))
    world.quirks.teams_event_id = True
    return world


@pytest.fixture
def account(world: rsusim.World) -> rsusim.Account:
    return world.add_partner("Peak Timing")


@pytest.fixture
def server(world: rsusim.World) -> Iterator[rsusim.Server]:
    with rsusim.Server(world) as server:
        yield server


@pytest.fixture
def house(
    world: rsusim.World, account: rsusim.Account, server: rsusim.Server, database_url: str
) -> Iterator[House]:
    with House(world, server.base_url, database_url, retry_seconds=0) as house:
        house.add_partner(account)
        yield house


def a_relay(
    world: rsusim.World,
    *accounts: rsusim.Account,
    years: tuple[int, ...] = (2026, 2025, 2024),
    teams: int = 5,
    events: tuple[str, ...] = ("Relay", "Ekiden"),
) -> int:
    """A race on October 3rd of each of these years, with teams of two, and people in none."""
    race = world.add_race(list(accounts), f"Relay {len(world.races)}", "America/Denver")
    for year in sorted(years):
        for name in events:
            event = world.add_event(race, name, datetime(year, 10, 3, 8), team_count=0)
            world.register(event)
            for number in range(teams):
                bib: Any = [None, 700 + number, f"0{number}", f"R{number}"][number % 4]
                team = world.add_team(event, team_bib_num=bib, team_gender=["", "M", "F", "C"][number % 4])
                for _ in range(2):
                    world.join_team(world.register(event), team)
    world.advance(3600)
    return race


def events_of(world: rsusim.World, race: int, year: int) -> list[int]:
    return [number for number in world.races[race].event_ids if world.events[number].start.year == year]


def backfill(house: House, **wanted: Any) -> BackfillReport:
    request = BackfillRequest(since=house.world.now - 10 * YEAR, **wanted)
    return house.run(house.runtime.backfill(request))


def reconcile(house: House, **wanted: Any) -> ReconcileReport:
    return house.run(house.runtime.reconcile(ReconcileRequest(**wanted)))


def stored(house: House, *, partner: str = "Peak Timing") -> dict[int, dict[str, Any]]:
    found = house.rows(
        "SELECT t.*, t.additional_data ->> 'team_bib_num' AS bib_text FROM bibwire.teams AS t"
        " JOIN bibwire.partners AS p USING (partner_id) WHERE p.name = %(name)s",
        name=partner,
    )
    return {row["team_id"]: row for row in found}


def check(
    house: House,
    *accounts: rsusim.Account,
    events: set[int] | None = None,
    rows: dict[int, dict[str, Any]] | None = None,
) -> None:
    """Every team is stored as the world has it, and no other is; none is missing."""
    assert accounts, "nothing would be compared"
    for account in accounts:
        expected = {
            team["team_id"]: {
                "race_id": team["race_id"],
                "event_id": team["event_id"],
                "name": team["team_name"],
                "team_type_id": team["team_type_id"],
                "gender": team["team_gender"],
                "member_count": team["team_member_current_count"],
                "last_modified_at": datetime.fromtimestamp(team["last_modified_ts"], UTC),
                "missing_since": None,
            }
            | bib_of(team["team_bib_num"])
            for team in teams_truth_of(house.world, account.name)
            if events is None or team["event_id"] in events
        }
        columns = next(iter(expected.values())).keys()
        found = stored(house, partner=account.name) if rows is None else rows
        assert {number: {name: row[name] for name in columns} for number, row in found.items()} == expected


def bib_of(sent: Any) -> dict[str, Any]:
    """What the columns should hold: the number, and the text unless it is just that."""
    number = int(sent) if sent is not None and str(sent).isdigit() else None
    return {"bib_num": number, "bib_text": None if sent is None or sent in (number, str(number)) else sent}


def asked(world: rsusim.World) -> list[str]:
    """The events of each call for teams, in order."""
    return [info.query["event_id"] for info in world.log.of("teams")]


def test_a_backfill_brings_every_team_of_every_year(
    world: rsusim.World, server: rsusim.Server, account: rsusim.Account, house: House
) -> None:
    lakeside = world.add_partner("Lakeside Race Services")
    house.add_partner(lakeside)
    first = a_relay(world, account)
    second = a_relay(world, account, lakeside, years=(2025, 2023), events=("Relay",))
    world.log.clear()

    dry = backfill(house, dry_run=True)
    assert not asked(world)
    report = backfill(house)

    assert not report.errors
    assert not report.notes
    check(house, account, lakeside)
    # One list of all events, past and live, each; it was in what was announced.
    whole = [",".join(map(str, sorted(world.races[race].event_ids))) for race in (first, second, second)]
    assert sorted(asked(world)) == sorted(whole)
    listed = sum(len(world.log.of(name)) for name in ("participants", "removed-participants", "teams"))
    assert dry.left_calls == report.left_calls <= listed
    assert (report.teams.listed, report.teams.new, report.teams.missing) == (50, 50, 0)
    assert report.races_loaded == 3
    truth.assert_mirror_equals_world(house.rows, world, account, lakeside, every_event=True)
    truth.assert_feed_is_sound(house.rows, account, lakeside)
    assert set(house.kinds()) == {"loaded", "history_loaded"}


@pytest.mark.parametrize(("layout", "tells"), [("flat", False), ("per_event", True), ("inside", True)])
@pytest.mark.parametrize("bib", ["int", "text"])
def test_layouts_that_are_likely_are_read(
    layout: str, tells: bool, bib: str, world: rsusim.World, account: rsusim.Account, house: House
) -> None:
    world.quirks.teams_event_id = False
    world.quirks.teams_layout, world.quirks.teams_bib = layout, bib
    world.quirks.teams_count, world.quirks.teams_no_bib = bib, "absent" if bib == "int" else "empty"
    race = a_relay(world, account, years=(2026, 2025))

    assert backfill(house).errors == []

    rows = stored(house)
    assert len(rows) == 20
    if not tells:
        # Which of its events each is of nobody said; asked for by itself, an event's are known.
        events = sorted(world.races[race].event_ids)
        assert {row["event_id"] for row in rows.values()} == {None}
        assert all(row["asked_event_ids"] == events for row in rows.values())
        for row in rows.values():
            row["event_id"] = world.rosters.head(row["team_id"]).event_id
    check(house, account, rows=rows)


def test_a_layout_that_nobody_foresaw_is_an_error_of_the_race(
    world: rsusim.World, account: rsusim.Account, house: House
) -> None:
    world.quirks.teams_layout = "events"
    a_relay(world, account)

    report = backfill(house)

    [error] = report.errors
    assert "not a list of teams" in error.error
    assert (report.races_loaded, report.exit_code) == (1, 3)
    truth.assert_mirror_equals_world(house.rows, world, account, every_event=True)


def test_a_list_of_events_that_lacks_a_member_s_team_is_asked_for_event_by_event(
    world: rsusim.World, account: rsusim.Account, house: House
) -> None:
    race = a_relay(world, account, years=(2025,))
    first, second = sorted(world.races[race].event_ids)
    short = {"comma_list": "first_only"}
    world.faults.add(rsusim.Fault(path="teams", kind="quirk", quirks=short, times=None))

    report = backfill(house)

    assert asked(world) == [f"{first},{second}", str(first), str(second)]
    assert any("lacked teams" in note for note in report.notes)
    check(house, account)


def test_a_team_that_members_name_and_no_list_shows_costs_that_look_once(
    world: rsusim.World, account: rsusim.Account, house: House
) -> None:
    race = a_relay(world, account, years=(2026,))
    house.sync()
    person = world.active(world.races[race].event_ids[0])[0]
    world.edit(person, team_id=4711, team_name="Nobody's")
    world.advance(60)
    reconcile(house)
    assert len(asked(world)) == 3
    world.log.clear()

    report = reconcile(house)

    assert len(asked(world)) == 1
    assert not any("lacked" in note for note in report.notes)
    check(house, account)


def test_finished_teams_are_not_asked_for_again(
    world: rsusim.World, account: rsusim.Account, house: House
) -> None:
    a_relay(world, account)
    backfill(house)
    before = house.rows("SELECT xmin::text, * FROM bibwire.teams ORDER BY 2, 3")
    world.log.clear()

    again = backfill(house)

    assert world.log.calls == 0
    assert (again.races_before, again.races_loaded) == (1, 0)
    assert house.rows("SELECT xmin::text, * FROM bibwire.teams ORDER BY 2, 3") == before


def test_a_mirror_that_knows_no_teams_yet_gets_them_for_a_call_a_race(
    world: rsusim.World, account: rsusim.Account, house: House
) -> None:
    """As one does that was filled before there was the table."""
    race = a_relay(world, account)
    backfill(house)
    house.rows("DELETE FROM bibwire.teams RETURNING 1")
    house.rows("DELETE FROM bibwire.team_listings RETURNING 1")
    world.log.clear()

    report = backfill(house)

    assert [(info.endpoint, info.race_id) for info in world.log.requests] == [("teams", race)]
    assert (report.left_calls, report.races_before, report.races_loaded) == (1, 0, 1)
    check(house, account)


def test_an_event_that_is_over_has_its_teams_listed_once_more(
    world: rsusim.World, account: rsusim.Account, house: House
) -> None:
    race = a_relay(world, account)
    backfill(house)
    world.advance(40 * 86_400)
    events = events_of(world, race, 2026)
    world.assign_team_bib(world.teams_of(events[0])[0].team_id, 4711)
    world.log.clear()

    report = backfill(house)

    assert asked(world) == [",".join(map(str, events))]
    assert (report.teams.changed, report.teams.new) == (1, 0)
    check(house, account)


def test_an_interrupted_listing_goes_on_at_the_page_after_the_last_one(
    world: rsusim.World, server: rsusim.Server, account: rsusim.Account, database_url: str
) -> None:
    a_relay(world, account, years=(2025,), events=("Relay",), teams=10)
    world.faults.add(rsusim.Fault(path="teams", kind="http_500", nth=3, times=None))
    with House(world, server.base_url, database_url, page_size=4, retry_seconds=0) as house:
        house.add_partner(account)
        report = backfill(house)
        assert [error.race_id for error in report.errors] == [next(iter(world.races))]
        # What is loaded is not undone, and it was tried once more at the end.
        assert (report.races_loaded, report.exit_code) == (1, 3)
        truth.assert_mirror_equals_world(house.rows, world, account, every_event=True)
        assert len(stored(house)) == 8
        tried = [info.query["page"] for info in world.log.of("teams")]
        assert tried[:2] == ["1", "2"]
        assert set(tried[2:]) == {"3"}
        [state] = house.rows("SELECT failing_since, last_error, finished_at FROM bibwire.backfills")
        assert state["failing_since"] is not None
        assert state["finished_at"] is not None
        world.faults.clear()
        world.log.clear()

        report = backfill(house)

        assert [(info.endpoint, info.query["page"]) for info in world.log.requests] == [("teams", "3")]
        assert report.exit_code == 0
        check(house, account)
        [state] = house.rows("SELECT failing_since, last_error FROM bibwire.backfills")
        assert state == {"failing_since": None, "last_error": None}


def test_a_kill_between_pages_costs_a_page_at_most(database_url: str) -> None:
    world = rsusim.World(seed=1, now=datetime.now(UTC))
    world.quirks.teams_event_id = True
    peak = world.add_partner("Peak Timing")
    a_relay(world, peak, years=(world.now.year - 1,), teams=70)
    world.clock.run(1)
    with (
        rsusim.Server(world) as server,
        House(
            world,
            server.base_url,
            database_url,
            caller_reg=Secret(world.caller.registration),
            caller_secret=Secret(world.caller.secret),
        ) as house,
    ):
        scene, random, kills = Scene(house, database_url), Random(7), 0
        while True:
            victim = scene.sync_struck(
                "backfill", 2, before=kills % 3 == 2, delay=random.uniform(0, 0.01), endpoint="teams"
            )
            assert victim.communicate(timeout=PATIENCE_SECONDS)[0] == ""
            if victim.returncode != -signal.SIGKILL:
                break
            kills += 1
        assert kills >= 4
        assert scene.sync("backfill") == ""
        check(house, peak)
        pages = Counter(info.query["page"] for info in world.log.of("teams"))
        assert len(pages) == 8
        assert sum(number - 1 for number in pages.values()) <= kills


def test_whoever_refuses_teams_leaves_the_people_loaded(
    world: rsusim.World, account: rsusim.Account, house: House
) -> None:
    race = a_relay(world, account)
    for kind in ("error_7", "error_1"):
        world.advance(TRY_AGAIN.total_seconds())
        world.faults.clear()
        world.faults.add(rsusim.Fault(path="teams", kind=kind, times=None))
        world.log.clear()

        report = backfill(house)

        assert report.errors == []
        assert report.exit_code == 0
        assert report.races_loaded == 1
        [note] = report.notes
        assert f"Race {race}: teams are not listed" in note
        assert len(asked(world)) == 1
        truth.assert_mirror_equals_world(house.rows, world, account, every_event=True)
    [scope] = house.rows("SELECT access_lost_at FROM bibwire.races")
    assert scope["access_lost_at"] is None

    # Nor are they asked for again at once; but they are a week later, or by a person.
    world.log.clear()
    assert backfill(house).calls == 0
    assert any("teams" in note for note in reconcile(house).notes)
    assert len(asked(world)) == 1
    world.faults.clear()
    world.advance(8 * 86_400)
    assert backfill(house).notes == []
    check(house, account)


def test_a_rename_and_a_bib_that_do_not_move_members_come_with_the_reconciliation(
    world: rsusim.World, account: rsusim.Account, house: House
) -> None:
    race = a_relay(world, account)
    house.sync()
    first = reconcile(house)
    live = set(events_of(world, race, 2026))
    check(house, account, events=live)
    assert [(each["race_id"], each["new"], each["listed"]) for each in first.teams] == [(race, 10, 10)]
    world.advance(3600)
    event = min(live)
    renamed, numbered, *_ = (team.team_id for team in world.teams_of(event))
    world.rename_team(renamed, "The Renamed")
    world.assign_team_bib(numbered, 4711)
    world.advance(3600)
    before = house.rows("SELECT xmin::text, team_id FROM bibwire.teams ORDER BY 2")
    house.sync()
    assert house.rows("SELECT xmin::text, team_id FROM bibwire.teams ORDER BY 2") == before

    report = reconcile(house)

    [told] = report.as_json()["teams"]
    assert (told["new"], told["changed"], told["missing"], told["partner"]) == (0, 2, 0, account.name)
    rows = stored(house)
    assert (rows[renamed]["name"], rows[numbered]["bib_num"]) == ("The Renamed", 4711)
    check(house, account, events=live)
    written = {row["team_id"]: row["xmin"] for row in before}
    now = house.rows("SELECT xmin::text, team_id FROM bibwire.teams")
    assert {row["team_id"] for row in now if row["xmin"] != written[row["team_id"]]} == {renamed, numbered}


def test_a_team_that_is_gone_is_marked_and_stays(
    world: rsusim.World, account: rsusim.Account, house: House
) -> None:
    race = a_relay(world, account)
    backfill(house)
    gone = world.teams_of(events_of(world, race, 2026)[0])[2].team_id
    world.remove_team(gone)
    world.advance(3600)

    report = reconcile(house)

    assert [each["missing"] for each in report.teams] == [1]
    marked = stored(house)[gone]["missing_since"]
    assert marked == world.now
    assert [number for number, row in stored(house).items() if row["missing_since"]] == [gone]
    world.advance(3600)
    assert [each["missing"] for each in reconcile(house).teams] == [0]
    assert stored(house)[gone]["missing_since"] == marked


def test_a_team_that_comes_back_is_missing_no_more(
    world: rsusim.World, account: rsusim.Account, house: House
) -> None:
    a_relay(world, account, years=(2026,), events=("Relay",))
    house.sync()
    reconcile(house)
    world.faults.add(rsusim.Fault(path="teams", kind="skip_rows", count=2))
    assert [each["missing"] for each in reconcile(house).teams] == [2]
    assert sum(row["missing_since"] is not None for row in stored(house).values()) == 2

    report = reconcile(house)

    assert [(each["returned"], each["changed"]) for each in report.teams] == [(2, 0)]
    check(house, account)


@pytest.mark.parametrize("kind", ["http_500", "html_200", "empty_object", "error_7"])
def test_nothing_is_marked_and_nobody_s_reconciliation_fails_on_an_error(
    kind: str, world: rsusim.World, account: rsusim.Account, house: House
) -> None:
    race = a_relay(world, account)
    house.sync()
    reconcile(house)
    world.advance(3600)
    world.remove_team(world.teams_of(events_of(world, race, 2026)[0])[0].team_id)
    before = house.rows("SELECT xmin::text, * FROM bibwire.teams ORDER BY 2, 3")
    world.faults.add(rsusim.Fault(path="teams", kind=kind, times=None))

    report = reconcile(house)

    assert report.errors == []
    assert report.races_reconciled == 1
    assert len(report.events) == 2
    assert report.teams == []
    assert any("teams" in note for note in report.notes)
    assert house.rows("SELECT xmin::text, * FROM bibwire.teams ORDER BY 2, 3") == before
    [run] = house.rows(
        "SELECT outcome FROM bibwire.sync_history WHERE kind = 'reconcile' ORDER BY run_id DESC LIMIT 1"
    )
    assert run["outcome"] == "ok"


def test_a_bad_row_stops_no_other_and_marks_none_missing(
    world: rsusim.World, account: rsusim.Account, house: House
) -> None:
    race = a_relay(world, account)
    house.sync()
    reconcile(house)
    world.remove_team(world.teams_of(events_of(world, race, 2026)[0])[0].team_id)
    bad = rsusim.Fault(path="teams", kind="hostile_rows", rows=('{"team_id": "x"}',), times=None)
    world.faults.add(bad)

    report = reconcile(house)

    assert [(each["quarantined"], each["missing"]) for each in report.teams] == [(1, 0)]
    [row] = house.rows("SELECT reason, resolved_at FROM bibwire.quarantine WHERE source = 'teams'")
    assert row["resolved_at"] is None
    world.faults.clear()
    world.advance(60)
    assert [each["missing"] for each in reconcile(house).teams] == [1]
    [row] = house.rows("SELECT resolved_at FROM bibwire.quarantine WHERE source = 'teams'")
    assert row["resolved_at"] is not None


def test_races_without_teams_cost_no_call_and_those_with_some_are_listed_about_daily(
    world: rsusim.World, account: rsusim.Account, server: rsusim.Server, database_url: str
) -> None:
    relay = a_relay(world, account, years=(2026,))
    plain = a_relay(world, account, years=(2026,), teams=0)

    async def live() -> None:
        async with Simulation(world, server.base_url, database_url) as simulation:
            await simulation.add_partner(account)
            await simulation.run_until(world.now + HOUR)
            assert not world.log.of("teams")
            await simulation.run_until(world.now + DAY)
            first = world.teams_of(world.races[relay].event_ids[0])[0].team_id
            world.rename_team(first, "The Renamed")
            world.log.clear()
            await simulation.run_until(world.now + DAY)

            assert Counter(info.race_id for info in world.log.of("teams")) in ({relay: 1}, {relay: 2})
            listings = Counter(
                info.race_id
                for info in world.log.of("participants")
                if "modified_after_timestamp" not in info.query
            )
            assert listings[plain] >= 1
            [row] = simulation.rows("SELECT name FROM bibwire.teams WHERE team_id = %(id)s", id=first)
            assert row["name"] == "The Renamed"
            truth.assert_mirror_equals_world(simulation.rows, world, account)

    asyncio.run(live())
