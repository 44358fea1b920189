"""The program itself: quick help, one sentence for an error, quiet ends."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys

import pytest

import bibwire
from tests.cli.conftest import BIBWIRE, Shell

HEAVY = {"asyncio", "psycopg", "pydantic", "httpx2", "structlog", "cryptography", "rsusim", "sqlalchemy"}


def test_help_imports_nothing_heavy(bare: Shell) -> None:
    code = (
        "import sys; from bibwire.cli import main; main(['--help']); "
        f"sys.exit(' '.join({HEAVY!r} & set(sys.modules)) or 0)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")

    # markdown_it, which rich draws help with, imports asyncio; nothing of ours may add to that.
    assert set(ended.stderr.split()) <= {"asyncio"}


def test_help_takes_less_than_300_ms_of_work(bare: Shell) -> None:
    def once() -> float:
        """Processor time of one run: what other processes take does not count."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert bare.run("--help").code == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    bare.run("--help")  # compiles
    assert min(once() for _ in range(5)) < 0.3


def test_the_version_is_told(bare: Shell) -> None:
    assert bare.run("--version").out == f"bibwire {bibwire.__version__}\n"


def test_python_m_bibwire_is_bibwire(bare: Shell) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "bibwire", "--version"], capture_output=True, encoding="utf-8"
    )

    assert ended.stdout == f"bibwire {bibwire.__version__}\n"


def test_every_command_of_the_design_is_there_and_has_help(bare: Shell) -> None:
    commands = [[name] for name in ("init", "doctor", "sync", "status", "bibs", "lookup", "demo")]
    commands += [["partner", name] for name in ("add", "list", "rotate", "pause", "resume", "remove")]
    for command in commands:
        ended = bare.run(*command, "--help")
        assert ended.code == 0
        assert "Usage: bibwire" in ended.out


@pytest.mark.parametrize(
    "arguments",
    [
        ["sink"],
        ["sync", "--fast"],
        ["sync", "--race", "abc"],
        ["sync", "--race", "99999999999999999999"],
        ["lookup", "A12", "--race", "5"],
        ["lookup", "-1", "--race", "5"],
        ["lookup", "12"],
        ["bibs", "--since", "yesterday"],
        ["partner", "add"],
        ["partner", "add", "x", "--kind", "password"],
        ["partner", "add", "x", "--api-key", "k", "--api-secret", "canary"],
    ],
)
def test_wrong_use_is_one_sentence_and_exit_code_2(bare: Shell, arguments: list[str]) -> None:
    ended = bare.run(*arguments)

    assert ended.code == 2
    assert ended.out == ""
    assert ended.told.endswith("See bibwire --help.")
    assert not bare.home.exists()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"API_URL": "http://api.runsignup.com/rest"}, "would send keys in the clear"),
        ({"CALLER_REG": "1.x"}, "BIBWIRE_CALLER_SECRET is not"),
        ({"DATABASE_URL": "mysql://x"}, "has to begin with postgresql://"),
        ({"TIMEOUT_SECONDS": "soon"}, "BIBWIRE_TIMEOUT_SECONDS has to be a number"),
        ({"SECRET_KEY_FILE": "/k"}, "keep one of them"),
    ],
)
def test_a_wrong_setting_is_one_sentence_and_exit_code_2(
    bare: Shell, settings: dict[str, str | None], told: str
) -> None:
    for command in (["sync"], ["status"], ["doctor"], ["partner", "list"]):
        ended = bare.run(*command, **settings)
        assert (ended.code, ended.out) == (2, "")
        assert told in ended.told
    assert not bare.home.exists()


def test_a_database_that_does_not_answer_is_one_sentence_and_exit_code_1(bare: Shell) -> None:
    ended = bare.run("sync")

    assert (ended.code, ended.out) == (1, "")
    assert "PostgreSQL" in ended.told
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    "settings", [{"SECRET_KEY": "short"}, {"SECRET_KEY": None, "SECRET_KEY_FILE": "/nowhere"}]
)
def test_a_key_that_cannot_be_used_is_found_out_before_a_database_is_made(
    bare: Shell, settings: dict[str, str | None]
) -> None:
    ended = bare.run("init", DATABASE_URL=None, **settings)

    assert (ended.code, ended.out) == (2, "")
    assert "key" in ended.told.lower()
    assert not bare.home.exists()


@pytest.mark.parametrize("place", [0, 1])
def test_debug_shows_where_an_error_came_from(bare: Shell, place: int) -> None:
    arguments = ["sync"]
    arguments.insert(place, "--debug")

    ended = bare.run(*arguments)

    assert ended.code == 1
    assert "Traceback" in ended.err


def test_an_unknown_variable_is_warned_of_and_the_command_goes_on(bare: Shell) -> None:
    ended = bare.run("doctor", TIMEOUT_SECOND="9")

    assert "did you mean BIBWIRE_TIMEOUT_SECONDS" in ended.told
    assert "settings: valid" in ended.out


def test_a_reader_that_leaves_early_is_no_error(bare: Shell) -> None:
    process = subprocess.Popen(
        [BIBWIRE, "doctor"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        cwd=bare.folder,
        env=bare.environment,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr:
        assert process.stderr.read() == ""
    assert process.wait(60) == 0


def test_the_simulator_is_served_until_it_is_told_to_end(bare: Shell) -> None:
    process = bare.start("simulate", "--scale", "small", "--json")
    assert process.stdout is not None
    assert '"base_url":"http://127.0.0.1:' in process.stdout.readline()

    ended = bare.stop(process, signal.SIGTERM)

    assert ended.err == ""
    assert ended.code in (0, -signal.SIGTERM)


def test_the_simulator_s_own_help_is_shown(bare: Shell) -> None:
    assert "--quirk" in bare.run("simulate", "--help").out
