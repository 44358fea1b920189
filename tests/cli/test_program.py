"""The program itself: quick help, one sentence for an error, quiet ends."""

from __future__ import annotations

import itertools
import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

import bibwire
from bibwire.cli.help import EXAMPLES
from tests.cli.conftest import BIBWIRE, Shell
from tests.network import network_to
from tests.waiting import PATIENCE_SECONDS

LEAST = """
import typer
app = typer.Typer(add_completion=False)
@app.command()
def one(): pass
@app.command()
def other(): pass
app()
"""
COMMANDS = {"sync", "bibs", "lookup", "partner", "add"}
HEAVY = {
    *("asyncio", "psycopg", "pydantic", "httpx2", "structlog", "cryptography", "rsusim", "sqlalchemy"),
    *("prometheus_client", "uvicorn"),
}


def test_help_imports_nothing_heavy(bare: Shell) -> None:
    code = (
        "import sys; from bibwire.cli import main; main(['--help']); "
        f"sys.exit(' '.join({HEAVY!r} & set(sys.modules)) or 0)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")

    # markdown_it, which rich draws help with, imports asyncio; nothing of ours may add to that.
    assert set(ended.stderr.split()) <= {"asyncio"}


def test_help_takes_less_than_twice_the_work_of_the_least_program(bare: Shell, tmp_path: Path) -> None:
    """300 ms where that one takes 150: a yardstick, because machines differ."""
    least = tmp_path / "least.py"
    least.write_text(LEAST)

    def work(*command: object) -> float:
        """Processor time of one run: what other processes take does not count."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*map(str, command), "--help"], check=True, capture_output=True, cwd=bare.folder)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # In turn, so that both meet the same machine; the first ones compile.
    taken = [(work(BIBWIRE), work(sys.executable, least)) for _ in range(8)]

    assert min(ours for ours, _ in taken) < 2 * min(yardstick for _, yardstick in taken)


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
    command = " ".join(argument for argument in arguments[:2] if argument in COMMANDS)
    assert ended.told.endswith(f"See {f'bibwire {command}'.strip()} --help.")
    assert not bare.home.exists()


def test_a_number_below_zero_is_said_to_be_one(bare: Shell) -> None:
    for command in ("backfill", "status", "bibs"):
        told = bare.run(command, "-5").told
        assert "-5 may not stand there: a number comes after the option that it is for." in told
    for arguments, told in (
        (("sync", "--race", "-3"), "'--race': it has to be 1 or more."),
        (("verify", "--seed", "3333333333"), "'--seed': it has to be 2147483648 or less."),
        (("demo", "--seconds", "x"), "'--seconds': it has to be a number."),
    ):
        assert told in bare.run(*arguments).told
    assert "BIB has to be 0 or more." in bare.run("lookup", "-5", "--race", "3").told
    assert "CALLS has to be 1 or more." in bare.run("partner", "limit", "Peak Timing", "-5").told


def test_help_shows_an_example_and_no_types_of_python(bare: Shell) -> None:
    for name, examples in EXAMPLES.items():
        shown = bare.run(*name.split(), "--help").out
        assert examples[0] in shown, name
        for sign in ("<bool>", "<int", "<str>", "<float", "x<=", "x>="):
            assert sign not in shown, name


def test_help_breaks_a_line_only_where_the_next_word_has_no_room(bare: Shell) -> None:
    bare.environment["COLUMNS"] = "80"
    for name in EXAMPLES:
        shown = bare.run(*name.split(), "--help").out
        lines = [line.strip() for line in shown.partition("Usage:")[2].partition("╭─")[0].splitlines()]
        for line, after in itertools.pairwise(lines):
            if line and after:
                assert len(f"{line} {after.split()[0]}") > 78, (name, line)


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["bibs"],
        ["lookup", "1", "--race", "2"],
        ["partner", "list"],
        ["partner", "pause", "x"],
        ["psql", "-c", "SELECT 1"],
    ],
)
def test_a_command_that_reads_makes_no_database(bare: Shell, command: list[str]) -> None:
    ended = bare.run(*command, DATABASE_URL=None)

    assert (ended.code, ended.out) == (1, "")
    assert f"There is no database at {bare.home} yet: run bibwire init" in ended.told
    assert not bare.home.exists()


def test_a_home_that_is_a_file_is_said_to_be_one(bare: Shell) -> None:
    bare.home.write_text("")

    for command in (["status"], ["sync"], ["init"]):
        ended = bare.run(*command, DATABASE_URL=None)
        assert ended.code == 2
        assert f"{bare.home} is a file" in ended.told


def test_a_log_file_in_a_folder_that_is_not_there_is_refused_and_no_folder_made(bare: Shell) -> None:
    path = bare.folder / "typo" / "bibwire.jsonl"

    ended = bare.run("status", LOG_FILE=str(path))

    assert ended.code == 2
    assert "cannot be written" in ended.told
    assert not path.parent.exists()


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
    ("url", "told"),
    [
        (
            "postgresql://me:hidden@127.0.0.1:1/bibs",
            "no server answers at 127.0.0.1, port 1 (connection refused): start it there, or correct",
        ),
        (
            "postgresql://me:hidden@127.0.0.1:1,127.0.0.2:2/bibs",
            " nor at 127.0.0.",
        ),
        (
            "postgresql://me:hidden@nowhere.invalid/bibs",
            "the host nowhere.invalid of BIBWIRE_DATABASE_URL cannot be looked up: check the network",
        ),
        ("postgresql://me:hidden@/bibs?host=/nowhere", "at the socket /nowhere/.s.PGSQL.5432 (no such file"),
    ],
)
def test_a_database_that_is_not_reached_is_named_with_what_to_do(bare: Shell, url: str, told: str) -> None:
    ended = bare.run("status", DATABASE_URL=url)

    assert ended.code == 1
    assert told in ended.told
    for words in ("hidden", "Is the server running", "Errno", "failed"):
        assert words not in ended.err


@pytest.mark.parametrize("first", [0, 1])
def test_of_several_hosts_the_one_that_answers_is_heard(bare: Shell, database_url: str, first: int) -> None:
    with network_to(database_url) as (network, conninfo):
        user = conninfo_to_dict(conninfo)["user"]
        hosts = ["127.0.0.2:1", f"127.0.0.1:{network.port}"]
        hosts = [hosts[first], hosts[1 - first]]
        ended = bare.run("status", DATABASE_URL=f"postgresql://{user}@{','.join(hosts)}/nowhere")

    assert ended.code == 1
    assert 'FATAL: database "nowhere" does not exist' in ended.told
    assert "no server answers at 127.0.0.2, port 1 (connection refused)" in ended.told
    assert "start it there" not in ended.told
    assert ended.told.count('"nowhere"') == 1
    assert "make it there with createdb nowhere" in ended.told


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


def test_a_reader_that_leaves_early_hides_no_fault(bare: Shell) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as nobody:
        ended = subprocess.run(
            [BIBWIRE, "doctor"],
            stdout=nobody,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            cwd=bare.folder,
            env=bare.environment,
            timeout=PATIENCE_SECONDS,
        )

    # There is no database, and that is a failure whoever reads of it.
    assert (ended.returncode, ended.stderr) == (1, "")


def test_the_simulator_is_served_until_it_is_told_to_end(bare: Shell) -> None:
    process = bare.start("simulate", "--scale", "small", "--json")
    assert process.stdout is not None
    assert '"base_url":"http://127.0.0.1:' in process.stdout.readline()

    ended = bare.stop(process, signal.SIGTERM)

    assert ended.err == ""
    assert ended.code in (0, -signal.SIGTERM)


def test_the_simulator_s_own_help_is_shown(bare: Shell) -> None:
    shown = bare.run("simulate", "--help").out

    assert shown.startswith("Usage: bibwire simulate [OPTIONS]")
    assert "--quirk" in shown
    assert len(shown.splitlines()) < 40
    assert "latency_seconds=0.0" in bare.run("simulate", "--help-quirks").out


def test_the_simulator_names_what_to_use_and_the_lines_to_paste(bare: Shell) -> None:
    process = bare.start("simulate", "--scale", "small", "--rate", "0")
    assert process.stdout is not None
    shown = ""
    while "partner add" not in shown:
        shown += process.stdout.readline()
    bare.stop(process, signal.SIGTERM)

    assert "\nPeak Timing\n  key     " in shown
    assert "  export BIBWIRE_API_URL=http://127.0.0.1:" in shown
    assert '  bibwire partner add "Peak Timing" --api-key ' in shown


def test_a_port_that_cannot_be_is_a_sentence(bare: Shell) -> None:
    ended = bare.run("simulate", "--port", "99999")

    assert (ended.code, ended.out) == (2, "")
    assert "--port is a number from 0" in ended.err
    assert "Traceback" not in ended.err


def test_a_port_of_the_simulator_that_is_taken_is_told_with_what_to_do(bare: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = bare.run("simulate", "--scale", "small", "--port", str(port))

    assert (ended.code, ended.out) == (2, "")
    assert ended.err == (
        f"bibwire: Port {port} is taken: choose another with --port, or leave it out. "
        "See bibwire simulate --help.\n"
    )


def test_what_the_simulator_does_not_take_is_one_sentence(bare: Shell) -> None:
    ended = bare.run("simulate", "--prot", "8088")

    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1
    assert ended.told.endswith("See bibwire simulate --help.")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(["sync", "--json=1"], "sync"), (["partner", "add", "Peak", "--no-check=1"], "partner add")],
)
def test_a_value_that_an_option_does_not_take_names_the_command_s_help(
    bare: Shell, arguments: list[str], named: str
) -> None:
    ended = bare.run(*arguments)

    assert ended.code == 2
    assert ended.told.endswith(f"does not take a value. See bibwire {named} --help.")


@pytest.mark.parametrize("command", ["init", "sync"])
def test_a_home_below_what_is_no_folder_is_told_without_chmod(bare: Shell, command: str) -> None:
    ended = bare.run(command, DATABASE_URL=None, HOME="/dev/null/x")

    assert ended.code == 2
    assert "has to be a folder, not /dev/null/x, and /dev/null is no folder." in ended.told
    assert ended.err.count("\n") == 1
    doctor = bare.run("doctor", DATABASE_URL=None, HOME="/dev/null/x")
    assert "FAIL home: /dev/null is no folder" in doctor.out
    assert "chmod" not in doctor.out
