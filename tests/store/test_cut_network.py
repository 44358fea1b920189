"""Where packets are dropped and nothing is closed, a connection is given up, and another one is used."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest

from bibwire.domain.errors import BibwireError, DatabaseUnavailable
from bibwire.domain.secrets import NOBODY
from bibwire.store import connections, jobs, jobs_engine, watched
from bibwire.store.database import open_database, with_time_outs
from bibwire.store.jobs import Jobs
from bibwire.store.session import open_session
from tests.network import network_to
from tests.relay import Relay, relay_to
from tests.waiting import PATIENCE_SECONDS


@pytest.fixture
def network(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Relay, str]]:
    """A relay, and how to reach the database through it; what is waited for in use is made short."""
    monkeypatch.setattr(watched, "SILENT_SECONDS", 0.5)
    monkeypatch.setattr(watched, "ASK_AGAIN_SECONDS", 0.2)
    monkeypatch.setattr(watched, "ASK_SECONDS", 2)
    monkeypatch.setattr(watched, "CHECK_SECONDS", 1.0)
    monkeypatch.setattr(connections, "CONNECT_SECONDS", 2)
    with relay_to(database_url) as (relay, conninfo):
        yield relay, with_time_outs(conninfo)


def test_a_statement_whose_answer_never_comes_is_given_up_and_the_next_one_works(
    network: tuple[Relay, str],
) -> None:
    relay, conninfo = network

    async def run() -> None:
        async with open_database(conninfo, connections=3) as db:
            # Three connections, all of them about to be dead.
            await asyncio.gather(*(db.fetch("SELECT pg_sleep(0.1)") for _ in range(3)))
            waiting = asyncio.create_task(db.fetch("SELECT pg_sleep(0.3)"))
            await asyncio.sleep(0.1)
            relay.cut()
            with pytest.raises(DatabaseUnavailable, match="lost"):
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await waiting
            relay.mend()
            started = time.monotonic()
            assert await asyncio.gather(*(db.fetch("SELECT 1") for _ in range(3))) == [[(1,)]] * 3
            assert time.monotonic() - started < 15

    asyncio.run(run())


def test_one_connection_that_was_lost_makes_those_as_old_be_opened_anew_unasked(
    network: tuple[Relay, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    relay, conninfo = network
    asked: list[int] = []
    ask = watched.Pool.check_connection

    async def asking(connection: watched.Watched) -> None:
        asked.append(connection.server_pid)
        await ask(connection)

    monkeypatch.setattr(watched.Pool, "check_connection", staticmethod(asking))
    monkeypatch.setattr(watched, "TRUSTED_SECONDS", -1.0)  # as if they had rested for a while

    async def run() -> None:
        async with open_database(conninfo, connections=3) as db:
            mine = "SELECT pg_backend_pid() FROM pg_sleep(0.1)"
            before = {row[0] for [row] in await asyncio.gather(*(db.fetch(mine) for _ in range(3)))}
            assert len(before) == 3
            relay.cut()
            relay.mend()
            asked.clear()
            async with asyncio.timeout(PATIENCE_SECONDS):
                [[after]] = await db.fetch(mine)
            assert after not in before
            assert len(before.intersection(asked)) == 1, "each would have taken its time to be given up"

    asyncio.run(run())


def test_a_path_that_swallows_answers_alone_is_noticed_by_asking_on_another_one(
    network: tuple[Relay, str],
) -> None:
    relay, conninfo = network

    async def run() -> None:
        async with open_database(conninfo, connections=1) as db:
            waiting = asyncio.create_task(db.fetch("SELECT pg_sleep(0.3)"))
            await asyncio.sleep(0.1)
            relay.cut()
            relay.mend()  # the server can be asked, and has long forgotten about it
            with pytest.raises(DatabaseUnavailable, match="does not work on one"):
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await waiting

    asyncio.run(run())


def test_a_statement_that_takes_long_is_not_cut(network: tuple[Relay, str]) -> None:
    _, conninfo = network

    async def run() -> None:
        async with open_database(conninfo, connections=1) as db:
            assert await db.fetch("SELECT 1 FROM pg_sleep(3)") == [(1,)]
            async with db.transaction() as holding:  # nor one that waits for another's lock
                await holding.execute("SELECT pg_advisory_xact_lock(7)")
                async with open_database(conninfo, connections=1) as other:
                    waiting = asyncio.create_task(other.fetch("SELECT pg_advisory_lock(7)"))
                    await asyncio.sleep(2)
                    assert not waiting.done()
                    await holding.execute("COMMIT")
                    await waiting

    asyncio.run(run())


def test_a_session_comes_back_under_another_number_and_takes_places(network: tuple[Relay, str]) -> None:
    relay, conninfo = network

    async def run() -> None:
        async with open_session(conninfo, silent_seconds=2) as session:
            before = session.instance
            relay.cut()
            with suppress(DatabaseUnavailable):
                await session.take_place(NOBODY, 2)
            relay.mend()
            async with asyncio.timeout(PATIENCE_SECONDS):
                assert await session.take_place(NOBODY, 2) is not None
            assert session.instance != before

    asyncio.run(run())


def test_a_worker_does_what_was_queued_meanwhile_and_what_it_had_in_hand(
    network: tuple[Relay, str], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "LONGEST_BACKOFF_SECONDS", 0.5)
    monkeypatch.setattr(jobs_engine, "LISTEN_SECONDS", 0.5)
    relay, conninfo = network
    done: list[str] = []

    async def run() -> None:
        begun, stop = asyncio.Event(), asyncio.Event()

        async def task(args: dict[str, object], _: asyncio.Event) -> None:
            if args["job"] == "in hand" and not begun.is_set():
                begun.set()
                await asyncio.Event().wait()
            done.append(str(args["job"]))

        async def queue(name: str) -> None:
            async with open_database(database_url) as direct, direct.transaction() as connection:
                await Jobs(direct).defer(connection, "task", {"job": name}, lock=name, queueing_lock=name)

        async with open_database(conninfo) as db:
            # A rescue by the clock would come much later.
            working = asyncio.create_task(
                Jobs(db, heartbeat_seconds=0.5, rescue_every_seconds=300, poll_seconds=0.5).run_worker(
                    {"task": task}, concurrency=2, periodic=(), stop=stop, graceful_seconds=1
                )
            )
            await queue("in hand")
            async with asyncio.timeout(PATIENCE_SECONDS):
                await begun.wait()
                relay.cut()
                await queue("meanwhile")
                await asyncio.sleep(4)
                relay.mend()
                while set(done) != {"in hand", "meanwhile"}:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
                stop.set()
                await working

    asyncio.run(run())


def test_what_a_command_asks_first_has_an_end(
    network: tuple[Relay, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    relay, conninfo = network
    with connections.connect(conninfo) as connection:
        connection.limit = 0.5
        relay.cut()
        with pytest.raises(psycopg.OperationalError, match="in time"):
            connection.execute("SELECT 1")


def test_who_cannot_connect_is_told_so(network: tuple[Relay, str]) -> None:
    relay, conninfo = network
    relay.cut()

    async def run() -> None:
        with pytest.raises(BibwireError):
            async with open_session(conninfo):
                pass

    asyncio.run(run())


def test_a_server_that_refuses_is_told_within_seconds_with_the_reason(database_url: str) -> None:
    with network_to(database_url) as (network, conninfo):

        async def run() -> float:
            async with open_database(conninfo) as db:
                await db.fetch("SELECT 1")
                network.cut()
                began = time.monotonic()
                with pytest.raises(DatabaseUnavailable, match="refused"):
                    await db.fetch("SELECT 1")
                return time.monotonic() - began

        assert asyncio.run(run()) < 9


def test_who_waits_while_all_connections_are_in_use_is_not_told_of_an_outage(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched, "WAIT_SECONDS", 0.2)

    async def run() -> object:
        async with open_database(database_url, connections=1) as db:
            busy = asyncio.create_task(db.fetch("SELECT pg_sleep(1)"))
            await asyncio.sleep(0.1)
            found = await db.fetch("SELECT 1")
            await busy
            return found

    assert asyncio.run(run()) == [(1,)]


def test_a_connection_that_was_closed_a_moment_ago_is_not_lent(database_url: str) -> None:
    """It is not tried, since it answered a moment ago. That it was closed is heard all the same."""

    async def run() -> None:
        async with open_database(database_url, connections=1) as db:
            [[before]] = await db.fetch("SELECT pg_backend_pid()")
            async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as dba:
                await dba.execute("SELECT pg_terminate_backend(%s, 5000)", (before,))
            [[after]] = await db.fetch("SELECT pg_backend_pid()")
            assert after != before

    asyncio.run(run())


def test_a_connection_in_use_is_not_tried_each_time_it_is_lent(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    execute = psycopg.AsyncCursor.execute

    async def executing(cursor: psycopg.AsyncCursor[Any], query: Any, *args: Any, **options: Any) -> object:
        tried.append(query)
        return await execute(cursor, query, *args, **options)

    monkeypatch.setattr(psycopg.AsyncCursor, "execute", executing)
    monkeypatch.setattr(watched, "TRUSTED_SECONDS", 3600.0)  # however slow this machine is

    async def run() -> None:
        async with open_database(database_url, connections=1) as db:
            for _ in range(5):
                await db.fetch("SELECT 1")
            assert tried.count("") == 0
            monkeypatch.setattr(watched, "TRUSTED_SECONDS", -1.0)
            await db.fetch("SELECT 1")
            assert tried.count("") == 1

    asyncio.run(run())
