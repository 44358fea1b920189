"""A registration in both lists with the same second ends as what it is, and is not told again and again."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import datetime

import pytest

import rsusim
from bibwire.domain.sweeps import Stream
from bibwire.store import catalog
from tests.house import House

SATURDAY = datetime(2026, 9, 19, 8, 0)


@pytest.fixture
def ada(house: House, world: rsusim.World) -> int:
    """A registration that is mirrored, a minute ago."""
    account = world.add_partner("Peak Timing")
    race = world.add_race([account], "Harbor Lights", "America/Chicago")
    five, ten = (world.add_event(race, name, SATURDAY) for name in ("5K", "10K"))
    number = world.register(five, first_name="Ada", bib_num=7)
    for event in (five, ten):
        world.register(event)
    house.add_partner(account)
    house.sync()
    world.advance(60)
    return number


def poll(house: House, *streams: Stream) -> None:
    """Sweep some streams of the only scope, as the schedule does."""

    async def sweep() -> None:
        runtime = house.runtime
        [partner] = await runtime.partners.list()
        [scope] = await catalog.live_scopes(runtime.db, partner.partner_id, now=house.clock.now())
        async with (
            runtime.sweeper.leased(scope) as lease,
            runtime.open_client(partner, lambda _: None, lambda _: nullcontext()) as client,
        ):
            sync = runtime.sweeper.scope_sync(client, lease, scope, on_page=lambda _: None)
            await sync.run(full=False, only=streams)

    house.run(sweep())


@pytest.mark.parametrize("mirrored_between", [False, True])
def test_removed_and_restored_within_a_second_ends_active_and_is_told_no_more(
    house: House, world: rsusim.World, ada: int, mirrored_between: bool
) -> None:
    world.quirks.restored_stays_removed = True
    world.remove(ada)
    if mirrored_between:
        house.sync()
    world.restore(ada)
    house.sync()
    told = len(house.kinds())

    for seconds in (1, 5, 5, 60, 600, 600):
        world.advance(seconds)
        house.sync(full=seconds == 60)

    assert house.participant(ada)["removed_at"] is None
    assert house.kinds()[told:] == []


@pytest.mark.parametrize("lag_seconds", [0, 3, 40, 500])
def test_a_removal_in_the_second_of_the_last_edit_counts_once_the_active_list_has_dropped_the_row(
    house: House, world: rsusim.World, ada: int, lag_seconds: int
) -> None:
    world.quirks.removed_stays_listed_seconds = lag_seconds
    world.assign_bib(ada, 8)
    house.sync()
    world.remove(ada)
    world.advance(2)
    house.sync()

    for _ in range(12):
        world.advance(100)
        house.sync()

    assert house.participant(ada)["removed_reason"] == "removed"
    assert house.kinds() == ["loaded", "bib_changed", "removed"]


def test_a_removed_list_read_long_after_the_listing_still_does_not_beat_it(
    house: House, world: rsusim.World, ada: int
) -> None:
    world.quirks.restored_stays_removed = True
    world.remove(ada)
    world.restore(ada)
    world.assign_bib(ada, 8)
    for _ in range(20):  # so that no delta of the listing reaches back to that second
        world.advance(20)
        poll(house, Stream.PARTICIPANTS)

    poll(house, Stream.REMOVED)

    assert house.participant(ada)["removed_at"] is None
    assert house.kinds() == ["loaded", "bib_changed"]
