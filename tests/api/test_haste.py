"""Who polls a race that people wait for hears that the vendor is silent before the call is given up."""

from __future__ import annotations

import asyncio

import pytest

from bibwire.api.haste import Haste, in_haste
from bibwire.domain.errors import VendorUnavailable
from tests.api.loopback import Reply, listing, person, reply, scene

QUIETLY = 0.05


def test_a_silence_is_told_while_the_call_goes_on() -> None:
    async def go() -> None:
        silent = asyncio.Event()
        haste = Haste(retry_seconds=0.0, timeout_seconds=3600.0, silent_seconds=QUIETLY, on_silent=silent.set)
        async with scene(Reply(before=3600)) as now:
            with in_haste(haste):
                asking = asyncio.create_task(anext(now.client.participants(1, [1])))
            await asyncio.wait(
                (asking, asyncio.create_task(silent.wait())), return_when=asyncio.FIRST_COMPLETED
            )

            assert silent.is_set()
            assert not asking.done()
            asking.cancel()
            await asyncio.wait((asking,))

    asyncio.run(go())


def test_who_answers_in_time_is_not_silent() -> None:
    told: list[None] = []

    async def go() -> None:
        haste = Haste(0.0, 3600.0, QUIETLY, on_silent=lambda: told.append(None))
        async with scene(reply(listing(person(7)))) as now:
            with in_haste(haste):
                await anext(now.client.participants(1, [1]))
            await asyncio.sleep(2 * QUIETLY)

    asyncio.run(go())
    assert not told


def test_a_call_in_haste_is_given_up_sooner_and_not_tried_again() -> None:
    async def go() -> None:
        haste = Haste(0.0, QUIETLY, 3600.0, on_silent=lambda: None)
        async with scene(Reply(before=3600)) as now:
            with in_haste(haste), pytest.raises(VendorUnavailable):
                await anext(now.client.participants(1, [1]))
            assert len(now.vendor.requests) == 1

    asyncio.run(go())
