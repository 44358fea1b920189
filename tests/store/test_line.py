"""The most urgent call is next, and a place is never lost."""

from __future__ import annotations

import asyncio

from bibwire.store.line import Line


def test_the_most_urgent_is_next_and_then_the_first_come() -> None:
    async def live() -> list[str]:
        line, passed = Line(1), list[str]()

        async def come(name: str, rank: int) -> None:
            async with line.place(rank):
                passed.append(name)

        async with line.place(0):
            waiting = [
                asyncio.create_task(come(name, rank))
                for name, rank in (("cold 1", 2), ("hot 1", 1), ("cold 2", 2), ("person", 0), ("hot 2", 1))
            ]
            await asyncio.sleep(0)
        await asyncio.gather(*waiting)
        return passed

    assert asyncio.run(live()) == ["person", "hot 1", "hot 2", "cold 1", "cold 2"]


def test_who_leaves_the_line_takes_no_place_along() -> None:
    async def live() -> None:
        line = Line(2)

        async def come() -> None:
            async with line.place(0):
                await asyncio.sleep(0)

        for leaves_after in range(6):
            tasks = [asyncio.create_task(come()) for _ in range(8)]
            for _ in range(leaves_after):
                await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        async with line.place(0), line.place(0):
            third = asyncio.create_task(come())
            await asyncio.sleep(0)
            assert not third.done()
        await third

    asyncio.run(live())
