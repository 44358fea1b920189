"""
Small programs that tests run as processes of their own: `python -m tests.children NAME ARGUMENT...`

Each speaks to the real store. What it has to say goes to standard output, a line at a time.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import IO

from bibwire import logs
from bibwire.clock import SystemClock
from bibwire.domain.budget import Urgency
from bibwire.domain.errors import Blocked
from bibwire.domain.secrets import NOBODY, Secret
from bibwire.engine.backfill_reports import BackfillRequest
from bibwire.engine.reports import SyncRequest
from bibwire.runtime import open_runtime
from bibwire.settings import load_settings
from bibwire.store import leases, migrate
from bibwire.store.database import open_database
from bibwire.store.permits import Permits, in_flight
from bibwire.store.session import open_session

CALLER = Secret("1.caller")
ROOT = Path(__file__).parent.parent


def start(name: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    """Start one of the programs below."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.children", name, *(str(argument) for argument in arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def start_together(number: int, name: str, *arguments: object) -> list[subprocess.Popen[str]]:
    """Start one of the programs below that wait for a word, in several processes, and give it to all."""
    started = [start(name, *arguments) for _ in range(number)]
    for child in started:
        assert said(child).readline() == "ready\n"
    for child in started:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    return started


def said(child: subprocess.Popen[str]) -> IO[str]:
    """Return a child's standard output."""
    assert child.stdout is not None
    return child.stdout


def _wait_for_the_word() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


class _UsedUp(Exception):
    """The budget has no room."""


class _ImpatientClock(SystemClock):
    """Does not wait for the next hour."""

    async def sleep(self, seconds: float) -> None:
        if seconds >= 1:
            raise _UsedUp
        await super().sleep(seconds)


async def spend(conninfo: str, credential_id: str, calls: str, urgency: str = "live") -> None:
    """Make calls until the budget is used up or `calls` are made; say how many."""
    made = 0
    async with open_database(conninfo) as db, open_session(conninfo) as session:
        permits = Permits(
            db,
            session,
            _ImpatientClock(),
            credential_id=int(credential_id),
            caller=NOBODY,
            calls_in_flight=16,
            urgency=Urgency(urgency),
        )
        _wait_for_the_word()
        try:
            while made < int(calls):
                async with permits.permit("races"):
                    made += 1
        except _UsedUp:
            pass
    print(made)


async def wait_for_permit(conninfo: str, credential_id: str) -> None:
    """Ask for a permit, with a minute's patience; say what came of it."""
    async with open_database(conninfo) as db, open_session(conninfo) as session:
        permits = Permits(
            db, session, SystemClock(), credential_id=int(credential_id), caller=NOBODY, calls_in_flight=16
        )
        _wait_for_the_word()
        try:
            async with permits.permit("races", patience_seconds=60):
                print("let through")
        except Blocked as error:
            print(error)


async def call(conninfo: str, calls: str) -> None:
    """Hold a place for a call again and again, three at a time; say from when to when each time."""
    clock = SystemClock()
    async with open_session(conninfo) as session:
        _wait_for_the_word()

        async def one() -> None:
            for _ in range(int(calls)):
                async with in_flight(session, clock, CALLER, 2):
                    begun = time.monotonic()
                    await asyncio.sleep(0.01)
                    print(begun, time.monotonic())

        await asyncio.gather(one(), one(), one())


async def hold_places(conninfo: str, call_seconds: str = "30") -> None:
    """Hold both places of the caller until killed."""
    clock = SystemClock()
    async with (
        open_session(conninfo, call_seconds=float(call_seconds)) as session,
        in_flight(session, clock, CALLER, 2),
        in_flight(session, clock, CALLER, 2),
    ):
        print("held", flush=True)
        await asyncio.sleep(600)


async def hold_lease(conninfo: str, partner_id: str, race_id: str) -> None:
    """Hold the lease of a scope until killed."""
    async with open_database(conninfo) as db, open_session(conninfo) as session:
        lease = await leases.acquire(db, session, int(partner_id), int(race_id))
        print("held" if lease else "refused", flush=True)
        await asyncio.sleep(600)


async def stop_in_a_page(conninfo: str, partner_id: str, race_id: str) -> None:
    """Stand still in the middle of sending a page under a lease."""
    async with open_database(conninfo) as db, open_session(conninfo) as session:
        lease = await leases.acquire(db, session, int(partner_id), int(race_id))
        assert lease is not None
        async with db.transaction() as connection:
            await leases.hold(connection, lease)
            await connection.execute("CREATE TEMP TABLE page (id bigint)")
            async with connection.cursor().copy("COPY page FROM STDIN") as copy:
                await copy.write("1\n")
                print("sending", flush=True)
                os.kill(os.getpid(), signal.SIGSTOP)
        print("sent", flush=True)


async def sync(kind: str, page_size: str) -> None:
    """Sync what BIBWIRE_* names, `full` or `delta`; say each error and note."""
    settings = load_settings()
    logs.set_up(level="ERROR")
    async with open_runtime(settings, page_size=int(page_size)) as runtime:
        report = await runtime.engine.sync(SyncRequest(full=kind == "full"))
    for error in report.errors:
        print(error.race_id, error.error)
    for note in report.notes:
        print("note:", note)


async def backfill(page_size: str) -> None:
    """Load ten years of what BIBWIRE_* names; say each error and note."""
    settings = load_settings()
    logs.set_up(level="ERROR")
    async with open_runtime(settings, page_size=int(page_size)) as runtime:
        since = runtime.clock.now() - timedelta(days=3650)
        report = await runtime.backfill(BackfillRequest(since=since))
    for error in report.errors:
        print(error.race_id, error.error)
    for note in report.notes:
        print("note:", note)


async def upgrade(conninfo: str) -> None:
    """Bring the schema up to date."""
    migrate.upgrade(conninfo)
    print("done")


if __name__ == "__main__":
    programs = {
        each.__name__: each
        for each in (
            spend,
            wait_for_permit,
            call,
            hold_places,
            hold_lease,
            stop_in_a_page,
            sync,
            backfill,
            upgrade,
        )
    }
    asyncio.run(programs[sys.argv[1]](*sys.argv[2:]))
