"""`bibwire backfill`, as people and programs use it."""

from __future__ import annotations

import re
from datetime import datetime

import pytest

import rsusim
from bibwire.cli.notes import folded
from tests.cli.conftest import Shell


def test_it_says_the_cost_loads_and_then_does_nothing(
    shell: Shell, peak: rsusim.Account, world: rsusim.World
) -> None:
    dry = shell.run("backfill", "--since", "2000-01-01", "--dry-run")
    assert dry.code == 0
    assert "left to load" in dry.out
    assert "calls" in dry.out

    first = shell.run("backfill", "--since", "2000-01-01")
    assert first.code == 0
    assert "loaded" in first.out
    assert "Ctrl-C is safe" in first.err

    again = shell.run("backfill", "--since", "2000-01-01", "--json")
    assert again.json["calls"] == 0
    assert again.json["races_loaded"] == 0
    assert again.json["races_before"] == again.json["races"] > 0
    assert set(again.json) >= {"partners", "events", "seconds", "participants", "errors"}
    assert "loaded already" in shell.run("backfill", "--since", "2000-01-01").out

    [state] = shell.run("status", "--json").json["backfills"]
    assert state["done"] == state["races"] > 0
    assert "not mirrored" not in shell.run("status").out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--since", "2024-13-40"), "2024-13-40"),
        (("--since", "soon"), "soon"),
        (("--since", "2025-06-01", "--until", "2025-05-01"), "later than --since"),
        (("--since", "2999-01-01"), "lies ahead"),
        (("--partner", "Nobody"), "Nobody"),
        (("--race", "4711"), "4711"),
        (("--race", "x"), "whole number"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(
    arguments: tuple[str, ...], said: str, shell: Shell, peak: rsusim.Account
) -> None:
    ended = shell.run("backfill", *arguments)

    assert ended.code == 2
    assert said in ended.told
    assert "Traceback" not in ended.err


def test_without_a_partner_it_says_what_to_do(shell: Shell) -> None:
    ended = shell.run("backfill")
    assert ended.code == 0
    assert "bibwire partner add" in ended.told


def test_a_partner_is_added_with_all_its_races(
    shell: Shell, world: rsusim.World, simulator: rsusim.Server
) -> None:
    account = next(iter(world.accounts.values()))
    ended = shell.run(
        "partner", "add", account.name, "--api-key", account.api_key, "--secret-stdin", "--backfill",
        stdin=account.api_secret,
    )  # fmt: skip

    assert ended.code == 0, ended.err
    assert "is added" in ended.out
    assert "loaded" in ended.out
    assert shell.run("status", "--json").json["backfills"]


def test_a_terminal_shows_how_far_it_is(shell: Shell, peak: rsusim.Account) -> None:
    code, shown = shell.on_terminal("backfill", "--since", "2000-01-01")

    assert code == 0
    assert "races" in shown
    assert "people" in shown


def test_what_is_so_of_many_races_is_said_once(
    shell: Shell, peak: rsusim.Account, world: rsusim.World
) -> None:
    for number in range(6):
        race = world.add_race([peak], f"Old {number}", "America/Denver")
        world.register(world.add_event(race, "10K", datetime(2025, 10, 3, 8)))
    world.faults.add(rsusim.Fault(path="teams", kind="error_7", times=None))

    ended = shell.run("backfill", "--since", "2000-01-01")

    assert ended.code == 0
    [note] = [line for line in ended.out.splitlines() if "teams are not listed" in line]
    assert re.match(r"Note: Races \d+, \d+, \d+ and \d+ more: teams are not listed", note)


def test_notes_are_folded_by_what_they_say() -> None:
    told = ["Race 1: odd.", "a partner is new", "Race 2: odd.", "Race 2: even.", "Race 1: odd."]
    assert folded(told) == ["Races 1 and 2: odd.", "a partner is new", "Race 2: even."]
    assert folded(f"Race {number}: odd." for number in range(3)) == ["Races 0, 1 and 2: odd."]
    assert folded(f"Race {number}: odd." for number in range(2003)) == ["Races 0, 1, 2 and 2,000 more: odd."]
    assert folded([]) == []
