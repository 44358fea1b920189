"""Plays a list of happenings: does to the world, the machines and the program what each line says."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from random import Random
from zoneinfo import ZoneInfo

from bibwire.engine.reports import SyncRequest
from tests.e2e import truth
from tests.seasons import happenings
from tests.seasons.bounds import Bounds
from tests.seasons.happenings import Happening
from tests.seasons.people import People, is_true_of
from tests.seasons.season import Season
from tests.seasons.shapes import ZONES, Shape
from tests.seasons.troubles import Troubles
from tests.seasons.watch import Watch

NEED_AN_EVENT = (
    "register",
    "walk_up",
    "bulk_assign",
    "move_event",
    "late_move",
    "cancel_event",
    "transfer",
)
# So many weekly events has a series.
SERIES = 5


class Story:
    """A season that is played, and watched."""

    def __init__(self, season: Season, lines: Sequence[Happening], *, shape: Shape, hours: float) -> None:
        self.season = season
        self.shape = shape
        self.world = season.world
        self.watch = Watch(season)
        self.troubles = Troubles(season, self.watch)
        self.people = People(season, self.watch, self.troubles, limit=shape.limit)
        self._going: set[asyncio.Task[None]] = set()
        self.bounds = Bounds(season, self.watch, self.troubles, self._something_goes_on)
        self.done: Counter[str] = Counter()
        # What happened while what was wrong.
        self.met: Counter[tuple[str, str]] = Counter()
        self._lines = lines
        self._hours = hours

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
                await self._until(loop.time() + self.shape.look_seconds, looking)
            self.watch.look()
            self.bounds.look()
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
            await asyncio.sleep(self.shape.look_seconds)
            async with self.season.quiet():
                self.watch.look()
                self.bounds.look()

    def _something_goes_on(self) -> bool:
        return any(not task.done() for task in self._going)

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
        self.bounds.disturb()
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
        if line.kind in NEED_AN_EVENT:
            races = [number for number in races if self._events_of(number)]
        if not races:
            return False
        race = races[line.a % len(races)]
        events = self._events_of(race)
        event = events[line.b % len(events)] if events else 0
        people = [n for n, r in world.registrations.items() if r.head.status == "active"]
        gone = [n for n, r in world.registrations.items() if r.head.status != "active"]
        one = people[line.a % len(people)] if people else None
        wearing = [number for number in people if world.registrations[number].head.bib_num is not None]
        after = float(random.choice((0, 0, 0, 2, 5))) or None
        match line.kind:
            case "register":
                world.register(event, published_after=after)
            case "walk_up":
                # Who stands at the desk gets the number there and then.
                person = world.register(self._next_to_start(events), published_after=after)
                world.assign_bib(person, 2000 + line.b % 8000, published_after=10 + (after or 0))
            case "new_race":
                owner = list(world.accounts.values())[line.a % len(world.accounts)]
                zone = random.choice(ZONES)
                race = world.add_race([owner], f"New race {line.a}", zone)
                start = (
                    world.now + timedelta(hours=random.choice(self.shape.starts_in or (1, 3, 8, 30, 300)))
                ).astimezone(ZoneInfo(zone))
                event = world.add_event(race, "5K", start.replace(second=0, microsecond=0, tzinfo=None))
                for _ in range(3):
                    world.register(event)
                self._changed(race)
            case "new_event":
                start = (
                    world.now + timedelta(hours=random.choice(self.shape.starts_in or (2, 6, 30, 300)))
                ).astimezone(world.races[race].zone)
                event = world.add_event(
                    race, f"Event {line.a}", start.replace(second=0, microsecond=0, tzinfo=None)
                )
                world.register(event)
                self._changed(race)
            case "move_event":
                start = (
                    world.now + timedelta(hours=random.choice(self.shape.starts_in or (1, 3, 10, 50)))
                ).astimezone(world.races[race].zone)
                world.edit_event(event, start=start.replace(second=0, microsecond=0, tzinfo=None))
                self._changed(race)
            case "late_move":
                self._late_move(events, line.b)
            case "next_year":
                self._next_year(races, line.a)
            case "series":
                at = _local(world.now + timedelta(days=6 + line.b % 3), world.races[race].zone)
                for week in range(SERIES):
                    world.add_event(race, f"Week {week + 1} of {line.a}", at + timedelta(days=7 * week))
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
            case "restore" if one is not None:
                world.remove(one)
                world.restore(one, published_after=30)
            case _ if one is None:
                return False
            case "edit":
                world.edit(one, last_name=f"Name {line.b}", published_after=after)
            case "assign_bib":
                world.assign_bib(one, 1 + line.b % 2000, published_after=after)
            case "clear_bib":
                if not wearing:
                    return False
                world.clear_bib(wearing[line.a % len(wearing)], published_after=after)
            case "swap_bibs":
                world.swap_bibs(
                    one, (wearing or people)[line.b % len(wearing or people)], published_after=after
                )
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

    def _events_of(self, race: int) -> list[int]:
        return [number for number in self.world.races[race].event_ids if self.world.events[number].published]

    def _next_to_start(self, events: Sequence[int]) -> int:
        """Return the event, of any race, that starts next; one of these if none is to come."""
        now = self.world.clock.time()
        coming = [(e.starts_at, n) for n, e in self.world.events.items() if e.published and e.starts_at > now]
        return min(coming)[1] if coming else events[0]

    def _late_move(self, events: Sequence[int], chosen: int) -> None:
        """Fog, or a train on the course: the next start is some minutes later."""
        event = self.world.events[self._next_to_start(events)]
        self.world.edit_event(event.event_id, start=event.start + timedelta(minutes=15 + chosen % 4 * 15))
        self._changed(event.race_id)

    def _next_year(self, races: Sequence[int], chosen: int) -> None:
        """Next year's event under an old race, first of all under one that is over."""
        world, now = self.world, self.world.clock.time()
        over = [n for n in races if all(world.events[e].starts_at < now for e in world.races[n].event_ids)]
        race = (over or races)[chosen % len(over or races)]
        starts = [world.events[number].start for number in world.races[race].event_ids]
        start = max(starts, default=_local(world.now, world.races[race].zone)) + timedelta(days=364)
        world.register(world.add_event(race, f"{start.year}", start))
        self._changed(race)

    def _changed(self, race: int) -> None:
        """The lists tell it within minutes: until then the schedule cannot know."""
        for name in self.world.accounts:
            self.watch.changed[name, race] = self.world.now.timestamp()

    async def _regain(self, name: str, race: int, seconds: float) -> None:
        await asyncio.sleep(seconds)
        with self.world:
            self.world.grant(name, race)
            self._changed(race)


def _local(instant: datetime, zone: ZoneInfo) -> datetime:
    """Return a time of day as an organizer types it."""
    return instant.astimezone(zone).replace(second=0, microsecond=0, tzinfo=None)
