"""Partners that share a race share nothing else: rows, cursors, feeds and fates are each one's own."""

from __future__ import annotations

from typing import Any

import pytest

import rsusim
from tests.e2e import truth
from tests.house import House

pytestmark = pytest.mark.every_postgres
PEAK, LAKESIDE = "Peak Timing", "Lakeside Race Services"


@pytest.fixture
def world() -> rsusim.World:
    """The first of three races is shared."""
    return rsusim.worlds.small()


@pytest.fixture
def shared(world: rsusim.World) -> int:
    [race] = [race for race in world.races if all(world.may_read(name, race) for name in (PEAK, LAKESIDE))]
    return race


@pytest.fixture
def partners(house: House, world: rsusim.World) -> dict[str, int]:
    """Both partners; their numbers by name."""
    return {name: house.add_partner(world.accounts[name]).partner_id for name in (PEAK, LAKESIDE)}


def rows_of(house: House, partner_id: int) -> dict[str, list[dict[str, Any]]]:
    """Return every row of a partner in every table, to the transaction that wrote it."""
    tables = house.rows(
        """
        SELECT c.relname AS name, bool_or(a.attname = 'partner_id') AS by_partner
        FROM pg_class AS c
        JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE c.relnamespace = 'bibwire'::regnamespace AND c.relkind = 'r'
        GROUP BY c.relname
        """
    )
    without = {table["name"] for table in tables if not table["by_partner"]}
    # Digests of a caller, and of keys no partner has any more: no partner's, and nobody's in clear.
    digests = {"callers", "retired_calls", "call_places"}
    by_credential = {"call_minutes", "call_stats"}
    assert without == {"schema_version", *digests, *by_credential}, "tables no partner's number leads into"
    found = {
        table["name"]: house.rows(
            f"SELECT xmin::text, ctid::text, t.* FROM bibwire.{table['name']} AS t"
            " WHERE partner_id = %(p)s ORDER BY ctid",
            p=partner_id,
        )
        for table in tables
        if table["by_partner"]
    }
    for table in by_credential:
        found[table] = house.rows(
            f"SELECT m.* FROM bibwire.{table} AS m JOIN bibwire.credentials AS c USING (credential_id)"
            " WHERE c.partner_id = %(p)s ORDER BY 2, 3",
            p=partner_id,
        )
    return found


def live_on(world: rsusim.World, shared: int) -> None:
    world.advance(60)
    first, *_, last = [n for event in world.races[shared].event_ids[-3:] for n in world.active(event)]
    world.assign_bib(first, 4711)
    world.remove(last)


def test_each_has_its_own_rows_cursors_and_feed(
    house: House, world: rsusim.World, shared: int, partners: dict[str, int]
) -> None:
    assert house.sync(partner=PEAK).errors == []
    live_on(world, shared)
    assert house.sync().errors == []

    truth.assert_mirror_equals_world(house.rows, world, PEAK, LAKESIDE)
    truth.assert_feed_is_sound(house.rows, PEAK, LAKESIDE)
    # The one saw it happen; to the other it was so from the first.
    told = house.rows(
        "SELECT n.name, count(*) FROM bibwire.changes AS c JOIN bibwire.partners AS n USING (partner_id)"
        " WHERE race_id = %(r)s AND kind <> 'loaded' GROUP BY 1",
        r=shared,
    )
    assert [row["name"] for row in told] == [PEAK]
    assert told[0]["count"] >= 2
    people = house.rows(
        "SELECT partner_id, count(*) AS people FROM bibwire.participants WHERE race_id = %(r)s GROUP BY 1",
        r=shared,
    )
    assert {row["partner_id"] for row in people} == set(partners.values())
    assert len({row["people"] for row in people}) == 1


def test_a_sync_of_one_leaves_the_other_byte_for_byte(
    house: House, world: rsusim.World, shared: int, partners: dict[str, int]
) -> None:
    house.sync()
    live_on(world, shared)
    before = rows_of(house, partners[LAKESIDE])

    report = house.sync(partner=PEAK, full=True)

    assert report.participants.updated + report.participants.removed >= 2
    assert rows_of(house, partners[LAKESIDE]) == before


def test_removing_one_leaves_the_other_byte_for_byte(
    house: House, world: rsusim.World, shared: int, partners: dict[str, int]
) -> None:
    house.sync()
    live_on(world, shared)
    house.sync()
    before = rows_of(house, partners[LAKESIDE])
    assert before["participants"]
    assert before["changes"]

    counts = house.run(house.runtime.partners.remove(PEAK))

    assert rows_of(house, partners[LAKESIDE]) == before
    gone = rows_of(house, partners[PEAK])
    assert {table: rows for table, rows in gone.items() if rows} == {}
    assert counts["participants"] > 0
    live_on(world, shared)
    assert house.sync().errors == []
    truth.assert_mirror_equals_world(house.rows, world, LAKESIDE)
    truth.assert_feed_is_sound(house.rows, LAKESIDE)


def test_a_partner_whose_key_is_refused_stops_alone(
    house: House, world: rsusim.World, shared: int, partners: dict[str, int]
) -> None:
    house.sync()
    live_on(world, shared)
    before = {
        table: rows_of(house, partners[PEAK])[table]
        for table in ("participants", "changes", "streams", "races")
    }
    world.faults.add(rsusim.Fault(kind="error_6", times=None, partner=PEAK))

    report = house.sync()

    assert {error.partner for error in report.errors} == {PEAK}
    truth.assert_mirror_equals_world(house.rows, world, LAKESIDE)
    after = rows_of(house, partners[PEAK])
    assert {table: after[table] for table in before} == before


def test_access_withdrawn_from_one_is_not_taken_from_the_other(
    house: House, world: rsusim.World, shared: int, partners: dict[str, int]
) -> None:
    house.sync()
    world.withdraw(PEAK, shared)
    live_on(world, shared)

    report = house.sync()

    assert [(error.partner, error.race_id) for error in report.errors] == [(PEAK, shared)]
    lost = house.rows("SELECT partner_id FROM bibwire.races WHERE access_lost_at IS NOT NULL")
    assert [row["partner_id"] for row in lost] == [partners[PEAK]]
    removed = house.rows("SELECT partner_id FROM bibwire.changes WHERE kind = 'removed'")
    assert {row["partner_id"] for row in removed} == {partners[LAKESIDE]}
    truth.assert_mirror_equals_world(house.rows, world, LAKESIDE)


def test_a_record_of_one_in_quarantine_is_not_the_others(
    house: House, world: rsusim.World, shared: int, partners: dict[str, int]
) -> None:
    row = '{"registration_id": "R-12"}'
    world.faults.add(
        rsusim.Fault(path="participants", kind="hostile_rows", rows=[row], partner=PEAK, race_id=shared)
    )

    house.sync()

    entries = house.rows("SELECT partner_id, race_id FROM bibwire.quarantine")
    assert [(entry["partner_id"], entry["race_id"]) for entry in entries] == [(partners[PEAK], shared)]
