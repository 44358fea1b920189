"""
An error never empties anything, whatever kind it is and wherever it strikes.

While it lasts: nobody is marked as removed whom the vendor does not list as removed, and the stream
that was struck keeps its cursor. Once it has passed, a clean sync equals the world. Some answers
are well-formed lies that no client can tell from the truth: tests about them say so in their names,
and hold what still must hold.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

import pytest
import structlog

import rsusim
import rsusim.faults
from bibwire.engine.reports import SyncReport
from tests.e2e.truth import (
    assert_feed_is_sound,
    assert_mirror_equals_world,
    assert_no_cursor_is_ahead,
    participants,
)
from tests.house import House

RACE_DAY: Final = datetime(2026, 9, 19, 8, 0)
ENDPOINTS: Final = ("races", "participants", "removed-participants", "participant-counts")
STATUSES: Final = (400, 401, 403, 404, 408, 429, 500, 502, 503, 522)
CODES: Final = (1, 2, 3, 4, 5, 6, 7, 10, 13, 14, 17, 99, 201, 301)
# A well-formed answer with less in it than there is.
LIES: Final = ("no_rows", "short_page", "skip_rows", "empty_array")
DETAILS: Final[dict[str, dict[str, Any]]] = {
    "body": {"body": '{"participants_of_event": [], "unexpected": true}'},
    "hang": {"seconds": 0.02},
    "slow": {"seconds": 0.02},
    "slow_after_reading": {"seconds": 0.02},
    "slow_body": {"seconds": 0.02},
    "hostile_rows": {"rows": ('{"registration_id": "x"}', "[]", '"row"')},
    "quirk": {"quirks": {"wire_escapes": False, "layout": "together"}},
}
KINDS: Final = (
    *(f"http_{status}" for status in STATUSES),
    *(f"error_{code}" for code in CODES),
    *(kind for kind in rsusim.faults.KINDS if "<" not in kind),
)


class Scene:
    """A partner with one race of two events, mirrored; people come, change and go."""

    def __init__(self, house: House, world: rsusim.World) -> None:
        self.house = house
        self.world = world
        self.account = world.add_partner("Peak Timing")
        self.race = world.add_race([self.account], "Harbor Lights", "America/Chicago")
        self.events = [world.add_event(self.race, name, RACE_DAY) for name in ("5K", "10K")]
        self.people = [world.register(event, bib_num=i) for i in range(4) for event in self.events]
        world.remove(self.people.pop())
        self.bib = 100
        house.add_partner(self.account)

    def live_a_little(self, *, vanish: bool = False) -> None:
        """Let a bearer of each kind of news appear at the vendor."""
        world = self.world
        world.advance(60)
        self.bib += 1
        people = [n for event in self.events for n in world.active(event)]
        world.assign_bib(people[0], self.bib)
        world.edit(people[-1], last_name=f"Name {self.bib}")
        world.remove(people[1])
        for event in self.events:
            world.register(event, bib_num=1000 + self.bib)
        if vanish:
            world.vanish(people[2])
            world.register(self.events[0])
        world.advance(1)

    def cursors(self) -> dict[str, datetime]:
        rows = self.house.rows("SELECT stream, cursor_at FROM bibwire.streams")
        return {row["stream"]: row["cursor_at"] for row in rows}

    def settle(self, *, full: bool = False) -> SyncReport:
        """Sync until nothing that was interrupted is taken up, and hold the mirror against the world."""
        self.world.advance(1)
        report = self.house.sync(full=full)
        if report.errors or report.notes:
            self.world.advance(600)
            report = self.house.sync(full=full)
        assert report.errors == []
        assert_mirror_equals_world(self.house.rows, self.world, self.account)
        return report

    def assert_nobody_is_gone_but_who_left(self) -> None:
        """Whoever is active at the vendor is not marked as removed here."""
        [race] = [truth for truth in self.world_truth() if truth.race_id == self.race]
        active = {r.registration_id for event in race.events for r in event.active}
        stored = participants(self.house.rows, self.account.name)
        gone = {n: row["removed_reason"] for n, row in stored.items() if row["removed_at"] is not None}
        assert not active & gone.keys(), {n: gone[n] for n in active & gone.keys()}

    def world_truth(self) -> list[Any]:
        self.world.grant(self.account, self.race)
        return self.world.truth(self.account)


@pytest.fixture
def scene(world: rsusim.World, simulator: rsusim.Server, database_url: str) -> Iterator[Scene]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with (
        pytest.MonkeyPatch.context() as patch,
        House(world, simulator.base_url, database_url, page_size=5, retry_seconds=1) as house,
    ):
        # 30 ms a client, for a loopback without TLS.
        patch.setattr("httpx2._transports.default.create_ssl_context", lambda *_, **__: None)
        yield Scene(house, world)
    structlog.reset_defaults()


def _stream_of(endpoint: str) -> str | None:
    return {"participants": "participants", "removed-participants": "removed"}.get(endpoint)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in LIES])
def test_an_error_marks_nobody_as_removed_moves_no_cursor_and_costs_nothing_once_it_passed(
    scene: Scene, kind: str
) -> None:
    scene.settle()
    for endpoint in ENDPOINTS:
        for full in (False, True):
            for times in (None, 1):
                scene.live_a_little(vanish=full)
                before, since = scene.cursors(), scene.world.now
                scene.world.faults.add(
                    rsusim.Fault(path=endpoint, kind=kind, times=times, **DETAILS.get(kind, {}))
                )
                report = scene.house.sync(full=full)
                struck = any(rule.struck for rule in scene.world.faults.rules)
                scene.world.faults.clear()
                assert struck or (endpoint == "participant-counts" and not full), endpoint
                case = f"{kind} on {endpoint}, full={full}, times={times}: {report}"

                scene.assert_nobody_is_gone_but_who_left()
                assert_no_cursor_is_ahead(scene.house.rows, scene.world)
                stream = _stream_of(endpoint)
                moved = stream is not None and scene.cursors()[stream] > before[stream]
                if report.errors and moved:
                    # It was swept to its end all the same: then all that it lists is there.
                    assert times == 1, case
                # A row whose text is broken is in quarantine.
                told = report.errors or report.notes or report.participants.quarantined
                if not told and endpoint != "races":
                    # Harmless, or it passed while the call was tried again: then nothing may be missing.
                    assert scene.cursors()["participants"] >= since.replace(microsecond=0), case
                    assert_mirror_equals_world(scene.house.rows, scene.world, scene.account)
                scene.settle(full=full)
    assert_feed_is_sound(scene.house.rows, scene.account)


@pytest.mark.parametrize("times", [None, 1])
@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("kind", LIES)
def test_rows_left_out_of_a_well_formed_answer_cannot_be_told_in_a_delta_but_empty_nothing(
    scene: Scene, kind: str, endpoint: str, times: int | None
) -> None:
    scene.settle()
    for full in (False, True):
        scene.live_a_little()
        before = scene.cursors()
        scene.world.faults.add(rsusim.Fault(path=endpoint, kind=kind, times=times))
        report = scene.house.sync(full=full)
        scene.world.faults.clear()

        scene.assert_nobody_is_gone_but_who_left()
        if (
            full
            and endpoint == "participants"
            and any("not listed any more" in e.error for e in report.errors)
        ):
            assert scene.cursors()["participants"] == before["participants"]
    scene.settle(full=True)
    assert_feed_is_sound(scene.house.rows, scene.account)


@pytest.mark.parametrize("full", [False, True])
def test_lost_rights_answered_with_empty_lists_and_zero_counts_empty_nothing(
    scene: Scene, full: bool
) -> None:
    scene.settle()
    scene.live_a_little()
    scene.settle()
    before = participants(scene.house.rows, scene.account.name)
    scene.world.quirks.lost_rights = "empty"
    scene.world.withdraw(scene.account, scene.race)
    scene.world.advance(60)

    reports = [
        scene.house.sync(full=full),
        scene.house.sync(full=full, partner=scene.account.name, race=scene.race),
    ]

    assert participants(scene.house.rows, scene.account.name) == before
    if full:
        assert all(report.errors for report in reports)
    scene.world.grant(scene.account, scene.race)
    scene.live_a_little()
    scene.settle(full=True)
    assert_feed_is_sound(scene.house.rows, scene.account)


# Quirk -> whether the vendor's answers are then wrong in a way a delta cannot tell.
QUIRKS: Final[tuple[tuple[dict[str, Any], bool], ...]] = (
    ({"counts_off_by": 1}, False),
    ({"counts_off_by": -1}, False),
    ({"comma_list": "first_only"}, True),
    ({"comma_list": "foreign_rows"}, False),
    ({"one_year_window": "empty"}, True),
    ({"one_year_window": "error"}, False),
    ({"removed_when_empty": "no_participants"}, False),
    ({"removed_when_empty": "no_event"}, False),
    ({"removed_when_empty": "no_elements"}, False),
    ({"participants_key_when_empty": "empty"}, False),
    ({"event_when_empty": "array"}, False),
    ({"event_when_empty": "null"}, False),
    ({"layout": "object"}, False),
    ({"layout": "together"}, False),
    ({"after_registration_id_strict": False}, False),
    ({"modified_after_inclusive": False}, False),
    ({"default_sort": "last_name ASC"}, False),
    ({"ints_as_strings": "some"}, False),
    ({"wire_escapes": False}, False),
    ({"absent_keys": False}, False),
    ({"date_header": False}, False),
    ({"unknown_event_in_list": "skip"}, False),
    ({"removed_stays_listed_seconds": 30.0}, False),
)


@pytest.mark.parametrize(("quirks", "is_a_lie"), QUIRKS, ids=lambda v: str(v) if isinstance(v, dict) else "")
def test_a_habit_of_the_vendor_that_changes_overnight_empties_nothing(
    scene: Scene, quirks: dict[str, Any], is_a_lie: bool
) -> None:
    if "one_year_window" in quirks:
        # One event of a series that began long ago and is not over.
        scene.world.edit_event(
            scene.events[0], start=datetime(2025, 8, 1, 8, 0), end=datetime(2026, 10, 1, 8, 0)
        )
    scene.settle(full=True)
    for name, value in quirks.items():
        scene.world.quirks.set(name, value)
    for full in (False, True):
        for vanish in (False, full):
            scene.live_a_little(vanish=vanish)
            report = scene.house.sync(full=full)
            scene.assert_nobody_is_gone_but_who_left()
            if report.errors:
                continue
            if not is_a_lie and not vanish and "date_header" not in quirks:
                scene.world.advance(61)
                scene.settle(full=full)
    for name in quirks:
        setattr(scene.world.quirks, name, getattr(rsusim.World().quirks, name))
    scene.live_a_little()
    scene.world.advance(120)
    scene.settle(full=True)
    assert_feed_is_sound(scene.house.rows, scene.account)


def test_a_full_listing_that_misses_an_event_falls_back_to_one_event_a_request(scene: Scene) -> None:
    scene.settle()
    scene.world.quirks.comma_list = "first_only"
    scene.live_a_little()

    scene.settle(full=True)
    scene.live_a_little()
    report = scene.settle()

    assert report.errors == []
    [scope] = scene.house.rows("SELECT one_event_since FROM bibwire.scopes")
    assert scope["one_event_since"] is not None
