"""A record is read field by field, and nothing of it is lost on the way."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bibwire.api.wire import decode_participant, decode_removed
from bibwire.domain.errors import BadRecord
from bibwire.domain.records import Registration

EASTERN = ZoneInfo("America/New_York")
MONEY = (
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


def _decode(**fields: Any) -> Registration:
    return decode_participant(json.dumps({"registration_id": 1, "event_id": 2, **fields}).encode())


@pytest.mark.parametrize(
    ("sent", "bib", "kept"),
    [
        (412, 412, False),
        ("412", 412, False),
        (0, 0, False),
        ("0", 0, False),
        ("0101", 101, True),
        ("00", 0, True),
        (None, None, False),
        ("", None, False),
        ("A12", None, True),
        ("12 ", None, True),
        ("-5", None, True),
        (-5, -5, False),
        ("٣", None, True),
        (2**31 - 1, 2**31 - 1, False),
        (2**31, None, True),
        (str(2**31), None, True),
        ("9" * 100, None, True),
        (12.0, None, True),
        (True, None, True),
        ([12], None, True),
        ({"n": 12}, None, True),
    ],
    ids=repr,
)
def test_a_bib_is_a_number_or_kept_as_it_was_sent(sent: Any, bib: int | None, kept: bool) -> None:
    person = _decode(bib_num=sent)

    assert person.bib_num == bib
    assert type(person.bib_num) is not bool
    assert person.additional_data == ({"bib_num": sent} if kept else {})


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("user.dob", "0000-00-00"),
        ("user.dob", "1986-02-30"),
        ("user.dob", "1/6/1986"),
        ("user.dob", "XXXX-XX-XX"),
        ("user.dob", 19860106),
        ("user.user_id", "abc"),
        ("user.user_id", 1.5),
        ("user.user_id", 2**63),
        ("user.gender", {"code": "F"}),
        ("user.email", 5),
        ("user.phone", 5550101),
        ("user.first_name", ["Ada"]),
        ("user.address", "12 Sample Ave"),
        ("user.address", []),
        ("user", []),
        ("user", "Ada"),
        ("age", "forty"),
        ("age", 40.5),
        ("age", 2**31),
        ("age", True),
        ("chip_num", ["c"]),
        ("registration_date", "soon"),
        ("registration_date", "13/1/2026 10:00"),
        ("registration_date", "2/30/2026 10:00"),
        ("registration_date", "2/3/2026 24:00"),
        ("registration_date", 1770123922),
        ("last_modified", "2026-02-03 10:00:00"),
        ("last_modified", -1),
        ("last_modified", 1770123922000),
        ("last_modified", 10**30),
        ("last_modified", True),
        ("race_fee", "free"),
        ("race_fee", 35),
        ("amount_paid", "$1,23.00"),
        ("amount_paid", ["$1.00"]),
    ],
    ids=str,
)
def test_a_value_that_does_not_fit_stays_where_it_was(path: str, sent: Any) -> None:
    outer, _, inner = path.partition(".")
    person = _decode(**{outer: {inner: sent} if inner else sent})

    kept = {outer: {inner: sent} if inner else sent}
    assert person.additional_data == kept
    assert [name for name in Registration.__slots__ if getattr(person, name) is not None] == [
        "registration_id",
        "event_id",
        "additional_data",
    ]


def test_what_is_not_modelled_is_kept_at_its_path() -> None:
    person = _decode(
        imported="T",
        giveaway=None,
        user={"user_id": 5, "profile_image_url": None, "is_anonymous": "F"},
        question_responses=[{"question_id": "1", "response": None}],
    )

    assert person.user_id == 5
    assert person.additional_data == {
        "imported": "T",
        "giveaway": None,
        "user": {"profile_image_url": None, "is_anonymous": "F"},
        "question_responses": [{"question_id": "1", "response": None}],
    }


def test_texts_are_kept_as_sent() -> None:
    person = _decode(user={"first_name": "  <b>Zo\u00eb</b>\r\n", "email": "", "last_name": "O'B"})

    assert person.first_name == "  <b>Zoë</b>\r\n"
    assert person.email == ""
    assert person.last_name == "O'B"


def test_an_address_is_kept_whole_and_its_parts_are_copied() -> None:
    address = {"street": None, "city": "", "state": 7, "zipcode": "07001", "country_code": "US"}
    person = _decode(user={"address": address})

    assert person.address == address
    assert (person.city, person.state, person.country_code) == (None, None, "US")


def test_team_and_payment_are_none_without_a_value() -> None:
    person = _decode(team_id=None, team_name=None, race_fee=None, amount_paid="")

    assert person.team_info is None
    assert person.payment_info is None
    assert person.additional_data == {}


def test_team_and_payment_hold_what_there_is() -> None:
    person = _decode(team_id=5, team_name="", team_bib_num="9A", amount_paid="$1,234.50")

    assert person.team_info == {"team_id": 5, "team_name": "", "team_bib_num": "9A"}
    assert person.payment_info == {"amount_paid": Decimal("1234.50")}
    assert str(person.payment_info["amount_paid"]) == "1234.50"


def test_a_chip_is_text() -> None:
    assert _decode(chip_num=412).chip_num == "412"
    assert _decode(chip_num="0A").chip_num == "0A"


def test_times_are_instants() -> None:
    person = _decode(registration_date="2/3/2026 08:05", last_modified="1770123922")

    assert person.registered_at == datetime(2026, 2, 3, 13, 5, tzinfo=UTC)
    assert person.last_modified_at == datetime(2026, 2, 3, 13, 5, 22, tzinfo=UTC)


def test_a_registration_in_the_repeated_hour_is_the_first_unless_its_last_edit_says_second() -> None:
    first = datetime(2026, 11, 1, 5, 30, tzinfo=UTC)
    for later, expected in ((0, 0), (59, 0), (3600, 3600), (3659, 3600), (3660, 0), (9999, 0)):
        epoch = int(first.timestamp()) + later
        person = _decode(registration_date="11/1/2026 01:30", last_modified=epoch)
        assert person.registered_at == first + timedelta(seconds=expected), later
        assert person.additional_data == {}


def test_an_hour_that_does_not_exist_keeps_its_text() -> None:
    person = _decode(registration_date="3/8/2026 02:30")

    assert person.registered_at == datetime(2026, 3, 8, 7, 30, tzinfo=UTC)
    assert person.additional_data == {"registration_date": "3/8/2026 02:30"}


@pytest.mark.parametrize(
    "number",
    ["0.1", "1.10", "1e5", "-0.0", "12345678901234567890.123456789", "1E-30", "2e200"],
)
def test_no_digit_of_a_number_is_lost(number: str) -> None:
    raw = b'{"registration_id":1,"x":[%s]}' % number.encode()

    values = decode_participant(raw).additional_data["x"]

    assert isinstance(values, list)
    [value] = values
    assert type(value) is Decimal
    assert value.as_tuple() == Decimal(number).as_tuple()


def test_integers_of_any_size_stay_integers() -> None:
    number = 10**200 + 1
    assert _decode(x=number).additional_data == {"x": number}


@pytest.mark.parametrize("number", ["1e5000", "1e-5000", "1e99999999999999999999", "9" * 6000])
def test_a_number_no_database_can_hold_is_a_bad_record(number: str) -> None:
    with pytest.raises(BadRecord, match="too large"):
        decode_participant(b'{"registration_id":1,"x":%s}' % number.encode())


@pytest.mark.parametrize(
    "text",
    [b'"x":"\\u0000"', b'"x":["a\\u0000b"]', b'"a\\u0000":1', b'"x":"\\\\\\u0000"'],
)
def test_a_nul_anywhere_is_a_bad_record(text: bytes) -> None:
    with pytest.raises(BadRecord, match=r"U\+0000"):
        decode_participant(b'{"registration_id":1,%s}' % text)


@pytest.mark.parametrize(
    ("text", "value"),
    [(b"\\\\u0000", "\\u0000"), (b"\\\\ud800", "\\ud800"), (b"\\ud83d\\ude00", "😀")],
)
def test_what_only_looks_like_a_nul_is_fine(text: bytes, value: str) -> None:
    raw = b'{"registration_id":1,"x":"%s"}' % text
    assert decode_participant(raw).additional_data == {"x": value}


@pytest.mark.parametrize("raw", [b"[]", b"null", b"", b"{", b'{"registration_id":1,}'])
def test_what_is_not_an_object_is_a_bad_record(raw: bytes) -> None:
    with pytest.raises(BadRecord):
        decode_participant(raw)


@pytest.mark.parametrize("bad_id", [None, 0, -1, "x", 1.5, 2**63])
def test_a_record_without_a_usable_id_is_a_bad_record(bad_id: Any) -> None:
    with pytest.raises(BadRecord, match="registration_id"):
        decode_participant(json.dumps({"registration_id": bad_id}).encode())


def test_a_bad_record_names_nobody() -> None:
    raw = b'{"registration_id":"Ada","user":{"first_name":"Ada Sample"}}'
    with pytest.raises(BadRecord) as caught:
        decode_participant(raw)
    assert "Ada" not in repr(caught.value)
    assert caught.value.__context__ is None


def test_a_record_without_an_event_takes_the_one_its_answer_names() -> None:
    assert decode_participant(b'{"registration_id":1}').event_id is None
    assert decode_participant(b'{"registration_id":1}', 7).event_id == 7
    assert decode_participant(b'{"registration_id":1,"event_id":8}', 7).event_id == 8


# Removed rows


def _removed(**fields: Any) -> bytes:
    return json.dumps({"registration_id": 1, **fields}).encode()


def test_a_removal_is_timed_by_its_seconds_before_its_text() -> None:
    raw = _removed(
        last_modified="2026-02-03 09:11:30",
        last_modified_ts=1770127890,
        removed_reason="transferred",
        new_registration_id="77",
    )
    gone = decode_removed(raw, 901003)

    assert gone.removed_at == datetime(2026, 2, 3, 14, 11, 30, tzinfo=UTC)
    assert (gone.reason, gone.new_registration_id) == ("transferred", 77)
    assert gone.registration.event_id == 901003
    assert gone.registration.last_modified_at == gone.removed_at
    assert gone.registration.additional_data == {}


def test_a_removal_without_seconds_is_timed_by_its_text() -> None:
    gone = decode_removed(_removed(last_modified="2026-02-03 09:11:30"), None)

    assert gone.removed_at == datetime(2026, 2, 3, 14, 11, 30, tzinfo=UTC)
    assert gone.registration.event_id is None
    assert gone.reason == "unknown"


def test_a_text_that_contradicts_the_seconds_is_kept() -> None:
    raw = _removed(last_modified="2020-02-03 09:11:30", last_modified_ts=1770127890)
    gone = decode_removed(raw, None)

    assert gone.removed_at == datetime(2026, 2, 3, 14, 11, 30, tzinfo=UTC)
    assert gone.registration.additional_data == {"last_modified": "2020-02-03 09:11:30"}


def test_the_second_half_of_a_repeated_hour_does_not_contradict_its_text() -> None:
    second = int(datetime(2026, 11, 1, 6, 30, tzinfo=UTC).timestamp())
    raw = _removed(last_modified="2026-11-01 01:30:00", last_modified_ts=second)

    assert decode_removed(raw, None).registration.additional_data == {}


@pytest.mark.parametrize("when", [{}, {"last_modified": "soon"}, {"last_modified_ts": None}])
def test_a_removal_that_no_one_can_date_is_a_bad_record(when: dict[str, Any]) -> None:
    with pytest.raises(BadRecord, match="when it left"):
        decode_removed(_removed(**when), 1)


def test_an_own_event_of_a_removed_row_wins() -> None:
    gone = decode_removed(_removed(event_id=5, last_modified_ts=1), 6)
    assert gone.registration.event_id == 5


# Nothing is lost: the record is rebuilt from its columns and what is left over.

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9)
    | st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("abc"), inner, max_size=2),
    max_leaves=4,
)


def _either(usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return usual | json_values


texts = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=12)
wall_times = st.datetimes(datetime(1990, 1, 1), datetime(2040, 1, 1)).map(
    lambda t: f"{t.month}/{t.day}/{t.year} {t:%H:%M}"
)
money = st.decimals(-(10**7), 10**7, places=2).map(
    lambda d: f"-${-d:,}" if d.is_signed() and d else f"${abs(d):,}"
)
users = st.fixed_dictionaries(
    {},
    optional={
        "user_id": _either(st.integers(1, 10**12)),
        "first_name": _either(texts),
        "middle_name": _either(texts),
        "last_name": _either(texts),
        "email": _either(texts),
        "phone": _either(texts),
        "gender": _either(st.sampled_from("MFX")),
        "dob": _either(st.dates().map(str)),
        "address": _either(st.dictionaries(st.sampled_from(["city", "state", "x"]), texts)),
        "profile_image_url": json_values,
    },
)
people = st.fixed_dictionaries(
    {"registration_id": st.integers(1, 2**63 - 1)},
    optional={
        "event_id": st.integers(1, 2**63 - 1),
        "user": _either(users),
        "bib_num": _either(st.integers(0, 10**5) | st.text("0123456789A", max_size=5)),
        "chip_num": _either(texts),
        "age": _either(st.integers(0, 110)),
        "registration_date": _either(wall_times),
        "last_modified": _either(st.integers(0, 2 * 10**9)),
        "team_id": json_values,
        "team_name": _either(texts),
        **{name: _either(money) for name in MONEY},
        "imported": json_values,
        "something_new": json_values,
    },
)


def _rebuilt(person: Registration) -> dict[str, Any]:
    """Put a record together again from the columns and `additional_data`, which wins."""
    record: dict[str, Any] = {
        "registration_id": person.registration_id,
        "event_id": person.event_id,
        "bib_num": person.bib_num,
        "chip_num": person.chip_num,
        "age": person.age,
        **(person.team_info or {}),
        **(person.payment_info or {}),
    }
    if person.registered_at is not None:
        record["registration_date"] = person.registered_at.astimezone(EASTERN)
    if person.last_modified_at is not None:
        record["last_modified"] = int(person.last_modified_at.timestamp())
    names = ["user_id", "first_name", "middle_name", "last_name", "email", "phone", "gender"]
    user: dict[str, Any] = {name: getattr(person, name) for name in names}
    user |= {"dob": person.dob and person.dob.isoformat(), "address": person.address}
    left = dict(person.additional_data)
    left_user = left.pop("user", {})
    if isinstance(left_user, dict):
        user |= left_user
        record["user"] = user
    else:
        record["user"] = left_user
    return record | left


def _comparable(record: dict[str, Any], *, is_sent: bool) -> dict[str, Any]:
    """Leave out None and "", and read what is the same value in another dress."""
    out = dict(record)
    if isinstance(out.get("user"), dict):
        user = {k: v for k, v in out["user"].items() if v is not None}
        # An empty text is kept where texts are, and is None where numbers and dates are.
        for name in ("user_id", "dob"):
            if user.get(name) == "":
                del user[name]
        if str(user.get("user_id", "")).lstrip("-").isdecimal() and not isinstance(user["user_id"], bool):
            user["user_id"] = str(user["user_id"])
        out["user"] = user
    for name in ("bib_num", "age", "last_modified", "registration_date", *MONEY):
        if out.get(name) == "":
            del out[name]
    for name in ("bib_num", "age", "last_modified", "chip_num"):
        if type(out.get(name)) is int:
            out[name] = str(out[name])
    for name in MONEY:
        if type(out.get(name)) is str and re.fullmatch(r"-?\$?[0-9,]+(\.[0-9]+)?", out[name]):
            out[name] = Decimal(out[name].replace("$", "").replace(",", "") or "0")
    if is_sent:
        if type(out.get("registration_date")) is str:
            try:
                wall = datetime.strptime(out["registration_date"], "%m/%d/%Y %H:%M")  # noqa: DTZ007
            except ValueError:
                pass
            else:
                out["registration_date"] = wall
    elif type(out.get("registration_date")) is datetime:
        out["registration_date"] = out["registration_date"].replace(tzinfo=None, fold=0)
    elif type(out.get("registration_date")) is str:
        return _comparable(out, is_sent=True)
    return {k: v for k, v in out.items() if v is not None and v not in ({}, [])}


@given(people)
def test_columns_and_the_rest_rebuild_the_record(record: dict[str, Any]) -> None:
    raw = msgspec.json.Encoder(decimal_format="number").encode(record)

    person = decode_participant(raw)

    sent = msgspec.json.Decoder(float_hook=Decimal).decode(raw)
    assert _comparable(_rebuilt(person), is_sent=False) == _comparable(sent, is_sent=True)
    assert person.dob is None or type(person.dob) is date
