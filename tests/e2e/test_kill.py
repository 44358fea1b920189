"""
A process may die or freeze at any moment: the next run ends at the world, and hardly asks twice.

The victims are real processes that sync against the simulator of this one. They are killed (-9)
just before or some milliseconds after an answer, so that commits are hit too.
"""

from __future__ import annotations

import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from random import Random

import psycopg
import pytest

import rsusim
from bibwire.domain.secrets import Secret
from rsusim.log import RequestInfo
from tests import children
from tests.e2e import truth
from tests.house import KEY, House
from tests.waiting import PATIENCE_SECONDS

PAGE = 20
PEOPLE = 50
STREAMS = ("participants", "removed-participants")


@pytest.fixture
def world() -> rsusim.World:
    """Two partners and three races, one of them shared; time runs, as it does for the victims."""
    world = rsusim.World(seed=1, now=datetime.now(UTC))
    peak, lakeside = world.add_partner("Peak Timing"), world.add_partner("Lakeside Race Services")
    for owners in ([peak], [peak, lakeside], [lakeside]):
        race = world.add_race(owners, None, "America/Denver")
        first, second = (world.add_event(race, name) for name in ("10K", "5K"))
        for number in range(PEOPLE):
            world.register(first if number % 3 else second, bib_num=number if number % 4 else None)
        for registration_id in [world.register(first) for _ in range(PAGE + 5)]:
            world.remove(registration_id)
    world.advance(3600)
    world.clock.run(1)
    return world


class Scene:
    """The house of the world, and how victims are started in it."""

    def __init__(self, house: House, database_url: str) -> None:
        self.house = house
        self.world = house.world
        self._environment = {
            "BIBWIRE_DATABASE_URL": database_url,
            "BIBWIRE_API_URL": house.settings.api_url,
            "BIBWIRE_SECRET_KEY": KEY,
        }
        for account in self.world.accounts.values():
            house.add_partner(account)

    def start(self, kind: str) -> subprocess.Popen[str]:
        program = ("backfill",) if kind == "backfill" else ("sync", kind)
        return children.start(*program, PAGE, **self._environment)

    def sync(self, kind: str) -> str:
        """Sync in a process that is left alone; return what it said of errors."""
        child = self.start(kind)
        said, _ = child.communicate(timeout=PATIENCE_SECONDS)
        assert child.returncode == 0
        return said

    def sync_struck(
        self,
        kind: str,
        at: int,
        *,
        before: bool,
        delay: float,
        by: signal.Signals = signal.SIGKILL,
        endpoint: str | None = None,
    ) -> subprocess.Popen[str]:
        """
        Sync in a process that gets a signal `delay` seconds after its call number `at`.

        Args:
            before: Before that call is answered, else after.
            endpoint: Count its calls of this one alone.
        """
        struck = threading.Event()
        seen: list[int] = []
        timers: list[threading.Timer] = []

        def strike() -> None:
            child.send_signal(by)
            struck.set()

        def hook(info: RequestInfo) -> None:
            if endpoint not in (None, info.endpoint):
                return
            seen.append(info.number)
            if len(seen) == at:
                timers.append(threading.Timer(delay, strike))
                timers[0].start()
            elif len(seen) > at:
                # However fast it is, it gets no further than what was answered by then.
                struck.wait(PATIENCE_SECONDS)

        (self.world.before_answer if before else self.world.after_answer)(hook)
        child = self.start(kind)
        while not struck.wait(0.005) and child.poll() is None:
            pass
        for timer in timers:
            timer.cancel()
            timer.join()
        self.world.clear_hooks()
        return child

    def check(self) -> None:
        """The mirror equals the world, the feed is whole."""
        accounts = tuple(self.world.accounts.values())
        truth.assert_mirror_equals_world(self.house.rows, self.world, *accounts)
        truth.assert_feed_is_sound(self.house.rows, *accounts)
        truth.assert_no_cursor_is_ahead(self.house.rows, self.world)

    def check_feed_has_no_gap(self) -> None:
        [gaps] = self.house.rows(
            """
            SELECT count(*) AS number
            FROM bibwire.feed_heads AS h
            LEFT JOIN (
                SELECT partner_id, count(*) AS changes, max(seq) AS last FROM bibwire.changes GROUP BY 1
            ) AS c USING (partner_id)
            WHERE (coalesce(c.changes, 0), coalesce(c.last, 0)) <> (h.last_seq, h.last_seq)
            """
        )
        assert gaps["number"] == 0

    def asked_again(self) -> dict[tuple[str | None, int | None], int]:
        """Return by scope how many pages were asked for more than once."""
        positions = Counter(
            (info.account, info.race_id, info.endpoint, tuple(sorted(info.query.items())))
            for info in self.world.log.requests
            if info.endpoint in STREAMS
        )
        again: Counter[tuple[str | None, int | None]] = Counter()
        for (account, race_id, _, _), times in positions.items():
            again[account, race_id] += times - 1
        return dict(again)


@pytest.fixture
def scene(world: rsusim.World, simulator: rsusim.Server, database_url: str) -> Iterator[Scene]:
    # Places of its own, as another caller: a victim that is frozen keeps those it has.
    with House(
        world,
        simulator.base_url,
        database_url,
        caller_reg=Secret(world.caller.registration),
        caller_secret=Secret(world.caller.secret),
    ) as house:
        yield Scene(house, database_url)


def kill(scene: Scene, kind: str, random: Random, times: int, between: Callable[[], None]) -> int:
    """Kill one victim after the other, then let one end its work; return how many died at work."""
    killed = 0
    for _ in range(times):
        victim = scene.sync_struck(
            kind,
            # Every run asks for the two lists of races first.
            at=random.randint(3, 7),
            before=random.random() < 0.3,
            delay=random.uniform(0, 0.03),
        )
        said, _ = victim.communicate(timeout=PATIENCE_SECONDS)
        assert said == ""
        scene.check_feed_has_no_gap()
        killed += victim.returncode == -signal.SIGKILL
        between()
    assert scene.sync(kind) == ""
    return killed


@pytest.mark.slow
def test_a_first_load_killed_again_and_again_ends_at_the_world(scene: Scene) -> None:
    killed = kill(scene, "delta", Random(1), 8, lambda: None)

    assert killed == 8
    assert max(scene.asked_again().values()) <= killed
    scene.check()


@pytest.mark.slow
def test_a_delta_killed_again_and_again_ends_at_the_world(scene: Scene) -> None:
    assert scene.sync("delta") == ""
    scene.world.advance(1200)
    for event in list(scene.world.events):
        scene.world.bulk_assign(event, 500)
    for registration_id in [scene.world.active(event)[0] for event in scene.world.events]:
        scene.world.remove(registration_id)
    scene.world.advance(1)
    scene.world.log.clear()

    killed = kill(scene, "delta", Random(3), 5, lambda: None)

    assert killed == 5
    assert max(scene.asked_again().values()) <= killed
    scene.check()


@pytest.mark.slow
def test_life_goes_on_while_processes_are_killed(scene: Scene) -> None:
    random = Random(4)
    world = scene.world

    def live() -> None:
        for event in list(world.events):
            active = world.active(event)
            world.assign_bib(random.choice(active), random.randint(1, 900))
            world.edit(random.choice(active), first_name=f"Ada {random.random()}")
            world.register(event, bib_num=random.randint(1, 900))
            world.remove(random.choice(active))
        world.advance(2)

    kill(scene, "delta", random, 5, live)
    world.advance(2)
    assert scene.sync("delta") == ""

    scene.check()


@pytest.mark.slow
@pytest.mark.parametrize("first", [2, 3])
def test_a_full_sync_killed_anywhere_is_taken_up_where_it_was(scene: Scene, first: int) -> None:
    """Each victim dies at another call of the full sync; one run more ends it."""
    random = Random(first)
    world = scene.world
    scene.house.run(scene.house.runtime.partners.remove("Lakeside Race Services"))
    assert scene.sync("delta") == ""
    for at in range(first, 12, 2):
        world.advance(60)
        world.log.clear()
        victim = scene.sync_struck("full", at, before=at % 3 == 0, delay=random.uniform(0, 0.03))
        assert victim.communicate(timeout=PATIENCE_SECONDS)[0] == ""
        if scene.house.rows("SELECT FROM bibwire.partners WHERE full_sync_since IS NULL"):
            continue  # it had come to its end
        said = scene.sync("full").splitlines()
        assert all(line.startswith("note: ") for line in said), said

        again = scene.asked_again()
        assert max(again.values()) <= 1, f"killed at call {at}: {again}"
        asked = [info for info in world.log.requests if info.endpoint in STREAMS]
        assert not any("modified_after_timestamp" in info.query for info in asked)
        # Two scopes: 50 people stand on three pages, 25 removed on two.
        pages = Counter(endpoint for endpoint, _ in {(i.endpoint, str(i.query)) for i in asked})
        assert pages == {"participants": 2 * 3, "removed-participants": 2 * 2}
    truth.assert_mirror_equals_world(scene.house.rows, world, "Peak Timing")
    truth.assert_feed_is_sound(scene.house.rows, "Peak Timing")


@pytest.mark.slow
def test_who_was_frozen_while_another_took_over_writes_nothing(scene: Scene) -> None:
    house = scene.house
    victim = scene.sync_struck("delta", at=5, before=True, delay=0, by=signal.SIGSTOP)
    try:
        held = house.rows("SELECT race_id FROM bibwire.scopes WHERE lease_instance IS NOT NULL")
        assert held, "the victim was stopped before it had a scope"
        # Two minutes pass: the server ends transactions that stand still, and leases run out.
        house.rows(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'bibwire'"
            " AND state <> 'idle'"
        )
        house.rows("UPDATE bibwire.scopes SET lease_expires_at = now() - interval '1 s' RETURNING 1")
        assert house.sync().errors == []
        scene.check()
        told = house.rows("SELECT * FROM bibwire.changes ORDER BY partner_id, seq")
        stored = house.rows("SELECT xmin::text, * FROM bibwire.participants ORDER BY 2, 3")
    finally:
        victim.send_signal(signal.SIGCONT)
    said, _ = victim.communicate(timeout=PATIENCE_SECONDS)

    if victim.returncode == 0:
        assert "by another process" in said
    assert house.rows("SELECT * FROM bibwire.changes ORDER BY partner_id, seq") == told
    assert house.rows("SELECT xmin::text, * FROM bibwire.participants ORDER BY 2, 3") == stored
    assert house.sync().errors == []
    scene.check()


@pytest.mark.every_postgres
def test_a_scope_taken_over_between_two_pages_gets_nothing_more(
    world: rsusim.World, simulator: rsusim.Server, database_url: str
) -> None:
    asked: list[int] = []

    def take_over(info: RequestInfo) -> None:
        if info.endpoint == "participants":
            asked.append(info.number)
            if len(asked) == 2:
                with psycopg.connect(database_url, autocommit=True) as other:
                    other.execute("UPDATE bibwire.scopes SET lease_epoch = lease_epoch + 1")

    with House(world, simulator.base_url, database_url, page_size=PAGE) as house:
        house.add_partner(world.accounts["Peak Timing"])
        race = min(world.races)
        world.before_answer(take_over)
        report = house.sync(race=race)
        world.clear_hooks()

        # Whoever took it over keeps it fresh; this run did not, and says so.
        assert [error.error for error in report.errors] == [f"Race {race} was taken over by another process."]
        assert report.exit_code == 3
        assert house.rows("SELECT count(*) AS people FROM bibwire.participants") == [{"people": PAGE}]
        assert house.rows("SELECT FROM bibwire.streams WHERE cursor_at IS NOT NULL") == []
        assert house.kinds() == []
        house.rows("UPDATE bibwire.scopes SET lease_instance = NULL RETURNING 1")
        assert house.sync().errors == []
        truth.assert_mirror_equals_world(house.rows, world, "Peak Timing")
