"""This computer's clock may be wrong: nothing is read twice for it, nothing is lost, and it is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

import rsusim
from tests.cli.conftest import Shell

SLOW = timedelta(minutes=11)


@pytest.fixture
def world(request: pytest.FixtureRequest) -> rsusim.World:
    """The vendor's clock is right, and so this computer's, and its database's, 11 minutes slow."""
    world = rsusim.worlds.small(now=datetime.now(UTC) + getattr(request, "param", SLOW))
    world.clock.run(1)
    return world


def people(world: rsusim.World, account: rsusim.Account) -> list[int]:
    """Return the ids of the account's registrations in events that are kept fresh."""
    last_week = (world.now - timedelta(days=7)).timestamp()
    return [
        registration.registration_id
        for race in world.truth(account)
        for event in race.events
        for registration in event.active
        if max(event.starts_at, event.ends_at or 0) > last_week
    ]


def test_bibs_are_read_once_though_this_computers_clock_is_slow(
    shell: Shell, world: rsusim.World, peak: rsusim.Account
) -> None:
    assert shell.run("sync", "--json").code == 0
    world.advance(60)
    everybody = people(world, peak)
    for bib, registration_id in enumerate(everybody, start=5000):
        world.assign_bib(registration_id, bib)
    world.advance(60)

    synced = [shell.run("sync", "--json").json["participants"]]
    world.advance(60)
    synced.append(shell.run("sync", "--json").json["participants"])

    assert [each["updated"] for each in synced] == [len(everybody), 0]
    assert [each["unchanged"] for each in synced] == [0, 0], "nobody is read again"


# Either it was as slow before, or slow enough to be told only since the last sync.
@pytest.mark.parametrize("world", [SLOW, timedelta(minutes=4)], indirect=True)
def test_who_left_without_a_trace_is_absent_though_this_computers_clock_is_slow(
    shell: Shell, world: rsusim.World, peak: rsusim.Account
) -> None:
    assert shell.run("sync").code == 0
    world.advance(7 * 60)
    gone, other, *_ = people(world, peak)
    world.vanish(gone)
    world.assign_bib(other, 4711)
    world.advance(60)

    ended = shell.run("sync", "--full", "--json")

    assert ended.code == 0, ended.err
    assert ended.json["participants"]["removed"] == 1


def test_a_slow_clock_is_told_and_the_vendor_is_not_blamed(shell: Shell, peak: rsusim.Account) -> None:
    said = "this computer's clock is 11 minutes slow"
    assert shell.run("sync").code == 0

    doctor, status, verify = (shell.run(command, "--json") for command in ("doctor", "status", "verify"))

    [clock] = [each for each in doctor.json["findings"] if each["check"] == "RunSignup's clock"]
    assert said in clock["found"]
    assert clock["grade"] == "FAIL"
    assert said in status.json["clocks"]["told"].lower()
    assert said in shell.run("status").out.replace("\n", " ").lower()
    assert verify.code == 0, verify.err
    [check] = [each for each in verify.json["checks"] if each["check"] == "clock"]
    assert check["verdict"] == "pass"
    assert said in check["seen"]


def test_ages_are_by_the_clock_that_dates_the_mirror(
    shell: Shell, world: rsusim.World, peak: rsusim.Account
) -> None:
    # The first one learns, at the latest, by a change as late, that the clock is slow. What it read before
    # that is held older than it is.
    assert shell.run("sync").code == 0
    assert shell.run("sync").code == 0

    ages = [race["age_seconds"] for race in shell.run("status", "--json").json["races"]]

    assert ages
    assert all(0 <= age < 60 for age in ages), "not as if from the future"
