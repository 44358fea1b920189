"""
A worker as a process of its own: `python -m tests.store.jobs_child CONNINFO NAME SETTINGS`.

SETTINGS is JSON: `jobs` for Jobs(), `concurrency`, `graceful_seconds`. Its jobs write into the table
`ledger` what they do; SIGTERM makes it stop. Its log goes to standard error.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import Any

import psycopg

from bibwire import logs
from bibwire.store.database import open_database
from bibwire.store.jobs import PLANNER, Jobs, Periodic


class Ledger:
    """Writes down what this worker's jobs do, and reads which of them may end."""

    def __init__(self, conninfo: str, worker: str) -> None:
        self._conninfo = conninfo
        self._worker = worker

    async def note(self, job: str, what: str) -> None:
        async with await self._connect() as connection:
            await connection.execute(
                "INSERT INTO ledger (job, worker, what) VALUES (%s, %s, %s)", (job, self._worker, what)
            )

    async def may_end(self, job: str) -> bool:
        async with await self._connect() as connection:
            cursor = await connection.execute(
                "SELECT FROM gates WHERE job = %s AND worker IN (%s, '')", (job, self._worker)
            )
            return await cursor.fetchone() is not None

    async def _connect(self) -> psycopg.AsyncConnection[Any]:
        return await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True, connect_timeout=10)


async def main(conninfo: str, worker: str, settings: dict[str, Any]) -> None:
    logs.set_up(level="INFO")
    ledger = Ledger(conninfo, worker)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)

    async def quick(args: dict[str, Any], _: asyncio.Event) -> None:
        await ledger.note(args["job"], "begin")
        await ledger.note(args["job"], "end")

    async def gated(args: dict[str, Any], stopping: asyncio.Event) -> None:
        """Goes on until its gate is opened or its worker leaves."""
        await ledger.note(args["job"], "begin")
        while not await ledger.may_end(args["job"]):
            if stopping.is_set():
                await ledger.note(args["job"], "left")
                return
            await asyncio.sleep(0.02)
        await ledger.note(args["job"], "end")

    async def stubborn(args: dict[str, Any], _: asyncio.Event) -> None:
        """Goes on until its gate is opened, and hears nothing."""
        await gated(args, asyncio.Event())

    async def plan(_: dict[str, Any], __: asyncio.Event) -> None:
        await ledger.note("plan", "ran")

    async with open_database(conninfo) as db:
        await Jobs(db, **settings.get("jobs", {})).run_worker(
            {"quick": quick, "gated": gated, "stubborn": stubborn, PLANNER: plan},
            concurrency=settings.get("concurrency", 4),
            periodic=[Periodic(PLANNER, PLANNER, 1)],
            stop=stop,
            graceful_seconds=settings.get("graceful_seconds", 8.0),
        )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))
