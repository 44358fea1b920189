"""What fails once is made good by later syncs, and stops neither other races nor other partners."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime, timedelta

import psycopg
import pytest

import rsusim
from bibwire.engine.backfill_reports import BackfillReport, BackfillRequest
from bibwire.engine.discovery import discover
from bibwire.engine.reports import SyncProgress, SyncReport, SyncRequest
from bibwire.store import leases
from bibwire.store.permits import SLOT_POLL_SECONDS
from bibwire.store.session import open_session
from tests.house import House, WorldClock
from tests.waiting import PATIENCE_SECONDS

SATURDAY = datetime(2026, 9, 19, 8, 0)
LONG_AGO = datetime(2026, 8, 1, 8, 0)
# More than the long lookback: what a delta missed by then, no later one reads again.
LATER = timedelta(minutes=12).total_seconds()
HOUR = timedelta(hours=1).total_seconds()


@pytest.fixture
def peak(world: rsusim.World) -> rsusim.Account:
    return world.add_partner("Peak Timing")


def add_race(
    world: rsusim.World, account: rsusim.Account, *events: str, name: str = "Harbor Lights", people: int = 4
) -> tuple[int, list[int]]:
    """Add a race of next Saturday; return it and its events, each with some people."""
    race = world.add_race([account], name, "America/Chicago")
    numbers = [world.add_event(race, event, SATURDAY) for event in events or ("10K", "5K")]
    for number in numbers:
        for _ in range(people):
            world.register(number)
    return race, numbers


def active(house: House, events: Iterable[int]) -> set[int]:
    rows = house.rows(
        "SELECT registration_id FROM bibwire.participants WHERE removed_at IS NULL AND event_id = ANY(%(e)s)",
        e=list(events),
    )
    return {row["registration_id"] for row in rows}


def listed(world: rsusim.World, events: Iterable[int]) -> set[int]:
    """Return who stands in these events at the vendor."""
    return {
        registration
        for account in world.accounts
        for race in world.truth(account)
        for event in race.events
        if event.event_id in set(events)
        for registration in (row.registration_id for row in event.active)
    }


def break_key(house: House, partner_id: int) -> None:
    with psycopg.connect(house.runtime.conninfo, autocommit=True) as connection:
        connection.execute(
            "UPDATE bibwire.credentials SET key_encrypted = '\\x00' WHERE partner_id = %s", [partner_id]
        )


async def ended(task: asyncio.Task[object]) -> None:
    """Cancel a sync and wait until it is over."""
    task.cancel()
    await asyncio.wait([task], timeout=PATIENCE_SECONDS)
    assert task.cancelled()


# 1, 2, 11: lists of events that lie


def test_what_a_lying_list_left_out_is_listed_again_even_if_the_next_call_fails(
    house: House, world: rsusim.World, peak: rsusim.Account
) -> None:
    race, (ten, five) = add_race(world, peak)
    old = world.add_event(race, "Old", LONG_AGO)
    house.add_partner(peak)
    assert house.sync().errors == []
    world.advance(60)
    world.quirks.comma_list = "first_only"
    left_out = {world.register(five) for _ in range(3)}
    world.advance(LATER)
    assert house.sync().errors == []
    # What follows proves something only because a list once proven is believed.
    assert not left_out & active(house, [five])
    world.advance(LATER)

    world.quirks.comma_list = "foreign_rows"
    world.register(old)
    world.faults.add(rsusim.Fault(path="participants", kind="http_503", nth=2, times=None))
    assert len(house.sync(race=race).errors) == 1
    [scope] = house.rows("SELECT one_event_since, failing_since FROM bibwire.scopes")
    assert None not in scope.values()
    world.faults.clear()
    world.quirks.comma_list = "honoured"
    world.advance(LATER)

    assert house.sync().errors == []
    assert left_out <= active(house, [five])
    assert active(house, [ten, five]) == listed(world, [ten, five])


def test_an_event_left_out_of_lists_from_the_start_is_found_by_plain_deltas(
    house: House, world: rsusim.World, peak: rsusim.Account
) -> None:
    world.quirks.comma_list = "first_only"
    _, (ten, five) = add_race(world, peak, people=0)
    for _ in range(3):
        world.register(ten)
    house.add_partner(peak)
    assert house.sync().errors == []

    for _ in range(3):
        world.advance(LATER)
        world.register(five)
        gone = world.register(five)
        world.advance(30)
        assert house.sync().errors == []
        assert active(house, [ten, five]) == listed(world, [ten, five])
        world.advance(LATER)
        world.remove(gone)
        house.sync()
        assert house.participant(gone)["removed_reason"] is not None


def test_a_longer_list_than_any_that_was_proven_is_not_believed(
    house: House, world: rsusim.World, peak: rsusim.Account
) -> None:
    world.quirks.comma_list = "first_two"
    _, short = add_race(world, peak)
    long_race = world.add_race([peak], "Four Distances")
    long = [world.add_event(long_race, f"{n} miles") for n in (1, 5, 10, 26)]
    for event in long[:2]:
        world.register(event)
    house.add_partner(peak)
    assert house.sync().errors == []

    for _ in range(2):
        world.advance(LATER)
        everyone = [world.register(event) for event in (*short, *long)]
        world.advance(30)
        assert house.sync().errors == []
        assert active(house, [*short, *long]) == listed(world, [*short, *long])
        world.advance(LATER)
        world.remove(everyone[-1])
        house.sync()
        assert house.participant(everyone[-1])["removed_reason"] is not None


@pytest.mark.parametrize("people", [0, 3])
def test_an_event_beyond_the_vendors_longest_list_is_loaded(
    people: int, house: House, world: rsusim.World, peak: rsusim.Account
) -> None:
    world.quirks.comma_list = "first_two"
    _, short = add_race(world, peak)
    long_race = world.add_race([peak], "Four Distances")
    long = [world.add_event(long_race, f"{n} miles") for n in (1, 5, 10, 26)]
    for event in long[3:]:
        for _ in range(people):
            world.register(event)
    house.add_partner(peak)

    assert house.sync().errors == []

    assert active(house, [*short, *long]) == listed(world, [*short, *long])


@pytest.mark.parametrize("one_at_a_time", [False, True])
def test_a_bib_is_looked_up_live_in_a_race_that_was_only_discovered(
    one_at_a_time: bool, house: House, world: rsusim.World, peak: rsusim.Account
) -> None:
    race, (ten, five) = add_race(world, peak)
    ada = world.register(five, bib_num=9)
    partner = house.add_partner(peak)

    @asynccontextmanager
    async def aside(_: float) -> AsyncIterator[None]:
        yield

    async def only_discover() -> None:
        entered: Callable[[float], AbstractAsyncContextManager[None]] = aside
        async with house.runtime.open_client(partner, lambda _: None, entered) as client:
            await discover(house.runtime.db, client, house.clock, partner.partner_id)

    house.run(only_discover())
    assert house.rows("SELECT FROM bibwire.scopes WHERE loaded_at IS NOT NULL") == []
    if one_at_a_time:
        world.quirks.comma_list = "first_only"

    house.run(house.runtime.engine.lookup_live(peak.name, race, 9))

    assert house.participant(ada)["bib_num"] == 9
    assert active(house, [ten, five]) == listed(world, [ten, five])


def test_a_bib_is_looked_up_live_in_a_race_asked_for_one_event_at_a_time(
    house: House, world: rsusim.World, peak: rsusim.Account
) -> None:
    race, (_, five) = add_race(world, peak)
    old = world.add_event(race, "Old", LONG_AGO)
    house.add_partner(peak)
    house.sync()
    ada = world.register(five)
    world.advance(60)
    world.quirks.comma_list = "foreign_rows"
    world.register(old)
    house.sync()
    [scope] = house.rows("SELECT one_event_since FROM bibwire.scopes")
    assert scope["one_event_since"] is not None
    world.advance(LATER)
    world.assign_bib(ada, 9)
    world.assign_bib(world.register(old), 9)
    world.advance(5)

    report = house.run(house.runtime.engine.lookup_live(peak.name, race, 9))

    assert report.errors == []
    assert house.participant(ada)["bib_num"] == 9


# 3, 4, 5, 13: clocks, interruptions and rows that move


@pytest.mark.parametrize("which", ["the first load", "a delta"])
def test_one_date_an_hour_ahead_loses_no_later_change(
    which: str, house: House, world: rsusim.World, peak: rsusim.Account
) -> None:
    _, (ten, _) = add_race(world, peak)
    ada, bob = world.register(ten), world.register(ten)
    house.add_partner(peak)
    if which == "a delta":
        house.sync()
        world.advance(LATER)  # the next look is a long one
    world.quirks.date_offset_seconds = HOUR
    house.sync()
    world.quirks.date_offset_seconds = 0.0

    world.advance(120)
    world.assign_bib(ada, 6)
    world.remove(bob)
    new = world.register(ten)
    for _ in range(8):
        world.advance(LATER)
        assert house.sync().errors == []

    assert house.participant(ada)["bib_num"] == 6
    assert house.participant(bob)["removed_at"] is not None
    assert new in active(house, [ten])


def test_a_full_sync_that_is_taken_up_again_reads_what_changed_in_the_races_it_had_listed(
    house: House, world: rsusim.World, peak: rsusim.Account
) -> None:
    people = []
    for number in range(8):
        _, [event] = add_race(world, peak, "10K", name=f"Race {number}")
        people.append(world.register(event))
    house.add_partner(peak)
    assert house.sync().errors == []
    world.advance(60)

    async def killed_half_way() -> None:
        def watch(progress: SyncProgress) -> None:
            if progress.races_done >= 2:
                task.cancel()

        task = asyncio.create_task(house.runtime.engine.sync(SyncRequest(full=True), watch))
        await asyncio.wait([task])
        assert task.cancelled()

    house.run(killed_half_way())
    done = house.rows("SELECT race_id FROM bibwire.scopes WHERE listed_at > loaded_at")
    assert 1 <= len(done) < 8
    house.restart()
    world.advance(20 * HOUR)
    for bib, registration in enumerate(people, start=700):
        world.assign_bib(registration, bib)
    world.advance(60)

    report = house.sync(full=True)

    assert report.errors == []
    assert any("goes on" in note for note in report.notes)
    assert [house.participant(registration)["bib_num"] for registration in people] == list(range(700, 708))


def test_a_removed_registration_that_is_still_listed_for_a_while_stays_removed(
    house: House, world: rsusim.World, peak: rsusim.Account
) -> None:
    _, (ten, _) = add_race(world, peak)
    ada = world.register(ten, bib_num=5)
    house.add_partner(peak)
    house.sync()
    world.advance(60)
    world.quirks.removed_stays_listed_seconds = HOUR
    world.remove(ada)
    world.advance(900)
    house.sync()
    removed_at = house.participant(ada)["removed_at"]
    assert removed_at is not None

    world.log.clear()
    report = house.sync(full=True)

    [listing] = [r for r in world.log.of("participants") if "modified_after_timestamp" not in r.query]
    assert listing.rows == 9  # the removed one among them
    assert (report.errors, report.participants.restored) == ([], 0)
    for _ in range(8):
        world.advance(LATER)
        house.sync()
    assert house.participant(ada)["removed_at"] == removed_at
    assert house.kinds() == ["loaded", "removed"]


def test_a_sign_up_between_listing_and_count_does_not_hide_who_vanished(
    house: House, world: rsusim.World, peak: rsusim.Account
) -> None:
    _, (ten, _) = add_race(world, peak, people=10)
    ada = world.register(ten)
    house.add_partner(peak)
    house.sync()
    world.advance(60)
    world.vanish(ada)
    new: list[int] = []

    def sign_up_once(info: rsusim.RequestInfo) -> None:
        if info.endpoint == "participant-counts" and not new:
            new.append(world.register(ten))

    world.before_answer(sign_up_once)
    report = house.sync(full=True)

    assert new
    assert report.errors == []
    assert house.participant(ada)["removed_reason"] == "absent"
    assert active(house, [ten]) == listed(world, [ten])
    assert house.rows("SELECT last_error, failing_since FROM bibwire.freshness") == [
        {"last_error": None, "failing_since": None}
    ]


# 6, 7, 9: partners


def test_a_partner_out_of_budget_keeps_no_other_from_being_synced(
    house: House, world: rsusim.World, peak: rsusim.Account
) -> None:
    for number in range(6):
        add_race(world, peak, name=f"Race {number}")
    lakeside = world.add_partner("Lakeside")
    _, theirs = add_race(world, lakeside, name="Lakeside")
    mine = house.add_partner(peak, calls_per_hour=3).partner_id
    house.add_partner(lakeside)
    # By then the first partner's races wait in all the places there are.
    world.faults.add(rsusim.Fault(path="races", kind="slow", seconds=0.7, partner="Lakeside"))

    async def until_theirs_are_there() -> None:
        there = asyncio.Event()

        def watch(_: SyncProgress) -> None:
            if active(house, theirs) == listed(world, theirs):
                there.set()

        task: asyncio.Task[object] = asyncio.create_task(house.runtime.engine.sync(SyncRequest(), watch))
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await there.wait()
        finally:
            await ended(task)

    house.run(until_theirs_are_there())

    assert active(house, theirs) == listed(world, theirs) != set()
    [calls] = house.rows(
        "SELECT sum(calls) AS n FROM bibwire.call_minutes JOIN bibwire.credentials USING (credential_id)"
        " WHERE partner_id = %(p)s",
        p=mine,
    )
    assert calls["n"] <= 3


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_a_partner_whose_stored_key_cannot_be_opened_is_told_of_and_the_others_are_synced(
    broken: int, house: House, world: rsusim.World
) -> None:
    accounts = [world.add_partner(name) for name in ("Alpha", "Beta", "Gamma")]
    events = [add_race(world, account, name=account.name)[1] for account in accounts]
    partners = [house.add_partner(account) for account in accounts]
    break_key(house, partners[broken].partner_id)

    report = house.sync()

    [error] = report.errors
    assert (error.partner, error.race_id, report.exit_code) == (accounts[broken].name, None, 3)
    for number, theirs in enumerate(events):
        assert active(house, theirs) == (set() if number == broken else listed(world, theirs))


def test_a_key_is_not_verified_while_no_list_of_people_was_answered(
    house: House, world: rsusim.World, peak: rsusim.Account
) -> None:
    add_race(world, peak)
    house.add_partner(peak)
    world.faults.add(rsusim.Fault(path="participants", kind="http_503", times=None))

    assert len(house.sync().errors) == 1
    assert house.rows("SELECT verified_at FROM bibwire.credentials") == [{"verified_at": None}]

    world.faults.clear()
    assert house.sync().errors == []
    [credential] = house.rows("SELECT verified_at FROM bibwire.credentials")
    assert credential["verified_at"] is not None


# 8, 10: places and leases


@pytest.mark.parametrize("turns", [0, 1, 2, 5])
def test_cancelled_syncs_leave_the_places_for_calls_free(
    turns: int, house: House, world: rsusim.World, peak: rsusim.Account
) -> None:
    events = [event for n in range(5) for event in add_race(world, peak, name=f"Race {n}")[1]]
    house.add_partner(peak)

    def places_taken() -> list[int]:
        taken = house.rows("SELECT place FROM bibwire.call_places WHERE taken_by IS NOT NULL")
        return [row["place"] for row in taken]

    async def cancelled_at(call: int) -> None:
        loop = asyncio.get_running_loop()
        reached = asyncio.Event()
        calls = 0

        def count(_: rsusim.RequestInfo) -> None:
            nonlocal calls
            calls += 1
            if calls == call:
                loop.call_soon_threadsafe(reached.set)

        world.before_answer(count)
        task: asyncio.Task[object] = asyncio.create_task(house.runtime.engine.sync(SyncRequest(full=True)))
        async with asyncio.timeout(PATIENCE_SECONDS):
            await reached.wait()
        for _ in range(turns):
            await asyncio.sleep(0)
        await ended(task)
        world.clear_hooks()
        # What was being given back at that moment is given back to the end.
        async with asyncio.timeout(PATIENCE_SECONDS):
            while places_taken():  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    for call in range(1, 13):
        # A new begin, or the later syncs find little left to do.
        world.advance(25 * HOUR if call in (6, 10) else 400)
        house.run(cancelled_at(min(call, 6)))
        assert places_taken() == []

    async def in_time() -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            report = await house.runtime.engine.sync(SyncRequest())
        assert report.errors == []

    world.advance(60)
    house.run(in_time())
    assert active(house, events) == listed(world, events)


def test_a_race_left_to_another_process_is_named_as_not_done_and_does_not_fail(
    house: House, world: rsusim.World, peak: rsusim.Account
) -> None:
    race, (ten, _) = add_race(world, peak)
    _, others = add_race(world, peak, name="Other")
    partner = house.add_partner(peak)
    house.sync()
    world.advance(60)
    missed, new = world.register(ten), world.register(others[0])
    house.runtime.sweeper._lease_wait_seconds = 0.5

    async def while_another_holds_it() -> None:
        async with open_session(house.runtime.conninfo) as other:
            lease = await leases.acquire(house.runtime.db, other, partner.partner_id, race)
            assert lease is not None
            report = await house.runtime.engine.sync(SyncRequest())
            assert ([error.race_id for error in report.errors], report.exit_code) == ([race], 3)
            assert await leases.acquire(house.runtime.db, house.runtime.session, *key) is None

    key = (partner.partner_id, race)
    house.run(while_another_holds_it())

    assert [row["failing_since"] for row in house.rows("SELECT * FROM bibwire.freshness")] == [None, None]
    assert new in active(house, others)
    assert missed not in active(house, [ten])
    assert house.sync().errors == []
    assert missed in active(house, [ten])


# 12, 14: the catalogue and the quarantine


def test_a_sync_of_one_race_finds_an_event_added_since(
    house: House, world: rsusim.World, peak: rsusim.Account
) -> None:
    race, events = add_race(world, peak)
    house.add_partner(peak)
    house.sync()
    world.advance(60)
    added = world.add_event(race, "Marathon", SATURDAY)
    for _ in range(4):
        world.register(added)
    world.advance(60)

    report = house.sync(race=race)

    assert (report.errors, report.events) == ([], len(events) + 1)
    assert active(house, [added]) == listed(world, [added]) != set()


def test_a_race_in_quarantine_is_over_once_the_list_shows_it_mended(
    house: House, world: rsusim.World, peak: rsusim.Account
) -> None:
    add_race(world, peak)
    house.add_partner(peak)
    body = '{"races": [{"race": {"race_id": "abc", "name": "x"}}]}'
    world.faults.add(rsusim.Fault(path="races", kind="body", body=body, times=2))
    for _ in range(2):
        assert len(house.sync().errors) == 1
        [entry] = house.rows("SELECT * FROM bibwire.quarantine")
        assert (entry["race_id"], entry["resolved_at"]) == (None, None)
        world.advance(60)

    assert house.sync().errors == []

    [entry] = house.rows("SELECT * FROM bibwire.quarantine")
    assert entry["resolved_at"] is not None


def test_a_row_in_quarantine_is_over_once_a_full_listing_shows_it_mended(
    house: House, world: rsusim.World, peak: rsusim.Account
) -> None:
    _, [event] = add_race(world, peak, "10K")
    house.add_partner(peak)
    text = '{"registration_id": "none", "event_id": ' + str(event) + "}"
    fault = rsusim.Fault(path="participants", kind="hostile_rows", rows=[text], position="start", times=2)
    world.faults.add(fault)
    for _ in range(2):
        assert house.sync(full=True).participants.quarantined == 1
        [entry] = house.rows("SELECT * FROM bibwire.quarantine")
        assert (entry["registration_id"], entry["resolved_at"]) == (None, None)
        world.advance(60)
    assert fault.struck == 2

    # A delta need not show the row, and proves nothing.
    house.sync()
    [entry] = house.rows("SELECT * FROM bibwire.quarantine")
    assert entry["resolved_at"] is None
    world.advance(60)

    assert house.sync(full=True).errors == []
    [entry] = house.rows("SELECT * FROM bibwire.quarantine")
    assert entry["resolved_at"] is not None


# one partner's failures hold up no other


class OthersFirst(WorldClock):
    """A clock by which whoever waits after a failure does so until the others are done."""

    def __init__(self, world: rsusim.World) -> None:
        super().__init__(world)
        self.others_are_done = asyncio.Event()
        self.waited_in_vain = False

    async def sleep(self, seconds: float) -> None:
        if seconds > SLOT_POLL_SECONDS:
            try:
                await asyncio.wait_for(self.others_are_done.wait(), PATIENCE_SECONDS)
            except TimeoutError:
                self.waited_in_vain = True
        await super().sleep(seconds)


@pytest.mark.parametrize("history", [False, True], ids=["sync", "backfill"])
def test_a_partner_in_retries_holds_up_no_other(
    history: bool, world: rsusim.World, simulator: rsusim.Server, database_url: str
) -> None:
    peak, lakeside = world.add_partner("Peak Timing"), world.add_partner("Lakeside Race Services")
    failing = [add_race(world, peak)[0] for _ in range(6)]
    sound = {add_race(world, lakeside)[0] for _ in range(6)}
    if history:
        world.advance(60 * 24 * HOUR)
    for race in failing:
        # Each fails once: it has a place, and would be in the way of the others while it waits.
        world.faults.add(rsusim.Fault(path="participants", race_id=race, kind="http_500"))
    house = House(world, simulator.base_url, database_url)
    house.clock = clock = OthersFirst(world)

    def watch(_: object) -> None:
        loaded = house.rows(
            "SELECT DISTINCT race_id FROM bibwire.participants WHERE race_id = ANY(%(races)s)", races=[*sound]
        )
        if len(loaded) == len(sound):
            clock.others_are_done.set()

    with house:
        # The failing one is the first in every line.
        house.add_partner(peak)
        house.add_partner(lakeside)
        report: BackfillReport | SyncReport
        if history:
            request = BackfillRequest(since=world.now - timedelta(days=365))
            report = house.run(house.runtime.backfill(request, watch))
        else:
            report = house.run(house.runtime.engine.sync(SyncRequest(), watch))

        assert report.errors == []
        assert clock.others_are_done.is_set()
        assert not clock.waited_in_vain
        assert house.rows("SELECT count(DISTINCT race_id) AS races FROM bibwire.participants") == [
            {"races": len(failing) + len(sound)}
        ]
