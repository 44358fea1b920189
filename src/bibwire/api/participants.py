"""
One raw record -> a Registration or a Removal. Pure; the hot path of a first load.

Each modelled field is taken out of the decoded object into its column, and what is left over
is `additional_data`. A value that does not fit its column goes back where it was, as sent, so
that columns and `additional_data` together always hold the whole record. Null, absent, and for
numbers and money the empty string, are the same thing: None.
"""

from __future__ import annotations

from datetime import date, datetime
from functools import lru_cache
from typing import Any, Final

import msgspec

from bibwire.api.exact import decode_record, plain_int
from bibwire.api.fields import int4, positive, put_back, take, take_bib, take_text
from bibwire.domain.errors import BadRecord
from bibwire.domain.instants import from_epoch, parse_eastern, parse_iso_date, parse_registered
from bibwire.domain.money import parse_money
from bibwire.domain.records import JsonObject, Registration, Removal

_TOP_32: Final = 1 << 31
_TOP_64: Final = 1 << 63

_TEAM: Final = (
    "team_id",
    "team_name",
    "team_type_id",
    "team_type",
    "team_gender",
    "team_bib_num",
)
_OF_PERSON: Final = frozenset(
    [
        "user_id",
        "first_name",
        "middle_name",
        "last_name",
        "email",
        "phone",
        "dob",
        "gender",
        "address",
    ]
)
_MONEY: Final = (
    "race_fee",
    "offline_payment_amount",
    "processing_fee",
    "processing_fee_paid_by_user",
    "processing_fee_paid_by_race",
    "partner_fee",
    "affiliate_profit",
    "extra_fees",
    "amount_paid",
    "usatf_discount_amount_in_cents",
)


_BIB: Final = b'"bib_num":'
_MODIFIED: Final = b'"last_modified":'
# Of so many digits each number fits its column.
_BIB_DIGITS: Final = 9
_EPOCH_DIGITS: Final = 10


class _Moving(msgspec.Struct, gc=False):
    bib_num: Any = msgspec.UNSET
    last_modified: Any = msgspec.UNSET


_moving: Final = msgspec.json.Decoder(_Moving)


def without_bib(raw: bytes) -> bytes | None:
    """
    Return a record's text without the values of its bib and of its last change.

    Two records with the same are the same in all else: what is left out is null or a plain number
    that fits its column, and stands at the same place. None if it is not so simple.
    """
    bib, modified = raw.find(_BIB), raw.find(_MODIFIED)
    if not 0 <= bib < modified:
        return None
    bib += len(_BIB)
    bib_end = raw.find(b",", bib, bib + _BIB_DIGITS + 1)
    value = raw[bib:bib_end]
    if bib_end < 0 or not (value.isdigit() or value == b"null"):
        return None
    modified += len(_MODIFIED)
    end = raw.find(b",", modified, modified + _EPOCH_DIGITS + 1)
    if end < 0 or not raw[modified:end].isdigit():
        return None
    return raw[:bib] + raw[bib_end:modified] + raw[end:]


def bib_and_time(raw: bytes) -> tuple[int | None, datetime] | None:
    """
    Return the bib and the time of the last change, if they are what `without_bib` left out.

    None if these stand anywhere else, or a second time. JSON text holds a quote only behind a
    backslash, so that a key and its colon are never part of a text.
    """
    if raw.count(_BIB) != 1 or raw.count(_MODIFIED) != 1:
        return None
    try:
        moving = _moving.decode(raw)
    except (ValueError, RecursionError):
        return None
    bib, modified = moving.bib_num, moving.last_modified
    shown = b"null" if bib is None else b"%d" % bib if type(bib) is int else b""
    at = raw.find(_BIB) + len(_BIB)
    if not shown or raw[at : at + len(shown) + 1] != shown + b",":
        return None
    at = raw.find(_MODIFIED) + len(_MODIFIED)
    moment = from_epoch(modified) if type(modified) is int else None
    if moment is None or raw[at : at + _EPOCH_DIGITS + 1].split(b",")[0] != b"%d" % modified:
        return None
    return bib, moment


def decode_participant(raw: bytes, event_id: int | None = None) -> Registration:
    """
    Return an active registration.

    Args:
        event_id: The event the answer's envelope names, if it does; the row's own wins.

    Raises:
        BadRecord: If it has no usable ids or holds what PostgreSQL cannot; the reason names
            nobody.
    """
    record = decode_record(raw)
    last_modified_at = take(record, "last_modified", from_epoch)
    return _registration(record, last_modified_at, event_id)


def decode_removed(raw: bytes, event_id: int | None) -> Removal:
    """
    Return a registration that left its event.

    Args:
        event_id: As above.

    Raises:
        BadRecord: As above, and if nothing says when it was removed.
    """
    record = decode_record(raw)
    removed_at = _take_removed_at(record)
    if removed_at is None:
        raise BadRecord("the removed row says neither in seconds nor as a date when it left")
    reason = record.pop("removed_reason", None)
    if type(reason) is not str:
        if reason is not None:
            record["removed_reason"] = reason
        reason = "unknown"
    new_id = take(record, "new_registration_id", positive)
    said = _said(record)
    registration = _registration(record, removed_at, event_id)
    return Removal(registration.registration_id, removed_at, reason, new_id, registration, said)


def _said(record: dict[str, Any]) -> frozenset[str]:
    """Return the columns of a person that a removed row speaks of."""
    user = record.get("user")
    said = _OF_PERSON.intersection(user) if type(user) is dict else frozenset[str]()
    if "address" in said:
        said |= {"city", "state", "country_code"}
    return said | {"age"} if "age" in record else said


def _take_removed_at(record: dict[str, Any]) -> datetime | None:
    """Take the epoch and its text; the text stays if it says something else."""
    removed_at = take(record, "last_modified_ts", from_epoch)
    text = record.get("last_modified")
    moment = parse_eastern(text) if type(text) is str else None
    if moment is not None:
        readings = (moment.instant, moment.second_instant)
        if removed_at is None:
            removed_at = moment.instant
        if removed_at in readings and not moment.in_gap:
            del record["last_modified"]
    elif text is None:
        record.pop("last_modified", None)
    return removed_at


def _registration(
    record: dict[str, Any], last_modified_at: datetime | None, enclosing_event_id: int | None
) -> Registration:
    pop = record.pop
    registration_id = pop("registration_id", None)
    if type(registration_id) is not int or not 0 < registration_id < _TOP_64:
        registration_id = positive(registration_id)
        if registration_id is None:
            raise BadRecord("the registration_id is missing or not a positive 64-bit number")
    event_id = pop("event_id", None)
    if event_id is None:
        event_id = enclosing_event_id
    elif type(event_id) is not int or not 0 < event_id < _TOP_64:
        event_id = positive(event_id)
        if event_id is None:
            raise BadRecord("the event_id is not a positive 64-bit number")

    user = record.get("user")
    if type(user) is dict:
        address = user.pop("address", None)
        if type(address) is dict:
            city = _part(address, "city")
            state = _part(address, "state")
            country_code = _part(address, "country_code")
        else:
            if address is not None:
                user["address"] = address
            address = city = state = country_code = None
    else:
        if user is None:
            pop("user", None)
        user = {}
        address = city = state = country_code = None

    bib_num = take_bib(record, "bib_num")

    chip = pop("chip_num", None)
    if type(chip) is int:
        chip = str(chip)
    elif chip is not None and type(chip) is not str:
        record["chip_num"] = chip
        chip = None

    registered = pop("registration_date", None)
    registered_at = None
    if registered is not None:
        moment = None
        if type(registered) is str:
            moment = parse_registered(registered, last_modified_at)
        if moment is not None:
            registered_at = moment.instant
        if moment is None or moment.in_gap:
            record["registration_date"] = registered

    team: JsonObject | None = None
    for key in _TEAM:
        value = pop(key, None)
        if value is not None:
            if team is None:
                team = {}
            team[key] = value
    sent = [pop(key, None) for key in _MONEY]
    try:
        amounts = _amounts(*sent)
    except TypeError:  # not even hashable
        amounts = None
    payment = amounts if amounts is not None else _take_money(record, sent)

    user_id = user.pop("user_id", None)
    if type(user_id) is not int or not -_TOP_64 <= user_id < _TOP_64:
        user_id = put_back(user, "user_id", user_id, plain_int)
    age = pop("age", None)
    if type(age) is not int or not -_TOP_32 <= age < _TOP_32:
        age = put_back(record, "age", age, int4)

    # By position: this runs once for each row of a first load.
    registration = Registration(
        registration_id,
        event_id,
        user_id,
        take_text(user, "first_name"),
        take_text(user, "middle_name"),
        take_text(user, "last_name"),
        take_text(user, "email"),
        take_text(user, "phone"),
        take(user, "dob", _dob),
        take_text(user, "gender"),
        age,
        address,
        city,
        state,
        country_code,
        bib_num,
        chip,
        registered_at,
        last_modified_at,
        team,
        payment or None,
        record,
    )
    if not user and type(record.get("user")) is dict:
        del record["user"]
    return registration


@lru_cache(maxsize=4096)
def _amounts(*sent: object) -> JsonObject | None:
    """
    Read a record's money, the fields in the order of `_MONEY`; None if one of them is no amount.

    The same few sums stand in thousands of records of an event.
    """
    amounts: JsonObject = {}
    for key, value in zip(_MONEY, sent, strict=True):
        if value is None or value == "":
            continue
        amount = parse_money(value) if type(value) is str else None
        if amount is None:
            return None
        amounts[key] = amount
    return amounts


def _take_money(record: dict[str, Any], sent: list[Any]) -> JsonObject:
    """Read the amounts there are; put back, as sent, what is none."""
    amounts: JsonObject = {}
    for key, value in zip(_MONEY, sent, strict=True):
        if value is not None and value != "":
            amount = parse_money(value) if type(value) is str else None
            if amount is None:
                record[key] = value
            else:
                amounts[key] = amount
    return amounts


def _part(address: dict[str, Any], key: str) -> str | None:
    """Copy a part out of the address, which keeps it; an empty one is None."""
    value = address.get(key)
    return value if type(value) is str and value else None


def _dob(value: object) -> date | None:
    return parse_iso_date(value) if type(value) is str else None
