"""What PostgreSQL says of an error goes on without the row it was about."""

from __future__ import annotations

import asyncio
import traceback

import pytest

from bibwire.domain.errors import BibwireError
from bibwire.store.database import open_database

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
