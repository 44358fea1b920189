"""What a backfill is asked for, how far it is, and what it did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from bibwire.domain.teams import TeamCounts
from bibwire.engine.reports import BibCounts, RowCounts, SyncError


@dataclass(frozen=True, slots=True)
class BackfillRequest:
    """
    What to load.

    Args:
        since: Events that were over before are left out.
        until: Events that begin at or after it are left out; None: none is.
        dry_run: Say what it will cost, and load nothing.
    """

    since: datetime
    until: datetime | None = None
    partner: str | None = None
    race_id: int | None = None
    dry_run: bool = False


@dataclass(slots=True)
class BackfillReport:
    """
    What a backfill did.

    `races` and `events` are those wanted, `races_before` those that had been loaded by earlier
    runs, `races_loaded` those by this one, be it without their teams. `left_calls`, `left_hours` and
    `left_people` are what was left to do when it began: at least, because people go on to sign up.
    """

    partners: int = 0
    races: int = 0
    events: int = 0
    races_before: int = 0
    races_loaded: int = 0
    calls: int = 0
    seconds: float = 0.0
    left_calls: int = 0
    left_people: int = 0
    left_hours: float = 0.0
    participants: RowCounts = field(default_factory=RowCounts)
    bibs: BibCounts = field(default_factory=BibCounts)
    teams: TeamCounts = field(default_factory=TeamCounts)
    errors: list[SyncError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 all well, 1 nothing could be loaded, 3 some of it could not."""
        if not self.errors:
            return 0
        return 3 if self.races_loaded or self.races_before else 1

    def as_json(self) -> dict[str, Any]:
        """Return the object `bibwire backfill --json` prints."""
        return asdict(self) | {"seconds": round(self.seconds, 3), "left_hours": round(self.left_hours, 2)}


@dataclass(slots=True)
class BackfillProgress:
    """
    How far a backfill is.

    `counting` until the cost is known. `waiting_until`: no partner may call before; None: some do.
    """

    races: int = 0
    races_done: int = 0
    people: int = 0
    left_people: int = 0
    calls: int = 0
    left_calls: int = 0
    counting: bool = True
    waiting_until: dict[str, datetime] = field(default_factory=dict)


Watch = Callable[[BackfillProgress], None]
