"""Plays a list of happenings: does to the world, the machines and the program what each line says."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from random import Random
from zoneinfo import ZoneInfo

import rsusim
from bibwire.domain.errors import BibwireError
from bibwire.engine.reconcile import ReconcileRequest
from bibwire.engine.reports import SyncRequest
from tests.e2e import truth
from tests.seasons import happenings
from tests.seasons.happenings import Happening
from tests.seasons.season import Season, credential_of
from tests.seasons.watch import Watch

ZONES = ("America/New_York", "America/Chicago", "America/Denver", "Pacific/Honolulu")
LIMIT = 400
LOOK_SECONDS = 300.0
# After a trouble: the longest back-off, and a turn of the schedule.
RECOVERY_SECONDS = 360.0


def world_of(seed: int) -> rsusim.World:
    """Return three partners and six races between this morning and next month, one of them shared."""
    random = Random(f"world {seed}")
    world = rsusim.World(seed=seed, now=datetime.fromisoformat("2031-09-12T11:00:00+00:00"))
    accounts = [world.add_partner(name) for name in ("Peak Timing", "Lakeside Race Services", "Cañon Chrono")]
    for number in range(6):
        owners = accounts[:2] if number == 0 else [accounts[number % 3]]
        zone = random.choice(ZONES)
        race = world.add_race(owners, f"Race {number}", zone)
        hours = random.choice((2, 5, 9, 20, 40, 700)) if number else 3
        for event in range(random.choice((1, 1, 2, 3))):
            start = (world.now + timedelta(hours=hours + event / 2)).astimezone(ZoneInfo(zone))
            made = world.add_event(
                race, f"{event + 1}0K", start.replace(second=0, microsecond=0, tzinfo=None)
            )
            for _ in range(random.randint(2, 12)):
                world.register(made)
    world.clock.advance(120)
    return world


class Story:
    """A season that is played, and watched."""

    def __init__(self, season: Season, lines: Sequence[Happening], *, hours: float) -> None:
        self.season = season
        self.world = season.world
        self.watch = Watch(season)
        self.done: Counter[str] = Counter()
        self._lines = lines
        self._hours = hours
        self._going: set[asyncio.Task[None]] = set()

    async def play(self) -> None:
        """Play it to its end; what is wrong is raised."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        self.watch.excuse(LOOK_SECONDS)
        for account in self.world.accounts.values():
            await self._add(account)
        looking = asyncio.create_task(self._look())
        try:
            for line in self._lines:
                await self._until(began + line.at, looking)
                self._do(line)
            await self._until(began + self._hours * 3600, looking)
            await asyncio.wait(self._going) if self._going else None
            self.watch.look()
            await self._end()
        finally:
            looking.cancel()
            for task in self._going:
                task.cancel()
        for task in self._going:
            if task.done() and not task.cancelled():
                task.result()

    async def _until(self, instant: float, looking: asyncio.Task[None]) -> None:
        wait = instant - asyncio.get_running_loop().time()
        if wait > 0:
            await asyncio.wait((looking,), timeout=wait)
        for task in (looking, *self.season.beside, *self._going):
            if task.done():
                task.result()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.watch.look()

    async def _end(self) -> None:
        """Nothing happens any more: a last sync, and the mirror equals the world."""
        self.world.faults.clear()
        report = await self.season.runtime.engine.sync(SyncRequest())
        # Of a race that was canceled it is told that the vendor does not know it.
        wrong = [
            error
            for error in report.errors
            if error.race_id is None or not self.world.races[error.race_id].removed
        ]
        assert not wrong, wrong
        self.watch.look()
        for name in self.watch.partners:
            found = truth.differences(self.season.rows, self.world, name)
            # It is the age on the day of the event, and changes without a sign when that is moved.
            found = [text for text in found if " age: " not in text]
            assert not found, found[:10]

    async def _add(self, account: rsusim.Account) -> None:
        await self.season.add_partner(account, calls_per_hour=LIMIT)
        self.watch.new_partner(account.name, LIMIT)

    # One line

    def _do(self, line: Happening) -> None:
        if line.kind in happenings.WORLD:
            with self.world:
                done = self._in_the_world(line)
        else:
            if line.is_trouble:
                self.watch.excuse(line.seconds + RECOVERY_SECONDS)
            going = self._vendor if line.kind in happenings.VENDOR else getattr(self, f"_{line.kind}")
            task = asyncio.create_task(going(line))
            self._going.add(task)
            done = True
        if done:
            self.done[line.kind] += 1

    def _in_the_world(self, line: Happening) -> bool:
        world, random = self.world, Random(line.b)
        races = [number for number, race in world.races.items() if not race.removed]
        race = races[line.a % len(races)]
        events = [number for number in world.races[race].event_ids if world.events[number].published]
        if line.kind in ("register", "bulk_assign", "move_event", "cancel_event", "transfer") and not events:
            return False
        event = events[line.b % len(events)] if events else 0
        people = [n for n, r in world.registrations.items() if r.head.status == "active"]
        gone = [n for n, r in world.registrations.items() if r.head.status != "active"]
        one = people[line.a % len(people)] if people else None
        after = float(random.choice((0, 0, 0, 2, 5))) or None
        match line.kind:
            case "register":
                world.register(event, published_after=after)
            case "new_race":
                owner = list(world.accounts.values())[line.a % len(world.accounts)]
                zone = random.choice(ZONES)
                race = world.add_race([owner], f"New race {line.a}", zone)
                start = (world.now + timedelta(hours=random.choice((1, 3, 8, 30, 300)))).astimezone(
                    ZoneInfo(zone)
                )
                event = world.add_event(race, "5K", start.replace(second=0, microsecond=0, tzinfo=None))
                for _ in range(3):
                    world.register(event)
                self._changed(race)
            case "new_event":
                start = (world.now + timedelta(hours=random.choice((2, 6, 30, 300)))).astimezone(
                    world.races[race].zone
                )
                event = world.add_event(
                    race, f"Event {line.a}", start.replace(second=0, microsecond=0, tzinfo=None)
                )
                world.register(event)
                self._changed(race)
            case "move_event":
                start = (world.now + timedelta(hours=random.choice((1, 3, 10, 50)))).astimezone(
                    world.races[race].zone
                )
                world.edit_event(event, start=start.replace(second=0, microsecond=0, tzinfo=None))
                self._changed(race)
            case "rename":
                world.edit_race(race, name=f"Race called {line.a}")
            case "another_zone":
                world.edit_race(race, timezone=random.choice(ZONES))
                self._changed(race)
            case "cancel_event":
                world.remove_event(event)
                self._changed(race)
            case "cancel_race":
                world.remove_race(race)
                self._changed(race)
            case "lose_race":
                # Lost for a while; people change meanwhile.
                for name in [name for name in world.accounts if world.may_read(name, race)][:1]:
                    world.withdraw(name, race)
                    self._changed(race)
                    task = asyncio.create_task(self._regain(name, race, line.seconds))
                    self._going.add(task)
            case "bulk_assign":
                world.bulk_assign(event, 100 + line.b % 5000)
            case "restore" if gone:
                world.restore(gone[line.a % len(gone)], published_after=after)
            case _ if one is None:
                return False
            case "edit":
                world.edit(one, last_name=f"Name {line.b}", published_after=after)
            case "assign_bib":
                world.assign_bib(one, 1 + line.b % 2000, published_after=after)
            case "clear_bib":
                world.clear_bib(one, published_after=after)
            case "swap_bibs":
                world.swap_bibs(one, people[line.b % len(people)], published_after=after)
            case "transfer":
                world.transfer(one, event, bool(line.b & 1), published_after=after)
            case "defer":
                world.defer(one, published_after=after)
            case "remove":
                world.remove(one, random.choice(("removed", "cleared", "refunded")), published_after=after)
            case "remove_and_restore":
                world.remove(one)
                world.restore(one, published_after=after)
            case _:
                return False
        return True

    def _changed(self, race: int) -> None:
        """The lists tell it within minutes: until then the schedule cannot know."""
        for name in self.world.accounts:
            self.watch.changed[name, race] = self.world.now.timestamp()

    async def _regain(self, name: str, race: int, seconds: float) -> None:
        await asyncio.sleep(seconds)
        with self.world:
            self.world.grant(name, race)
            self._changed(race)

    # What goes wrong

    async def _vendor(self, line: Happening) -> None:
        accounts = list(self.world.accounts)
        partner = None if line.a % 3 == 0 else accounts[line.a % len(accounts)]
        fault = rsusim.Fault(
            kind=line.kind,
            partner=partner,
            times=None,
            retry_after=30 if line.kind == "http_429" else None,
            seconds=20.0 if line.kind == "slow" else line.seconds,
        )
        self.world.faults.add(fault)
        self.watch.something_hung |= line.kind in ("hang", "slow")
        await asyncio.sleep(line.seconds)
        fault.times = 0

    async def _kill_worker(self, line: Happening) -> None:
        worker = self.season.workers[line.a % len(self.season.workers)]
        if worker.machine.dead:
            return
        worker.machine.kill()
        await asyncio.sleep(min(line.seconds, 60))
        self.season.start_worker_again(worker)

    async def _freeze_worker(self, line: Happening) -> None:
        worker = self.season.workers[line.a % len(self.season.workers)]
        if not worker.machine.runs:
            return
        worker.machine.frozen = True
        await asyncio.sleep(line.seconds)
        if worker.machine.frozen:
            worker.machine.thaw()

    async def _crash_database(self, line: Happening) -> None:
        if not self.season.server.is_up:
            return
        self.season.server.kill()
        await asyncio.sleep(min(line.seconds, 120))
        self.season.server.start()
        self.season.bell.ring()

    async def _end_sessions(self, line: Happening) -> None:
        if self.season.server.is_up:
            self.season.rows(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

    async def _worker_clock(self, line: Happening) -> None:
        worker = self.season.workers[line.a % len(self.season.workers)]
        worker.clock.ahead = timedelta(seconds=Random(line.b).choice((-86400, -600, 600, 3 * 86400)))
        await asyncio.sleep(line.seconds)
        worker.clock.ahead = timedelta()

    async def _database_clock(self, line: Happening) -> None:
        self.season.database_ahead = timedelta(seconds=Random(line.b).choice((-400, 90, 600)))
        await asyncio.sleep(line.seconds)
        self.season.database_ahead = timedelta()

    # What people do

    def _partner(self, line: Happening) -> str | None:
        names = sorted(self.watch.partners)
        return names[line.a % len(names)] if names else None

    async def _pause(self, line: Happening) -> None:
        if (name := self._partner(line)) is None:
            return
        with self._at_any_time():
            await self.season.runtime.partners.pause(name)
            self.watch.partners_paused.add(name)
            await asyncio.sleep(line.seconds)
            await self.season.runtime.partners.resume(name)
            await self.season.runtime.wake_planner()
        self.watch.partners_paused.discard(name)
        self.watch.new_partner(name, 0)

    async def _limit(self, line: Happening) -> None:
        if (name := self._partner(line)) is not None:
            with self._at_any_time():
                await self.season.runtime.partners.limit(name, LIMIT - 50 + line.b % 100)
                # Calls of the hour before count against it: for that time there may be none left.
                self.watch.new_partner(name, LIMIT + 50, settled_after=3600.0)

    async def _rotate(self, line: Happening) -> None:
        if (name := self._partner(line)) is not None:
            with self._at_any_time():
                await self.season.runtime.partners.rotate(name, credential_of(self.world.accounts[name]))

    async def _sync(self, line: Happening) -> None:
        with self._at_any_time():
            await self.season.runtime.engine.sync(
                SyncRequest(partner=self._partner(line), full=bool(line.b & 1))
            )

    async def _reconcile(self, line: Happening) -> None:
        with self._at_any_time():
            await self.season.runtime.reconcile(ReconcileRequest(partner=self._partner(line)))

    async def _remove_partner(self, line: Happening) -> None:
        if len(self.watch.partners) < 2 or (name := self._partner(line)) is None:
            return
        with self._at_any_time():
            self.watch.gone(name)
            await self.season.runtime.partners.remove(name)
            await asyncio.sleep(line.seconds)
            await self._add(self.world.accounts[name])

    @staticmethod
    @contextmanager
    def _at_any_time() -> Iterator[None]:
        """A command may fail while something is wrong: it says why, and is given again by the person."""
        with suppress(BibwireError):
            yield
