"""Plays a list of happenings: does to the world, the machines and the program what each line says."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from random import Random
from zoneinfo import ZoneInfo

import rsusim
from bibwire.engine.reports import SyncRequest
from tests.e2e import truth
from tests.seasons import happenings
from tests.seasons.happenings import Happening
from tests.seasons.people import People, is_true_of
from tests.seasons.season import Season
from tests.seasons.troubles import Troubles
from tests.seasons.watch import Watch

ZONES = ("America/New_York", "America/Chicago", "America/Denver", "Pacific/Honolulu")
LOOK_SECONDS = 60.0
LATENCY_SECONDS = 0.4


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
    # So that calls overlap.
    world.quirks.set("latency_seconds", LATENCY_SECONDS)
    return world


class Story:
    """A season that is played, and watched."""

    def __init__(self, season: Season, lines: Sequence[Happening], *, hours: float) -> None:
        self.season = season
        self.world = season.world
        self.watch = Watch(season)
        self.troubles = Troubles(season, self.watch)
        self.people = People(season, self.watch)
        self.done: Counter[str] = Counter()
        # What happened while what was wrong.
        self.met: Counter[tuple[str, str]] = Counter()
        self._lines = lines
        self._hours = hours
        self._going: set[asyncio.Task[None]] = set()

    async def play(self) -> None:
        """Play it to its end; what is wrong is raised."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        for account in self.world.accounts.values():
            await self.people.add(account)
        looking = asyncio.create_task(self._look())
        try:
            for line in self._lines:
                await self._until(began + line.at, looking)
                self._do(line)
            await self._until(began + self._hours * 3600, looking)
            while self._going - {task for task in self._going if task.done()}:
                await self._until(loop.time() + LOOK_SECONDS, looking)
            self.watch.look()
            await self._end()
            self._nothing_was_lost(looking)
        finally:
            looking.cancel()
            for task in self._going:
                task.cancel()

    async def _until(self, instant: float, looking: asyncio.Task[None]) -> None:
        wait = instant - asyncio.get_running_loop().time()
        if wait > 0:
            await asyncio.wait((looking,), timeout=wait)
        self._nothing_was_lost(looking)

    def _nothing_was_lost(self, looking: asyncio.Task[None]) -> None:
        """Raise what was raised beside: by who looks on, in a worker, or in what goes on."""
        workers = [worker.task for worker in self.season.workers if worker.task is not None]
        for task in (looking, *self.season.beside, *workers, *self._going):
            if task.done() and not task.cancelled():
                task.result()
        assert not self.season.faults, self.season.faults[0]

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            async with self.season.quiet():
                self.watch.look()

    async def _end(self) -> None:
        """Nothing happens any more: a last sync, and the mirror equals the world."""
        self.world.faults.clear()
        report = await self.season.runtime.engine.sync(SyncRequest())
        wrong = [error for error in report.errors if not is_true_of(self.world, error)]
        assert not wrong, wrong
        self.watch.look()
        for name in self.watch.partners:
            found = truth.differences(self.season.rows, self.world, name)
            # It is the age on the day of the event, and changes without a sign when that is moved.
            found = [text for text in found if " age: " not in text]
            assert not found, found[:10]

    # One line

    def _do(self, line: Happening) -> None:
        wrong = self.troubles.going_on()
        if line.kind in happenings.WORLD:
            with self.world:
                done = self._in_the_world(line)
        else:
            doing = self.troubles.happen(line) if line.is_trouble else self.people.do(line)
            self._going.add(asyncio.create_task(doing))
            done = True
        if done:
            self.done[line.kind] += 1
            self.met.update((line.kind, trouble) for trouble in wrong)

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
