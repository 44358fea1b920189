"""Everybody gets a bib at once: the short way says what the long one says, and holds nobody up."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from random import Random
from typing import Any

import pytest

import rsusim
from bibwire.api import wire
from bibwire.engine import scope
from bibwire.engine.reports import SyncReport
from bibwire.store.loader import Reading
from rsusim.log import RequestInfo
from tests.e2e.truth import assert_mirror_equals_world
from tests.house import House

LONG_WAY = Reading(wire.decode_participant, lambda _: None, wire.bib_and_time)


@pytest.fixture
def account(world: rsusim.World) -> rsusim.Account:
    return world.add_partner("Peak Timing")


@pytest.fixture
def race(world: rsusim.World, account: rsusim.Account) -> int:
    return world.add_race([account], "Harbor Lights", "America/Chicago")


@pytest.fixture
def event(world: rsusim.World, race: int) -> int:
    """An event with 60 people without bibs."""
    event = world.add_event(race, "10K")
    for number in range(60):
        world.register(event, first_name=f"Ada {number}")
    return event


@contextmanager
def read_by(way: Reading, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setattr(scope, "READING", way)
        yield


def mirror(house: House) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows, but for their digests, and the feed."""
    people = house.rows("SELECT * FROM bibwire.participants ORDER BY registration_id")
    told = house.rows("SELECT * FROM bibwire.changes ORDER BY seq")
    return [{k: v for k, v in row.items() if k != "raw_hash"} for row in people], told


def counts(report: SyncReport) -> tuple[object, ...]:
    return report.participants, report.bibs, report.errors


@pytest.mark.parametrize("seed", range(4))
def test_the_short_way_leaves_what_the_long_one_leaves(
    seed: int,
    world: rsusim.World,
    account: rsusim.Account,
    race: int,
    event: int,
    simulator: rsusim.Server,
    database_url: str,
    second_database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bibs move, alone and with more; people leave, come back and move between events, and pages are full."""
    other = world.add_event(race, "5K")
    random = Random(seed)
    size = random.choice([7, 25, 2500])
    with (
        House(world, simulator.base_url, database_url, page_size=size) as short,
        House(world, simulator.base_url, second_database_url, page_size=size) as long,
    ):
        for house in (short, long):
            house.add_partner(account)
        gone: list[int] = []
        for turn in range(9):
            live_through(world, [event, other], gone, random)
            full = turn % 4 == 3
            ours = short.sync(full=full)
            with read_by(LONG_WAY, monkeypatch):
                theirs = long.sync(full=full)
            assert counts(ours) == counts(theirs)
            assert mirror(short) == mirror(long)
        world.advance(1200)
        short.sync()
        assert_mirror_equals_world(short.rows, world, account)
        kinds = set(short.kinds())
    assert {"bib_assigned", "bib_changed", "bib_cleared", "edited", "registered"} <= kinds
    assert {"removed", "restored"} <= kinds


def live_through(world: rsusim.World, events: list[int], gone: list[int], random: Random) -> None:
    """Let something happen: mostly to bibs, and to some more than that. `gone` are those removed before."""
    world.advance(random.choice([1, 40, 900]))
    for number in random.sample(gone, min(len(gone), 2)):
        gone.remove(number)
        world.restore(number)  # with another bib, or with the one of before
    for event in events:
        people = list(world.active(event))
        if random.random() < 0.5:
            world.bulk_assign(event, random.randrange(1, 9000))
        for number in random.sample(people, min(len(people), 12)):
            world.assign_bib(number, random.choice([None, 0, 7, 12, random.randrange(5000)]))
        for number in random.sample(people, min(len(people), 5)):
            world.edit(number, phone=f"555-{random.randrange(10**4)}", chip_num=str(random.randrange(99)))
        for number in random.sample(people, min(len(people), 4)):
            if random.random() < 0.5:
                world.move(number, random.choice(events))
            else:
                world.remove(number)
                gone.append(number)
        world.register(event, first_name="Walk-up", bib_num=random.choice([None, 88]))


def test_a_burst_is_written_the_short_way(
    house: House, world: rsusim.World, account: rsusim.Account, event: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No record of it is read whole; and one with more than a bib in it is."""
    decoded: list[bytes] = []

    def decode(raw: bytes) -> Any:
        decoded.append(raw)
        return wire.decode_participant(raw)

    house.add_partner(account)
    house.sync()
    world.advance(60)
    world.bulk_assign(event, 1)
    world.edit(world.active(event)[3], phone="555-0100")

    with read_by(Reading(decode, wire.without_bib, wire.bib_and_time), monkeypatch):
        report = house.sync()

    assert report.bibs.assigned == 60
    assert len(decoded) == 1
    assert_mirror_equals_world(house.rows, world, account)


def test_rows_that_an_earlier_version_stored_are_read_whole_once(
    house: House, world: rsusim.World, account: rsusim.Account, event: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.add_partner(account)
    with read_by(LONG_WAY, monkeypatch):  # which leaves one digest, as it did
        house.sync()
    assert {len(row["raw_hash"]) for row in mirror_digests(house)} == {16}
    assert house.sync(full=True).participants.unchanged == 60

    for first in (1, 1001):
        world.advance(60)
        world.bulk_assign(event, first)
        world.edit(world.active(event)[0], phone=f"555-{first:04}")  # of whom more than the bib moved
        house.sync()
        assert_mirror_equals_world(house.rows, world, account)

    assert {len(row["raw_hash"]) for row in mirror_digests(house)} == {32}


def mirror_digests(house: House) -> list[dict[str, Any]]:
    return house.rows("SELECT raw_hash FROM bibwire.participants")


@pytest.mark.every_postgres
def test_between_two_pages_of_a_burst_nobody_waits(
    world: rsusim.World,
    account: rsusim.Account,
    race: int,
    event: int,
    simulator: rsusim.Server,
    database_url: str,
) -> None:
    """
    Whenever a burst asks for its next page, another race of the same partner and another partner
    write all that is new of theirs, feed and all: they wait for one page at most.
    """
    lakeside = world.add_partner("Lakeside")
    others = {
        owner.name: (other, world.add_event(other, "5K"))
        for owner in (account, lakeside)
        for other in [world.add_race([owner], f"{owner.name} 5K")]
    }
    people = {name: world.register(each, first_name="Grace") for name, (_, each) in others.items()}
    with (
        House(world, simulator.base_url, database_url, page_size=10) as house,
        # Of its own, because the first one stands still meanwhile.
        rsusim.Server(world) as second,
        House(world, second.base_url, database_url) as beside,
        ThreadPoolExecutor(1) as thread,
    ):
        for owner in (account, lakeside):
            house.add_partner(owner)
        house.sync()
        world.advance(60)
        world.bulk_assign(event, 1)
        written: list[int] = []

        def write_beside(info: RequestInfo) -> None:
            is_next = info.endpoint == "participants" and "after_registration_id" in info.query
            if not is_next or int(info.path.split("/")[-2]) != race:
                return
            world.advance(1)
            for name, number in people.items():
                world.assign_bib(number, 100 + len(written))
                report = thread.submit(beside.sync, partner=name, race=others[name][0]).result(30)
                assert report.errors == []
                written.append(number)

        world.before_answer(write_beside)
        report = house.sync(partner=account.name, race=race)
        world.clear_hooks()

        assert report.bibs.assigned == 60
        assert len(written) == 2 * 6
        assert len([each for each in house.bib_changes() if each[0] in people.values()]) == len(written)
        # In the partner's feed: ten of the burst, the other race's bib, the next ten.
        told = house.rows(
            "SELECT race_id = %(race)s AS burst FROM bibwire.changes"
            " WHERE partner_id = 1 AND kind <> 'loaded' ORDER BY seq",
            race=race,
        )
        assert [row["burst"] for row in told] == ([True] * 10 + [False]) * 6
        assert_mirror_equals_world(house.rows, world, account, lakeside)
