"""`bibwire plan` and `partner limit` agree on what can be used, and say why it is less."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

import rsusim
from tests.cli.conftest import Shell
from tests.waiting import wait_until

HOUR = timedelta(hours=1)


@pytest.fixture
def race(world: rsusim.World, peak: rsusim.Account) -> int:
    """A race about to start."""
    race = world.add_race([peak], "Frozen Foot 5K", "America/Chicago")
    start = (world.now + 3 * HOUR).astimezone(ZoneInfo("America/Chicago"))
    event = world.add_event(race, "5K", start.replace(second=0, microsecond=0, tzinfo=None))
    world.register(event)
    return race


def test_a_limit_that_is_used_up_says_until_when_and_what_would_suffice(
    shell: Shell, peak: rsusim.Account, race: int
) -> None:
    assert shell.run("sync").code == 0
    made = shell.run("status", "--json").json["partners"][0]["calls_last_hour"]

    ended = shell.run("partner", "limit", peak.name, "5")

    assert ended.code == 0
    assert ended.out.startswith(
        "Partner Peak Timing may make 5 calls an hour.\nThe hour's calls are used up until "
    )
    # One of the five is a margin, and another one is left to people.
    assert (
        f": {made} calls of the last hour count, and polls stop at 3. No race is polled before." in ended.out
    )
    assert re.search(r"ask RunSignup for (\d+) an hour, then set them with bibwire partner limit", ended.out)
    enough = shell.run("partner", "limit", peak.name, "1000").out
    assert enough == "Partner Peak Timing may make 1,000 calls an hour.\n"


def test_the_plan_says_why_fewer_calls_can_be_used_and_names_no_poll_before_they_can(
    shell: Shell, peak: rsusim.Account, race: int
) -> None:
    assert shell.run("sync").code == 0
    worker = shell.start("worker")
    wait_until(lambda: all(poll["next_due_at"] for poll in planned(shell)["polls"]))
    shell.stop(worker)
    assert shell.run("partner", "limit", peak.name, "5").code == 0

    out = " ".join(shell.run("plan").out.split())
    found = planned(shell)

    # What was scheduled for 1,000 calls is not said to be planned of what 5 allow.
    [(calls, usable)] = re.findall(
        r"Peak Timing: ([\d,]+) calls/h planned of ([\d,]+) that polls may use \(5", out
    )
    assert int(calls) <= int(usable) == 4
    assert "bibwire run plans it anew within seconds" in out
    assert "The hour's calls are used up until " in out
    assert f", {usable} can be used." in out
    until = datetime.fromisoformat(found["calls_used_up_until"])
    assert {datetime.fromisoformat(poll["next_due_at"]) >= until for poll in found["polls"]} == {True}


def test_calls_used_up_after_a_throttle_are_told_with_the_number_that_stops_them(
    shell: Shell, world: rsusim.World, peak: rsusim.Account, race: int
) -> None:
    assert shell.run("sync").code == 0
    assert shell.run("partner", "limit", peak.name, "30").code == 0
    world.faults.add(rsusim.Fault(path="participants", kind="http_429", retry_after=1, times=1))

    found: list[tuple[str, str]] = []
    for _ in range(40):
        used_up = "used up" in shell.run("sync", "--full", "--no-wait").err
        out = " ".join(shell.run("plan").out.split())
        found = re.findall(
            r"(\d+) calls since RunSignup last asked for fewer count, and polls stop at (\d+)\.", out
        )
        if used_up and found:
            break

    [(made, most)] = found
    assert int(made) >= int(most)
    assert int(most) < 30


def planned(shell: Shell) -> dict[str, Any]:
    [found] = shell.run("plan", "--json").json["partners"]
    assert isinstance(found, dict)
    return found
