"""A key from the environment in place of a stored one: what is said of the one is not said of the other."""

from __future__ import annotations

from typing import Any

import rsusim
from tests.cli.conftest import Ended, Shell

WRONG = {"KEY_PEAK_TIMING": "key-of-another-1234", "SECRET_PEAK_TIMING": "secret-of-another"}
VARIABLES = "BIBWIRE_KEY_PEAK_TIMING and BIBWIRE_SECRET_PEAK_TIMING"


def of_peak(shell: Shell, **settings: str) -> Any:
    """What `doctor` says of the partner, and that its exit code says the same."""
    ended = shell.run("doctor", "--json", **settings)
    findings = ended.json["findings"]
    assert ended.code == any(finding["grade"] == "FAIL" for finding in findings)
    [finding] = [finding for finding in findings if finding["check"] == "partner Peak Timing"]
    return finding


def names_the_variables(ended: Ended) -> None:
    said = " ".join(f"{ended.out} {ended.err}".split())
    assert f"does not accept the key ...1234 of {VARIABLES}" in said
    assert f"Correct {VARIABLES}" in said
    assert "rotate" not in said


def test_a_refused_key_of_the_environment_fails_and_the_stored_one_does_not(
    shell: Shell, peak: rsusim.Account
) -> None:
    refused = shell.run("sync", **WRONG)

    assert refused.code == 1
    finding = of_peak(shell, **WRONG)
    assert finding["grade"] == "FAIL"
    assert "...1234 from the environment" in finding["found"]
    assert VARIABLES in finding["fix"]
    assert "rotate" not in finding["fix"]
    assert of_peak(shell)["grade"] == "ok"
    [listed] = shell.run("partner", "list", "--json").json["partners"]
    assert VARIABLES in listed["failing_reason"]


def test_a_key_of_the_environment_that_works_verifies_nothing_of_the_stored_one(
    shell: Shell, world: rsusim.World
) -> None:
    account = world.accounts["Peak Timing"]
    added = ("partner", "add", "Peak Timing", "--api-key", "some-key-9999", "--secret-stdin", "--no-check")
    assert shell.run(*added, stdin="secret").code == 0
    right = {"KEY_PEAK_TIMING": account.api_key, "SECRET_PEAK_TIMING": account.api_secret}

    assert shell.run("sync", **right).code == 0

    assert "not verified yet" in of_peak(shell)["found"]


def test_a_refused_stored_key_is_not_said_of_the_environments(shell: Shell, world: rsusim.World) -> None:
    account = world.accounts["Peak Timing"]
    added = ("partner", "add", "Peak Timing", "--api-key", "some-key-9999", "--secret-stdin", "--no-check")
    assert shell.run(*added, stdin="secret").code == 0
    right = {"KEY_PEAK_TIMING": account.api_key, "SECRET_PEAK_TIMING": account.api_secret}

    refused = shell.run("sync")

    assert 'bibwire partner rotate "Peak Timing"' in refused.told
    stored = of_peak(shell)
    assert stored["grade"] == "FAIL"
    assert "bibwire partner rotate" in stored["fix"]
    assert of_peak(shell, **right)["grade"] == "ok"
    assert shell.run("sync", **right).code == 0
    assert of_peak(shell, **right)["grade"] == "ok"


def test_commands_name_the_variables_of_a_refused_key(shell: Shell, peak: rsusim.Account) -> None:
    assert shell.run("sync").code == 0

    for command in ("sync", "discover", "reconcile", "backfill", "verify"):
        names_the_variables(shell.run(command, **WRONG))


def test_who_stores_a_key_hears_that_the_environments_is_used(shell: Shell, world: rsusim.World) -> None:
    account = world.accounts["Peak Timing"]
    key = ("Peak Timing", "--api-key", account.api_key, "--secret-stdin")

    for command in ("add", "rotate"):
        ended = shell.run("partner", command, *key, stdin=account.api_secret, **WRONG)
        assert ended.code == 0
        assert f"As long as {VARIABLES} are set, the key ...1234 from there is used" in ended.told

    assert "As long as" not in shell.run("partner", "rotate", *key, stdin=account.api_secret).err
