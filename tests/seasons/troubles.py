"""What goes wrong in a season: at the vendor, on machines, in the database."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING, Final

import psycopg

import rsusim
from bibwire.domain.errors import BibwireError, SettingsError
from bibwire.engine.reconcile import ReconcileRequest
from bibwire.engine.reports import SyncRequest
from tests.seasons.happenings import VENDOR, Happening
from tests.seasons.watch import LIMIT_SLACK, RETRY_AFTER

if TYPE_CHECKING:
    from tests.seasons.season import Season
    from tests.seasons.watch import Watch

# Who is silent for so long has lost the lease of a race, and what it asked for may still be answered.
LEASED_SECONDS: Final = 60.0
TAKE_LEASES: Final = frozenset(
    {
        "crash_database",
        "database_clock",
        "dba_lock",
        "end_sessions",
        "fail_over",
        "freeze_worker",
        "hang",
        "kill_worker",
        "no_connections",
        "restart_database",
        "slow",
        "slow_after_reading",
        "slow_body",
        "time_outs",
    }
)
HOUR_SECONDS: Final = 3600.0
# So often a person lists everybody of a partner that has hardly any calls left.
LISTED_ALL_THE_SAME: Final = 3
LISTED_SECONDS: Final = 60.0
# A command that failed is given again.
AGAIN_SECONDS: Final = 20.0
# So many races are lost while access is taken away without a word.
LOSSES: Final = 3
# What a replica lost that took over.
LOST_SECONDS: Final = 1.5
# Struck by these, one partner keeps the others waiting no longer than any does: the answer comes at once.
APART: Final = frozenset(VENDOR) - {
    *("hang", "slow", "slow_after_reading", "slow_body"),
    *("wrong_counts", "short_race_list", "another_date", "silent_rights", "vendor_clock"),
}
HABITS: Final = ("wrong_counts", "another_date", "short_race_list")
# Rows of nobody, among those of others.
ODD_ROWS: Final = (
    '{"registration_id": 1e400, "event_id": 1}',
    '{"registration_id": "x", "bib_num": 7}',
    '{"registration_id": 4, "event_id": null, "user": {"first_name": "\\ud800"}}',
    "17",
)
# Tables to which newer versions have added columns again and again.
NEWER: Final = ("participants", "races", "scopes", "streams", "plans", "sync_history")
# What a DBA may have set, each of which would spoil something if it reached our sessions.
SETTINGS: Final = {
    "statement_timeout": "'20ms'",
    "lock_timeout": "'5ms'",
    "idle_in_transaction_session_timeout": "'10ms'",
    "default_transaction_isolation": "'serializable'",
    "default_transaction_read_only": "on",
    "client_encoding": "'LATIN1'",
    "datestyle": "'German'",
    "standard_conforming_strings": "off",
    "timezone": "'Asia/Kolkata'",
    "search_path": "'pg_temp'",
}


class Troubles:
    """Does what a line says, and undoes it when its time is over."""

    def __init__(self, season: Season, watch: Watch) -> None:
        self._season = season
        self._watch = watch
        # Of each that goes on, or went on, until when.
        self._until: list[tuple[str, float]] = []
        # When commands were killed or told to leave: the vendor may still answer them.
        self.ended_early: list[float] = []
        # Somebody has taken all places for sessions.
        self.no_connections = False

    def going_on(self) -> list[str]:
        """Return what is wrong now."""
        now = self._season.now.timestamp()
        return [kind for kind, until in self._until if now <= until]

    def took_a_lease(self, at: float) -> bool:
        """Say whether somebody may have lost a race's lease with a call under way, at about an instant."""
        return any(kind in TAKE_LEASES and until + LEASED_SECONDS >= at for kind, until in self._until)

    async def happen(self, line: Happening) -> None:
        """Let it be wrong for as long as the line says."""
        self._until.append((line.kind, self._season.now.timestamp() + line.seconds))
        wrong = self._watch.goes_wrong(line.kind, self._concerned(line))
        own = getattr(self, f"_{line.kind}", None)
        if own is None:
            own = self._habit if line.kind in HABITS else self._vendor
        try:
            await own(line)
        finally:
            wrong.ended = self._season.now.timestamp()

    def _concerned(self, line: Happening) -> str | None:
        """Return the partner that is disturbed by it; None: all of them."""
        if line.kind == "few_calls":
            return self._busiest()
        return self._whom(line) if line.kind in APART else None

    def _whom(self, line: Happening) -> str | None:
        """Return the partner a fault of the vendor strikes; None: all of them."""
        accounts = list(self._season.world.accounts)
        return None if line.a % 3 == 0 else accounts[line.a % len(accounts)]

    async def _vendor(self, line: Happening) -> None:
        world = self._season.world
        fault = rsusim.Fault(
            kind=line.kind,
            partner=self._whom(line),
            times=None,
            retry_after=int(RETRY_AFTER) if line.kind == "http_429" else None,
            # Slower than that, and who asked is gone before it is answered.
            seconds=line.seconds if line.kind == "hang" else 12.0,
            rows=ODD_ROWS,
            position=Random(line.b).choice(("start", "end")),
        )
        world.faults.add(fault)
        await asyncio.sleep(line.seconds)
        fault.times = 0

    async def _habit(self, line: Happening) -> None:
        """For a while answers are such as a vendor with another habit gives."""
        random = Random(line.b)
        habits: dict[str, dict[str, object]] = {
            "wrong_counts": {"counts_off_by": random.choice((-3, -1, 1, 4))},
            "another_date": {"date_offset_seconds": float(random.choice((-5400, -700, 700, 5400)))},
            "short_race_list": {"races_most": 1},
        }
        fault = rsusim.Fault(kind="quirk", quirks=habits[line.kind], times=None)
        self._season.world.faults.add(fault)
        await asyncio.sleep(line.seconds)
        fault.times = 0

    async def _silent_rights(self, line: Happening) -> None:
        """
        Partners lose access to a race, one after the other, and the vendor shows it empty without a word.

        Its list of races still has it, so that one comparison of all lists cannot tell; a second one may
        believe it.
        """
        lost: set[tuple[str, int]] = set()
        for turn in range(LOSSES):
            filled = [each for each in self._with_people() if each not in lost]
            if filled:
                lost.add(filled[(line.a + turn) % len(filled)])
                await self._lose(*filled[(line.a + turn) % len(filled)], seconds=line.seconds / LOSSES)
            else:
                await asyncio.sleep(line.seconds / LOSSES)

    async def _lose(self, name: str, race: int, *, seconds: float) -> None:
        world, is_lost = self._season.world, True
        fault = rsusim.Fault(
            kind="quirk", quirks={"lost_rights": "empty"}, partner=name, race_id=race, times=None
        )

        def strike(info: rsusim.RequestInfo) -> None:
            if is_lost and info.account == name:
                (world.grant if info.endpoint == "races" else world.withdraw)(name, race)

        self._watch.lost[name, race] = world.now.timestamp()
        world.faults.add(fault)
        world.before_answer(strike)
        await asyncio.sleep(seconds / 2)
        # Somebody wonders, and has all lists compared.
        with suppress(BibwireError):
            await self._season.runtime.reconcile(ReconcileRequest(partner=name))
        await asyncio.sleep(seconds / 2)
        is_lost = False
        with world:
            world.grant(name, race)
        fault.times = 0
        self._watch.changed[name, race] = world.now.timestamp()

    def _with_people(self) -> list[tuple[str, int]]:
        """Return the races with somebody in them, here and there: of others nobody would miss anything."""
        season, world = self._season, self._season.world
        if not season.server.is_up or self._watch.is_locked or self.no_connections:
            return []
        return [
            (row["name"], row["race_id"])
            for row in season.rows(
                "SELECT DISTINCT p.name, q.race_id FROM bibwire.participants AS q"
                " JOIN bibwire.partners AS p USING (partner_id) WHERE q.removed_at IS NULL ORDER BY 1, 2"
            )
            if world.may_read(row["name"], row["race_id"])
            and not world.races[row["race_id"]].removed
            and any(world.events[event].published for event in world.races[row["race_id"]].event_ids)
        ]

    async def _vendor_clock(self, line: Happening) -> None:
        """The vendor's clock steps, by which it dates answers and changes, and steps back later."""
        clock, now = self._season.world.clock, self._season.now.timestamp
        ahead = Random(line.b).choice((-300.0, -90.0, 90.0, 300.0))
        if ahead < 0:
            self._watch.vendor_clock_stepped(now() + ahead, now())
        else:
            self._watch.vendor_clock_stepped(now(), now() + line.seconds + ahead)
        clock.ahead += ahead
        await asyncio.sleep(line.seconds)
        clock.ahead -= ahead

    # Their owner

    async def _few_calls(self, line: Happening) -> None:
        """
        A partner may make hardly more calls than it has made, and a person lists all its people all the same.

        Later it may make as many as before.
        """
        name = self._busiest()
        if name is None:
            return
        usual, few = self._watch.limit_of(name), self._made()[name] + 6 + line.b % 8
        if few < usual and await self._limited(name, few):
            try:
                # By then nobody goes by the limit of before any more.
                await asyncio.sleep(LIMIT_SLACK)
                async with asyncio.timeout(max(line.seconds, LISTED_SECONDS)):
                    for _ in range(LISTED_ALL_THE_SAME):
                        self._watch.lists_read.setdefault(name, []).append(self._season.now.timestamp())
                        with suppress(BibwireError):
                            await self._season.runtime.engine.sync(SyncRequest(partner=name, full=True))
                    await asyncio.sleep(HOUR_SECONDS)
            except TimeoutError:
                self.ended_early.append(self._season.now.timestamp())
            await self._limited(name, usual)

    async def _limited(self, name: str, limit: int) -> bool:
        """Give a partner so many calls an hour, as soon as that can be stored; False: it is gone."""
        runtime = self._season.runtime
        if limit > self._watch.limit_of(name):
            self._watch.limited(name, limit)  # in force before it is known to be
        while name in self._watch.partners:
            try:
                await runtime.partners.limit(name, limit)
                await runtime.wake_planner()
            except SettingsError:
                return False
            except BibwireError:
                await asyncio.sleep(AGAIN_SECONDS)
            else:
                self._watch.limited(name, limit)
                self._season.bell.ring()
                return True
        return False

    def _busiest(self) -> str | None:
        made = self._made()
        return max(self._watch.partners, key=lambda name: (made[name], name), default=None)

    def _made(self) -> Counter[str]:
        """Count the calls of the last hour, by partner."""
        since = self._season.now.timestamp() - HOUR_SECONDS
        return Counter(info.account or "" for info in self._season.world.log.requests if info.at > since)

    # Machines

    async def _kill_worker(self, line: Happening) -> None:
        worker = self._season.workers[line.a % len(self._season.workers)]
        if worker.machine.dead:
            return
        await self._season.kill(worker.machine)
        await asyncio.sleep(line.seconds)
        self._season.start_worker_again(worker)

    async def _freeze_worker(self, line: Happening) -> None:
        worker = self._season.workers[line.a % len(self._season.workers)]
        if not worker.machine.runs:
            return
        worker.machine.frozen = True
        await asyncio.sleep(line.seconds)
        if worker.machine.frozen:
            worker.machine.thaw()

    async def _second_worker(self, line: Happening) -> None:
        """Somebody starts `run` again, and ends it."""
        worker = self._season.hire()
        await asyncio.sleep(line.seconds)
        await self._season.dismiss(worker)

    async def _worker_clock(self, line: Happening) -> None:
        worker = self._season.workers[line.a % len(self._season.workers)]
        random = Random(line.b)
        worker.clock.ahead = timedelta(seconds=random.choice((-86400, -600, 600, 3 * 86400)))
        worker.clock.drift = random.choice((0.0, 0.0, 0.05, -0.05))
        await asyncio.sleep(line.seconds)
        worker.clock.ahead, worker.clock.drift = timedelta(), 0.0

    # The database

    async def _crash_database(self, line: Happening) -> None:
        if not self._season.server.is_up:
            return
        async with self._season.quiet():
            self._season.server.kill()
        await asyncio.sleep(line.seconds)
        self._start_database()

    async def _restart_database(self, line: Happening) -> None:
        if not self._season.server.is_up:
            return
        async with self._season.quiet():
            self._season.server.stop()
        await asyncio.sleep(line.seconds)
        self._start_database()

    async def _fail_over(self, line: Happening) -> None:
        """A replica takes over that has not seen the last moment."""
        server = self._season.server
        if not server.is_up:
            return
        async with self._season.quiet():
            server.keep()
        await asyncio.sleep(LOST_SECONDS)
        async with self._season.quiet():
            server.kill()
            server.take_back()
        # What the feed told in that moment is told anew, under the same numbers or others.
        self._watch.read_feeds_again()
        await asyncio.sleep(line.seconds)
        self._start_database()

    def _start_database(self) -> None:
        if not self._season.server.is_up:
            self._season.server.start()
        self._season.sessions_ended()

    async def _end_sessions(self, line: Happening) -> None:
        async with self._season.quiet():
            if self._season.server.is_up:
                self._season.rows(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
                self._season.sessions_ended()

    async def _time_outs(self, line: Happening) -> None:
        """A DBA sets values for all new sessions, and ends the old ones."""
        chosen = Random(line.b).sample(list(SETTINGS), 4)
        await self._whenever_up(
            lambda dba: [
                dba.execute(f"ALTER DATABASE played SET {name} = {SETTINGS[name]}".encode())
                for name in chosen
            ]
        )
        await self._end_sessions(line)
        await asyncio.sleep(line.seconds)
        await self._whenever_up(
            lambda dba: [dba.execute(f"ALTER DATABASE played RESET {name}".encode()) for name in chosen]
        )

    async def _dba_lock(self, line: Happening) -> None:
        """Somebody holds all registrations for a while, or until the database goes away."""
        if not self._season.server.is_up:
            return
        try:
            with psycopg.connect(self._season.server.conninfo("played")) as dba:
                await self._lock(dba)
                await asyncio.sleep(line.seconds)
        except psycopg.OperationalError:
            return
        finally:
            self._watch.is_locked = False

    async def _lock(self, dba: psycopg.Connection) -> None:
        while not self._watch.is_locked:
            # To wait for it here would be to wait for those who wait for us.
            async with self._season.quiet():
                try:
                    dba.execute("LOCK TABLE bibwire.participants IN ACCESS EXCLUSIVE MODE NOWAIT")
                    self._watch.is_locked = True
                except psycopg.errors.LockNotAvailable:
                    dba.rollback()
            await asyncio.sleep(0.01)

    async def _no_connections(self, line: Happening) -> None:
        """Sessions are ended, and somebody takes all places before they are opened again."""
        await self._end_sessions(line)
        taken: list[psycopg.Connection] = []
        try:
            async with self._season.quiet():
                with suppress(psycopg.OperationalError):
                    while self._season.server.is_up:
                        taken.append(psycopg.connect(self._season.server.conninfo("postgres")))
            self.no_connections = True
            await asyncio.sleep(line.seconds)
        finally:
            self.no_connections = False
            pids = [connection.info.backend_pid for connection in taken if not connection.closed]
            for connection in taken:
                connection.close()
            self._season.are_gone(pids)

    async def _newer_schema(self, line: Happening) -> None:
        """A newer Bibwire adds columns under those that run. Then it is thought better of."""
        for table in NEWER:
            await self._alter(table, "ADD COLUMN IF NOT EXISTS of_a_newer_bibwire text NOT NULL DEFAULT 'x'")
        await asyncio.sleep(line.seconds)
        for table in NEWER:
            await self._alter(table, "DROP COLUMN IF EXISTS of_a_newer_bibwire")

    async def _alter(self, table: str, how: str) -> None:
        altered: list[bool] = []

        def alter(dba: psycopg.Connection) -> None:
            # To wait for it here would be to wait for those who wait for us.
            with suppress(psycopg.errors.LockNotAvailable), dba.transaction():
                dba.execute(f"LOCK TABLE bibwire.{table} IN ACCESS EXCLUSIVE MODE NOWAIT".encode())
                dba.execute(f"ALTER TABLE bibwire.{table} {how}".encode())
                altered.append(True)

        while not altered:
            await self._whenever_up(alter, database="played")
            await asyncio.sleep(0.1)

    async def _database_clock(self, line: Happening) -> None:
        self._season.database_ahead = timedelta(seconds=Random(line.b).choice((-400, 90, 600)))
        await asyncio.sleep(line.seconds)
        self._season.database_ahead = timedelta()

    async def _whenever_up(
        self, do: Callable[[psycopg.Connection], object], *, database: str = "postgres"
    ) -> None:
        while not self._season.server.is_up or self.no_connections:
            await self._season.bell.heard()
        async with self._season.quiet():
            with psycopg.connect(self._season.server.conninfo(database), autocommit=True) as dba:
                do(dba)
