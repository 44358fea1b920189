"""
What deltas missed, read off what a full listing had to change.

A change is drift if the deltas should have seen it: the vendor dates it before the cursor they had
reached, or does not date it at all (rows that left without a trace). Whatever is newer would have
come with the next delta. Pure: no I/O and no clock. Every datetime is aware and in UTC.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from bibwire.domain.clocks import elapsed
from bibwire.domain.merge import Kind
from bibwire.domain.tiers import Tier

# How often what deltas cannot see is looked for: counts of hot races, full listings of all others.
COUNT_EVERY: Final = timedelta(minutes=15)
# A little less than the removed list of a race far ahead is polled: the listing takes its place, too.
LIST_EVERY: Final = timedelta(hours=20)


class Verdict(StrEnum):
    """What a reconciliation says of an event."""

    SAME = "same"
    REPAIRED = "repaired"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the feed that the listing wrote; `modified_at` is the vendor's, None: undated."""

    event_id: int | None
    registration_id: int
    kind: Kind
    fields: frozenset[str]
    modified_at: datetime | None


@dataclass(slots=True)
class EventDrift:
    """
    One event, listed in full and compared.

    `counted` is the vendor's own number, None if it was not asked; the rest as in table
    `reconciliations`.
    """

    event_id: int
    listed: int
    counted: int | None = None
    differing: int = 0
    missing: int = 0
    extra: int = 0
    meanwhile: int = 0
    fields: Counter[str] = field(default_factory=Counter)
    note: str | None = None
    _changed: int = 0

    @property
    def drift(self) -> int:
        """Rows that differed and should not have."""
        return self.differing + self.missing + self.extra

    @property
    def same(self) -> int:
        return max(0, self.listed - self._changed)

    @property
    def repaired(self) -> int:
        return self.drift

    @property
    def verdict(self) -> Verdict:
        if self.note is not None:
            return Verdict.OPEN
        return Verdict.REPAIRED if self.drift else Verdict.SAME

    def as_fields(self) -> dict[str, Any]:
        """Return what is told of it, by name."""
        return {
            "event_id": self.event_id,
            "verdict": self.verdict.value,
            "counted": self.counted,
            "listed": self.listed,
            "same": self.same,
            "differing": self.differing,
            "missing": self.missing,
            "extra": self.extra,
            "repaired": self.repaired,
            "meanwhile": self.meanwhile,
            "fields": dict(self.fields),
            "note": self.note,
        }

    def add(self, line: Line, *, before: datetime) -> None:
        """Add what a line tells; see the module."""
        gone = line.kind is Kind.REMOVED
        self._changed += not gone
        if line.modified_at is not None and line.modified_at >= before:
            self.meanwhile += 1
        elif gone:
            self.extra += 1
        elif line.kind in (Kind.REGISTERED, Kind.RESTORED):
            self.missing += 1
        else:
            self.differing += 1
            self.fields.update(line.fields - {"last_modified_at"})


def compare(
    lines: Iterable[Line],
    *,
    listed: Mapping[int, int],
    counted: Mapping[int, int] | None,
    stored: Mapping[int, int],
    before: datetime,
    unsettled: str | None,
) -> list[EventDrift]:
    """
    Return what a full listing found, by event.

    Args:
        lines: What it changed; of one registration the last counts.
        listed: Rows listed, by event.
        counted: The vendor's own numbers; None: not asked for.
        stored: Active rows stored afterwards, by event.
        before: What the vendor dates before it, the deltas should have seen.
        unsettled: What the listing left open, if anything.
    """
    events = {
        event_id: EventDrift(event_id, number, None if counted is None else counted.get(event_id))
        for event_id, number in sorted(listed.items())
    }
    last = {line.registration_id: line for line in lines}
    for line in last.values():
        if line.event_id in events:
            events[line.event_id].add(line, before=before)
    for event_id, each in events.items():
        if unsettled is not None and stored.get(event_id, 0) != each.listed:
            each.note = unsettled
    return list(events.values())


def is_due(
    tier: Tier,
    *,
    now: datetime,
    loaded_at: datetime | None,
    reconciled_at: datetime | None,
) -> bool:
    """Say whether everything of a race is to be listed again; a hot one is counted instead."""
    if tier is Tier.HOT or loaded_at is None:
        return False
    return elapsed(max(loaded_at, reconciled_at or loaded_at), now) >= LIST_EVERY


def counts_are_due(
    tier: Tier, *, now: datetime, loaded_at: datetime | None, counted_at: datetime | None
) -> bool:
    """Say whether the counts of a hot race are to be held against the mirror."""
    if tier is not Tier.HOT or loaded_at is None:
        return False
    return elapsed(max(loaded_at, counted_at or loaded_at), now) >= COUNT_EVERY
