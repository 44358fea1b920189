"""After an outage of the database a place for a call is free soon if its call is over, and not before."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from bibwire.domain.secrets import Secret
from bibwire.store import migrate
from bibwire.store.session import Place, Session, open_session
from tests.e2e.crew import Server, own_server
from tests.network import network_to
from tests.waiting import PATIENCE_SECONDS

CALLER = Secret("1.caller")
# A place that nobody gives back is free after 30 s; one that is given back, within two.
SOON_SECONDS = 12.0


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with own_server() as server:
        migrate.upgrade(server.conninfo)
        yield server


async def take(session: Session) -> Place:
    """Take a place for a call as soon as one is free, and use it."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (place := await session.take_place(CALLER, 2)) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    place.is_used = True
    return place


async def crash(server: Server, *, over: tuple[Session, Place] | None = None) -> None:
    """Let the server crash and start again; a call is over meanwhile."""
    loop = asyncio.get_running_loop()

    def meanwhile() -> None:
        if over is not None:
            session, place = over
            asyncio.run_coroutine_threadsafe(session.give_place_back(place), loop).result(PATIENCE_SECONDS)

    await asyncio.to_thread(server.crash, meanwhile)


def test_only_the_call_that_ended_while_the_database_was_away_makes_room(server: Server) -> None:
    async def run() -> None:
        async with open_session(server.conninfo) as ours:
            short, long = await take(ours), await take(ours)
            await crash(server, over=(ours, short))

            # Nobody of ours wants a place meanwhile.
            async with open_session(server.conninfo) as others:
                began = time.monotonic()
                place = await take(others)
                assert time.monotonic() - began < SOON_SECONDS
                # RunSignup still works on the other call.
                assert await ours.take_place(CALLER, 2) is None
                assert await others.take_place(CALLER, 2) is None
                await ours.give_place_back(long)
                await others.give_place_back(place)

    asyncio.run(run())


def test_the_process_itself_goes_on_at_once(server: Server) -> None:
    async def run() -> None:
        async with open_session(server.conninfo) as session:
            places = [await take(session), await take(session)]
            await crash(server, over=(session, places[0]))
            await session.give_place_back(places[1])

            assert await session.take_place(CALLER, 2) is not None
            assert await session.take_place(CALLER, 2) is not None
            assert await session.take_place(CALLER, 2) is None

    asyncio.run(run())
    forget(server)


def test_a_place_given_back_right_before_a_crash_stays_free(server: Server) -> None:
    async def run() -> None:
        async with (
            open_session(server.conninfo, silent_seconds=4) as session,
            open_session(server.conninfo) as others,
        ):
            places = [await take(session), await take(session)]
            for place in places:
                await session.give_place_back(place)
            await crash(server)

            began = time.monotonic()
            await take(others)
            await take(others)
            assert time.monotonic() - began < SOON_SECONDS

    with writing_late(server):
        asyncio.run(run())
    forget(server)


def test_a_place_taken_right_before_a_crash_stays_taken_however_the_server_commits(server: Server) -> None:
    async def run() -> None:
        async with open_session(server.conninfo) as session:
            await take(session)
            await take(session)
            await crash(server)

            assert await session.take_place(CALLER, 2) is None

    with writing_late(server, synchronous_commit="off"):
        asyncio.run(run())
    forget(server)


def test_a_call_goes_on_over_a_short_outage_and_keeps_its_place(database_url: str) -> None:
    with network_to(database_url) as (network, conninfo):

        async def run() -> None:
            # It is to be kept after 2.5 s, and broken off after 5.6.
            async with open_session(conninfo, call_seconds=7.5) as session:
                place = await take(session)
                async with session.holding(place):
                    network.cut()
                    await asyncio.sleep(3)
                    network.restore()
                    await asyncio.sleep(4)
                    async with open_session(database_url) as others:
                        await take(others)
                        assert await others.take_place(CALLER, 2) is None

        asyncio.run(run())


@contextmanager
def writing_late(server: Server, **settings: str) -> Iterator[None]:
    """Let the server keep in memory for seconds what nobody waits for."""
    with psycopg.connect(server.conninfo, autocommit=True) as connection:
        for name, value in {**settings, "wal_writer_delay": "10s"}.items():
            connection.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
        connection.execute("SELECT pg_reload_conf()")
    yield
    with psycopg.connect(server.conninfo, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM RESET ALL")
        connection.execute("SELECT pg_reload_conf()")


def forget(server: Server) -> None:
    """Leave the server as if no call had ever been made."""
    with psycopg.connect(server.conninfo, autocommit=True) as connection:
        connection.execute("TRUNCATE bibwire.call_places")
