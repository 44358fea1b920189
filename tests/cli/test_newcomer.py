"""What somebody who has only read the README runs into is told, not passed over in silence."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import rsusim
from bibwire.cli.demo_screen import Screen
from bibwire.store.reports import Change
from tests.cli.conftest import Shell


def past_race(world: rsusim.World, account: rsusim.Account) -> int:
    """A race of a month ago with somebody in it."""
    race = world.add_race([account], "Frozen Foot 5K", "America/Chicago")
    event = world.add_event(race, "5K", world.now.replace(tzinfo=None) - timedelta(days=30))
    world.assign_bib(world.register(event, first_name="Ada"), 12)
    return race


def test_races_too_old_for_sync_are_counted_by_sync_and_by_status(
    shell: Shell, peak: rsusim.Account, world: rsusim.World
) -> None:
    assert shell.run("sync", "--json").json["notes"] == []
    assert "not mirrored" not in shell.run("status").out
    for _ in range(2):
        past_race(world, peak)

    out = shell.run("sync").out
    state = shell.run("status", "--json").json["partners"][0]

    assert "Note: Peak Timing: 2 past races not mirrored" in out
    assert "within 7 days" in out
    assert state["past_races_not_mirrored"] == 2
    assert (state["races"], state["live_races"]) == (4, 2)
    assert "2 past races not mirrored" in shell.run("status").out


@pytest.mark.parametrize("live", [[], ["--live"]])
def test_a_race_too_old_for_sync_is_not_said_to_have_nobody_with_the_bib(
    shell: Shell, peak: rsusim.Account, world: rsusim.World, live: list[str]
) -> None:
    race = past_race(world, peak)
    shell.run("sync")
    world.log.clear()

    ended = shell.run("lookup", "12", "--race", str(race), *live)
    as_json = shell.run("lookup", "12", "--race", str(race), "--json", *live)

    assert (ended.code, ended.out) == (1, "")
    assert "is not mirrored" in ended.told
    assert "more than 7 days ago" in ended.told
    assert as_json.code == 1
    [answer] = as_json.json["answers"]
    assert (answer["mirrored"], answer["now"], answer["as_of"]) == (False, [], None)
    assert world.log.calls == 0


def test_a_race_whose_first_load_is_not_done_is_said_to_be_so(
    shell: Shell, peak: rsusim.Account, world: rsusim.World
) -> None:
    race = next(iter(world.races))
    world.faults.add(rsusim.Fault(path="participants", race_id=race, kind="error_7", times=None))
    shell.run("sync")

    ended = shell.run("lookup", "12", "--race", str(race))

    assert ended.code == 1
    assert "first load is not done: run bibwire sync" in ended.told
    world.faults.clear()
    shell.run("sync")
    again = shell.run("lookup", "12", "--race", str(race), "--json")
    assert (again.code, again.json["answers"][0]["mirrored"]) == (0, True)


@pytest.mark.parametrize("more", [[], ["--json"], ["--follow"], ["--follow", "--json"]])
def test_a_number_beyond_the_feed_is_an_error_that_names_its_end(
    shell: Shell, peak: rsusim.Account, more: list[str]
) -> None:
    shell.run("sync")
    end = shell.run("bibs", "--json").json["next_since"][peak.name]

    ended = shell.run("bibs", "--since", str(end + 1), *more)

    assert (ended.code, ended.out) == (2, "")
    assert f"The feed of Peak Timing ends at {end}" in ended.told
    assert shell.run("bibs", "--since", str(end)).code == 0


def test_the_demonstration_counts_what_happened_to_people_and_not_the_loads(
    capsys: pytest.CaptureFixture[str],
) -> None:
    at = datetime(2026, 9, 19, 8, tzinfo=UTC)
    loaded = Change(
        partner="Peak Timing", seq=1, kind="loaded", race_id=7, race="Harbor Lights", event_id=None,
        event=None, registration_id=None, first_name=None, last_name=None, bib_from=None, bib_to=None,
        fields={"participants": 30}, modified_at=None, seen_at=at,
    )  # fmt: skip
    given = replace(loaded, seq=2, kind="bib_assigned", registration_id=1, bib_to=101, fields={})
    screen = Screen()

    for change in (loaded, given, replace(loaded, kind="history_loaded")):
        screen.change(change)

    assert (screen.changes, screen.bibs) == (1, 1)
    assert "Harbor Lights" in capsys.readouterr().out


def busy_status(shell: Shell, world: rsusim.World, columns: int) -> list[str]:
    """What `status` shows on a terminal so wide, line by line, without colours."""
    code, shown = shell.on_terminal("status", columns=columns)
    assert code == 0
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown).replace("\r", "").splitlines()


@pytest.mark.parametrize("columns", [80, 60])
def test_status_fits_a_narrow_terminal_and_breaks_no_word(
    shell: Shell, peak: rsusim.Account, world: rsusim.World, columns: int
) -> None:
    shell.add(world.accounts["Lakeside Race Services"])
    first, second, _ = world.races
    shell.run("sync")
    world.faults.add(rsusim.Fault(path="participants", race_id=second, kind="error_7", times=None))
    assert shell.run("sync").code == 3

    lines = busy_status(shell, world, columns)

    assert max(map(len, lines)) <= columns
    shown = " ".join(" ".join(lines).split())
    for word in ("Lakeside", "Services", "quarantined", "Marathon", "Frosty", str(first), str(second)):
        assert word in shown
    assert "…" not in shown
    assert "Late or failing (1 of 1)" in shown


def test_status_lists_races_by_number_the_most_urgent_first_and_how_many_more(
    shell: Shell, peak: rsusim.Account, world: rsusim.World
) -> None:
    today = world.now.replace(tzinfo=None)
    races = []
    for number in range(23):
        races.append(world.add_race([peak], f"Race {number} of many", "UTC"))
        world.register(world.add_event(races[-1], "5K", today + timedelta(days=40)))
    soon = world.add_race([peak], "Soon Enough 5K", "UTC")
    world.register(world.add_event(soon, "5K", today + timedelta(hours=2)))
    shell.run("sync")

    out = shell.run("status").out

    listed = re.findall(r"^ *(\d{4,})  ", out[out.index("Races, the most urgent first") :], re.MULTILINE)
    assert listed[0] == str(soon)
    assert len(listed) == 20
    assert "and 6 more: bibwire status --json" in out


def test_calls_of_lookups_are_counted_in_the_day_as_in_the_hour(
    shell: Shell, peak: rsusim.Account, world: rsusim.World
) -> None:
    shell.run("sync")
    shell.run("lookup", "1", "--race", str(next(iter(world.races))), "--live")

    state = shell.run("status", "--json").json

    assert state["last_24_hours"][0]["calls"] == state["partners"][0]["calls_last_hour"]
    assert state["partners"][0]["calls_last_hour"] == world.log.calls


def test_an_unknown_race_is_answered_with_numbers_and_names_each_once(
    shell: Shell, peak: rsusim.Account, world: rsusim.World
) -> None:
    shell.add(world.accounts["Lakeside Race Services"])
    shell.run("sync")
    shared = next(iter(world.races))

    told = shell.run("lookup", "1", "--race", "5").told

    assert told.count(f"{shared} Harbor Lights Marathon") == 1


def test_a_first_load_says_how_many_have_a_bib_and_who_is_kept_as_removed(
    shell: Shell, peak: rsusim.Account, world: rsusim.World
) -> None:
    first = shell.run("sync").out
    again = shell.run("sync").out

    assert re.search(r"Loaded for the first time: 2 races with \d+ people, \d+ of them with a bib", first)
    assert "kept as removed" in first
    assert "bib changes" in first
    assert "Loaded for the first time" not in again
    assert "1 partner, 2 races" in again


def test_a_spent_budget_is_told_once_and_need_not_be_waited_for(
    shell: Shell, peak: rsusim.Account, world: rsusim.World
) -> None:
    shell.run("sync")
    shell.run("partner", "limit", peak.name, "1")
    world.advance(5)
    world.assign_bib(world.active(next(e for e in world.events if world.active(e)))[0], 9001)

    left = shell.run("sync", "--no-wait", "--json")
    process = shell.start("sync")
    assert process.stderr is not None
    told = ""
    while "Ctrl-C is safe" not in told:
        told += process.stderr.readline()
    stopped = shell.stop(process)

    assert left.code == 3
    errors = left.json["errors"]
    assert {error["race_id"] for error in errors} >= set(list(world.races)[:2])
    assert "there is room again at" in errors[0]["error"]
    assert "Peak Timing: the hour's calls are used up. Waiting until" in told
    assert stopped.code == 130
    assert "Ctrl-C is safe" not in stopped.err
    shell.run("partner", "limit", peak.name, "1000")
    assert shell.run("sync", "--json").json["errors"] == []


def test_psql_reaches_the_database_and_no_secret_stands_on_its_command_line(
    shell: Shell, peak: rsusim.Account
) -> None:
    shell.secrets.append("canary-pw")
    url = f"{shell.environment['BIBWIRE_DATABASE_URL']} password=canary-pw"

    ended = shell.run("psql", "-Atc", "SELECT name FROM bibwire.partners", DATABASE_URL=url)
    command_line = shell.run(
        "psql", "-c", r"\! cat /proc/$PPID/cmdline; env | grep BIBWIRE_", DATABASE_URL=url
    )
    wrong = shell.run("psql", "-c", "SELECT nothing", DATABASE_URL=url)

    assert (ended.code, ended.out) == (0, "Peak Timing\n")
    # The shell's own words are the only ones of ours.
    assert command_line.out.count("BIBWIRE_") == 1
    assert wrong.code == 1


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder the database's own user can enter, as root has it: pytest's own are closed."""
    with tempfile.TemporaryDirectory(prefix="bibwire-test-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_psql_starts_and_stops_the_embedded_database(shell: Shell, open_folder: Path) -> None:
    home = open_folder / "home"
    embedded: dict[str, str | None] = {"DATABASE_URL": None, "HOME": str(home)}
    assert shell.run("init", **embedded).code == 0
    shell.environment["PGHOST"] = "nowhere.invalid"

    ended = shell.run("psql", "-Atc", "SELECT count(*) FROM bibwire.partners", **embedded)

    assert (ended.code, ended.out) == (0, "0\n"), ended.err
    assert not (home / "postgres" / "data" / "postmaster.pid").exists()


def test_bibs_stand_below_each_other_at_the_vendor_s_time(
    shell: Shell, peak: rsusim.Account, world: rsusim.World
) -> None:
    event = next(
        e for e in world.events if world.active(e) and world.events[e].starts_at > world.now.timestamp()
    )
    shell.run("sync")
    for number, name in enumerate(("Al", "Bartholomew", "Ngô Thị"), 1):
        world.advance(5)
        world.assign_bib(world.register(event, first_name=name, last_name="Oh"), 9000 + number)
    shell.run("sync")

    lines = shell.run("bibs").out.splitlines()
    _, shown = shell.on_terminal("bibs")
    changes = shell.run("bibs", "--json").json["changes"]

    assert len({line.index(world.events[event].name) for line in lines}) == 1
    assert "seq" in shown.splitlines()[0]
    assert "changed" in shown.splitlines()[0]
    at = datetime.fromisoformat(changes[-1]["modified_at"]).astimezone()
    assert f"{at:%Y-%m-%d %H:%M:%S}" in lines[-1]


def test_whoever_stops_following_is_told_where_to_go_on(
    shell: Shell, peak: rsusim.Account, world: rsusim.World
) -> None:
    shell.run("sync")
    world.assign_bib(world.active(next(iter(world.races.values())).event_ids[-1])[0], 4710)
    shell.run("sync")
    process = shell.start("bibs", "--follow", "--since", "0", "--json")
    assert process.stdout is not None
    process.stdout.readline()  # it follows: with two partners, --since would be refused
    lakeside = world.accounts["Lakeside Race Services"]
    assert shell.add(lakeside).code == 0  # while somebody follows
    shell.run("sync")
    for race in world.races.values():
        world.assign_bib(world.active(race.event_ids[-1])[0], 4711)
    shell.run("sync")

    seen: dict[str, int] = {}
    while len(seen) < 2:
        change = json.loads(process.stdout.readline())
        seen[change["partner"]] = change["seq"]
    ended = shell.stop(process)

    assert ended.code == 130
    for account in (peak, lakeside):
        told = re.search(f'--partner "{account.name}" --since ([0-9]+)$', ended.err, re.MULTILINE)
        assert told is not None, ended.err
        assert int(told[1]) >= seen[account.name]


def test_lines_of_the_log_do_not_mix_with_a_summary_on_a_terminal(shell: Shell, peak: rsusim.Account) -> None:
    assert "race synced" in shell.run("sync").err

    _, shown = shell.on_terminal("sync")

    assert "race synced" not in shown
    assert shell.log_file.read_text().count("race synced") == 4


def test_status_watches_on_a_terminal_and_nowhere_else(shell: Shell, peak: rsusim.Account) -> None:
    assert shell.run("status", "--watch").code == 2
    # Ctrl-C, once the screen stands.
    code, shown = shell.on_terminal("status", "--watch", answers=[("nothing fails", "\x03")])
    assert code == 130
    assert "bibwire: stopped." in shown
    assert "goes on where this one was" not in shown
    assert "page 1 of 1" in shown
