"""Outputs that are closed or full, homes that are wrong, names of all scripts: a sentence, no traceback."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import rsusim
from tests.cli.conftest import BIBWIRE, Ended, Shell
from tests.cli.test_sync import first_race
from tests.waiting import PATIENCE_SECONDS


def in_a_shell(shell: Shell, line: str, **settings: str | None) -> Ended:
    """Run a line of sh in which `bibwire` is the program under test."""
    ended = subprocess.run(
        ["/bin/sh", "-c", line.replace("bibwire", shlex.quote(BIBWIRE), 1)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        cwd=shell.folder,
        env=shell._with(settings),
        timeout=PATIENCE_SECONDS,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


@pytest.mark.parametrize("options", ["", " --json"])
def test_output_that_cannot_be_written_is_one_sentence(
    shell: Shell, peak: rsusim.Account, options: str
) -> None:
    closed = in_a_shell(shell, f"bibwire status{options} >&-", LOG_LEVEL="ERROR")
    full = in_a_shell(shell, f"bibwire status{options} >/dev/full", LOG_LEVEL="ERROR")

    assert (closed.code, closed.told) == (1, "Standard output is closed, so that the answer was not shown.")
    why = "cannot be written (No space left on device)"
    assert (full.code, full.told) == (1, f"Standard output {why}, so that the answer was not shown.")
    for ended in (closed, full):
        assert len(ended.err.splitlines()) == 1


@pytest.mark.parametrize("reader", ["head -1", "true"])  # the other one is gone before anything is written
def test_who_has_read_enough_is_no_fault(shell: Shell, peak: rsusim.Account, reader: str) -> None:
    ended = in_a_shell(shell, f"{{ bibwire status; echo $? >&2; }} | {reader}", LOG_LEVEL="ERROR")

    assert ended.err == "0\n"


def test_closed_input_and_errors_are_no_fault(shell: Shell, peak: rsusim.Account) -> None:
    # What it logs has nowhere to go, and must not go where a file or a connection stands instead.
    synced = in_a_shell(shell, "bibwire sync --json <&- 2>&-")
    ended = in_a_shell(shell, "bibwire status --json <&- 2>&-")

    assert synced.code == ended.code == 0
    assert json.loads(synced.out)["races"]
    assert json.loads(ended.out)["partners"]


def test_a_working_folder_that_was_removed_is_no_fault(shell: Shell, peak: rsusim.Account) -> None:
    ended = in_a_shell(shell, 'mkdir gone && cd gone && rmdir "$PWD" && bibwire status --json')

    assert ended.code == 0, ended.err
    assert ended.json["partners"]


def test_a_few_descriptors_are_made_more_or_told(shell: Shell, peak: rsusim.Account) -> None:
    soft = in_a_shell(shell, "ulimit -S -n 8; bibwire status --json")
    hard = in_a_shell(shell, "ulimit -n 8; exec bibwire status --json")

    assert soft.code == 0, soft.err
    # Root may raise the limit by itself.
    if hard.code != 0:
        assert hard.code == 2
        assert "may open 8 files" in hard.told
        assert "ulimit -n 1024" in hard.told


def test_the_sentence_for_too_few_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    from bibwire.cli import streams

    def refuse(*_: object) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (8, 8))
    monkeypatch.setattr(resource, "setrlimit", refuse)

    assert "may open 8 files" in (streams.check_descriptors() or "")


COMMANDS = [["sync"], ["backfill"], ["discover"], ["run"], ["worker"], ["partner", "pause", "Peak"]]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_wrong_home_makes_no_database(bare: Shell, command: list[str]) -> None:
    ended = bare.run(*command, DATABASE_URL=None, HOME=str(bare.folder / "wrong"))

    assert ended.code == 1
    assert ended.told.startswith(f"There is no database at {bare.folder / 'wrong'}")
    assert "bibwire init" in ended.told
    assert not (bare.folder / "wrong").exists()


def _no_override() -> None:
    """Take root's right to read everything away from the program to come."""
    import ctypes

    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


@pytest.fixture
def closed_folder(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "closed"
    (folder / "home" / "postgres" / "data").mkdir(parents=True)
    folder.chmod(0)
    yield folder
    folder.chmod(0o700)


@pytest.mark.parametrize(
    ("command", "inside"), [("status", True), ("sync", False), ("doctor", True), ("doctor", False)]
)
def test_a_home_that_cannot_be_read_is_one_sentence(
    bare: Shell, closed_folder: Path, command: str, inside: bool
) -> None:
    home = closed_folder / "home" if inside else closed_folder
    ended = subprocess.run(
        [BIBWIRE, command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        cwd=bare.folder,
        env=bare._with({"DATABASE_URL": None, "HOME": str(home)}),
        timeout=PATIENCE_SECONDS,
        preexec_fn=_no_override if os.geteuid() == 0 else None,
    )

    assert "fault of its own" not in ended.stderr
    assert "Traceback" not in ended.stderr
    if command == "doctor":
        assert ended.returncode == 1
        assert re.search(rf"FAIL +home: {re.escape(str(home))} ", ended.stdout), ended.stdout
    else:
        assert ended.returncode == 2
        assert "BIBWIRE_HOME cannot be " in ended.stderr


def test_all_partners_paused_is_said_with_the_way_back(shell: Shell, peak: rsusim.Account) -> None:
    assert shell.run("partner", "pause", peak.name).code == 0

    for command in ("sync", "verify", "backfill"):
        assert shell.run(command).told == (
            'The only partner is paused: nothing was done. Resume with: bibwire partner resume "Peak Timing"'
        )


def test_a_key_that_is_refused_says_how_to_store_another(
    shell: Shell, world: rsusim.World, peak: rsusim.Account
) -> None:
    world.faults.add(rsusim.Fault(kind="error_6", times=None))

    ended = shell.run("sync")

    assert ended.code == 1
    assert ended.told.endswith('Store a new key: bibwire partner rotate "Peak Timing" --api-key KEY')


PERSIAN = "می\N{ZERO WIDTH NON-JOINER}خواهم"
SINHALA = "ක්\N{ZERO WIDTH JOINER}ෂ"
STEERING = "Eve\x9b2J\N{RIGHT-TO-LEFT OVERRIDE}\N{LINE SEPARATOR}"


def test_joined_scripts_keep_their_joiners_and_nothing_steers_a_terminal(
    shell: Shell, world: rsusim.World, peak: rsusim.Account
) -> None:
    race, event = first_race(world)
    for bib, name in ((9001, PERSIAN), (9002, SINHALA), (9003, STEERING)):
        world.assign_bib(world.register(event, first_name=name), bib)
    shell.run("sync")

    def shown(bib: int, *options: str) -> str:
        return shell.run("lookup", str(bib), "--race", str(race), *options).out

    assert PERSIAN in shown(9001)
    assert SINHALA in shown(9002)
    assert PERSIAN in shown(9001, "--json")
    as_json = shown(9003, "--json")
    assert "Eve\\u009b2J\\u202e\\u2028" in as_json
    assert json.loads(as_json)["answers"][0]["now"][0]["first_name"] == STEERING
    assert not re.search("[\x80-\x9f\u202e\u2028]", shown(9003) + as_json)


def test_lines_of_a_terminal_end_between_words(
    shell: Shell, world: rsusim.World, peak: rsusim.Account
) -> None:
    _, event = first_race(world)
    shell.run("sync")
    world.advance(5)
    world.assign_bib(world.active(event)[0], 9001)
    shell.run("sync")

    _, bibs = shell.on_terminal("bibs", columns=60)
    _, error = shell.on_terminal("bibs", "--since", "99999", columns=60)

    for text in (bibs, error):
        lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).replace("\r", "").splitlines()
        assert len(lines) > 1
        assert max(map(len, lines)) <= 60
    told = shell.run("bibs", "--since", "99999").err.splitlines()[-1].split()
    assert len(told) > 9
    assert error.split() == told
    words = shell.run("bibs").out.split()
    assert words
    assert set(words) <= set(bibs.replace("\r", "").split()) | set(
        re.sub(r"\x1b\[[0-9;?]*m", "", bibs).split()
    )
