"""The planner warns of a shortage of calls before it comes, once, and says when it is over."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
import structlog

from tests.store.test_schedule import NOW, Still, furnish, tick

DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
WARNED, OVER = "the calls will not suffice", "the calls suffice again"


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


class Season:
    """Thirty races that start together, under a key of 1,000 calls an hour; each plan is made at once."""

    def __init__(self, connection: psycopg.Connection[Any], database_url: str) -> None:
        self.connection, self.database_url = connection, database_url
        self.clock = Still()
        furnish(connection, partners=1, races=30, start=NOW + 2 * DAY)

    def plan(self, at: datetime) -> list[Any]:
        """Plan at that instant; return what was logged of shortages."""
        self.clock.at = at
        self.connection.execute("UPDATE bibwire.plans SET next_plan_at = %s", (at,))
        with structlog.testing.capture_logs() as logged:
            [ticked] = tick(self.database_url, self.clock)
        assert ticked.planned == 1
        return [entry for entry in logged if entry["event"] in (WARNED, OVER)]

    def need(self, races: int) -> None:
        """Have so many races to come."""
        self.connection.execute(
            "UPDATE bibwire.races SET removed_at = CASE WHEN race_id > %s THEN now() END", (races,)
        )

    def start_at(self, at: datetime) -> None:
        self.connection.execute("UPDATE bibwire.events SET starts_at = %s", (at,))


@pytest.fixture
def season(connection: psycopg.Connection[Any], database_url: str) -> Season:
    return Season(connection, database_url)


def test_a_shortage_is_told_once_in_advance_and_once_when_it_is_over(season: Season) -> None:
    start = NOW + 2 * DAY

    [warning] = season.plan(NOW)

    assert (warning["event"], warning["log_level"], warning["partner"]) == (WARNED, "warning", "Partner 1")
    assert warning["begins_at"] == (start - 4 * HOUR).isoformat()
    assert warning["ends_at"] == (start + HOUR).isoformat()
    assert warning["calls_an_hour_needed"] == 30 * 72
    assert warning["calls_an_hour_usable"] == 850 - 34
    assert season.plan(NOW + timedelta(seconds=30)) == []
    assert season.plan(start - 2 * HOUR) == []
    [over] = season.plan(start + HOUR)
    assert (over["event"], over["log_level"]) == (OVER, "info")
    assert season.plan(start + 2 * HOUR) == []


def test_a_start_that_is_moved_is_told_again_and_enough_calls_end_it(season: Season) -> None:
    season.plan(NOW)
    season.start_at(NOW + 2 * DAY + 5 * timedelta(minutes=1))
    assert season.plan(NOW + HOUR) == []
    season.start_at(NOW + 3 * DAY)

    [moved] = season.plan(NOW + HOUR)

    assert moved["begins_at"] == (NOW + 3 * DAY - 4 * HOUR).isoformat()
    season.connection.execute(
        "UPDATE bibwire.credentials SET calls_per_hour = %s", (moved["sufficient_limit"],)
    )
    assert [entry["event"] for entry in season.plan(NOW + 2 * HOUR)] == [OVER]
    season.connection.execute(
        "UPDATE bibwire.credentials SET calls_per_hour = %s", (moved["sufficient_limit"] - 2,)
    )
    assert [entry["event"] for entry in season.plan(NOW + 2 * HOUR)] == [WARNED]


def test_one_that_grows_little_by_little_is_told_again(season: Season) -> None:
    season.need(20)
    assert [entry["calls_an_hour_needed"] for entry in season.plan(NOW)] == [20 * 72]

    told = []
    for races in (21, 22, 23, 24):
        season.need(races)
        told.append([entry["calls_an_hour_needed"] for entry in season.plan(NOW + races * MINUTE)])

    assert told == [[], [], [23 * 72], []]


def test_a_partner_that_is_paused_is_not_said_to_have_enough_calls(season: Season) -> None:
    season.plan(NOW)
    season.connection.execute("UPDATE bibwire.partners SET paused_at = now()")
    assert season.plan(NOW + HOUR) == []

    season.connection.execute("UPDATE bibwire.partners SET paused_at = NULL")
    assert [entry["event"] for entry in season.plan(NOW + 2 * HOUR)] == [WARNED]
