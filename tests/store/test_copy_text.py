"""What is written as COPY text by hand is read back as it was, whatever signs stand in it."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import psycopg
from psycopg.types.json import set_json_loads

from bibwire.domain.merge import Stored
from bibwire.domain.records import Registration
from bibwire.store import copy_text
from bibwire.store.database import _decode_json, statements

NASTY = (
    "\\N",
    "\\",
    "a\tb",
    "a\nb\r\n",
    "\\.",
    "a\n\\.\nb",
    "]\n[",
    "null",
    'a \t"b"\\"',
    "",
    "None",
    "\x01\x7f\x85\u2028",
    "é 王 👟",
    'a "b"',
    "C:\\new\\table",
)
COLUMNS = (
    "registration_id, event_id, user_id, first_name, middle_name, last_name, email, phone, dob, gender, age, "
    "address, city, state, country_code, bib_num, chip_num, registered_at, last_modified_at, team_info, "
    "payment_info, additional_data, race_id, as_of, removed_at, removed_reason, new_registration_id"
)
NOON = datetime(2026, 9, 12, 16, 0, tzinfo=UTC)


def _registration(registration_id: int, text: str) -> Registration:
    return Registration(
        registration_id=registration_id,
        event_id=2,
        user_id=None,
        first_name=text,
        middle_name=None,
        last_name=text,
        email=text,
        phone=text,
        dob=date(1, 2, 3),
        gender=text,
        age=-1,
        address={"street": text, text: [text, None, True]},
        city=text,
        state=text,
        country_code=text,
        bib_num=0,
        chip_num=text,
        registered_at=datetime(2026, 11, 1, 5, 30, 1, 250000, tzinfo=UTC),
        last_modified_at=None,
        team_info={"team_name": text},
        payment_info={"amount_paid": Decimal(f"74.{registration_id:02}")},
        additional_data={text: text, "n": Decimal("1.10")},
    )


def test_every_text_comes_back_as_it_was(database_url: str) -> None:
    rows = [
        Stored(
            registration=_registration(number, text),
            race_id=9,
            as_of=NOON,
            removed_at=NOON,
            removed_reason=text,
            new_registration_id=None,
        )
        for number, text in enumerate(NASTY, 1)
    ]
    digest = bytes(range(16))
    with psycopg.connect(database_url) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        set_json_loads(_decode_json, connection)
        with connection.cursor().copy(statements("loader")["copy_participants"]) as copy:
            for row in rows:
                copy.write(copy_text.line(1, row.registration, copy_text.standing_of(row), digest, NOON))
        found = connection.execute(
            f"SELECT {COLUMNS} FROM bibwire.participants ORDER BY registration_id".encode()
        ).fetchall()
        digests = connection.execute("SELECT DISTINCT raw_hash FROM bibwire.participants").fetchall()

    width = len(Registration.__dataclass_fields__)
    assert [Stored(Registration(*row[:width]), *row[width:]) for row in found] == rows
    assert digests == [(digest,)]


def test_a_listing_says_of_each_row_that_it_is_active() -> None:
    row = Stored(registration=_registration(1, "Ada"), race_id=9, as_of=NOON)

    assert copy_text.standing(race_id=9, as_of=NOON) == copy_text.standing_of(row)
