"""
A page into the mirror: what differs is written, what is equal is not even read.

Records arrive as slices of JSON text of which only the ids are decoded. A slice whose digest
is stored already is dropped; what is left is decoded and compared on content, and only what
differs goes into the table, with its line of the feed in the same transaction. Digests depend
on key order and formatting: a different one leads to a comparison, never to a write by itself.

Everything here runs inside the caller's transaction and knows nothing of the vendor: how a
record is read is handed in.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any, TypeVar

import psycopg
from psycopg.rows import TupleRow

from bibwire.domain.errors import BadRecord
from bibwire.domain.merge import (
    ABSENT,
    VENDOR_COLUMNS,
    Kind,
    Merge,
    Stored,
    is_contested,
    merge_absence,
    merge_listed,
    merge_listed_again,
    merge_removal,
    tells_more,
)
from bibwire.domain.records import Page, RawRow, Registration, Removal, UnreadableRow
from bibwire.store import audit, copy_text, feed, quarantine
from bibwire.store.database import Connection, statements

_T = TypeVar("_T")

# Part of every digest: raise it when decoding changes, and every record is compared anew.
DECODING_VERSION = b"1"
_VERSION_DIGESTED = sha256(DECODING_VERSION)
# Some 64 KiB: the server is kept busy while the next rows are decoded.
ROWS_A_WRITE = 64


@dataclass(frozen=True, slots=True)
class Target:
    """
    Where rows go: the scope, whether its first load is over, and our present instant.

    Of rows of the `silent` events the feed does not tell: they are being loaded for the first
    time, and it tells of all of them together at the end.
    """

    partner_id: int
    race_id: int
    loaded: bool
    now: datetime
    silent: frozenset[int] = frozenset()

    def tells_of(self, event_id: int | None) -> bool:
        """Say whether the feed tells of a change of a row of that event."""
        return self.loaded and event_id not in self.silent


@dataclass(slots=True)
class Outcome:
    """
    What became of a page's rows.

    `listed` counts them by event id as the vendor listed them; `shadowed` are listed as active
    while a later removal stands; `returned` of those restored had been taken for absent. `altered` are
    those of the others whose columns were not what was stored, though the vendor's record was the same.
    """

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0
    restored: int = 0
    quarantined: int = 0
    bibs: Counter[str] = field(default_factory=Counter)
    listed: dict[int, int] = field(default_factory=dict)
    shadowed: list[Registration] = field(default_factory=list)
    returned: int = 0
    altered: int = 0

    @property
    def changes(self) -> int:
        """Registrations that are not as they were."""
        return self.inserted + self.updated + self.removed + self.restored

    def add(self, other: Outcome) -> None:
        """Add another page's counts."""
        for name in ("inserted", "updated", "unchanged", "removed", "restored", "quarantined", "altered"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.bibs += other.bibs

    def count(self, merges: Iterable[Merge], target: Target) -> None:
        """Count merges, and bibs where the feed tells of them."""
        for merge in merges:
            in_feed = target.tells_of(merge.after.registration.event_id)
            if merge.kind is Kind.REMOVED:
                self.removed += merge.before is None or merge.before.removed_at is None
                self.updated += merge.before is not None and merge.before.removed_at is not None
            elif merge.before is None:
                self.inserted += 1
            elif merge.kind is Kind.RESTORED:
                self.restored += 1
                self.returned += merge.before.removed_reason == ABSENT
            else:
                self.updated += 1
            if not in_feed or merge.kind is Kind.REMOVED or merge.bib_from == merge.bib_to:
                continue
            if merge.bib_from is None:
                self.bibs["assigned"] += 1
            else:
                self.bibs["cleared" if merge.bib_to is None else "changed"] += 1


async def merge_listed_page(
    connection: Connection,
    target: Target,
    page: Page,
    *,
    decode: Callable[[bytes], Registration],
    complete_for: frozenset[int] | None,
    compare_stored: bool = False,
) -> Outcome:
    """
    Store one page of a participants listing.

    Args:
        decode: Record from its JSON text; raises BadRecord.
        complete_for: In a full sweep, the events of which the page lists every registration of its
            id range: stored ones it does not show are noted as missing. None in a delta.
        compare_stored: In a full sweep, compare the columns of what has the same digest, too.
    """
    rows = {row.registration_id: row for row in page.rows}
    async with _begun(_stored(connection, target, page, complete_for)) as answer:
        # While the server reads those it has: a fifth of what an unchanged row costs.
        digests = {number: _digest(row.raw) for number, row in rows.items()}
        stored = await answer

    outcome = Outcome(listed=dict(Counter(row.event_id for row in rows.values() if row.event_id is not None)))
    if complete_for is not None:
        await _note_missing(connection, target, rows, stored)
    await _note_found(connection, target, list(rows))
    altered: frozenset[int] = frozenset()
    if compare_stored and complete_for is not None:
        altered = await audit.altered(
            connection,
            _key(target),
            [row for number, row in rows.items() if _is_same(stored.get(number), digests[number])],
            decode=lambda row: _decoded(row, decode),
            events=complete_for,
            now=target.now,
        )

    different: list[tuple[Registration, bytes]] = []
    bad: list[quarantine.Entry] = _unreadable(page.unreadable)
    refused: list[quarantine.Entry] | None = None
    is_first = not any(target.tells_of(row.event_id) for row in rows.values())
    if is_first and rows and stored.keys().isdisjoint(rows):
        refused = await _copy_first(connection, target, page, rows.values(), digests, decode)
    if refused is not None:
        bad += refused
        outcome.inserted = len(rows) - len(refused)
    else:
        for number, row in rows.items():
            digest, known = digests[number], stored.get(number)
            if _is_same(known, digest) and number not in altered:
                continue
            try:
                registration = _decoded(row, decode)
            except BadRecord as error:
                bad.append(quarantine.Entry(str(error), row.raw, number))
            else:
                different.append((registration, digest))
    outcome.quarantined = len(bad)
    outcome.unchanged = len(page.rows) + len(page.unreadable) - len(bad) - outcome.inserted - len(different)

    await _keep_bad(connection, target, "participants", rows, bad)
    if different:
        before = await _rows_before(connection, target, [r.registration_id for r, _ in different])
        merges, merged_digests = [], []
        for registration, digest in different:
            row_before = before.get(registration.registration_id)
            merge = merge_listed(row_before, registration, race_id=target.race_id, as_of=page.as_of)
            if merge is not None:
                merges.append(merge)
                merged_digests.append(digest)
                outcome.altered += registration.registration_id in altered
                continue
            outcome.unchanged += 1
            if row_before is not None and row_before.removed_at is not None:
                outcome.shadowed.append(registration)
        await _write(connection, target, merges, merged_digests)
        outcome.count(merges, target)
    return outcome


async def restore(
    connection: Connection, target: Target, registrations: Sequence[Registration], *, high: datetime
) -> Outcome:
    """Restore registrations a full listing begun at `high` shows and the complete removed list does not."""
    before = await _rows_before(connection, target, [r.registration_id for r in registrations])
    merges = [
        merge
        for registration in registrations
        if (row := before.get(registration.registration_id))
        and (merge := merge_listed_again(row, registration, race_id=target.race_id, high=high))
    ]
    await _write(connection, target, merges, [None] * len(merges))
    outcome = Outcome()
    outcome.count(merges, target)
    return outcome


async def merge_removed_page(
    connection: Connection,
    target: Target,
    page: Page,
    *,
    decode: Callable[[bytes, int | None], Removal],
    still_listed: Collection[int] = (),
    compare_stored: bool = False,
) -> Outcome:
    """
    Store one page of the removed list.

    Args:
        decode: Removal from its JSON text and its event, if known; raises BadRecord.
        still_listed: Those of `contested` that the vendor lists as active.
        compare_stored: Compare what is stored of people whose removal is known, too.
    """
    rows = {row.registration_id: row for row in page.rows}
    whole: dict[int, Stored] = {}
    if compare_stored and rows:
        whole = await audit.stored(connection, target.partner_id, list(rows))
    cursor = await connection.execute(
        statements("loader")["standings"], {**_key(target), "registration_ids": list(rows)}
    )
    standings = {row[0]: row[1:] for row in await cursor.fetchall()}
    outcome = Outcome()
    bad = _unreadable(page.unreadable)
    different: list[Removal] = []
    for row in rows.values():
        try:
            removal = decode(row.raw, row.event_id)
        except BadRecord as error:
            bad.append(quarantine.Entry(str(error), row.raw, row.registration_id))
            continue
        event_id, *standing = standings.get(row.registration_id, (None,))
        told = [removal.removed_at, removal.reason, removal.new_registration_id]
        if standing == told and (event_id is not None or removal.registration.event_id is None):
            known = whole.get(row.registration_id)
            if known is None or not tells_more(known, removal):
                continue
            outcome.altered += 1
        different.append(removal)
    outcome.quarantined = len(bad)
    await _keep_bad(connection, target, "removed", rows, bad)
    if different:
        before = await _rows_before(connection, target, [r.registration_id for r in different])
        merges = [
            merge
            for removal in different
            if (
                merge := merge_removal(
                    before.get(removal.registration_id),
                    removal,
                    race_id=target.race_id,
                    as_of=page.as_of,
                    still_listed=removal.registration_id in still_listed,
                )
            )
        ]
        await _write(connection, target, merges, [None] * len(merges))
        outcome.count(merges, target)
    return outcome


async def contested(
    connection: Connection,
    target: Target,
    page: Page,
    *,
    decode: Callable[[bytes, int | None], Removal],
) -> dict[int, list[Removal]]:
    """Return, by stored event, the removals of a page that are as old as the active row stored."""
    rows = {row.registration_id: row for row in page.rows}
    if not rows:
        return {}
    cursor = await connection.execute(
        statements("loader")["active_of"], {**_key(target), "registration_ids": list(rows)}
    )
    found: dict[int, list[Removal]] = {}
    for registration_id, event_id, last_modified_at in await cursor.fetchall():
        row = rows[registration_id]
        with suppress(BadRecord):  # which is for the merge to say
            removal = decode(row.raw, row.event_id)
            if is_contested(last_modified_at, removal):
                found.setdefault(event_id, []).append(removal)
    return found


async def mark_absent(
    connection: Connection, target: Target, registration_ids: Sequence[int], *, high: datetime
) -> Outcome:
    """Mark registrations that a complete, counted listing begun at `high` does not show."""
    before = await _rows_before(connection, target, registration_ids)
    merges = [merge for row in before.values() if (merge := merge_absence(row, high=high))]
    await _write(connection, target, merges, [None] * len(merges))
    outcome = Outcome()
    outcome.count(merges, target)
    return outcome


def _key(target: Target) -> dict[str, Any]:
    return {"partner_id": target.partner_id, "race_id": target.race_id}


def _unreadable(rows: Iterable[UnreadableRow]) -> list[quarantine.Entry]:
    return [quarantine.Entry(row.reason, row.raw, None) for row in rows]


async def _keep_bad(
    connection: Connection,
    target: Target,
    source: str,
    rows: dict[int, RawRow],
    bad: Sequence[quarantine.Entry],
) -> None:
    """Keep what cannot be stored, and close the entries of what now can; before the feed is locked."""
    if not rows and not bad:
        return
    good = rows.keys() - {entry.registration_id for entry in bad}
    await quarantine.resolve(connection, target.partner_id, target.race_id, source, good, now=target.now)
    await quarantine.keep(connection, target.partner_id, target.race_id, source, bad, now=target.now)


async def _stored(
    connection: Connection, target: Target, page: Page, complete_for: frozenset[int] | None
) -> dict[int, TupleRow]:
    """Return id, digest, and whether it is active, of what is stored of a page, by id."""
    named, values = statements("loader"), _key(target)
    if complete_for is not None:
        statement = named["stored_range"]
        values |= {"event_ids": list(complete_for), "after": page.after, "through": page.through}
    elif page.rows:
        statement = named["stored_ids"]
        values |= {"registration_ids": [row.registration_id for row in page.rows]}
    else:
        return {}
    cursor = await connection.execute(statement, values, binary=True)
    return {row[0]: row for row in await cursor.fetchall()}


@asynccontextmanager
async def _begun(asking: Coroutine[Any, Any, _T]) -> AsyncIterator[asyncio.Task[_T]]:
    """Send a question, and let what is done inside go on while it is answered."""
    task = asyncio.create_task(asking)
    try:
        await asyncio.sleep(0)  # it is sent in the task's first step
        yield task
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])


async def _note_missing(
    connection: Connection,
    target: Target,
    rows: dict[int, RawRow],
    stored: dict[int, tuple[Any, ...]],
) -> None:
    """Note stored rows the page should show and does not."""
    missing = [row[0] for row in stored.values() if row[2] and row[0] not in rows]
    if missing:
        await connection.execute(
            statements("loader")["note_missing"], {**_key(target), "registration_ids": missing}
        )


async def _note_found(connection: Connection, target: Target, registration_ids: Sequence[int]) -> None:
    """
    Note that registrations are listed after all, were it in the very second they were missed in.

    That is so of those listed under another event, and of a page that is asked for a second time:
    the first time it came out short.
    """
    if not registration_ids:
        return
    key, named = _key(target), statements("loader")
    ends = {"lowest": min(registration_ids), "highest": max(registration_ids)}
    # Hardly ever any: to send the ids of every page would be a tenth of what an unchanged one costs.
    cursor = await connection.execute(named["missed"], key | ends)
    found = {row[0] for row in await cursor.fetchall()}.intersection(registration_ids)
    if found:
        await connection.execute(named["found_after_all"], key | {"registration_ids": list(found)})


def _digest(raw: bytes) -> bytes:
    # The digest that processors have instructions for; half of it is far more than enough.
    digest = _VERSION_DIGESTED.copy()
    digest.update(raw)
    return digest.digest()[:16]


def _is_same(known: TupleRow | None, digest: bytes) -> bool:
    """Say whether an active row was stored from a record of that digest."""
    return known is not None and known[2] and known[1] == digest


def _decoded(row: RawRow, decode: Callable[[bytes], Registration]) -> Registration:
    registration = decode(row.raw)
    if registration.event_id is None:
        registration.event_id = row.event_id
    return registration


async def _copy_first(
    connection: Connection,
    target: Target,
    page: Page,
    rows: Iterable[RawRow],
    digests: Mapping[int, bytes],
    decode: Callable[[bytes], Registration],
) -> list[quarantine.Entry] | None:
    """
    Copy rows of a first load straight into the table, some at a time as they are decoded.

    Returns what cannot be stored; None, and nothing is copied, if a row is there already.
    """
    refused: list[quarantine.Entry] = []
    standing = copy_text.standing(race_id=target.race_id, as_of=page.as_of)
    waiting = list(rows)
    try:
        async with (
            connection.transaction(),
            connection.cursor().copy(statements("loader")["copy_participants"]) as copy,
        ):
            for start in range(0, len(waiting), ROWS_A_WRITE):
                registrations: list[tuple[Registration, bytes]] = []
                for row in waiting[start : start + ROWS_A_WRITE]:
                    try:
                        registrations.append((_decoded(row, decode), digests[row.registration_id]))
                    except BadRecord as error:
                        refused.append(quarantine.Entry(str(error), row.raw, row.registration_id))
                lines = [
                    copy_text.line(target.partner_id, registration, standing, digest, target.now)
                    for registration, digest in registrations
                ]
                await copy.write(b"".join(lines))
    except psycopg.errors.UniqueViolation:
        return None
    return refused


async def _rows_before(
    connection: Connection, target: Target, registration_ids: Sequence[int]
) -> dict[int, Stored]:
    cursor = await connection.execute(
        statements("loader")["rows_before"],
        {**_key(target), "registration_ids": list(registration_ids)},
    )
    width = len(VENDOR_COLUMNS) + 1
    return {row[0]: Stored(Registration(*row[:width]), *row[width:]) for row in await cursor.fetchall()}


async def _write(
    connection: Connection, target: Target, merges: Sequence[Merge], digests: Sequence[bytes | None]
) -> None:
    if not merges:
        return
    named = statements("loader")
    await connection.execute(named["make_stage"])
    async with connection.cursor().copy(named["copy_stage"]) as copy:
        for start in range(0, len(merges), ROWS_A_WRITE):
            lines = [
                copy_text.line(
                    target.partner_id,
                    merge.after.registration,
                    copy_text.standing_of(merge.after),
                    digest,
                    target.now,
                )
                for merge, digest in zip(
                    merges[start : start + ROWS_A_WRITE],
                    digests[start : start + ROWS_A_WRITE],
                    strict=True,
                )
            ]
            await copy.write(b"".join(lines))
    await connection.execute(named["merge_stage"])
    told = [merge for merge in merges if target.tells_of(merge.after.registration.event_id)]
    if told:
        await feed.write_merges(connection, target.partner_id, told, seen_at=target.now)
