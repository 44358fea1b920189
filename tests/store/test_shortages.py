"""The planner warns of a shortage of calls before it comes, once, and says when it is over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
import structlog

from bibwire.store.partners import Partners
from tests.store.mirrored import VAULT, with_database
from tests.store.test_schedule import NOW, Still, find_more, furnish, tick

DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
WARNED, OVER = "the calls will not suffice", "the calls suffice again"


class Season:
    """Races that start together, under a key of 1,000 calls an hour; each plan is made at once."""

    def __init__(self, database_url: str) -> None:
        self.database_url = database_url
        self.clock = Still()
        self.races, self.start = 30, NOW + 2 * DAY
        furnish(database_url, partners=1, races=0, start=self.start)

    def plan(self, at: datetime) -> list[Any]:
        """Read the race list and plan at that instant; return what was logged of shortages."""
        self.clock.at = at
        find_more(self.database_url, 1, races=self.races, start=self.start, now=at)
        with structlog.testing.capture_logs() as logged:
            [ticked] = tick(self.database_url, self.clock)
        assert ticked.planned == 1
        return [entry for entry in logged if entry["event"] in (WARNED, OVER)]

    def operate(self, do: Callable[[Partners], Awaitable[object]]) -> None:
        """Do with the partner what an operator does."""
        with_database(self.database_url, lambda db: do(Partners(db, VAULT)))


@pytest.fixture
def season(database_url: str) -> Season:
    return Season(database_url)


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
    season.start = NOW + 2 * DAY + 5 * MINUTE
    assert season.plan(NOW + HOUR) == []
    season.start = NOW + 3 * DAY

    [moved] = season.plan(NOW + HOUR)

    assert moved["begins_at"] == (NOW + 3 * DAY - 4 * HOUR).isoformat()
    season.operate(lambda partners: partners.limit("Partner 1", moved["sufficient_limit"]))
    assert [entry["event"] for entry in season.plan(NOW + 2 * HOUR)] == [OVER]
    season.operate(lambda partners: partners.limit("Partner 1", moved["sufficient_limit"] - 2))
    assert [entry["event"] for entry in season.plan(NOW + 2 * HOUR)] == [WARNED]


def test_one_that_grows_little_by_little_is_told_again(season: Season) -> None:
    season.races = 20
    assert [entry["calls_an_hour_needed"] for entry in season.plan(NOW)] == [20 * 72]

    told = []
    for races in (21, 22, 23, 24):
        season.races = races
        told.append([entry["calls_an_hour_needed"] for entry in season.plan(NOW + races * MINUTE)])

    assert told == [[], [], [23 * 72], []]


def test_a_partner_that_is_paused_is_not_said_to_have_enough_calls(season: Season) -> None:
    season.plan(NOW)
    season.operate(lambda partners: partners.pause("Partner 1"))
    assert season.plan(NOW + HOUR) == []

    season.operate(lambda partners: partners.resume("Partner 1"))
    assert [entry["event"] for entry in season.plan(NOW + 2 * HOUR)] == [WARNED]
