"""Whoever is edited and then leaves between two polls is kept with what the removed list says."""

from __future__ import annotations

from datetime import date

import pytest

import rsusim
from bibwire.engine.verify import VerifyRequest
from tests.e2e import truth
from tests.house import House


@pytest.fixture
def account(world: rsusim.World) -> rsusim.Account:
    return world.add_partner("Peak Timing")


@pytest.fixture
def person(house: House, world: rsusim.World, account: rsusim.Account) -> int:
    """Ada with bib 101 in a loaded race."""
    event = world.add_event(world.add_race([account], "Harbor Run", "America/Denver"), "10K")
    person = world.register(event, first_name="Ada", last_name="Lovelace", bib_num=101, chip_num="C1")
    world.register(event, first_name="Bob")
    house.add_partner(account)
    assert house.sync().errors == []
    world.advance(600)
    return person


def test_a_tombstone_has_the_name_of_the_last_edit(
    house: House, world: rsusim.World, account: rsusim.Account, person: int
) -> None:
    world.edit(person, last_name="King", email="ada@example.org", dob="1985-12-10", age=40)
    world.advance(5)
    world.remove(person)
    world.advance(5)

    house.sync()

    row = house.participant(person)
    assert row["removed_reason"] == "removed"
    told = (row["first_name"], row["last_name"], row["email"], row["dob"], row["age"])
    assert told == ("Ada", "King", "ada@example.org", date(1985, 12, 10), 40)
    # Of these the removed list does not speak.
    assert (row["bib_num"], row["chip_num"]) == (101, "C1")
    assert row["event_id"] is not None
    truth.assert_mirror_equals_world(house.rows, world, account)
    truth.assert_feed_is_sound(house.rows, account)
    [change] = house.rows("SELECT kind, fields FROM bibwire.changes WHERE kind <> 'loaded'")
    assert change["kind"] == "removed"
    assert change["fields"]["last_name"] == ["Lovelace", "King"]
    assert house.bib_changes() == [(person, 101, None)]
    report = house.run(
        house.runtime.verifier.verify([house.run(house.runtime.partners.get(account.name))], VerifyRequest())
    )
    assert report.exit_code == 0, report.as_json()


def test_an_emptied_field_is_empty_and_one_not_spoken_of_stays(
    house: House, world: rsusim.World, account: rsusim.Account, person: int
) -> None:
    before = house.participant(person)
    world.edit(person, phone=rsusim.ABSENT, middle_name=None, email=None)
    world.quirks.absent_keys = True
    world.advance(5)
    world.remove(person)
    house.sync()
    row = house.participant(person)
    assert row["email"] is None
    assert row["phone"] == before["phone"]
    assert row["address"] == before["address"]
    assert row["additional_data"] == before["additional_data"]


def test_verify_finds_a_tombstone_with_another_name(
    house: House, world: rsusim.World, account: rsusim.Account, person: int
) -> None:
    world.remove(person)
    house.sync()
    world.advance(3600)
    house.sync()
    house.rows(
        "UPDATE bibwire.participants SET last_name = 'Old' WHERE registration_id = %(id)s RETURNING 1",
        id=person,
    )
    partner = house.run(house.runtime.partners.get(account.name))
    report = house.run(house.runtime.verifier.verify([partner], VerifyRequest()))
    [failed] = [check for check in report.checks if check.verdict == "fail"]
    assert (failed.check, str(person) in failed.seen) == ("removed", True)
