"""
Which sweeps a stream of a scope needs, and where a sweep that goes on stands.

A sweep freezes `high`, the vendor instant at which its first page was asked for: the `Date` of
the answer less the time in flight. The commit of its last page makes `high` the cursor. The next
delta asks from the cursor less a lookback, because edits can surface after their own second. An
event the cursor does not speak for is swept in full first. Pure: no I/O and no clock. Every
datetime is aware and in UTC.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from bibwire.domain.clocks import elapsed

LIVE_AFTER_END = timedelta(days=7)
# An interrupted full sync is taken up again within this time; later it begins anew.
RESUME_FULL = timedelta(hours=24)
# What was listed this short a time ago needs no delta to be called fresh.
FRESH = timedelta(minutes=5)
# Some 1,200 signs of URL: far below what any server in between refuses.
EVENTS_A_REQUEST = 100


class Stream(StrEnum):
    """The two streams of a scope."""

    PARTICIPANTS = "participants"
    REMOVED = "removed"


class SweepKind(StrEnum):
    """With or without a lower bound."""

    FULL = "full"
    DELTA = "delta"


@dataclass(frozen=True, slots=True)
class Lookback:
    """
    How far a delta reads again.

    `short` before the cursor on every poll. When the last long one is `long_every` ago: `long`
    before where the cursor stood at that one, so that every change that surfaces up to `long`
    after its own second is read, whenever the polls fall.
    """

    short: timedelta = timedelta(seconds=15)
    long: timedelta = timedelta(minutes=10)
    long_every: timedelta = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Sweep:
    """
    A sweep and its position.

    Args:
        since: Lower bound asked for; None in a full sweep.
        long: Whether it reads the long span again; a full sweep does.
        groups: Event ids, list by list; each list is one request sequence.
        group: Index of the list it is in.
        after: Last registration id committed in that list.
        high: Vendor instant at which the first page was asked for; None before it.
        listed: Rows listed so far by event id (full sweeps of participants).
        started_at: Our clock.
    """

    kind: SweepKind
    since: datetime | None
    long: bool
    groups: tuple[tuple[int, ...], ...]
    started_at: datetime
    group: int = 0
    after: int = 0
    high: datetime | None = None
    listed: dict[int, int] = field(default_factory=dict)

    @property
    def event_ids(self) -> frozenset[int]:
        return frozenset(event_id for group in self.groups for event_id in group)

    @property
    def longest_list(self) -> int:
        """The most events asked for together."""
        return max(map(len, self.groups))

    @property
    def counts(self) -> dict[int, int]:
        """Rows listed of each of its events, those without any included."""
        return dict.fromkeys(sorted(self.event_ids), 0) | self.listed

    def counted(self, *, as_of: datetime, listed: dict[int, int]) -> Sweep:
        """Return the sweep with a page's rows counted, and `high` frozen by the first page's `as_of`."""
        counts = {
            event_id: self.listed.get(event_id, 0) + listed.get(event_id, 0)
            for event_id in self.listed | listed
        }
        return replace(self, high=self.high or as_of, listed=counts)

    def advanced(self, *, through: int | None) -> Sweep | None:
        """
        Return the position after a page that listed ids up to `through`; None at the end.

        A `through` of None is the end of the group.
        """
        if through is not None:
            return replace(self, after=through)
        if self.group + 1 < len(self.groups):
            return replace(self, group=self.group + 1, after=0)
        return None


@dataclass(frozen=True, slots=True)
class Listing:
    """
    The last full listing of a stream that came to its end.

    Args:
        ended_at: Our clock.
        high: Vendor instant at which its first page was asked for.
        counts: Rows listed by event id, for each event asked for.
    """

    ended_at: datetime
    high: datetime
    counts: dict[int, int]


@dataclass(frozen=True, slots=True)
class StreamState:
    """
    Where a stream stands.

    Args:
        cursor_at: The vendor instant to which the mirror is complete for `event_ids`.
        long_at: Where the cursor stood after the last sweep that read the long span.
        sweep: The sweep that goes on, or was interrupted.
        listing: The last full listing of a full sync that goes on.
    """

    cursor_at: datetime | None = None
    event_ids: frozenset[int] = frozenset()
    long_at: datetime | None = None
    sweep: Sweep | None = None
    listing: Listing | None = None

    def finished(self, sweep: Sweep, live: frozenset[int], *, now: datetime) -> StreamState:
        """Return the state that the commit of the sweep's last page makes; `live` as in `plan`."""
        assert sweep.high is not None
        if self.cursor_at is not None and not sweep.event_ids >= live:
            # Some events joined the others: the cursor still speaks for all of them.
            return replace(
                self,
                cursor_at=min(self.cursor_at, sweep.high),
                event_ids=self.event_ids | sweep.event_ids,
                sweep=None,
            )
        listing = self.listing
        if sweep.kind is SweepKind.FULL:
            listing = Listing(ended_at=now, high=sweep.high, counts=sweep.counts)
        return StreamState(
            cursor_at=sweep.high,
            event_ids=sweep.event_ids,
            long_at=sweep.high if sweep.long else self.long_at,
            listing=listing,
        )


@dataclass(frozen=True, slots=True)
class Wish:
    """
    What is asked of a stream.

    Args:
        live: The events to keep fresh.
        now: Our clock; `vendor_now`: the vendor's, as far as it is known.
        full_since: List everything, unless it was listed since then; None: changes are enough.
        full_list, delta_list: The most events to ask for together in such sweeps.
    """

    live: frozenset[int]
    now: datetime
    full_since: datetime | None = None
    full_list: int = EVENTS_A_REQUEST
    delta_list: int = EVENTS_A_REQUEST
    lookback: Lookback = field(default_factory=Lookback)
    vendor_now: datetime | None = None

    def full(self, event_ids: Iterable[int]) -> Sweep:
        """Return a sweep without a lower bound."""
        return Sweep(
            kind=SweepKind.FULL,
            since=None,
            long=True,
            groups=grouped(event_ids, self.full_list),
            started_at=self.now,
        )

    def delta(self, state: StreamState) -> Sweep:
        """Return a sweep of all live events from the cursor less the lookback that is due."""
        assert state.cursor_at is not None
        long_at = state.long_at
        # By the vendor's clock alone, for so cursors are dated: a fast one of ours would take the long
        # look at every poll, a slow one never.
        now = max(self.vendor_now or self.now, state.cursor_at)
        long = long_at is None or now - long_at >= self.lookback.long_every
        if long:
            since = min(state.cursor_at, long_at or state.cursor_at) - self.lookback.long
        else:
            since = state.cursor_at - self.lookback.short
        return Sweep(
            kind=SweepKind.DELTA,
            since=since,
            long=long,
            groups=grouped(self.live, self.delta_list),
            started_at=self.now,
        )

    def may_resume(self, sweep: Sweep) -> bool:
        """Say whether an interrupted sweep still means the same."""
        longest = self.full_list if sweep.kind is SweepKind.FULL else self.delta_list
        if sweep.high is None or not sweep.event_ids <= self.live or sweep.longest_list > longest:
            return False
        if self.full_since is None:
            return True
        return sweep.kind is SweepKind.FULL and elapsed(sweep.started_at, self.now) <= RESUME_FULL


def lasts_until(starts_at: datetime | None, ends_at: datetime | None) -> datetime | None:
    """
    Return the later of an event's start and end; None without either.

    An end typed before the start is a slip of the year, and no reason to leave a race alone.
    `events.lasts_until` says the same in SQL.
    """
    if starts_at is None or ends_at is None:
        return ends_at or starts_at
    return max(starts_at, ends_at)


def is_live(starts_at: datetime | None, ends_at: datetime | None, *, now: datetime) -> bool:
    """Say whether an event is kept fresh: until 7 days after its end, or start without an end."""
    end = lasts_until(starts_at, ends_at)
    # A difference: an event "to be announced" in the year 9999 has no instant a week later.
    return end is None or now - end < LIVE_AFTER_END


def grouped(event_ids: Iterable[int], size: int) -> tuple[tuple[int, ...], ...]:
    """Cut event ids into the lists asked for together."""
    ids = sorted(event_ids)
    return tuple(tuple(ids[start : start + size]) for start in range(0, len(ids), size))


def plan(state: StreamState, wish: Wish) -> list[Sweep]:
    """Return the sweeps that make a stream fresh, in order; the interrupted one first."""
    sweeps: list[Sweep] = []
    resumed = state.sweep if state.sweep is not None and wish.may_resume(state.sweep) else None
    if resumed is not None:
        sweeps.append(resumed)
        state = state.finished(resumed, wish.live, now=wish.now)
    if state.cursor_at is None or state.event_ids.isdisjoint(wish.live):
        return [*sweeps, wish.full(wish.live)]
    listed_at = state.listing.ended_at if state.listing is not None else None
    if wish.full_since is not None and (listed_at is None or listed_at < wish.full_since):
        return [*sweeps, wish.full(wish.live)]
    unknown = wish.live - state.event_ids
    if unknown:
        return [*sweeps, wish.full(unknown), wish.delta(state)]
    read_at = resumed.started_at if resumed is not None else wish.full_since and listed_at
    if read_at is not None and elapsed(read_at, wish.now) < FRESH:
        return sweeps
    return [*sweeps, wish.delta(state)]
