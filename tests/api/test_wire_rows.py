"""An answer is cut into its rows whatever its layout; a bad row costs only itself."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bibwire.api import wire
from bibwire.api.rows import cut
from bibwire.domain.errors import AnswerUnreadable, BadRecord

from .loopback import listing, person


def _cut(value: Any, *asked: int) -> list[tuple[int, int | None]]:
    rows, unreadable = wire.cut_participants(json.dumps(value).encode(), asked or (1,))
    assert unreadable == []
    return [(row.registration_id, row.event_id) for row in rows]


def _reasons(*rows: Any) -> tuple[list[int], list[str]]:
    body = json.dumps([{"event": {"event_id": 1}, "participants": rows}]).encode()
    good, bad = wire.cut_participants(body, [1])
    return [row.registration_id for row in good], [row.reason for row in bad]


@pytest.mark.parametrize(
    "empty",
    [
        [],
        [{}],
        [{"event": {"event_id": 1, "participants": []}}],
        [{"event": {"event_id": 1}}],
        [{"event": {"event_id": 1, "participants": None}, "participants": None}],
        [{"event": {"event_id": 1, "participants": []}, "participants": []}],
        {"event": {"event_id": 1, "participants": []}},
        {"event": {"event_id": 1, "participants": []}, "participants": []},
        {"participants": []},
        # PHP's empty object.
        [{"event": []}],
        [{"event": None}],
        [{"event": {}}],
        [{"event": [], "participants": []}],
        [{"event": [], "participants": {}}],
        [{"event": {"event_id": 1, "participants": {}}}],
        [{"participants": None}],
        {"event": []},
        {"event": None, "participants": None},
    ],
    ids=json.dumps,
)
def test_no_rows_are_told_in_many_ways(empty: Any) -> None:
    assert _cut(empty) == []


def test_an_event_of_nothing_beside_one_with_rows_costs_no_row() -> None:
    nothings: list[Any] = [[], {}, None]
    for nothing in nothings:
        value = [{"event": nothing}, *listing(person(3), event_id=2), {"event": nothing}]
        assert _cut(value, 1, 2) == [(3, 1)]


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        {},
        0,
        "[]",
        {"races": []},
        [None],
        [[]],
        [{"error": "x"}],
        [{"event": {"event_id": 1}}, {"message": "half of it failed"}],
        [{"participants": {"0": {}}}],
        {"participants": "none"},
        [{"event": "1"}],
        [{"event": [{"event_id": 1}]}],
        [{"event": ["no rights"]}],
        [{"event": False}],
        [{"event": 0}],
        [{"event": ""}],
        [{"event": {"event_id": 1, "participants": {"0": {}}}}],
        [{"event": [], "participants": ""}],
        [{"event": [], "message": "half of it failed"}],
        {"event": None, "message": "half of it failed"},
    ],
    ids=json.dumps,
)
def test_another_shape_is_an_error_and_not_an_empty_list(wrong: Any) -> None:
    with pytest.raises(AnswerUnreadable):
        _cut(wrong)


@pytest.mark.parametrize("body", [b"", b"[", b'[{"event":', b"<html>", b"[]]", b"\xff"])
def test_what_is_not_json_is_an_error(body: bytes) -> None:
    with pytest.raises(AnswerUnreadable):
        wire.cut_removed(body, [1])


def test_a_byte_order_mark_is_put_up_with() -> None:
    body = b"\xef\xbb\xbf" + json.dumps(listing(person(3))).encode()

    wire.check_answer(200, body, {})
    assert [row.registration_id for row in wire.cut_participants(body, [1])[0]] == [3]


def test_rows_of_all_layouts_ascend_together() -> None:
    assert _cut([*listing(person(5), person(9)), *listing(person(2, 2), event_id=2)], 1, 2) == [
        (2, 2),
        (5, 1),
        (9, 1),
    ]


def test_a_row_says_itself_which_event_it_is_of() -> None:
    assert _cut(listing(person(5, 2), event_id=1), 1, 2) == [(5, 2)]


def test_without_an_own_event_the_enclosing_one_counts_only_where_it_is_beyond_doubt() -> None:
    def inside(event_id: int, *ids: int) -> dict[str, Any]:
        rows = [person(number, None) for number in ids]
        return {"event": {"event_id": event_id, "participants": rows}}

    assert _cut([inside(7, 1)], 7) == [(1, 7)]
    assert _cut([inside(7, 1), inside(8, 2)], 7, 8) == [(1, 7), (2, 8)]
    assert _cut([inside(7, 1)], 7, 8) == [(1, None)]
    assert _cut(inside(7, 1), 7, 8) == [(1, None)]
    assert _cut([{"participants": [person(1, None)]}], 7) == [(1, 7)]


def test_the_blank_template_is_never_a_row() -> None:
    result = cut(json.dumps(listing(person(-1), person(4))).encode(), [1])

    assert [row.registration_id for row in result.rows] == [4]
    assert result.unreadable == []
    assert result.received == 1


def test_ids_as_text_are_read_if_they_are_plain_digits() -> None:
    row = {"registration_id": "9223372036854775807", "event_id": "12"}

    assert _cut([{"event": {}, "participants": [row]}], 12) == [(9223372036854775807, 12)]


@pytest.mark.parametrize(
    "bad_id",
    [None, 0, -5, 1.5, True, [], {}, "", "x", "012", " 12", "1e3", "٣", 2**63, str(2**63), "9" * 30],
    ids=repr,
)
def test_a_row_without_a_usable_id_is_set_aside_and_the_others_stay(bad_id: Any) -> None:
    ids, reasons = _reasons(person(1), {"registration_id": bad_id, "event_id": 1}, person(2))

    assert ids == [1, 2]
    assert len(reasons) == 1
    assert "registration_id" in reasons[0]


@pytest.mark.parametrize("bad_id", [0, -5, 1.5, False, "x", 2**63], ids=repr)
def test_a_row_of_an_unusable_event_is_set_aside(bad_id: Any) -> None:
    ids, reasons = _reasons(person(1), {"registration_id": 2, "event_id": bad_id})

    assert ids == [1]
    assert "event_id" in reasons[0]


@pytest.mark.parametrize("no_row", [None, 5, "text", [1], True])
def test_what_is_no_object_is_set_aside(no_row: Any) -> None:
    assert _reasons(person(1), no_row) == ([1], ["the row is not a JSON object"])


def test_an_id_that_stands_twice_is_never_silently_one() -> None:
    ids, reasons = _reasons(person(1, bib_num=1), person(1, bib_num=2), person(1, bib_num=1))

    assert ids == [1]
    assert len(reasons) == 1
    assert "twice" in reasons[0]


def test_raw_rows_are_the_very_bytes_that_were_sent() -> None:
    texts = [
        b'{"registration_id":1 , "event_id":1,"a":"\\/\\u00eb \xc3\xab"}',
        b'{ "event_id":1,\n"b":1.50e0,"registration_id":2}',
    ]
    body = b'[{"event":{"event_id":1},"participants":[' + b" ,\n".join(texts) + b"]}]"

    assert [row.raw for row in wire.cut_participants(body, [1])[0]] == texts


@pytest.mark.parametrize("half", [b"\\ud800", b"\\udfff", b"\\uD83D \\uDE00", b"\\ud83d\\ud83d"])
def test_half_a_surrogate_pair_costs_one_row_and_not_the_page(half: bytes) -> None:
    rows = [
        b'{"registration_id":1,"event_id":1,"user":{"first_name":"\\ud83d\\ude00"}}',
        b'{"registration_id":2,"event_id":1,"user":{"first_name":"' + half + b'"}}',
        b'{"registration_id":3,"event_id":1,"user":{"first_name":"\\\\ud800"}}',
    ]
    for body in (
        b'[{"event":{"event_id":1},"participants":[' + b",".join(rows) + b"]}]",
        b'{"participants":[' + b",".join(rows) + b'],"event":{"event_id":1}}',
    ):
        wire.check_answer(200, body, {})

        good, bad = wire.cut_participants(body, [1])

        assert bad == []
        assert [row.raw for row in good] == rows
        assert wire.decode_participant(good[0].raw).first_name == "😀"
        with pytest.raises(BadRecord, match="surrogate"):
            wire.decode_participant(good[1].raw)
        assert wire.decode_participant(good[2].raw).first_name == "\\ud800"


def test_bytes_that_are_not_utf8_cost_one_row_and_not_the_page() -> None:
    body = json.dumps(listing(person(1, note="?"), person(2))).encode().replace(b"?", b"\xff")

    wire.check_answer(200, body, {})
    good, bad = wire.cut_participants(body, [1])

    assert [row.registration_id for row in good] == [1, 2]
    assert bad == []
    with pytest.raises(BadRecord, match="UTF-8"):
        wire.decode_participant(good[0].raw)


def test_a_depth_no_honest_answer_has_spoils_one_record_and_no_page() -> None:
    deep = b"[" * 5000 + b"]" * 5000
    good = b'{"registration_id":2,"x":"[[[["}'
    body = b'[{"participants":[{"registration_id":1,"x":' + deep + b"}," + good + b"]}]"

    wire.check_answer(200, body, {})
    (first, second), unreadable = wire.cut_participants(body, [1])

    assert (first.raw.count(b"["), second.raw, unreadable) == (5000, good, [])
    with pytest.raises(BadRecord):
        wire.decode_participant(first.raw)
    with pytest.raises(BadRecord):
        wire.decode_participant(b'{"registration_id":1,"x":' + deep + b"}")
