"""Pages make a complete listing, or an error says that they do not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from bibwire.domain.errors import AnswerUnreadable, ListingNotTrusted
from bibwire.domain.records import Page
from tests.waiting import PATIENCE_SECONDS

from .loopback import DATE_AT, Reply, Request, listing, person, reply, scene


class Everybody:
    """Answers like the vendor does: rows above `after_registration_id`, at most so many."""

    def __init__(self, ids: list[int], *, most: int = 10**9, event_id: int = 1) -> None:
        self.ids = ids
        self.most = most
        self.event_id = event_id

    def __call__(self, request: Request) -> Reply:
        after = int(request.query.get("after_registration_id", 0))
        size = min(int(request.query["results_per_page"]), self.most)
        shown = [number for number in self.ids if number > after][:size]
        return reply(listing(*(person(number, self.event_id) for number in shown)))


async def _pages(client: Any, *events: int, **options: Any) -> list[Page]:
    return [page async for page in client.participants(7, events or (1,), **options)]


def _ids(pages: list[Page]) -> list[int]:
    return [row.registration_id for page in pages for row in page.rows]


def test_a_listing_is_asked_for_by_ascending_id_with_everything_the_vendor_needs() -> None:
    async def run() -> Request:
        async with scene(reply(listing())) as s:
            since = datetime(2026, 10, 1, 0, 0, 0, 900_000, tzinfo=UTC)
            await _pages(s.client, 5, 6, 5, modified_after=since)
            return s.vendor.requests[0]

    request = asyncio.run(run())

    assert request.path == "/rest/race/7/participants"
    assert {key: value for key, value in request.query.items() if "api" not in key} == {
        "format": "json",
        "supports_nb": "T",
        "sort": "registration_id ASC",
        "event_id": "5,6",
        "results_per_page": "2500",
        "modified_after_timestamp": "1790812800",
    }
    assert request.headers["user-agent"].startswith("bibwire/")


def test_pages_are_walked_by_the_last_id_until_one_is_not_full() -> None:
    async def run() -> tuple[list[Page], list[str | None]]:
        async with scene(handler=Everybody(list(range(10, 80, 10)))) as s:
            pages = await _pages(s.client, page_size=3)
            return pages, [r.query.get("after_registration_id") for r in s.vendor.requests]

    pages, afters = asyncio.run(run())

    assert _ids(pages) == list(range(10, 80, 10))
    assert afters == [None, "30", "60"]
    assert [(page.after, page.through) for page in pages] == [(0, 30), (30, 60), (60, None)]
    assert [page.is_last for page in pages] == [False, False, True]
    assert {page.answered_at for page in pages} == {DATE_AT}


def test_a_full_last_page_is_followed_by_an_empty_one() -> None:
    async def run() -> list[Page]:
        async with scene(handler=Everybody([1, 2, 3, 4])) as s:
            return await _pages(s.client, page_size=2)

    assert [len(page.rows) for page in asyncio.run(run())] == [2, 2, 0]


def test_a_walk_can_go_on_where_an_earlier_one_stopped() -> None:
    async def run() -> list[Page]:
        async with scene(handler=Everybody([1, 2, 3, 4, 5])) as s:
            return await _pages(s.client, page_size=2, after=2)

    pages = asyncio.run(run())

    assert _ids(pages) == [3, 4, 5]
    assert pages[0].after == 2


def test_the_next_page_is_requested_only_when_asked_for() -> None:
    async def run() -> int:
        async with (
            scene(handler=Everybody(list(range(1, 10)))) as s,
            aclosing(s.client.participants(7, [1], page_size=2)) as pages,
        ):
            await anext(pages)
            await asyncio.sleep(0.1)
            return len(s.vendor.requests)

    assert asyncio.run(run()) == 1


def test_ahead_requests_one_page_more_and_cancels_it_when_the_consumer_stops() -> None:
    def handler(request: Request) -> Reply:
        answer = Everybody(list(range(1, 10)))(request)
        if "after_registration_id" in request.query:
            answer.before = 3600
        return answer

    async def run() -> tuple[int, int, int, list[str | None]]:
        async with scene(handler=handler) as s:
            async with aclosing(s.client.participants(7, [1], page_size=2, ahead=True)) as pages:
                await anext(pages)
                await s.vendor.asked_twice.wait()
                held = s.permits.held
            others = asyncio.all_tasks() - {asyncio.current_task()}
            ours = [task for task in others if "fetch" in repr(task)]
            return held, s.permits.held, len(ours), [call.error for call in s.calls]

    held, held_after, ours, errors = asyncio.run(asyncio.wait_for(run(), PATIENCE_SECONDS))

    assert (held, held_after, ours) == (1, 0, 0)
    assert errors == [None, "Cancelled"]


def test_ahead_gives_the_same_pages() -> None:
    async def run(ahead: bool) -> list[Page]:
        async with scene(handler=Everybody(list(range(1, 10)))) as s:
            return await _pages(s.client, page_size=2, ahead=ahead)

    assert asyncio.run(run(True)) == asyncio.run(run(False))


def test_a_first_page_cut_to_an_unknown_limit_does_not_end_the_listing() -> None:
    async def run() -> tuple[list[Page], int]:
        async with scene(handler=Everybody(list(range(1, 131)), most=50)) as s:
            pages = await _pages(s.client)
            return pages, len(s.vendor.requests)

    pages, requests = asyncio.run(run())

    assert _ids(pages) == list(range(1, 131))
    assert requests == 3


def test_a_round_number_of_rows_costs_one_call_more_and_not_two() -> None:
    async def run() -> tuple[int, list[bool]]:
        async with scene(handler=Everybody(list(range(1, 101)))) as s:
            pages = await _pages(s.client)
            return len(_ids(pages)), [page.is_last for page in pages]

    assert asyncio.run(run()) == (100, [False, True])


def test_an_odd_number_of_rows_ends_the_listing_at_once() -> None:
    async def run() -> int:
        async with scene(handler=Everybody(list(range(1, 100)))) as s:
            await _pages(s.client)
            return len(s.vendor.requests)

    assert asyncio.run(run()) == 1


def test_a_round_last_page_after_full_ones_ends_the_listing() -> None:
    async def run() -> int:
        async with scene(handler=Everybody(list(range(1, 251)))) as s:
            await _pages(s.client, page_size=200)
            return len(s.vendor.requests)

    assert asyncio.run(run()) == 2


@pytest.mark.parametrize(
    "rows",
    [[person(9), person(6)], [person(4), person(20)]],
    ids=["sort ignored", "after ignored"],
)
def test_the_last_page_needs_no_order(rows: list[dict[str, Any]]) -> None:
    async def run() -> list[int]:
        async with scene(reply(listing(*rows))) as s:
            pages = await _pages(s.client, after=5)
            assert len(s.vendor.requests) == 1
            return [row.registration_id for page in pages for row in page.rows]

    assert asyncio.run(run()) == sorted(row["registration_id"] for row in rows)


class Unordered:
    """Lists people in the order of `ids`, whatever was asked; counts them right."""

    def __init__(self, *ids: int, ignores_after: bool = False) -> None:
        self.ids = list(ids)
        self.ignores_after = ignores_after
        self.after_page: dict[int, Callable[[], None]] = {}

    def __call__(self, request: Request) -> Reply:
        if request.path.endswith("counts"):
            return reply({"participant_counts": [{"event_id": 1, "num_participants": len(self.ids)}]})
        after = 0 if self.ignores_after else int(request.query.get("after_registration_id", 0))
        size, number = int(request.query["results_per_page"]), int(request.query.get("page", 1))
        shown = [each for each in self.ids if each > after][(number - 1) * size : number * size]
        if "page" in request.query:
            self.after_page.pop(number, lambda: None)()
        return reply(listing(*map(person, shown)))


@pytest.mark.parametrize(
    "vendor",
    [Unordered(9, 2, 8, 1, 5), Unordered(1, 2, 9, 3, 4), Unordered(1, 2, 3, 4, 5, ignores_after=True)],
    ids=["no order", "order at first", "after ignored"],
)
@pytest.mark.parametrize("ahead", [False, True])
def test_without_order_the_pages_are_asked_for_by_number_and_the_whole_is_counted(
    vendor: Unordered, ahead: bool
) -> None:
    async def run() -> tuple[list[Page], list[dict[str, str]]]:
        async with scene(handler=vendor) as s:
            pages = await _pages(s.client, page_size=2, ahead=ahead)
            return pages, [request.query for request in s.vendor.requests]

    pages, queries = asyncio.run(run())

    end = pages[-3:]
    assert [[row.registration_id for row in page.rows] for page in end] == [
        sorted(vendor.ids)[start : start + 2] for start in (0, 2, 4)
    ]
    assert [(page.after, page.through) for page in end] == list(
        zip([0, *sorted(vendor.ids)[1:4:2]], [*sorted(vendor.ids)[1:4:2], None], strict=True)
    )
    assert [query["page"] for query in queries if "page" in query] == ["1", "2", "3"] * 2


def test_who_moves_to_another_page_while_pages_are_read_is_not_missed() -> None:
    vendor = Unordered(9, 2, 8, 1, 5)
    # One leaves from the first page, and 8 moves to it, before the second is read.
    vendor.after_page[1] = lambda: vendor.ids.remove(9)

    async def run() -> list[int]:
        async with scene(handler=vendor) as s:
            pages = await _pages(s.client, page_size=2)
            return [row.registration_id for page in pages for row in page.rows]

    assert {1, 2, 5, 8} <= set(asyncio.run(run()))


def test_changes_without_order_are_walked_until_a_walk_shows_nothing_new() -> None:
    vendor = Unordered(9, 2, 8, 1, 5)
    vendor.after_page[1] = lambda: vendor.ids.remove(9)

    async def run() -> list[int]:
        async with scene(handler=vendor) as s:
            pages = await _pages(s.client, page_size=2, modified_after=DATE_AT)
            return [row.registration_id for page in pages for row in page.rows]

    assert {1, 2, 5, 8} <= set(asyncio.run(run()))


def test_a_walk_that_goes_on_where_another_stopped_does_not_read_all_again() -> None:
    vendor = Unordered(9, 2, 8, 1, 5)

    async def run() -> tuple[list[int], int]:
        async with scene(handler=vendor) as s:
            ids: list[int] = []
            after: int | None = 0
            while after is not None:  # as a backfill asks: each page by itself
                async with aclosing(s.client.participants(7, [1], after=after, page_size=2)) as pages:
                    page = await anext(pages)
                ids += [row.registration_id for row in page.rows]
                after = page.through
            return ids, len(s.vendor.requests)

    ids, calls = asyncio.run(run())

    assert ids == sorted(vendor.ids)
    assert calls == 1 + 2 * 3 + 1  # what showed that there is no order, three pages twice, the counts


def test_a_listing_that_never_meets_the_counts_is_an_error() -> None:
    def handler(request: Request) -> Reply:
        if request.path.endswith("counts"):
            return reply({"participant_counts": [{"event_id": 1, "num_participants": 7}]})
        return Unordered(9, 2, 8, 1, 5)(request)

    async def run() -> None:
        async with scene(handler=handler) as s:
            with pytest.raises(AnswerUnreadable, match="in no order"):
                await _pages(s.client, page_size=2)

    asyncio.run(run())


def test_several_events_without_order_are_asked_for_one_by_one() -> None:
    async def run() -> None:
        async with scene(reply(listing(person(9), person(5)))) as s:
            with pytest.raises(ListingNotTrusted):
                async for _ in s.client.participants(7, [1, 2], page_size=2):
                    pass

    asyncio.run(run())


def test_the_row_asked_after_is_left_out_where_the_vendor_repeats_it() -> None:
    async def run() -> list[Page]:
        async with scene(reply(listing(person(5), person(6)))) as s:
            return await _pages(s.client, after=5)

    assert _ids(asyncio.run(run())) == [6]


def test_a_limit_for_each_event_is_found_out() -> None:
    both = [*listing(*map(person, (1, 2))), *listing(person(3, 2), person(4, 2), event_id=2)]

    async def run() -> None:
        async with scene(reply(both)) as s:
            with pytest.raises(ListingNotTrusted, match="more rows"):
                await _pages(s.client, 1, 2, page_size=2)

    asyncio.run(run())


def test_several_events_come_as_one_ascending_page() -> None:
    both = [*listing(*map(person, (1, 7))), *listing(person(3, 2), person(9, 2), event_id=2)]

    async def run() -> list[Page]:
        async with scene(reply(both)) as s:
            return await _pages(s.client, 1, 2)

    [page] = asyncio.run(run())
    assert [(row.registration_id, row.event_id) for row in page.rows] == [
        (1, 1),
        (3, 2),
        (7, 1),
        (9, 2),
    ]


def test_rows_of_other_events_break_a_listing_of_several() -> None:
    async def run() -> None:
        async with scene(reply(listing(person(1), person(2, 99)))) as s:
            with pytest.raises(ListingNotTrusted, match="not asked for"):
                await _pages(s.client, 1, 2)

    asyncio.run(run())


def test_a_row_of_another_event_is_set_aside_when_one_was_asked_for() -> None:
    async def run() -> list[Page]:
        async with scene(reply(listing(person(1), person(2, 99)))) as s:
            return await _pages(s.client, 1)

    [page] = asyncio.run(run())
    assert _ids([page]) == [1]
    assert [row.reason for row in page.unreadable] == ["event not asked for"]


def test_removed_rows_stand_inside_the_event_and_are_paged_the_same_way() -> None:
    def handler(request: Request) -> Reply:
        after = int(request.query.get("after_registration_id", 0))
        shown = [person(number, None) for number in (1, 2, 3) if number > after][:2]
        return reply([{"event": {"event_id": 4, "participants": shown}}])

    async def run() -> tuple[list[Page], str]:
        async with scene(handler=handler) as s:
            pages = [page async for page in s.client.removed_participants(7, [4], page_size=2)]
            return pages, s.vendor.requests[0].path

    pages, path = asyncio.run(run())

    assert path == "/rest/race/7/removed-participants"
    assert [(row.registration_id, row.event_id) for page in pages for row in page.rows] == [
        (1, 4),
        (2, 4),
        (3, 4),
    ]


def test_races_are_paged_by_number_and_the_next_page_only_after_a_full_one() -> None:
    def handler(request: Request) -> Reply:
        first = (int(request.query["page"]) - 1) * 1000
        shown = range(first + 1, min(first + 1000, 1400) + 1)
        return reply({"races": [{"race": {"race_id": n, "name": "R"}} for n in shown]})

    async def run() -> tuple[list[int], list[dict[str, str]]]:
        async with scene(handler=handler) as s:
            pages = [page async for page in s.client.races(start_date=date(2010, 1, 1))]
            return [len(page.races) for page in pages], [r.query for r in s.vendor.requests]

    sizes, queries = asyncio.run(run())

    assert sizes == [1000, 400]
    assert queries[0]["start_date"] == "2010-01-01"
    assert queries[0]["events"] == "T"
    assert queries[0]["results_per_page"] == "1000"
    assert [query["page"] for query in queries] == ["1", "2"]


def test_races_that_cannot_be_read_count_towards_a_full_page() -> None:
    def handler(request: Request) -> Reply:
        if request.query["page"] != "1":
            return reply({"races": []})
        good: list[Any] = [{"race": {"race_id": n, "name": "R"}} for n in range(1, 1000)]
        return reply({"races": [*good, {"race": {"name": "no id"}}]})

    async def run() -> int:
        async with scene(handler=handler) as s:
            async for _ in s.client.races(start_date=date(2010, 1, 1)):
                pass
            return len(s.vendor.requests)

    assert asyncio.run(run()) == 2


def test_events_that_cannot_be_read_do_not_count_towards_a_full_page() -> None:
    races = [{"race": {"race_id": n, "name": "R", "events": [{}]}} for n in range(1, 502)]

    async def run() -> int:
        async with scene(reply({"races": races})) as s:
            [page] = [page async for page in s.client.races(start_date=date(2010, 1, 1))]
            return len(page.unreadable)

    assert asyncio.run(run()) == 501


def test_a_vendor_that_ignores_the_page_number_does_not_keep_us_for_ever() -> None:
    races = [{"race": {"race_id": n, "name": "R"}} for n in range(1, 1001)]

    async def run() -> None:
        async with scene(reply({"races": races})) as s:
            with pytest.raises(AnswerUnreadable, match="again and again"):
                async for _ in s.client.races(start_date=date(2010, 1, 1)):
                    pass

    asyncio.run(run())


def test_a_race_list_that_comes_round_again_is_given_up() -> None:
    def handler(request: Request) -> Reply:
        first = int(request.query["page"]) % 3 * 50
        shown = range(first + 1, first + 51)
        return reply({"races": [{"race": {"race_id": n, "name": "R"}} for n in shown]})

    async def run() -> int:
        async with scene(handler=handler) as s:
            with pytest.raises(AnswerUnreadable, match="again and again"):
                async for _ in s.client.races(start_date=date(2010, 1, 1)):
                    pass
            return len(s.vendor.requests)

    assert asyncio.run(run()) == 4


def test_a_race_list_that_never_ends_is_given_up() -> None:
    def handler(request: Request) -> Reply:
        first = int(request.query["page"]) * 50
        shown = range(first + 1, first + 51)
        return reply({"races": [{"race": {"race_id": n, "name": "R"}} for n in shown]})

    async def run() -> int:
        async with scene(handler=handler) as s:
            with pytest.raises(AnswerUnreadable, match="does not end"):
                async for _ in s.client.races(start_date=date(2010, 1, 1)):
                    pass
            return len(s.vendor.requests)

    assert asyncio.run(run()) == 100


def test_a_bib_search_keeps_only_those_who_wear_that_very_bib() -> None:
    rows = [
        person(1, bib_num=12),
        person(2, bib_num="0012"),
        person(3, bib_num=120),
        person(4, bib_num="12A"),
    ]

    async def run() -> tuple[Page, str]:
        async with scene(reply(listing(*rows))) as s:
            return await s.client.search_bib(7, [1], 12), s.vendor.requests[0].query["search_bib"]

    page, asked = asyncio.run(run())

    assert asked == "12"
    assert _ids([page]) == [1, 2]


def test_counts_are_by_event() -> None:
    rows = [{"event_id": 1, "num_participants": 42}, {"event_id": "2", "num_participants": "0"}]

    async def run() -> dict[int, int]:
        async with scene(reply({"participant_counts": rows})) as s:
            return await s.client.participant_counts(7, [1, 2])

    assert asyncio.run(run()) == {1: 42, 2: 0}


@pytest.mark.parametrize("seconds", [0.0, 0.3, 20.0])
def test_an_answer_is_as_of_the_moment_it_was_asked_for(seconds: float) -> None:
    """The rows may have been read then, however late they come and are dated."""

    async def run() -> Page:
        async with scene() as s:

            def answer(_: Request) -> Reply:
                s.clock.advance(seconds)
                return reply(listing())

            s.vendor.handler = answer
            [page] = await _pages(s.client)
            return page

    page = asyncio.run(run())

    assert page.answered_at == DATE_AT
    assert page.as_of <= DATE_AT - timedelta(seconds=seconds) < page.as_of + timedelta(seconds=1)


def test_without_a_date_header_the_answer_is_dated_before_it_was_asked_for() -> None:
    async def run(headers: dict[str, str]) -> datetime:
        async with scene(reply(listing(), headers=headers)) as s:
            [page] = await _pages(s.client)
            return page.as_of

    for headers in ({}, {"Date": "yesterday"}):
        assert asyncio.run(run(headers)) < DATE_AT
