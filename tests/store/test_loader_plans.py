"""The rows of a page are found one by one, whatever the planner knows of the table."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import rsusim
from bibwire.store.database import statements
from tests.house import House

PEOPLE = 1500

pytestmark = pytest.mark.every_postgres


@pytest.fixture
def ids(house: House, world: rsusim.World) -> list[int]:
    """People of a race in the mirror, which holds another race too."""
    account = world.add_partner("Peak Timing")
    event, other = (world.add_event(world.add_race([account], name), "10K") for name in ("Lights", "Hills"))
    at = int(world.now.timestamp()) - 9999
    for each in (other, event):
        world.populate(each, [(world.next_person + n, at, at, None) for n in range(PEOPLE)])
        world.next_person += PEOPLE
    house.add_partner(account)
    assert house.sync().participants.inserted == 2 * PEOPLE
    return list(world.active(event))


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for inner in plan.get("Plans", ()) for node in nodes(inner))]


def explained(connection: psycopg.Connection[Any], name: str, **values: object) -> list[dict[str, Any]]:
    with psycopg.ClientCursor(connection) as cursor:
        cursor.execute(b"EXPLAIN (ANALYZE, FORMAT JSON) " + statements("loader")[name].encode(), values)
        [row] = cursor.fetchall()
    found = [node for node in nodes(row[0][0]["Plan"]) if node.get("Relation Name") == "participants"]
    return [node for node in found if node["Node Type"] not in ("ModifyTable", "LockRows")]


@pytest.mark.parametrize("analysed", [False, True])
def test_no_page_is_found_by_reading_the_table(
    analysed: bool, house: House, ids: list[int], database_url: str
) -> None:
    """Nor by looking at more rows than the page has, as an index that was searched too widely would."""
    with psycopg.connect(database_url) as connection:
        if analysed:
            connection.execute("ANALYZE")
        key = {"partner_id": 1, "registration_ids": ids}
        for name in ("stored_ids", "rows_before", "standings", "active_of"):
            for node in explained(connection, name, **key):
                assert node["Node Type"] == "Index Scan", (name, node)
                assert node["Index Name"] == "participants_pkey"
                assert node["Actual Loops"] == PEOPLE
                assert node.get("Rows Removed by Filter", 0) == 0
        connection.execute(statements("loader")["plan_for_many"])
        [race], *_ = connection.execute(
            "SELECT race_id FROM bibwire.participants WHERE registration_id = %s", (ids[0],)
        ).fetchall()
        places = connection.execute(
            "SELECT ctid::text FROM bibwire.participants WHERE registration_id = ANY (%s)"
            " ORDER BY registration_id",
            (ids,),
        ).fetchall()
        found = explained(
            connection,
            "move_bibs",
            partner_id=1,
            race_id=race,
            now=house.clock.now(),
            as_of=house.clock.now(),
            places="{" + ",".join(f'"{place}"' for (place,) in places) + "}",
            registration_ids=f"{{{','.join(map(str, ids))}}}",
            bibs_from=f"{{{','.join(['NULL'] * PEOPLE)}}}",
            bibs_to=f"{{{','.join(map(str, range(PEOPLE)))}}}",
            modified_to=f"{{{','.join(['1789232400'] * PEOPLE)}}}",
            digests=f"{{{','.join(['x'] * PEOPLE)}}}",
        )
        connection.rollback()
    assert [(node["Node Type"], node["Actual Loops"], node["Actual Rows"]) for node in found] == [
        ("Tid Scan", PEOPLE, 1)
    ]
