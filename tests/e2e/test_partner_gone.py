"""A partner is removed while a command works for it, at whichever call: that is told in a sentence."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final

import pytest

import rsusim
from bibwire.domain.errors import BibwireError
from bibwire.engine.backfill_reports import BackfillRequest
from bibwire.engine.reconcile import ReconcileRequest
from bibwire.engine.reports import SyncRequest
from bibwire.engine.verify import VerifyRequest
from bibwire.runtime import Runtime, open_runtime
from tests.house import House

GOING, STAYING = "Peak Timing", "Lakeside Race Services"
MOST_CALLS: Final = 60


async def sync(runtime: Runtime) -> list[str]:
    report = await runtime.engine.sync(SyncRequest(full=True))
    return [error.error for error in report.errors]


async def reconcile(runtime: Runtime) -> list[str]:
    report = await runtime.reconcile(ReconcileRequest())
    return [error.error for error in report.errors]


async def backfill(runtime: Runtime) -> list[str]:
    report = await runtime.backfill(BackfillRequest(since=runtime.clock.now() - timedelta(days=730)))
    return [error.error for error in report.errors]


async def verify(runtime: Runtime) -> list[str]:
    report = await runtime.verifier.verify(await runtime.engine.chosen(None), VerifyRequest(seed=1))
    return [check.seen for check in report.checks]


async def discover(runtime: Runtime) -> list[str]:
    for partner in await runtime.engine.chosen(None):
        await runtime.discover(partner)
    return []


async def lookup_live(runtime: Runtime) -> list[str]:
    rows = await runtime.db.fetch(
        "SELECT s.race_id FROM bibwire.scopes AS s JOIN bibwire.partners AS p USING (partner_id)"
        " WHERE p.name = %(name)s",
        name=GOING,
    )
    report = await runtime.engine.lookup_live(GOING, rows[0][0], 101, within_seconds=8)
    return [error.error for error in report.errors]


def world_of_two(world: rsusim.World) -> None:
    for name in (GOING, STAYING):
        account = world.add_partner(name)
        for number in range(2):
            race = world.add_race([account], f"{name} {number}")
            for start in (datetime(2026, 10, 4, 8), datetime(2026, 5, 2, 8), datetime(2025, 5, 3, 8)):
                event = world.add_event(race, "5K", start)
                for _ in range(3):
                    world.register(event)


@pytest.mark.parametrize("command", [sync, reconcile, backfill, verify, discover, lookup_live])
def test_a_partner_removed_at_any_call_is_told_in_a_sentence(
    house: House,
    world: rsusim.World,
    caplog: pytest.LogCaptureFixture,
    command: Callable[[Runtime], Coroutine[Any, Any, list[str]]],
) -> None:
    world_of_two(world)
    going, staying = (world.accounts[name] for name in (GOING, STAYING))
    house.add_partner(staying)

    async def remove() -> None:
        async with open_runtime(house.settings, clock=house.clock) as other:
            await other.partners.remove(GOING)

    remover = ThreadPoolExecutor(1)
    for number in range(1, MOST_CALLS):
        house.add_partner(going)
        if command is not backfill:
            assert house.sync().errors == []
        world.log.clear()
        left = number

        def strike(info: rsusim.RequestInfo) -> None:
            nonlocal left
            left -= info.account == GOING
            if info.account == GOING and left == 0:
                # The simulated vendor's thread has a loop of its own, and waits until it is done.
                remover.submit(asyncio.run, remove()).result()

        world.before_answer(strike)
        told: list[str] = []
        with suppress(BibwireError):
            told = house.run(command(house.runtime))
        world.clear_hooks()
        assert not [text for text in told if "nexpected" in text], (number, told)
        assert not [record for record in caplog.records if record.levelno >= logging.ERROR], number
        if left > 0:
            break
        assert house.rows("SELECT FROM bibwire.partners WHERE name = %(name)s", name=GOING) == []
    assert number > 1
    assert left > 0
