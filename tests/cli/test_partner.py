"""`bibwire partner`: keys are checked, stored sealed, shown nowhere, and removed with all data."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import termios
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.core import TyperGroup
from typer.main import get_command

import rsusim
from bibwire.cli.app import app
from bibwire.clock import SystemClock
from bibwire.engine.planner import Planner
from bibwire.store.database import Database
from bibwire.store.jobs import Jobs
from bibwire.store.partners import partner_command, quoted
from tests.cli.conftest import Shell
from tests.store.mirrored import with_database
from tests.waiting import PATIENCE_SECONDS, wait_until


def everything_stored(database_url: str) -> str:
    """Every row of every table, as text."""
    with psycopg.connect(database_url) as connection:
        tables = connection.execute(
            "SELECT table_name FROM information_schema.tables "
            "WHERE table_schema = 'bibwire' AND table_type = 'BASE TABLE'"
        ).fetchall()
        rows = [
            connection.execute(f"SELECT t::text FROM bibwire.{table} AS t".encode()).fetchall()
            for (table,) in tables
        ]
    return repr(rows)


def test_a_race_list_that_does_not_end_is_given_up_and_its_calls_count(
    shell: Shell, world: rsusim.World
) -> None:
    account = world.accounts["Peak Timing"]
    races = [{"race": {"race_id": n, "name": "R"}} for n in range(1, 1001)]
    world.faults.add(rsusim.Fault(path="races", kind="body", body=json.dumps({"races": races}), times=None))
    world.faults.add(rsusim.Fault(path="participants", kind="error_6", times=None))

    added = shell.add(account)
    assert (added.code, "1,000 races or more" in added.out) == (0, True)
    assert world.log.calls == 1, "one page is enough to try a key"

    rotated = shell.run(
        "partner", "rotate", account.name, "--api-key", account.v2_key, "--kind", "v2", "--secret-stdin",
        stdin=account.v2_secret,
    )  # fmt: skip
    assert rotated.code == 1
    assert "again and again" in rotated.told
    assert world.log.calls == 3
    assert shell.run("sync").code == 1
    [partner] = shell.run("status", "--json").json["partners"]
    assert partner["calls_last_hour"] == 3


def test_the_calls_of_a_key_that_was_refused_count_when_it_comes(shell: Shell, world: rsusim.World) -> None:
    account = world.accounts["Peak Timing"]
    world.faults.add(rsusim.Fault(path="participants", kind="error_6", times=3))
    for _ in range(3):
        assert shell.add(account, "--calls-per-hour", "8").code == 1
    assert world.log.calls == 6
    refused = shell.add(account, "--calls-per-hour", "6")
    assert (refused.code, "used up" in refused.told) == (1, True)
    assert world.log.calls == 6
    assert shell.add(account).code == 0
    [partner] = shell.run("status", "--json").json["partners"]
    assert partner["calls_last_hour"] == 8


def test_a_partner_is_added_checked_and_listed_without_its_secret(
    shell: Shell, peak: rsusim.Account, database_url: str
) -> None:
    [partner] = shell.run("partner", "list", "--json").json["partners"]

    assert partner["name"] == "Peak Timing"
    assert (partner["fingerprint"], partner["kind"], partner["calls_per_hour"]) == (
        peak.api_key[-4:],
        "key",
        1000,
    )
    assert partner["verified_at"] is not None
    assert "Peak Timing" in shell.run("partner", "list").out
    stored = everything_stored(database_url)
    assert peak.api_key not in stored
    assert peak.api_secret not in stored
    assert peak.api_secret.encode().hex() not in stored


def test_a_wrong_key_is_told_at_once_and_nothing_is_stored(shell: Shell, world: rsusim.World) -> None:
    account = world.accounts["Peak Timing"]

    ended = shell.run("partner", "add", "Peak", "--api-key", account.api_key, "--secret-stdin", stdin="wrong")

    assert ended.code == 1
    assert "Nothing was stored" in ended.told
    assert shell.run("partner", "list", "--json").json == {"partners": []}


def test_an_unreachable_vendor_is_told_with_the_way_round_it(shell: Shell, world: rsusim.World) -> None:
    shell.environment["BIBWIRE_API_URL"] = "http://127.0.0.1:9/rest"
    account = world.accounts["Peak Timing"]

    assert "--no-check" in shell.add(account).told
    assert shell.add(account, "--no-check").code == 0
    [partner] = shell.run("partner", "list", "--json").json["partners"]
    assert partner["verified_at"] is None


@pytest.mark.parametrize("kind", ["v2", "bearer"])
def test_each_kind_of_key_is_taken(shell: Shell, world: rsusim.World, tmp_path: Path, kind: str) -> None:
    account = world.accounts["Peak Timing"]
    path = tmp_path / "secret"
    path.write_text(f"{account.v2_secret if kind == 'v2' else account.bearer_token}\n")
    key = ["--api-key", account.v2_key] if kind == "v2" else []

    ended = shell.run("partner", "add", "Peak", "--kind", kind, *key, "--secret-file", str(path))

    assert ended.code == 0, ended.err
    assert shell.run("sync").code == 0


@pytest.mark.parametrize(
    ("arguments", "stdin", "told"),
    [
        (["--api-key", "k"], None, "there is none: use --secret-stdin"),
        (["--secret-stdin"], "s", "--api-key KEY"),
        (["--api-key", " ", "--secret-stdin"], "s", "--api-key KEY"),
        (["--api-key", "k", "--secret-stdin"], "", "is empty"),
        (["--api-key", "k", "--secret-stdin"], "two words", "has to be one word"),
        (["--api-key", "k", "--secret-file", "/nowhere/x"], None, "cannot be read"),
        (["--api-key", "k", "--secret-file", "/dev/null"], None, "is empty"),
        (["--api-key", "k", "--secret-stdin", "--secret-file", "x"], "s", "keep one of them"),
        (["--kind", "bearer", "--api-key", "k", "--secret-stdin"], "s", "leave --api-key out"),
    ],
)
def test_a_secret_that_cannot_be_read_stores_nothing(
    shell: Shell, arguments: list[str], stdin: str | None, told: str
) -> None:
    ended = shell.run("partner", "add", "Peak", *arguments, stdin=stdin)

    assert ended.code == 2
    assert told in ended.told
    assert shell.run("partner", "list", "--json").json == {"partners": []}


def test_a_secret_typed_on_a_terminal_is_not_echoed(shell: Shell, world: rsusim.World) -> None:
    account = world.accounts["Peak Timing"]

    code, shown = shell.on_terminal(
        "partner", "add", "Peak", "--api-key", account.api_key, answers=[("API secret", account.api_secret)]
    )

    assert code == 0, shown
    assert account.api_secret not in shown
    assert "is added" in shown


@pytest.mark.parametrize(("typed", "code", "left"), [("Peak Timing", 0, 0), ("peak", 2, 1)])
def test_removing_on_a_terminal_wants_the_name_typed(
    shell: Shell, peak: rsusim.Account, typed: str, code: int, left: int
) -> None:
    ended, shown = shell.on_terminal(
        "partner", "remove", peak.name, answers=[("Type the partner's name", typed)]
    )

    assert ended == code, shown
    assert len(shell.run("partner", "list", "--json").json["partners"]) == left


def test_a_name_twice_is_refused_and_told_how_to_rotate(shell: Shell, peak: rsusim.Account) -> None:
    ended = shell.add(peak)

    assert ended.code == 2
    assert 'bibwire partner rotate "Peak Timing"' in ended.told


def test_two_names_that_one_variable_would_override_are_refused(shell: Shell, peak: rsusim.Account) -> None:
    ended = shell.run(
        "partner", "add", "peak-timing", "--api-key", peak.api_key, "--secret-stdin", stdin="secret"
    )

    assert ended.code == 2
    assert "BIBWIRE_KEY_PEAK_TIMING" in ended.told


def test_rotating_replaces_a_key_that_fails(shell: Shell, world: rsusim.World) -> None:
    account = world.accounts["Peak Timing"]
    wrong = shell.run(
        "partner", "add", "Peak", "--api-key", "old-key", "--secret-stdin", "--no-check", stdin="old"
    )
    assert wrong.code == 0
    assert shell.run("sync").code == 1

    rotated = shell.run(
        "partner", "rotate", "Peak", "--api-key", account.api_key, "--secret-stdin", stdin=account.api_secret
    )

    assert rotated.code == 0
    assert shell.run("sync").code == 0


def test_a_partner_s_key_can_be_overridden_for_one_process(shell: Shell, world: rsusim.World) -> None:
    account = world.accounts["Peak Timing"]
    shell.run("partner", "add", "Peak", "--api-key", "old-key", "--secret-stdin", "--no-check", stdin="old")

    assert shell.run("sync", KEY_PEAK=account.api_key, SECRET_PEAK=account.api_secret).code == 0
    assert shell.run("sync").code == 1


def test_a_paused_partner_is_asked_nothing_until_it_is_resumed(
    shell: Shell, peak: rsusim.Account, world: rsusim.World
) -> None:
    assert shell.run("partner", "pause", peak.name).code == 0
    world.log.clear()

    assert shell.run("sync", "--json").json["partners"] == 0
    assert world.log.calls == 0
    assert shell.run("sync", "--partner", peak.name).code == 2

    assert shell.run("partner", "resume", peak.name).code == 0
    assert shell.run("sync", "--json").json["races"] > 0


def test_removing_asks_first_and_then_leaves_the_other_partner_whole(
    shell: Shell, peak: rsusim.Account, world: rsusim.World
) -> None:
    lake = world.accounts["Lakeside Race Services"]
    shell.add(lake)
    assert shell.run("sync").code == 0
    before = {p["partner"]: p for p in shell.run("status", "--json").json["partners"]}

    assert "add --yes" in shell.run("partner", "remove", peak.name).told
    assert shell.run("partner", "remove", peak.name, "--yes").code == 0

    [left] = shell.run("status", "--json").json["partners"]
    assert left == before[lake.name]
    assert left["participants"] > 0


@pytest.mark.parametrize("command", ["rotate", "pause", "resume", "remove"])
def test_an_unknown_partner_is_named_with_those_there_are(
    shell: Shell, peak: rsusim.Account, command: str
) -> None:
    more = ["--api-key", "new-key", "--secret-stdin"] if command == "rotate" else []

    ended = shell.run("partner", command, "Peek", *more, stdin="new-secret")

    assert ended.code == 2
    assert "There is no partner Peek. There are: Peak Timing." in ended.told


def test_a_key_that_another_partner_has_is_refused_by_its_name_and_costs_no_call(
    shell: Shell, peak: rsusim.Account, world: rsusim.World
) -> None:
    lake = world.accounts["Lakeside Race Services"]
    assert shell.add(lake).code == 0
    world.log.clear()
    key = ("--api-key", peak.api_key, "--secret-stdin")

    added = shell.run("partner", "add", "Copy", *key, "--no-check", stdin=peak.api_secret)
    rotated = shell.run("partner", "rotate", lake.name, *key, stdin=peak.api_secret)

    assert (added.code, rotated.code) == (2, 2)
    assert "Peak Timing has this key already" in added.told
    assert "Peak Timing has this key already" in rotated.told
    assert world.log.calls == 0
    names = [partner["name"] for partner in shell.run("partner", "list", "--json").json["partners"]]
    assert names == [lake.name, peak.name]


def test_calls_that_check_a_key_count_and_the_limit_can_be_changed_without_the_key(
    shell: Shell, peak: rsusim.Account, world: rsusim.World
) -> None:
    assert shell.run("partner", "limit", "PEAK timing", "500").out == (
        "Partner Peak Timing may make 500 calls an hour.\n"
    )
    shell.run(
        "partner", "rotate", peak.name, "--api-key", peak.api_key, "--secret-stdin", stdin=peak.api_secret
    )

    [state] = shell.run("status", "--json").json["partners"]

    assert state["calls_per_hour"] == 500
    assert state["calls_last_hour"] == world.log.calls >= 4


def test_a_new_key_that_does_not_see_every_live_race_is_taken_only_when_confirmed(
    shell: Shell, peak: rsusim.Account, world: rsusim.World
) -> None:
    shell.run("sync")
    lake = world.accounts["Lakeside Race Services"]
    rotate = ("partner", "rotate", peak.name, "--api-key", lake.api_key, "--secret-stdin")

    refused = shell.run(*rotate, stdin=lake.api_secret)

    assert refused.code == 2
    assert "does not see 1 race of Peak Timing that the mirror keeps fresh" in refused.told
    assert "Frosty Toes" in refused.told
    assert shell.run("partner", "list", "--json").json["partners"][0]["fingerprint"] == peak.api_key[-4:]
    assert shell.run(*rotate, "--yes", stdin=lake.api_secret).code == 0
    assert shell.run("partner", "list", "--json").json["partners"][0]["fingerprint"] == lake.api_key[-4:]


def test_pausing_and_resuming_say_whom_and_whether_it_was_so_already(
    shell: Shell, peak: rsusim.Account
) -> None:
    assert "was not paused" in shell.run("partner", "resume", peak.name).out
    assert 'bibwire partner resume "Peak Timing"' in shell.run("partner", "pause", peak.name).out
    assert "is paused already, since" in shell.run("partner", "pause", "peak timing").out
    assert "is active again" in shell.run("partner", "resume", peak.name).out


def test_what_changes_a_partner_wakes_the_planner_once_and_pausing_clears_the_queue(
    shell: Shell, peak: rsusim.Account, database_url: str
) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SET search_path = bibwire_jobs")

        def queued() -> list[str]:
            jobs = connection.execute(
                "SELECT task_name FROM procrastinate_jobs ORDER BY task_name"
            ).fetchall()
            return [task for (task,) in jobs]

        assert queued() == []  # adding it woke nobody: no worker lives
        # A worker gives signs, and takes nothing.
        connection.execute(
            "INSERT INTO procrastinate_workers (last_heartbeat) VALUES (now() + interval '1 day')"
        )
        rotate = ("rotate", peak.name, "--api-key", peak.api_key, "--secret-stdin", "--no-check")
        for command in (("resume", peak.name), rotate, ("limit", peak.name, "900")):
            connection.execute("DELETE FROM procrastinate_jobs")
            assert shell.run("partner", *command, stdin=peak.api_secret).code == 0
            assert queued() == ["plan"]
        assert shell.run("discover").code == 0
        assert queued() == ["plan"]

        async def plan(db: Database) -> None:
            await Planner(db, Jobs(db), SystemClock()).tick()

        assert shell.run("partner", "limit", peak.name, "901").code == 0
        with_database(database_url, plan)
        assert {*queued()} == {"plan", "sweep", "discover"}
        for command in (("pause", peak.name), ("remove", peak.name, "--yes")):
            assert shell.run("partner", *command).code == 0
            assert queued() == ["plan"]


NAMES = [
    *("-dash", "--", "O'Brien", 'The "Fast" One', "Cheap $HOME", "tick`s`", "back\\\\slash and more"),
    *("Peak Timing", "Ø-Løb", "a&b", "*", "~", "#1 Timing"),
]


def understood(line: str) -> dict[str, Any]:
    """Paste a line into a shell; return what the program takes the words for that the shell makes of it."""
    script = f"bibwire() {{ printf '%s\\0' \"$@\"; }}\n{line}"
    said = subprocess.run(["sh", "-c", script], capture_output=True, encoding="utf-8", check=True).stdout
    words = said.split("\0")[:-1]
    command = get_command(app)
    while isinstance(command, TyperGroup):
        command = command.commands[words.pop(0)]
    return command.make_context("bibwire", words).params


@pytest.mark.parametrize("name", NAMES)
def test_every_command_that_names_a_partner_can_be_pasted(name: str) -> None:
    assert understood(f"bibwire discover --partner {quoted(name)}")["partner"] == name
    assert understood(partner_command("pause", name)) == {"name": name}
    assert understood(partner_command("limit", name, value="50")) == {"name": name, "calls": 50}
    rotated = understood(partner_command("rotate", name, options="--api-key KEY"))
    assert (rotated["name"], rotated["api_key"]) == (name, "KEY")


def test_a_partner_whose_name_starts_with_a_dash_is_added_paused_and_resumed_as_is_said(
    shell: Shell, world: rsusim.World
) -> None:
    peak = world.accounts["Peak Timing"]
    key = ("--api-key", peak.api_key, "--secret-stdin")

    refused = shell.run("partner", "add", "-dash", *key, stdin=peak.api_secret)

    assert refused.code == 2
    assert "A NAME that starts with a dash comes last: bibwire partner add ... -- NAME." in refused.told
    assert shell.run("partner", "add", *key, "--", "-dash", stdin=peak.api_secret).code == 0
    paused = shell.run("partner", "pause", "--", "-dash")
    assert paused.code == 0
    told = paused.out.strip().rpartition("go on with: ")[2]
    assert shell.run(*shlex.split(told)[1:]).code == 0
    [partner] = shell.run("partner", "list", "--json").json["partners"]
    assert (partner["name"], partner["paused_at"]) == ("-dash", None)


def test_a_name_of_more_than_a_line_is_refused_in_plain_words(shell: Shell) -> None:
    ended = shell.run("partner", "add", "a\nb", "--api-key", "k", "--secret-stdin", stdin="s")

    assert "1 to 100 printable characters" in ended.told


def test_a_name_is_looked_at_before_a_secret_is_asked_for(shell: Shell, peak: rsusim.Account) -> None:
    taken, told = shell.on_terminal("partner", "add", peak.name, "--api-key", "new-key")
    unknown, told_of_unknown = shell.on_terminal("partner", "rotate", "Paek", "--api-key", "new-key")

    assert (taken, unknown) == (2, 2)
    assert f"There is a partner {peak.name} already" in told
    assert "There is no partner Paek. There are: Peak Timing." in told_of_unknown
    assert "API secret" not in told + told_of_unknown


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_who_is_asked_for_a_secret_can_stop_at_once(
    shell: Shell, peak: rsusim.Account, number: signal.Signals, code: int
) -> None:
    process, screen = shell.start_on_screen("partner", "rotate", peak.name, "--api-key", "new-key")

    told = shell.folder / "screen.err"
    wait_until(lambda: "API secret" in told.read_text() or process.poll() is not None)
    wait_until(lambda: not termios.tcgetattr(screen)[3] & termios.ECHO)
    process.send_signal(number)

    assert process.wait(PATIENCE_SECONDS) == code
    os.close(screen)
    assert "stopped, nothing was done" in told.read_text()
