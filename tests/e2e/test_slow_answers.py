"""What changes while an answer is on its way is read with the next poll, and no cursor claims otherwise."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

import rsusim
from rsusim.log import RequestInfo
from tests.house import House

SATURDAY = datetime(2026, 9, 19, 8, 0)


@pytest.mark.parametrize("full", [False, True])
def test_a_bib_given_while_a_slow_answer_is_on_its_way_is_read_with_the_next_poll(
    house: House, world: rsusim.World, full: bool
) -> None:
    account = world.add_partner("Peak Timing")
    race = world.add_race([account], "Harbor Lights", "America/Chicago")
    five = world.add_event(race, "5K", SATURDAY)
    ada, bob = world.register(five), world.register(five)
    house.add_partner(account)
    house.sync()
    world.advance(60)
    asked_at = world.now
    for endpoint in ("participants", "removed-participants"):
        slow = {"world_seconds_after_reading": 120.0}
        world.faults.add(rsusim.Fault(path=endpoint, kind="quirk", quirks=slow))

    def happen(info: RequestInfo) -> None:
        # Seen by readers a moment after the rows are read.
        if info.endpoint == "participants":
            world.assign_bib(ada, 7, published_after=1)
        if info.endpoint == "removed-participants":
            world.remove(bob, published_after=1)

    world.before_answer(happen)
    house.sync(full=full)
    world.clear_hooks()

    assert world.now == asked_at + timedelta(seconds=240)
    cursors = {r["stream"]: r["cursor_at"] for r in house.rows("SELECT * FROM bibwire.streams")}
    assert cursors["participants"] <= asked_at
    assert cursors["removed"] <= asked_at + timedelta(seconds=120)
    world.advance(5)
    house.sync()
    assert house.participant(ada)["bib_num"] == 7
    assert house.participant(bob)["removed_reason"] == "removed"
