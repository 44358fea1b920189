"""Whatever is typed after `bibwire` is understood, or refused in one sentence with exit code 2."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pytest
import typer
from hypothesis import example, given
from hypothesis import strategies as st

import rsusim
from bibwire.cli.app import app, wrong_use
from bibwire.cli.options import LARGEST_ID
from tests.cli.conftest import BIBWIRE, Shell
from tests.fuzzing import examples, one_of
from tests.test_fuzzed_settings import variables as values
from tests.waiting import PATIENCE_SECONDS

COMMAND: Final[Any] = typer.main.get_command(app)


def commands(command: Any, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from commands(inner, *path, name)
    else:
        yield path, command


COMMANDS: Final = dict(commands(COMMAND))
OPTIONS: Final = sorted(
    {option for each in COMMANDS.values() for param in each.params for option in param.opts}
)
NUMBERS: Final = (
    "0", "1", "-1", "+1", "007", "1.0", "1e3", "nan", "inf", "-inf", "1_000", "٣", "²", "0x10", " 1 ",
    "99999", "1000001", str(LARGEST_ID), str(LARGEST_ID + 1), "9" * 20, "9" * 5000, "-" + "9" * 5000,
    "1e400", "1e-400",
)  # fmt: skip
DAYS: Final = (
    "2026-05-31", "99999-01-01", "0000-00-00", "0001-01-01", "9999-12-31", "2026-02-30", "2026-W22-1",
    "20260531", "2026-05-31T10:00", "2026-05-31T23:59:59-23:59", "-2026-05-31", "today", "٢٠٢٦-٠٥-٣١",
    "2026-05-31 ",
)  # fmt: skip
ODD: Final = (
    "", "-", "--", "---", "-\u200b", "--race", "--race=", "--race=1", "--race==", "-1", "-x", "--no-such",
    "=", "--json=1", "--help\u200b", "@file", "a" * 100_000, "\udcff", "\ufeff--json", "--partner=\udc80",
    "a\nb", "\x1b[31m", "postgresql://me:canary7Zq@db/x", "password=canary7Zq", "--debug", "*", "~", "$(x)",
    "%s", "{}",
)  # fmt: skip
argument = (
    st.sampled_from(OPTIONS)
    | st.sampled_from(OPTIONS)
    | one_of(NUMBERS)
    | one_of(DAYS)
    | one_of(ODD)
    | values
)


def parse(arguments: list[str]) -> dict[str, Any]:
    """Return what a command is given, as `main` would hand it over, without running it."""
    context = COMMAND.make_context("bibwire", list(arguments))
    given: dict[str, Any] = {}
    command = COMMAND
    while hasattr(command, "commands"):
        left = [*context._protected_args, *context.args]
        if not left:
            context.fail("Missing command.")  # as the library does
        name, command, rest = command.resolve_command(context, left)
        context = command.make_context(name, rest, parent=context)
        given |= context.params
    return given


def check_given(given: dict[str, Any]) -> None:
    """Check that each is of its declared type, and within its bounds."""
    bounds = {
        "race": (1, LARGEST_ID), "metrics_port": (0, 65535), "calls_per_hour": (1, 1_000_000),
        "calls": (1, 1_000_000), "since": (0, LARGEST_ID), "bib": (-(2**31), 2**31 - 1),
        "workers": (1, 64), "scopes": (1, LARGEST_ID), "max_calls": (0, LARGEST_ID), "seed": (0, LARGEST_ID),
    }  # fmt: skip
    for name, value in given.items():
        if value is None or type(value) is bool or isinstance(value, Path):
            continue
        if type(value) is str:
            value.encode()
            continue
        if type(value) is int:
            least, most = bounds[name]
            assert least <= value <= most, name
        elif type(value) is float:
            assert value >= 0, name
        else:
            assert isinstance(value, datetime), (name, value)
            assert value == value.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)


def check(arguments: list[str]) -> None:
    """Check that these are understood or refused."""
    showing = ("-h", "--help", "--version")
    refused: typer.TyperException | None = None
    try:
        check_given(parse([each for each in arguments if each not in showing]))
    except typer.TyperException as error:
        refused = error
    if refused is not None:
        told = wrong_use(refused)
        assert refused.exit_code == 2
        assert "\n" not in told
        assert "canary7Zq" not in told
        assert len(told) < 1500


@given(command=st.sampled_from(sorted(COMMANDS)), arguments=st.lists(argument, max_size=5))
@example(command=("demo",), arguments=["--seconds", "nan"])
@example(command=("sync",), arguments=["--race", "9" * 5000])
@example(command=("sync",), arguments=["--race", "a" * 100_000])
@example(command=("backfill",), arguments=["--since", "a" * 100_000])
@example(command=("sync",), arguments=["--race", "postgresql://me:canary7Zq" + "a" * 100_000 + "@x"])
@example(command=("sync",), arguments=["--race", "a" * 985 + "x://me:canary7Zq@x"])
@examples(100, cost=5)
def test_arguments_are_understood_or_refused(command: tuple[str, ...], arguments: list[str]) -> None:
    started = time.thread_time()
    check([*command, *arguments])
    assert time.thread_time() - started < 1


@given(arguments=st.lists(argument | one_of([name for path in COMMANDS for name in path]), max_size=4))
@example(arguments=["--"])
@example(arguments=["partner", "--"])
@examples(50, cost=5)
def test_so_they_are_without_a_command(arguments: list[str]) -> None:
    check(arguments)


NASTIEST: Final[dict[str, list[str]]] = {
    "nothing after dashes": ["--"],
    "no option": ["sync", "--no-such"],
    "half a letter": ["sync", "--partner\udcff"],
    "no letter": ["sync", "--partner", "\udcff"],
    "a nameless partner": ["sync", "--partner", ""],
    "a long race": ["sync", "--race", "a" * 100_000],
    "a long partner": ["partner", "pause", "x" * 100_000],
    "a race beyond": ["sync", "--race", "9" * 20],
    "a race far beyond": ["sync", "--race", "9" * 5000],
    "a day beyond": ["backfill", "--since", "99999-01-01"],
    "no day": ["backfill", "--until", "\ud7ff\udcff"],
    "no seconds": ["demo", "--seconds", "nan"],
    "a bib beyond": ["lookup", "99999999999", "--race", "1"],
    "an address": ["adopt", "--from", "\x1b[31m"],
    "a terminal": ["sync", "\x1b]0;x\x07\r\n"],
}  # fmt: skip


@pytest.mark.parametrize("case", NASTIEST)
def test_the_nastiest_end_with_one_sentence(case: str, bare: Shell) -> None:
    ended = subprocess.run(
        [BIBWIRE, *map(os.fsencode, NASTIEST[case])],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=bare.folder,
        env=bare.environment,
        timeout=PATIENCE_SECONDS,
    )

    told = ended.stderr.decode()
    assert "Traceback" not in told
    assert "fault of its own" not in told
    assert len(told.splitlines()) == 1, told
    assert len(told) < 1000
    assert "\x1b" not in told
    # A partner's name is looked up: there is no database here.
    assert ended.returncode == (1 if "partner" in case else 2), told


@pytest.mark.parametrize("command", ["doctor", "status"])
def test_a_home_that_is_nobodys_is_told_in_one_sentence(command: str, bare: Shell) -> None:
    ended = bare.run(command, HOME="~nobody-of-that-name")

    assert ended.code != 0
    assert "BIBWIRE_HOME begins with the home folder (~) of a user who is not on this machine" in (
        ended.out + ended.err
    ).replace("\n", " ")
    assert "Traceback" not in ended.err


UNDERSTOOD: Final = (
    (["backfill", "--since", "0001-01-01", "--dry-run"], "Asia/Tokyo", 0),
    (["backfill", "--until", "9999-12-31", "--dry-run"], "Pacific/Pago_Pago", 0),
    (["lookup", "1", "--race", str(LARGEST_ID)], "UTC", 2),
    (["bibs", "--since", str(LARGEST_ID)], "UTC", 2),
    (["partner", "pause", "x" * 100_000], "UTC", 2),
    (["partner", "add", "x" * 10_000, "--api-key", "k", "--secret-stdin", "--no-check"], "UTC", 2),
)


def test_what_is_odd_and_understood_meets_a_database(shell: Shell, peak: rsusim.Account) -> None:
    for arguments, zone, code in UNDERSTOOD:
        ended = shell.run(*arguments, stdin="x1y2z3", TIMEZONE=zone)

        assert ended.code == code, ended.err
        assert "Traceback" not in ended.err
        assert "fault of its own" not in ended.err
        assert len(ended.err) < 1000
