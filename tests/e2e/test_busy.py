"""A race that another process is at work on is not said to be synced, unless that one has synced it since."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import datetime

import pytest

import rsusim
from bibwire.engine.reports import SyncReport, SyncRequest
from bibwire.engine.sweeper import LEASE_POLL_SECONDS
from bibwire.runtime import open_runtime
from bibwire.store import catalog
from tests.house import House, WorldClock

SATURDAY = datetime(2026, 9, 19, 8, 0)


@pytest.fixture
def race(house: House, world: rsusim.World) -> int:
    """The first of two mirrored races, where somebody has signed up since."""
    account = world.add_partner("Peak Timing")
    races = [world.add_race([account], name, "America/Chicago") for name in ("Harbor", "Frosty Toes")]
    events = [world.add_event(race, "5K", SATURDAY) for race in races]
    for event in events:
        world.register(event)
    house.add_partner(account)
    house.sync()
    world.advance(60)
    world.register(events[0])
    world.advance(60)
    return races[0]


def sync_while_held(
    house: House, world: rsusim.World, race: int, request: SyncRequest, *, swept_meanwhile: bool
) -> SyncReport:
    """Sync while another process holds a race; it may sweep it once somebody waits."""

    async def run() -> SyncReport:
        async with open_runtime(house.settings, clock=WorldClock(world)) as other:
            [partner] = await other.partners.list()
            [scope] = await catalog.live_scopes(other.db, partner.partner_id, now=world.now, race_id=race)
            async with (
                other.sweeper.leased(scope) as lease,
                other.open_client(partner, lambda _: None, lambda _: nullcontext()) as client,
            ):
                sleep, waiting = house.clock.sleep, False

                async def watched(seconds: float) -> None:
                    nonlocal waiting
                    if swept_meanwhile and seconds == LEASE_POLL_SECONDS and not waiting:
                        waiting = True
                        world.advance(1)
                        await other.sweeper.scope_sync(client, lease, scope, on_page=lambda _: None).run(
                            full=False
                        )
                    await sleep(seconds)

                house.clock.sleep = watched  # type: ignore[method-assign]
                return await house.runtime.engine.sync(request)

    return house.run(run())


def test_a_race_that_another_process_holds_is_named_as_not_done(
    house: House, world: rsusim.World, race: int
) -> None:
    report = sync_while_held(house, world, race, SyncRequest(), swept_meanwhile=False)

    assert [(error.race_id, "another process" in error.error) for error in report.errors] == [(race, True)]
    assert (report.races, report.races_synced, report.races_busy, report.exit_code) == (2, 1, 1, 3)
    [run] = house.rows(
        "SELECT * FROM bibwire.sync_history WHERE race_id = %(r)s ORDER BY 1 DESC LIMIT 1", r=race
    )
    assert run["outcome"] == "partial"
    [fresh] = house.rows("SELECT * FROM bibwire.freshness WHERE race_id = %(r)s", r=race)
    assert fresh["failing_since"] is None, "nothing is wrong with it"


def test_the_only_race_asked_for_left_to_another_process_is_not_all_well(
    house: House, world: rsusim.World, race: int
) -> None:
    report = sync_while_held(house, world, race, SyncRequest(race_id=race), swept_meanwhile=False)

    assert (report.races_synced, report.exit_code) == (0, 3)


def test_a_race_that_the_other_process_has_swept_since_is_synced(
    house: House, world: rsusim.World, race: int
) -> None:
    report = sync_while_held(house, world, race, SyncRequest(), swept_meanwhile=True)

    assert (report.errors, report.races_synced, report.exit_code) == ([], 2, 0)
    assert any("meanwhile" in note for note in report.notes)
    [people] = house.rows("SELECT count(*) AS n FROM bibwire.participants WHERE race_id = %(r)s", r=race)
    assert people["n"] == 2


def test_a_sweep_of_changes_is_no_full_listing(house: House, world: rsusim.World, race: int) -> None:
    report = sync_while_held(house, world, race, SyncRequest(full=True), swept_meanwhile=True)

    assert [error.race_id for error in report.errors] == [race]
    assert report.exit_code == 3
