"""An error of PostgreSQL goes on without the row it was about; who went away is told from who refuses."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable

import pytest

from bibwire.domain.errors import BibwireError, DatabaseCutOff, DatabaseUnavailable
from bibwire.store.database import Database, open_database
from tests.network import network_to

PERSON = "Jane Q. Runner"


@pytest.mark.every_postgres
@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("INSERT INTO bibwire.partners (name) VALUES (%(it)s), (%(it)s)", "constraint partners_name_key"),
        (
            "INSERT INTO bibwire.races (partner_id, race_id, name) VALUES (1, 7, %(it)s)",
            "column first_seen_at",
        ),
        ("SELECT %(it)s::text::integer", "InvalidTextRepresentation (22P02)"),
        ("SELECT CAST(%(it)s::text AS date)", "22007"),
        ("SELECT %(it)s::text || chr(0)", "null character not permitted"),
    ],
)
def test_an_error_names_kind_and_constraint_and_quotes_nobody(
    statement: str, told: str, database_url: str
) -> None:
    async def run() -> None:
        async with open_database(database_url, connections=1) as db:
            await db.fetch(statement, it=PERSON)

    with pytest.raises(BibwireError) as caught:
        asyncio.run(run())

    assert told in str(caught.value)
    assert "Jane" not in "".join(traceback.format_exception(caught.value))


def error_of(database_url: str, fail: Callable[[Database], Awaitable[object]]) -> BibwireError:
    """Return what something ends with."""

    async def go() -> BibwireError:
        async with open_database(database_url) as db:
            with pytest.raises(BibwireError) as caught:
                await fail(db)
            return caught.value

    return asyncio.run(go())


@pytest.mark.parametrize(
    "statement",
    ["SELECT pg_terminate_backend(pg_backend_pid())", "SET idle_in_transaction_session_timeout = 1"],
    ids=["ended", "stood still"],
)
def test_a_session_that_the_server_ended_was_cut_off(database_url: str, statement: str) -> None:
    async def fail(db: Database) -> None:
        async with db.transaction() as connection:
            await connection.execute(statement.encode())
            await asyncio.sleep(0.2)
            await connection.execute("SELECT 1")

    assert isinstance(error_of(database_url, fail), DatabaseCutOff)


def test_a_network_that_is_gone_cuts_off(database_url: str) -> None:
    with network_to(database_url) as (network, conninfo):

        async def fail(db: Database) -> None:
            network.cut()
            await db.check()

        assert isinstance(error_of(conninfo, fail), DatabaseCutOff)


# A full disk, no memory, no room, a lock, a time-out, a disk that fails: said as the server says it.
@pytest.mark.parametrize("code", ["53100", "53200", "53300", "55P03", "57014", "58030"])
def test_a_server_that_is_there_and_cannot_do_it_cuts_nothing_off(database_url: str, code: str) -> None:
    async def fail(db: Database) -> None:
        async with db.transaction() as connection:
            await connection.execute(
                f"DO $$ BEGIN RAISE 'on purpose' USING ERRCODE = '{code}'; END $$".encode()
            )

    error = error_of(database_url, fail)
    assert isinstance(error, DatabaseUnavailable)
    assert not isinstance(error, DatabaseCutOff)


def test_who_waits_in_vain_for_a_free_connection_was_not_cut_off(database_url: str) -> None:
    async def go() -> BibwireError:
        async with open_database(database_url, connections=1) as db:
            db._pool.timeout = 0.2
            async with db.transaction():
                with pytest.raises(DatabaseUnavailable) as caught:
                    await db.check()
            return caught.value

    assert not isinstance(asyncio.run(go()), DatabaseCutOff)
