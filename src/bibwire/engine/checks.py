"""
The checks of a verification, one function each: what it asks, what it expects, and how it judges.

Each is a task with its cost in calls, told before any is made, and what does it. A task reads the
mirror after the vendor, so that a difference can be dated; it writes nothing and holds no lease.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from bibwire.api import wire
from bibwire.clock import Clock
from bibwire.domain.clocks import in_words, wrong_clock
from bibwire.domain.doubts import FEW
from bibwire.domain.errors import AccessLost, BadRecord, CallsUsedUp, ScopeStopped
from bibwire.domain.records import Registration
from bibwire.domain.sweeps import Stream
from bibwire.domain.tiers import EventTimes, tier_of
from bibwire.domain.verify import (
    MOST_CLOCK_SECONDS,
    Comparison,
    Meantime,
    Verdict,
    compare_delta,
    compare_holders,
    compare_listing,
    compare_removed,
    delta_begin,
    is_late,
    longest_cut,
)
from bibwire.engine.evidence import Evidence, Listing
from bibwire.store import streams, verify
from bibwire.store.catalog import Scope
from bibwire.store.database import Database
from bibwire.store.verify import Size

Seen = tuple[Verdict, str]

CREDENTIAL: Final = "credential"
RIGHTS: Final = "rights"
FULL: Final = "full"
INCREMENTAL: Final = "incremental"
BIBS: Final = "bibs"
FEED: Final = "feed"
REMOVED: Final = "removed"
CLOCK: Final = "clock"
LISTS: Final = "lists"
PAGE_SIZE: Final = "page_size"
BUDGET: Final = "budget"
FRESHNESS: Final = "freshness"

KEYS_TRIED: Final = 3
DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Task:
    """
    A check to be made.

    Args:
        calls: About how many it takes, by what the mirror holds.
        scope: The race it is about; None: the partner.
        spare: It is made with the calls that are left over: another time it is another race's turn.
    """

    check: str
    scope: Scope | None
    asked: str
    expected: str
    calls: int
    do: Callable[[], Awaitable[Seen]]
    spare: bool = False


class Checks:
    """Makes the tasks of one partner, which share what was read."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        evidence: Evidence,
        partner_id: int,
        sizes: Mapping[int, Size],
    ) -> None:
        self._db = db
        self._clock = clock
        self._evidence = evidence
        self._partner_id = partner_id
        self._sizes = sizes

    # 1, 2: may we ask?

    def credential(self, scopes: Sequence[Scope]) -> Task:
        async def do() -> Seen:
            denied: list[str] = []
            for scope in scopes[:KEYS_TRIED]:
                try:
                    rows = await self._evidence.first_page(scope)
                except ScopeStopped as error:
                    denied.append(f"race {scope.race_id}: {error}")
                else:
                    return Verdict.PASS, f"race {scope.race_id} answers with {_rows(rows)}"
            return Verdict.FAIL, "; ".join(denied)

        return Task(CREDENTIAL, None, "a page of one race's participants", "an answer", 1, do)

    def rights(self, scope: Scope, *, spare: bool = False) -> Task:
        async def do() -> Seen:
            held = sum(self._active(scope).values())
            try:
                counts = await self._evidence.count(scope)
            except AccessLost as error:
                return Verdict.FAIL, f"denied for race {scope.race_id}, {scope.name}: {error}"
            except ScopeStopped as error:
                return Verdict.FAIL, f"race {scope.race_id}, {scope.name}: {error}"
            counted = sum(counts.values())
            seen = f"{counted:,} counted, {held:,} in the mirror"
            if not counted and held > FEW:
                return (
                    Verdict.FAIL,
                    f"{seen}: access that was lost looks so, for race {scope.race_id}, {scope.name}",
                )
            return Verdict.PASS, seen

        return Task(RIGHTS, scope, "the counts of its events", "an answer, not a denial", 1, do, spare)

    # 3, 4, 6: is the mirror what the vendor lists?

    def full(self, scope: Scope) -> Task:
        size = self._sizes[scope.race_id]

        async def do() -> Seen:
            listing = await self._evidence.listing(scope, size)
            await self._evidence.add_removed(scope, listing, size)
            found = await self._compare(scope, listing)
            if isinstance(found, str):
                return Verdict.SKIPPED, found
            if not found.is_equal:
                with suppress(CallsUsedUp):  # then what was seen the first time stands
                    await self._read_again(scope, listing)
                again = await self._compare(scope, listing)
                found = found if isinstance(again, str) else again
            seen = str(found)
            if listing.unreadable:
                seen += f"; {len(listing.unreadable):,} cannot be read and are quarantined"
            return _judged(found.is_equal), seen

        calls = self._pages(self._active(scope), size) + self._pages(size.removed, size)
        return Task(
            FULL,
            scope,
            "all registrations, active and removed",
            "the mirror's rows, column by column",
            calls,
            do,
        )

    async def _compare(self, scope: Scope, listing: Listing) -> Comparison | str:
        meantime, event_ids = await self._meantime(scope, listing)
        if meantime is None:
            return "its first load is not over"
        listed = {i: row for i, row in listing.rows.items() if row.event_id in event_ids}
        known = [*listing.rows, *listing.removals]
        stored = await verify.rows(self._db, self._partner_id, scope.race_id, event_ids, known)
        return compare_listing(
            listed,
            listing.removals,
            {i: row for i, row in stored.items() if i not in listing.unreadable},
            race_id=scope.race_id,
            meantime=meantime,
        )

    async def _meantime(self, scope: Scope, listing: Listing) -> tuple[Meantime | None, frozenset[int]]:
        """Return from when on differences are of the meantime, and the events the mirror has loaded."""
        key = (self._partner_id, scope.race_id)
        ours = await streams.load(self._db, *key, Stream.PARTICIPANTS)
        removed = await streams.load(self._db, *key, Stream.REMOVED)
        if ours.cursor_at is None or removed.cursor_at is None:
            return None, frozenset()
        assert listing.listed_at is not None
        assert listing.until is not None
        meantime = Meantime(ours.cursor_at, removed.cursor_at, listing.listed_at, listing.until)
        return meantime, ours.event_ids & scope.event_ids

    async def _read_again(self, scope: Scope, listing: Listing) -> None:
        """Bring a listing up to the present, once: people sign up and leave while it is compared."""
        assert listing.listed_at is not None
        one_by_one = self._sizes[scope.race_id].one_event or listing.untrusted is not None
        since = await self._evidence.meanwhile(scope, listing.listed_at, one_by_one=one_by_one)
        listing.bring_up(since)

    def incremental(self, scope: Scope) -> Task:
        size = self._sizes[scope.race_id]

        async def do() -> Seen:
            listing = self._evidence.listings[scope.race_id]
            since = delta_begin(listing.rows.values())
            if since is None:
                return Verdict.SKIPPED, "nobody is listed whose last change is dated"
            due: dict[int, int] = {}
            for row in listing.rows.values():
                if row.event_id is not None and row.last_modified_at and row.last_modified_at >= since:
                    due[row.event_id] = due.get(row.event_id, 0) + 1
            delta = await self._evidence.changes(scope, size, since=since, expected=due)
            assert listing.listed_at is not None
            found = compare_delta(listing.rows, delta.rows, since=since, listed_at=listing.listed_at)
            if not found.is_equal:
                one_by_one = size.one_event or listing.untrusted is not None
                later = await self._evidence.meanwhile(scope, listing.listed_at, one_by_one=one_by_one)
                found = compare_delta(
                    listing.rows,
                    delta.rows,
                    since=since,
                    listed_at=listing.listed_at,
                    meanwhile=later.changed_since(listing.listed_at),
                )
            told = f"since {since:%Y-%m-%d %H:%M:%S} UTC: {found}; of {len(listing.rows):,} listed"
            return _judged(found.is_equal), told

        return Task(
            INCREMENTAL,
            scope,
            "the changes since the middle of the newest 20",
            "those rows of the full listing whose last_modified says so, and no other",
            len(scope.event_ids) if size.one_event else 1,
            do,
        )

    def removed(self, scope: Scope) -> Task:
        async def do() -> Seen:
            listing = self._evidence.listings[scope.race_id]
            meantime, _ = await self._meantime(scope, listing)
            if meantime is None:
                return Verdict.SKIPPED, "its first load is not over"
            stored = await verify.rows(self._db, self._partner_id, scope.race_id, (), list(listing.removals))
            found = compare_removed(listing.removals, listing.rows, stored, meantime=meantime)
            return _judged(found.is_equal), str(found)

        return Task(
            REMOVED, scope, "its removed list", "a tombstone of the same reason and instant for each", 0, do
        )

    # 5: bibs

    def bibs(self, scope: Scope, bibs: Sequence[int]) -> Task:
        size = self._sizes[scope.race_id]

        async def do() -> Seen:
            wrong: list[str] = []
            for bib in bibs:
                wrong += await self._wrong_holders(scope, size, bib)
            numbers = ", ".join(map(str, bibs))
            return _judged(not wrong), "; ".join(wrong) or f"the same holders of {numbers}"

        asked = f"who wears {', '.join(map(str, bibs))}"
        return Task(BIBS, scope, asked, "whom the mirror says, and no other", len(bibs), do)

    async def _wrong_holders(self, scope: Scope, size: Size, bib: int) -> list[str]:
        listing = self._evidence.listings.get(scope.race_id)
        one_by_one = size.one_event or (listing is not None and listing.untrusted is not None)
        events = scope.event_ids
        if one_by_one:
            # Lists of events are not believed: only the events it is worn in by the mirror are asked.
            worn = await verify.holders(self._db, self._partner_id, scope.race_id, scope.event_ids, bib)
            events = frozenset(
                row.registration.event_id for row in worn.values() if row.registration.event_id is not None
            )
        shown: dict[int, Registration] = {}
        asked_at: datetime | None = None
        for some in [[event_id] for event_id in sorted(events)] if one_by_one else [sorted(events)]:
            page = await self._evidence.wearing(scope, some, bib)
            asked_at = min(asked_at or page.as_of, page.as_of)
            for row in page.rows:
                try:
                    shown[row.registration_id] = _decoded(row.raw, row.event_id)
                except BadRecord:
                    continue
        if asked_at is None:
            return []
        key = (self._partner_id, scope.race_id)
        begins = [(await streams.load(self._db, *key, stream)).cursor_at or asked_at for stream in Stream]
        stored = await verify.holders(self._db, *key, events, bib)
        wrong = compare_holders(bib, shown, stored)
        if wrong:
            # Who left is in the mirror once the removed list is read, which is less often.
            since, left_since = (min(begin, asked_at) for begin in begins)
            later = await self._evidence.meanwhile(scope, since, left_since=left_since, one_by_one=one_by_one)
            stored = await verify.holders(self._db, *key, events, bib)
            wrong = compare_holders(bib, shown, stored, meanwhile=later.changed_since(since, left_since))
        return wrong

    def feed(self, scope: Scope) -> Task:
        async def do() -> Seen:
            told, odd = await verify.bibs_against_feed(self._db, self._partner_id, scope.race_id)
            last_seq, lacking = await verify.feed_gaps(
                self._db, self._partner_id, since=self._clock.now() - DAY
            )
            seen = f"{told:,} changed since the first load"
            if odd:
                first = ", ".join(map(str, odd[:5]))
                seen += f"; {len(odd):,} not as the feed tells ({first})"
            if lacking:
                seen += f"; {lacking:,} lines lacking up to seq {last_seq:,}"
            return _judged(not odd and not lacking), seen

        return Task(
            FEED,
            scope,
            "its bib changes",
            "the newest bib_to of each is the bib in force, and no line is lacking",
            0,
            do,
        )

    # 7, 8, 9: the vendor's habits

    def clock(self, computer_ahead: float) -> Task:
        async def do() -> Seen:
            vendor = self._evidence.vendor_time
            found, spread = vendor.seen(), vendor.spread_seconds()
            if found is None:
                return Verdict.SKIPPED, "no answer with a Date that can be believed was seen"
            if spread > MOST_CLOCK_SECONDS:
                return Verdict.FAIL, f"the Dates of its answers are up to {in_words(spread)} apart"
            # A clock of ours that is wrong is no fault of the vendor's, and costs the mirror nothing.
            seen = f"its Dates agree; its clock is {found.date_ahead:+.1f} s from the database's"
            wrong = wrong_clock(vendor_ahead=found.date_ahead, computer_ahead=computer_ahead)
            return Verdict.PASS, seen if wrong is None else f"{seen}: {wrong.said}; {wrong.fix}"

        return Task(
            CLOCK,
            None,
            "the Date of its answers",
            f"Dates that agree within {MOST_CLOCK_SECONDS:.0f} s, by the time that passed between them",
            0,
            do,
        )

    def lists(self, scope: Scope) -> Task:
        size, several = self._sizes[scope.race_id], len(scope.event_ids)

        async def do() -> Seen:
            listing = await self._evidence.by_list(scope, size)
            singles = await self._evidence.one_by_one(scope)
            assert listing.of_list is not None
            odd, changed = _odd(listing.of_list, singles), 0
            if odd:
                assert listing.listed_at is not None
                later = await self._evidence.meanwhile(scope, listing.listed_at, one_by_one=True)
                changed = len(odd)
                odd -= later.changed_since(listing.listed_at)
                changed -= len(odd)
            seen = f"{len(listing.of_list):,} by one list, {len(singles):,} by {several} lists"
            if changed:
                seen += f", {changed:,} changed meanwhile"
            if odd:
                seen += f", {len(odd):,} differ ({', '.join(map(str, sorted(odd)[:5]))})"
            if listing.untrusted is not None:
                seen += f": {listing.untrusted}"
            return _judged(not odd and not listing.contradicted), seen

        of_one = self._pages(self._active(scope), Size(True, False)) if size.one_event else 0
        return Task(
            LISTS,
            scope,
            f"its {several} events together, and each alone",
            "the same registrations in the same events",
            of_one + self._pages(self._active(scope), Size(True, True)),
            do,
        )

    def page_size(self, scopes: Sequence[Scope], listed: Sequence[Scope]) -> Task:
        wanted = self._evidence.page_size
        largest = max(scopes, key=lambda scope: max(self._active(scope).values(), default=0))
        event_id, rows = max(self._active(largest).items(), key=lambda item: item[1], default=(0, 0))
        asks = largest not in listed and rows > wanted

        async def do() -> Seen:
            longest = 0
            for race_id, listing in self._evidence.listings.items():
                for pages in listing.pages:
                    longest = max(longest, *pages, 0)
                    cut = longest_cut(pages, wanted)
                    if cut is not None:
                        return Verdict.FAIL, f"race {race_id}: a page of {cut:,} rows, and more followed"
            if asks:
                first = await self._evidence.first_of_many(largest, [event_id])
                longest = max(longest, first)
                if first < wanted:
                    return (
                        Verdict.FAIL,
                        f"race {largest.race_id}: a page of {first:,} rows, and the mirror has {rows:,}",
                    )
            if not longest:
                return Verdict.SKIPPED, "no page with rows was seen"
            if longest < wanted:
                return Verdict.PASS, f"no race took a second page; the longest had {longest:,} rows"
            return Verdict.PASS, f"a first page of {longest:,} rows"

        return Task(
            PAGE_SIZE,
            None,
            f"pages of {wanted:,} rows",
            "no shorter page while more rows follow",
            int(asks),
            do,
        )

    # 11: is it fresh?

    def freshness(self, scope: Scope) -> Task:
        async def do() -> Seen:
            if await verify.planned_at(self._db, self._partner_id) is None:
                return Verdict.SKIPPED, "no scheduler has run"
            now = self._clock.now()
            times = await verify.event_times(self._db, self._partner_id, scope.event_ids)
            tier = tier_of(times.get(scope.race_id, [EventTimes(None, None)]), now)
            if tier is None:
                return Verdict.SKIPPED, "no event of it is live any more"
            as_of = (await verify.ages(self._db, self._partner_id, [scope.race_id])).get(scope.race_id)
            if as_of is None:
                return Verdict.FAIL, f"race {scope.race_id}, {scope.name}, is not loaded"
            # Dated by the vendor's clock: so is the age.
            age = (self._evidence.vendor_time.now() - as_of).total_seconds()
            seen = f"{max(0.0, age):,.0f} s old, and {tier.seconds:,.0f} s is its target"
            return _judged(not is_late(age, tier.seconds)), seen

        return Task(
            FRESHNESS, scope, "the age of its mirror", "no more than twice its target and a minute", 0, do
        )

    def _active(self, scope: Scope) -> dict[int, int]:
        size = self._sizes.get(scope.race_id)
        return {} if size is None else {e: n for e, n in size.active.items() if e in scope.event_ids}

    def _pages(self, rows: Mapping[int, int], size: Size) -> int:
        """Return about how many calls a listing of so many rows takes, by event."""
        if size.one_event:
            return max(1, sum(n // self._evidence.page_size + 1 for n in rows.values()))
        return sum(rows.values()) // self._evidence.page_size + 1


def _decoded(raw: bytes, event_id: int | None) -> Registration:
    registration = wire.decode_participant(raw)
    if registration.event_id is None:
        registration.event_id = event_id
    return registration


def _judged(is_right: bool) -> Verdict:
    return Verdict.PASS if is_right else Verdict.FAIL


def _odd(one: Mapping[int, int | None], other: Mapping[int, int | None]) -> set[int]:
    return {i for i in one.keys() | other.keys() if i not in one or i not in other or one[i] != other[i]}


def _rows(number: int) -> str:
    return "1 row" if number == 1 else f"{number:,} rows"
