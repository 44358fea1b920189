"""
A registration as a line for COPY, in the column order of `copy_participants`.

The line is a JSON array without its brackets, which one call of the encoder makes: to COPY's csv
format with a backslash as its escape sign that is a row, up to the control characters. JSON spells
them \\n or \\u001f, csv wants them as they are. A driver's general way (a dumper looked up for each
value) takes longer than the server needs for the row. Pure.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec

from bibwire.domain.merge import Stored
from bibwire.domain.records import JsonObject, Registration
from bibwire.store.feed import encode_json

# What is said of a row beside its record: `race_id` to `new_registration_id`.
Standing = tuple[int, datetime, datetime | None, Any, int | None]

_encode: Final = msgspec.json.Encoder().encode

# By identity, because ten Decimals take as long to be hashed as to be written. Each entry keeps
# its object, so that no other can have the same id.
_payments: dict[int, tuple[JsonObject | None, str | None]] = {}
_MOST_PAYMENTS: Final = 4096


def line(partner_id: int, r: Registration, standing: Standing, digest: bytes | None, seen: datetime) -> bytes:
    """
    Return one row, with its line end.

    Args:
        standing: From `standing` or `standing_of`.
        digest: For `raw_hash`.
        seen: First seen and changed at.
    """
    texts: tuple[Any, ...] = (r.first_name, r.middle_name, r.last_name, r.email, r.phone)
    texts += (r.gender, r.city, r.state, r.country_code, r.chip_num)
    first, middle, last, email, phone, gender, city, state, country, chip = texts
    if not f"{first}{middle}{last}{email}{phone}{gender}{city}{state}{country}{chip}".isprintable():
        first, middle, last, email, phone, gender, city, state, country, chip = map(_as_is, texts)
    row = (
        partner_id,
        r.registration_id,
        r.event_id,
        r.user_id,
        first,
        middle,
        last,
        email,
        phone,
        r.dob,
        gender,
        r.age,
        _json(r.address),
        city,
        state,
        country,
        r.bib_num,
        chip,
        r.registered_at,
        r.last_modified_at,
        _json(r.team_info),
        _payment(r.payment_info),
        _json(r.additional_data),
        *standing,
        None if digest is None else f"\\x{digest.hex()}",
        seen,
        seen,
    )
    return _encode(row)[1:-1] + b"\n"


def standing(*, race_id: int, as_of: datetime) -> Standing:
    """Return what a listing says of every row of its page."""
    return race_id, as_of, None, None, None


def standing_of(row: Stored) -> Standing:
    """Return the same of one row."""
    reason = _as_is(row.removed_reason)
    return row.race_id, row.as_of, row.removed_at, reason, row.new_registration_id


def _as_is(text: str | None) -> msgspec.Raw | None:
    """Return a text as csv wants it, control characters and all."""
    if text is None:
        return None
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return msgspec.Raw(f'"{escaped}"'.encode())


def _json(value: JsonObject | None) -> str | None:
    # Holds no control character: the encoder has escaped them, within this text.
    return None if value is None else encode_json(value).decode()


def _payment(value: JsonObject | None) -> str | None:
    """Return the text of what many registrations share."""
    known = _payments.get(id(value))
    if known is None:
        if len(_payments) >= _MOST_PAYMENTS:
            _payments.clear()
        known = _payments[id(value)] = value, _json(value)
    return known[1]
