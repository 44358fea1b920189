"""Teams are read however they are laid out, page after page; what is no list of teams is an error."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from bibwire.api.teams import cut, decode_team
from bibwire.domain.errors import AccessLost, AnswerUnreadable, BadRecord, ListingNotTrusted, RequestRefused
from bibwire.domain.records import Team, TeamPage

from .loopback import Reply, Request, error, reply, scene


def team(team_id: Any, **more: Any) -> dict[str, Any]:
    """A row with every documented field."""
    return {
        "team_id": team_id,
        "team_name": "The Hares",
        "team_type_id": 7701,
        "team_age_restriction_id": None,
        "team_gender": "C",
        "team_bib_num": 9001,
        "team_member_current_count": 4,
        "last_modified_ts": 1631042122,
    } | more


def read(value: Any, *events: int) -> list[tuple[int, int | None]]:
    """Return team and event of each row read."""
    found = cut(json.dumps(value).encode(), events or (1,))
    assert found.unreadable == []
    return [(each.team_id, each.event_id) for each, _ in found.rows]


def decoded(**more: Any) -> Team:
    return decode_team(json.dumps(team(5) | more).encode(), 1)


def test_every_documented_field_is_read_and_the_others_are_kept() -> None:
    assert decode_team(json.dumps(team(5, event_id=3, fee=12.5, captain={"user_id": 7})).encode()) == Team(
        team_id=5,
        event_id=3,
        name="The Hares",
        team_type_id=7701,
        gender="C",
        bib_num=9001,
        member_count=4,
        last_modified_at=datetime(2021, 9, 7, 19, 15, 22, tzinfo=UTC),
        additional_data={
            "team_age_restriction_id": None,
            "fee": Decimal("12.5"),
            "captain": {"user_id": 7},
        },
    )


@pytest.mark.parametrize(
    ("sent", "number", "kept"),
    [
        (9001, 9001, None),
        ("9001", 9001, None),
        ("09001", 9001, "09001"),
        ("R12", None, "R12"),
        (0, 0, None),
        ("", None, None),
        (None, None, None),
        (1 << 31, None, 1 << 31),
    ],
)
def test_a_team_bib_is_read_as_a_persons(sent: Any, number: int | None, kept: Any) -> None:
    found = decoded(team_bib_num=sent)

    assert found.bib_num == number
    assert found.additional_data.get("team_bib_num") == kept


def test_numbers_may_be_texts_and_what_fits_no_column_stays_as_sent() -> None:
    found = decoded(
        team_id="5", team_type_id="7701", team_member_current_count="4", last_modified_ts="1631042122"
    )
    assert found == decoded()

    odd = decoded(team_name=12, team_gender=None, team_member_current_count="four", last_modified_ts="soon")

    assert (odd.name, odd.gender, odd.member_count, odd.last_modified_at) == (None, None, None, None)
    assert odd.additional_data == {
        "team_age_restriction_id": None,
        "team_name": 12,
        "team_member_current_count": "four",
        "last_modified_ts": "soon",
    }


@pytest.mark.parametrize(
    "row",
    [
        {},
        team(None),
        team(0),
        team(-1),
        team("x"),
        team(1 << 63),
        team(5, event_id="x"),
    ],
)
def test_a_row_without_a_usable_id_is_a_bad_record(row: Any) -> None:
    with pytest.raises(BadRecord):
        decode_team(json.dumps(row).encode())


@pytest.mark.parametrize(
    ("answer", "events", "expected"),
    [
        ({"teams": [team(1), team(2)]}, (7,), [(1, 7), (2, 7)]),
        ({"teams": [team(1), team(2, event_id=8)]}, (7, 8), [(1, None), (2, 8)]),
        ({"teams": [{"team": team(1)}]}, (7,), [(1, 7)]),
        ({"teams": [], "page": 1}, (7,), []),
        ({"teams": {}}, (7,), []),
        ([], (7,), []),
        ([{"event": {"event_id": 7}, "teams": [team(1)]}], (7,), [(1, 7)]),
        (
            [{"event": {"event_id": 7}, "teams": [team(1)]}, {"event": {"event_id": 8}, "teams": [team(2)]}],
            (7, 8),
            [(1, 7), (2, 8)],
        ),
        (
            [{"event": {"event_id": 7}}, {"event": {"event_id": "8", "teams": [team(2)]}}],
            (7, 8),
            [(2, 8)],
        ),
        # Which event a lone element's rows are of is not to be trusted.
        ([{"event": {"event_id": 7}, "teams": [team(1)]}], (7, 8), [(1, None)]),
        ({"event": {"event_id": 7, "teams": []}, "teams": [team(1)]}, (7,), [(1, 7)]),
        ([{"teams": [team(1), team(1)]}], (7,), [(1, 7)]),
        (
            [{"event": {"event_id": 7}, "teams": [team(1)]}, {"event": {"event_id": 8}, "teams": [team(1)]}],
            (7, 8),
            [(1, None)],
        ),
    ],
)
def test_both_layouts_are_read(answer: Any, events: tuple[int, ...], expected: Any) -> None:
    assert read(answer, *events) == expected


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"null",
        b"[1]",
        b"[{}]",
        b'{"teams":null}',
        b'{"teams":"none"}',
        b'{"teams":[',
        b'{"teams":{"5":{"team_id":5}}}',
        b'{"participants":[]}',
        b'[{"team_id":5}]',
        b'[{"event":{"event_id":1}},{"warning":"no"}]',
        b"<teams/>",
        b"",
    ],
)
def test_what_is_no_list_of_teams_is_an_error_and_never_an_empty_list(body: bytes) -> None:
    with pytest.raises(AnswerUnreadable):
        cut(body, (1,))


def test_a_bad_row_is_set_aside_alone() -> None:
    lone = (
        b'{"teams":[{"team_id":1},{"team_id":2,"team_name":"\\ud83d"},7,{"team_id":3},{"team_id":3,"x":1}]}'
    )

    found = cut(lone, (1,))

    assert [each.team_id for each, _ in found.rows] == [1, 2, 3]
    assert [row.reason for row in found.faults] == [
        "team 2 is kept without it: a text of the record holds half a surrogate pair"
    ]
    assert [row.raw for row in found.unreadable] == [
        b"7",
        b'{"team_id":3,"x":1}',
    ]
    assert found.received == 5


class Vendor:
    """Answers like a vendor with so many teams: by page, at most so many on one."""

    def __init__(self, number: int, *, most: int = 10**9, ignores_page: bool = False) -> None:
        self.ids = list(range(1, number + 1))
        self.most = most
        self.ignores_page = ignores_page

    def __call__(self, request: Request) -> Reply:
        size = min(int(request.query["results_per_page"]), self.most)
        page = 1 if self.ignores_page else int(request.query["page"])
        shown = self.ids[(page - 1) * size : page * size]
        return reply({"teams": [team(number) for number in shown]})


async def walk(client: Any, *events: int, **options: Any) -> list[TeamPage]:
    return [page async for page in client.teams(7, events or (1,), **options)]


def ids(pages: list[TeamPage]) -> list[int]:
    return [each.team_id for page in pages for each in page.teams]


def test_teams_are_asked_for_as_documented() -> None:
    async def run() -> Request:
        async with scene(reply({"teams": []})) as s:
            since = datetime(2026, 10, 1, 0, 0, 0, 900_000, tzinfo=UTC)
            await walk(s.client, 5, 6, 5, modified_since=since)
            return s.vendor.requests[0]

    request = asyncio.run(run())

    assert request.path == "/rest/race/7/teams"
    assert {key: value for key, value in request.query.items() if "api" not in key} == {
        "format": "json",
        "event_id": "5,6",
        "results_per_page": "1000",
        "page": "1",
        "modified_since": "1790812800",
    }


def test_pages_are_walked_until_one_is_short() -> None:
    async def run(number: int) -> tuple[list[TeamPage], list[str]]:
        async with scene(handler=Vendor(number)) as s:
            pages = await walk(s.client, page_size=3)
            return pages, [r.query["page"] for r in s.vendor.requests]

    pages, asked = asyncio.run(run(7))
    assert ids(pages) == list(range(1, 8))
    assert asked == ["1", "2", "3"]
    assert [(page.number, page.full, page.is_last) for page in pages] == [
        (1, 3, False),
        (2, 3, False),
        (3, 3, True),
    ]
    pages, asked = asyncio.run(run(6))
    assert [len(page.teams) for page in pages] == [3, 3, 0]


def test_the_next_page_is_requested_only_when_asked_for() -> None:
    async def run() -> int:
        async with scene(handler=Vendor(9)) as s, aclosing(s.client.teams(7, [1], page_size=2)) as pages:
            await anext(pages)
            await asyncio.sleep(0.1)
            return len(s.vendor.requests)

    assert asyncio.run(run()) == 1


def test_a_limit_nobody_told_us_of_does_not_end_the_walk_not_even_one_that_goes_on() -> None:
    async def run(**options: Any) -> list[TeamPage]:
        async with scene(handler=Vendor(130, most=50)) as s:
            return await walk(s.client, **options)

    pages = asyncio.run(run())
    assert ids(pages) == list(range(1, 131))

    assert ids(asyncio.run(run(number=2, full=pages[0].full))) == list(range(51, 131))


@pytest.mark.parametrize(("number", "most"), [(5, 10**9), (130, 50)])
def test_a_vendor_that_ignores_the_page_is_an_error_and_no_endless_walk(number: int, most: int) -> None:
    async def run() -> int:
        async with scene(handler=Vendor(number, most=most, ignores_page=True), retry_seconds=0) as s:
            with pytest.raises(AnswerUnreadable, match="again and again"):
                await walk(s.client, page_size=min(most, 3) if most > 50 else 1000)
            return len(s.vendor.requests)

    assert asyncio.run(run()) == 2


def test_rows_that_move_to_the_next_page_meanwhile_are_read_twice_and_end_all_the_same() -> None:
    vendor = Vendor(6)

    def handler(request: Request) -> Reply:
        answer = vendor(request)
        if request.query["page"] == "1":
            vendor.ids.insert(0, 99)
        return answer

    async def run() -> list[TeamPage]:
        async with scene(handler=handler) as s:
            return await walk(s.client, page_size=3)

    assert ids(asyncio.run(run())) == [1, 2, 3, 3, 4, 5, 6]


def test_teams_of_events_not_asked_for_are_not_believed() -> None:
    async def run(*events: int) -> list[TeamPage]:
        async with scene(reply({"teams": [team(1, event_id=5), team(2, event_id=9)]})) as s:
            return await walk(s.client, *events)

    with pytest.raises(ListingNotTrusted):
        asyncio.run(run(5, 6))
    [page] = asyncio.run(run(5))
    assert ids([page]) == [1]
    [bad] = page.unreadable
    assert bad.reason == "event not asked for"
    assert json.loads(bad.raw)["team_id"] == 2


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (error(7), AccessLost),
        (reply({"error": "no"}), RequestRefused),
        (Reply(b"<html>"), AnswerUnreadable),
        (Reply(b'{"teams":[{"team_id":1}', cut_at=None), AnswerUnreadable),
    ],
)
def test_an_error_is_an_error(answer: Reply, expected: type[Exception]) -> None:
    async def run() -> None:
        async with scene(answer, retry_seconds=0) as s:
            await walk(s.client)

    with pytest.raises(expected):
        asyncio.run(run())
