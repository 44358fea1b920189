"""What monitors are told is true of all processes, bounded, and never in the way of the work."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families
from psycopg import sql

import rsusim
from bibwire.engine.reconcile import ReconcileRequest
from bibwire.store import schedule
from tests.cli.bad_day import CANARY, have_a_bad_day
from tests.cli.conftest import Shell
from tests.cli.test_status import Observer, chores_ran, worker_gives_signs
from tests.cli.test_status import observer as observer
from tests.cli.test_sync import first_race
from tests.house import House
from tests.store.mirrored import with_database
from tests.waiting import PATIENCE_SECONDS, wait_until

ROOT = Path(__file__).parents[2]
# A scrape answers within 3 s of waiting and a second to break off; the rest is a loaded machine.
ANSWER_SECONDS = 8.0
Labels = frozenset[tuple[str, str]]


class Scraped(dict[tuple[str, Labels], float]):
    """Values by name and labels."""

    def __init__(self, text: str) -> None:
        super().__init__(
            ((sample.name, frozenset(sample.labels.items())), sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        )

    def value(self, name: str, **labels: object) -> float | None:
        return self.get((name, frozenset((label, str(value)) for label, value in labels.items())))

    def of(self, name: str) -> list[dict[str, str]]:
        """Return the labels of each sample of that name."""
        return [dict(labels) for each, labels in self if each == name]

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self}


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as answer:
        body: bytes = answer.read()
    return body.decode()


def scrape(shell: Shell, url: str) -> Scraped:
    told = fetch(url)
    shell.check_secrets(told)
    return Scraped(told)


def metrics(shell: Shell) -> Scraped:
    ended = shell.run("metrics")
    assert (ended.code, ended.err) == (0, "")
    return Scraped(ended.out)


def listens(url: str) -> bool:
    """Whether anybody takes connections there."""
    try:
        socket.create_connection(("127.0.0.1", int(url.split(":")[2].split("/")[0]))).close()
    except ConnectionRefusedError:
        return False
    return True


def url_told(shell: Shell, process: subprocess.Popen[str]) -> str:
    """Return the address that the log tells, once it does."""

    def told() -> list[str]:
        assert process.poll() is None
        log = shell.log_file.read_text() if shell.log_file.exists() else ""
        return [line["url"] for line in map(json.loads, log.splitlines()) if line.get("action") == "metrics"]

    wait_until(told)
    return told()[0]


@contextmanager
def serving(shell: Shell, *arguments: str, **settings: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = shell.start(*arguments, **settings)
    try:
        yield process, url_told(shell, process)
    finally:
        with suppress(psutil.NoSuchProcess):
            for worker in psutil.Process(process.pid).children():
                worker.kill()
        process.kill()
        process.communicate()


@pytest.fixture
def world() -> rsusim.World:
    world = rsusim.worlds.small(now=datetime.now(UTC))
    world.clock.run(1)
    return world


def test_a_run_tells_what_its_workers_do(shell: Shell, peak: rsusim.Account, world: rsusim.World) -> None:
    with serving(shell, "run", "--metrics-port", "0") as (process, url):
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/metrics", url)
        wait_until(
            lambda: (
                (found := scrape(shell, url)).of("bibwire_race_age_seconds")
                and found.value("bibwire_planner_age_seconds") is not None
                and len(found.of("bibwire_race_age_seconds")) == len(found.of("bibwire_race_target_seconds"))
            )
        )
        found = scrape(shell, url)
        rows = shell.run("status", "--json").json

        assert found.value("bibwire_up") == 1
        races = {(race["partner"], str(race["race_id"])): race for race in rows["races"]}
        assert {(each["partner"], each["race_id"]) for each in found.of("bibwire_race_age_seconds")} == {
            *races
        }
        for (partner, race), told in races.items():
            key = {"partner": partner, "race_id": race}
            assert found.value("bibwire_race_target_seconds", **key) == told["target_seconds"]
            age = found.value("bibwire_race_age_seconds", **key)
            assert age is not None
            assert age <= told["target_seconds"]
            assert found.value("bibwire_race_late", **key) == 0
            assert found.value("bibwire_race_failing", **key) == 0
        calls = sum(
            found.value("bibwire_budget_calls_last_hour", **each) or 0
            for each in found.of("bibwire_budget_calls_last_hour")
        )
        ended = [
            found.value("bibwire_endpoint_calls_last_hour", **each)
            for each in found.of("bibwire_endpoint_calls_last_hour")
        ]
        assert 0 < calls <= rows["partners"][0]["calls_last_hour"]
        assert len(ended) >= 3
        limit = found.value("bibwire_budget_limit_calls", partner=peak.name)
        assert limit == rows["partners"][0]["limit_in_use"]
        assert found.value("bibwire_workers") == 1
        planned = found.value("bibwire_planner_age_seconds")
        assert planned is not None
        assert planned < 60
        with pytest.raises(urllib.error.HTTPError, match="404"):
            fetch(url.removesuffix("/metrics"))
        # The one process that is asked is the one that was started, not a worker of it.
        listening = [c for c in psutil.Process(process.pid).net_connections("tcp") if c.status == "LISTEN"]
        assert [c.laddr.port for c in listening] == [int(url.split(":")[2].split("/")[0])]
        began = time.monotonic()
        ended_run = shell.stop(process, signal.SIGTERM)
    assert ended_run.code == 128 + signal.SIGTERM
    assert time.monotonic() - began < 12
    assert "Traceback" not in ended_run.err
    assert not listens(url)


def test_the_setting_is_for_run_and_its_workers_leave_it_alone(shell: Shell, peak: rsusim.Account) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with serving(shell, "run", "--workers", "2", METRICS_PORT=str(port)) as (process, url):
        assert url == f"http://127.0.0.1:{port}/metrics"
        wait_until(lambda: scrape(shell, url).value("bibwire_workers") == 2)
        assert shell.stop(process, signal.SIGTERM).code == 143
    assert "worker ended" not in shell.log_file.read_text()


def test_a_worker_by_itself_serves_the_same(shell: Shell, peak: rsusim.Account) -> None:
    with serving(shell, "worker", "--metrics-port", "0", "--metrics-host", "::1") as (process, url):
        assert url.startswith("http://[::1]:")
        wait_until(lambda: scrape(shell, url).value("bibwire_workers") == 1)
        assert shell.stop(process, signal.SIGTERM).code == 143


def test_drift_is_counted_and_stands_when_its_findings_are_pruned(
    shell: Shell, peak: rsusim.Account, world: rsusim.World, observer: Observer, database_url: str
) -> None:
    race, event = first_race(world)
    shell.run("sync")
    before = metrics(shell)
    assert before.value("bibwire_drift_rows_total", partner=peak.name, kind="extra") == 0
    world.vanish(world.active(event)[0])
    assert shell.run("reconcile", "--race", str(race)).code == 0

    found = metrics(shell)
    in_time = datetime.now(UTC) + schedule.RUNS_KEPT + timedelta(days=1)
    with_database(database_url, lambda db: schedule.prune(db, now=in_time))
    assert observer.execute("SELECT FROM bibwire.reconciliations").fetchall() == []
    pruned = metrics(shell)

    for each in (found, pruned):
        assert each.value("bibwire_drift_rows_total", partner=peak.name, kind="extra") == 1
        assert each.value("bibwire_drift_rows_total", partner=peak.name, kind="missing") == 0


def test_a_reconciliation_s_age_is_that_of_the_race_that_waits_longest(
    shell: Shell, database_url: str
) -> None:
    world = rsusim.worlds.small(now=datetime.now(UTC) - timedelta(days=9))
    account, began_at = world.accounts["Peak Timing"], world.now
    with rsusim.Server(world) as vendor, House(world, vendor.base_url, database_url) as house:
        house.add_partner(account)
        assert house.sync().errors == []
        for race, hours_left in zip(world.races, (30, 1), strict=False):
            world.advance((9 * 24 - hours_left) * 3600 - (world.now - began_at).total_seconds())
            assert house.run(house.runtime.reconcile(ReconcileRequest(race_id=race))).errors == []

    age = metrics(shell).value("bibwire_reconciliation_age_seconds", partner=account.name)

    assert age is not None
    assert 0 <= age - 30 * 3600 < 600


def test_what_stands_badly_is_told(shell: Shell, observer: Observer, database_url: str) -> None:
    day = have_a_bad_day(shell, database_url)
    chores_ran(observer, planner="2 hours", rescue="5 seconds")
    key = {"partner": day.partner}

    found = metrics(shell)

    assert found.value("bibwire_race_failing", **key, race_id=day.race) == 1
    assert found.value("bibwire_race_late", **key, race_id=day.race) == 1
    lag = found.value("bibwire_race_detection_lag_seconds", **key, race_id=day.changing, quantile="0.95")
    assert lag == pytest.approx(8, abs=1)
    assert found.value("bibwire_budget_blocked", **key) == 1
    assert found.value("bibwire_callers_blocked") == 1
    assert found.value("bibwire_partner_failing", **key) == 1
    assert found.value("bibwire_verification_passed", **key) == 0
    assert found.value("bibwire_verification_failures", **key, verdict="fail") == 2
    assert found.value("bibwire_verification_failures", **key, verdict="error") == 1
    assert found.value("bibwire_verification_timestamp_seconds", **key) == day.verified_at.timestamp()
    assert found.value("bibwire_quarantined_records", **key) == 1
    assert found.value("bibwire_doubted_events", **key) == day.doubted > 0
    planned = found.value("bibwire_planner_age_seconds")
    assert planned is not None
    assert 7200 <= planned < 7800
    assert found.value("bibwire_queue_jobs", status="waiting") == day.waiting > 0
    errors = found.value("bibwire_endpoint_errors_last_hour", **key, endpoint="races")
    assert errors == day.failed_lists > 0
    # What has no person to look after it is no alarm.
    assert shell.run("partner", "pause", day.partner).code == 0
    paused = metrics(shell)
    assert paused.value("bibwire_partner_paused", **key) == 1
    for name in ("bibwire_race_age_seconds", "bibwire_race_late"):
        assert day.partner in {each["partner"] for each in found.of(name)}
        assert day.partner not in {each["partner"] for each in paused.of(name)}


def test_what_the_vendor_said_and_who_runs_is_not_told(
    shell: Shell, observer: Observer, database_url: str
) -> None:
    have_a_bad_day(shell, database_url)

    told = shell.run("metrics").out

    names = observer.execute("SELECT DISTINCT last_name FROM bibwire.participants WHERE last_name <> ''")
    assert len(shown := [name for (name,) in names]) > 10
    labels = {value for each in Scraped(told) for _, value in each[1]}
    assert not labels & {*shown}
    assert CANARY not in told
    for table in ("credentials", "quarantine", "scopes"):
        stored = sql.SQL("SELECT * FROM bibwire.{}").format(sql.Identifier(table))
        assert CANARY in "".join(map(str, observer.execute(stored)))


def test_each_metric_is_documented_and_nothing_else(
    shell: Shell, observer: Observer, database_url: str
) -> None:
    have_a_bad_day(shell, database_url)
    worker_gives_signs(observer)
    chores_ran(observer, planner="5 seconds", rescue="5 seconds")
    page = (ROOT / "docs/metrics.md").read_text()
    rules = (ROOT / "docs/alerts.yml").read_text()

    found = metrics(shell)

    table = set(re.findall(r"^\| `(\w+)`", page, re.MULTILINE))
    assert table == found.names
    assert set(re.findall(r"\bbibwire_\w+", page)) == found.names
    used = set(re.findall(r"\bbibwire_\w+", rules))
    assert len(used) >= 8
    assert used <= found.names
    assert f"```yaml\n{rules}```" in page
    # Labels, too, are those of the page.
    for name in found.names:
        labels = {label for each in found.of(name) for label in each}
        [line] = [line for line in page.splitlines() if line.startswith(f"| `{name}`")]
        assert set(re.findall(r"`(\w+)`", line.split("|")[2])) == labels, name


def test_a_database_that_cannot_be_read_is_told_at_once_and_the_run_goes_on(
    shell: Shell, peak: rsusim.Account, observer: Observer, database_url: str
) -> None:
    with (
        serving(shell, "run", "--metrics-port", "0") as (process, url),
        psycopg.connect(database_url) as blocker,
    ):
        # A worker that finds no database when it starts ends, and is started again.
        wait_until(lambda: scrape(shell, url).value("bibwire_workers") == 1)
        # It accepts connections and says nothing: a migration's lock, or a disk that stands still.
        blocker.execute("LOCK TABLE bibwire.partners IN ACCESS EXCLUSIVE MODE")
        began = time.monotonic()
        found = scrape(shell, url)
        assert time.monotonic() - began < ANSWER_SECONDS
        assert found.names == {"bibwire_up", "bibwire_build_info"}
        assert found.value("bibwire_up") == 0
        blocker.rollback()
        wait_until(lambda: scrape(shell, url).value("bibwire_up") == 1)

        with refused(database_url):
            began = time.monotonic()
            assert scrape(shell, url).value("bibwire_up") == 0
            assert time.monotonic() - began < ANSWER_SECONDS
            one_shot = shell.run("metrics")
            assert one_shot.code == 1
            assert "PostgreSQL cannot be used" in one_shot.told
            assert Scraped(one_shot.out).value("bibwire_up") == 0
            assert process.poll() is None
        assert scrape(shell, url).value("bibwire_up") == 1
        assert shell.stop(process, signal.SIGTERM).code == 143
    log = shell.log_file.read_text()
    assert "metrics cannot be read" in log
    assert "worker ended" not in log


@contextmanager
def refused(database_url: str) -> Iterator[None]:
    """Take the database away: who is connected is thrown out, and nobody is let in."""
    name = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]
    other = psycopg.conninfo.make_conninfo(database_url, dbname="postgres")
    allow = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
    with psycopg.connect(other, autocommit=True) as owner:
        owner.execute(allow.format(sql.Identifier(str(name)), sql.SQL("false")))
        try:
            owner.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = %s AND application_name LIKE 'bibwire%%'",
                (name,),
            )
            yield
        finally:
            owner.execute(allow.format(sql.Identifier(str(name)), sql.SQL("true")))


def test_a_server_that_fell_silent_holds_back_neither_scrapes_nor_the_end(
    shell: Shell, peak: rsusim.Account, database_url: str
) -> None:
    """As a host that is gone: connections stand, and nothing comes any more."""
    address = psycopg.conninfo.conninfo_to_dict(database_url)
    behind = f"{address['host']}/.s.PGSQL.{address.get('port', 5432)}"
    with Wire(behind) as wire:
        through = psycopg.conninfo.make_conninfo(database_url, host="127.0.0.1", port=wire.port)
        with serving(shell, "run", "--metrics-port", "0", DATABASE_URL=through) as (process, url):
            wait_until(lambda: scrape(shell, url).value("bibwire_workers") == 1)
            wire.silent.set()
            began = time.monotonic()
            assert scrape(shell, url).value("bibwire_up") == 0
            assert time.monotonic() - began < ANSWER_SECONDS
            pending = threading.Thread(target=fetch, args=(url,))
            pending.start()
            time.sleep(0.5)  # until it is under way
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            pending.join(ANSWER_SECONDS)
            assert not pending.is_alive()
            wait_until(lambda: not listens(url))
            assert time.monotonic() - began < 4


class Wire:
    """A wire to a server on a Unix socket that can fall silent."""

    def __init__(self, behind: str) -> None:
        self.silent = threading.Event()
        self._behind = behind
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._ends: list[socket.socket] = []

    def __enter__(self) -> Wire:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for end in (self._listening, *self._ends):
            end.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            far.connect(self._behind)
            self._ends += [near, far]
            for ends in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                if self.silent.is_set():
                    return
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def test_many_scrapes_at_once_share_a_connection(
    shell: Shell, peak: rsusim.Account, observer: Observer, database_url: str
) -> None:
    def connections() -> int:
        [[number]] = observer.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid() AND state = 'active' AND wait_event_type = 'Lock'"
        )
        return int(number)

    # Nothing else runs beside: the workers wait for nothing of it.
    with (
        serving(shell, "worker", "--metrics-port", "0") as (_, url),
        psycopg.connect(database_url) as blocker,
    ):
        wait_until(lambda: scrape(shell, url).value("bibwire_workers") == 1)
        # Read by scrapes alone.
        blocker.execute("LOCK TABLE bibwire.drift_totals IN ACCESS EXCLUSIVE MODE")
        with ThreadPoolExecutor(12) as pool:
            asked = [pool.submit(scrape, shell, url) for _ in range(12)]
            wait_until(connections)
            seen = [connections() for _ in range(50)]
            blocker.rollback()
            assert [each.result().value("bibwire_build_info") for each in asked] == [None] * 12
            assert len({each.result().value("bibwire_up") for each in asked}) == 1
        assert max(seen) == 1


def test_connections_that_ask_nothing_take_no_place_from_scrapes(shell: Shell, peak: rsusim.Account) -> None:
    with (
        serving(shell, "worker", "--metrics-port", "0") as (process, url),
        ExitStack() as open_all,
    ):
        host, port = url.split("/")[2].split(":")
        idle = [
            open_all.enter_context(socket.create_connection((host, int(port)), timeout=60)) for _ in range(60)
        ]
        idle[-1].sendall(b"GET /metrics HTTP/1.1\r\n")  # and nothing more

        assert scrape(shell, url).value("bibwire_up") == 1

        # They end by themselves.
        assert all(_is_closed(each) for each in idle)
        assert shell.stop(process, signal.SIGTERM).code == 143


def _is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_no_database_is_made_to_tell_of_it(bare: Shell) -> None:
    ended = bare.run("metrics", DATABASE_URL=None)

    assert ended.code == 1
    assert "run bibwire init" in ended.told
    assert Scraped(ended.out).value("bibwire_up") == 0
    assert not bare.home.exists()


@pytest.mark.parametrize("command", ["run", "worker"])
def test_a_port_in_use_is_one_sentence_and_nothing_is_started(shell: Shell, command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = shell.run(command, "--metrics-port", str(port), DATABASE_URL=None)

    assert (ended.code, ended.out) == (2, "")
    assert f"port {port} of 127.0.0.1 is in use" in ended.told
    assert not shell.home.exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--metrics-host", "127.0.0.1"], "add --metrics-port"),
        (["--metrics-port", "0", "--metrics-host", "192.0.2.1"], "no address of this machine"),
        (["--metrics-port", "0", "--metrics-host", "a..b"], "a..b is no address"),
        (["--metrics-port", "70000"], "65535"),
    ],
)
def test_what_cannot_be_served_is_one_sentence(bare: Shell, arguments: list[str], told: str) -> None:
    ended = bare.run("run", *arguments)

    assert (ended.code, ended.out) == (2, "")
    assert told in ended.told


def test_no_scrape_reads_the_people_or_the_feed() -> None:
    told = (ROOT / "src/bibwire/store/sql/metrics.sql").read_text()

    assert not re.search(r"\b(participants|changes|bib_changes)\b", re.sub(r"--.*", "", told))
