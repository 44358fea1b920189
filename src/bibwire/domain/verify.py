"""
What a verification found: verdicts, and the comparisons they rest on.

The vendor goes on changing while it is compared with the mirror. What differs is explained only by
an instant: the vendor changed the row at or after the mirror's cursor, or the mirror stored it after
the listing began. All else is a difference. Pure: no I/O and no clock. Every datetime is aware and
in UTC.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from random import Random
from typing import Final, TypeVar

from bibwire.domain.instants import are_readings_of_one_time
from bibwire.domain.merge import ABSENT, VENDOR_COLUMNS, Stored, tells_more
from bibwire.domain.records import Registration, Removal

_T = TypeVar("_T")

# A change can be published some seconds late: the next poll reads so far back (`Lookback.short`).
PUBLISHED_LATE: Final = timedelta(seconds=15)
# An instant of the vendor's beyond the end of the listing by more is none of the meantime.
CLOCKS_APART: Final = timedelta(seconds=60)
MOST_CLOCK_SECONDS: Final = 30.0
# What a poll may be late while a scheduler works.
LATE_FACTOR: Final = 2
LATE_GRACE_SECONDS: Final = 60.0
# The vendor's filter of changes is tried on about half as many rows.
NEWEST_ROWS: Final = 20
# What gives a verification more calls: told with every check that had too few.
MORE_CALLS: Final = "--max-calls"
# What gives them to one that was given no number: a full listing more or less decides how many it takes.
HOURS_CALLS: Final = "the hour's calls for verifications"
# Retries, and rows that are read a second time, come on top of what is planned.
RESERVE: Final = 0.25
LEAST_RESERVE: Final = 10
# Races that start within this time are verified before any other.
SOON: Final = timedelta(hours=24)


class Verdict(StrEnum):
    """
    How a check ended.

    `skipped`: it does not apply, or another check says why it was not made; `error`: it could not be
    made, or not be finished, for example because there were too few calls.
    """

    PASS = "pass"  # noqa: S105
    FAIL = "fail"
    SKIPPED = "skipped"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """A verdict with what was asked for, what had to be seen and what was."""

    verdict: Verdict
    asked: str
    expected: str
    seen: str


@dataclass(frozen=True, slots=True)
class Check:
    """One check as it is reported. `race_id` None: it is about the partner. `calls`: made for it alone."""

    check: str
    partner: str
    race_id: int | None
    asked: str
    expected: str
    seen: str
    verdict: Verdict
    calls: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Meantime:
    """
    From when on a difference is one of the meantime.

    Args:
        cursor_at: The mirror's cursor of participants, read before its rows.
        removed_at: Its cursor of the removed list.
        listed_at: Vendor instant at which the listing was asked for.
        until: Vendor instant of its last answer.
    """

    cursor_at: datetime
    removed_at: datetime
    listed_at: datetime
    until: datetime

    def not_mirrored_yet(self, changed_at: datetime | None) -> bool:
        """Say whether the mirror need not have what the vendor changed then."""
        return changed_at is not None and changed_at >= self.cursor_at - PUBLISHED_LATE

    def not_removed_yet(self, removed_at: datetime) -> bool:
        """Say whether the mirror need not have what left then."""
        return removed_at >= self.removed_at - PUBLISHED_LATE

    def not_listed_yet(self, stored_at: datetime | None) -> bool:
        """Say whether the listing need not show what the mirror stored as changed then."""
        if stored_at is None:
            return False
        return self.listed_at - PUBLISHED_LATE <= stored_at <= self.until + CLOCKS_APART


@dataclass(slots=True)
class Comparison:
    """
    A listing held against the mirror, row by row.

    `fields` counts the columns that differ; `explained` are ids of the meantime.
    """

    same: int = 0
    differing: list[int] = field(default_factory=list)
    fields: Counter[str] = field(default_factory=Counter)
    missing: list[int] = field(default_factory=list)
    extra: list[int] = field(default_factory=list)
    explained: list[int] = field(default_factory=list)

    @property
    def is_equal(self) -> bool:
        return not (self.differing or self.missing or self.extra)

    def __str__(self) -> str:
        columns = ", ".join(f"{name} {count}" for name, count in sorted(self.fields.items()))
        parts = [
            f"{self.same:,} same",
            _some(self.differing, "differing") + (f" in {columns}" if columns else ""),
            _some(self.missing, "missing in the mirror"),
            _some(self.extra, "extra in the mirror"),
        ]
        if self.explained:
            parts.append(f"{len(self.explained):,} changed meanwhile")
        return "; ".join(parts)


def compare_listing(
    listed: Mapping[int, Registration],
    removals: Mapping[int, Removal],
    stored: Mapping[int, Stored],
    *,
    race_id: int,
    meantime: Meantime,
) -> Comparison:
    """
    Compare a complete listing with the mirror.

    Args:
        listed: The active registrations of some events, all of them.
        removals: The removed list of these events, all of it.
        stored: The mirror's active registrations of these events, and all that are listed.
    """
    found = Comparison()
    for registration_id in sorted(listed.keys() | stored.keys()):
        row, ours = listed.get(registration_id), stored.get(registration_id)
        if row is None:
            if ours is not None and ours.removed_at is None:
                _judge_unlisted(found, ours, removals.get(registration_id), meantime)
        elif ours is None:
            late = meantime.not_mirrored_yet(row.last_modified_at)
            (found.explained if late else found.missing).append(registration_id)
        elif ours.removed_at is not None:
            _judge_tombstone(found, row, ours, removals.get(registration_id), meantime)
        else:
            _judge_active(found, row, ours, race_id, meantime)
    return found


def _judge_active(
    found: Comparison, row: Registration, ours: Stored, race_id: int, meantime: Meantime
) -> None:
    fields = differing_fields(ours.registration, row)
    if ours.race_id != race_id:
        fields.append("race_id")
    if not fields:
        found.same += 1
    elif meantime.not_mirrored_yet(row.last_modified_at) or meantime.not_listed_yet(
        ours.registration.last_modified_at
    ):
        found.explained.append(row.registration_id)
    else:
        found.differing.append(row.registration_id)
        found.fields.update(fields)


def _judge_unlisted(found: Comparison, ours: Stored, removal: Removal | None, meantime: Meantime) -> None:
    left = removal is not None and meantime.not_removed_yet(removal.removed_at)
    came = meantime.not_listed_yet(ours.registration.last_modified_at)
    (found.explained if left or came else found.extra).append(ours.registration.registration_id)


def _judge_tombstone(
    found: Comparison, row: Registration, ours: Stored, removal: Removal | None, meantime: Meantime
) -> None:
    changed_at = row.last_modified_at
    # Of an active row and a removal the later one counts (domain/merge.py): the active list can lag.
    is_later = removal is not None and changed_at is not None and removal.removed_at > changed_at
    late = meantime.not_mirrored_yet(changed_at) or meantime.not_listed_yet(ours.removed_at)
    (found.explained if is_later or late else found.missing).append(row.registration_id)


def differing_fields(ours: Registration, listed: Registration) -> list[str]:
    """Return the vendor's columns in which two rows differ; of a repeated hour either reading is right."""
    return [
        name
        for name in VENDOR_COLUMNS
        if (one := getattr(ours, name)) != (other := getattr(listed, name))
        and not (
            name == "registered_at"
            and one is not None
            and other is not None
            and are_readings_of_one_time(one, other)
        )
    ]


@dataclass(slots=True)
class RemovedComparison:
    """The removed list held against the mirror's tombstones. `ruled`: `domain/merge.py` keeps them active."""

    same: int = 0
    missing: list[int] = field(default_factory=list)
    active: list[int] = field(default_factory=list)
    differing: list[int] = field(default_factory=list)
    ruled: int = 0
    explained: int = 0

    @property
    def is_equal(self) -> bool:
        return not (self.missing or self.active or self.differing)

    def __str__(self) -> str:
        parts = [
            f"{self.same:,} same",
            _some(self.missing, "missing in the mirror"),
            _some(self.active, "active in the mirror"),
            _some(self.differing, "with another reason, instant, successor or person"),
        ]
        if self.ruled:
            parts.append(f"{self.ruled:,} active again since")
        if self.explained:
            parts.append(f"{self.explained:,} removed meanwhile")
        return "; ".join(parts)


def compare_removed(
    removals: Mapping[int, Removal],
    listed: Collection[int],
    stored: Mapping[int, Stored],
    *,
    meantime: Meantime,
) -> RemovedComparison:
    """
    Compare the removed list with the mirror.

    Args:
        listed: Ids listed as active at the same time.
        stored: The mirror's rows of those removed.
    """
    found = RemovedComparison()
    for registration_id, removal in sorted(removals.items()):
        ours = stored.get(registration_id)
        late = meantime.not_removed_yet(removal.removed_at)
        if ours is None:
            if late:
                found.explained += 1
            else:
                found.missing.append(registration_id)
        elif ours.removed_at is None:
            if _counts_as_active(ours, removal, registration_id in listed):
                found.ruled += 1
            elif late or meantime.not_listed_yet(ours.registration.last_modified_at):
                found.explained += 1
            else:
                found.active.append(registration_id)
        elif _is_told_alike(ours, removal):
            found.same += 1
        elif late or (ours.removed_reason != ABSENT and meantime.not_listed_yet(ours.removed_at)):
            found.explained += 1
        else:
            found.differing.append(registration_id)
    return found


def _is_told_alike(ours: Stored, removal: Removal) -> bool:
    """Say whether a tombstone holds what its removed row says, of the person too."""
    standing = (ours.removed_at, ours.removed_reason, ours.new_registration_id)
    told = (removal.removed_at, removal.reason, removal.new_registration_id)
    return standing == told and not tells_more(ours, removal)


def _counts_as_active(ours: Stored, removal: Removal, is_listed: bool) -> bool:
    """Say whether the active row is the later of the two; of the same second, if the vendor lists it."""
    changed_at = ours.registration.last_modified_at
    if changed_at is None:
        return False
    return removal.removed_at < changed_at or (removal.removed_at == changed_at and is_listed)


def delta_begin(listed: Iterable[Registration]) -> datetime | None:
    """Return the instant since which about half of the newest rows changed; None: no row is dated."""
    dates = sorted(
        (row.last_modified_at for row in listed if row.last_modified_at is not None), reverse=True
    )[:NEWEST_ROWS]
    return dates[len(dates) // 2] if dates else None


@dataclass(frozen=True, slots=True)
class DeltaComparison:
    """
    The changes since an instant, held against the full listing.

    `lacking` should be among them; `older` were changed before; `unlisted` the listing does not show.
    """

    same: int
    lacking: list[int]
    older: list[int]
    unlisted: list[int]

    @property
    def is_equal(self) -> bool:
        return not (self.lacking or self.older or self.unlisted)

    def __str__(self) -> str:
        return "; ".join(
            (
                f"{self.same:,} as listed",
                _some(self.lacking, "lacking"),
                _some(self.older, "changed before"),
                _some(self.unlisted, "not in the full listing"),
            )
        )


def compare_delta(
    listed: Mapping[int, Registration],
    delta: Mapping[int, Registration],
    *,
    since: datetime,
    listed_at: datetime,
    meanwhile: Collection[int] = (),
) -> DeltaComparison:
    """
    Compare the changes since `since` with a full listing asked for at `listed_at`.

    Args:
        meanwhile: Ids known to have been changed or removed since then.
    """
    due = {
        i for i, row in listed.items() if row.last_modified_at is not None and row.last_modified_at >= since
    }
    older = [
        i for i, row in delta.items() if row.last_modified_at is not None and row.last_modified_at < since
    ]
    known = set(older) | set(meanwhile)
    unlisted = [
        i
        for i, row in delta.items()
        if i not in due
        and i not in known
        and (row.last_modified_at is None or row.last_modified_at < listed_at - PUBLISHED_LATE)
    ]
    lacking = sorted(due - delta.keys() - set(meanwhile))
    return DeltaComparison(len(due & delta.keys()), lacking, sorted(older), sorted(unlisted))


def compare_holders(
    bib: int,
    shown: Mapping[int, Registration],
    stored: Mapping[int, Stored],
    *,
    meanwhile: Collection[int] = (),
) -> list[str]:
    """Return in which holders of a bib the vendor and the mirror differ, in words; none: in no one."""
    told: list[str] = []
    for i in sorted((shown.keys() | stored.keys()).difference(meanwhile)):
        if i not in stored:
            told.append(f"bib {bib}: the vendor shows {i}, the mirror does not")
        elif i not in shown:
            told.append(f"bib {bib}: the mirror has {i}, the vendor does not")
        elif shown[i].event_id != stored[i].registration.event_id:
            told.append(
                f"bib {bib}: {i} is in event {shown[i].event_id}, not {stored[i].registration.event_id}"
            )
    return told


def longest_cut(pages: Sequence[int], size: int) -> int | None:
    """
    Return the rows of a page that was shorter than asked for though more rows followed; None: no one.

    Args:
        pages: Rows of each page of one listing, in order.
        size: Rows asked for.
    """
    for number, rows in enumerate(pages):
        if rows < size and any(pages[number + 1 :]):
            return rows
    return None


def calls_given(planned: int, *, least: int, room: int) -> int:
    """
    Return how many calls a verification may make that was given no number.

    Args:
        planned: About how many its checks take.
        least: As many at least, for samples.
        room: As many as may be made at present.
    """
    return min(room, max(least, planned + max(LEAST_RESERVE, int(planned * RESERVE))))


def chosen(
    candidates: Sequence[tuple[_T, datetime | None]], number: int, *, seed: int, now: datetime
) -> list[_T]:
    """
    Choose whom to verify: what starts soon, at least the very next, then others by chance.

    Args:
        candidates: Each with its next start, in the order of starts.
        seed: The same seed chooses the same.
    """
    soon = [each for each, start in candidates if start is not None and start - now <= SOON]
    first = soon[:number] or [each for each, _ in candidates[:1]]
    first = first[:number]
    others = [each for each, _ in candidates if each not in first]
    left = min(len(others), number - len(first))
    return first + Random(f"verify:{seed}").sample(others, left)


def sample(numbers: Iterable[int], number: int, *, seed: int) -> list[int]:
    """Return some of these numbers by chance, ascending; the same seed chooses the same."""
    every = sorted(set(numbers))
    return sorted(Random(f"sample:{seed}").sample(every, min(number, len(every))))


def is_late(age_seconds: float, target_seconds: float) -> bool:
    """Say whether a mirror is older than a scheduler that works would let it become."""
    return age_seconds > target_seconds * LATE_FACTOR + LATE_GRACE_SECONDS


def exit_code(verdicts: Iterable[Verdict], *, partners: int, unverified: int) -> int:
    """
    Return 0 all well or skipped, 1 failed or nothing verified, 3 partly verified.

    Args:
        unverified: Partners of which nothing could be asked.
    """
    all_verdicts = set(verdicts)
    if Verdict.FAIL in all_verdicts or unverified == partners:  # without any partner, too
        return 1
    return 3 if Verdict.ERROR in all_verdicts else 0


def _some(ids: Sequence[int], what: str) -> str:
    """Return `3 missing (1, 2, 3)`: how many, and the first ones."""
    if not ids:
        return f"0 {what}"
    more = ", …" if len(ids) > 5 else ""
    return f"{len(ids):,} {what} ({', '.join(map(str, ids[:5]))}{more})"
