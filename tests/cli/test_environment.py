"""
Nothing outside decides: the same commands do the same whatever a database, a shell or a machine sets.

Each test is a command as a user runs it, in surroundings that somebody has.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

import rsusim
from tests.cli.conftest import BIBWIRE, Shell
from tests.pooler import needs_pgbouncer, pooled
from tests.proxy import proxy
from tests.store.test_session_settings import make_hostile
from tests.waiting import PATIENCE_SECONDS, wait_until

MISLEADING = {
    "PGCLIENTENCODING": "LATIN1",
    "PGOPTIONS": "-c default_transaction_read_only=on -c nonsense=1",
    "PGTZ": "Nonsense",
    "PGDATESTYLE": "Nonsense",
}
NAME = ("José", "García Ñúñez")


@pytest.fixture
def world() -> rsusim.World:
    world = rsusim.worlds.small(now=datetime.now(UTC))
    world.clock.run(1)
    return world


@dataclass(frozen=True)
class Entry:
    """A registration for a race of the first partner."""

    race: int
    number: int


@pytest.fixture
def garcia(world: rsusim.World) -> Entry:
    """Somebody with bib 4321 whose name no two encodings spell alike."""
    race = world.add_race([world.accounts["Peak Timing"]], "Fiesta 5K", "America/Chicago")
    start = datetime.now(UTC).replace(tzinfo=None, microsecond=0) + timedelta(days=2)
    number = world.register(world.add_event(race, "5K", start), first_name=NAME[0], last_name=NAME[1])
    world.assign_bib(number, 4321)
    return Entry(race, number)


def stored(conninfo: str, registration: int) -> tuple[object, ...]:
    with psycopg.connect(conninfo, client_encoding="UTF8") as connection:
        row = connection.execute(
            "SELECT first_name, last_name FROM bibwire.participants WHERE registration_id = %s",
            (registration,),
        ).fetchone()
    assert row is not None
    return row


def owned_by_a_role(conninfo: str, role: str) -> str:
    """Give the database to an ordinary role, whose own settings are against us; return how to reach it."""
    name = conninfo_to_dict(conninfo)["dbname"]
    with psycopg.connect(conninfo, autocommit=True) as superuser:
        superuser.execute(f"CREATE ROLE {role} LOGIN".encode())
        superuser.execute(f"ALTER DATABASE {name} OWNER TO {role}".encode())
        for setting in (
            "client_encoding = 'LATIN1'",
            "datestyle = 'German'",
            "standard_conforming_strings = off",
            "default_transaction_isolation = 'serializable'",
            "lock_timeout = '1ms'",
            "search_path = nowhere",
        ):
            superuser.execute(f"ALTER ROLE {role} SET {setting}".encode())
    return make_conninfo(conninfo, user=role)


@pytest.mark.every_postgres
def test_what_role_database_address_and_environment_set_decides_nothing(
    shell: Shell, empty_database_url: str, world: rsusim.World, garcia: Entry
) -> None:
    address = owned_by_a_role(empty_database_url, "against_us")
    make_hostile(empty_database_url, leave=("session_replication_role",))
    shell.environment |= MISLEADING
    shell.environment["BIBWIRE_DATABASE_URL"] = make_conninfo(address, client_encoding="LATIN1")
    try:
        assert shell.run("init").code == 0
        assert shell.add(world.accounts["Peak Timing"]).code == 0
        synced = shell.run("sync")
        assert synced.code == 0, synced.err + synced.out

        assert stored(empty_database_url, garcia.number) == NAME
        assert shell.run("verify").code == 0
        found = shell.run("lookup", "4321", "--race", str(garcia.race))
        assert " ".join(NAME) in found.out
        for command in (["status"], ["plan"], ["reconcile"], ["partner", "list"]):
            ended = shell.run(*command)
            assert ended.code == 0, f"{command}: {ended.err}{ended.out}"
        assert "FAIL database" not in (told := shell.run("doctor").out)
        assert "FAIL schema" not in told
    finally:
        ours = "-c default_transaction_read_only=off -c lock_timeout=0"
        with psycopg.connect(empty_database_url, autocommit=True, options=ours) as superuser:
            superuser.execute("REASSIGN OWNED BY against_us TO CURRENT_USER")
            superuser.execute("DROP OWNED BY against_us")
            superuser.execute("DROP ROLE against_us")


def test_run_works_where_a_database_sets_everything_against_it(
    shell: Shell, database_url: str, peak: rsusim.Account, garcia: Entry
) -> None:
    make_hostile(database_url)
    shell.environment |= MISLEADING
    process = shell.start("run", "--workers", "1")

    def arrived() -> bool:
        assert process.poll() is None
        with psycopg.connect(database_url, options="-c transaction_timeout=0") as connection:
            counted = connection.execute(
                "SELECT count(*) FROM bibwire.participants WHERE registration_id = %s", (garcia.number,)
            ).fetchone()
        return counted == (1,)

    wait_until(arrived)
    shell.stop(process, signal.SIGTERM)

    assert stored(database_url, garcia.number) == NAME


@pytest.mark.every_postgres
@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_that_cannot_hold_every_name_is_refused_by_name(
    encoding: str, shell: Shell, postgres: str
) -> None:
    name = f"encoded_{encoding.lower()}"
    with psycopg.connect(postgres, autocommit=True) as server:
        provider = " LOCALE_PROVIDER libc" if server.info.server_version >= 150000 else ""
        server.execute(
            f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0{provider} LOCALE 'C'".encode()
        )
        try:
            shell.environment["BIBWIRE_DATABASE_URL"] = make_conninfo(postgres, dbname=name)
            for command in (["init"], ["sync"], ["run"], ["status"], ["partner", "list"]):
                ended = shell.run(*command)
                assert ended.code == 1, command
                assert f"encoded in {encoding}" in ended.told
                assert "CREATE DATABASE ... ENCODING 'UTF8'" in ended.told

            ended = shell.run("doctor", "--json")

            assert ended.code == 1
            [finding] = [each for each in ended.json["findings"] if each["check"] == "database"]
            assert finding["grade"] == "FAIL"
            assert f"encoded in {encoding}" in finding["found"]
            assert "ENCODING 'UTF8'" in finding["fix"]
        finally:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@needs_pgbouncer
def test_a_pooler_in_session_mode_hands_on_no_settings_of_others(
    shell: Shell, database_url: str, peak: rsusim.Account, garcia: Entry
) -> None:
    make_hostile(database_url)
    shell.environment |= MISLEADING
    with pooled(database_url, "session") as address:
        ended = shell.run("sync", DATABASE_URL=address)

    assert ended.code == 0, ended.err
    assert stored(database_url, garcia.number) == NAME


@needs_pgbouncer
def test_what_a_pooler_lends_to_others_is_left_as_it_was(shell: Shell, database_url: str) -> None:
    with pooled(database_url, "transaction", connections=1) as address:
        assert shell.run("init", DATABASE_URL=address).code == 1
        assert shell.run("doctor", DATABASE_URL=address).code == 1

        with psycopg.connect(address) as others:
            assert others.execute("SHOW search_path").fetchone() == ('"$user", public',)
            assert others.execute("SHOW row_security").fetchone() == ("on",)
            assert others.execute("SHOW idle_in_transaction_session_timeout").fetchone() == ("0",)


def raw(shell: Shell, *arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command whose output is in any encoding."""
    return subprocess.run(
        [BIBWIRE, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=shell.folder,
        env=shell.environment | environment,
        timeout=PATIENCE_SECONDS,
    )


@pytest.fixture
def synced(shell: Shell, peak: rsusim.Account, garcia: Entry) -> Shell:
    """A shell whose mirror has been synced."""
    assert shell.run("sync").code == 0
    return shell


def test_every_output_can_be_written_in_any_encoding(
    synced: Shell, world: rsusim.World, garcia: Entry
) -> None:
    world.assign_bib(garcia.number, 4322)
    assert synced.run("sync").code == 0
    for encoding, name in (("ascii:strict", "Jose Garcia Nunez"), ("latin-1", " ".join(NAME))):
        ended = raw(synced, "bibs", PYTHONIOENCODING=encoding)

        assert ended.returncode == 0, ended.stderr
        told = ended.stdout.decode(encoding.partition(":")[0])
        assert "4321 -> 4322" in told
        assert name in told
    for command in (["lookup", "4321", "--race", str(garcia.race)], ["status"]):
        ended = raw(synced, *command, PYTHONIOENCODING="ascii")
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.isascii()
    wrong = raw(synced, "sync", "--partner", "Łódź → 北京", PYTHONIOENCODING="ascii:strict")
    assert wrong.returncode == 2
    assert b"There is no partner Lodz -> ??" in wrong.stderr
    # JSON is for programs, and always the same.
    exact = raw(synced, "bibs", "--json", PYTHONIOENCODING="ascii")
    assert NAME[1] in exact.stdout.decode("utf-8")


def test_a_bare_locale_and_a_zone_that_is_none_change_nothing(
    shell: Shell, peak: rsusim.Account, database_url: str, garcia: Entry
) -> None:
    shell.environment |= {"LANG": "C", "LC_ALL": "POSIX", "TZ": "Nonsense"}

    assert shell.run("sync").code == 0
    assert shell.run("status").code == 0
    assert stored(database_url, garcia.number) == NAME
    [finding] = [
        each for each in shell.run("doctor", "--json").json["findings"] if each["check"] == "time zone"
    ]
    assert finding["grade"] == "warn"
    assert "'Nonsense'" in finding["found"]
    assert "America/New_York" in finding["fix"]


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_no_umask_lets_others_write_our_files(shell: Shell, empty_database_url: str) -> None:
    # Of a folder that is not there either.
    home = shell.folder / "new" / "home"
    subprocess.run(
        [BIBWIRE, "init"],
        env=shell.environment | {"BIBWIRE_HOME": str(home), "BIBWIRE_DATABASE_URL": empty_database_url}
        | {"BIBWIRE_SECRET_KEY": ""},
        cwd=shell.folder, umask=0, check=True, capture_output=True,
    )  # fmt: skip

    found = {path: stat.S_IMODE(path.stat().st_mode) for path in (home.parent, home, *home.rglob("*"))}
    assert {path: mode for path, mode in found.items() if mode & 0o022} == {}
    assert found[home / "secret.key"] == 0o600
    assert stat.S_IMODE(shell.log_file.stat().st_mode) == 0o640


BARE = """
mount -t tmpfs -o size=1m tmpfs /dev/shm && mount --bind /tmp /tmp && mount -o remount,bind,ro /tmp || exit 77
umask 000
"$0" init && "$0" psql -qAtX -v ON_ERROR_STOP=1 \
    -c "CREATE TABLE public.many AS SELECT g FROM generate_series(1, 200000) AS g" -c "ANALYZE public.many" \
    -c "SET parallel_setup_cost = 0" -c "SET parallel_tuple_cost = 0" \
    -c "SET min_parallel_table_scan_size = 0" -c "SET max_parallel_workers_per_gather = 2" \
    -c "SELECT count(*) FROM public.many AS a JOIN public.many AS b USING (g)" \
    -c "SHOW client_encoding"
"""


@pytest.mark.skipif(shutil.which("unshare") is None or os.geteuid() != 0, reason="needs mounts of its own")
def test_the_embedded_database_needs_no_shared_memory_no_tmp_and_no_word_of_the_environment(
    shell: Shell,
) -> None:
    with tempfile.TemporaryDirectory(prefix="bibwire-bare-", dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        home = Path(folder) / ("deep" * 20) / "home"  # so that the socket has to be elsewhere
        environment = shell.environment | {
            "BIBWIRE_HOME": str(home),
            "BIBWIRE_LOG_FILE": "",
            "PGHOSTADDR": "127.0.0.1",
            "PGSERVICE": "nowhere",
            "PGREQUIREAUTH": "scram-sha-256",
            "PGCLIENTENCODING": "LATIN1",
            "TZ": "Nonsense",
            "LC_ALL": "C",
        }
        del environment["BIBWIRE_DATABASE_URL"]
        ended = subprocess.run(
            ["unshare", "-m", "sh", "-c", BARE, BIBWIRE],
            env=environment, cwd="/", capture_output=True, encoding="utf-8", timeout=PATIENCE_SECONDS,
        )  # fmt: skip
        if ended.returncode == 77:
            pytest.skip("this machine allows no mounts")

        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert ended.stdout.splitlines()[-2:] == ["200000", "UTF8"]
        ours = home / "postgres"
        found = {path: stat.S_IMODE(path.stat().st_mode) for path in (ours, *ours.rglob("*"))}
        assert {path: mode for path, mode in found.items() if mode & 0o022} == {}
        assert found[ours / "startup.log"] == 0o600


def test_an_env_files_quotes_and_a_byte_order_mark_are_no_part_of_a_value(
    shell: Shell, peak: rsusim.Account, tmp_path: Path, database_url: str
) -> None:
    (tmp_path / "bibwire.toml").write_text(
        '\ufeffcalls_per_hour = 77\napi_url = "https://wrong.example"\n', "utf-8"
    )
    for mark in ("'", '"'):
        quoted = {
            name: f"{mark}{value}{mark}"
            for name, value in shell.environment.items()
            if name.startswith("BIBWIRE_")
        }
        shell.environment |= {name: value for name, value in quoted.items() if name != "BIBWIRE_DATABASE_URL"}

        ended = shell.run("sync", MAX_CALLS_IN_FLIGHT='"2"', VERIFY_AT="'off'")

        assert ended.code == 0, ended.err
        assert "bibwire: " not in ended.err


@pytest.mark.parametrize("spoiled", ["\ufeff{}", "\u00a0{}\u2009", '"{}\u200b"'])
def test_a_key_is_stored_without_what_was_pasted_along(
    spoiled: str, shell: Shell, world: rsusim.World
) -> None:
    account = world.accounts["Peak Timing"]
    half = len(account.api_key) // 2
    inside = account.api_key[:half] + "\u200d" + account.api_key[half:]

    ended = shell.run(
        "partner", "add", "Peak Timing", "--api-key", inside, "--secret-stdin",
        stdin=spoiled.format(account.api_secret),
    )  # fmt: skip

    assert ended.code == 0, ended.err
    assert "The API key was pasted with a zero width joiner (U+200D); that was taken out." in ended.err
    assert "The API secret was pasted with " in ended.err
    assert "it sees 2 races" in ended.out  # asked with the key as it was meant, and so stored


def test_a_key_with_what_no_key_has_is_not_stored(shell: Shell, world: rsusim.World) -> None:
    account = world.accounts["Peak Timing"]
    for key, named in (
        (f"{account.api_key}–", "an en dash (U+2013)"),
        (f"{account.api_key[:-1]}а", "a cyrillic small letter a (U+0430)"),
        (f"{account.api_key}\x07", "a control character (U+0007)"),
    ):
        ended = shell.run(
            "partner", "add", "Peak Timing", "--api-key", key, "--secret-stdin", "--no-check", stdin="x1y2z3"
        )

        assert ended.code == 2
        assert f"The API key holds {named}" in ended.told
        assert "Nothing was stored" in ended.told
    assert shell.run("partner", "list", "--json").json == {"partners": []}


def test_a_spoiled_key_of_the_environment_is_told(shell: Shell, peak: rsusim.Account) -> None:
    secret = peak.api_secret
    ended = shell.run("sync", KEY_PEAK_TIMING=f"{peak.api_key}\u200b", SECRET_PEAK_TIMING=f"\u00a0{secret}")
    assert ended.code == 0, ended.err
    assert (
        "BIBWIRE_KEY_PEAK_TIMING holds a zero width space (U+200B), pasted along and taken out." in ended.err
    )
    assert "BIBWIRE_SECRET_PEAK_TIMING holds a non-breaking space (U+00A0)" in ended.err

    wrong = shell.run("sync", CALLER_REG="1.abc–def", CALLER_SECRET="secret-of-caller")
    assert wrong.code == 2
    assert wrong.told.startswith("BIBWIRE_CALLER_REG holds an en dash (U+2013)")


def as_url(conninfo: str, scheme: str, password: str) -> str:
    """Return an address of a server that lets everybody in, as people type it."""
    to = conninfo_to_dict(conninfo)
    folder = quote(str(to["host"]), safe="")
    return f"{scheme}://{to['user']}:{password}@/{to['dbname']}?host={folder}&port={to.get('port', 5432)}"


@pytest.mark.parametrize(
    ("scheme", "password"),
    [
        ("postgres", "plain"),
        ("postgresql+psycopg", "plain"),
        ("postgresql+asyncpg", "p@ss"),
        ("postgres", "pa/ss"),
        ("postgresql", "a?b@c/d%e#f"),
        ("postgresql", "\u200bplain"),
    ],
)
def test_addresses_work_as_people_write_them(
    scheme: str, password: str, shell: Shell, database_url: str
) -> None:
    shell.environment["BIBWIRE_DATABASE_URL"] = as_url(database_url, scheme, password)

    assert (ended := shell.run("init")).code == 0, ended.err
    if "@" in password:
        assert shell.run("psql", "-Atc", "SELECT 1").out == "1\n"


def test_an_address_that_can_be_read_in_two_ways_is_refused_without_its_password(bare: Shell) -> None:
    ended = bare.run("status", DATABASE_URL="postgres://me:123/hidden@db.example/bibs")

    assert ended.code == 2
    assert ended.told.startswith("BIBWIRE_DATABASE_URL cannot be read: in a password write @ as %40")
    assert "hidden" not in ended.err


def test_only_our_own_setting_names_a_proxy(shell: Shell, peak: rsusim.Account, world: rsusim.World) -> None:
    world.log.clear()
    with proxy() as stranger:
        names = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy", "all_proxy")
        shell.environment |= dict.fromkeys(names, f"http://{stranger.address}")

        assert shell.run("sync").code == 0
        told = {each["check"]: each for each in shell.run("doctor", "--json").json["findings"]}

        assert stranger.asked == []
    assert world.log.calls > 0
    assert told["RunSignup"]["grade"] == "ok"
    assert "HTTPS_PROXY and https_proxy" in told["proxy"]["found"]


def test_every_call_and_doctors_go_through_our_proxy(
    shell: Shell, peak: rsusim.Account, world: rsusim.World
) -> None:
    with proxy(login="timer:proxy-pass-word") as ours:
        shell.secrets.append("proxy-pass-word")
        shell.environment["BIBWIRE_PROXY"] = f"http://timer:proxy-pass-word@{ours.address}"
        world.log.clear()

        assert shell.run("sync").code == 0
        through = len(ours.asked)
        told = {each["check"]: each["grade"] for each in shell.run("doctor", "--json").json["findings"]}

        assert through == world.log.calls - 1 > 0
        assert len(ours.asked) == through + 1
    assert told["RunSignup"] == told["proxy"] == "ok"


def test_what_a_proxy_says_is_told(shell: Shell, peak: rsusim.Account) -> None:
    with proxy(refuses="407 Proxy Authentication Required") as ours:
        settings = {"PROXY": ours.address, "API_URL": "https://rsu.invalid/rest"}
        synced = shell.run("sync", **settings)
        told = {each["check"]: each for each in shell.run("doctor", "--json", **settings).json["findings"]}

        assert {method for method, _ in ours.asked} == {"CONNECT"}
        assert {target for _, target in ours.asked} == {"rsu.invalid:443"}
    for said in (synced.out + synced.err, told["RunSignup"]["found"]):
        assert "the proxy of BIBWIRE_PROXY does not let us through: 407 Proxy Authentication Required" in said
    assert "BIBWIRE_PROXY" in told["RunSignup"]["fix"]


def test_a_proxy_that_is_none_is_refused_by_name(bare: Shell) -> None:
    assert "has to be an HTTP proxy" in bare.run("status", PROXY="socks5://127.0.0.1:9").told
    assert "such as http://proxy.example.com:3128" in bare.run("status", PROXY="http://").told
