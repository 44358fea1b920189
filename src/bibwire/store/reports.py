"""
Read-only answers for people: how the mirror stands, who has a bib, what changed.

Every instant is aware and in UTC. Names of races and people are joined for reading; whoever
needs stable columns reads the tables themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bibwire.domain.errors import SettingsError
from bibwire.store.database import Database, statements

_SQL = statements("reports")

# Largest step in which a feed is read, so that a reader far behind does not hold it all.
BATCH = 1000


@dataclass(frozen=True, slots=True)
class PartnerState:
    """A partner, its credential and its budget. `calls_last_hour` is what the budget counts."""

    partner_id: int
    partner: str
    paused_at: datetime | None
    kind: str
    fingerprint: str
    verified_at: datetime | None
    failing_since: datetime | None
    failing_reason: str | None
    calls_per_hour: int
    calls_last_hour: int
    races: int
    events: int
    participants: int
    quarantined: int
    last_seq: int


@dataclass(frozen=True, slots=True)
class RaceState:
    """
    How fresh one race is.

    `starts_at` is its next start, or its last one where none is ahead; `target_seconds` is
    None where no event is live.
    """

    partner: str
    race_id: int
    race: str
    timezone: str | None
    starts_at: datetime | None
    as_of: datetime | None
    age_seconds: float | None
    target_seconds: int | None
    failing_since: datetime | None
    last_error: str | None
    access_lost_at: datetime | None

    @property
    def is_late(self) -> bool:
        """Whether the mirror is older than it may be, or not loaded at all."""
        if self.target_seconds is None:
            return False
        return self.age_seconds is None or self.age_seconds > self.target_seconds


@dataclass(frozen=True, slots=True)
class Quarantined:
    partner: str
    source: str
    reason: str
    records: int
    last_seen_at: datetime


@dataclass(frozen=True, slots=True)
class Run:
    """One race swept, or one discovery (`race_id` None)."""

    partner: str
    race_id: int | None
    race: str | None
    kind: str
    started_at: datetime
    finished_at: datetime
    outcome: str
    calls: int
    rows_inserted: int
    rows_updated: int
    rows_unchanged: int
    rows_removed: int
    rows_quarantined: int
    error: str | None


@dataclass(frozen=True, slots=True)
class Day:
    """What a partner's runs of the last 24 hours did."""

    partner: str
    runs: int
    failed: int
    partial: int
    calls: int
    rows_inserted: int
    rows_updated: int
    rows_removed: int


@dataclass(frozen=True, slots=True)
class Status:
    partners: list[PartnerState]
    races: list[RaceState]
    quarantine: list[Quarantined]
    last_runs: list[Run]
    last_day: list[Day]


@dataclass(frozen=True, slots=True)
class Change:
    """One line of a partner's feed."""

    partner: str
    seq: int
    kind: str
    race_id: int
    race: str | None
    event_id: int | None
    event: str | None
    registration_id: int | None
    first_name: str | None
    last_name: str | None
    bib_from: int | None
    bib_to: int | None
    fields: dict[str, Any]
    modified_at: datetime | None
    seen_at: datetime

    @property
    def moves_bib(self) -> bool:
        return self.bib_from != self.bib_to


@dataclass(frozen=True, slots=True)
class Holder:
    """A registration under the bib; `removed_at` None: it has the bib now."""

    registration_id: int
    event_id: int | None
    event: str | None
    first_name: str | None
    last_name: str | None
    gender: str | None
    age: int | None
    city: str | None
    state: str | None
    chip_num: str | None
    last_modified_at: datetime | None
    changed_at: datetime
    removed_at: datetime | None
    removed_reason: str | None


@dataclass(frozen=True, slots=True)
class BibMove:
    """One time the bib was given (`bib_to` is it) or taken away (`bib_from` is it)."""

    seq: int
    registration_id: int
    first_name: str | None
    last_name: str | None
    event: str | None
    bib_from: int | None
    bib_to: int | None
    kind: str
    modified_at: datetime | None
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class BibAnswer:
    """What one partner's mirror says of a bib, and as of when."""

    partner: str
    race_id: int
    race: str
    bib: int
    as_of: datetime | None
    age_seconds: float | None
    now: list[Holder]
    removed: list[Holder]
    history: list[BibMove]


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a partner's feed."""

    partner_id: int
    partner: str
    last_seq: int


@dataclass(frozen=True, slots=True)
class Server:
    version: str
    database: str
    lz4: bool
    now: datetime
    size: str


class Reports:
    """Answers from one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def conninfo(self) -> str:
        """Where to listen for notices. It may hold a password."""
        return self._database.conninfo

    async def status(self, *, runs: int = 10) -> Status:
        """Return how everything stands, with the newest `runs` runs."""
        return Status(
            partners=await self.partners(),
            races=[RaceState(*row) for row in await self._rows("race_states")],
            quarantine=[Quarantined(*row) for row in await self._rows("quarantined")],
            last_runs=[Run(*row) for row in await self._rows("last_runs", limit=runs)],
            last_day=[Day(*row) for row in await self._rows("last_day")],
        )

    async def partners(self, partner_id: int | None = None) -> list[PartnerState]:
        rows = await self._rows("partner_states", partner_id=partner_id)
        return [PartnerState(*row) for row in rows]

    async def heads(self, partner_id: int | None = None) -> list[Head]:
        """Return where each feed ends; of one partner where `partner_id` is given."""
        return [Head(*row) for row in await self._rows("heads", partner_id=partner_id)]

    async def changes(
        self,
        head: Head,
        *,
        since: int,
        race_id: int | None = None,
        bibs_only: bool = True,
        limit: int = BATCH,
    ) -> list[Change]:
        """Return at most `limit` changes after `since`, up to `head`, in the feed's order."""
        rows = await self._rows(
            "changes_between",
            partner_id=head.partner_id,
            since=since,
            through=head.last_seq,
            race_id=race_id,
            bibs_only=bibs_only,
            limit=limit,
        )
        return [Change(*row) for row in rows]

    async def seq_before_last(
        self, head: Head, number: int, *, race_id: int | None = None, bibs_only: bool = True
    ) -> int:
        """Return the seq after which the last `number` changes follow."""
        rows = await self._rows(
            "seq_before_last",
            partner_id=head.partner_id,
            race_id=race_id,
            bibs_only=bibs_only,
            number=number,
        )
        return rows[0][0] if rows else 0

    async def lookup(self, bib: int, race_id: int, partner_id: int | None = None) -> list[BibAnswer]:
        """
        Return who has the bib now and who had it before, by partner.

        Raises:
            SettingsError: No such race is mirrored.
        """
        answers = []
        for row in await self._race(race_id, partner_id):
            owner, partner, race, _, as_of, age_seconds = row
            place = {"partner_id": owner, "race_id": race_id, "bib": bib}
            holders = [Holder(*holder) for holder in await self._rows("holders", **place)]
            answers.append(
                BibAnswer(
                    partner=partner,
                    race_id=race_id,
                    race=race,
                    bib=bib,
                    as_of=as_of,
                    age_seconds=age_seconds,
                    now=[holder for holder in holders if holder.removed_at is None],
                    removed=[holder for holder in holders if holder.removed_at is not None],
                    history=[BibMove(*move) for move in await self._rows("bib_history", **place)],
                )
            )
        return answers

    async def check_race(self, race_id: int, partner_id: int | None = None) -> list[str]:
        """Return who mirrors the race, or raise SettingsError if nobody does."""
        return [row[1] for row in await self._race(race_id, partner_id)]

    async def server(self) -> Server:
        return Server(*(await self._rows("server"))[0])

    async def _race(self, race_id: int, partner_id: int | None) -> list[tuple[Any, ...]]:
        rows = await self._rows("partners_of_race", race_id=race_id, partner_id=partner_id)
        if rows:
            return rows
        known = [str(row[0]) for row in await self._rows("race_names", partner_id=partner_id)]
        if not known:
            raise SettingsError(f"There is no race {race_id}: no race is mirrored yet. Run: bibwire sync.")
        shown = ", ".join(known[:11]) + (", ..." if len(known) > 11 else "")
        raise SettingsError(
            f"There is no race {race_id} in the mirror. There are: {shown}. "
            "A new race comes with the next bibwire sync."
        )

    async def _rows(self, name: str, **values: Any) -> list[tuple[Any, ...]]:
        # psycopg wants every parameter that the statement names, and ignores the others.
        return await self._database.fetch(_SQL[name], **values)
