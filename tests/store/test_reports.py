"""Answers for people: nothing skipped, nothing of another partner, and who had a bib before."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

import rsusim
from bibwire.domain.errors import SettingsError
from bibwire.engine.reports import SyncRequest
from bibwire.store import follow as following
from bibwire.store import watched
from bibwire.store.database import open_database
from bibwire.store.follow import follow
from bibwire.store.partners import Partner
from bibwire.store.reports import Change, Head, Reports
from tests.house import House
from tests.network import Network, network_to
from tests.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.every_postgres


class Scene:
    """One partner with one race, synced; Ada and Bob are in it."""

    def __init__(self, house: House, world: rsusim.World) -> None:
        self.house, self.world = house, world
        account = world.add_partner("Peak")
        self.race = world.add_race([account], "Harbor Lights", "America/Chicago")
        self.event = world.add_event(self.race, "10K", world.now.replace(tzinfo=None) + timedelta(days=2))
        self.ada = world.register(self.event, first_name="Ada", last_name="Lovelace")
        self.bob = world.register(self.event, first_name="Bob", last_name="Stone")
        self.partner: Partner = house.add_partner(account)
        house.sync()

    def bib(self, registration: int, bib: int | None) -> None:
        self.world.advance(30)
        self.world.assign_bib(registration, bib) if bib is not None else self.world.clear_bib(registration)
        self.house.sync()

    def head(self) -> Head:
        [head] = self.house.run(self.house.runtime.reports.heads())
        return head


@pytest.fixture
def world() -> rsusim.World:
    """A world of today, because the database's clock says how fresh a race is."""
    return rsusim.World(seed=1, now=datetime.now(UTC))


@pytest.fixture
def scene(house: House, world: rsusim.World) -> Scene:
    return Scene(house, world)


def test_lookup_says_who_has_the_bib_now_and_who_had_it_before(scene: Scene) -> None:
    scene.bib(scene.ada, 1234)
    scene.bib(scene.ada, 7)
    scene.bib(scene.bob, 1234)

    [answer] = scene.house.run(scene.house.runtime.reports.lookup(1234, scene.race))

    assert [holder.first_name for holder in answer.now] == ["Bob"]
    assert [(move.first_name, move.bib_from, move.bib_to) for move in answer.history] == [
        ("Bob", None, 1234),
        ("Ada", 1234, 7),
        ("Ada", None, 1234),
    ]
    assert answer.as_of is not None


def test_lookup_tells_of_a_holder_who_left_with_the_bib(scene: Scene) -> None:
    scene.bib(scene.ada, 1234)
    scene.world.advance(30)
    scene.world.remove(scene.ada)
    scene.house.sync()

    [answer] = scene.house.run(scene.house.runtime.reports.lookup(1234, scene.race))

    assert answer.now == []
    assert [(holder.first_name, holder.removed_reason) for holder in answer.removed] == [("Ada", "removed")]
    assert (answer.history[0].kind, answer.history[0].bib_from) == ("removed", 1234)


def test_lookup_of_an_unknown_race_names_those_there_are(scene: Scene) -> None:
    with pytest.raises(SettingsError, match=f"There are: {scene.race}"):
        scene.house.run(scene.house.runtime.reports.lookup(1, scene.race + 1))


def test_changes_come_in_order_in_steps_of_any_size_and_each_once(scene: Scene) -> None:
    for bib in (1, 2, 3, 4):
        scene.bib(scene.ada, bib)
    head = scene.head()

    for limit in (1, 2, 3, 100):
        seen: list[Change] = []
        while step := scene.house.run(
            scene.house.runtime.reports.changes(head, since=seen[-1].seq if seen else 0, limit=limit)
        ):
            seen += step
        assert [(change.bib_from, change.bib_to) for change in seen] == [(None, 1), (1, 2), (2, 3), (3, 4)]
        assert [change.race for change in seen] == ["Harbor Lights"] * 4


def test_the_last_changes_are_found_by_their_number(scene: Scene) -> None:
    for bib in (1, 2, 3):
        scene.bib(scene.ada, bib)
    head, answers = scene.head(), scene.house.runtime.reports

    since = scene.house.run(answers.seq_before_last(head, 2))

    assert [c.bib_to for c in scene.house.run(answers.changes(head, since=since))] == [2, 3]
    assert scene.house.run(answers.seq_before_last(head, 3)) <= 1
    assert scene.house.run(answers.seq_before_last(head, 99)) == 0


def test_following_hands_out_what_was_missed_and_what_comes_each_once(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So slow a poll that only a notice of the database can be what wakes it.
    monkeypatch.setattr(following, "POLL_SECONDS", 3600.0)
    monkeypatch.setattr(following, "BATCH", 1)
    for bib in (11, 12, 13):
        scene.bib(scene.ada, bib)

    async def watch() -> list[int | None]:
        feed = follow(scene.house.runtime.reports, since={})
        async with aclosing(feed), asyncio.timeout(PATIENCE_SECONDS):
            seen = [(await anext(feed)).bib_to for _ in range(3)]
            coming = asyncio.ensure_future(anext(feed))
            await asyncio.sleep(0.2)
            scene.world.advance(30)
            scene.world.assign_bib(scene.ada, 2)
            await scene.house.runtime.engine.sync(SyncRequest())
            seen.append((await coming).bib_to)
        return seen

    assert scene.house.run(watch()) == [11, 12, 13, 2]


def test_following_goes_on_when_its_connection_is_cut(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "POLL_SECONDS", 0.05)

    async def watch() -> int | None:
        feed = follow(scene.house.runtime.reports, since={scene.partner.partner_id: head.last_seq})
        async with aclosing(feed), asyncio.timeout(PATIENCE_SECONDS):
            coming = asyncio.ensure_future(anext(feed))
            with psycopg.connect(scene.house.runtime.conninfo, autocommit=True) as connection:
                cut = None
                while cut != (1,):  # it listens soon
                    await asyncio.sleep(0.02)
                    cut = connection.execute(
                        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                        "WHERE datname = current_database() AND query = 'LISTEN bibwire_changes'"
                    ).fetchone()
            scene.world.advance(30)
            scene.world.assign_bib(scene.ada, 5)
            await scene.house.runtime.engine.sync(SyncRequest())
            return (await coming).bib_to

    head = scene.head()
    assert scene.house.run(watch()) == 5


def test_following_goes_on_after_an_outage(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    monkeypatch.setattr(following, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(watched, "WAIT_SECONDS", 0.2)
    scene.bib(scene.ada, 1)

    async def watch(network: Network, conninfo: str) -> list[int | None]:
        async with (
            asyncio.timeout(PATIENCE_SECONDS),
            open_database(conninfo) as db,
            aclosing(follow(Reports(db), since={})) as feed,
        ):
            seen = [(await anext(feed)).bib_to]
            coming = asyncio.ensure_future(anext(feed))
            network.cut()
            await asyncio.sleep(3)
            assert not coming.done()
            network.restore()
            scene.world.advance(30)
            scene.world.assign_bib(scene.ada, 2)
            await scene.house.runtime.engine.sync(SyncRequest())
            return [*seen, (await coming).bib_to]

    with network_to(database_url) as (network, conninfo):
        assert scene.house.run(watch(network, conninfo)) == [1, 2]


def test_status_counts_calls_people_and_what_is_quarantined(scene: Scene) -> None:
    scene.world.advance(30)
    scene.world.set_raw(scene.bob, '{"registration_id": 1e400, "event_id": 1}')
    scene.house.sync()

    status = scene.house.run(scene.house.runtime.reports.status())

    [partner] = status.partners
    assert (partner.participants, partner.races, partner.events) == (2, 1, 1)
    assert partner.calls_last_hour == scene.world.log.calls
    assert partner.quarantined == sum(entry.records for entry in status.quarantine)
    assert [race.race for race in status.races] == ["Harbor Lights"]
    assert status.last_runs[0].outcome in ("ok", "partial")
    assert status.last_day[0].rows_inserted == 2


def test_status_tells_which_race_fails_and_why(scene: Scene) -> None:
    scene.world.advance(30)
    scene.world.faults.add(rsusim.Fault(path="participants", kind="error_7", times=None))
    scene.house.sync()

    [race] = scene.house.run(scene.house.runtime.reports.status()).races

    assert race.failing_since is not None
    assert race.last_error
