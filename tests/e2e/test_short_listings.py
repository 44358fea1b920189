"""A listing that came out short is noticed by its numbers, and no cursor moves past it."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

import rsusim
from tests.e2e.truth import assert_mirror_equals_world
from tests.house import House

RACE_DAY = datetime(2026, 9, 19, 8, 0)
WEEK = timedelta(days=7).total_seconds()


@pytest.fixture
def peak(world: rsusim.World) -> rsusim.Account:
    return world.add_partner("Peak Timing")


def add_race(world: rsusim.World, account: rsusim.Account, *sizes: int) -> list[int]:
    """Add a race with an event of each size, whose people signed up in turns; return the events."""
    race = world.add_race([account], "Harbor Lights")
    events = [world.add_event(race, f"Event {n}", RACE_DAY) for n in range(len(sizes))]
    for turn in range(max(sizes)):
        for event, size in zip(events, sizes, strict=True):
            if turn < size:
                world.register(event)
    return events


def one_event_since(house: House) -> object:
    [row] = house.rows("SELECT one_event_since FROM bibwire.scopes")
    return row["one_event_since"]


def counts(world: rsusim.World) -> int:
    return len(world.log.of("participant-counts"))


@pytest.mark.parametrize("sizes", [(9,), (9, 9)])
def test_a_first_load_that_lists_nobody_whom_the_vendor_counts_is_tried_again(
    sizes: tuple[int, ...], house: House, world: rsusim.World, peak: rsusim.Account
) -> None:
    add_race(world, peak, *sizes)
    house.add_partner(peak)
    world.advance(86_400)
    world.faults.add(rsusim.Fault(path="participants", kind="no_rows", times=None))

    for _ in range(2):
        report = house.sync()

        assert len(report.errors) == 1
        assert house.rows("SELECT FROM bibwire.streams WHERE cursor_at IS NOT NULL") == []
    world.faults.clear()
    world.advance(60)
    assert house.sync().errors == []
    assert_mirror_equals_world(house.rows, world, peak)


def test_somebody_who_signs_up_between_an_empty_list_and_the_count_is_no_error(
    house: House, world: rsusim.World, peak: rsusim.Account
) -> None:
    [only] = add_race(world, peak, 0)
    house.add_partner(peak)
    signed_up: list[int] = []

    def sign_up_once(info: rsusim.RequestInfo) -> None:
        if info.endpoint == "participant-counts" and not signed_up:
            signed_up.append(world.register(only))

    world.before_answer(sign_up_once)

    assert house.sync().errors == []

    assert signed_up
    assert_mirror_equals_world(house.rows, world, peak)


@pytest.mark.parametrize(("quirk", "value"), [("event_cap", 40), ("list_order", "event")])
def test_a_vendor_that_limits_or_orders_lists_by_event_is_asked_one_event_at_a_time(
    quirk: str, value: object, world: rsusim.World, simulator: rsusim.Server, database_url: str
) -> None:
    peak = world.add_partner("Peak Timing")
    _, second = add_race(world, peak, 70, 7)
    world.register(second)  # after all others: every event shows somebody
    world.quirks.set(quirk, value)
    with House(world, simulator.base_url, database_url, page_size=60) as house:
        house.add_partner(peak)

        assert house.sync().errors == []

        assert_mirror_equals_world(house.rows, world, peak)
        assert one_event_since(house) is not None


def test_lists_and_lists_of_several_pages_are_counted_once_under_a_credential(
    world: rsusim.World, simulator: rsusim.Server, database_url: str
) -> None:
    peak = world.add_partner("Peak Timing")
    short, long = add_race(world, peak, 3, 4), add_race(world, peak, 9, 9)
    with House(world, simulator.base_url, database_url, page_size=10) as house:
        house.add_partner(peak)
        for event, times in ((short[0], 1), (long[0], 1)):
            world.log.clear()
            house.sync(race=world.events[event].race_id)
            assert counts(world) == times
        for full in (True, False, True):
            world.advance(3600)
            world.log.clear()
            assert house.sync(full=full).errors == []
            assert counts(world) == 0


def test_a_sign_up_between_list_and_count_leaves_the_scope_with_lists(
    house: House, world: rsusim.World, peak: rsusim.Account
) -> None:
    events = add_race(world, peak, 3, 1, 0)
    house.add_partner(peak)
    signed_up: list[int] = []

    def sign_up_once(info: rsusim.RequestInfo) -> None:
        if info.endpoint == "participant-counts" and not signed_up:
            signed_up.append(world.register(events[-1]))

    world.before_answer(sign_up_once)

    assert house.sync().errors == []

    assert signed_up
    assert one_event_since(house) is None
    assert_mirror_equals_world(house.rows, world, peak)


@pytest.mark.parametrize("honoured", [True, False])
def test_a_list_is_tried_again_after_a_week(
    honoured: bool, house: House, world: rsusim.World, peak: rsusim.Account
) -> None:
    events = add_race(world, peak, 3, 3)
    house.add_partner(peak)
    world.quirks.comma_list = "first_only"
    house.sync()
    since = one_event_since(house)
    assert since is not None
    world.quirks.comma_list = "honoured" if honoured else "first_only"
    for start in range(2):
        world.advance(WEEK / 2 + 60 * start)
        for event in events:
            world.register(event)
            world.edit_event(event, start=world.now.replace(tzinfo=None) + timedelta(days=2))

        assert house.sync().errors == []

        assert_mirror_equals_world(house.rows, world, peak)
        assert (one_event_since(house) == since) == (start == 0)
    assert (one_event_since(house) is None) == honoured


@pytest.mark.parametrize("vanished", [0, 1])
def test_who_moves_between_two_events_that_are_listed_one_by_one_is_not_absent(
    vanished: int, house: House, world: rsusim.World, peak: rsusim.Account
) -> None:
    five, ten = add_race(world, peak, 3, 3)
    house.add_partner(peak)
    world.quirks.comma_list = "first_only"
    house.sync()
    assert one_event_since(house) is not None
    ada, bob, *_ = world.active(ten)
    asked: list[int] = []

    def move_after_the_first(info: rsusim.RequestInfo) -> None:
        asked.extend([1] if info.endpoint == "participants" else [])
        if len(asked) == 2 and info.endpoint == "participants":
            world.move(ada, five)
            for number in [bob][:vanished]:
                world.vanish(number)

    # All within one second of the vendor's.
    world.before_answer(move_after_the_first)

    report = house.sync(full=True)

    assert report.errors == []
    assert house.participant(ada)["removed_at"] is None
    assert house.participant(ada)["event_id"] == five
    assert (house.participant(bob)["removed_reason"] == "absent") == bool(vanished)


def test_a_limit_that_is_no_round_number_is_found(
    house: House, world: rsusim.World, peak: rsusim.Account
) -> None:
    world.quirks.page_cap = 64
    add_race(world, peak, 64)
    add_race(world, peak, 150)
    add_race(world, peak, 40, 70)
    house.add_partner(peak)

    for full in (False, True):
        assert house.sync(full=full).errors == []
        assert_mirror_equals_world(house.rows, world, peak)
        world.advance(3600)


def test_only_a_page_as_long_as_the_longest_costs_another_call(
    house: House, world: rsusim.World, peak: rsusim.Account
) -> None:
    [longest] = add_race(world, peak, 90)
    for size in (3, 49, 60, 70, 89):
        add_race(world, peak, size)
    house.add_partner(peak)
    house.sync(race=world.events[longest].race_id)
    assert len(world.log.of("participants")) == 2
    for full in (False, True, False):
        world.log.clear()
        world.advance(3600)

        assert house.sync(full=full).errors == []

        assert len(world.log.of("participants")) == 6 + full
