"""`bibwire sync`, `status`, `bibs` and `lookup`, as people and programs use them."""

from __future__ import annotations

import json
import shlex
import signal

import psycopg
import pytest

import rsusim
from tests.cli.conftest import Shell
from tests.waiting import wait_until

PROMISED = {"partners", "races", "events", "calls", "seconds", "participants", "bibs", "errors"}


def first_race(world: rsusim.World) -> tuple[int, int]:
    """The shared race's id and one of its events that people are in."""
    race = next(iter(world.races))
    event = next(
        e
        for e in world.races[race].event_ids
        if world.active(e) and world.events[e].starts_at > world.clock.time()
    )
    return race, event


def test_sync_prints_one_json_object_with_what_is_promised(shell: Shell, peak: rsusim.Account) -> None:
    ended = shell.run("sync", "--json")

    assert ended.code == 0
    assert ended.out.count("\n") == 1
    assert set(ended.json) >= PROMISED
    assert set(ended.json["participants"]) >= {"inserted", "updated", "unchanged", "removed", "quarantined"}
    assert set(ended.json["bibs"]) == {"assigned", "changed", "cleared"}
    assert ended.json["participants"]["inserted"] > 0
    assert ended.json["errors"] == []


def test_sync_prints_a_summary_for_people(shell: Shell, peak: rsusim.Account) -> None:
    out = shell.run("sync").out

    for word in ("inserted", "unchanged", "quarantined", "assigned", "people/s", "calls"):
        assert word in out


def test_a_command_that_has_no_partner_says_so_and_what_to_do(shell: Shell) -> None:
    for command, code in (("sync", 0), ("discover", 0), ("backfill", 0), ("reconcile", 0), ("verify", 1)):
        for more in ((), ("--json",)):
            ended = shell.run(command, *more)

            assert ended.code == code, command
            assert "No partner is stored yet. Add one with: bibwire partner add" in ended.told
            assert bool(ended.out) == bool(more)


def test_an_address_that_is_not_the_api_s_is_named_and_each_thing_asked_for_once(
    shell: Shell, peak: rsusim.Account, world: rsusim.World
) -> None:
    assert shell.run("sync").code == 0
    before = shell.run("status", "--json").json["partners"][0]["calls_last_hour"]
    asked = shell.environment["BIBWIRE_API_URL"].removesuffix("/rest")

    ended = shell.run("sync", API_URL=asked, RETRY_SECONDS="60")

    assert ended.code == 1
    assert f"the API does not answer at {asked}/races: HTTP 404 with a page of HTML or XML" in ended.err
    assert "is BIBWIRE_API_URL right? Its default is https://api.runsignup.com/rest" in ended.err
    assert peak.api_key not in ended.err
    state = shell.run("status", "--json").json
    assert state["partners"][0]["calls_last_hour"] == before + 1 + len(state["races"])
    # Nothing is taken for gone, and the next sync goes on.
    assert all(race["access_lost_at"] is None for race in state["races"])
    assert shell.run("sync").code == 0


def test_a_race_that_fails_is_named_with_its_reason_and_the_exit_code_is_3(
    shell: Shell, peak: rsusim.Account, world: rsusim.World
) -> None:
    race, _ = first_race(world)
    world.faults.add(rsusim.Fault(path="participants", race_id=race, kind="error_7", times=None))

    told = shell.run("sync")
    as_json = shell.run("sync", "--json")

    assert (told.code, as_json.code) == (3, 3)
    assert str(race) in told.out
    assert str(race) in told.told
    assert [error["race_id"] for error in as_json.json["errors"]] == [race]
    assert set(as_json.json["errors"][0]) == {"partner", "race_id", "error"}


def test_the_exit_code_is_1_when_everything_fails(
    shell: Shell, peak: rsusim.Account, world: rsusim.World
) -> None:
    world.faults.add(rsusim.Fault(kind="http_503", times=None))

    ended = shell.run("sync")

    assert ended.code == 1
    assert "nothing could be synced" in ended.told


@pytest.mark.parametrize("kind", ["credentials_echoed", "credentials_in_error"])
def test_a_vendor_that_echoes_the_key_makes_nobody_show_it(
    shell: Shell, peak: rsusim.Account, world: rsusim.World, kind: str, database_url: str
) -> None:
    shell.run("sync")
    world.faults.add(rsusim.Fault(kind=kind, times=None))

    for arguments in (["sync"], ["sync", "--json", "--debug"], ["status"], ["status", "--json"]):
        shell.run(*arguments, LOG_LEVEL="DEBUG")  # checks what was written

    with psycopg.connect(database_url) as connection:
        stored = connection.execute("SELECT h::text FROM bibwire.sync_history AS h").fetchall()
        stored += connection.execute("SELECT s::text FROM bibwire.scopes AS s").fetchall()
    shell.check_secrets(repr(stored))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["sync", "--partner", "Peek"], "There is no partner Peek"),
        (["sync", "--race", "5"], "5"),
        (["bibs", "--partner", "Peek"], "There is no partner Peek"),
        (["bibs", "--race", "5"], "There is no race 5"),
        (["lookup", "1", "--race", "5"], "There is no race 5"),
        (["lookup", "1", "--race", "5", "--live"], "There is no race 5"),
    ],
)
def test_an_unknown_partner_or_race_is_one_sentence_and_exit_code_2(
    shell: Shell, peak: rsusim.Account, arguments: list[str], told: str
) -> None:
    ended = shell.run(*arguments)

    assert (ended.code, ended.out) == (2, "")
    assert told in ended.told


def test_status_tells_freshness_budget_and_the_last_runs(
    shell: Shell, peak: rsusim.Account, world: rsusim.World
) -> None:
    assert "before the first sync" in shell.run("status").out
    shell.run("sync")
    calls = world.log.calls  # those that checked the key are counted, too

    state = shell.run("status", "--json").json
    [partner] = state["partners"]
    assert partner["calls_last_hour"] == calls
    assert partner["participants"] > 0
    assert sum(tier["races"] for tier in state["freshness"]) == len(state["races"]) > 0
    assert all(tier["late"] == 0 for tier in state["freshness"])
    assert {run["outcome"] for run in state["last_runs"]} == {"ok"}
    by_urgency = partner["calls_by_urgency"]
    assert list(by_urgency) == ["live", "race_day", "delta", "reconcile", "backfill"]
    assert sum(by_urgency.values()) == calls
    assert by_urgency["delta"] >= 5
    assert (partner["calls_per_hour"], partner["limit_in_use"], partner["blocked_until"]) == (
        1000,
        1000,
        None,
    )
    assert state["blocked_callers"] == []
    assert shell.run("plan", "--json").json["partners"][0]["blocked_until"] is None
    assert f"{calls:,} of 1,000" in shell.run("status").out


def test_status_tells_what_the_vendor_s_throttling_did(
    shell: Shell, peak: rsusim.Account, world: rsusim.World
) -> None:
    world.faults.add(rsusim.Fault(path="races", kind="http_429", retry_after=3600, times=1))
    ended = shell.run("sync")

    assert "asks for fewer calls (HTTP 429)" in ended.told
    [partner] = shell.run("status", "--json").json["partners"]
    assert (partner["calls_per_hour"], partner["limit_in_use"]) == (1000, 700)
    assert partner["blocked_until"] is not None
    told = shell.run("status").out
    assert f"{partner['calls_last_hour']} of 1,000" in told
    assert "none before" in told
    assert "asks for fewer calls (HTTP 429)" in told
    [planned] = shell.run("plan", "--json").json["partners"]
    assert planned["blocked_until"] == partner["blocked_until"]
    assert "no call is made before" in shell.run("plan").out


def test_a_reader_of_bibs_that_remembers_a_number_misses_nothing(
    shell: Shell, peak: rsusim.Account, world: rsusim.World
) -> None:
    _, event = first_race(world)
    ada, bob = world.active(event)[:2]
    shell.run("sync")
    since = shell.run("bibs", "--json").json["next_since"][peak.name]
    read: list[tuple[int, int | None]] = []

    for registration, bib in ((ada, 9001), (bob, 9002), (ada, 9003)):
        world.advance(5)
        world.assign_bib(registration, bib)
        assert shell.run("sync").code == 0
        answer = shell.run("bibs", "--since", str(since), "--json").json
        read += [(change["registration_id"], change["bib_to"]) for change in answer["changes"]]
        since = answer["next_since"][peak.name]

    assert read == [(ada, 9001), (bob, 9002), (ada, 9003)]
    assert shell.run("bibs", "--since", str(since), "--json").json["changes"] == []
    lines = shell.run("bibs").out.splitlines()
    assert "→ 9003" in lines[-1]
    assert lines[-1].startswith(f"{peak.name} {since}")


def test_since_needs_to_know_whose_number_it_is(
    shell: Shell, peak: rsusim.Account, world: rsusim.World
) -> None:
    shell.add(world.accounts["Lakeside Race Services"])

    ended = shell.run("bibs", "--since", "0")

    assert ended.code == 2
    assert "--since needs --partner" in ended.told
    assert shell.run("bibs", "--since", "0", "--partner", peak.name).code == 0


def test_following_prints_an_object_a_line_as_changes_come(
    shell: Shell, peak: rsusim.Account, world: rsusim.World
) -> None:
    race, event = first_race(world)
    ada = world.active(event)[0]
    shell.run("sync")
    process = shell.start("bibs", "--follow", "--json", "--since", "0", "--race", str(race))
    assert process.stdout is not None

    for bib in (9001, 9002):
        world.advance(5)
        world.assign_bib(ada, bib)
        shell.run("sync")
        assert json.loads(process.stdout.readline())["bib_to"] == bib

    ended = shell.stop(process, signal.SIGINT)
    assert ended.code == 130
    assert "Nothing is lost" in ended.told
    assert ended.out == ""


def test_lookup_says_who_has_a_bib_and_who_had_it(
    shell: Shell, peak: rsusim.Account, world: rsusim.World
) -> None:
    race, event = first_race(world)
    ada, bob = world.active(event)[:2]
    shell.run("sync")
    for registration, bib in ((ada, 9001), (ada, 9009), (bob, 9001)):
        world.advance(5)
        world.assign_bib(registration, bib)
        shell.run("sync")

    [answer] = shell.run("lookup", "9001", "--race", str(race), "--json").json["answers"]

    assert [holder["registration_id"] for holder in answer["now"]] == [bob]
    assert [(move["registration_id"], move["bib_to"]) for move in answer["history"]] == [
        (bob, 9001),
        (ada, 9009),
        (ada, 9001),
    ]
    shown = shell.run("lookup", "9001", "--race", str(race)).out
    assert "given up for 9009" in shown
    # Who has it now stands in it too.
    assert "\nHistory" in shown
    assert "Before" not in shown
    assert "nobody has it now" in shell.run("lookup", "9999", "--race", str(race)).out


def test_a_live_lookup_knows_what_the_mirror_did_not(
    shell: Shell, peak: rsusim.Account, world: rsusim.World
) -> None:
    race, event = first_race(world)
    ada = world.active(event)[0]
    shell.run("sync")
    world.advance(5)
    world.assign_bib(ada, 9001)
    world.log.clear()

    stale = shell.run("lookup", "9001", "--race", str(race), "--json").json
    assert stale["answers"][0]["now"] == []
    assert world.log.calls == 0
    [answer] = shell.run("lookup", "9001", "--race", str(race), "--live", "--json").json["answers"]

    assert [holder["registration_id"] for holder in answer["now"]] == [ada]
    assert sum("search_bib" in request.query for request in world.log.requests) == 1


def test_whose_calls_a_live_lookup_spends_has_to_be_said(
    shell: Shell, peak: rsusim.Account, world: rsusim.World
) -> None:
    race, _ = first_race(world)
    shell.add(world.accounts["Lakeside Race Services"])
    shell.run("sync")

    ended = shell.run("lookup", "1", "--race", str(race), "--live")

    assert ended.code == 2
    assert "--partner" in ended.told


def test_a_name_that_steers_terminals_is_shown_without_its_power(
    shell: Shell, peak: rsusim.Account, world: rsusim.World
) -> None:
    race, event = first_race(world)
    eve = world.register(event, first_name="\x1b[2J[red]Eve", last_name="a\nb")
    world.assign_bib(eve, 9001)
    shell.run("sync")

    shown = shell.run("lookup", "9001", "--race", str(race)).out

    assert "[red]Eve" in shown
    assert "\x1b" not in shown


def test_who_stops_following_several_partners_is_given_a_command_for_each(
    shell: Shell, peak: rsusim.Account, world: rsusim.World
) -> None:
    assert shell.add(world.accounts["Lakeside Race Services"]).code == 0
    race, event = first_race(world)
    world.assign_bib(world.active(event)[0], 9001)
    shell.run("sync")
    world.assign_bib(world.active(event)[0], 9002)
    shell.run("sync")
    process = shell.start("bibs", "--follow", "--json", "--race", str(race))
    assert process.stdout is not None
    assert [json.loads(process.stdout.readline())["bib_to"] for _ in range(2)] == [9002, 9002]

    ended = shell.stop(process)

    assert ended.code == 130
    ways = [shlex.split(line) for line in ended.err.splitlines() if line.startswith("  ")]
    start = ["bibwire", "bibs", "--follow", "--race", str(race), "--partner"]
    assert [words[: len(start)] for words in ways] == [start, start]
    assert {words[len(start)] for words in ways} == {"Peak Timing", "Lakeside Race Services"}
    for words in ways:
        assert shell.run(*(word for word in words[1:] if word != "--follow")).code == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_sync_that_is_stopped_ends_at_once_and_the_next_one_completes(
    shell: Shell, peak: rsusim.Account, world: rsusim.World, number: int, code: int
) -> None:
    world.faults.add(rsusim.Fault(path="participants", kind="hang", times=None))
    world.log.clear()
    # RunSignup goes on with the calls that were broken off, and the next sync waits for so long.
    process = shell.start("sync", TIMEOUT_SECONDS="6")
    wait_until(lambda: world.log.of("participants"))

    ended = shell.stop(process, number)

    assert ended.code == code
    assert "Nothing is lost" in ended.told
    world.faults.clear()
    assert shell.run("sync").code == 0


def test_progress_is_shown_on_a_terminal_and_not_in_a_file(shell: Shell, peak: rsusim.Account) -> None:
    assert "people/s" not in shell.run("sync").err

    code, shown = shell.on_terminal("sync", "--full", "--json")

    assert code == 0
    assert "people/s" in shown
