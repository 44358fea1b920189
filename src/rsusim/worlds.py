"""Seeded worlds: a small one, the original account at its real size, and a lively demonstration."""

import gc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final

from rsusim import names
from rsusim.accounts import Account
from rsusim.people import mix
from rsusim.world import DAY, World

DEFAULT_NOW: Final = datetime(2026, 10, 2, 12, tzinfo=UTC)

# The original system (domain notes 1.2).
ORIGINAL_PARTNERS: Final = 13
ORIGINAL_RACES: Final = 364
ORIGINAL_EVENTS: Final = 1_616
ORIGINAL_PEOPLE: Final = 407_053
ORIGINAL_FUTURE_EVENTS: Final = 231

ZONES: Final = (
    "America/New_York",
    "America/Chicago",
    "America/Denver",
    "America/Phoenix",
    "America/Los_Angeles",
    "America/Anchorage",
    "Pacific/Honolulu",
    "America/Halifax",
    "America/Tijuana",
    "Europe/London",
)
PARTNER_NAMES: Final = (
    "Peak Timing",
    "Lakeside Race Services",
    "Cañon Chrono",
    "Gun & Mat Timing",
    "Blue Line Results",
    "North Shore Timing",
    "Split Second",
    "Prairie Timers",
    "Chip/Finish Co.",
    "Tide Race Management",
    "Old Mill Timing",
    "Summit Scoring",
    "Ten Second Timing",
)
DISTANCES: Final = (
    ("5K", "5K", 3500),
    ("10K", "10K", 4500),
    ("Half Marathon", "13.1 Miles", 7000),
    ("Marathon", "26.2 Miles", 9500),
    ("1 Mile Fun Run", "1 Mile", 1500),
    ("10 Miler", "10 Miles", 5500),
)
QUESTIONS: Final[tuple[dict[str, Any], ...]] = (
    {
        "question_id": 100,
        "question_text": "Emergency Contact Name",
        "question_type_code": "F",
        "question_validation_type": "none",
        "individual": "T",
        "required": "T",
        "skip_for_event_ids": [],
    },
    {
        "question_id": 101,
        "question_text": "  Emergency Contact Phone",
        "question_type_code": "F",
        "question_validation_type": "phone",
        "individual": "T",
        "required": "T",
        "skip_for_event_ids": [],
    },
    {
        "question_id": 102,
        "question_text": "Dietary needs (all that apply)",
        "question_type_code": "C",
        "question_validation_type": "none",
        "individual": "T",
        "required": "F",
        "skip_for_event_ids": [],
        "responses": [
            {"response_id": 1, "response": "Vegan"},
            {"response_id": 2, "response": "No nuts"},
            {"response_id": 3, "response": "Gluten-free / coeliac"},
        ],
    },
)
_OPTIONS: Final = ((771, "Adult S", 0), (772, "Adult M", 0), (773, "Adult XXL", 200))


def furnish(world: World, race: int) -> None:
    """Give a race questions and add-ons."""
    world.edit_race(
        race,
        questions=[dict(row) for row in QUESTIONS],
        addons=[(6601, "Pasta Dinner", 1200), (6602, "Finisher Photo/Print", 2500)],
        last_modified=world.races[race].last_modified,
    )


def small(seed: int = 1, now: datetime = DEFAULT_NOW) -> World:
    """
    Return two partners, three races in three zones over two years, about 120 people, frozen.

    The first race is shared by both partners and has a bundle and a volunteer event.
    """
    world = World(seed, now)
    peak, lakeside = world.add_partner("Peak Timing"), world.add_partner("Lakeside Race Services")
    random = Random(f"small:{seed}")
    coming = _local_days(now, 30)
    first = world.add_race([peak, lakeside], "Harbor Lights Marathon, Half & 5K", "America/Chicago")
    _year(world, first, coming - timedelta(days=364), 2)
    half, five = _year(world, first, coming, 2)
    world.bundle(first, [half, five], "Half + 5K Challenge")
    _volunteers(world, first, coming)
    second = world.add_race(
        [peak], ' Frosty Toes 10 Mile, 5Mile, 5K and "Virtual" Run ', "America/Los_Angeles"
    )
    _year(world, second, coming + timedelta(days=20), 2)
    third = world.add_race([lakeside], "Cañon Trail Fest", "America/Tijuana", is_draft_race=True)
    _year(world, third, coming + timedelta(days=60), 1)
    for race in world.races:
        furnish(world, race)
    for event in list(world.events.values()):
        _fill(world, event.event_id, 3 if event.sub_event_ids else random.randint(8, 20), random)
    return world


def lively_demo(seed: int = 1, now: datetime = DEFAULT_NOW) -> World:
    """
    Return two partners, six races in several zones, one starting in three hours, ~600 people.

    The clock is frozen until it is run; `life.Life` brings it to life.
    """
    world = World(seed, now)
    partners = [world.add_partner(name) for name in PARTNER_NAMES[:2]]
    random = Random(f"demo:{seed}")
    plan: tuple[tuple[str, float, int, tuple[int, ...]], ...] = (
        ("America/New_York", 3 / 24, 2, (0,)),
        ("America/Chicago", 1.9, 3, (0, 1)),
        ("America/Denver", 6.5, 2, (1,)),
        ("America/Los_Angeles", 25, 2, (0,)),
        ("Pacific/Honolulu", 70, 1, (1,)),
        ("America/Phoenix", -5, 2, (1,)),
    )
    for zone, days, events, owners in plan:
        race = world.add_race([partners[i] for i in owners], None, zone)
        local = now.astimezone(world.races[race].zone).replace(tzinfo=None)
        start = (local + timedelta(days=days)).replace(second=0, microsecond=0)
        if days >= 1 or days < 0:
            start = start.replace(hour=7, minute=0)
        made = _year(world, race, start, events)
        if events == 3:
            world.bundle(race, made[:2], "Double Challenge")
            _volunteers(world, race, start)
        furnish(world, race)
    for event in list(world.events.values()):
        size = 10 if event.sub_event_ids or event.volunteer else random.randint(30, 70)
        _fill(world, event.event_id, size, random)
    return world


def original(seed: int = 1, now: datetime = DEFAULT_NOW, *, people: int = ORIGINAL_PEOPLE) -> World:
    """
    Return the original account at its real size: 13 partners, 364 races, 1,616 events.

    231 events are still to come; they hold about a sixteenth of the people. `people` scales it.
    """
    collecting = gc.isenabled()
    gc.disable()  # nothing is garbage here, and looking for it doubles the time
    try:
        return _original(World(seed, now), seed, people)
    finally:
        if collecting:
            gc.enable()


def _original(world: World, seed: int, people: int) -> World:
    share = people / ORIGINAL_PEOPLE
    races, events = max(1, round(ORIGINAL_RACES * share)), max(2, round(ORIGINAL_EVENTS * share))
    future = max(1, round(ORIGINAL_FUTURE_EVENTS * share))
    partners = [world.add_partner(name) for name in PARTNER_NAMES]
    random = Random(f"original:{seed}")
    numbers = [_original_race(world, partners, i, random) for i in range(races)]
    # A race with a coming year has two events in it; years before hold the rest.
    per_race = [events // races + (i < events % races) for i in range(races)]
    left = future
    for i, race in enumerate(numbers):
        coming = min(2, left, per_race[i]) if i % 3 != 2 or left > 2 * (races - i) else 0
        left -= coming
        _original_years(world, race, per_race[i] - coming, coming, random)
    coming_ids = [e.event_id for e in world.events.values() if e.starts_at > world.clock.time()]
    coming_people = people // 16
    for ids, total in (
        (coming_ids, coming_people),
        ([n for n in world.events if n not in set(coming_ids)], people - coming_people),
    ):
        weights = [random.lognormvariate(0, 1.1) for _ in ids]
        scale = total / sum(weights) if weights else 0
        given = [int(weight * scale) for weight in weights]
        for i in range(total - sum(given)):
            given[i % len(given)] += 1
        for number, size in zip(ids, given, strict=True):
            _fill(world, number, size, random, removed=False)
    return world


def _original_race(world: World, partners: list[Account], i: int, random: Random) -> int:
    owners = [partners[i % len(partners)]]
    if random.random() < 0.05:
        owners.append(partners[(i + 1) % len(partners)])
    words = names.RACE_WORDS
    name = f"{random.choice(words[0])} {random.choice(words[1])} #{i + 1}"
    race = world.add_race(owners, name, random.choice(ZONES))
    if i % 4 == 0:
        furnish(world, race)
    return race


def _original_years(world: World, race: int, past: int, coming: int, random: Random) -> None:
    zone_now = world.now.astimezone(world.races[race].zone).replace(tzinfo=None)
    day = zone_now.replace(hour=7, minute=30, second=0, microsecond=0) + timedelta(
        days=random.randint(1, 240)
    )
    if coming:
        _year(world, race, day, coming)
    year = 1
    while past > 0:
        _year(world, race, day - timedelta(days=364 * year), min(past, 2))
        past -= 2
        year += 1


def _local_days(now: datetime, days: int) -> datetime:
    day = now.astimezone(UTC).replace(tzinfo=None) + timedelta(days=days)
    return day.replace(hour=7, minute=30, second=0, microsecond=0)


def _year(world: World, race: int, start: datetime, events: int) -> list[int]:
    """Add one year's events, half an hour apart, and return their ids."""
    made = []
    first = mix(race) % len(DISTANCES)
    for i in range(events):
        name, distance, fee = DISTANCES[(first + i) % len(DISTANCES)]
        begins = start + timedelta(minutes=30 * i)
        made.append(
            world.add_event(
                race,
                name,
                begins,
                begins + timedelta(hours=6) if i == 0 else None,
                distance,
                fee=fee,
                giveaway="T-Shirt",
                giveaway_options=list(_OPTIONS),
                team_count=12 if i % 2 else 0,
                chip_is_bib=race % 2 == 0,
            )
        )
    return made


def _volunteers(world: World, race: int, start: datetime) -> int:
    return world.add_event(
        race,
        "Volunteer - Water Stop",
        start - timedelta(hours=1),
        start + timedelta(hours=5),
        None,
        volunteer=True,
        require_dob=False,
        require_phone=True,
        periods=[],
    )


def _fill(world: World, event: int, size: int, random: Random, removed: bool = True) -> None:
    """Register `size` people over the months before; bibs as far as the event's day is near."""
    record = world.events[event]
    now = int(world.clock.time())
    if record.sub_event_ids:
        for _ in range(size):
            world.register(event, registered_at=now - random.randint(DAY, 60 * DAY))
        return
    world.populate(event, _people(world, record.starts_at, size, now, random))
    if removed:
        ids = list(world.indexes[event].active.ids)
        for number, reason in zip(ids[::9], ("removed", "deferred", "cleared") * 9, strict=False):
            world.remove(number, reason)


def _people(
    world: World, starts_at: int, size: int, now: int, random: Random
) -> Iterator[tuple[int, int, int, int | None]]:
    """Yield (person, registered at, last modified, bib); every third is known from before."""
    last = min(now, starts_at) - 60
    first = max(0, last - 150 * DAY)
    numbered = starts_at - now < 7 * DAY  # bibs are given a week before
    bibs_at = max(first, min(now, starts_at - 5 * DAY) - 3600)
    known = world.next_person
    step = (last - first) / max(1, size)
    for i in range(size):
        who = random.randrange(1, known) if known > 100 and random.random() < 0.3 else known + i
        at = int(first + step * i + random.random() * step)
        if numbered and i % 12:
            yield who, at, max(at, bibs_at + i // 50), 1 + i
        else:
            yield who, at, at if i % 5 else min(last, at + random.randrange(30 * DAY)), None
    world.next_person = known + size
