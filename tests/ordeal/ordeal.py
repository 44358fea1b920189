"""
One ordeal: the program's real processes, a database, a vendor that never stands still, and troubles.

After each trouble, or two that overlap, hot races have to be polled again in time; then the world is held
still for a moment, and the mirror has to equal it.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final
from urllib.parse import urlsplit

import psycopg

import rsusim
from bibwire.store.migrate import HEAD
from tests.e2e import truth
from tests.network import Network
from tests.ordeal.crew import Crew, environment, ours
from tests.ordeal.disk import Disk
from tests.ordeal.postgres import DATABASE, ROLE, Cluster
from tests.ordeal.vendor import AMPLE, CALLS_PER_HOUR, SCANT, Moving, world_of
from tests.ordeal.watch import Watch
from tests.relay import Relay
from tests.waiting import PATIENCE_SECONDS

RUN, WORKER = "run", "worker"
# What is promised of hot races once a trouble is over.
POLLED_SECONDS: Final = 30.0
HOT_SECONDS: Final = 4 * 3600
# Who is killed in the middle of two calls leaves their places taken until they can last no longer.
CALL_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 1.0
# Who started in a trouble waits so long for a database before it says that there is none.
START_SECONDS: Final = 12.0
_TURN_SECONDS: Final = 0.1
_HOME_MEGABYTES: Final = 64


@dataclass
class Told:
    """How it went: what `python -m tests.ordeal` prints."""

    lines: list[str] = field(default_factory=list)
    happened: Counter[str] = field(default_factory=Counter)
    # Of commands, how they were stopped and with which codes they ended.
    codes: Counter[str] = field(default_factory=Counter)
    not_permitted: dict[str, str] = field(default_factory=dict)
    slowest: float = 0.0

    def say(self, line: str) -> None:
        self.lines.append(line)
        print(line, flush=True)


class Ordeal:
    """
    Use it as a context; whatever is wrong is an AssertionError.

    Attributes:
        folder: Where the processes live and say what they say; `keep` leaves it there.
        active: The troubles of this moment; `met`: those of them that another one met, whichever came first.
    """

    def __init__(self, seed: int, told: Told, *, has_own_network: bool) -> None:
        self.told = told
        self.random = Random(f"ordeal {seed}")
        self.has_own_network = has_own_network
        self.world = world_of(seed)
        # About to start from the beginning: what becomes hot later is known once the lists are read again.
        self.hot_races = {
            race.race_id
            for race in self.world.truth(AMPLE)
            if any(event.starts_at - self.now < HOT_SECONDS for event in race.events)
        }
        self.moving = Moving(self.world, seed)
        self.watch = Watch(self.world)
        self.active: set[str] = set()
        self.met: set[str] = set()
        self.keep = False
        # Until when the two places for calls may be taken by calls of a process that was killed.
        self.places_taken_until = 0.0
        # In epoch seconds: when the last trouble was over, and hot races were polled again.
        self.calm_since = 0.0
        # How many newer versions were installed since it began.
        self.versions = 0
        # Where its own folder is made.
        self.folder = Path("/tmp")  # until it has one of its own there
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._look_at = 0.0
        self._stack = ExitStack()

    def __enter__(self) -> Ordeal:
        try:
            self._set_up()
        except BaseException:
            self.keep = True
            self._stack.close()
            raise
        return self

    def _set_up(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="bibwire-ordeal-", dir=self.folder))
        # Home and log of the program are on a disk that can fill up.
        self.disk = Disk(self.folder / "disk", _HOME_MEGABYTES)
        self._stack.callback(self._remove_folder)
        self.disk.make()
        self.cluster = Cluster()
        self._stack.callback(self._close_cluster)
        if self.cluster.has_replicas:
            self.cluster.add_replica()
        self.relay = Relay(self.cluster.primary.socket)
        self.relay.start()
        self._stack.callback(self.relay.stop)
        server = self._stack.enter_context(rsusim.Server(self.world))
        port = urlsplit(server.base_url).port
        assert port is not None
        self.vendor = self._stack.enter_context(Network(("127.0.0.1", port)))
        database_url = psycopg.conninfo.make_conninfo(
            host="127.0.0.1", port=self.relay.port, user=ROLE, dbname=DATABASE
        )
        settings = environment(self.folder, database_url, f"http://127.0.0.1:{self.vendor.port}/rest")
        settings["BIBWIRE_HOME"] = str(self.disk.folder / "home")
        settings["BIBWIRE_LOG_FILE"] = str(self.disk.folder / "bibwire.jsonl")
        self.crew = Crew(self.folder, settings)
        self._stack.callback(self.crew.destroy)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.keep = self.keep or kind is not None
        self._stack.close()

    def _close_cluster(self) -> None:
        try:
            if self.keep:
                asked = (repr(info) for info in self.world.log.requests)
                (self.folder / "requests").write_text("\n".join(asked), "utf-8")
                for log in self.cluster.home.glob("*/log"):
                    shutil.copy(log, self.folder / f"postgres-{log.parent.name}.log")
                self.cluster.dump(self.folder / "database.sql")
        finally:
            self.cluster.close()

    def _remove_folder(self) -> None:
        if self.keep:
            log = self.disk.folder / "bibwire.jsonl"
            if log.exists():
                shutil.copy(log, self.folder)
        self.disk.remove()
        if not self.keep:
            shutil.rmtree(self.folder)

    # Before and after the troubles

    def start(self) -> None:
        """Add the partners, start the services, and wait until every race is loaded."""
        assert self.crew.run("init") == 0, self.crew.said("init")
        for name, limit in CALLS_PER_HOUR.items():
            account = self.world.accounts[name]
            options = ("--api-key", account.api_key, "--secret-stdin", "--calls-per-hour", str(limit))
            code = self.crew.run("partner", "add", name, *options, stdin=account.api_secret)
            assert code == 0, self.crew.said("partner")
        self._stack.enter_context(self.moving)
        self.crew.add(RUN, "run")
        self.crew.add(WORKER, "worker")
        since = self.now
        self.wait_until(lambda: self._hot_polls(since) >= self.hot_races, PATIENCE_SECONDS, "the first load")
        self.compare()
        self.watch.processes(self.crew.pids())

    def end(self) -> None:
        """Stop everything, look at what is left, and compare the mirror with the world a last time."""
        self.wait(1)
        self.crew.end()
        self.wait_until(lambda: not ours(self._temporary), 2.0, "processes are left")
        left = sorted(path.name for path in Path(self._temporary).iterdir())
        assert not left, f"left in the folder for what is temporary: {left}"
        sessions = "SELECT pid, application_name FROM pg_stat_activity WHERE usename = %(role)s"
        self.relay.bury()
        self.wait_until(lambda: not self.cluster.rows(sessions, role=ROLE), 10.0, "sessions are left")
        [row] = self.cluster.rows("SELECT version_num FROM bibwire.schema_version")
        assert int(row["version_num"]) == int(HEAD) + self.versions, f"the tables are those of {row}"
        self.moving.hold()
        try:
            # What the hour had for this partner may be spent, as it should be.
            assert self.crew.run("partner", "limit", SCANT, "10000") == 0, self.crew.said("partner")
            code = self.crew.run("sync")
            assert code == 0, f"the last sync ended with {code}: {self.crew.said('sync')[-2000:]}"
            with self.cluster.snapshot() as connection:
                truth.assert_mirror_equals_world(_rows(connection), self.world, AMPLE, SCANT)
                truth.assert_feed_is_sound(_rows(connection), AMPLE, SCANT)
        finally:
            self.moving.go_on()
        for file in sorted(self.folder.glob("*.err")):
            said = file.read_text("utf-8", "replace")
            assert "Traceback" not in said, f"a traceback in {file.name}"
            for account in self.world.accounts.values():
                assert account.api_key not in said, f"a key in {file.name}"
                assert account.api_secret not in said, f"a secret in {file.name}"

    @property
    def _temporary(self) -> str:
        return self.crew.environment["TMPDIR"]

    # What goes on all the time

    @property
    def now(self) -> float:
        """The vendor's time, in epoch seconds; it runs as fast as ours."""
        return self.world.clock.time()

    def wait(self, seconds: float) -> None:
        """Let time pass, and look at the rules meanwhile."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._turn()
            time.sleep(min(_TURN_SECONDS, left))

    def wait_until(
        self, holds: Callable[[], object], seconds: float, what: str, *, every: float = _TURN_SECONDS
    ) -> float:
        """Return after how many seconds it holds; fail unless it does in time."""
        began = time.monotonic()
        while not holds():
            assert time.monotonic() - began < seconds, f"{what}: not within {seconds:.0f} s"
            self.wait(every)
        return time.monotonic() - began

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Do something while time passes."""
        self._later.append((time.monotonic() + seconds, act))

    def _turn(self) -> None:
        self.moving.assert_alive()
        self.crew.tend()
        now = time.monotonic()
        due = [act for at, act in self._later if at <= now]
        self._later = [(at, act) for at, act in self._later if at > now]
        for act in due:
            act()
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            self._look()

    def _look(self) -> None:
        """Look at what holds all the time."""
        self.watch.look(self.cluster, in_trouble=bool(self.active))
        self._look_at_services()

    def _look_at_services(self) -> None:
        for ended in self.crew.ended:
            # Who finds no database when it starts says so, and is started again.
            assert ended.code == 1, f"{ended.name} ended with {ended.code}"
            assert self.active or ended.at - self.calm_since < START_SECONDS, (
                f"{ended.name} ended with {ended.code} though nothing was wrong"
            )
        self.crew.ended.clear()
        left = self.crew.orphans_left()
        assert not left, f"the worker of a `run` that was killed is still there: {left}"

    # What is looked at when a trouble is over

    def _hot_polls(self, since: float) -> set[int]:
        """Return the races that were polled since an instant, with success."""
        return {
            info.race_id
            for info in self.world.log.of("participants", AMPLE)
            if info.at > since and info.over and info.status == 200 and info.race_id is not None
        }

    def recover(self, since: float) -> float:
        """Wait until the hot races are polled again; return after how many seconds they were."""
        wait = max(POLLED_SECONDS, self.places_taken_until + POLLED_SECONDS - self.now)
        hot = self.hot_races

        def what() -> str:
            missing = sorted(hot - self._hot_polls(since))
            return f"races {missing} polled again"

        try:
            self.wait_until(lambda: self._hot_polls(since) >= hot, wait - (self.now - since), "polls")
        except AssertionError as error:
            if str(error).startswith("polls"):
                raise AssertionError(f"{what()}: not within {wait:.0f} s") from None
            raise
        polls = [
            min(
                info.at
                for info in self.world.log.of("participants", AMPLE)
                if info.race_id == race and info.at > since and info.status == 200
            )
            for race in hot
        ]
        return max(polls, default=since) - since

    def compare(self) -> float:
        """
        Hold the world still until its hot races are polled, and compare the mirror with them.

        Returns after how many seconds both lists of each were read.
        """
        hot = self.hot_races
        self.moving.hold()
        try:
            held_at = self.world.now
            query = (
                "SELECT count(*) AS races FROM bibwire.freshness AS f JOIN bibwire.partners AS p"
                " USING (partner_id) WHERE p.name = %(name)s AND f.race_id = ANY(%(races)s)"
                " AND f.as_of > %(at)s"
            )

            def is_polled() -> bool:
                [row] = self.cluster.rows(query, name=AMPLE, races=list(hot), at=held_at)
                return bool(row["races"] == len(hot))

            waited = self.wait_until(
                is_polled, 2 * POLLED_SECONDS, "both lists of each hot race read", every=0.5
            )
            with self.cluster.snapshot() as connection:
                truth.assert_mirror_equals_world(
                    _rows(connection), self.world, AMPLE, races=frozenset(hot), catalog=False
                )
        finally:
            self.moving.go_on()
        return waited

    def note_kill(self) -> None:
        """Somebody was killed: the calls it had in flight keep their places until they can last no longer."""
        in_flight = [info for info in self.world.log.requests[-50:] if not info.over]
        if len(in_flight) > 1:
            self.places_taken_until = self.now + CALL_SECONDS


def _rows(connection: psycopg.Connection[Any]) -> truth.Rows:
    def rows(query: str, **values: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = connection.execute(query.encode(), values).fetchall()
        return found

    return rows
