"""The vendor's servers do not agree on the time, and what they tell is stored all the same."""

from __future__ import annotations

from datetime import datetime

import pytest

import rsusim
from tests.house import House

SATURDAY = datetime(2026, 9, 19, 8, 0)


@pytest.mark.parametrize("ahead_seconds", [1, 3, 12])  # by more than the lookback it is late
def test_an_edit_told_by_a_server_whose_clock_is_behind_is_stored_at_once(
    house: House, world: rsusim.World, ahead_seconds: int
) -> None:
    account = world.add_partner("Peak Timing")
    race = world.add_race([account], "Harbor Lights", "America/Chicago")
    five = world.add_event(race, "5K", SATURDAY)
    ada, bob = world.register(five), world.register(five)
    house.add_partner(account)
    world.quirks.date_offset_seconds = ahead_seconds
    house.sync()
    world.advance(1)
    world.assign_bib(ada, 7)
    house.sync()

    world.quirks.date_offset_seconds = 0
    world.advance(1)
    world.assign_bib(ada, 8)
    world.remove(bob)
    house.sync()

    assert house.bib_changes() == [(ada, None, 7), (ada, 7, 8)]
    assert house.participant(bob)["removed_reason"] == "removed"
