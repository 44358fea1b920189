"""Places: never more held than there are, and none lost or gained, however a wait ends."""

from __future__ import annotations

import asyncio

import pytest

from bibwire.engine.gate import Gate, aside


async def free_places(gate: Gate, most: int) -> int:
    """Return how many places can be had right now."""
    had, enough = 0, asyncio.Event()

    async def one() -> None:
        nonlocal had
        async with gate.place():
            had += 1
            await enough.wait()

    tasks = [asyncio.create_task(one()) for _ in range(most)]
    for _ in range(3 * most):
        await asyncio.sleep(0)
    enough.set()
    found = had
    await asyncio.gather(*tasks)
    return found


def test_no_more_than_there_are() -> None:
    async def live() -> None:
        assert await free_places(Gate(2), 5) == 2

    asyncio.run(live())


def test_who_waits_lets_another_in_and_comes_back_after_it() -> None:
    order: list[str] = []

    async def live() -> None:
        gate, waited = Gate(1), asyncio.Event()

        async def waiting() -> None:
            async with gate.place():
                order.append("in")
                async with aside():
                    await waited.wait()
                order.append("again")

        async def other() -> None:
            async with gate.place():
                waited.set()
                await asyncio.sleep(0)
                order.append("other")

        async with asyncio.TaskGroup() as group:
            group.create_task(waiting())
            group.create_task(other())
        assert await free_places(gate, 3) == 1

    asyncio.run(live())
    assert order == ["in", "other", "again"]


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_wait_that_ends_by_an_error_neither_loses_a_place_nor_gains_one(cancelled: bool) -> None:
    async def live() -> None:
        gate = Gate(2)

        async def failing() -> None:
            async with gate.place(), aside():
                if cancelled:
                    await asyncio.Event().wait()
                raise ValueError

        task = asyncio.create_task(failing())
        await asyncio.sleep(0)
        if cancelled:
            task.cancel()
        await asyncio.wait([task])
        assert await free_places(gate, 5) == 2

    asyncio.run(live())


def test_who_gives_up_while_coming_back_takes_no_place_along() -> None:
    async def live() -> None:
        gate, held, coming = Gate(1), asyncio.Event(), asyncio.Event()

        async def waiting() -> None:
            async with gate.place(), aside():
                await held.wait()
                coming.set()

        async def holding() -> None:
            async with gate.place():
                held.set()
                await coming.wait()
                await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                assert task.cancelled()

        task = asyncio.create_task(waiting())
        await asyncio.sleep(0)
        await holding()
        assert await free_places(gate, 3) == 1

    asyncio.run(live())


def test_without_a_place_there_is_none_to_leave() -> None:
    async def live() -> None:
        async with aside():
            pass

    asyncio.run(live())


def test_two_tasks_of_one_place_that_step_aside_come_back_to_it_once() -> None:
    async def live() -> None:
        gate = Gate(2)

        async def child() -> None:
            async with aside():
                await asyncio.sleep(0)

        async with gate.place(), asyncio.TaskGroup() as group:
            group.create_task(child())
            group.create_task(child())
        assert await free_places(gate, 5) == 2

    asyncio.run(live())
