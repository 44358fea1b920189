"""
What a backfill loads, in which order, and what it will cost.

A race's events that are over are listed like any others: people first, then those removed. The
vendor's own count of each event says in advance how many pages that takes, and afterwards whether
all of them came. Pure: no I/O and no clock. Every datetime is aware and in UTC.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from bibwire.domain.sweeps import EVENTS_A_REQUEST, Stream, Sweep, SweepKind, grouped


@dataclass(frozen=True, slots=True)
class Position:
    """
    Where the backfill of some events of a race stands.

    Args:
        stream: People, then those removed.
        silent: Those of its events of which nothing was stored before: the feed tells of them
            together once they are loaded.
        proven: Of how many events together the vendor was seen to list all, here.
    """

    stream: Stream
    sweep: Sweep
    silent: frozenset[int]
    proven: int = 1

    @property
    def event_ids(self) -> frozenset[int]:
        return self.sweep.event_ids


@dataclass(frozen=True, slots=True)
class PastRace:
    """
    What is wanted of one race.

    Args:
        past: Events that are over and in the span asked for.
        live: Its events in the span that are kept fresh; they are loaded with it, where they are not
            yet.
        has_live: Whether it has such events at all: their first load tells of the race.
        newest: The latest start of all of them; None: none has one.
    """

    partner_id: int
    race_id: int
    name: str
    past: frozenset[int]
    live: frozenset[int]
    newest: datetime | None
    is_loaded: bool
    has_live: bool


@dataclass(slots=True)
class Cost:
    """What is left to do: calls at least, and people."""

    calls: int = 0
    people: int = 0

    def add(self, other: Cost) -> None:
        self.calls += other.calls
        self.people += other.people


@dataclass(slots=True)
class Progressed:
    """What is stored of a race's backfill."""

    event_ids: frozenset[int] = frozenset()
    counts: dict[int, int] = field(default_factory=dict)
    one_event: bool = False
    position: Position | None = None

    def left(self, wanted: Collection[int]) -> frozenset[int]:
        """Return the wanted events that are not loaded."""
        return frozenset(wanted) - self.event_ids


def begin(events: Collection[int], *, silent: frozenset[int], one_event: bool, now: datetime) -> Position:
    """Return the position before the first page of the people of these events."""
    return Position(Stream.PARTICIPANTS, _full(events, 1 if one_event else EVENTS_A_REQUEST, now=now), silent)


def to_removed(position: Position, *, proven: int, now: datetime) -> Position:
    """Return the position before the first page of those removed; no count tells if these lists are short."""
    return Position(
        Stream.REMOVED, _full(position.event_ids, max(1, proven), now=now), position.silent, position.proven
    )


def left_of(race: PastRace, state: Progressed) -> frozenset[int]:
    """Return the events of a race that are to be loaded still."""
    return state.left(race.past) | (frozenset() if race.is_loaded else race.live)


def cost(race: PastRace, state: Progressed, *, teams: Collection[int], page_size: int) -> Cost:
    """
    Return what it takes at least to load what is left of a race, by the vendor's counts.

    A list of events costs a call a full page and one more, which ends it; the lists of those removed,
    and of teams, are taken to be short.

    Args:
        teams: Events whose teams are to be listed.
    """
    left = left_of(race, state)
    together = 1 if state.one_event else EVENTS_A_REQUEST
    groups, lists = grouped(left, together), len(grouped(teams, together))
    people = [sum(state.counts.get(event_id, 0) for event_id in group) for group in groups]
    return Cost(calls=sum(2 + number // page_size for number in people) + lists, people=sum(people))


def short_of(
    listed: Mapping[int, int], counts: Mapping[int, int], *, unreadable: int
) -> tuple[int, int] | None:
    """
    Return an event that listed fewer registrations than the vendor counts, and by how many.

    None: no event did, or rows that could not even be told apart make up for it.
    """
    lacking = {
        event_id: counts.get(event_id, 0) - number
        for event_id, number in listed.items()
        if counts.get(event_id, 0) > number
    }
    if sum(lacking.values()) <= unreadable:
        return None
    event_id = max(lacking, key=lambda each: lacking[each])
    return event_id, lacking[event_id]


def proven_length(group: Collection[int], listed: Mapping[int, int]) -> int:
    """Return of how many events together a list that agrees with the counts shows the last one."""
    shown = [place for place, event_id in enumerate(sorted(group), start=1) if listed.get(event_id)]
    return shown[-1] if len(shown) > 1 else 1


def newest_first(race: PastRace) -> tuple[bool, float, int]:
    """Sort key: the race that began last comes first, those without a start come last."""
    return race.newest is None, 0.0 if race.newest is None else -race.newest.timestamp(), race.race_id


def _full(events: Collection[int], size: int, *, now: datetime) -> Sweep:
    return Sweep(kind=SweepKind.FULL, since=None, long=True, groups=grouped(events, size), started_at=now)
