"""
Fixtures: real PostgreSQL servers, fresh databases, the simulated vendor on a real socket.

Time is the simulated world's: it moves when a test moves it.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import hypothesis
import psycopg
import pytest

import rsusim
from bibwire.store import embedded, migrate
from tests import fuzzing
from tests.house import House

DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")
# Of a server that takes the embedded one's place in every test: the folder of its programs.
CHOSEN = os.environ.get("BIBWIRE_TESTS_POSTGRES")
NOON = datetime(2026, 9, 12, 16, 0, tzinfo=UTC)
_numbers = count()
# A shell starts what runs in the background with Ctrl-C switched off, and children inherit that:
# the programs under test are to be stopped as on a terminal.
with contextlib.suppress(ValueError):  # outside the main thread
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Nor does what this machine's user has set: proxies, PostgreSQL's and our own settings, colours.
COLOURS = (
    "FORCE_COLOR",
    "NO_COLOR",
    "PY_COLORS",
    "TTY_COMPATIBLE",
    "TTY_INTERACTIVE",
    "GITHUB_ACTIONS",
    "COLUMNS",
)
for _name in list(os.environ):
    ours = _name.startswith("BIBWIRE_") and not _name.startswith(("BIBWIRE_FUZZ_", "BIBWIRE_TESTS_"))
    if ours or _name.startswith("PG") or _name.lower().endswith("_proxy") or _name in COLOURS:
        del os.environ[_name]
# The same examples each time (but for `make fuzz`), on a machine of any speed.
hypothesis.settings.register_profile(
    "bibwire",
    derandomize=not fuzzing.EXAMPLES,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("bibwire")


def pytest_report_header() -> str | None:
    """Say it, so that nobody takes the tests of one server for those of another."""
    return None if CHOSEN is None else f"PostgreSQL: {CHOSEN}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what is marked `every_postgres` on each server there is; all on the one that was chosen."""
    if "postgres" in metafunc.fixturenames:
        servers = ["embedded"]
        if CHOSEN is not None:
            servers = ["chosen"]
        elif metafunc.definition.get_closest_marker("every_postgres") and (DEBIAN_15 / "postgres").exists():
            servers.append("debian15")
        metafunc.parametrize("postgres", servers, indirect=True, scope="session")


@pytest.fixture(scope="session")
def embedded_server() -> Iterator[str]:
    """The embedded PostgreSQL, for this test process alone; its conninfo."""
    home = Path(tempfile.mkdtemp(prefix="bibwire-test-", dir="/tmp"))
    # As root the database's own user has to get in.
    home.chmod(0o755)
    server = embedded.start(home)
    try:
        with psycopg.connect(server.conninfo, autocommit=True) as connection:
            # Tests ask what is committed, never what survives a power cut.
            connection.execute("ALTER SYSTEM SET synchronous_commit = off")
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
        yield server.conninfo
    finally:
        server.close()
        shutil.rmtree(home)


@contextmanager
def _server(programs: Path) -> Iterator[str]:
    """A PostgreSQL of these programs, in a folder of its own."""
    home = Path(tempfile.mkdtemp(prefix="bibwire-postgres-", dir="/tmp"))
    user: str | None = None
    if os.geteuid() == 0:
        user = next(name for name in ("postgres", "nobody") if name in {p.pw_name for p in pwd.getpwall()})
        os.chown(home, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)

    def run(program: str, *arguments: str) -> None:
        subprocess.run(
            [programs / program, *arguments], check=True, user=user, cwd=home, stdout=subprocess.DEVNULL
        )

    data = str(home / "data")
    run("initdb", "-D", data, "-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8")
    options = f"-c listen_addresses= -c unix_socket_directories={home} -c fsync=off -c logging_collector=on"
    run("pg_ctl", "-D", data, "-w", "-l", str(home / "log"), "-o", options, "start")
    try:
        yield f"host={home} user=postgres dbname=postgres"
    finally:
        run("pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
        shutil.rmtree(home)


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> Iterator[str]:
    """Conninfo of a server with a migrated template database."""
    if request.param == "embedded":
        conninfo = request.getfixturevalue("embedded_server")
        _make_template(conninfo)
        yield conninfo
    else:
        programs = Path(CHOSEN) if CHOSEN is not None else DEBIAN_15
        with _server(programs) as conninfo:
            _make_template(conninfo)
            yield conninfo


def _make_template(conninfo: str) -> None:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        known = "SELECT FROM pg_database WHERE datname = 'template_bibwire'"
        if connection.execute(known).fetchone() is not None:
            return  # the tests came back to this server after another one
        connection.execute("CREATE DATABASE template_bibwire")
    migrate.upgrade(_named(conninfo, "template_bibwire"))


def _named(conninfo: str, database: str) -> str:
    return psycopg.conninfo.make_conninfo(conninfo, dbname=database)


@pytest.fixture
def empty_database_url(postgres: str) -> Iterator[str]:
    """A database without a schema."""
    yield from _fresh(postgres, "template0")


@pytest.fixture
def database_url(postgres: str) -> Iterator[str]:
    """A migrated, empty database."""
    yield from _fresh(postgres, "template_bibwire")


@pytest.fixture
def second_database_url(postgres: str) -> Iterator[str]:
    """Another one."""
    yield from _fresh(postgres, "template_bibwire")


def _fresh(conninfo: str, template: str) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
        try:
            yield _named(conninfo, name)
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def world() -> rsusim.World:
    """An empty world at noon in New York, 12 September 2026."""
    return rsusim.World(seed=1, now=NOON)


@pytest.fixture
def simulator(world: rsusim.World) -> Iterator[rsusim.Server]:
    """The simulated vendor on a real socket."""
    with rsusim.Server(world) as server:
        yield server


@pytest.fixture
def house(world: rsusim.World, simulator: rsusim.Server, database_url: str) -> Iterator[House]:
    """A mirror of the simulated world, without partners yet."""
    with House(world, simulator.base_url, database_url) as house:
        yield house
