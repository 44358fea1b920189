"""`bibwire init` and `doctor`: nothing set up, all well, and each thing that can be wrong."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

import rsusim
from bibwire.cli.checks import COMPULSORY_FROM
from tests.cli.conftest import Ended, Shell


def grades(ended: Ended) -> dict[str, str]:
    return {finding["check"]: finding["grade"] for finding in ended.json["findings"]}


def fixes(ended: Ended) -> dict[str, str]:
    return {finding["check"]: finding["fix"] for finding in ended.json["findings"]}


def test_all_well_is_exit_code_0(shell: Shell, peak: rsusim.Account, world: rsusim.World) -> None:
    world.advance((datetime.now(UTC) - world.now).total_seconds())
    world.clock.run(1)

    ended = shell.run("doctor", "--json", CALLER_REG="1.token-of-ours", CALLER_SECRET="secret-of-ours")

    assert ended.code == 0, ended.out
    assert ended.json["healthy"] is True
    found = grades(ended)
    for check in (
        "settings",
        "key",
        "database",
        "schema",
        "RunSignup",
        "RunSignup's clock",
        "caller registration",
    ):
        assert found[check] == "ok"
    assert found["partner Peak Timing"] == "ok"
    assert "secret-of-ours" not in ended.out


def test_each_line_for_people_has_its_grade_and_its_fix(shell: Shell, peak: rsusim.Account) -> None:
    late = datetime.now(UTC) >= COMPULSORY_FROM
    ended = shell.run("doctor")

    assert ended.code == late
    assert "ok   database: PostgreSQL" in ended.out
    assert f"{'FAIL' if late else 'warn'} caller registration: not set" in ended.out
    assert "fix: register the software" in ended.out


def test_an_event_that_ends_before_it_starts_is_named(
    shell: Shell, peak: rsusim.Account, world: rsusim.World
) -> None:
    start = datetime.now(UTC).replace(tzinfo=None) + timedelta(days=30)
    race = world.add_race([peak], "Frosty Toes", "America/Chicago")
    event = world.add_event(race, "10K", start, end=start - timedelta(days=365))
    assert shell.run("sync").code == 0

    ended = shell.run("doctor", "--json")

    [finding] = [f for f in ended.json["findings"] if f["check"] == f"event {event}"]
    assert finding["grade"] == "warn"
    assert f"10K of race {race} (Frosty Toes, Peak Timing) ends " in finding["found"]


def test_a_race_that_nobody_polls_is_named(shell: Shell, peak: rsusim.Account, world: rsusim.World) -> None:
    assert shell.run("discover").code == 0
    races = [race for race in world.races if world.may_read(peak.name, race)]

    ended = shell.run("doctor", "--json")

    [finding] = [f for f in ended.json["findings"] if f["check"] == "races"]
    assert finding["grade"] == "warn"
    assert finding["found"].startswith(
        f"{len(races)} of {len(races)} are older than they may be, or not loaded"
    )
    assert f"{races[0]} (Peak Timing): not scheduled" in finding["found"]
    assert "bibwire run" in finding["fix"]
    assert "not scheduled: is 'bibwire run' going on?" in " ".join(shell.run("status").out.split())
    assert "not scheduled" in shell.run("plan").out
    assert shell.run("sync").code == 0
    assert grades(shell.run("doctor", "--json"))["races"] == "ok"


def test_a_time_zone_that_nobody_knows_is_named(
    shell: Shell, peak: rsusim.Account, world: rsusim.World
) -> None:
    race = world.add_race([peak], "Race on the Moon", "UTC")
    world.edit_race(race, timezone="Luna/Tranquility", zone=UTC)
    start = (world.now + timedelta(days=3)).replace(tzinfo=None)
    world.add_event(race, "5K", start)
    assert shell.run("sync").code in (0, 3)

    [finding] = [f for f in shell.run("doctor", "--json").json["findings"] if f["check"] == "zones of races"]

    assert f"{race} (Peak Timing): 'Luna/Tranquility'" in finding["found"]
    assert "organizer" in finding["fix"]


def test_a_list_that_ends_early_is_named(shell: Shell, peak: rsusim.Account, world: rsusim.World) -> None:
    for number in range(55):
        world.add_event(world.add_race([peak], f"Race {number}", "America/Chicago"), "5K")
    world.quirks.races_max_page = 50
    world.quirks.races_most = 50
    assert shell.run("discover").code == 0

    ended = shell.run("doctor", "--json")

    [finding] = [f for f in ended.json["findings"] if f["check"] == "race list of Peak Timing"]
    assert finding["grade"] == "warn"
    assert "ended the list" in finding["found"]


def test_a_misspelt_variable_is_a_warning_of_the_report(bare: Shell) -> None:
    ended = bare.run("doctor", "--json", CALS_PER_HOUR="1")

    [found] = [each for each in ended.json["findings"] if each["check"] == "BIBWIRE_CALS_PER_HOUR"]
    assert found["grade"] == "warn"
    assert "did you mean BIBWIRE_CALLS_PER_HOUR?" in found["found"]


def test_doctor_changes_nothing(shell: Shell, empty_database_url: str) -> None:
    ended = shell.run("doctor", "--json", DATABASE_URL=empty_database_url, SECRET_KEY=None)

    assert grades(ended)["schema"] == "warn"
    assert grades(ended)["key"] == "warn"
    assert not shell.home.exists()
    with psycopg.connect(empty_database_url) as connection:
        assert connection.execute("SELECT to_regnamespace('bibwire')").fetchone() == (None,)


def test_init_makes_the_schema_and_may_be_run_again(shell: Shell, empty_database_url: str) -> None:
    for _ in range(2):
        ended = shell.run("init", DATABASE_URL=empty_database_url, SECRET_KEY=None)
        assert ended.code == 0, ended.err
        assert "is ready" in ended.out
        assert str(shell.home / "secret.key") in ended.out

    assert grades(shell.run("doctor", "--json", DATABASE_URL=empty_database_url))["schema"] == "ok"


def test_a_database_out_of_reach_fails_with_the_fix(shell: Shell) -> None:
    ended = shell.run("doctor", "--json", DATABASE_URL="host=127.0.0.1 port=1 user=x password=canary-pw")

    assert ended.code == 1
    assert grades(ended)["database"] == "FAIL"
    assert "BIBWIRE_DATABASE_URL" in fixes(ended)["database"]
    assert "canary-pw" not in ended.out


def test_a_vendor_out_of_reach_fails_with_the_fix(shell: Shell) -> None:
    ended = shell.run("doctor", "--json", API_URL="http://127.0.0.1:9/rest")

    assert ended.code == 1
    assert grades(ended)["RunSignup"] == "FAIL"
    assert "BIBWIRE_API_URL" in fixes(ended)["RunSignup"]


def test_an_address_that_is_not_the_apis_fails_with_the_fix(shell: Shell, simulator: rsusim.Server) -> None:
    assert grades(shell.run("doctor", "--json"))["RunSignup"] == "ok"

    ended = shell.run("doctor", "--json", API_URL=simulator.base_url.removesuffix("/rest"))

    assert ended.code == 1
    assert grades(ended)["RunSignup"] == "FAIL"
    assert "/rest" in fixes(ended)["RunSignup"]


def test_a_key_that_does_not_fit_fails_and_no_command_writes_anything(
    shell: Shell, peak: rsusim.Account, world: rsusim.World
) -> None:
    ended = shell.run("doctor", "--json", SECRET_KEY="00" * 32)

    assert ended.code == 1
    assert grades(ended)["partner Peak Timing"] == "FAIL"
    assert "encrypted with another key" in fixes(ended)["partner Peak Timing"]
    world.log.clear()
    synced = shell.run("sync", SECRET_KEY="00" * 32)
    assert synced.code in (1, 2)
    assert "encrypted with another key" in synced.err + synced.out
    assert world.log.calls == 0


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_a_key_file_that_others_can_read_fails_with_the_command_that_mends_it(shell: Shell) -> None:
    shell.run("init", SECRET_KEY=None)
    (shell.home / "secret.key").chmod(0o644)

    ended = shell.run("doctor", "--json", SECRET_KEY=None)

    assert ended.code == 1
    assert f"chmod 600 {shell.home / 'secret.key'}" in fixes(ended)["key"]
    assert shell.run("status", SECRET_KEY=None).code == 2


def test_a_refused_key_fails_until_it_is_rotated(shell: Shell, world: rsusim.World) -> None:
    shell.run(
        "partner", "add", "Peak", "--api-key", "old-key", "--secret-stdin", "--no-check", stdin="old-secret"
    )
    shell.run("sync")

    ended = shell.run("doctor", "--json")

    assert ended.code == 1
    assert "bibwire partner rotate" in fixes(ended)["partner Peak"]


def test_a_clock_that_is_off_is_told(shell: Shell, world: rsusim.World) -> None:
    world.advance(3600)

    ended = shell.run("doctor", "--json")

    assert grades(ended)["RunSignup's clock"] == "FAIL"


def test_a_settings_file_with_secrets_that_others_can_read_is_warned_of(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "bibwire.toml"
    path.write_text("caller_reg = '1.x-of-ours'\ncaller_secret = 'y-of-ours'\n")
    path.chmod(0o644)

    assert grades(shell.run("doctor", "--json"))["settings file"] == "warn"
    path.chmod(0o600)
    assert "settings file" not in grades(shell.run("doctor", "--json"))


def test_a_variable_that_overrides_no_partners_key_is_named(shell: Shell, peak: rsusim.Account) -> None:
    ended = shell.run("doctor", "--json", KEY_PEEK_TIMING="k", SECRET_PEEK_TIMING="s")

    assert grades(ended)["BIBWIRE_KEY_PEEK_TIMING"] == "warn"
    assert "BIBWIRE_KEY_ACME_TIMING" in fixes(ended)["BIBWIRE_SECRET_PEEK_TIMING"]
    assert "BIBWIRE_SECRET_KEY" not in grades(ended)
