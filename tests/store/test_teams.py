"""A page of teams: what differs is written, what is equal is not, and missing is a mark."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

import rsusim
from bibwire.domain.records import Team, TeamPage, UnreadableRow
from bibwire.domain.teams import TeamCounts, TeamPosition
from bibwire.store import teams
from tests.house import House

pytestmark = pytest.mark.every_postgres

NOON = datetime(2026, 9, 12, 16, tzinfo=UTC)
LATER = NOON + timedelta(hours=1)
HARES = Team(5, 11, "The Hares\t\\N", 7701, "C", 9001, 4, NOON, {"fee": Decimal("12.50"), "note": "é"})
SNAILS = Team(6, None, None, None, None, None, None, None, {})


class Scene:
    """A partner with a race of two events, and what is done to its teams."""

    def __init__(self, house: House) -> None:
        self.house = house
        account = house.world.add_partner("Peak Timing")
        self.race = house.world.add_race([account], "Relay", "America/Denver")
        self.event = house.world.add_event(self.race, "Relay")
        self.partner = house.add_partner(account).partner_id
        house.sync()

    def merge(
        self,
        *found: Team,
        asked: tuple[int, ...] = (11, 12),
        now: datetime = NOON,
        unreadable: tuple[UnreadableRow, ...] = (),
        partner: int | None = None,
    ) -> TeamCounts:
        page = TeamPage(found, unreadable, 1, 1000, is_last=True)

        async def merge() -> TeamCounts:
            async with self.house.runtime.db.transaction() as connection:
                return await teams.merge_page(
                    connection, partner or self.partner, self.race, page, asked=asked, now=now
                )

        return self.house.run(merge())

    def mark(self, *shown: int, asked: tuple[int, ...] = (11, 12), now: datetime = LATER) -> int:
        async def mark() -> int:
            async with self.house.runtime.db.transaction() as connection:
                return await teams.mark_missing(
                    connection, self.partner, self.race, event_ids=asked, shown=shown, now=now
                )

        return self.house.run(mark())

    def rows(self) -> dict[int, dict[str, Any]]:
        found = self.house.rows("SELECT xmin::text, t.* FROM bibwire.teams AS t ORDER BY team_id")
        return {row["team_id"]: row for row in found}


@pytest.fixture
def scene(house: House) -> Scene:
    return Scene(house)


def test_a_team_is_stored_as_it_was_read(scene: Scene) -> None:
    assert scene.merge(HARES, SNAILS) == TeamCounts(listed=2, new=2)

    stored = scene.rows()[5]
    del stored["xmin"]
    assert stored == {
        "partner_id": scene.partner,
        "team_id": 5,
        "race_id": scene.race,
        "event_id": 11,
        "name": "The Hares\t\\N",
        "team_type_id": 7701,
        "gender": "C",
        "bib_num": 9001,
        "member_count": 4,
        "last_modified_at": NOON,
        "additional_data": {"fee": 12.5, "note": "é"},
        "first_seen_at": NOON,
        "changed_at": NOON,
        "missing_since": None,
        "asked_event_ids": None,
    }
    [row] = scene.house.rows("SELECT additional_data::text FROM bibwire.teams WHERE team_id = 5")
    assert "12.50" in row["additional_data"]
    assert scene.rows()[6]["asked_event_ids"] == [11, 12]


def test_what_is_equal_is_not_written_and_only_what_differs_is_changed(scene: Scene) -> None:
    scene.merge(HARES, SNAILS)
    before = scene.rows()

    assert scene.merge(HARES, SNAILS, now=LATER) == TeamCounts(listed=2)
    assert scene.rows() == before

    renamed = replace(HARES, name="The Turtles", bib_num=None)
    assert scene.merge(renamed, SNAILS, now=LATER) == TeamCounts(listed=2, changed=1)
    after = scene.rows()
    assert after[6] == before[6]
    assert (after[5]["name"], after[5]["bib_num"], after[5]["changed_at"]) == ("The Turtles", None, LATER)
    assert after[5]["first_seen_at"] == NOON


def test_an_event_that_was_named_once_stays_known(scene: Scene) -> None:
    scene.merge(HARES)

    assert scene.merge(replace(HARES, event_id=None), now=LATER) == TeamCounts(listed=1)
    assert scene.rows()[5]["event_id"] == 11
    assert scene.merge(replace(HARES, event_id=12), now=LATER) == TeamCounts(listed=1, changed=1)
    assert scene.rows()[5]["event_id"] == 12


def test_what_a_listing_lacks_is_marked_once_and_unmarked_when_it_is_back(scene: Scene) -> None:
    scene.merge(HARES, SNAILS)

    assert scene.mark(5) == 1
    assert scene.mark(5, now=LATER + timedelta(hours=1)) == 0
    rows = scene.rows()
    assert (rows[5]["missing_since"], rows[6]["missing_since"]) == (None, LATER)
    assert scene.merge(SNAILS, now=LATER) == TeamCounts(listed=1, returned=1)
    back = scene.rows()[6]
    assert (back["missing_since"], back["changed_at"]) == (None, NOON)


def test_teams_of_events_that_were_not_asked_for_are_not_missing(scene: Scene) -> None:
    """Of a team without an event it is only known of which ones it is one."""
    scene.merge(HARES, SNAILS)

    assert scene.mark(asked=(12,)) == 0
    scene.merge(SNAILS, asked=(12, 13), now=LATER)
    assert scene.mark(asked=(12, 13)) == 1
    assert scene.rows()[6]["missing_since"] == LATER
    assert scene.rows()[5]["missing_since"] is None


def test_a_row_that_cannot_be_read_is_kept_in_quarantine(scene: Scene) -> None:
    bad = UnreadableRow("the team_id is missing", b'{"team_name": "Nobody"}')

    assert scene.merge(HARES, unreadable=(bad,)) == TeamCounts(listed=2, new=1, quarantined=1)

    [row] = scene.house.rows("SELECT source, reason, raw, race_id FROM bibwire.quarantine")
    assert row == {"source": "teams", "reason": bad.reason, "raw": bad.raw.decode(), "race_id": scene.race}


@pytest.mark.parametrize(
    ("team_id", "expected"),
    [(5, {5}), ("5", {5}), (0, set()), (None, set()), ("five", set()), (99999999999999999999999, set())],
)
def test_members_name_their_teams(team_id: object, expected: set[int], scene: Scene) -> None:
    world, house = scene.house.world, scene.house
    world.advance(3600)
    person = world.register(scene.event)
    row = {
        "user": {"user_id": 5, "first_name": "Grace", "last_name": "Hopper", "address": {}},
        "registration_id": person,
        "event_id": scene.event,
        "team_id": team_id,
        "team_name": "x",
        "last_modified": int(world.clock.time()),
    }
    world.set_raw(person, json.dumps(row))
    house.sync()
    [stored] = house.rows("SELECT team_info FROM bibwire.participants WHERE team_info IS NOT NULL")
    assert (stored["team_info"].get("team_id"), stored["team_info"]["team_name"]) == (team_id, "x")

    async def named(*events: int) -> frozenset[int]:
        async with house.runtime.db.transaction() as connection:
            return await teams.named_by_members(connection, scene.partner, scene.race, event_ids=events)

    assert house.run(named(scene.event)) == expected
    assert house.run(named(scene.event + 1)) == set()
    known = teams.are_known(house.runtime.db, scene.partner, scene.race, event_ids=[scene.event])
    assert house.run(known) == bool(expected)


def test_a_position_comes_back_as_it_was_written(scene: Scene) -> None:
    position = TeamPosition(((1, 2), (3,)), NOON, group=1, number=4, full=50, lacking=frozenset({8, 9}))

    async def write() -> None:
        await teams.run(scene.house.runtime.db, "open", scene.partner, scene.race)
        async with scene.house.runtime.db.transaction() as connection:
            await teams.save_position(connection, scene.partner, scene.race, position)

    scene.house.run(write())
    known = scene.house.run(teams.state(scene.house.runtime.db, scene.partner, scene.race))
    assert known.position == position


def test_teams_leave_with_their_partner(scene: Scene, world: rsusim.World) -> None:
    house = scene.house
    other = house.add_partner(world.add_partner("Lakeside Race Services")).partner_id
    scene.merge(HARES)
    house.run(teams.run(house.runtime.db, "open", scene.partner, scene.race))
    scene.merge(HARES, partner=other)

    house.run(house.runtime.partners.remove("Peak Timing"))

    assert house.rows("SELECT DISTINCT partner_id FROM bibwire.teams") == [{"partner_id": other}]
    assert house.rows("SELECT FROM bibwire.team_listings") == []
