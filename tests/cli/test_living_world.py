"""
The world moves while `bibwire run` goes on, and the mirror follows: real processes, real queue, HTTP.

What a person would do about a change of the lists is done (`bibwire discover`); that they are read
without anybody's doing is shown in moved time, in tests/e2e/test_living_world.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import psycopg
import pytest
from psycopg.rows import dict_row

import rsusim
from tests.cli.conftest import Shell
from tests.e2e import truth
from tests.waiting import PATIENCE_SECONDS

CHICAGO: Final = ZoneInfo("America/Chicago")
# What must hold: so long after the list was read.
FOLLOWS_WITHIN: Final = 60.0


@pytest.fixture
def world() -> rsusim.World:
    """One partner with two races far away, on this machine's clock."""
    world = rsusim.World(seed=1, now=datetime.now(UTC))
    peak = world.add_partner("Peak Timing")
    world.add_partner("Lakeside Race Services")
    for number in range(2):
        race = world.add_race([peak], f"Race {number}", "America/Chicago")
        event = world.add_event(race, "10K", local(world, days=40 + number))
        for _ in range(3):
            world.register(event)
    world.clock.run(1)
    return world


def local(world: rsusim.World, *, days: float, hour: int = 9) -> datetime:
    """A wall time in Chicago so many days from now."""
    day = world.now.astimezone(CHICAGO) + timedelta(days=days)
    return day.replace(hour=hour, minute=0, second=0, microsecond=0, tzinfo=None)


class Living:
    """A `bibwire run` on the world, and its mirror."""

    def __init__(self, shell: Shell, world: rsusim.World, database_url: str) -> None:
        self.shell = shell
        self.world = world
        self.followed: list[str] = []
        self._database_url = database_url

    def rows(self, query: str, **values: Any) -> list[dict[str, Any]]:
        with psycopg.connect(self._database_url, autocommit=True, row_factory=dict_row) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            return connection.execute(query.encode(), values).fetchall()

    def follows(self, *partners: str, discover: bool = True) -> None:
        """Wait until the mirror equals the world: a minute from the reading of the lists at the latest."""
        if discover:
            assert self.shell.run("discover").code == 0
        began, found = time.monotonic(), ["not compared"]
        while found:
            found = [
                text for partner in partners for text in truth.differences(self.rows, self.world, partner)
            ]
            assert not found or time.monotonic() - began < FOLLOWS_WITHIN, "\n".join(found[:20])
            if found:
                time.sleep(0.3)

    def waits_for(self, query: str, what: str, **values: Any) -> None:
        deadline = time.monotonic() + FOLLOWS_WITHIN
        while not self.rows(query, **values):
            assert time.monotonic() < deadline, what
            time.sleep(0.2)

    def tier(self, race: int) -> str | None:
        [row] = self.rows("SELECT tier FROM bibwire.scopes WHERE race_id = %(race)s", race=race)
        found: str | None = row["tier"]
        return found


@pytest.fixture
def living(shell: Shell, world: rsusim.World, database_url: str) -> Iterator[Living]:
    living = Living(shell, world, database_url)
    assert shell.add(world.accounts["Peak Timing"]).code == 0
    run = shell.start("run")
    living.follows("Peak Timing", discover=False)
    yield living
    ended = shell.stop(run)
    assert "Traceback" not in ended.err, ended.err


def people(world: rsusim.World, event: int, number: int = 3) -> int:
    for _ in range(number):
        world.register(event)
    return event


def test_races_and_events_that_come_and_move(living: Living, world: rsusim.World) -> None:
    peak = world.accounts["Peak Timing"]
    first, second = list(world.races)
    [event] = world.races[first].event_ids
    with world:
        new = world.add_race([peak], "New Year Dash", "America/Denver")
        people(world, world.add_event(new, "5K", local(world, days=60)))
        # To a race that is polled every four hours.
        people(world, world.add_event(first, "1 Mile", local(world, days=40), distance="1 Mile"))
        world.edit_race(first, name="Race Zero, Renamed")
        # From weeks away to this afternoon.
        soon = world.now.astimezone(CHICAGO) + timedelta(hours=2)
        world.edit_event(
            world.races[second].event_ids[0], start=soon.replace(second=0, microsecond=0, tzinfo=None)
        )
        series = world.add_race([peak], "Thursday Night Series", "America/New_York")
        for week in range(5):
            people(
                world, world.add_event(series, f"Week {week}", local(world, days=10 + 7 * week, hour=18)), 2
            )

    living.follows("Peak Timing")

    assert living.tier(second) == "hot"
    assert living.tier(new) == "far"
    with world:
        # Another zone is another instant, and a later start is no hot race any more.
        world.edit_race(second, timezone="Pacific/Honolulu")
        world.edit_event(world.races[second].event_ids[0], start=local(world, days=3))
        world.edit_event(event, name="10K, moved", start=local(world, days=41))
        # Next year's events under the same race.
        for number in (1, 2):
            people(world, world.add_event(first, f"{number}0K, next year", local(world, days=400)))
    living.follows("Peak Timing")
    assert living.tier(second) == "far"


def test_races_and_events_that_go_and_come_back(living: Living, world: rsusim.World) -> None:
    peak = world.accounts["Peak Timing"]
    first, second = list(world.races)
    cancelled = people(world, world.add_event(first, "Canceled 5K", local(world, days=40)))
    gone = world.add_race([peak], "Canceled Race", "America/Chicago")
    people(world, world.add_event(gone, "5K", local(world, days=50)))
    living.follows("Peak Timing")

    with world:
        world.remove_event(cancelled)
        world.remove_race(gone)
        world.withdraw(peak, second)
    assert living.shell.run("discover").code == 0

    living.waits_for(
        "SELECT FROM bibwire.races WHERE race_id = %(race)s AND unlisted_at IS NOT NULL",
        "the race that was taken away is marked",
        race=second,
    )
    # What left the lists is asked after at once, and gone when RunSignup itself says so.
    living.waits_for(
        "SELECT FROM bibwire.races WHERE race_id = %(race)s AND removed_at IS NOT NULL",
        "the canceled race is marked as gone",
        race=gone,
    )
    living.waits_for(
        "SELECT FROM bibwire.events WHERE event_id = %(event)s AND removed_at IS NOT NULL",
        "the canceled event is marked",
        event=cancelled,
    )
    with world:
        # What happens while a race is out of sight is in no list of changes.
        late = people(world, world.races[second].event_ids[0], 2)
        world.vanish(world.active(late)[0])
        world.grant(peak, second)
    living.follows("Peak Timing")
    assert len(living.rows("SELECT FROM bibwire.participants WHERE event_id = %(event)s", event=late)) == 5


def test_partners_that_come_pause_rotate_and_go(living: Living, world: rsusim.World) -> None:
    shell, lakeside = living.shell, world.accounts["Lakeside Race Services"]
    # A partner without any race, and then its first one.
    assert shell.add(lakeside).code == 0
    with world:
        race = world.add_race([lakeside], "First Race Ever", "America/Chicago")
        soon = (
            (world.now + timedelta(hours=2)).astimezone(CHICAGO).replace(second=0, microsecond=0, tzinfo=None)
        )
        event = people(world, world.add_event(race, "5K", soon))
    living.follows("Peak Timing", lakeside.name)
    assert shell.run("partner", "pause", lakeside.name).code == 0
    people(world, event)
    assert shell.run("partner", "resume", lakeside.name).code == 0
    living.follows("Peak Timing", lakeside.name, discover=False)

    assert shell.run("partner", "limit", lakeside.name, "200").code == 0
    assert (
        shell.run(
            "partner", "rotate", lakeside.name, "--api-key", lakeside.api_key, "--secret-stdin",
            stdin=lakeside.api_secret,
        ).code
        == 0
    )  # fmt: skip
    people(world, event)
    living.follows(lakeside.name, discover=False)

    assert shell.run("partner", "remove", lakeside.name, "--yes").code == 0
    assert not living.rows("SELECT FROM bibwire.races WHERE race_id = %(race)s", race=race)
    world.register(world.races[next(iter(world.races))].event_ids[0])
    assert shell.run("sync").code == 0
    living.follows("Peak Timing", discover=False)


assert PATIENCE_SECONDS > FOLLOWS_WITHIN
