"""
The vendor's answers under one credential, as pages and numbers.

Every attempt takes a permit first and is reported afterwards, retries and failures too; that the
vendor asks for fewer calls is told to the permits, which keep it for all processes. Errors
are those of `domain/errors.py` and carry nothing of the request: no URL, no secret, no chain.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import partial
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeVar

import stamina

from bibwire.api import haste
from bibwire.api import teams as team_rows
from bibwire.api.answers import check_answer, parse_http_date, retry_after_seconds
from bibwire.api.apart import apart
from bibwire.api.dates import VendorTime
from bibwire.api.endpoints import (
    PARTICIPANT_COUNTS,
    PARTICIPANTS,
    RACE,
    RACES,
    REMOVED_PARTICIPANTS,
    TEAMS,
    Endpoint,
)
from bibwire.api.exact import LIGHT
from bibwire.api.paging import Fullness, Numbered, Unordered, page_of
from bibwire.api.participants import decode_participant
from bibwire.api.races import count_races, decode_counts, decode_race, decode_race_list
from bibwire.api.reach import Reach
from bibwire.api.retry import Backoff
from bibwire.api.rows import Cut, cut
from bibwire.api.transport import Answer, Transport, check_base_url
from bibwire.clock import Clock
from bibwire.domain.errors import (
    AnswerUnreadable,
    BadRecord,
    BibwireError,
    KeyRefused,
    NotTheApi,
    RetryLater,
    Throttled,
    VendorUnreachable,
)
from bibwire.domain.records import Dated, Page, RacePage, RawRow, TeamPage, UnreadableRow
from bibwire.domain.secrets import CallerRegistration, Credential, Secret

__all__ = ["CallMade", "Permits", "VendorClient", "check_base_url"]

_T = TypeVar("_T")
_Parameters = list[tuple[str, str]]
_Asked = tuple[Endpoint, int, tuple[int, ...], datetime | None, int, int | None]

_MOST_WALKS: Final = 5

# Pages of the race list, 1,000 races each: no account comes near. A list that goes on is none.
_MOST_LIST_PAGES: Final = 100
# Most calls are answered in less.
_LAST_MOMENT_SECONDS: Final = 2.0


class Permits(Protocol):
    """The right to make a call, held while it is in flight; and what became of it."""

    def permit(self, endpoint: str, *, patience_seconds: float) -> AbstractAsyncContextManager[float]:
        """
        Wait until one more call may be made; yield the seconds waited because of throttling.

        A VendorUnreachable raised inside means that nothing was sent: the call counts as not made.

        Raises:
            Blocked: Throttling makes it wait longer than `patience_seconds`.
        """

    async def throttled(self, reason: str, seconds: float) -> None:
        """Let nobody call for that many seconds: the vendor asked for fewer calls."""

    async def answered(self, *, accepted: bool) -> None:
        """Note the end of a call that was not throttled; not `accepted`: the vendor did not answer it."""

    async def record(self, endpoint: str, *, failed: bool, bytes_received: int, seconds: float) -> None:
        """Add an attempt that ended to the statistics. Must not raise."""


@dataclass(frozen=True, slots=True)
class CallMade:
    """
    One attempt, as it ended.

    `status` is None without an answer; `error` names what was wrong, None if nothing was.
    `bytes_received` are those on the wire; `seconds` are in flight, without waiting for a
    permit. `attempt` counts from 1. `sent` is false where no connection was made: the vendor knows
    nothing of it, and `error` says why in words for people.
    """

    endpoint: str
    status: int | None
    error: str | None
    bytes_received: int
    seconds: float
    attempt: int
    sent: bool = True


class VendorClient:
    """
    Speaks to the vendor for one partner.

    Args:
        timeout_seconds: For connecting, sending, each silence and a free connection alike; a
            whole call takes at most four times as long.
        retry_seconds: How long one call is retried, counting attempts, and waits after those that
            failed or were throttled, but not the time in line for a permit.
        on_call: Called after each attempt. Must not raise.
        may_call: Called before each attempt; what it raises ends the call.
        aside: Entered while a call that failed waits for its next attempt.
        reach: What is known of the way to the vendor, shared by the clients of a process.
        vendor_time: What is known of the vendor's clock, over all clients; by default, of this one.
        proxy: See `Transport`.
    """

    def __init__(
        self,
        *,
        base_url: str,
        credential: Credential,
        caller: CallerRegistration | None,
        permits: Permits,
        clock: Clock,
        timeout_seconds: float = 30.0,
        retry_seconds: float = 60.0,
        on_call: Callable[[CallMade], None] | None = None,
        may_call: Callable[[], None] | None = None,
        aside: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
        vendor_time: VendorTime | None = None,
        max_attempts: int = 8,
        reach: Reach | None = None,
        proxy: Secret | None = None,
    ) -> None:
        self._reach = reach or Reach(clock)
        self._transport = Transport(
            base_url=base_url,
            credential=credential,
            caller=caller,
            timeout_seconds=timeout_seconds,
            proxy=proxy,
        )
        self._permits = permits
        self._clock = clock
        self.vendor_time = vendor_time or VendorTime(clock)
        self._retry_seconds = retry_seconds
        self._on_call = on_call
        self._may_call = may_call
        self._aside = aside
        self._max_attempts = max_attempts
        # A listing that has no order, while it is given out, and what was asked for it.
        self._numbered: tuple[_Asked, Numbered] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._transport.aclose()

    async def races(
        self, *, start_date: date, end_date: date | None = None, soonest_first: bool = False
    ) -> AsyncGenerator[RacePage, None]:
        """
        Yield the races with a day in a span of days, with their events.

        Pages are numbered, so a race can stand on two of them when the list changes
        meanwhile.

        Args:
            end_date: The last day; None: without end.
            soonest_first: By date and not by name: of a list cut short, the nearest races are there.

        Raises:
            AnswerUnreadable: The list repeats itself, or does not end.
        """
        size = RACES.page_size or 0
        fullness = Fullness(size)
        number, shown = 1, set[int]()
        while True:
            page = await self._call(
                RACES,
                None,
                [
                    ("start_date", start_date.isoformat()),
                    *([] if end_date is None else [("end_date", end_date.isoformat())]),
                    *([("sort", "date ASC")] if soonest_first else []),
                    ("results_per_page", str(size)),
                    ("page", str(number)),
                ],
                decode_race_list,
            )
            is_full = fullness.is_full(count_races(page))
            ids = frozenset(race.race_id for race in page.races)
            if is_full and ids and ids <= shown:
                raise AnswerUnreadable("the vendor sends the same races again and again")
            yield page
            if not is_full:
                return
            if number == _MOST_LIST_PAGES:
                raise AnswerUnreadable(f"the vendor's race list does not end after {number:,} pages")
            shown |= ids
            number += 1

    async def race(self, race_id: int) -> RacePage:
        """Return a race with its events of all years; the list of races shows the present ones alone."""
        return await self._call(RACE, race_id, [], decode_race)

    def participants(
        self,
        race_id: int,
        event_ids: Sequence[int],
        *,
        after: int = 0,
        modified_after: datetime | None = None,
        page_size: int = 2500,
        longest_page: int | None = None,
        ahead: bool = False,
    ) -> AsyncGenerator[Page, None]:
        """
        Yield the active registrations of these events, by ascending id.

        Args:
            after: Only ids above this one; 0 for all.
            modified_after: Only those modified in this second or later.
            page_size: Rows a page, at most 2,500.
            longest_page: Rows of the longest page seen under the credential: one that is as long
                may have been cut, and is asked on after. None: no page is.
            ahead: Fetch the next page while the last is being worked on. By default it
                is fetched only when asked for, so that a process that dies repeats one call.

        Raises:
            ListingNotTrusted: If the answer does not fit a list of several events.
        """
        return self._listing(
            PARTICIPANTS, race_id, event_ids, after, modified_after, page_size, longest_page, ahead
        )

    def removed_participants(
        self,
        race_id: int,
        event_ids: Sequence[int],
        *,
        after: int = 0,
        modified_after: datetime | None = None,
        page_size: int = 2500,
        longest_page: int | None = None,
        ahead: bool = False,
    ) -> AsyncGenerator[Page, None]:
        """Yield the registrations that left these events; arguments as of `participants`."""
        return self._listing(
            REMOVED_PARTICIPANTS, race_id, event_ids, after, modified_after, page_size, longest_page, ahead
        )

    async def participant_counts(self, race_id: int, event_ids: Sequence[int]) -> dict[int, int]:
        """Return the vendor's own number of active registrations, by event."""
        return await self._call(
            PARTICIPANT_COUNTS,
            race_id,
            [("event_id", _id_list(event_ids))],
            lambda body, _: decode_counts(body),
        )

    async def teams(
        self,
        race_id: int,
        event_ids: Sequence[int],
        *,
        number: int = 1,
        full: int | None = None,
        modified_since: datetime | None = None,
        page_size: int = 1000,
    ) -> AsyncGenerator[TeamPage, None]:
        """
        Yield the teams of these events.

        Pages are numbered: what changes meanwhile can make teams stand on two of them, or on none.

        Args:
            number: The page to begin with; of a walk that goes on, the one after the last.
            full: Rows that make a full page, as that last one told; None: it is the first.
            modified_since: Only those modified in this second or later.
            page_size: Rows a page, at most 1,000.

        Raises:
            ListingNotTrusted: If the answer does not fit a list of several events.
        """
        size = max(1, min(page_size, TEAMS.page_size or page_size))
        asked = tuple(dict.fromkeys(event_ids))
        fullness = Fullness(size if full is None else full, is_first=full is None)
        shown: set[object] = set()
        while True:
            parameters = [
                ("event_id", _id_list(asked)),
                ("results_per_page", str(size)),
                ("page", str(number)),
            ]
            if modified_since is not None:
                parameters.append(("modified_since", _epoch(modified_since)))
            answer = await self._call(TEAMS, race_id, parameters, lambda body, _: team_rows.cut(body, asked))
            page = team_rows.page_of(
                answer, asked_event_ids=asked, number=number, fullness=fullness, shown=shown
            )
            yield page
            if page.is_last:
                return
            number += 1

    async def search_bib(self, race_id: int, event_ids: Sequence[int], bib: int) -> Page:
        """
        Return those who wear that bib now: none, one, or several.

        Whether the vendor matches whole bibs is not documented, so each row is looked at.
        A row that cannot be is in `unreadable`.
        """
        size = PARTICIPANTS.page_size or 0
        answer, dated = await self._cut(
            PARTICIPANTS,
            race_id,
            event_ids,
            [("results_per_page", str(size)), ("search_bib", str(bib))],
        )
        page = page_of(
            answer,
            asked_event_ids=event_ids,
            after=0,
            page_size=size,
            fullness=Fullness(size),
            dated=dated,
        )
        rows: list[RawRow] = []
        unreadable = list(page.unreadable)
        for row in page.rows:
            try:
                if decode_participant(row.raw).bib_num == bib:
                    rows.append(row)
            except BadRecord as error:
                unreadable.append(UnreadableRow(str(error), row.raw))
        return replace(page, rows=rows, unreadable=unreadable)

    async def _listing(
        self,
        endpoint: Endpoint,
        race_id: int,
        event_ids: Sequence[int],
        after: int,
        modified_after: datetime | None,
        page_size: int,
        longest_page: int | None,
        ahead: bool,
    ) -> AsyncGenerator[Page, None]:
        size = max(1, min(page_size, endpoint.page_size or page_size))
        asked = tuple(dict.fromkeys(event_ids))
        fullness = Fullness(size, longest=longest_page)

        async def fetch(after: int) -> Page:
            parameters: _Parameters = [("results_per_page", str(size))]
            if after:
                parameters.append(("after_registration_id", str(after)))
            if modified_after is not None:
                parameters.append(("modified_after_timestamp", _epoch(modified_after)))
            answer, dated = await self._cut(endpoint, race_id, asked, parameters)
            return page_of(
                answer,
                asked_event_ids=asked,
                after=after,
                page_size=size,
                fullness=fullness,
                dated=dated,
            )

        coming: asyncio.Task[Page] | None = None
        ask = (endpoint, race_id, asked, modified_after, size, longest_page)
        try:
            if self._numbered is not None and self._numbered[0] == ask and after:
                raise Unordered("these rows are not in order, as was seen before")
            page = await fetch(after)
            while True:
                if ahead and page.through is not None:
                    coming = asyncio.create_task(fetch(page.through))
                yield page
                if page.through is None:
                    return
                page = await (coming or fetch(page.through))
                coming = None
        except Unordered:
            coming = None
            found = await self._in_no_order(*ask)
            for page in found.pages(after=after, page_size=size):
                # Kept for whoever asks page by page: each would cost all of them.
                self._numbered = None if page.is_last else (ask, found)
                yield page
        finally:
            if coming is not None:
                coming.cancel()
                await asyncio.wait([coming])
                if not coming.cancelled():
                    coming.exception()  # looked at, or asyncio complains that nobody did

    async def _in_no_order(
        self,
        endpoint: Endpoint,
        race_id: int,
        asked: tuple[int, ...],
        modified_after: datetime | None,
        size: int,
        longest_page: int | None,
    ) -> Numbered:
        """
        Read a listing page by page, by number, until nothing can be missing.

        Raises:
            AnswerUnreadable: Something still is after several walks.
        """
        if self._numbered is not None and self._numbered[0] == (
            endpoint,
            race_id,
            asked,
            modified_after,
            size,
            longest_page,
        ):
            return self._numbered[1]
        found: Numbered | None = None
        for _ in range(_MOST_WALKS):
            before = -1 if found is None else found.found
            fullness, number = Fullness(size, longest=longest_page), 1
            while True:
                parameters: _Parameters = [("results_per_page", str(size)), ("page", str(number))]
                if modified_after is not None:
                    parameters.append(("modified_after_timestamp", _epoch(modified_after)))
                answer, dated = await self._cut(endpoint, race_id, asked, parameters)
                found = found or Numbered(asked, dated)
                is_new = found.add(answer)
                if not fullness.is_full(answer.received):
                    break
                if not is_new:
                    raise AnswerUnreadable("the vendor sends the same page of rows again and again")
                number += 1
            found.end_walk()
            if found.found > before:
                continue
            # Changes and removed rows are counted by nobody.
            is_counted = endpoint is PARTICIPANTS and modified_after is None
            if not is_counted or found.meets(await self.participant_counts(race_id, asked)):
                return found
        raise AnswerUnreadable(
            f"the vendor lists its rows in no order, and {_MOST_WALKS} times not all that there are"
        )

    async def _cut(
        self, endpoint: Endpoint, race_id: int, event_ids: Sequence[int], parameters: _Parameters
    ) -> tuple[Cut, Dated]:
        return await self._call(
            endpoint,
            race_id,
            [("event_id", _id_list(event_ids)), *parameters],
            lambda body, dated: (cut(body, event_ids), dated),
        )

    async def _call(
        self,
        endpoint: Endpoint,
        race_id: int | None,
        parameters: _Parameters,
        read: Callable[[bytes, Dated], _T],
    ) -> _T:
        """Make the call until it is answered, refused, or given up."""
        query = [*endpoint.fixed.items(), *parameters]
        path = endpoint.path_for(race_id)
        hurried = haste.present()
        backoff = Backoff(
            clock=self._clock,
            retry_seconds=min(self._retry_seconds, hurried.retry_seconds if hurried else math.inf),
            reach=self._reach,
            aside=self._aside,
        )
        async for attempt in stamina.retry_context(on=backoff, attempts=self._max_attempts, timeout=None):
            with attempt:
                await backoff.pause()
                return await self._attempt(endpoint, path, query, read, backoff, attempt.num)
        raise AssertionError("stamina gives the attempt's result or its error")

    async def _attempt(
        self,
        endpoint: Endpoint,
        path: str,
        query: _Parameters,
        read: Callable[[bytes, Dated], _T],
        backoff: Backoff,
        number: int,
    ) -> _T:
        if self._may_call is not None:
            self._may_call()
        patience = backoff.patience_seconds(number)
        outcome: Answer | BibwireError | None = None
        leaving: asyncio.CancelledError | None = None
        try:
            async with self._permits.permit(endpoint.name, patience_seconds=patience) as waited:
                if number > 1:
                    backoff.spend(waited)
                self._reach.check()
                sent_at, started = self._clock.now(), self._clock.monotonic()
                try:
                    outcome, leaving = await _to_its_end(self._get(path, query))
                finally:
                    seconds = self._clock.monotonic() - started
                    # A machine asleep meanwhile may have stopped the one, a clock set back the other.
                    in_flight = max(seconds, (self._clock.now() - sent_at).total_seconds())
                    if outcome is None:  # cancelled: the vendor may have counted it all the same
                        self._reach.gave_up()
                        self._report(CallMade(endpoint.name, None, "Cancelled", 0, seconds, number))
                if isinstance(outcome, VendorUnreachable):
                    raise outcome
        except VendorUnreachable:
            if outcome is None:
                raise  # known without an attempt
        if leaving is not None:  # the answer came, and the call is over; but nobody wants it any more
            self._report(CallMade(endpoint.name, None, "Cancelled", 0, seconds, number))
            raise leaving
        assert outcome is not None
        backoff.spend(seconds)
        backoff.retry_after_seconds = None

        status, received = None, 0
        result: tuple[_T] | BibwireError
        if isinstance(outcome, BibwireError):
            result = outcome
        else:
            status, received = outcome.status, outcome.bytes_received
            backoff.retry_after_seconds = retry_after_seconds(outcome.headers, now=self.vendor_time.now())
            work = partial(self._read, outcome, path, started, seconds, in_flight, read)
            result = work() if len(outcome.body) <= LIGHT else await apart(work)
        said = f"{type(result).__name__}: {result}" if isinstance(result, BibwireError) else None
        sent = not isinstance(result, VendorUnreachable)
        self._report(
            CallMade(endpoint.name, status, said if sent else str(result), received, seconds, number, sent)
        )
        await self._permits.record(
            endpoint.name, failed=said is not None, bytes_received=received, seconds=seconds
        )
        if isinstance(result, Throttled):
            await self._permits.throttled(str(result), backoff.pause_asked_seconds())
        else:
            await self._permits.answered(accepted=not isinstance(result, RetryLater))
        if isinstance(result, BibwireError):
            raise result
        return result[0]

    async def _get(self, path: str, query: _Parameters) -> Answer | BibwireError:
        """Send the request, and note what its end tells of the way to the vendor."""
        hurried, began_at = haste.present(), self._clock.monotonic()
        if hurried is None:
            outcome = await self._transport.get(path, query)
        else:
            loop = asyncio.get_running_loop()
            silent = loop.call_later(hurried.silent_seconds, hurried.on_silent)
            try:
                outcome = await self._transport.get(path, query, timeout_seconds=hurried.timeout_seconds)
            finally:
                silent.cancel()
        if isinstance(outcome, VendorUnreachable):
            self._reach.failed(outcome, began_at=began_at)
        elif isinstance(outcome, Answer):
            self._reach.reached()
        else:
            self._reach.gave_up()
        return outcome

    def _read(
        self,
        answer: Answer,
        path: str,
        started: float,
        seconds: float,
        in_flight: float,
        read: Callable[[bytes, Dated], _T],
    ) -> tuple[_T] | BibwireError:
        try:
            check_answer(answer.status, answer.body, answer.headers)
            # After the check: what a proxy answers in the vendor's place tells nothing of its clock.
            dated = self.vendor_time.dated(
                parse_http_date(answer.headers.get("date", "")),
                sent=started,
                received=started + seconds,
                in_flight=in_flight,
            )
            return (read(answer.body, dated),)
        except BibwireError as error:
            if isinstance(error, NotTheApi):
                error.args = (self._transport.answers_otherwise(path, str(error)),)
            elif isinstance(error, KeyRefused):
                error.args = (self._transport.of_key(str(error)),)
            # The vendor's own words may be in it; and the chain may hold the body.
            error.args = tuple(self._transport.redactor.redact_text(str(arg)) for arg in error.args)
            error.__context__ = None
            return error.with_traceback(None)

    def _report(self, call: CallMade) -> None:
        if self._on_call is not None:
            self._on_call(call)


async def _to_its_end(call: Coroutine[Any, Any, _T]) -> tuple[_T, asyncio.CancelledError | None]:
    """
    Await a call; who is cancelled meanwhile lets it come to its end for a moment.

    A call that is broken off goes on at the vendor, and keeps its place for as long as it may last.

    Raises:
        CancelledError: It did not end in time.
    """
    task = asyncio.create_task(call)
    try:
        return await asyncio.shield(task), None
    except asyncio.CancelledError as leaving:
        try:
            await asyncio.wait([task], timeout=_LAST_MOMENT_SECONDS)
        finally:
            task.cancel()
        if task.done() and not task.cancelled():
            return task.result(), leaving
        raise


def _epoch(instant: datetime) -> str:
    """Whole seconds, downwards: the filters are taken to be inclusive."""
    return str(math.floor(instant.timestamp()))


def _id_list(event_ids: Sequence[int]) -> str:
    if not event_ids:
        raise ValueError("at least one event must be asked for")
    return ",".join(str(event_id) for event_id in dict.fromkeys(event_ids))
