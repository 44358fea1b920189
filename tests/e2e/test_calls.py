"""Calls are counted by the vendor, so none is made that is not needed, and never more than two at once."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

import rsusim
from rsusim import worlds
from tests import children
from tests.e2e import truth
from tests.house import KEY, House
from tests.waiting import PATIENCE_SECONDS

NOON = datetime(2026, 9, 12, 16, 0, tzinfo=UTC)
LISTINGS = ("participants", "removed-participants")


def original_shape() -> rsusim.World:
    """
    Return the original's account: 13 partners, 364 races, 1,616 events of which 231 are to come.

    With few people: what a sync costs in calls is told by the scopes, and by pages.
    """
    world = rsusim.World(seed=1, now=NOON)
    # Answers that take no time may never meet: whether two calls are ever in flight is to be seen.
    world.quirks.latency_seconds = 0.01
    random = Random(1)
    partners = [world.add_partner(name) for name in worlds.PARTNER_NAMES]
    events = 0
    for number in range(worlds.ORIGINAL_RACES):
        owners = [partners[number % 13]]
        if number % 20 == 0:
            owners.append(partners[(number + 1) % 13])
        race = world.add_race(owners, f"Race {number}", random.choice(worlds.ZONES))
        coming = 2 if number < 115 else 1 if number == 115 else 0
        # Eight races have one event more than the others' four or five.
        past = worlds.ORIGINAL_EVENTS // worlds.ORIGINAL_RACES - coming + (number < 160)
        events += coming + past
        for i in range(coming + past):
            start = NOON.replace(tzinfo=None)
            start += timedelta(days=20 + i) if i < coming else -timedelta(days=365 * (i - coming + 1))
            event = world.add_event(race, f"Event {i}", start)
            if i < coming:
                for _ in range(random.randint(1, 6)):
                    world.register(event)
                world.remove(world.register(event))
    assert (len(world.races), events) == (worlds.ORIGINAL_RACES, worlds.ORIGINAL_EVENTS)
    return world


class TestOriginalShape:
    """The first sync, a full one and a delta of the original's account."""

    @pytest.fixture
    def world(self) -> rsusim.World:
        return original_shape()

    @pytest.mark.slow
    def test_every_sync_costs_one_list_a_partner_and_one_page_a_stream(
        self, house: House, world: rsusim.World
    ) -> None:
        for account in world.accounts.values():
            house.add_partner(account)
        coming = {e.race_id for e in world.events.values() if e.starts_at > world.clock.time()}
        scopes = Counter(
            name
            for race in world.races
            for name in world.accounts
            if world.may_read(name, race) and race in coming
        )
        ideal = {"races": 13} | dict.fromkeys(LISTINGS, sum(scopes.values()))
        assert sum(scopes.values()) == 116 + 6

        for number, full in enumerate((False, True, False)):
            world.log.clear()

            report = house.sync(full=full)

            assert report.errors == []
            assert report.races == sum(scopes.values())
            made = asked(world)
            counted = made.pop("participant-counts", 0)
            # Whether a credential's lists are complete is asked once, by those swept at the time.
            assert (13 <= counted <= 3 * 13) if number == 0 else counted == 0
            assert made == ideal
            assert report.calls == sum(ideal.values()) + counted
            bounded = [info for info in world.log.requests if "modified_after_timestamp" in info.query]
            is_delta = not full and report.participants.inserted == 0
            assert len(bounded) == (2 * sum(scopes.values()) if is_delta else 0)
            assert world.log.highest_in_flight == 2
            world.advance(3600)
        truth.assert_mirror_equals_world(house.rows, world, *world.accounts.values())


def one_race(world: rsusim.World, *sizes: int) -> tuple[rsusim.Account, list[int]]:
    """Add a race with an event of each size; return its partner and events."""
    account = world.add_partner("Peak Timing")
    race = world.add_race([account], "Harbor Lights")
    events = [world.add_event(race, f"Event {n}") for n in range(len(sizes))]
    for event, size in zip(events, sizes, strict=True):
        for _ in range(size):
            world.register(event)
    return account, events


def asked(world: rsusim.World) -> Counter[str]:
    return Counter(info.endpoint for info in world.log.requests)


@pytest.mark.parametrize(("people", "pages"), [(0, 1), (1, 1), (9, 1), (10, 2), (11, 2), (20, 3), (35, 4)])
def test_another_page_is_asked_for_only_after_a_full_one(
    people: int, pages: int, world: rsusim.World, simulator: rsusim.Server, database_url: str
) -> None:
    account, _ = one_race(world, people)
    with House(world, simulator.base_url, database_url, page_size=10) as house:
        house.add_partner(account)

        assert house.sync().errors == []

        made = asked(world)
        # An empty first list is what a failure looks like.
        assert made.pop("participant-counts", 0) == (people == 0)
        assert made == {"races": 1, "participants": pages, "removed-participants": 1}


def test_counts_are_asked_for_only_where_somebody_is_missing(house: House, world: rsusim.World) -> None:
    account, events = one_race(world, 5, 5)
    house.add_partner(account)
    house.sync()
    world.advance(60)
    world.log.clear()
    house.sync(full=True)
    assert asked(world)["participant-counts"] == 0

    world.advance(60)
    world.vanish(world.active(events[0])[0])
    world.log.clear()
    report = house.sync(full=True)

    assert report.participants.removed == 1
    assert asked(world) == {"races": 1, "participants": 1, "removed-participants": 1, "participant-counts": 1}


def test_an_event_without_people_costs_one_question_in_its_life(house: House, world: rsusim.World) -> None:
    """Until a list of several events was seen to work, nothing and nobody look alike."""
    account, _ = one_race(world, 5, 0)
    other = world.add_race([account], "Frosty Toes")
    world.register(world.add_event(other, "5K"))
    world.add_event(other, "10K")
    house.add_partner(account)

    house.sync()
    assert asked(world)["participant-counts"] <= 2
    for full in (True, False, True):
        world.advance(3600)
        world.log.clear()
        assert house.sync(full=full).errors == []
        assert asked(world)["participant-counts"] <= (2 if full else 0)


def test_a_race_alone_costs_the_list_and_one_call_a_stream(house: House, world: rsusim.World) -> None:
    account, events = one_race(world, 5)
    house.add_partner(account)
    house.sync()
    world.advance(60)
    world.log.clear()

    house.sync(race=world.events[events[0]].race_id)

    assert asked(world) == {"races": 1, "participants": 1, "removed-participants": 1}


def test_a_race_that_is_over_costs_nothing(house: House, world: rsusim.World) -> None:
    account, _ = one_race(world, 5)
    house.add_partner(account)
    house.sync()
    world.advance(40 * 86_400)
    world.log.clear()

    assert house.sync(full=True).races == 0

    assert asked(world) == {"races": 1}


def test_many_bibs_of_one_second_are_read_twice_at_most(house: House, world: rsusim.World) -> None:
    account, events = one_race(world, 40)
    house.add_partner(account)
    house.sync()
    world.advance(1200)
    world.bulk_assign(events[0], 100)
    world.advance(5)

    rows = []
    for _ in range(6):
        world.log.clear()
        house.sync()
        [listing] = world.log.of("participants")
        rows.append(listing.rows)
        world.advance(60)

    assert rows == [40, 40, 0, 0, 0, 0]


@pytest.mark.parametrize("kind", ["http_503", "http_429", "error_14", "reset", "html_200", "truncated"])
def test_retries_count_as_calls(kind: str, house: House, world: rsusim.World) -> None:
    account, _ = one_race(world, 5)
    house.add_partner(account)
    world.faults.add(rsusim.Fault(path="participants", kind=kind, times=2))

    report = house.sync()

    assert (report.errors, report.calls, len(world.log.requests)) == ([], 5, 5)
    [spent] = house.rows("SELECT sum(calls)::int AS calls FROM bibwire.call_minutes")
    assert spent["calls"] == 5
    [run] = house.rows("SELECT calls FROM bibwire.sync_history WHERE race_id IS NOT NULL")
    assert run["calls"] == 4


@pytest.mark.slow
def test_two_processes_together_have_two_calls_in_flight(database_url: str) -> None:
    world = worlds.small(now=datetime.now(UTC))
    world.clock.run(1)
    # A third call would meet the two that are kept waiting here.
    world.quirks.latency_seconds = 0.03
    with rsusim.Server(world) as simulator, House(world, simulator.base_url, database_url) as house:
        for account in world.accounts.values():
            house.add_partner(account)
        started = [
            children.start(
                "sync",
                kind,
                3,
                BIBWIRE_DATABASE_URL=database_url,
                BIBWIRE_API_URL=simulator.base_url,
                BIBWIRE_SECRET_KEY=KEY,
            )
            for kind in ("full", "delta", "delta")
        ]

        said = [child.communicate(timeout=PATIENCE_SECONDS)[0] for child in started]

        assert said == ["", "", ""]
        assert len(world.log.requests) > 40
        assert world.log.highest_in_flight == 2
        accounts = tuple(world.accounts.values())
        truth.assert_mirror_equals_world(house.rows, world, *accounts)
        truth.assert_feed_is_sound(house.rows, *accounts)
