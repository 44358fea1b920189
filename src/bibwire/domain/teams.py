"""
Where a listing of teams stands, and whether it can be believed.

Teams come in numbered pages, and no count tells whether all of them came. What their members say
does in part: a team that somebody is in should be listed. If a list of several events lacks one,
each event is asked for by itself. Pure: no I/O and no clock. Every datetime is aware and in UTC.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from bibwire.domain.backfill import PastRace
from bibwire.domain.clocks import elapsed
from bibwire.domain.records import TeamPage
from bibwire.domain.sweeps import EVENTS_A_REQUEST, grouped

# How long events are asked for one at a time before a list is tried again, and how long a vendor that
# refused is left alone.
TRY_AGAIN: Final = timedelta(days=7)
# Pages are numbered: one long after the last may show neither what that one did nor what comes next.
RESUME_WITHIN: Final = timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class TeamPosition:
    """
    Where a listing stands.

    Args:
        groups: Events asked for together; `group` is the place of the present ones.
        number: The page to ask for next, from 1.
        full: Rows that make a full page, as the pages before told; None: none was read.
        lacking: Teams that a list of several events did not show, wherefore it is read again, event
            by event.
    """

    groups: tuple[tuple[int, ...], ...]
    started_at: datetime
    group: int = 0
    number: int = 1
    full: int | None = None
    lacking: frozenset[int] = frozenset()

    @property
    def asked(self) -> tuple[int, ...]:
        """The events to ask for next."""
        return self.groups[self.group]

    @property
    def event_ids(self) -> frozenset[int]:
        """All events of the listing."""
        return frozenset(event_id for group in self.groups for event_id in group)

    @property
    def has_lists(self) -> bool:
        """Whether several events are asked for together anywhere."""
        return any(len(group) > 1 for group in self.groups)

    def after(self, page: TeamPage) -> TeamPosition | None:
        """Return where it stands after a page; None: at its end."""
        if page.is_last:
            return self.after_group()
        return replace(self, number=page.number + 1, full=page.full)

    def after_group(self) -> TeamPosition | None:
        """Return where it stands after the present events; None: at its end."""
        if self.group + 1 == len(self.groups):
            return None
        return replace(self, group=self.group + 1, number=1, full=None)

    def singly(self, *, lacking: Collection[int] = ()) -> TeamPosition:
        """Return the begin of the same listing, one event at a time."""
        return TeamPosition(grouped(self.event_ids, 1), self.started_at, lacking=frozenset(lacking))


@dataclass(frozen=True, slots=True)
class TeamsKnown:
    """
    What is stored of the listings of a race's teams; see table `team_listings`.

    `one_event`: also of its people lists of several events cannot be trusted.
    """

    event_ids: frozenset[int] = frozenset()
    position: TeamPosition | None = None
    unlisted: frozenset[int] = frozenset()
    one_event: bool = False
    one_event_since: datetime | None = None
    refused_at: datetime | None = None

    def is_refused(self, *, now: datetime) -> bool:
        """Say whether the vendor is to be left alone with them."""
        return self.refused_at is not None and elapsed(self.refused_at, now) < TRY_AGAIN

    def begin(self, events: Collection[int], *, now: datetime) -> TeamPosition:
        """Return the position before the first page of these events."""
        since = self.one_event_since
        singly = self.one_event or (since is not None and elapsed(since, now) < TRY_AGAIN)
        return TeamPosition(grouped(events, 1 if singly else EVENTS_A_REQUEST), now)

    def resume(self, *, now: datetime) -> TeamPosition | None:
        """Return where an interrupted listing goes on; None: there is none that can."""
        if self.position is None or elapsed(self.position.started_at, now) > RESUME_WITHIN:
            return None
        return self.position


@dataclass(slots=True)
class TeamCounts:
    """
    Teams by what became of them.

    `listed` are rows received, which may tell of a team twice; `missing` those that a complete
    listing did not show and the one before it did, `returned` those that are shown again.
    """

    listed: int = 0
    new: int = 0
    changed: int = 0
    missing: int = 0
    returned: int = 0
    quarantined: int = 0

    def add(self, other: TeamCounts) -> None:
        """Add others."""
        for name, number in asdict(other).items():
            setattr(self, name, getattr(self, name) + number)


def left_to_list(
    race: PastRace, known: TeamsKnown, *, now: datetime, people_left: frozenset[int] = frozenset()
) -> frozenset[int]:
    """
    Return the events of a race whose teams a backfill is to list.

    Args:
        people_left: Events whose people are to be loaded before: after them, their teams are listed anew.
    """
    if known.is_refused(now=now):
        return frozenset()
    return ((race.past | race.live) - known.event_ids) | people_left


def lacking(named: Collection[int], *, shown: Collection[int], unlisted: Collection[int]) -> frozenset[int]:
    """Return the teams that members name and a listing should have shown; `unlisted` never were."""
    return frozenset(named).difference(shown, unlisted)
