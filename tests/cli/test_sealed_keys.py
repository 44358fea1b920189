"""A partner whose key cannot be opened is one partner; a key that is missing is not replaced in silence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import rsusim
from tests.cli.conftest import ENCRYPTION_KEY, Shell

OTHER_KEY = "6b" * 32


@pytest.fixture
def both(shell: Shell, peak: rsusim.Account, world: rsusim.World) -> list[str]:
    """Two partners, the second one sealed under another key."""
    [other] = [account for account in world.accounts.values() if account.name != peak.name]
    added = shell.run(
        "partner", "add", other.name, "--api-key", other.api_key, "--secret-stdin",
        stdin=other.api_secret, SECRET_KEY=OTHER_KEY,
    )  # fmt: skip
    assert added.code == 0
    return [peak.name, other.name]


def test_the_others_go_on_where_one_partner_cannot_be_opened(shell: Shell, both: list[str]) -> None:
    _, sealed = both

    synced = shell.run("sync", "--json")
    assert synced.code == 3
    [error] = synced.json["errors"]
    assert (error["partner"], error["race_id"]) == (sealed, None)
    assert f'partner rotate "{sealed}"' in error["error"]
    assert synced.json["participants"]["inserted"]

    assert shell.run("discover").code == 3
    backfilled = shell.run("backfill", "--json")
    assert backfilled.code == 3
    assert {each["partner"] for each in backfilled.json["errors"]} == {sealed}
    reconciled = shell.run("reconcile", "--json")
    assert reconciled.code == 3
    assert {each["partner"] for each in reconciled.json["errors"]} == {sealed}
    verified = shell.run("verify", "--json")
    assert verified.code != 2
    assert verified.json["verdicts"]["pass"]
    [check] = [each for each in verified.json["checks"] if each["partner"] == sealed]
    assert (check["verdict"], "encrypted with another key" in check["seen"]) == ("error", True)

    alone = shell.run("sync", "--partner", sealed)
    assert alone.code == 1
    assert "partner rotate" in alone.told
    # RunSignup refused nothing: with the key that fits all is as it was.
    [partner] = [
        each for each in shell.run("partner", "list", "--json").json["partners"] if each["name"] == sealed
    ]
    assert partner["failing_since"] is None
    assert shell.run("sync", "--partner", sealed, SECRET_KEY=OTHER_KEY).code == 0


def test_no_key_is_made_where_what_is_stored_needs_another(shell: Shell, peak: rsusim.Account) -> None:
    for command in (("sync",), ("run",), ("worker",), ("verify",), ("backfill",), ("init",)):
        refused = shell.run(*command, SECRET_KEY=None)
        assert (refused.code, "no key at" in refused.told) == (2, True), (command, refused.err)
    added = shell.run(
        "partner",
        "add",
        "New",
        "--api-key",
        "NewKey4711",
        "--secret-stdin",
        "--no-check",
        stdin="NewSecret4711",
        SECRET_KEY=None,
    )
    assert (added.code, "no key at" in added.told) == (2, True)
    assert not (shell.home / "secret.key").exists()
    # Who only reads needs no key.
    assert shell.run("status", SECRET_KEY=None).code == 0
    assert shell.run("partner", "list", SECRET_KEY=None).code == 0
    doctor = shell.run("doctor", SECRET_KEY=None)
    assert doctor.code == 1
    assert "no key at" in " ".join(doctor.out.split())
    assert shell.run("sync").code == 0


@pytest.mark.skipif(os.name != "posix", reason="only POSIX has such pipes")
def test_a_pipe_as_a_key_file_is_refused_at_once(shell: Shell, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    refused = shell.run("sync", SECRET_KEY=None, SECRET_KEY_FILE=str(pipe))
    assert (refused.code, "no plain file" in refused.told) == (2, True)


def test_a_lost_key_is_got_over_as_the_sentence_says(
    shell: Shell, peak: rsusim.Account, world: rsusim.World
) -> None:
    shell.home.mkdir(exist_ok=True)
    key = shell.home / "secret.key"
    key.touch(0o600)
    key.write_text(ENCRYPTION_KEY[::-1])
    rotated = shell.run(
        "partner", "rotate", peak.name, "--api-key", peak.api_key, "--secret-stdin",
        stdin=peak.api_secret, SECRET_KEY=None,
    )  # fmt: skip
    assert rotated.code == 0
    assert shell.run("sync", SECRET_KEY=None).code == 0
