"""What a sync is asked for, how far it is, and what it did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from bibwire.store.loader import Outcome


@dataclass(frozen=True, slots=True)
class SyncRequest:
    """
    What to sync: everything, one partner, or one race.

    `full` lists again what is loaded; without it only changes are asked for.
    """

    partner: str | None = None
    race_id: int | None = None
    full: bool = False


@dataclass(slots=True)
class SyncProgress:
    """
    How far a sync is.

    `people` counts rows received, `calls` every call, retries too. `trouble`: why RunSignup was not
    reached just now, while it is tried again.
    """

    partners: int = 0
    partners_done: int = 0
    races: int = 0
    races_done: int = 0
    people: int = 0
    calls: int = 0
    trouble: str | None = None


Watch = Callable[[SyncProgress], None]


@dataclass(slots=True)
class RowCounts:
    """Registrations by what became of them."""

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0
    restored: int = 0
    quarantined: int = 0

    def add(self, outcome: Outcome) -> None:
        """Add what became of some rows."""
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(outcome, name))


@dataclass(slots=True)
class BibCounts:
    """Bib changes the feed tells of; a first load tells of none."""

    assigned: int = 0
    changed: int = 0
    cleared: int = 0

    def add(self, outcome: Outcome) -> None:
        """Add what became of some rows."""
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + outcome.bibs[name])


@dataclass(frozen=True, slots=True)
class SyncError:
    """What could not be done: for a race, or for all of a partner (`race_id` None)."""

    partner: str
    race_id: int | None
    error: str


@dataclass(slots=True)
class SyncReport:
    """
    What a sync did.

    `races` and `events` count the scopes with live events it was to sync, `races_busy` those it
    left to another process that was at work there; they stand in `errors` too.
    """

    partners: int = 0
    races: int = 0
    events: int = 0
    calls: int = 0
    seconds: float = 0.0
    races_synced: int = 0
    races_busy: int = 0
    participants: RowCounts = field(default_factory=RowCounts)
    bibs: BibCounts = field(default_factory=BibCounts)
    errors: list[SyncError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Add what became of some rows."""
        self.participants.add(outcome)
        self.bibs.add(outcome)

    @property
    def exit_code(self) -> int:
        """0 all well, 1 nothing could be synced, 3 some of it could not, or was left to others."""
        if not self.errors:
            return 0
        return 3 if self.races_synced or self.races_busy else 1

    def as_json(self) -> dict[str, Any]:
        """Return the object `bibwire sync --json` prints."""
        return asdict(self) | {"seconds": round(self.seconds, 3)}
