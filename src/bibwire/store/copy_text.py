"""
A registration as a line of COPY's text format, in the column order of `copy_participants`.

By hand, because a driver's general way (a dumper looked up for each value) takes longer than the
server needs for the row. Pure.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from bibwire.domain.merge import Stored
from bibwire.domain.records import JsonObject, Registration
from bibwire.store.feed import encode_json

NULL: Final = "\\N"
_HEX: Final = "\\\\x"  # begins a bytea; doubled, as every backslash is
_ESCAPES: Final = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def line(partner_id: int, r: Registration, standing: str, digest: bytes | None, seen: str) -> str:
    """
    Return one row, with its line end.

    Args:
        standing: From `standing` or `standing_of`.
        digest: For `raw_hash`.
        seen: First seen and changed at, from `moment`.
    """
    n = NULL
    first, middle, last, email, phone = r.first_name, r.middle_name, r.last_name, r.email, r.phone
    gender, city, state, country, chip = r.gender, r.city, r.state, r.country_code, r.chip_num
    texts = f"{first}{middle}{last}{email}{phone}{gender}{city}{state}{country}{chip}"
    if "\\" in texts or not texts.isprintable():
        first, middle, last, email, phone, gender, city, state, country, chip = (
            None if text is None else text.translate(_ESCAPES)
            for text in (first, middle, last, email, phone, gender, city, state, country, chip)
        )
    return (
        f"{partner_id}\t{r.registration_id}\t{n if r.event_id is None else r.event_id}"
        f"\t{n if r.user_id is None else r.user_id}\t{n if first is None else first}"
        f"\t{n if middle is None else middle}\t{n if last is None else last}"
        f"\t{n if email is None else email}\t{n if phone is None else phone}"
        f"\t{n if r.dob is None else r.dob.isoformat()}\t{n if gender is None else gender}"
        f"\t{n if r.age is None else r.age}\t{n if r.address is None else _json(r.address)}"
        f"\t{n if city is None else city}\t{n if state is None else state}"
        f"\t{n if country is None else country}\t{n if r.bib_num is None else r.bib_num}"
        f"\t{n if chip is None else chip}"
        f"\t{n if r.registered_at is None else r.registered_at.isoformat()}"
        f"\t{n if r.last_modified_at is None else r.last_modified_at.isoformat()}"
        f"\t{n if r.team_info is None else _json(r.team_info)}"
        f"\t{n if r.payment_info is None else _json(r.payment_info)}"
        f"\t{_json(r.additional_data)}\t{standing}"
        f"\t{n if digest is None else f'{_HEX}{digest.hex()}'}\t{seen}\t{seen}\n"
    )


def standing(*, race_id: int, as_of: datetime) -> str:
    """Return what a listing says of every row of its page: `race_id` to `new_registration_id`."""
    return "\t".join((str(race_id), moment(as_of), NULL, NULL, NULL))


def standing_of(row: Stored) -> str:
    """Return the same of one row."""
    return "\t".join(
        (
            str(row.race_id),
            moment(row.as_of),
            moment(row.removed_at),
            NULL if row.removed_reason is None else row.removed_reason.translate(_ESCAPES),
            NULL if row.new_registration_id is None else str(row.new_registration_id),
        )
    )


def moment(value: datetime | None) -> str:
    """Return an instant."""
    return NULL if value is None else value.isoformat()


def _json(value: JsonObject) -> str:
    # The encoder escapes all control characters, so only its backslashes are to be doubled.
    text = encode_json(value).decode()
    return text.replace("\\", "\\\\") if "\\" in text else text
