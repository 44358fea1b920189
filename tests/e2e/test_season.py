"""Days and weeks of the schedule in moved time, judged by the simulated vendor's own log."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random
from zoneinfo import ZoneInfo

import pytest

import rsusim
from rsusim import worlds
from tests.e2e import truth
from tests.e2e.simulation import Simulation, busiest_hour, polls, utc

HOUR = timedelta(hours=1)
TICK = 5.0
THOROUGH = "BIBWIRE_FUZZ_HISTORIES" in os.environ
SATURDAY_RACES = 30 if THOROUGH else 8
# Few workers and many: the seasons of tests/seasons play those too, with the real queue.
SATURDAY_WORKERS = (1, 4, 8) if THOROUGH else (4,)


def a_race(world: rsusim.World, account: rsusim.Account, start: datetime, zone: str, people: int = 3) -> int:
    """Add a race with one event that starts at a wall time of its zone."""
    race = world.add_race([account], f"Race {len(world.races)}", zone)
    event = world.add_event(
        race, "10K", start.astimezone(ZoneInfo(zone)).replace(second=0, microsecond=0, tzinfo=None)
    )
    for _ in range(people):
        world.register(event)
    return race


def longest_gap(instants: list[float], begin: datetime, end: datetime) -> float:
    """Return the longest time without a poll between two instants."""
    inside = [at for at in instants if begin.timestamp() <= at <= end.timestamp()]
    return max(b - a for a, b in pairwise([begin.timestamp(), *inside, end.timestamp()]))


@pytest.fixture
def world() -> rsusim.World:
    return rsusim.World(seed=5, now=utc("2026-09-08T16:00:00+00:00"))


@pytest.fixture
def server(world: rsusim.World) -> Iterator[rsusim.Server]:
    with rsusim.Server(world) as server:
        yield server


@pytest.mark.slow
def test_a_quiet_day_of_the_original_account(
    world: rsusim.World, server: rsusim.Server, database_url: str
) -> None:
    """231 events to come, in as many races, none within a day: 0.4 of the original's 4,410 calls.

    Lists of what is to come are not counted: the original asked for none."""
    random = Random(3)
    accounts = [world.add_partner(name) for name in worlds.PARTNER_NAMES]
    for number in range(231):
        start = world.now + timedelta(days=3 + random.random() * 200)
        a_race(world, accounts[number % 13], start, random.choice(worlds.ZONES))

    async def live() -> None:
        async with Simulation(world, server.base_url, database_url) as simulation:
            for account in accounts:
                await simulation.add_partner(account)
            await simulation.run_until(world.now + HOUR)  # the first load
            world.log.clear()
            begin = world.now
            await simulation.run_until(begin + 24 * HOUR)

            lists = Counter(info.endpoint for info in world.log.requests)["races"]
            assert world.log.calls - lists <= 0.4 * 4410
            # What is to come every 15 minutes, all races twice a day.
            assert 95 * 13 <= lists <= 98 * 13
            asked = polls(world)
            assert len(asked) == 231
            for instants in asked.values():
                assert longest_gap(instants, begin, begin + 24 * HOUR) <= 4 * 3600 + TICK
            removed = polls(world, "removed-participants")
            assert {len(removed[scope]) for scope in asked} == {1}
            truth.assert_mirror_equals_world(simulation.rows, world, *accounts)

    asyncio.run(live())


async def check_in(
    world: rsusim.World, simulation: Simulation, event: int, per_minute: float, seed: int
) -> None:
    """Hand out bibs at random times, for ever."""
    random, bib = Random(seed), 1
    while True:
        await simulation.clock.sleep(random.expovariate(per_minute / 60))
        world.assign_bib(random.choice(world.active(event)), seed * 10_000 + bib)
        bib += 1


def lags(simulation: Simulation) -> list[float]:
    """Return how long after the vendor we saw each change of bib, in order of size."""
    rows = simulation.rows(
        "SELECT extract(epoch FROM seen_at - modified_at)::float8 AS lag FROM bibwire.bib_changes ORDER BY 1"
    )
    return [row["lag"] for row in rows]


# domain.md 6.2: how often each of so many hot races can be polled on one credential, others every 2 min.
@pytest.mark.parametrize(("hot", "seconds"), [(1, 6.3), (3, 17.0), (6, 29.6)])
def test_changes_of_hot_races_are_seen_as_soon_as_the_arithmetic_allows(
    hot: int, seconds: float, world: rsusim.World, server: rsusim.Server, database_url: str
) -> None:
    account = world.add_partner("Peak Timing")
    races = [a_race(world, account, world.now + 3 * HOUR, "America/Denver", people=40) for _ in range(hot)]
    for _ in range(4):
        a_race(world, account, world.now + 40 * 24 * HOUR, "America/Denver")

    async def live() -> None:
        async with Simulation(world, server.base_url, database_url) as simulation:
            await simulation.add_partner(account)
            await simulation.run_until(world.now + HOUR / 6)
            for number, race in enumerate(races):
                event = world.races[race].event_ids[0]
                simulation.happen(check_in(world, simulation, event, 2.0, number + 1))
            await simulation.run_until(world.now + HOUR)

            found = lags(simulation)
            assert len(found) > 60 * hot
            p95 = found[int(len(found) * 0.95)]
            assert p95 <= 1.25 * (0.95 * seconds + 1)
            assert busiest_hour(world)[account.name] <= 1000
            assert world.log.highest_in_flight <= 2

    asyncio.run(live())


@pytest.mark.slow
def test_thirty_hot_races_over_thirteen_credentials_keep_the_minute(
    world: rsusim.World, server: rsusim.Server, database_url: str
) -> None:
    accounts = [world.add_partner(name) for name in worlds.PARTNER_NAMES]
    hot = {
        (account.name, a_race(world, account, world.now + 3 * HOUR, "America/Denver"))
        for account in [accounts[number % 13] for number in range(30)]
    }

    async def live() -> None:
        async with Simulation(world, server.base_url, database_url, workers=4) as simulation:
            for account in accounts:
                races = sum(name == account.name for name, _ in hot)
                # Enough for the minute; what is to spare would only make the test longer.
                await simulation.add_partner(account, calls_per_hour=int((races * 73 + 20) / 0.85))
            await simulation.run_until(world.now + HOUR / 6)
            begin = world.now
            for number, (_, race) in enumerate(sorted(hot)):
                event = world.races[race].event_ids[0]
                simulation.happen(check_in(world, simulation, event, 0.2, number + 1))
            await simulation.run_until(begin + HOUR)

            asked = polls(world)
            for scope in hot:
                assert longest_gap(asked[scope], begin, world.now) <= 60 + TICK
            found = lags(simulation)
            assert len(found) > 200
            # A change is seen with the next poll, and the vendor dates to the second.
            assert found[-1] <= 60 + TICK + 1
            assert world.log.highest_in_flight <= 2

    asyncio.run(live())


@pytest.mark.parametrize(
    "zone", ["America/New_York", "Pacific/Honolulu", "Europe/London", "Australia/Sydney"]
)
def test_the_minute_is_kept_from_four_hours_before_the_gun_to_one_after(
    zone: str, world: rsusim.World, server: rsusim.Server, database_url: str
) -> None:
    account = world.add_partner("Peak Timing")
    there = ZoneInfo(zone)
    gun = (world.now.astimezone(there) + 24 * HOUR).replace(hour=9, minute=0).astimezone(UTC)
    world.advance((gun - 6 * HOUR - world.now).total_seconds())
    race = a_race(world, account, gun, zone)

    async def live() -> None:
        async with Simulation(world, server.base_url, database_url) as simulation:
            # So few calls that there is nothing to spare: the tiers alone are seen.
            await simulation.add_partner(account, calls_per_hour=95)
            await simulation.run_until(gun + 3 * HOUR)
            asked = polls(world)[account.name, race]
            begin, end = gun - 4 * HOUR, gun + HOUR
            assert longest_gap(asked, begin, end) <= 60 + TICK
            near = [at for at in asked if begin.timestamp() - 3600 < at < begin.timestamp()]
            assert len(near) == 4
            after = [at for at in asked if at > end.timestamp() + TICK]
            assert 1 <= len(after) <= 3

    asyncio.run(live())


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("workers", SATURDAY_WORKERS)
def test_a_saturday_full_of_races(
    workers: int, world: rsusim.World, server: rsusim.Server, database_url: str
) -> None:
    """
    Tiers of every scope, the limit of every rolling hour, two calls in flight: by the vendor's log.

    Eight races from Friday on; with `make fuzz` thirty, from Tuesday on.
    """
    if not THOROUGH:
        world.advance((utc("2026-09-11T18:00:00+00:00") - world.now).total_seconds())
    random = Random(9)
    accounts = [world.add_partner(name) for name in worlds.PARTNER_NAMES]
    saturday = utc("2026-09-12T00:00:00+00:00")
    guns: dict[tuple[str, int], datetime] = {}
    hot: Counter[str] = Counter()
    for number in range(SATURDAY_RACES + 26):
        account = accounts[number % 13]
        hot[account.name] += number < SATURDAY_RACES
        zone = random.choice(("America/New_York", "America/Denver"))
        hour, minute = random.choice([(7, 0), (7, 30), (8, 0), (8, 30), (9, 0)])
        day = saturday if number < SATURDAY_RACES else saturday + timedelta(days=random.randint(20, 90))
        gun = day.replace(hour=hour, minute=minute, tzinfo=ZoneInfo(zone))
        guns[account.name, a_race(world, account, gun, zone, people=5)] = gun

    limits = {name: int((races * 73 + 20) / 0.85) for name, races in hot.items()}

    async def live() -> None:
        simulation = Simulation(world, server.base_url, database_url, workers=workers, processes=True)
        async with simulation:
            for account in accounts:
                # Enough for the tiers; what is to spare would only make the test longer.
                await simulation.add_partner(account, calls_per_hour=limits[account.name])
            begin = world.now + HOUR / 6
            end = utc("2026-09-13T16:00:00+00:00")
            await simulation.run_until(begin)
            for number, (_, race) in enumerate(list(guns)[:SATURDAY_RACES]):
                event = world.races[race].event_ids[0]
                simulation.happen(check_in(world, simulation, event, 0.005, number + 1))
            await simulation.run_until(end)

            asked = polls(world)
            for scope, gun in guns.items():
                for since, until, most in (
                    (begin, gun - 24 * HOUR, 14_400),
                    (gun - 24 * HOUR, gun - 4 * HOUR, 900),
                    (gun - 4 * HOUR, gun + HOUR, 60),
                    (gun + HOUR, end, 3_600),
                ):
                    if max(since, begin) < min(until, end):
                        gap = longest_gap(asked[scope], max(since, begin), min(until, end))
                        assert gap <= most + TICK, (scope, most)
            assert all(calls <= limits[name] for name, calls in busiest_hour(world).items())
            assert simulation.rows("SELECT FROM bibwire.bib_changes")
            assert world.log.highest_in_flight <= 2

    asyncio.run(live())
