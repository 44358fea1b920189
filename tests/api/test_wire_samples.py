"""
Answers in each known shape are read as the vendor means them.

The samples follow public recordings and the vendor's documentation; people and ids are invented.
"""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bibwire.api import wire
from bibwire.domain.errors import (
    AccessLost,
    AnswerUnreadable,
    BibwireError,
    CallerRefused,
    EventGone,
    KeyRefused,
    NotTheApi,
    RaceGone,
    RequestRefused,
    Throttled,
    VendorUnavailable,
)
from bibwire.domain.records import Dated, Race, Registration

SAMPLES = Path(__file__).parent.parent / "samples"
NOW = datetime(2026, 10, 5, 12, tzinfo=UTC)
DATED = Dated(NOW, NOW)


def read(name: str) -> bytes:
    return (SAMPLES / name).read_bytes()


def people(name: str, *asked: int) -> dict[int, Registration]:
    body = read(name)
    wire.check_answer(200, body, {})
    rows, unreadable = wire.cut_participants(body, asked)
    assert unreadable == []
    decoded = {row.registration_id: wire.decode_participant(row.raw) for row in rows}
    assert [row.event_id for row in rows] == [one.event_id for one in decoded.values()]
    return decoded


def test_a_single_event_gives_its_four_people() -> None:
    found = people("participants_single_event.json", 901003)

    assert list(found) == [92645624, 92645801, 92646990, 92650003]
    assert [one.bib_num for one in found.values()] == [None, 412, None, 2001]


def test_a_person_with_a_bib_is_read_whole() -> None:
    jon = people("participants_single_event.json", 901003)[92645801]

    address = {
        "street": "12 Sample Ave",
        "city": "Lakeport",
        "state": "IL",
        "zipcode": "60000",
        "country_code": "US",
    }
    no_money = Decimal("0.00")
    assert jon == Registration(
        registration_id=92645801,
        event_id=901003,
        user_id=30000077,
        first_name="Jon",
        middle_name="T.",
        last_name="O'Brady",
        email="jon.o'brady@example.com",
        phone="555-010-2230",
        dob=date(1998, 6, 11),
        gender="M",
        age=28,
        address=address,  # type: ignore[arg-type]
        city="Lakeport",
        state="IL",
        country_code="US",
        bib_num=412,
        chip_num="412",
        registered_at=datetime(2026, 3, 15, 1, 44, tzinfo=UTC),
        last_modified_at=datetime.fromtimestamp(1790877777, UTC),
        team_info=None,
        payment_info={
            "race_fee": Decimal("35.00"),
            "offline_payment_amount": no_money,
            "processing_fee": Decimal("3.10"),
            "processing_fee_paid_by_user": Decimal("3.10"),
            "processing_fee_paid_by_race": no_money,
            "partner_fee": no_money,
            "affiliate_profit": no_money,
            "extra_fees": no_money,
            "amount_paid": Decimal("48.10"),
            "usatf_discount_amount_in_cents": no_money,
        },
        additional_data={
            "user": {"profile_image_url": None},
            "rsu_transaction_id": 26365901,
            "transaction_id": "ay_92645801SAMPLE901003C_0",
            "imported": "F",
            "usatf_discount_additional_field": None,
            "giveaway": "Adult M",
            "giveaway_option_id": 772,
        },
    )


def test_a_child_in_a_team_is_the_same_pretty_or_compact() -> None:
    pretty = people("participants_single_event.json", 901003)[92646990]
    compact = people("participants_single_event.wire.json", 901003)[92646990]

    assert pretty == compact
    assert (compact.first_name, compact.last_name, compact.city) == (
        "Zoë",
        "Lévesque-Nuñez",
        "Montréal",
    )
    assert compact.phone == "+1 (555) 010-3344 ext. 12"
    assert compact.team_info == {
        "team_id": 55501,
        "team_name": 'The "Fast" Family',
        "team_type_id": 7701,
        "team_type": "Family Team",
        "team_gender": "C",
        "team_bib_num": 9001,
    }


def test_a_walk_up_without_an_account_has_what_she_has() -> None:
    walkup = people("participants_single_event.json", 901003)[92650003]

    nothing = (walkup.user_id, walkup.email, walkup.gender, walkup.dob, walkup.age)
    assert nothing == (None,) * 5
    assert (walkup.city, walkup.state, walkup.country_code) == (None, None, "US")
    assert walkup.address is not None
    assert walkup.address["city"] == ""
    assert walkup.bib_num == 2001
    assert walkup.additional_data["imported"] == "T"


@pytest.mark.parametrize(
    "name", ["participants_multi_event.json", "participants_multi_event_alternative.json"]
)
def test_both_layouts_of_several_events_say_the_same(name: str) -> None:
    found = people(name, 901001, 901002, 901003)

    assert [(one.registration_id, one.event_id) for one in found.values()] == [
        (92645624, 901003),
        (92645700, 901002),
    ]


def test_options_that_are_not_modelled_are_kept() -> None:
    jon = people("participants_with_options.json", 901003)[92645801]

    assert jon.gender == "X"
    assert jon.additional_data["participant_addons"] == [
        {"addon_id": 6601, "addon_name": "Pasta Dinner", "quantity": 2, "amount": "$24.00"}
    ]
    questions = jon.additional_data["question_responses"]
    assert isinstance(questions, list)
    assert len(questions) == 3


@pytest.mark.parametrize("name", ["participants_no_rows.json", "removed_participants_no_rows.json"])
def test_no_rows_are_no_rows(name: str) -> None:
    assert people(name, 901003) == {}


def test_the_four_reasons_to_leave() -> None:
    rows, unreadable = wire.cut_removed(read("removed_participants.json"), [901003])
    gone = [wire.decode_removed(row.raw, row.event_id) for row in rows]

    assert unreadable == []
    assert [(one.registration_id, one.reason, one.new_registration_id) for one in gone] == [
        (92645629, "cleared", None),
        (92645640, "removed", None),
        (92645777, "transferred", 92648111),
        (92645790, "deferred", None),
    ]
    assert {one.registration.event_id for one in gone} == {901003}
    assert gone[3].removed_at == datetime(2026, 10, 1, 3, 59, 59, tzinfo=UTC)
    assert gone[0].registration.registered_at == datetime(2026, 2, 3, 14, 0, 11, tzinfo=UTC)
    # The texts beside the seconds say the same, so nothing of them is left over.
    assert all("last_modified" not in one.registration.additional_data for one in gone)


def test_removed_rows_of_several_events_under_one_element_have_no_event() -> None:
    rows, _ = wire.cut_removed(read("removed_participants.json"), [901003, 901004])
    assert {row.event_id for row in rows} == {None}


def test_counts() -> None:
    assert wire.decode_counts(read("participant_counts.json")) == {901001: 0, 901002: 1, 901003: 4}


@pytest.mark.parametrize(
    "rows",
    [
        None,
        {},
        [5],
        [{"event_id": 1}],
        [{"event_id": None, "num_participants": 1}],
        [{"event_id": 1, "num_participants": -1}],
        [{"event_id": 1, "num_participants": 1.5}],
        [{"event_id": 1, "num_participants": 1}, {"event_id": 1, "num_participants": 2}],
    ],
    ids=json.dumps,
)
def test_half_a_count_is_an_error(rows: Any) -> None:
    with pytest.raises(AnswerUnreadable):
        wire.decode_counts(json.dumps({"participant_counts": rows}).encode())


# Races and events


def races(value: Any) -> list[Race]:
    page = wire.decode_race_list(json.dumps(value).encode(), DATED)
    assert page.unreadable == []
    return list(page.races)


def race(**fields: Any) -> Race:
    [one] = races({"races": [{"race": {"race_id": 5, "name": "R", **fields}}]})
    return one


def test_the_race_list_is_read_race_by_race() -> None:
    page = wire.decode_race_list(read("races_list.json"), DATED)

    assert page.unreadable == []
    assert page.dated is DATED
    assert [(one.race_id, one.timezone, one.next_date) for one in page.races] == [
        (98765, "America/Chicago", date(2026, 10, 4)),
        (16400, "America/Chicago", None),
        (54321, "America/Tijuana", date(2026, 11, 14)),
    ]
    assert page.races[1].name == ' Frosty Toes 10 Mile, 5Mile, 5K and "Virtual" Run '
    assert page.races[0].last_modified_at == datetime(2026, 2, 9, 2, 39, tzinfo=UTC)
    assert page.races[0].additional_data["is_draft_race"] == "F"
    assert "is_private_race" not in page.races[1].additional_data


def test_past_the_end_there_are_no_races() -> None:
    assert wire.decode_race_list(read("races_list_past_the_end.json"), DATED).races == []


def test_events_start_by_the_clock_of_their_race() -> None:
    harbor = races({"races": [json.loads(read("race_with_events.json"))]})[0]

    assert [event.event_id for event in harbor.events] == [801001, *range(901001, 901006)]
    marathon = harbor.events[1]
    assert marathon.race_id == 98765
    assert marathon.starts_at == datetime(2026, 10, 4, 12, 0, tzinfo=UTC)
    assert marathon.ends_at == datetime(2026, 10, 4, 18, 30, tzinfo=UTC)
    assert (marathon.distance, marathon.distance_m) == ("26.2 Miles", Decimal("42164.8128"))
    assert harbor.events[3].distance_m == 5000
    assert (harbor.events[4].distance, harbor.events[4].distance_m) == (None, None)
    assert harbor.events[4].additional_data["sub_event_ids"] == [901002, 901003]
    assert harbor.events[5].additional_data["volunteer"] == "T"
    assert "start_time" not in marathon.additional_data
    assert "events" not in harbor.additional_data


def test_options_and_questions_of_a_race_are_kept() -> None:
    sample = json.loads(read("race_with_giveaways_and_questions.json"))
    harbor = races({"races": [sample]})[0]

    assert harbor.additional_data["questions"] == sample["race"]["questions"]
    kept = harbor.events[0].additional_data["giveaway_options"]
    assert kept == sample["race"]["events"][0]["giveaway_options"]


def test_race_days_are_kept() -> None:
    page = wire.decode_race_list(read("races_list_with_event_days.json"), DATED)
    assert "race_event_days" in page.races[0].additional_data


@pytest.mark.parametrize("zone", [None, "Mars/Olympus", 5])
def test_a_race_of_no_known_zone_is_read_as_us_eastern_and_keeps_what_was_sent(zone: Any) -> None:
    one = race(timezone=zone, events=[{"event_id": 1, "start_time": "10/4/2026 07:00"}])

    assert one.events[0].starts_at == datetime(2026, 10, 4, 11, 0, tzinfo=UTC)
    assert (one.timezone or one.additional_data.get("timezone")) == zone


def test_a_start_in_an_hour_left_out_keeps_its_text() -> None:
    one = race(timezone="America/Denver", events=[{"event_id": 1, "start_time": "3/8/2026 02:30"}])

    [event] = one.events
    assert event.starts_at == datetime(2026, 3, 8, 9, 30, tzinfo=UTC)
    assert event.additional_data == {"start_time": "3/8/2026 02:30"}


def test_what_does_not_fit_a_race_or_event_is_kept() -> None:
    one = race(
        next_date="soon",
        last_modified=5,
        address="Pier 1",
        url=["u"],
        events=[{"event_id": "7", "name": None, "start_time": "later", "distance": 5}],
    )

    assert one.additional_data == {
        "next_date": "soon",
        "last_modified": 5,
        "address": "Pier 1",
        "url": ["u"],
    }
    assert one.events[0].event_id == 7
    assert one.events[0].name == ""
    assert one.events[0].additional_data == {"start_time": "later", "distance": 5}


def test_a_race_that_cannot_be_read_costs_only_itself() -> None:
    body = (
        b'{"races":[{"race":{"race_id":1,"name":"A"}},{"race":{"name":"no id"}},5,'
        b'{"race":{"race_id":3,"name":"\\u0000"}},{"race":{"race_id":4,"name":"\\ud800"}},'
        b'{"race_id":5,"name":"not wrapped"}]}'
    )
    wire.check_answer(200, body, {})
    page = wire.decode_race_list(body, DATED)

    assert {one.race_id: one.name for one in page.races} == {
        1: "A",
        3: "\ufffd",
        4: "\ufffd",
        5: "not wrapped",
    }
    assert [row.raw for row in page.unreadable] == [b'{"race":{"name":"no id"}}', b"5"]
    assert [row.raw for row in page.faults] == [
        b'{"race":{"race_id":3,"name":"\\u0000"}}',
        b'{"race":{"race_id":4,"name":"\\ud800"}}',
    ]
    assert page.unread_race_ids == (None, None)


def test_an_event_that_cannot_be_read_costs_only_itself() -> None:
    events = [{"event_id": 1}, {"event_id": "x"}, 5, {"event_id": 2}]
    value = {"races": [{"race": {"race_id": 5, "name": "R", "events": events}}]}
    page = wire.decode_race_list(json.dumps(value).encode(), DATED)

    assert [event.event_id for event in page.races[0].events] == [1, 2]
    assert [row.reason.split(":")[0] for row in page.unreadable] == ["an event of race 5"] * 2


@pytest.mark.parametrize("wrong", [[], {}, {"races": None}, {"races": {"1": {}}}, {"race": {}}])
def test_another_shape_is_no_race_list(wrong: Any) -> None:
    with pytest.raises(AnswerUnreadable):
        wire.decode_race_list(json.dumps(wrong).encode(), DATED)


# Errors


@pytest.mark.parametrize(
    ("name", "status", "kind"),
    [
        ("error_6_bad_key.json", 200, KeyRefused),
        ("error_7_permission_denied.json", 200, AccessLost),
        ("error_14_throttled.json", 200, Throttled),
        ("error_14_throttled.json", 429, Throttled),
        ("error_17_bad_caller_registration.json", 400, CallerRefused),
        ("error_201_race_not_found.json", 200, RaceGone),
        ("error_301_event_not_found.json", 200, EventGone),
        ("oauth_error_http401.json", 401, KeyRefused),
    ],
)
def test_each_recorded_error_is_the_one_it_is(name: str, status: int, kind: type[BibwireError]) -> None:
    with pytest.raises(BibwireError) as caught:
        wire.check_answer(status, read(name), {})
    assert type(caught.value) is kind


@pytest.mark.parametrize("name", sorted(path.name for path in SAMPLES.glob("*.json")))
def test_only_error_samples_are_errors(name: str) -> None:
    if "error" in name:
        with pytest.raises(BibwireError):
            wire.check_answer(200, read(name), {})
    else:
        wire.check_answer(200, read(name), {})


@pytest.mark.parametrize("name", sorted(path.name for path in SAMPLES.glob("[pr]*.json")))
def test_a_sample_cut_anywhere_is_unreadable(name: str) -> None:
    body = read(name).rstrip()
    for length in range(0, len(body), 1 + len(body) // 60):
        with pytest.raises(AnswerUnreadable):
            wire.check_answer(200, body[:length], {})


def test_the_vendors_details_are_part_of_the_sentence() -> None:
    with pytest.raises(CallerRefused, match="API caller identification is invalid"):
        wire.check_answer(400, read("error_17_bad_caller_registration.json"), {})


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (500, b'{"error":"text","details":{}}', VendorUnavailable),
        (404, b'{"error":"text","details":{}}', RequestRefused),
        (429, b'{"error":"text"}', Throttled),
        (200, b'{"error":"text"}', RequestRefused),
        (200, b'{"error":{"error_msg":"no code"}}', RequestRefused),
        (200, b'{"error":{"error_code":"201"}}', RaceGone),
        (200, b'{"error":["?"]}', RequestRefused),
        (503, b'{"error":{"error_code":99}}', VendorUnavailable),
        (503, b'{"error":{"error_code":6}}', KeyRefused),
        (503, b"[]", VendorUnavailable),
        (404, b"[]", RequestRefused),
        (404, b"<html>", NotTheApi),
        (404, b"", NotTheApi),
        (403, b"<html>", VendorUnavailable),
        (204, b"", VendorUnavailable),
        (200, b" <!doctype html>", AnswerUnreadable),
        (200, b"<?xml version='1.0'?><participants/>", AnswerUnreadable),
    ],
)
def test_the_body_decides_before_the_status(status: int, body: bytes, kind: type[BibwireError]) -> None:
    with pytest.raises(BibwireError) as caught:
        wire.check_answer(status, body, {})
    assert type(caught.value) is kind


@pytest.mark.parametrize("body", [b'{"error":null,"races":[]}', b'{"error":false,"races":[]}'])
def test_an_error_that_says_nothing_is_none(body: bytes) -> None:
    wire.check_answer(200, body, {})


def test_an_unknown_code_is_named() -> None:
    with pytest.raises(RequestRefused) as caught:
        wire.check_answer(200, b'{"error":{"error_code":16,"error_msg":"a\\n<b>"}}', {})
    assert caught.value.code == 16
    assert "\n" not in str(caught.value)


def test_a_long_text_of_the_vendors_is_cut() -> None:
    body = json.dumps({"error": {"error_code": 3, "error_msg": "x" * 5000}}).encode()
    with pytest.raises(RequestRefused) as caught:
        wire.check_answer(200, body, {})
    assert len(str(caught.value)) < 400
