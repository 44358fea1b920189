"""When the vendor asks for fewer calls, all stop for as long as it asks, and people are told."""

from __future__ import annotations

import logging

import pytest

import rsusim
from tests.house import House

FAULT_KINDS = ("http_429", "error_14")


@pytest.fixture
def peak(world: rsusim.World) -> rsusim.Account:
    """A partner with one race of one runner."""
    peak = world.add_partner("Peak")
    race = world.add_race([peak], "Harbor Lights", "America/Chicago")
    world.register(world.add_event(race, "10K", world.now.replace(tzinfo=None)))
    return peak


@pytest.mark.parametrize("kind", FAULT_KINDS)
def test_a_throttled_call_is_made_again_and_the_limit_in_use_is_lowered(
    kind: str, house: House, world: rsusim.World, peak: rsusim.Account, caplog: pytest.LogCaptureFixture
) -> None:
    house.add_partner(peak, calls_per_hour=1000)
    world.faults.add(rsusim.Fault(path="participants", kind=kind, times=1))

    with caplog.at_level(logging.WARNING):
        report = house.sync()

    assert report.errors == []
    [partner] = house.run(house.runtime.reports.partners())
    assert (partner.calls_per_hour, partner.blocked_until) == (1000, None)
    assert 700 <= partner.limit_in_use < 705
    assert partner.calls_by_urgency["delta"] == partner.calls_last_hour == len(world.log.requests)


def test_a_long_pause_ends_the_run_at_once_says_so_and_holds_for_the_next_run(
    house: House, world: rsusim.World, peak: rsusim.Account
) -> None:
    house.add_partner(peak, calls_per_hour=1000)
    world.faults.add(rsusim.Fault(path="participants", kind="http_429", retry_after=3600, times=1))

    first = house.sync()
    asked = len(world.log.requests)
    second = house.sync()

    assert len(world.log.requests) == asked, "asked all the same"
    for report in (first, second):
        assert report.errors
        assert all("BIBWIRE_RETRY_SECONDS" in error.error for error in report.errors)
        assert all("(HTTP 429): none is made before" in error.error for error in report.errors)
    status = house.run(house.runtime.reports.status())
    assert status.partners[0].blocked_until is not None
    assert status.partners[0].blocked_reason == "the vendor asks for fewer calls (HTTP 429)"
    assert status.caller_blocks == []


def test_a_pause_of_one_partner_leaves_the_others_alone(
    house: House, world: rsusim.World, peak: rsusim.Account
) -> None:
    lakeside = world.add_partner("Lakeside")
    race = world.add_race([lakeside], "Lake Mile", "America/Denver")
    world.register(world.add_event(race, "Mile", world.now.replace(tzinfo=None)))
    house.add_partner(peak)
    house.add_partner(lakeside)
    fault = rsusim.Fault(path="participants", kind="http_429", retry_after=3600, partner="Peak", times=1)
    world.faults.add(fault)

    report = house.sync()

    assert {error.partner for error in report.errors} == {"Peak"}
    assert house.rows("SELECT race_id FROM bibwire.scopes WHERE loaded_at IS NOT NULL") == [{"race_id": race}]


def test_a_look_up_by_a_person_is_counted_as_one(
    house: House, world: rsusim.World, peak: rsusim.Account
) -> None:
    house.add_partner(peak)
    house.sync()
    [race] = world.races

    house.run(house.runtime.engine.lookup_live("Peak", race, 1))

    [partner] = house.run(house.runtime.reports.partners())
    assert partner.calls_by_urgency["live"] >= 2


def test_a_pause_is_the_partners_fault_and_names_the_races_it_left_undone(
    house: House, world: rsusim.World, peak: rsusim.Account
) -> None:
    for number in range(6):
        race = world.add_race([peak], f"Race {number}", "America/Chicago")
        world.register(world.add_event(race, "5K", world.now.replace(tzinfo=None)))
    house.add_partner(peak)
    world.faults.add(rsusim.Fault(path="participants", kind="http_429", retry_after=3600, times=1))

    report = house.sync()

    first, *others = report.errors
    assert first.race_id is None
    # Of the three that were under way two may have been answered before.
    left = {error.race_id for error in others}
    synced = {
        row["race_id"]
        for row in house.rows("SELECT race_id FROM bibwire.scopes WHERE loaded_at > '2000-01-01'")
    }
    assert left == set(world.races) - synced
    assert len(left) >= 4
    assert {error.error for error in report.errors} == {first.error}
    assert report.exit_code == (3 if synced else 1)
    again = house.sync()
    assert {error.race_id for error in again.errors} == {None, *world.races}
    assert again.exit_code == 1
    assert house.rows("SELECT FROM bibwire.scopes WHERE failing_since IS NOT NULL") == []
    assert house.rows("SELECT FROM bibwire.credentials WHERE failing_since IS NOT NULL") == []
