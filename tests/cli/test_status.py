"""`bibwire status` tells how the scheduler stands, where calls will not suffice, and how soon edits show."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

import rsusim
from bibwire.store import schedule
from tests.cli.conftest import Shell
from tests.house import House
from tests.waiting import wait_until

Observer = psycopg.Connection[Any]


@pytest.fixture
def observer(database_url: str) -> Iterator[Observer]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SET search_path = bibwire_jobs")
        yield connection


def on_terminal(shell: Shell, columns: int) -> tuple[list[str], str]:
    """What `status` shows so wide: its lines without colours, and what is red of it."""
    code, shown = shell.on_terminal("status", columns=columns)
    assert code == 0
    red = " ".join(re.findall(r"\x1b\[31m([^\x1b]*)", shown))
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown).replace("\r", "")
    return [line.rstrip() for line in plain.splitlines()], red


def worker_gives_signs(observer: Observer) -> None:
    """Write a sign of life as of a worker: it lives for as long as the test."""
    observer.execute("INSERT INTO procrastinate_workers (last_heartbeat) VALUES (now() + interval '1 day')")


def chores_ran(observer: Observer, *, planner: str, rescue: str) -> None:
    """Write when chores last ran: the program dates them by the database's clock, which nobody moves."""
    observer.execute("DELETE FROM chores")
    observer.execute(
        "INSERT INTO chores (task, ran_at) VALUES"
        " ('plan', now() - %s::interval), ('rescue', now() - %s::interval)",
        (planner, rescue),
    )


def scheduler(shell: Shell) -> dict[str, Any]:
    found: dict[str, Any] = shell.run("status", "--json").json["scheduler"]
    return found


def test_where_nobody_ever_ran_workers_that_is_no_alarm(shell: Shell, peak: rsusim.Account) -> None:
    lines, red = on_terminal(shell, 80)

    assert "No worker has ever run here" in " ".join(lines)
    assert red == ""
    found = scheduler(shell)
    assert (found["ever_run"], found["workers"], found["alarms"]) == (False, 0, [])


@pytest.mark.parametrize(
    ("living", "planner", "rescue", "alarm"),
    [
        (True, "5 seconds", "15 seconds", None),
        (True, "2 minutes", "15 seconds", "The planner has not run for 2 min"),
        (True, "5 seconds", "3 hours", "The rescue has not run for 3.0 h"),
        (False, "5 seconds", "15 seconds", "No worker is running"),
    ],
)
def test_silence_is_an_alarm_that_says_what_to_do(
    shell: Shell,
    peak: rsusim.Account,
    observer: Observer,
    living: bool,
    planner: str,
    rescue: str,
    alarm: str | None,
) -> None:
    if living:
        worker_gives_signs(observer)
    chores_ran(observer, planner=planner, rescue=rescue)

    told = scheduler(shell)["alarms"]
    lines, red = on_terminal(shell, 80)

    if alarm is None:
        assert (told, red) == ([], "")
    else:
        assert len(told) == 1
        assert told[0].startswith(alarm)
        assert alarm in red
        assert "bibwire run" in told[0]
    assert "Scheduler" in lines


@pytest.mark.parametrize("columns", [80, 60])
def test_the_queue_is_counted_by_what_becomes_of_it_on_a_narrow_terminal_too(
    shell: Shell, peak: rsusim.Account, observer: Observer, columns: int
) -> None:
    worker_gives_signs(observer)
    chores_ran(observer, planner="100 minutes", rescue="100 minutes")
    for status, number in (("todo", 1234), ("doing", 3), ("failed", 2)):
        observer.execute(
            "INSERT INTO procrastinate_jobs (queue_name, task_name, status)"
            " SELECT 'sweep', 'sweep', %s::procrastinate_job_status FROM generate_series(1, %s)",
            (status, number),
        )

    found = scheduler(shell)
    lines, _ = on_terminal(shell, columns)

    counts = [found[name] for name in ("workers", "waiting", "running", "failed", "stalled")]
    assert counts == [1, 1234, 3, 2, 3]
    assert max(map(len, lines)) <= columns
    assert any(line.split()[:5] == ["1", "1,234", "3", "2", "3"] for line in lines)
    assert "…" not in "".join(lines)


def test_a_shortage_ahead_is_told_with_what_to_do_and_no_more_once_that_is_done(
    shell: Shell, peak: rsusim.Account, world: rsusim.World, observer: Observer
) -> None:
    # At an hour that is believed, whenever the test is run.
    start = (world.now + timedelta(days=2)).replace(hour=14, minute=0)
    for number in range(30):
        race = world.add_race([peak], f"Race {number} of many", "UTC")
        world.add_event(race, "5K", start.replace(tzinfo=None))
    assert shell.run("status", "--json").json["shortages"] == []
    running = shell.start("run")
    try:
        wait_until(lambda: shell.run("status", "--json").json["shortages"])
    finally:
        shell.stop(running)

    [short] = shell.run("status", "--json").json["shortages"]
    lines, _ = on_terminal(shell, 60)

    assert short["partner"] == peak.name
    assert short["needed_calls_per_hour"] > 30 * 72 > short["usable_calls_per_hour"]
    assert short["begins_at"][:16] == (start - timedelta(hours=4)).isoformat()[:16]
    limit = short["sufficient_calls_per_hour"]
    assert max(map(len, lines)) <= 60
    shown = " ".join(" ".join(lines).split())
    assert f'bibwire partner limit "Peak Timing" {limit}' in shown
    assert f"{short['needed_calls_per_hour']:,.0f} are needed" in shown
    assert "the calls will not suffice" in shell.log_file.read_text()
    assert shell.run("partner", "limit", peak.name, str(limit)).code == 0
    assert shell.run("status", "--json").json["shortages"] == []


def test_the_last_hour_s_lag_stands_beside_its_race_and_a_day_s_in_json(
    shell: Shell, database_url: str
) -> None:
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    world = rsusim.worlds.small(now=hour - timedelta(hours=41))
    first, second, _ = world.races

    def edit_and_see(house: House, race: int, hours_ago: int, lags: Sequence[int]) -> None:
        """Change people of a race so many seconds before a sync sees it, at the start of that hour."""
        seen_at = hour - timedelta(hours=hours_ago)
        people = [n for e in world.events.values() if e.race_id == race for n in world.active(e.event_id)]
        for seconds, number in zip(sorted(lags, reverse=True), people[::-1], strict=False):
            world.advance((seen_at - world.now).total_seconds() - seconds)
            world.edit(number, city=f"Seen {hours_ago} h ago")
        world.advance((seen_at - world.now).total_seconds())
        assert house.sync(race=race).errors == []
        house.run(schedule.count_lag(house.runtime.db))

    with rsusim.Server(world) as vendor, House(world, vendor.base_url, database_url) as house:
        house.add_partner(world.accounts["Peak Timing"])
        assert house.sync().errors == []
        assert "lag p50" not in shell.run("status").out
        edit_and_see(house, first, 40, [7])
        edit_and_see(house, second, 5, [50])
        edit_and_see(house, first, 3, [90])
        edit_and_see(house, first, 0, [2, 4, 4, 8, 12])

    lags = {race["race_id"]: race["detection_lag"] for race in shell.run("status", "--json").json["races"]}
    lines, _ = on_terminal(shell, 80)

    # The vendor's clock shows whole seconds: it is taken to be half a second ahead.
    last = lags[first]["last_hour"]
    assert [last[name] for name in ("p50_seconds", "worst_seconds", "changes")] == [4.5, 12.5, 5]
    assert last["p95_seconds"] == pytest.approx(8.5 + 0.8 * 4)
    assert [each["p50_seconds"] for each in lags[first]["last_24_hours"]] == [4.5, 90.5]
    assert lags[second]["last_hour"] is None
    assert [each["p50_seconds"] for each in lags[second]["last_24_hours"]] == [50.5]
    assert sum("4 s / 12 s" in line for line in lines) == 1
    assert "50 s" not in "\n".join(lines)
    assert max(map(len, lines)) <= 80
