"""
The shapes of seasons: what a timing company's weeks look like, each a world and a list of happenings.

`busy` is an hour in which anything may happen; the others last for days, with much at some hours and
hardly anything between. A call costs real time and a quiet hour hardly any: worlds of long shapes are small,
their starts lie far apart, and their partners have few calls an hour for hot races to use up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final
from zoneinfo import ZoneInfo

import rsusim
from tests.seasons import happenings
from tests.seasons.happenings import Happening, anything, with_troubles

HOUR: Final = 3600.0
DAY: Final = 24 * HOUR
ZONE: Final = ZoneInfo("America/New_York")
ZONES: Final = ("America/New_York", "America/Chicago", "America/Denver", "Pacific/Honolulu")
# Beyond the end of the longest season.
FAR: Final = (200, 400, 700)
NAMES: Final = ("Peak Timing", "Lakeside Race Services", "Cañon Chrono")
# So that calls overlap.
LATENCY_SECONDS: Final = 0.4


@dataclass(frozen=True, slots=True)
class Shape:
    """
    A shape.

    Attributes:
        hours: How long it lasts, if nobody says otherwise.
        limit: Calls an hour of each partner.
        look_seconds: So often the rules are looked at.
        starts_in: In how many hours new and moved events start, one of these; empty: soon, or not.
        world: Makes the world of a seed.
        lines: Makes what happens in it, within so many hours; troubles aside.
    """

    hours: float
    limit: int
    look_seconds: float
    starts_in: Sequence[int]
    world: Callable[[int], rsusim.World]
    lines: Callable[[int, float], list[Happening]]


def season_of(
    seed: int, *, shape: str = "busy", hours: float | None = None, troubles: int = 6
) -> list[Happening]:
    """
    Return what happens in a season.

    Troubles come in turn, over the seeds, and while each lasts others things happen, in turn as well: so
    each comes together with each within as few seeds as can be.

    Args:
        hours: How long it lasts; nothing happens in its last tenth, or its last hours.
        troubles: How many things go wrong.
    """
    made = SHAPES[shape]
    lasts = made.hours if hours is None else hours
    return with_troubles(seed, made.lines(seed, lasts), span=_span(lasts), troubles=troubles)


def shape_of(seed: int) -> str:
    """Return the shape that a seed has if nobody chooses one: every other season is a busy hour."""
    long = [name for name in SHAPES if name != "busy"]
    return "busy" if seed % 2 else long[seed // 2 % len(long)]


def _span(hours: float) -> float:
    return hours * HOUR - min(hours * HOUR / 10, 2 * HOUR)


# Worlds


def _busy_world(seed: int) -> rsusim.World:
    """Return three partners and six races between this morning and next month, one of them shared."""
    random = Random(f"world {seed}")
    world = rsusim.World(seed=seed, now=datetime.fromisoformat("2031-09-12T11:00:00+00:00"))
    accounts = [world.add_partner(name) for name in NAMES]
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
    return _ready(world)


def _weekend_world(seed: int) -> rsusim.World:
    """Return a Friday noon before a race on Saturday and one on Sunday, and one of next month."""
    random = Random(f"weekend {seed}")
    world = rsusim.World(seed=seed, now=datetime(2031, 9, 12, 12, tzinfo=ZONE).astimezone(UTC))
    first, second = (world.add_partner(name) for name in NAMES[:2])
    _race(world, [first], "Harbor 5K", datetime(2031, 9, 13, 8), random.randint(25, 60))
    _race(world, [first], "Harbor Half", datetime(2031, 9, 14, 7, 30), random.randint(25, 60))
    _race(world, [first, second], "Pumpkin Run", datetime(2031, 10, 18, 9), random.randint(5, 20))
    return _ready(world)


def _quiet_world(seed: int) -> rsusim.World:
    """Return two partners whose races are weeks away."""
    random = Random(f"quiet {seed}")
    world = rsusim.World(seed=seed, now=datetime(2031, 2, 3, 9, tzinfo=ZONE).astimezone(UTC))
    first, second = (world.add_partner(name) for name in NAMES[:2])
    for number in range(random.randint(3, 5)):
        start = datetime(2031, 3, 8, 8) + timedelta(days=7 * number, minutes=random.choice((0, 15, 30)))
        owners = [first, second] if number == 0 else [(first, second)[number % 2]]
        _race(world, owners, f"Spring Race {number}", start, random.randint(0, 12))
    return _ready(world)


def _new_year_world(seed: int) -> rsusim.World:
    """Return the last days of December: a run on New Year's Eve, one in spring, and one that was."""
    random = Random(f"new year {seed}")
    world = rsusim.World(seed=seed, now=datetime(2031, 12, 31, 7, tzinfo=ZONE).astimezone(UTC))
    first, second = (world.add_partner(name) for name in NAMES[:2])
    _race(world, [first], "Resolution Run", datetime(2031, 12, 31, 18), random.randint(10, 40))
    _race(world, [second], "Jingle Jog", datetime(2031, 12, 26, 9), random.randint(10, 30))
    _race(world, [first, second], "Thaw 10K", datetime(2032, 3, 14, 9), random.randint(3, 10))
    return _ready(world)


def _race(
    world: rsusim.World, owners: Sequence[rsusim.Account], name: str, start: datetime, people: int
) -> None:
    race = world.add_race(owners, name, str(ZONE))
    event = world.add_event(race, "5K", start)
    for _ in range(people):
        world.register(event)


def _ready(world: rsusim.World) -> rsusim.World:
    world.clock.advance(120)
    world.quirks.set("latency_seconds", LATENCY_SECONDS)
    return world


# What happens


def _busy(seed: int, hours: float) -> list[Happening]:
    return anything(seed, span=_span(hours))


class _Days:
    """Makes the lines of days: what happens when, and how often."""

    def __init__(self, seed: int, name: str, begins: datetime, hours: float) -> None:
        self.random = Random(f"{name} {seed}")
        self._begins = begins
        self._span = _span(hours)
        self.lines: list[Happening] = []

    def at(self, day: int, hour: float) -> float:
        """Return the second of an hour of a day, the first being 0, by the clocks of `ZONE`."""
        begin = self._begins.astimezone(ZONE)
        midnight = datetime(begin.year, begin.month, begin.day, tzinfo=ZONE)
        return (midnight + timedelta(days=day, hours=hour) - begin).total_seconds()

    def some(self, kinds: str, number: int, first: float, last: float) -> None:
        """Let so many things happen between two seconds of the season, of kinds in words."""
        for _ in range(number):
            at = first + self.random.random() * (last - first)
            if 0 <= at <= self._span:
                self.lines.append(happenings.one(self.random, self.random.choice(kinds.split()), at))

    def every(self, kinds: str, seconds: float, first: float, last: float) -> None:
        """Let something happen every so many seconds, more or less."""
        at = first
        while at < last:
            self.some(kinds, 1, at, min(at + seconds, last))
            at += seconds


def _weekend(seed: int, hours: float) -> list[Happening]:
    """Tell of an expo day, a race morning, and corrections afterwards, with hours of nothing between."""
    days, gun = _Days(seed, "weekend", _begins(_weekend_world), hours), 8.0
    # The expo: numbers for all, then what was wrong with them.
    days.some("bulk_assign", 2, days.at(0, 13), days.at(0, 15))
    days.every(
        "assign_bib swap_bibs edit transfer clear_bib register", 20 * 60, days.at(0, 15), days.at(0, 20)
    )
    days.some("sync discover", 1, days.at(0, 20), days.at(0, 22))
    days.every("walk_up walk_up walk_up assign_bib", 90, days.at(1, gun - 2), days.at(1, gun - 0.25))
    days.some("swap_bibs edit", 6, days.at(1, gun - 2), days.at(1, gun))
    days.some("late_move", 1, days.at(1, gun - 1), days.at(1, gun - 0.5))
    days.some("lookup_live", 1, days.at(1, gun - 1), days.at(1, gun))
    days.every(
        "edit swap_bibs assign_bib transfer defer remove", 15 * 60, days.at(1, gun), days.at(1, gun + 5)
    )
    return days.lines


def _quiet_weeks(seed: int, hours: float) -> list[Happening]:
    """Tell of days with a happening every few hours, and of an opening."""
    days = _Days(seed, "quiet", _begins(_quiet_world), hours)
    opens = hours * HOUR * 0.7
    days.every("register edit register defer remove rename restore", 9 * HOUR, 2 * HOUR, opens)
    days.some("new_race new_event series", 3, 6 * HOUR, opens)
    days.some("reconcile sync verify", 2, 12 * HOUR, opens)
    # Hundreds sign up within minutes, and some of them again.
    days.some("register", 150, opens, opens + HOUR)
    days.some("remove edit transfer", 20, opens + HOUR / 2, opens + 3 * HOUR)
    return days.lines


def _new_year(seed: int, hours: float) -> list[Happening]:
    """Tell of a run on the last evening, next year's under the old races, and partners who come and go."""
    days = _Days(seed, "new year", _begins(_new_year_world), hours)
    days.some("bulk_assign", 1, days.at(0, 9), days.at(0, 12))
    days.every("walk_up assign_bib swap_bibs", 180, days.at(0, 16), days.at(0, 17.75))
    days.some("edit swap_bibs remove", 5, days.at(0, 18), days.at(0, 21))
    days.some("next_year", 3, days.at(1, 9), days.at(1, 16))
    days.some("series", 2, days.at(1, 9), days.at(2, 10))
    days.some("partner_comes", 1, days.at(1, 8), days.at(1, 12))
    days.some("partner_leaves", 1, days.at(1, 20), days.at(2, 10))
    days.every("register edit rename", 4 * HOUR, days.at(1, 12), days.at(2, 16))
    return days.lines


def _begins(world: Callable[[int], rsusim.World]) -> datetime:
    return world(0).now


SHAPES: Final = {
    "busy": Shape(1.0, 400, 60.0, (), _busy_world, _busy),
    "race weekend": Shape(30.0, 130, 900.0, FAR, _weekend_world, _weekend),
    "quiet weeks": Shape(120.0, 120, 3600.0, FAR, _quiet_world, _quiet_weeks),
    "new year": Shape(56.0, 130, 1800.0, FAR, _new_year_world, _new_year),
}
