"""What runs goes on working when a newer version has added columns to its tables."""

from __future__ import annotations

from datetime import datetime, timedelta

import psycopg
from psycopg import sql

import rsusim
from bibwire.engine.backfill_reports import BackfillRequest
from bibwire.engine.reconcile import ReconcileRequest
from bibwire.engine.verify import VerifyRequest
from tests.e2e.truth import assert_feed_is_sound, assert_mirror_equals_world
from tests.house import House

TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'bibwire' AND tablename <> 'schema_version'"


def test_an_older_version_works_on_tables_to_which_a_newer_one_added_columns(
    house: House, world: rsusim.World
) -> None:
    account = world.add_partner("Peak Timing")
    race = world.add_race([account], "Harbor Lights")
    old = world.add_event(race, "5K", datetime(2025, 10, 3, 8))
    people = [world.register(old) for _ in range(3)]
    event = world.add_event(race, "5K", datetime(2026, 10, 3, 8), team_count=0)
    people += [world.register(event) for _ in range(5)]
    world.join_team(people[-1], world.add_team(event))
    house.add_partner(account)
    assert house.sync().errors == []
    with psycopg.connect(house.runtime.conninfo, autocommit=True) as connection:
        for row in house.rows(TABLES):
            connection.execute(
                sql.SQL("ALTER TABLE bibwire.{} ADD COLUMN newer boolean NOT NULL DEFAULT true").format(
                    sql.Identifier(row["tablename"])
                )
            )

    for times in range(2):
        world.advance(60)
        world.assign_bib(people[-2], 700 + times)
        world.remove(people[3 + times])
        people.append(world.register(event))
        world.join_team(people[-1], world.add_team(event))
        other = world.add_race([account], f"Frosty Toes {times}")
        world.register(world.add_event(other, "1 Mile", datetime(2026, 11, 3, 8)))
        world.edit_race(race, name=f"Harbor Lights {times}")
        world.advance(60)
        assert house.sync(full=bool(times)).errors == []
        house.restart()  # sessions of before have their temporary tables already
    since = house.clock.now() - timedelta(days=730)
    assert house.run(house.runtime.backfill(BackfillRequest(since=since))).errors == []
    assert house.run(house.runtime.reconcile(ReconcileRequest())).errors == []
    [partner] = house.run(house.runtime.engine.chosen(None))
    found = house.run(house.runtime.verifier.verify([partner], VerifyRequest()))

    assert [check for check in found.checks if check.verdict in ("fail", "error")] == []
    assert_mirror_equals_world(house.rows, world, account.name)
    assert_feed_is_sound(house.rows, account.name)
