"""What happens to registrations, when readers see it, and what a perfect mirror would hold."""

import threading
from datetime import datetime
from decimal import Decimal
from random import Random
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rsusim
from rsusim.life import Life
from tests.rsusim.conftest import NOW, Api, Scene
from tests.waiting import PATIENCE_SECONDS, wait_until

T0 = int(NOW.timestamp())


def bibs(scene: Scene, event: int) -> list[Any]:
    return [row["bib_num"] for row in scene.api.rows(scene.race, event)]


def reason(scene: Scene, event: int, number: int) -> tuple[str, int | None] | None:
    for row in scene.api.removed(scene.race, event):
        if row["registration_id"] == number:
            return row["removed_reason"], row["new_registration_id"]
    return None


def test_an_edit_moves_last_modified_and_a_silent_one_does_not(scene: Scene) -> None:
    number = scene.world.register(scene.five, first_name="Ada")
    scene.world.advance(5.5)
    scene.world.edit_silently(number, first_name="Eve", city="Lakeport")
    row = scene.api.rows(scene.race, scene.five)[0]
    assert (row["user"]["first_name"], row["user"]["address"]["city"]) == ("Eve", "Lakeport")
    assert row["last_modified"] == T0
    scene.world.edit(number, first_name="Ada")
    row = scene.api.rows(scene.race, scene.five)[0]
    assert (row["user"]["first_name"], row["last_modified"]) == ("Ada", T0 + 5)


def test_bibs_are_assigned_swapped_cleared_and_numbered_in_bulk(scene: Scene) -> None:
    a, b, c = (scene.world.register(scene.five) for _ in range(3))
    scene.world.assign_bib(a, 0)
    scene.world.assign_bib(b, 7)
    scene.world.swap_bibs(a, b)
    assert bibs(scene, scene.five) == [7, 0, None]
    scene.world.clear_bib(a)
    scene.world.assign_bib(c, "A12")
    assert bibs(scene, scene.five) == [None, 0, "A12"]
    scene.world.advance(1)
    assert scene.world.bulk_assign(scene.five, 101) == 3
    assert bibs(scene, scene.five) == [101, 102, 103]
    assert len(scene.api.ids(scene.race, scene.five, modified_after_timestamp=T0 + 1)) == 3


def test_a_bib_can_leave_last_modified_where_it_is(scene: Scene) -> None:
    number = scene.world.register(scene.five)
    scene.world.advance(10)
    scene.world.quirks.bib_moves_last_modified = False
    scene.world.assign_bib(number, 5)
    assert scene.api.ids(scene.race, scene.five, modified_after_timestamp=T0 + 1) == []
    assert bibs(scene, scene.five) == [5]


def test_an_edit_published_late_keeps_the_moment_of_the_change(scene: Scene) -> None:
    number = scene.world.register(scene.five)
    scene.world.advance(10)
    scene.world.assign_bib(number, 101, published_after=40)

    scene.world.advance(39.9)
    assert bibs(scene, scene.five) == [None]
    assert scene.world.truth(scene.account)[0].events[0].active[0].bib_num is None
    assert scene.world.bib(number) == 101
    scene.world.advance(0.1)
    assert bibs(scene, scene.five) == [101]
    assert scene.api.rows(scene.race, scene.five)[0]["last_modified"] == T0 + 10


def test_a_later_change_is_not_undone_by_an_earlier_one_published_late(scene: Scene) -> None:
    number = scene.world.register(scene.five)
    scene.world.assign_bib(number, 1, published_after=100)
    scene.world.assign_bib(number, 2)
    scene.world.advance(200)
    assert bibs(scene, scene.five) == [2]


def test_every_change_can_be_published_late_by_a_quirk(scene: Scene) -> None:
    scene.world.quirks.publication_delay_seconds = 20
    scene.world.register(scene.five)
    assert scene.api.ids(scene.race, scene.five) == []
    scene.world.advance(20)
    assert len(scene.api.ids(scene.race, scene.five)) == 1


def test_a_registration_published_late_takes_its_place_by_id(scene: Scene) -> None:
    late = scene.world.register(scene.five, published_after=10)
    early = scene.world.register(scene.five)
    assert scene.api.ids(scene.race, scene.five) == [early]
    scene.world.advance(10)
    assert scene.api.ids(scene.race, scene.five) == [late, early]
    assert late < early


def test_a_transfer_makes_a_new_id_and_keeps_the_person(scene: Scene) -> None:
    old = scene.world.register(scene.five, first_name="Ada", bib_num=9)
    new = scene.world.transfer(old, scene.ten)
    newer = scene.world.transfer(new, scene.five, transfer_bib=True)

    assert old < new < newer
    assert reason(scene, scene.five, old) == ("transferred", new)
    assert reason(scene, scene.ten, new) == ("transferred", newer)
    rows = scene.api.rows(scene.race, scene.five)
    assert [row["registration_id"] for row in rows] == [newer]
    assert rows[0]["user"]["first_name"] == "Ada"
    assert rows[0]["bib_num"] is None
    person = scene.world.registrations
    assert person[old].who == person[newer].who


def test_leaving_has_a_reason_and_can_be_undone_under_the_same_id(scene: Scene) -> None:
    numbers = [scene.world.register(scene.five) for _ in range(4)]
    scene.world.remove(numbers[0])
    scene.world.defer(numbers[1])
    scene.world.clear(numbers[2])
    scene.world.remove(numbers[3], "abducted")

    reasons = [row["removed_reason"] for row in scene.api.removed(scene.race, scene.five)]
    assert reasons == ["removed", "deferred", "cleared", "abducted"]
    scene.world.advance(60)
    scene.world.restore(numbers[1])
    assert reason(scene, scene.five, numbers[1]) is None
    row = scene.api.rows(scene.race, scene.five)[0]
    assert (row["registration_id"], row["last_modified"]) == (numbers[1], T0 + 60)


def test_a_vanished_registration_is_in_neither_list(scene: Scene) -> None:
    number = scene.world.register(scene.five)
    scene.world.vanish(number)
    assert scene.api.ids(scene.race, scene.five) == []
    assert scene.api.removed(scene.race, scene.five) == []
    assert scene.world.truth(scene.account)[0].events[0].active == ()


def test_a_removed_row_can_stay_in_the_active_list_for_a_while(scene: Scene) -> None:
    number = scene.world.register(scene.five, bib_num=3)
    scene.world.quirks.removed_stays_listed_seconds = 30
    scene.world.remove(number)

    assert scene.api.ids(scene.race, scene.five) == [number]
    assert reason(scene, scene.five, number) == ("removed", None)
    assert scene.world.truth(scene.account)[0].events[0].active == ()
    scene.world.advance(30)
    assert scene.api.ids(scene.race, scene.five) == []
    scene.world.restore(number)
    scene.world.remove(number)
    scene.world.restore(number)
    assert scene.api.ids(scene.race, scene.five) == [number]
    scene.world.advance(60)
    assert scene.api.ids(scene.race, scene.five) == [number]
    assert scene.api.removed(scene.race, scene.five) == []


def test_a_restored_row_can_stay_in_the_removed_list(scene: Scene) -> None:
    number = scene.world.register(scene.five, bib_num=3)
    scene.world.quirks.restored_stays_removed = True
    scene.world.remove(number, "deferred")
    scene.world.restore(number)
    scene.world.edit(number, bib_num=4)

    assert bibs(scene, scene.five) == [4]
    assert reason(scene, scene.five, number) == ("deferred", None)
    assert scene.world.truth(scene.account)[0].events[0].removed == ()
    scene.world.advance(5)
    scene.world.remove(number)
    assert [row["last_modified_ts"] for row in scene.api.removed(scene.race, scene.five)] == [T0 + 5]
    assert scene.api.ids(scene.race, scene.five) == []


def test_a_bundle_registers_in_its_events_and_takes_them_along(scene: Scene) -> None:
    bundle = scene.world.bundle(scene.race, [scene.five, scene.ten])
    number = scene.world.register(bundle, first_name="Ada")
    rows = [scene.api.rows(scene.race, event)[0] for event in (bundle, scene.five, scene.ten)]
    assert {row["user"]["first_name"] for row in rows} == {"Ada"}
    assert len({row["registration_id"] for row in rows}) == 3
    scene.world.remove(number)
    assert scene.api.ids(scene.race, bundle, scene.five, scene.ten) == []
    assert len(scene.api.removed(scene.race, bundle, scene.five, scene.ten)) == 3


def test_raw_text_and_absent_keys_are_served_as_given(scene: Scene) -> None:
    number = scene.world.register(scene.five, email=rsusim.ABSENT, phone=None, extra={"corral": "A"})
    row = scene.api.rows(scene.race, scene.five)[0]
    assert "email" not in row["user"]
    assert row["user"]["phone"] is None
    assert row["corral"] == "A"
    scene.world.set_raw(number, '{"registration_id":"x"}')
    assert scene.api.rows(scene.race, scene.five) == [{"registration_id": "x"}]
    scene.world.set_raw(number, None)
    assert scene.api.ids(scene.race, scene.five) == [number]


def test_truth_holds_plain_values(scene: Scene) -> None:
    number = scene.world.register(scene.five, race_fee=3550, email=rsusim.ABSENT, imported=True, bib_num=4)
    gone = scene.world.register(scene.ten)
    scene.world.remove(gone)

    race = scene.world.truth(scene.account)[0]
    five, ten = race.events
    row = five.active[0]

    assert (row.registration_id, row.bib_num, row.last_modified) == (number, 4, T0)
    assert row.fields["race_fee"] == Decimal("35.50")
    assert row.fields["email"] is None
    assert row.fields["imported"] is True
    assert (five.start, five.starts_at) == ("2026-10-04T09:00:00", 1791122400)
    assert (ten.removed[0].reason, ten.removed[0].new_registration_id) == ("removed", None)


def test_changes_inside_with_are_seen_as_one(scene: Scene) -> None:
    with scene.world as world:
        a = world.register(scene.five)
        world.transfer(a, scene.ten)
    assert len(scene.api.ids(scene.race, scene.five, scene.ten)) == 1


def test_the_same_seed_gives_the_same_world_and_another_does_not() -> None:
    worlds = [rsusim.worlds.small(seed, NOW) for seed in (1, 1, 2)]
    for world in worlds:
        Life(world, 4, rate=0.05).step(7200)
    truths = [world.truth("Peak Timing") for world in worlds]
    assert truths[0] == truths[1]
    assert truths[0] != truths[2]


def test_a_running_clock_moves_and_life_goes_on_behind_a_server() -> None:
    world = rsusim.worlds.lively_demo(1, NOW)
    world.clock.run(600)
    with rsusim.Server(world, life=Life(world, 1, rate=1.0)):
        before, people = world.now, len(world.registrations)
        wait_until(lambda: len(world.registrations) > people)
    assert world.now > before


def test_mischief_changes_rows_without_moving_last_modified() -> None:
    world = rsusim.worlds.small(1, NOW)
    before = {n: r.shown for n, r in world.registrations.items()}
    life = Life(world, 1, rate=0.01, mischief=1.0)
    life.step(20_000)
    assert set(life.happened) >= {"vanish", "edit_silently", "bib_silently", "late_bib"}
    changed = [(before[n], r.shown) for n, r in world.registrations.items() if r.shown is not before[n]]
    assert any(a and b and a.last_modified == b.last_modified for a, b in changed)


def test_an_imported_person_is_imported_after_a_transfer_too(scene: Scene) -> None:
    for imported in (True, False):
        for _ in range(40):
            number = scene.world.register(scene.five, imported=imported)
            scene.world.transfer(number, scene.ten)
        rows = scene.api.rows(scene.race, scene.ten, results_per_page=2500)
        assert {row["imported"] for row in rows[-40:]} == {"T" if imported else "F"}
        assert all((row["user"]["user_id"] is None) == imported for row in rows[-40:])


def test_ids_beyond_32_bits_are_listed_like_others(scene: Scene) -> None:
    scene.world.next_registration_id = 5_000_000_000
    number = scene.world.register(scene.five)
    scene.world.advance(1)
    scene.world.edit(number, city="X")
    assert scene.api.ids(scene.race, scene.five, modified_after_timestamp=T0 + 1) == [number]
    assert scene.api.ids(scene.race, scene.five, after_registration_id=number) == []
    big = 10**30
    path = f"race/{scene.race}/participants"
    assert scene.api.error(path, event_id=scene.five, after_registration_id=big) == 3
    assert scene.api.error(f"race/{big}") == 1


def test_readers_see_whole_changes_while_another_thread_makes_them(scene: Scene) -> None:
    stop = threading.Event()
    for _ in range(50):
        scene.world.register(scene.five)

    def change() -> None:
        random = Random(1)
        while not stop.is_set():
            ids = scene.world.active(scene.five) + scene.world.active(scene.ten)
            number = random.choice(ids)
            other = scene.ten if number in scene.world.active(scene.five) else scene.five
            scene.world.transfer(number, other)  # one leaves, one comes: there are always 50

    thread = threading.Thread(target=change)
    thread.start()
    try:
        counts = {
            len(scene.api.ids(scene.race, scene.five, scene.ten, results_per_page=2500)) for _ in range(60)
        }
    finally:
        stop.set()
        thread.join()
    assert counts == {50}


def test_a_delta_with_nothing_new_in_a_big_event_takes_milliseconds(scene: Scene) -> None:
    rows = ((n, T0 - 100_000 + n, T0 - 100_000 + n, None) for n in range(1, 30_001))
    scene.world.populate(scene.five, rows)
    for _ in range(5):
        assert scene.api.ids(scene.race, scene.five, modified_after_timestamp=T0 - 60_000) == []
    assert min(row.work_seconds for row in scene.world.log.of("participants")) < 0.02
    scene.world.advance(1)
    assert scene.world.bulk_assign(scene.five, 1) == 30_000
    page = scene.api.ids(scene.race, scene.five, modified_after_timestamp=T0 + 1, results_per_page=2500)
    assert len(page) == 2500


class Mirror:
    """The plainest mirror there is: deltas of both lists by the advised procedure (section 18)."""

    def __init__(self, api: Api, world: rsusim.World, race: int, events: list[int]) -> None:
        self.api, self.world, self.race, self.events = api, world, race, events
        self.active: dict[int, dict[str, Any]] = {}
        self.cursor = 0

    def sync(self) -> None:
        began = int(self.world.clock.time())
        for removed in (False, True):
            after = 0
            while True:
                listing = self.api.removed if removed else self.api.rows
                page = listing(
                    self.race,
                    *self.events,
                    results_per_page=7,
                    sort="registration_id ASC",
                    after_registration_id=after,
                    modified_after_timestamp=self.cursor - 60,
                    supports_nb="T",
                )
                for row in page:
                    number = row["registration_id"]
                    if not removed:
                        self.active[number] = row
                    elif number in self.active and (
                        row["last_modified_ts"] >= self.active[number]["last_modified"]
                    ):
                        del self.active[number]
                    after = number
                if len(page) < 7:
                    break
        self.cursor = began


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 1000))
def test_a_plain_mirror_of_deltas_equals_the_truth_after_a_life(seed: int) -> None:
    random = Random(seed)
    world = rsusim.World(seed=seed, now=NOW)
    account = world.add_partner("Peak Timing")
    race = world.add_race([account], timezone=random.choice(rsusim.worlds.ZONES))
    start = datetime(2026, 10, 2, 12)
    events = [world.add_event(race, str(i), start, team_count=3) for i in range(3)]
    events.append(world.bundle(race, events[:2]))
    with rsusim.Server(world) as server, httpx2.Client(verify=False, timeout=PATIENCE_SECONDS) as http:
        mirror = Mirror(Api(server, account, http), world, race, events)
        life = Life(world, seed, rate=0.02)
        for _ in range(6):
            world.quirks.publication_delay_seconds = random.choice((0, 0, 45))
            life.step(random.randrange(60, 4000))
            mirror.sync()
        world.advance(60)
        mirror.sync()
    truth = {row.registration_id: row for event in world.truth(account)[0].events for row in event.active}
    assert set(mirror.active) == set(truth)
    for number, row in mirror.active.items():
        assert row["bib_num"] == truth[number].bib_num
        assert row["event_id"] == truth[number].event_id
        assert row["last_modified"] == truth[number].last_modified
        for field in ("first_name", "last_name", "dob"):
            assert row["user"][field] == truth[number].fields[field]


def test_a_naive_start_is_wanted_and_unknown_ids_are_refused(world: rsusim.World) -> None:
    race = world.add_race()
    with pytest.raises(ValueError, match="naive"):
        world.add_event(race, start=NOW)
    with pytest.raises(KeyError):
        world.register(1)
    with pytest.raises(ValueError, match="does not go back"):
        world.advance(-1)
