"""`bibwire verify` says its cost first, tells people and programs what it found, and ends accordingly."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree

import psycopg

import rsusim
from bibwire.store import schedule
from tests.cli.conftest import Shell
from tests.store.mirrored import with_database
from tests.waiting import wait_until

KEYS = {"check", "partner", "race_id", "asked", "expected", "seen", "verdict", "calls", "seconds"}


def test_verify_tells_a_sound_mirror_to_programs_and_monitors(
    shell: Shell, world: rsusim.World, peak: rsusim.Account, tmp_path: Path
) -> None:
    assert shell.run("sync").code == 0
    file = tmp_path / "verify.xml"
    world.log.clear()

    ended = shell.run("verify", "--json", "--junit", str(file), "--seed", "7")

    said = ended.json
    assert ended.code == said["exit_code"] == 0, ended.out
    assert (said["partners"], said["seed"]) == (1, 7)
    assert said["calls"] == world.log.calls > 0
    assert all(check.keys() == KEYS for check in said["checks"])
    assert {check["verdict"] for check in said["checks"]} == {"pass", "skipped"}
    assert f"bibwire: Peak Timing: about {said['calls']} calls, at most 40.\n" in ended.err
    [suite] = ElementTree.parse(file).getroot()
    assert suite.get("name") == "Peak Timing"
    assert suite.get("tests") == str(len(said["checks"]))
    assert suite.get("failures") == suite.get("errors") == "0"
    skipped = [case for case in suite if case.find("skipped") is not None]
    assert len(skipped) == said["verdicts"]["skipped"] > 0


def test_verify_shows_people_what_failed(
    shell: Shell, world: rsusim.World, peak: rsusim.Account, database_url: str, tmp_path: Path
) -> None:
    assert shell.run("sync").code == 0
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE bibwire.participants SET city = 'Nowhere'")
    file = tmp_path / "verify.xml"

    ended = shell.run("verify", "--junit", str(file))

    assert ended.code == 1
    assert "differing" in ended.out
    assert "city" in ended.out
    assert "--seed" in ended.out
    assert "a check failed: Peak Timing, race" in ended.err
    [suite] = ElementTree.parse(file).getroot()
    failures = [case.find("failure") for case in suite if case.find("failure") is not None]
    assert len(failures) == int(suite.get("failures") or 0) > 0


def test_verify_of_one_race_asks_of_no_other(shell: Shell, world: rsusim.World, peak: rsusim.Account) -> None:
    assert shell.run("sync").code == 0
    race = sorted(number for number, may in world.rights["Peak Timing"].items() if may)[0]
    world.log.clear()

    ended = shell.run("verify", "--race", str(race), "--json")

    assert ended.code == 0
    assert {request.race_id for request in world.log.requests} == {race}
    assert {check["race_id"] for check in ended.json["checks"]} <= {race, None}


def test_verify_of_a_race_that_is_not_mirrored_is_wrong_use(
    shell: Shell, world: rsusim.World, peak: rsusim.Account
) -> None:
    ended = shell.run("verify", "--race", "1")

    assert ended.code == 2
    assert "Race 1 is not in the mirror" in ended.told


def test_checks_for_which_the_calls_do_not_suffice_are_not_taken_for_made(
    shell: Shell, world: rsusim.World, peak: rsusim.Account
) -> None:
    assert shell.run("sync").code == 0

    ended = shell.run("verify", "--max-calls", "3")

    assert ended.code == 3, ended.out
    assert "some checks could not be made: Peak Timing, race" in ended.err
    assert "Give it more calls: bibwire verify --max-calls N." in ended.err
    told = " ".join(shell.run("status").out.split())
    assert "Peak Timing: verified in part " in told
    assert "nothing failed" not in told
    assert shell.run("verify").code == 0
    told = " ".join(shell.run("status").out.split())
    assert "in part" not in told
    assert "nothing failed" in told


def test_verify_with_a_refused_key_ends_with_1(
    shell: Shell, world: rsusim.World, peak: rsusim.Account
) -> None:
    assert shell.run("sync").code == 0
    world.faults.add(rsusim.Fault(kind="error_6", times=None))

    ended = shell.run("verify", "--json")

    assert ended.code == 1
    assert ended.json["verdicts"]["fail"] == 1


def test_verify_shows_how_far_it_is_on_a_terminal(
    shell: Shell, world: rsusim.World, peak: rsusim.Account
) -> None:
    assert shell.run("sync").code == 0

    code, shown = shell.on_terminal("verify")

    assert code == 0, shown
    assert "checks" in shown
    assert "Verified against RunSignup" in shown


def test_junit_needs_a_folder(shell: Shell, peak: rsusim.Account) -> None:
    ended = shell.run("verify", "--junit", "nowhere/verify.xml")

    assert ended.code == 2
    assert "does not exist" in ended.told


def test_a_worker_verifies_at_the_hour_and_status_tells_what_failed(
    shell: Shell, world: rsusim.World, peak: rsusim.Account, database_url: str
) -> None:
    assert shell.run("sync").code == 0
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE bibwire.participants SET city = 'Nowhere'")
        [(partner_id,)] = connection.execute("SELECT partner_id FROM bibwire.partners").fetchall()
        due_at = datetime.now(UTC) - timedelta(minutes=1)
        with_database(database_url, lambda db: schedule.verify_next(db, partner_id, next_at=due_at))
        worker = shell.start("worker")
        seen = "SELECT FROM bibwire.plans WHERE verified_at IS NOT NULL AND next_verify_at > now()"
        wait_until(lambda: connection.execute(seen).fetchone() is not None)
        # Told while the worker goes on, or as its last word: never not.
        assert shell.stop(worker).code == 130
        at = connection.execute("SELECT next_verify_at - verified_at FROM bibwire.plans").fetchone()

    assert at is not None
    assert 0 < at[0].total_seconds() <= 25 * 3600
    assert '"a check of the mirror failed"' in shell.log_file.read_text("utf-8")
    [partner] = shell.run("status", "--json").json["partners"]
    assert partner["mirror_verified_at"] is not None
    assert {failure["check"] for failure in partner["verify_failures"]} == {"full"}
    assert "Peak Timing: check full of race" in " ".join(shell.run("status").out.split())
