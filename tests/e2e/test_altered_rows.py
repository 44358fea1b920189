"""Rows of the mirror that somebody altered, deleted or spoilt are found by a full listing, told and fixed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import rsusim
from bibwire.engine.reconcile import ReconcileReport, ReconcileRequest
from tests.e2e import truth
from tests.e2e.simulation import utc
from tests.house import House

PEOPLE = 20


@pytest.fixture
def world() -> rsusim.World:
    return rsusim.World(seed=11, now=utc("2026-09-12T16:00:00+00:00"))


@pytest.fixture
def account(world: rsusim.World) -> rsusim.Account:
    return world.add_partner("Peak Timing")


@pytest.fixture
def event(world: rsusim.World, account: rsusim.Account) -> int:
    race = world.add_race([account], "Harbor Run", "America/Denver")
    event = world.add_event(race, "10K")
    for number in range(PEOPLE):
        world.register(event, bib_num=number + 1, first_name="José", last_name="García")
    gone = world.register(event, bib_num=500, first_name="Ada", last_name="Gone")
    world.advance(60)
    world.remove(gone)
    world.advance(3600)  # or the deltas see them again
    return event


@pytest.fixture
def house(world: rsusim.World, account: rsusim.Account, event: int, database_url: str) -> Iterator[House]:
    with rsusim.Server(world) as server, House(world, server.base_url, database_url) as house:
        house.add_partner(account)
        assert house.sync().errors == []
        world.advance(3600)
        yield house


def reconcile(house: House, **wanted: Any) -> ReconcileReport:
    return house.run(house.runtime.reconcile(ReconcileRequest(**wanted)))


ALTERED = {
    "bib": "UPDATE bibwire.participants SET bib_num = 666 WHERE registration_id = %(id)s RETURNING 1",
    "no bib": "UPDATE bibwire.participants SET bib_num = NULL WHERE registration_id = %(id)s RETURNING 1",
    "mojibake": "UPDATE bibwire.participants SET last_name = convert_from(convert_to(last_name, 'UTF8'),"
    " 'LATIN1') WHERE registration_id = %(id)s RETURNING 1",
    "more data": "UPDATE bibwire.participants SET additional_data = '{\"x\": 1}'"
    " WHERE registration_id = %(id)s RETURNING 1",
    "money": "UPDATE bibwire.participants SET payment_info = NULL WHERE registration_id = %(id)s RETURNING 1",
    "event": "UPDATE bibwire.participants SET event_id = 1 WHERE registration_id = %(id)s RETURNING 1",
    "race": "UPDATE bibwire.participants SET race_id = 1 WHERE registration_id = %(id)s RETURNING 1",
    "digest": "UPDATE bibwire.participants SET raw_hash = NULL, chip_num = 'x'"
    " WHERE registration_id = %(id)s RETURNING 1",
    "removed": "UPDATE bibwire.participants SET removed_at = now(), removed_reason = 'removed'"
    " WHERE registration_id = %(id)s RETURNING 1",
    "deleted": "DELETE FROM bibwire.participants WHERE registration_id = %(id)s RETURNING 1",
}


@pytest.mark.parametrize("what", ALTERED)
def test_reconcile_finds_tells_and_fixes_an_altered_row(
    what: str, house: House, world: rsusim.World, account: rsusim.Account, event: int
) -> None:
    altered = world.active(event)[3]
    assert house.rows(ALTERED[what], id=altered)

    report = reconcile(house)

    assert report.exit_code == 0
    [found] = report.events
    assert (found["verdict"], found["repaired"]) == ("repaired", 1)
    truth.assert_mirror_equals_world(house.rows, world, account)
    [again] = reconcile(house).events
    assert (again["verdict"], again["same"]) == ("same", PEOPLE)


def test_a_full_sync_finds_and_fixes_rows_and_says_that_the_mirror_was_altered(
    house: House, world: rsusim.World, account: rsusim.Account, event: int
) -> None:
    first, second = world.active(event)[:2]
    assert house.rows(ALTERED["bib"], id=first)
    assert house.rows(ALTERED["mojibake"], id=second)
    assert house.sync().participants.updated == 0

    report = house.sync(full=True)

    assert report.participants.updated == 2
    assert report.bibs.changed == 1
    [note] = report.notes
    assert "2 rows" in note
    truth.assert_mirror_equals_world(house.rows, world, account)
    again = house.sync(full=True)
    assert (again.participants.updated, again.participants.unchanged, again.notes) == (0, PEOPLE, [])


def test_an_untouched_mirror_is_compared_and_not_written(
    house: House, world: rsusim.World, event: int
) -> None:
    stored = "SELECT xmin::text, * FROM bibwire.participants ORDER BY 2, 3"
    before = house.rows(stored)
    house.sync(full=True)
    reconcile(house)
    assert house.rows(stored) == before


def test_altered_tombstones_are_fixed(
    house: House, world: rsusim.World, account: rsusim.Account, event: int
) -> None:
    [gone] = house.rows("SELECT registration_id FROM bibwire.participants WHERE removed_at IS NOT NULL")
    for change in (
        "removed_reason = 'x'",
        "last_name = 'x'",
        "removed_at = NULL, removed_reason = NULL",
        "email = NULL, payment_info = NULL, address = NULL",
    ):
        house.rows(
            f"UPDATE bibwire.participants SET {change} WHERE registration_id = %(id)s RETURNING 1",
            id=gone["registration_id"],
        )
        reconcile(house)
        truth.assert_mirror_equals_world(house.rows, world, account)
    house.rows(
        "DELETE FROM bibwire.participants WHERE registration_id = %(id)s RETURNING 1",
        id=gone["registration_id"],
    )
    reconcile(house)
    truth.assert_mirror_equals_world(house.rows, world, account)


def test_reconcile_compares_races_and_events_too(
    house: House, world: rsusim.World, account: rsusim.Account, event: int
) -> None:
    house.rows("UPDATE bibwire.races SET name = 'x', timezone = 'UTC' RETURNING 1")
    house.rows("UPDATE bibwire.events SET name = 'y', starts_at = NULL RETURNING 1")

    report = reconcile(house)

    truth.assert_mirror_equals_world(house.rows, world, account)
    assert any("1 race" in note and "1 event" in note for note in report.notes)
    world.advance(60)
    house.rows("DELETE FROM bibwire.events RETURNING 1")
    assert reconcile(house).races_reconciled == 1
    truth.assert_mirror_equals_world(house.rows, world, account)
    world.advance(60)
    assert reconcile(house).notes == []


def test_reconcile_compares_teams_too(
    house: House, world: rsusim.World, account: rsusim.Account, event: int
) -> None:
    team = world.add_team(event, "Harriers")
    world.join_team(world.active(event)[0], team)
    house.sync()
    stored = "SELECT team_id, name, missing_since FROM bibwire.teams"
    right = {"team_id": team, "name": "Harriers", "missing_since": None}
    for change in (
        "UPDATE bibwire.teams SET name = 'x' RETURNING 1",
        "DELETE FROM bibwire.teams RETURNING 1",
    ):
        reconcile(house)
        assert house.rows(stored) == [right]
        house.rows(change)
    report = reconcile(house)
    assert house.rows(stored) == [right]
    assert report.teams[0]["new"] == 1
