"""History: loaded once, whole, without fear of interruption, and after everything else."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random

import pytest

import rsusim
from bibwire.domain.secrets import Secret
from bibwire.engine import backfill as engine
from bibwire.engine.backfill_reports import BackfillProgress, BackfillReport, BackfillRequest
from tests.e2e import truth
from tests.e2e.simulation import Simulation, busiest_hour, polls, utc
from tests.e2e.test_kill import Scene
from tests.house import House
from tests.waiting import PATIENCE_SECONDS

YEAR = timedelta(days=365)
HOUR = timedelta(hours=1)


@pytest.fixture
def world() -> rsusim.World:
    return rsusim.World(seed=4, now=utc("2026-09-12T16:00:00+00:00"))


@pytest.fixture
def server(world: rsusim.World) -> Iterator[rsusim.Server]:
    with rsusim.Server(world) as server:
        yield server


def a_race(
    world: rsusim.World,
    *accounts: rsusim.Account,
    years: tuple[int, ...] = (2026, 2025, 2024),
    people: int = 12,
    events: tuple[str, ...] = ("10K", "5K"),
) -> int:
    """A race on October 3rd of each of these years, with people who came, left, and wear bibs."""
    race = world.add_race(list(accounts), f"Autumn Run {len(world.races)}", "America/Denver")
    for year in sorted(years):
        for name in events:
            event = world.add_event(race, name, datetime(year, 10, 3, 8))
            for number in range(people):
                registration = world.register(event, bib_num=number + 1 if number % 3 else None)
                if number % 5 == 4:
                    world.remove(registration)
    return race


def backfill(house: House, *, years: float = 10, **wanted: object) -> BackfillReport:
    request = BackfillRequest(since=house.world.now - years * YEAR, **wanted)  # type: ignore[arg-type]
    return house.run(house.runtime.backfill(request))


def check(house: House, *accounts: rsusim.Account) -> None:
    truth.assert_mirror_equals_world(house.rows, house.world, *accounts, every_event=True)
    truth.assert_feed_is_sound(house.rows, *accounts)


def endpoints(world: rsusim.World) -> Counter[str]:
    return Counter(info.endpoint for info in world.log.requests)


def events_of(world: rsusim.World, race: int, year: int) -> list[int]:
    return [number for number in world.races[race].event_ids if world.events[number].start.year == year]


def test_all_years_are_loaded_with_the_live_events(
    world: rsusim.World, server: rsusim.Server, database_url: str
) -> None:
    peak, lakeside = world.add_partner("Peak Timing"), world.add_partner("Lakeside Race Services")
    a_race(world, peak)
    a_race(world, peak, lakeside)
    a_race(world, lakeside, years=(2024, 2023))  # nothing to come: the list shows 2024 alone
    with House(world, server.base_url, database_url) as house:
        house.add_partner(peak)
        house.add_partner(lakeside)
        told: list[tuple[bool, int, int]] = []

        def watch(progress: BackfillProgress) -> None:
            told.append((progress.counting, progress.left_calls, progress.left_people))

        request = BackfillRequest(since=world.now - 10 * YEAR)
        report = house.run(house.runtime.backfill(request, watch))

        assert not report.errors
        assert (report.races, report.races_loaded, report.races_before) == (4, 4, 0)
        check(house, peak, lakeside)
        # What it would cost was said before the first page of people, and is what it cost.
        begin = next(left for counting, *left in told if not counting)
        asked = endpoints(world)
        assert begin[1] == sum(
            len(world.active(event))
            for owners in (peak, lakeside)
            for race in world.races
            if world.may_read(owners.name, race)
            for event in world.races[race].event_ids
        )
        assert asked["race"] == 4
        assert asked["races"] == 2
        # A list of several events is held against the counts; a live one the first time, a past one always.
        assert asked["teams"] == 4
        listed = asked["participants"] + asked["removed-participants"] + asked["teams"]
        assert begin[0] <= listed <= begin[0] + 2 * 3
        assert {row["outcome"] for row in house.rows("SELECT outcome FROM bibwire.sync_history")} == {"ok"}


def test_a_finished_backfill_does_nothing(
    world: rsusim.World, server: rsusim.Server, database_url: str
) -> None:
    peak = world.add_partner("Peak Timing")
    a_race(world, peak)
    with House(world, server.base_url, database_url) as house:
        house.add_partner(peak)
        backfill(house)
        world.log.clear()
        before = house.rows("SELECT * FROM bibwire.changes ORDER BY seq")

        report = backfill(house)

        assert world.log.calls == 0
        assert (report.calls, report.races, report.races_before, report.races_loaded) == (0, 1, 1, 0)
        assert house.rows("SELECT * FROM bibwire.changes ORDER BY seq") == before


def test_an_earlier_since_loads_only_what_is_older(
    world: rsusim.World, server: rsusim.Server, database_url: str
) -> None:
    peak = world.add_partner("Peak Timing")
    race = a_race(world, peak)
    with House(world, server.base_url, database_url) as house:
        house.add_partner(peak)
        house.sync()
        assert backfill(house, years=1).errors == []
        last_year = {row["event_id"] for row in house.rows("SELECT event_id FROM bibwire.participants")}
        assert last_year == {*events_of(world, race, 2026), *events_of(world, race, 2025)}
        world.log.clear()

        backfill(house)

        asked = [info.query["event_id"] for info in world.log.of("participants")]
        assert asked == [",".join(map(str, events_of(world, race, 2024)))]
        check(house, peak)
        loaded = house.rows(
            "SELECT kind, fields FROM bibwire.changes WHERE kind LIKE '%%loaded' ORDER BY seq"
        )
        assert [(row["kind"], sorted(row["fields"].get("event_ids", []))) for row in loaded] == [
            ("loaded", []),
            ("history_loaded", events_of(world, race, 2025)),
            ("history_loaded", events_of(world, race, 2024)),
        ]


def test_until_and_race_narrow_it(world: rsusim.World, server: rsusim.Server, database_url: str) -> None:
    peak = world.add_partner("Peak Timing")
    race, other = a_race(world, peak), a_race(world, peak)
    with House(world, server.base_url, database_url) as house:
        house.add_partner(peak)
        backfill(house, until=utc("2025-01-01T00:00:00+00:00"), race_id=race)

        stored = {row["event_id"] for row in house.rows("SELECT event_id FROM bibwire.participants")}
        assert stored == set(events_of(world, race, 2024))
        assert other not in {info.race_id for info in world.log.requests}
        assert house.kinds() == []  # the first load of its live events tells of the race
        house.sync()
        assert house.kinds() == ["loaded", "loaded"]
        truth.assert_feed_is_sound(house.rows, peak)


def test_what_changed_of_an_event_that_was_known_is_told(
    world: rsusim.World, server: rsusim.Server, database_url: str
) -> None:
    """An event that was live is listed once more when it is over: its late corrections are found."""
    peak = world.add_partner("Peak Timing")
    race = a_race(world, peak, years=(2026,))
    with House(world, server.base_url, database_url) as house:
        house.add_partner(peak)
        house.sync()
        world.advance(40 * 86_400)
        person = world.active(events_of(world, race, 2026)[0])[0]
        world.edit(person, first_name="Corrected")
        world.assign_bib(person, 777)

        report = backfill(house)

        assert (report.participants.updated, report.participants.inserted) == (1, 0)
        assert house.bib_changes()[-1][0::2] == (person, 777)
        check(house, peak)


def test_an_empty_list_takes_nobody_for_gone(
    world: rsusim.World, server: rsusim.Server, database_url: str
) -> None:
    """Lost rights look like empty lists."""
    peak = world.add_partner("Peak Timing")
    race = a_race(world, peak, years=(2026,))
    with House(world, server.base_url, database_url) as house:
        house.add_partner(peak)
        house.sync()
        active = house.rows("SELECT registration_id FROM bibwire.participants WHERE removed_at IS NULL")
        world.advance(40 * 86_400)
        for event in world.races[race].event_ids:
            for person in world.active(event):
                world.vanish(person)

        backfill(house)

        query = "SELECT registration_id FROM bibwire.participants WHERE removed_at IS NULL"
        assert house.rows(query) == active


def test_a_list_of_events_that_comes_out_short_is_asked_for_one_by_one(
    world: rsusim.World, server: rsusim.Server, database_url: str
) -> None:
    peak = world.add_partner("Peak Timing")
    race = a_race(world, peak)
    world.quirks.comma_list = "first_only"
    with House(world, server.base_url, database_url) as house:
        house.add_partner(peak)

        report = backfill(house)

        assert not report.errors
        assert any(f"Race {race}" in note and "one at a time" in note for note in report.notes)
        check(house, peak)


def test_a_single_event_that_comes_out_short_is_listed_once_more(
    world: rsusim.World, server: rsusim.Server, database_url: str
) -> None:
    peak = world.add_partner("Peak Timing")
    race = a_race(world, peak, years=(2025,), events=("10K",))
    world.faults.add(rsusim.Fault(path="participants", race_id=race, kind="skip_rows", count=2))
    with House(world, server.base_url, database_url) as house:
        house.add_partner(peak)
        assert backfill(house).errors == []
        assert len(world.log.of("participants")) == 2
        check(house, peak)


def test_a_list_that_is_short_at_its_end_is_listed_again_from_its_begin(
    world: rsusim.World, server: rsusim.Server, database_url: str
) -> None:
    """Nobody knows which of its pages lacked somebody."""
    peak = world.add_partner("Peak Timing")
    race = a_race(world, peak, years=(2025,), events=("10K",))  # ten people stand on three pages
    world.faults.add(rsusim.Fault(path="participants", race_id=race, kind="skip_rows", count=1, nth=3))
    with House(world, server.base_url, database_url, page_size=4) as house:
        house.add_partner(peak)
        assert backfill(house).errors == []
        asked = ["after_registration_id" in info.query for info in world.log.of("participants")]
        assert asked == [False, True, True, False, True, True]
        check(house, peak)


def test_counts_that_mean_something_else_are_no_reason_never_to_end(
    world: rsusim.World, server: rsusim.Server, database_url: str
) -> None:
    peak = world.add_partner("Peak Timing")
    a_race(world, peak, years=(2025, 2024))
    world.quirks.counts_off_by = 2
    with House(world, server.base_url, database_url) as house:
        house.add_partner(peak)

        report = backfill(house)

        assert report.errors == []
        assert any("twice" in note for note in report.notes)
        check(house, peak)
        assert backfill(house).calls == 0


def test_an_event_that_shows_nobody_and_counts_some_is_an_error_and_mended_by_the_next_run(
    world: rsusim.World, server: rsusim.Server, database_url: str
) -> None:
    peak = world.add_partner("Peak Timing")
    race = a_race(world, peak, years=(2025,), events=("10K",))
    other = a_race(world, peak, years=(2025,), events=("10K",))
    world.faults.add(rsusim.Fault(path="participants", race_id=race, kind="no_rows", times=None))
    with House(world, server.base_url, database_url) as house:
        house.add_partner(peak)

        report = backfill(house)

        assert [error.race_id for error in report.errors] == [race]
        assert "counts" in report.errors[0].error
        assert report.exit_code == 3
        assert house.rows("SELECT FROM bibwire.changes WHERE race_id = %(race)s", race=other)
        assert not house.rows("SELECT FROM bibwire.changes WHERE race_id = %(race)s", race=race)
        world.faults.clear()
        assert backfill(house).errors == []
        check(house, peak)


@pytest.mark.parametrize("kind", ["error_7", "error_201", "http_500", "html_200"])
def test_a_race_that_fails_is_set_aside_and_tried_again_at_the_end(
    kind: str, world: rsusim.World, server: rsusim.Server, database_url: str
) -> None:
    peak = world.add_partner("Peak Timing")
    races = [a_race(world, peak, years=(2025,)) for _ in range(4)]
    world.faults.add(rsusim.Fault(path="participants", race_id=races[0], kind=kind, times=None))
    with House(world, server.base_url, database_url, retry_seconds=0) as house:
        house.add_partner(peak)

        report = backfill(house)

        assert [error.race_id for error in report.errors] == [races[0]]
        asked = [info.race_id for info in world.log.of("participants")]
        first_again = len(asked) - 1 - asked[::-1].index(races[0])
        assert all(race in asked[:first_again] for race in races)
        assert report.races_loaded == 3
        [row] = house.rows("SELECT * FROM bibwire.backfills WHERE failing_since IS NOT NULL")
        assert (row["race_id"], row["last_error"]) == (races[0], report.errors[0].error)


def test_a_dry_run_says_the_cost_and_loads_nothing(
    world: rsusim.World, server: rsusim.Server, database_url: str
) -> None:
    peak = world.add_partner("Peak Timing")
    a_race(world, peak)
    with House(world, server.base_url, database_url) as house:
        house.add_partner(peak)
        report = backfill(house, dry_run=True)

        # People, those removed, and the teams, for which a list each is enough.
        assert (report.left_calls, report.races_loaded) == (3, 0)
        assert report.left_people > 0
        assert not world.log.of("participants")
        assert not house.rows("SELECT FROM bibwire.participants")


def test_live_changes_come_in_time_while_history_is_loaded_under_its_ceiling(
    world: rsusim.World, server: rsusim.Server, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Moved time has to know who sleeps.
    monkeypatch.setattr(engine, "RACES_AT_ONCE", 1)
    peak = world.add_partner("Peak Timing")
    hot = world.add_race([peak], "Tonight", "America/Denver")
    tonight = world.add_event(hot, "10K", datetime(2026, 9, 12, 13))
    for year in range(2016, 2026):
        old = world.add_event(hot, "10K", datetime(year, 9, 12, 13))
        for _ in range(30):
            world.register(old)
    people = [world.register(tonight) for _ in range(60)]
    for _ in range(40):
        a_race(world, peak, years=(2025, 2024), people=3)
    limit = 500
    done: list[BackfillReport] = []

    async def check_in(simulation: Simulation) -> None:
        for bib, person in enumerate(people, start=1):
            await simulation.clock.sleep(60)
            world.assign_bib(person, bib)

    async def load(simulation: Simulation) -> None:
        request = BackfillRequest(since=world.now - 12 * YEAR)
        done.append(await simulation.runtime.backfill(request))

    async def live() -> None:
        async with Simulation(world, server.base_url, database_url, workers=2) as simulation:
            await simulation.add_partner(peak, calls_per_hour=limit)
            await simulation.run_until(world.now + HOUR / 6)
            begin = world.now
            simulation.happen(check_in(simulation))
            simulation.happen(load(simulation))
            while not done and world.now < begin + 12 * HOUR:
                await simulation.run_until(world.now + HOUR)

            assert [report.errors for report in done] == [[]]
            asked = polls(world)[peak.name, hot]
            inside = [at for at in asked if begin.timestamp() <= at <= (begin + 3 * HOUR).timestamp()]
            assert max(b - a for a, b in pairwise(inside)) <= 65
            lag = simulation.rows(
                "SELECT max(extract(epoch FROM seen_at - modified_at)) AS most FROM bibwire.bib_changes"
            )
            assert lag[0]["most"] <= 66
            assert busiest_hour(world)[peak.name] <= limit
            spent = simulation.rows(
                "SELECT max(spent) AS most FROM ("
                " SELECT sum(backfill) OVER (ORDER BY minute RANGE BETWEEN '60 minutes' PRECEDING"
                " AND CURRENT ROW) AS spent FROM bibwire.call_minutes) AS hours"
            )
            assert 50 < spent[0]["most"] <= limit // 2
            truth.assert_mirror_equals_world(simulation.rows, world, peak, every_event=True)
            truth.assert_feed_is_sound(simulation.rows, peak)

    asyncio.run(live())


@pytest.fixture
def old_world() -> rsusim.World:
    """Two partners with history; time runs, as it does for the victims."""
    world = rsusim.World(seed=1, now=datetime.now(UTC))
    peak, lakeside = world.add_partner("Peak Timing"), world.add_partner("Lakeside Race Services")
    this_year = world.now.year
    for owners in ([peak], [peak, lakeside], [lakeside]):
        race = world.add_race(owners, None, "America/Denver")
        for year in (this_year - 1, this_year - 2):
            for name in ("10K", "5K"):
                event = world.add_event(race, name, datetime(year, 6, 6, 8))
                registered = [world.register(event) for _ in range(45)]
                for registration in registered[:25]:
                    world.remove(registration)
        event = world.add_event(race, "10K")
        for _ in range(30):
            world.register(event)
    world.advance(3600)
    world.clock.run(1)
    return world


def test_twenty_kills_cost_a_page_each_at_most(old_world: rsusim.World, database_url: str) -> None:
    with (
        rsusim.Server(old_world) as server,
        House(
            old_world,
            server.base_url,
            database_url,
            caller_reg=Secret(old_world.caller.registration),
            caller_secret=Secret(old_world.caller.secret),
        ) as house,
    ):
        scene = Scene(house, database_url)
        random = Random(20)
        kills = 0
        while kills < 20:
            victim = scene.sync_struck(
                "backfill", random.randint(2, 5), before=random.random() < 0.5, delay=random.uniform(0, 0.03)
            )
            assert victim.communicate(timeout=PATIENCE_SECONDS)[0] == ""
            if victim.returncode != -signal.SIGKILL:
                break
            kills += 1
        assert kills >= 15
        assert scene.sync("backfill") == ""
        accounts = tuple(old_world.accounts.values())
        truth.assert_mirror_equals_world(house.rows, old_world, *accounts, every_event=True)
        truth.assert_feed_is_sound(house.rows, *accounts)
        # A victim had three races in hand at most, each with one call that is made again.
        assert max(scene.asked_again().values()) <= kills
        asked = Counter((info.account, info.path, str(info.query)) for info in old_world.log.requests)
        assert sum(number - 1 for number in asked.values()) <= 3 * kills
