"""
Read-only answers for people: how the mirror stands, who has a bib, what changed.

Every instant is aware and in UTC. Names of races and people are joined for reading; whoever
needs stable columns reads the tables themselves.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import TupleRow

from bibwire.domain.errors import SettingsError
from bibwire.domain.sweeps import LIVE_AFTER_END
from bibwire.store.database import Database, statements
from bibwire.store.permits import Budget, blocked_callers, budgets

_SQL = statements("reports")

# Why a race is not mirrored.
OVER = (
    "its events ended more than 7 days ago, and bibwire sync loads those that are still to come or ended "
    "within 7 days"
)
NOT_LOADED = "its first load is not done: run bibwire sync"

# Largest step in which a feed is read, so that a reader far behind does not hold it all.
BATCH = 1000


@dataclass(frozen=True, slots=True)
class PartnerState:
    """
    A partner, its credential and its budget.

    `calls_last_hour` is what the budget counts, `calls_by_urgency` the same by class;
    `live_races` and `past_races_not_mirrored` are as in `RaceCounts`, `races` are all of them;
    `verify_failures` are the checks that failed, or could not be made, when the mirror was last
    verified; `verified_at` is about the credential.
    `asked_until` is the end of the pause the vendor asked for, where it is longer than is believed.
    `limit_in_use` is less than `calls_per_hour` for a while after the vendor asked for fewer.
    """

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
    mirror_verified_at: datetime | None
    verify_failures: list[dict[str, Any]]
    next_verify_at: datetime | None
    limit_in_use: int
    calls_by_urgency: dict[str, int]
    blocked_until: datetime | None
    blocked_reason: str | None
    asked_until: datetime | None
    live_races: int
    past_races_not_mirrored: int


@dataclass(frozen=True, slots=True)
class RaceCounts:
    """
    A partner's races, by whether `sync` keeps them.

    `live` have an event that is still to come or ended within 7 days; `past_not_mirrored` have
    none, and were never loaded.
    """

    live: int = 0
    past_not_mirrored: int = 0


@dataclass(frozen=True, slots=True)
class CallerBlock:
    """A caller whose every credential must wait."""

    until: datetime
    reason: str | None


# What a poll itself may take before a race is called late.
POLL_SECONDS = 5.0
# What is due for so long is in nobody's hands: the planner looks every 5 s, and a job takes its minute.
OVERDUE_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class RaceState:
    """
    How fresh one race is.

    `starts_at` is its next start, or its last one where none is ahead; `target_seconds` is
    None where no event is live. `as_of` is the instant to which all is complete; `age_seconds` is
    about participants, because the removed list may be read less often than the target.
    `next_due_at`: when the schedule polls it; None: it is not scheduled. `due_for_seconds`: since then.
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
    removed_as_of: datetime | None
    next_due_at: datetime | None
    due_for_seconds: float | None
    partner_paused: bool

    @property
    def late_because(self) -> str:
        """Why it may be late, in words, as far as the schedule tells."""
        if self.partner_paused:
            return "its partner is paused"
        if self.next_due_at is None:
            return "not scheduled: is 'bibwire run' going on?"
        if (self.due_for_seconds or 0) > OVERDUE_SECONDS:
            return "due, and not polled: is 'bibwire run' going on?"
        return "not loaded yet" if self.age_seconds is None else "late"

    @property
    def is_late(self) -> bool:
        """Whether the mirror is older than it may be, or not loaded at all. A poll takes its time."""
        return is_late(self.age_seconds, self.target_seconds)


def is_late(age_seconds: float | None, target_seconds: int | None) -> bool:
    """Say whether a mirror is older than it may be, or not loaded; target None: no event is live."""
    if target_seconds is None:
        return False
    return age_seconds is None or age_seconds > target_seconds * 1.1 + POLL_SECONDS


# The tier of races that are under way or start within 4 h.
HOT_SECONDS = 60


@dataclass(frozen=True, slots=True)
class StaleRace:
    """A race that is late or fails. `error`: why its polls fail; `as_of`: None before its first load."""

    partner: str
    race_id: int
    race: str
    failing_since: datetime | None
    error: str | None
    as_of: datetime | None


# Number, kind, race, registration and instant of a change: what stands under its number.
Mark = tuple[int, str, int, int | None, datetime]


@dataclass(frozen=True, slots=True)
class Lag:
    """
    How soon the changes of one race were seen in one hour (UTC), by the vendor's dates.

    `is_last`: it is the race's newest, and no older than the hour before this one. Counted every
    five minutes, by whoever runs.
    """

    partner: str
    race_id: int
    hour: datetime
    changes: int
    p50_seconds: float
    p95_seconds: float
    worst_seconds: float
    is_last: bool


@dataclass(frozen=True, slots=True)
class Quarantined:
    partner: str
    source: str
    reason: str
    records: int
    last_seen_at: datetime


@dataclass(frozen=True, slots=True)
class Run:
    """One race swept, or one discovery or verification (`race_id` None)."""

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
class BackfillState:
    """
    How far the history of a partner's races is loaded, as the last backfill wanted it.

    `last_error` is why the one that failed last did; None if none does.
    """

    partner: str
    races: int
    done: int
    failing: int
    last_error: str | None


@dataclass(frozen=True, slots=True)
class DriftState:
    """
    What full listings of the last 24 hours found that the deltas had missed, for a partner.

    `races` were listed, `rows` had differed in `races_with_drift` of them; `open` races are those in
    which something could not be decided.
    """

    partner: str
    races: int
    races_with_drift: int
    rows: int
    open: int


@dataclass(frozen=True, slots=True)
class Status:
    partners: list[PartnerState]
    caller_blocks: list[CallerBlock]
    races: list[RaceState]
    lags: list[Lag]
    quarantine: list[Quarantined]
    last_runs: list[Run]
    last_day: list[Day]
    backfills: list[BackfillState]
    drift: list[DriftState]


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
    """
    What one partner's mirror says of a bib, and as of when.

    `mirrored`: the race's first load is over, so that nobody listed means nobody has the bib;
    `why_not` says why it is not.
    """

    partner: str
    race_id: int
    race: str
    bib: int
    as_of: datetime | None
    age_seconds: float | None
    now: list[Holder]
    removed: list[Holder]
    history: list[BibMove]
    mirrored: bool
    why_not: str | None


@dataclass(frozen=True, slots=True)
class EndsBeforeStart:
    """A live event whose end was typed before its start."""

    partner: str
    race_id: int
    race: str
    event_id: int
    event: str
    starts_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a partner's feed."""

    partner_id: int
    partner: str
    last_seq: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """Races loaded for the first time: how many, and their people, by what the feed says."""

    races: int
    people: int
    with_bib: int
    removed: int


@dataclass(frozen=True, slots=True)
class Server:
    version: str
    database: str
    lz4: bool
    now: datetime
    size: str


def _partner_state(row: TupleRow, budget: Budget, counts: RaceCounts) -> PartnerState:
    by_urgency = {str(urgency): calls for urgency, calls in budget.spent_by_urgency.items()}
    blocked = (budget.blocked_until, budget.blocked_reason, budget.asked_until)
    spent = (budget.limit, budget.spent_total)
    values = [*row[1:9], *spent, *row[9:], budget.limit_in_use, by_urgency, *blocked]
    values += [counts.live, counts.past_not_mirrored]
    return PartnerState(*values)


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
            caller_blocks=[CallerBlock(*row) for row in await blocked_callers(self._database)],
            races=await self.races(),
            lags=[Lag(*row) for row in await self._rows("lags")],
            quarantine=[Quarantined(*row) for row in await self._rows("quarantined")],
            last_runs=[Run(*row) for row in await self._rows("last_runs", limit=runs)],
            last_day=[Day(*row) for row in await self._rows("last_day")],
            backfills=[BackfillState(*row) for row in await self._rows("backfills")],
            drift=[DriftState(*row) for row in await self._rows("drift")],
        )

    async def partners(self, partner_id: int | None = None) -> list[PartnerState]:
        rows = await self._rows("partner_states", partner_id=partner_id)
        spent = await budgets(self._database, [row[0] for row in rows])
        counts = await self.race_counts(partner_id)
        # A partner removed between the two is shown no more.
        return [
            _partner_state(row, spent[row[0]], counts.get(row[1], RaceCounts()))
            for row in rows
            if row[0] in spent
        ]

    async def races(self) -> list[RaceState]:
        """Return how fresh each race is that is kept fresh or cannot be, the most urgent first."""
        return [RaceState(*row) for row in await self._rows("race_states")]

    async def race_lists(self) -> list[tuple[str, str | None, str | None]]:
        """Return partners whose race lists were odd or were not read: name, what was odd, why not."""
        return [(row[0], row[1], row[2]) for row in await self._rows("race_lists")]

    async def ends_before_start(self, *, now: datetime) -> list[EndsBeforeStart]:
        """Return the events live at `now` whose end is before their start."""
        rows = await self._rows("ends_before_start", over_after=now - LIVE_AFTER_END)
        return [EndsBeforeStart(*row) for row in rows]

    async def race_counts(self, partner_id: int | None = None) -> dict[int, RaceCounts]:
        """Return how many races sync keeps and how many it does not load, by partner; none: no entry."""
        rows = await self._rows("race_counts", partner_id=partner_id)
        return {row[0]: RaceCounts(*row[1:]) for row in rows}

    async def races_not_among(self, partner_id: int, race_ids: Collection[int]) -> list[tuple[int, str]]:
        """Return the partner's races, number and name, that are kept fresh and not among these."""
        rows = await self._rows("races_not_among", partner_id=partner_id, race_ids=list(race_ids))
        return [(row[0], row[1]) for row in rows]

    async def heads(self, partner_id: int | None = None) -> list[Head]:
        """Return where each feed ends; of one partner where `partner_id` is given."""
        return [Head(*row) for row in await self._rows("heads", partner_id=partner_id)]

    async def loaded_since(self, heads: Collection[Head]) -> Loaded:
        """Return what the first loads came to that ended after these ends of feeds."""
        total = Loaded(0, 0, 0, 0)
        for head in heads:
            [row] = await self._rows("loaded_since", partner_id=head.partner_id, since=head.last_seq)
            total = Loaded(
                total.races + row[0], total.people + row[1], total.with_bib + row[2], total.removed + row[3]
            )
        return total

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

    async def change_marks(self, partner_id: int, seqs: Collection[int]) -> list[Mark]:
        """Return what stands in a partner's feed under these numbers; nothing for those that do not."""
        rows = await self._rows("change_marks", partner_id=partner_id, seqs=list(seqs))
        return [(row[0], row[1], row[2], row[3], row[4]) for row in rows]

    async def stale_races(
        self, *, partner_id: int | None = None, race_id: int | None = None
    ) -> list[StaleRace]:
        """Return the races that are late or fail: this one, or of all those that are hot."""
        rows = await self._rows(
            "stale_races",
            partner_id=partner_id,
            race_id=race_id,
            hot_seconds=HOT_SECONDS,
            poll_seconds=POLL_SECONDS,
        )
        return [StaleRace(*row) for row in rows]

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
            owner, partner, race, as_of, age_seconds, loaded, live = row
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
                    mirrored=loaded,
                    why_not=None if loaded else NOT_LOADED if live else OVER,
                )
            )
        return answers

    async def check_race(self, race_id: int, partner_id: int | None = None) -> list[str]:
        """Return who mirrors the race, or raise SettingsError if nobody does."""
        return [row[1] for row in await self._race(race_id, partner_id)]

    async def server(self) -> Server:
        return Server(*(await self._rows("server"))[0])

    async def connections(self) -> int:
        """Return how many connections the server allows, those kept for superusers left out."""
        [[most]] = await self._rows("connections")
        return int(most)

    async def _race(self, race_id: int, partner_id: int | None) -> list[tuple[Any, ...]]:
        rows = await self._rows("partners_of_race", race_id=race_id, partner_id=partner_id)
        if rows:
            return rows
        rows = await self._rows("race_names", partner_id=partner_id)
        known = [f"{number} {name.strip()}" for number, name in rows]
        if not known:
            raise SettingsError(f"There is no race {race_id}: no race is mirrored yet. Run: bibwire sync.")
        shown = "; ".join(known[:11]) + ("; ..." if len(known) > 11 else "")
        raise SettingsError(
            f"There is no race {race_id} in the mirror. There are: {shown}. bibwire status lists them. "
            "A new race comes with the next bibwire sync."
        )

    async def _rows(self, name: str, **values: Any) -> list[tuple[Any, ...]]:
        # psycopg wants every parameter that the statement names, and ignores the others.
        return await self._database.fetch(_SQL[name], **values)
