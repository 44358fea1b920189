"""What deltas cannot see is found, told and mended; and nothing is taken for gone on thin evidence."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

import rsusim
from bibwire.engine.reconcile import ReconcileReport, ReconcileRequest
from bibwire.store import schedule
from tests.e2e import truth
from tests.e2e.simulation import Simulation, polls, utc
from tests.house import House

HOUR = timedelta(hours=1)


@pytest.fixture
def world() -> rsusim.World:
    return rsusim.World(seed=6, now=utc("2026-09-12T16:00:00+00:00"))


@pytest.fixture
def account(world: rsusim.World) -> rsusim.Account:
    return world.add_partner("Peak Timing")


@pytest.fixture
def events(world: rsusim.World, account: rsusim.Account) -> list[int]:
    race = world.add_race([account], "Harbor Run", "America/Denver")
    made = [world.add_event(race, name) for name in ("10K", "5K")]
    for event in made:
        for number in range(40):
            world.register(event, bib_num=number + 1)
    world.advance(3600)  # or the deltas see them again
    return made


@pytest.fixture
def house(
    world: rsusim.World, account: rsusim.Account, events: list[int], database_url: str
) -> Iterator[House]:
    with rsusim.Server(world) as server, House(world, server.base_url, database_url) as house:
        house.add_partner(account)
        assert house.sync().errors == []
        world.advance(3600)
        yield house


def reconcile(house: House, **wanted: Any) -> ReconcileReport:
    return house.run(house.runtime.reconcile(ReconcileRequest(**wanted)))


def by_event(report: ReconcileReport) -> dict[int, dict[str, Any]]:
    return {event["event_id"]: event for event in report.events}


def test_a_sound_mirror_has_no_drift(house: House, world: rsusim.World, events: list[int]) -> None:
    before = house.rows("SELECT xmin::text, * FROM bibwire.participants ORDER BY 2, 3")
    report = reconcile(house)

    assert report.exit_code == 0
    assert [(e["verdict"], e["counted"], e["listed"], e["same"]) for e in report.events] == [
        ("same", 40, 40, 40),
        ("same", 40, 40, 40),
    ]
    assert house.rows("SELECT xmin::text, * FROM bibwire.participants ORDER BY 2, 3") == before
    kept = house.rows("SELECT verdict, run_id FROM bibwire.reconciliations")
    assert [row["verdict"] for row in kept] == ["same", "same"]
    [run] = house.rows("SELECT * FROM bibwire.sync_history WHERE kind = 'reconcile'")
    assert (run["outcome"], run["calls"]) == ("ok", report.calls - 1), "one call is for the race list"
    assert {row["run_id"] for row in kept} == {run["run_id"]}


def test_every_planted_drift_is_found_and_repaired(
    house: House, world: rsusim.World, account: rsusim.Account, events: list[int]
) -> None:
    first, second = events
    people = world.active(first)
    world.quirks.edit_moves_last_modified = world.quirks.bib_moves_last_modified = False
    world.edit(people[0], first_name="Silent")
    world.assign_bib(people[1], 900)
    world.vanish(people[2])
    world.quirks.edit_moves_last_modified = world.quirks.bib_moves_last_modified = True
    # A row of ours that the vendor never had, and one that we lost.
    house.rows(
        "INSERT INTO bibwire.participants (partner_id, registration_id, race_id, event_id, first_seen_at,"
        " changed_at, as_of) SELECT partner_id, 4711, race_id, event_id, first_seen_at, changed_at, as_of"
        " FROM bibwire.participants WHERE event_id = %(event)s LIMIT 1 RETURNING 1",
        event=second,
    )
    lost = world.active(second)[7]
    house.rows("DELETE FROM bibwire.participants WHERE registration_id = %(id)s RETURNING 1", id=lost)
    world.advance(3600)
    assert house.sync().errors == []
    assert house.participant(people[0])["first_name"] != "Silent", "a delta saw it: it is no drift"

    report = reconcile(house)

    found = by_event(report)
    told = [found[first][name] for name in ("verdict", "differing", "missing", "extra", "repaired")]
    assert told == ["repaired", 2, 0, 1, 3]
    assert found[first]["fields"] == {"first_name": 1, "bib_num": 1}
    told = [found[second][name] for name in ("verdict", "differing", "missing", "extra", "same")]
    assert told == ["repaired", 0, 1, 1, 39]
    assert report.exit_code == 0
    assert house.participant(4711)["removed_reason"] == "absent"
    truth.assert_mirror_equals_world(house.rows, world, account)
    again = reconcile(house)
    assert {event["verdict"] for event in again.events} == {"same"}


def test_what_was_found_adds_up_and_stands_when_the_findings_are_pruned(
    house: House, world: rsusim.World, events: list[int]
) -> None:
    totals = "SELECT differing, missing, extra FROM bibwire.drift_totals"
    people = world.active(events[0])
    reconcile(house)
    assert house.rows(totals) == []
    world.vanish(people[2])
    reconcile(house)
    world.quirks.edit_moves_last_modified = False
    world.edit(people[0], first_name="Silent")
    world.vanish(people[3])
    reconcile(house)
    assert house.rows(totals) == [{"differing": 1, "missing": 0, "extra": 2}]

    house.run(schedule.prune(house.runtime.db, now=world.now + timedelta(days=91)))

    assert house.rows("SELECT * FROM bibwire.reconciliations") == []
    assert house.rows(totals) == [{"differing": 1, "missing": 0, "extra": 2}]


def test_what_a_delta_would_have_seen_is_no_drift(
    house: House, world: rsusim.World, account: rsusim.Account, events: list[int]
) -> None:
    people = world.active(events[0])
    world.assign_bib(people[0], 901)
    world.remove(people[1])
    newcomer = world.register(events[0])

    report = reconcile(house)

    found = by_event(report)[events[0]]
    assert (found["verdict"], found["differing"], found["missing"], found["extra"]) == ("same", 0, 0, 0)
    assert found["meanwhile"] == 3
    assert house.participant(newcomer)["event_id"] == events[0]
    truth.assert_mirror_equals_world(house.rows, world, account)
    truth.assert_feed_is_sound(house.rows, account)


def test_nothing_is_taken_for_gone_on_a_wrong_count(
    house: House, world: rsusim.World, account: rsusim.Account, events: list[int]
) -> None:
    gone = world.active(events[0])[3]
    world.vanish(gone)
    world.quirks.counts_off_by = 2

    report = reconcile(house)

    assert report.exit_code == 3
    found = by_event(report)[events[0]]
    assert found["verdict"] == "open"
    assert "counts" in found["note"]
    assert house.participant(gone)["removed_at"] is None
    world.quirks.counts_off_by = 0
    assert by_event(reconcile(house))[events[0]]["extra"] == 1
    assert house.participant(gone)["removed_reason"] == "absent"


@pytest.mark.parametrize("kind", ["http_500", "html_200", "error_7", "truncated"])
def test_nothing_is_taken_for_gone_on_an_unfinished_listing(
    kind: str, house: House, world: rsusim.World, account: rsusim.Account, events: list[int]
) -> None:
    world.vanish(world.active(events[0])[3])
    world.faults.add(rsusim.Fault(path="participants", kind=kind, times=None))
    before = house.rows("SELECT * FROM bibwire.participants ORDER BY 1, 2")

    report = reconcile(house)

    assert report.exit_code == 1
    assert report.errors[0].race_id == next(iter(world.races))
    assert not house.rows("SELECT FROM bibwire.reconciliations")
    assert house.rows("SELECT * FROM bibwire.participants ORDER BY 1, 2") == before


def test_an_interrupted_one_goes_on_and_still_tells_all_drift(
    world: rsusim.World, account: rsusim.Account, events: list[int], database_url: str
) -> None:
    with rsusim.Server(world) as server, House(world, server.base_url, database_url, page_size=15) as house:
        house.add_partner(account)
        house.sync()
        world.advance(7200)
        world.quirks.edit_moves_last_modified = False
        world.edit(world.active(events[0])[0], first_name="Silent")
        world.faults.add(rsusim.Fault(path="participants", kind="http_500", nth=3, times=9))
        assert reconcile(house).exit_code == 1
        world.faults.clear()
        world.advance(60)
        world.log.clear()

        report = reconcile(house)

        assert by_event(report)[events[0]]["fields"] == {"first_name": 1}
        assert world.log.of("participants")[0].query["after_registration_id"]


def test_counts_only_lists_what_differs(house: House, world: rsusim.World, events: list[int]) -> None:
    world.log.clear()
    report = reconcile(house, counts_only=True)
    assert (report.races_same_by_count, report.races_reconciled, report.calls) == (1, 0, 1)
    assert [info.endpoint for info in world.log.requests] == ["participant-counts"]
    world.vanish(world.active(events[0])[3])
    report = reconcile(house, counts_only=True)
    assert (report.races_same_by_count, report.races_reconciled) == (0, 1)
    assert by_event(report)[events[0]]["extra"] == 1


def test_the_schedule_lists_each_race_about_daily_and_counts_hot_ones(
    world: rsusim.World, account: rsusim.Account, database_url: str
) -> None:
    """In place of a poll: a race far ahead costs no call more."""
    far = world.add_race([account], "Far", "America/Denver")
    far_event = world.add_event(far, "10K")
    hot = world.add_race([account], "Hot", "America/Denver")
    gun = (world.now + 30 * HOUR).astimezone(world.races[hot].zone).replace(tzinfo=None)
    hot_event = world.add_event(hot, "10K", gun.replace(minute=0, second=0, microsecond=0))
    people = {
        event: [world.register(event, bib_num=n) for n in range(20)] for event in (far_event, hot_event)
    }

    world.advance(3600)

    async def live() -> None:
        with rsusim.Server(world) as server:
            async with Simulation(world, server.base_url, database_url) as simulation:
                await simulation.add_partner(account, calls_per_hour=120)
                await simulation.run_until(world.now + HOUR)
                world.quirks.edit_moves_last_modified = False
                world.edit(people[far_event][0], first_name="Silent")
                world.edit(people[hot_event][0], first_name="Silent")
                await simulation.run_until(world.now + 24 * HOUR)
                truth.assert_mirror_equals_world(simulation.rows, world, account)
                found = simulation.rows(
                    "SELECT race_id, sum(differing) AS differing FROM bibwire.reconciliations"
                    " GROUP BY 1 ORDER BY 1"
                )
                assert found == [{"race_id": far, "differing": 1}, {"race_id": hot, "differing": 1}]
                assert 6 <= len(polls(world)[account.name, far]) <= 8
                assert not world.log.of("participant-counts")
                # Hot now: whoever vanishes without a trace is found within a quarter of an hour.
                await simulation.run_until(world.now + 2 * HOUR)
                world.vanish(people[hot_event][5])
                await simulation.run_until(world.now + timedelta(minutes=17))
                [row] = simulation.rows(
                    "SELECT removed_reason FROM bibwire.participants WHERE registration_id = %(id)s",
                    id=people[hot_event][5],
                )
                assert row["removed_reason"] == "absent"

    asyncio.run(live())
