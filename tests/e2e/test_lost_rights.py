"""
Rights that are lost without a word empty nothing, and cost nothing once they are back.

The vendor then answers empty lists and counts of nothing, which is what an event that everybody
left looks like. Only the race list tells the two apart.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

import pytest
import structlog

import rsusim
from tests.e2e.truth import assert_feed_is_sound, assert_mirror_equals_world
from tests.house import House

RACE_DAY: Final = datetime(2026, 9, 19, 8, 0)
LATER: Final = timedelta(minutes=12).total_seconds()


class Scene:
    """A partner with one race of two events, mirrored, at a vendor that withdraws rights silently."""

    def __init__(self, house: House, world: rsusim.World) -> None:
        self.house, self.world = house, world
        world.quirks.lost_rights = "empty"
        self.account = world.add_partner("Peak Timing")
        self.race = world.add_race([self.account], "Harbor Lights", "America/Chicago")
        self.five, self.ten = (world.add_event(self.race, name, RACE_DAY) for name in ("5K", "10K"))
        self.people = [world.register(event) for event in (self.five, self.ten) for _ in range(30)]
        house.add_partner(self.account)
        assert house.sync().errors == []
        world.advance(LATER)

    def on_the_first(self, endpoint: str, *, withdraw: bool) -> None:
        """Let rights go, or come back, just before the next call of that endpoint is answered."""
        done: list[bool] = []

        def strike(info: rsusim.RequestInfo) -> None:
            if info.endpoint == endpoint and not done:
                done.append(True)
                (self.world.withdraw if withdraw else self.world.grant)(self.account, self.race)

        self.world.before_answer(strike)

    def leave_it_in_the_race_list_alone(self) -> None:
        """Take the rights away for every call but the race list."""

        def strike(info: rsusim.RequestInfo) -> None:
            right = self.world.grant if info.endpoint == "races" else self.world.withdraw
            right(self.account, self.race)

        self.world.before_answer(strike)

    def removed(self) -> int:
        [row] = self.house.rows(
            "SELECT count(*)::int AS n FROM bibwire.participants WHERE removed_at IS NOT NULL"
        )
        return int(row["n"])

    def come_back(self) -> None:
        """Give the rights back; plain syncs then find all that happened."""
        self.world.clear_hooks()
        self.world.faults.clear()
        self.world.grant(self.account, self.race)
        for _ in range(2):
            self.world.advance(LATER)
            assert self.house.sync().errors == []
        self.assert_equal()

    def assert_equal(self) -> None:
        assert_mirror_equals_world(self.house.rows, self.world, self.account)
        assert_feed_is_sound(self.house.rows, self.account)


@pytest.fixture
def scene(house: House, world: rsusim.World) -> Iterator[Scene]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield Scene(house, world)
    structlog.reset_defaults()


def test_nobody_is_absent_while_the_race_list_cannot_be_read(scene: Scene) -> None:
    world = scene.world
    world.withdraw(scene.account, scene.race)
    world.faults.add(rsusim.Fault(path="races", kind="http_503", times=None))

    for _ in range(3):
        report = scene.house.sync(full=True)

        assert any("--full" in error.error for error in report.errors if error.race_id == scene.race)
        assert scene.removed() == 0
        world.assign_bib(scene.people[0], 7)
        world.register(scene.ten)
        world.advance(LATER)
    scene.come_back()


def test_nobody_is_absent_when_rights_go_while_a_full_sync_runs(scene: Scene) -> None:
    scene.on_the_first("participants", withdraw=True)

    for _ in range(3):
        assert scene.house.sync(full=True).errors
        assert scene.removed() == 0
        scene.world.advance(LATER)
    scene.come_back()


def test_nobody_is_absent_when_rights_go_in_the_middle_of_a_listing(scene: Scene) -> None:
    small = scene.world.add_event(scene.race, "1M", RACE_DAY)
    scene.world.register(small)
    # Its events are asked for one at a time from now on.
    scene.world.quirks.comma_list = "first_only"
    assert scene.house.sync(full=True).errors == []
    [scope] = scene.house.rows("SELECT one_event_since FROM bibwire.scopes")
    assert scope["one_event_since"] is not None
    asked: list[int] = []

    def after_two(info: rsusim.RequestInfo) -> None:
        asked.extend([1] if info.endpoint == "participants" else [])
        if len(asked) == 3:
            scene.world.withdraw(scene.account, scene.race)

    scene.world.before_answer(after_two)
    assert scene.house.sync(full=True).errors
    assert scene.removed() == 0
    scene.come_back()


def test_nobody_is_absent_when_rights_come_and_go_around_each_race_list(scene: Scene) -> None:
    for _ in range(3):
        scene.world.clear_hooks()
        scene.world.grant(scene.account, scene.race)
        scene.on_the_first("participants", withdraw=True)

        assert scene.house.sync(full=True).errors
        assert scene.removed() == 0
        scene.world.advance(LATER)
    scene.come_back()


@pytest.mark.parametrize("leaving", [60, 25])
def test_many_who_left_without_a_trace_are_absent_after_a_second_full_sync(
    leaving: int, scene: Scene
) -> None:
    for number in scene.people[:leaving]:
        scene.world.vanish(number)

    first = scene.house.sync(full=True)
    assert "'bibwire sync --full'" in first.errors[0].error
    assert scene.removed() == 0
    scene.world.advance(LATER)
    scene.world.log.clear()
    second = scene.house.sync(full=True)

    assert second.errors == []
    assert second.participants.removed == leaving
    scene.assert_equal()
    assert len(scene.world.log.of("races")) == 2
    scene.world.advance(LATER)
    scene.world.log.clear()
    assert scene.house.sync(full=True).errors == []
    assert len(scene.world.log.of("races")) == 1


def test_a_few_who_left_without_a_trace_are_absent_at_once(scene: Scene) -> None:
    for number in scene.people[:24]:
        scene.world.vanish(number)

    report = scene.house.sync(full=True)

    assert (report.errors, report.participants.removed) == ([], 24)
    scene.assert_equal()


def test_an_event_that_the_race_list_does_not_show_stays_as_it_is(scene: Scene) -> None:
    for number in scene.people[:30]:
        scene.world.vanish(number)
    scene.house.sync(full=True)
    scene.world.advance(LATER)
    ten = {"event_id": scene.ten, "name": "10K", "start_time": "9/19/2026 08:00"}
    race = {"race_id": scene.race, "name": "Harbor Lights", "timezone": "America/Chicago", "events": [ten]}
    body = json.dumps({"races": [{"race": race}]})
    scene.world.faults.add(rsusim.Fault(path="races", kind="body", body=body, times=None))

    for _ in range(2):
        assert scene.house.sync(full=True).errors
        scene.world.advance(LATER)

    assert scene.removed() == 0


def test_listings_of_one_incident_take_nobody_for_gone(scene: Scene) -> None:
    """A vendor that loses its mind for some minutes, while its race list is as it was."""

    scene.leave_it_in_the_race_list_alone()

    for _ in range(4):
        scene.house.sync(full=True)
        scene.world.advance(120)

    assert scene.removed() == 0
    scene.come_back()


def test_who_was_taken_for_gone_is_found_again_by_plain_syncs(scene: Scene) -> None:
    """The race list showed the race all the time: nothing could tell."""

    scene.leave_it_in_the_race_list_alone()
    for _ in range(2):
        scene.house.sync(full=True)
        scene.world.advance(LATER)
    assert scene.removed() == 60
    scene.world.clear_hooks()
    scene.world.register(scene.ten)

    scene.come_back()


@pytest.mark.parametrize("silent", [True, False])
def test_rights_that_come_back_have_everything_listed_again_at_once(scene: Scene, silent: bool) -> None:
    scene.world.quirks.lost_rights = "empty" if silent else "error"
    scene.world.withdraw(scene.account, scene.race)
    scene.house.sync()
    # What no delta ever lists.
    scene.world.vanish(scene.people[0])
    scene.world.advance(LATER)

    scene.come_back()


def test_changes_of_the_time_before_the_loss_was_noticed_are_read_when_the_race_answers_again(
    scene: Scene,
) -> None:
    """The vendor shows the race to those it was shared with and lists it no more, rights or not."""
    world, house = scene.world, scene.house
    world.withdraw(scene.account, scene.race)
    seen_at = world.now - timedelta(seconds=LATER)
    with_list_unread = rsusim.Fault(path="races", kind="http_503", times=None)
    world.faults.add(with_list_unread)
    for _ in range(4):
        world.advance(LATER)
        house.sync()  # silence, and the cursor moves
    world.assign_bib(scene.people[0], 7)
    world.advance(LATER)
    house.sync()
    [before] = house.rows("SELECT as_of FROM bibwire.freshness")
    assert before["as_of"] == world.now
    world.faults.clear()
    world.advance(LATER)

    house.sync()

    [fresh] = house.rows("SELECT participants_as_of, removed_as_of FROM bibwire.freshness")
    assert set(fresh.values()) == {seen_at}
    # It answers again before any list shows it.
    world.before_answer(
        lambda info: (world.withdraw if info.endpoint == "races" else world.grant)(scene.account, scene.race)
    )
    world.advance(LATER)
    house.sync()
    assert house.participant(scene.people[0])["bib_num"] == 7
    scene.come_back()
