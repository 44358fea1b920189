"""A RunSignup that never stands still: bibs, people, events and races come, move and go."""

from __future__ import annotations

import threading
import traceback
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final
from zoneinfo import ZoneInfo

import rsusim

# Whose hot races are polled as often as can be, and who has hardly any calls.
AMPLE, SCANT = "Peak Timing", "Lakeside Race Services"
CALLS_PER_HOUR: Final = {AMPLE: 10_000, SCANT: 200}
ZONE: Final = "America/Denver"
# How long a call takes, as at the vendor's.
LATENCY_SECONDS: Final = 0.05
# What happens a second; Life's happenings are the small ones, among people.
RATE: Final = 1.5
NEW_EVENT_SECONDS, NEW_RACE_SECONDS = 25.0, 60.0
_TICK_SECONDS: Final = 0.2
# So old is what was made first.
SETTLED: Final = timedelta(minutes=1)


def world_of(seed: int) -> rsusim.World:
    """Return two partners with hot races, others for later, and one that they share."""
    world = rsusim.World(seed=seed, now=datetime.now(UTC) - SETTLED)
    ample, scant = world.add_partner(AMPLE), world.add_partner(SCANT)
    for owners, hours in (([ample], 2), ([ample], 3), ([ample], 20), ([ample, scant], 700), ([scant], 2)):
        race = world.add_race(owners, None, ZONE)
        for number, name in enumerate(("10K", "5K")):
            event = world.add_event(race, name, start_in(world, hours + number / 4))
            for person in range(15):
                world.register(event, bib_num=person + 1 if person % 3 else None)
    world.advance(SETTLED.total_seconds())
    world.clock.run(1)
    world.quirks.latency_seconds = LATENCY_SECONDS
    return world


def start_in(world: rsusim.World, hours: float) -> datetime:
    """Return a race's wall time in so many hours."""
    start = (world.now + timedelta(hours=hours)).astimezone(ZoneInfo(ZONE))
    return start.replace(second=0, microsecond=0, tzinfo=None)


class Moving:
    """Moves a world in a thread of its own; use it as a context."""

    def __init__(self, world: rsusim.World, seed: int) -> None:
        self._world = world
        self._random = Random(f"moving {seed}")
        self.life = rsusim.Life(world, seed=seed, rate=RATE)
        self.new_events = self.new_races = 0
        self._moves = threading.Lock()
        self._stop = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="moving", daemon=True)

    def __enter__(self) -> Moving:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def hold(self) -> None:
        """Let nothing happen for a while."""
        self._moves.acquire()

    def go_on(self) -> None:
        self._moves.release()

    def assert_alive(self) -> None:
        """Fail if nothing happens any more."""
        assert self._thread.is_alive(), f"the world stands still: {self._error!r}"

    def _run(self) -> None:
        try:
            self._move()
        except Exception as error:
            self._error = error
            traceback.print_exc()

    def _move(self) -> None:
        next_event = self._world.clock.time() + NEW_EVENT_SECONDS
        next_race = self._world.clock.time() + NEW_RACE_SECONDS
        while not self._stop.wait(_TICK_SECONDS):
            with self._moves:
                self.life.catch_up(limit=20)
                now = self._world.clock.time()
                if now >= next_event:
                    next_event = now + NEW_EVENT_SECONDS
                    self._new_event(self._random.choice(list(self._world.races)))
                if now >= next_race:
                    next_race = now + NEW_RACE_SECONDS
                    self._new_race()

    def _new_race(self) -> None:
        self.new_races += 1
        with self._world:
            owner = self._random.choice((AMPLE, SCANT))
            self._new_event(self._world.add_race([owner], f"New Race {self.new_races}", ZONE))

    def _new_event(self, race: int) -> None:
        self.new_events += 1
        with self._world:
            start = start_in(self._world, self._random.choice((2, 30, 300)))
            event = self._world.add_event(race, f"New {self.new_events}K", start)
            for _ in range(3):
                self._world.register(event)
