"""
A page into the mirror: what differs is written, what is equal is not even read.

Records arrive as slices of JSON text of which only the ids are decoded. A slice whose digest
is stored already is dropped. A second digest is of the record without its bib and the time of its last
change: where that is stored, these alone moved, and nothing else is decoded, read back or written.
What is left is decoded and compared on content, and only what differs goes into the table. All has
its line of the feed in the same transaction. Digests depend on key order and formatting: a different
one leads to a comparison, never to a write by itself.

Everything here runs inside the caller's transaction and knows nothing of the vendor: how a
record is read is handed in. What finds a page's rows is planned anew for each page (`prepare=False`):
a plan that was kept since the table was small would read all of it for each row.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any, NamedTuple, TypeVar

import psycopg

from bibwire.clock import Breath
from bibwire.domain.errors import BadRecord, Collided
from bibwire.domain.merge import (
    ABSENT,
    VENDOR_COLUMNS,
    BibMove,
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
# Of a row whose stored content is not that of the record the last digest was made of.
NO_DIGEST = b""
_DIGEST_BYTES = 16
# Some 64 KiB: the server is kept busy while the next rows are decoded.
ROWS_A_WRITE = 64


@dataclass(frozen=True, slots=True)
class Reading:
    """
    How a listed record is read.

    Args:
        decode: The record from its JSON text; raises BadRecord.
        without_bib: Its text but for the bib and the time of the last change; None if unclear.
        bib_and_time: These two, if they are what `without_bib` leaves out of this text.
    """

    decode: Callable[[bytes], Registration]
    without_bib: Callable[[bytes], bytes | None]
    bib_and_time: Callable[[bytes], tuple[int | None, datetime] | None]


class _Known(NamedTuple):
    """What is stored of a registration, to compare its record with."""

    registration_id: int
    digests: bytes | None
    is_active: bool
    # Only where the rows were asked for by their ids.
    place: str = ""
    race_id: int | None = None
    event_id: int | None = None
    bib_num: int | None = None
    last_modified_at: datetime | None = None


class _Different(NamedTuple):
    """A row whose digest is not stored, with both of its own."""

    row: RawRow
    digests: bytes


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

    def count_moves(self, moves: Iterable[BibMove], target: Target) -> None:
        """Count bibs that moved alone; the bibs themselves where the feed tells of them."""
        for move in moves:
            self.updated += 1
            if move.bib_from != move.bib_to and target.tells_of(move.event_id):
                self._count_bib(move.bib_from, move.bib_to)

    def _count_bib(self, bib_from: int | None, bib_to: int | None) -> None:
        if bib_from is None:
            self.bibs["assigned"] += 1
        else:
            self.bibs["cleared" if bib_to is None else "changed"] += 1

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
            self._count_bib(merge.bib_from, merge.bib_to)


async def merge_listed_page(
    connection: Connection,
    target: Target,
    page: Page,
    *,
    reading: Reading,
    complete_for: frozenset[int] | None,
    compare_stored: bool = False,
) -> Outcome:
    """
    Store one page of a participants listing.

    Args:
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
            [row for number, row in rows.items() if _is_stored(stored.get(number), digests[number])],
            decode=lambda row: _decoded(row, reading),
            events=complete_for,
            now=target.now,
        )

    different: list[tuple[Registration, bytes]] = []
    bad: list[quarantine.Entry] = _unreadable(page.unreadable)
    refused: list[quarantine.Entry] | None = None
    moves: list[tuple[BibMove, _Known, bytes]] = []
    is_first = not any(target.tells_of(row.event_id) for row in rows.values())
    if is_first and rows and stored.keys().isdisjoint(rows):
        refused = await _copy_first(connection, target, page, rows.values(), digests, reading)
    if refused is not None:
        bad += refused
        outcome.inserted = len(rows) - len(refused)
    else:
        breath = Breath()
        left: list[_Different] = []
        for number, row in rows.items():
            await breath.take()
            if not _is_stored(stored.get(number), digests[number]) or number in altered:
                left.append(_Different(row, digests[number] + _digest_but_bib(row.raw, reading)))
        # Where what is stored may have been altered, nothing of it is taken as it is.
        if not compare_stored:
            moves, left = await _bibs_alone(connection, target, left, stored, reading)
        for row, both in left:
            await breath.take()
            try:
                different.append((_decoded(row, reading), both))
            except BadRecord as error:
                bad.append(quarantine.Entry(str(error), row.raw, row.registration_id))
        moves = [each for each in moves if each[0].is_change]
    outcome.quarantined = len(bad)
    outcome.unchanged = len(page.rows) + len(page.unreadable) - len(bad) - outcome.inserted
    outcome.unchanged -= len(different) + len(moves)

    await _keep_bad(connection, target, "participants", rows, bad)
    merges, merged_digests = [], []
    if different:
        before = await _rows_before(connection, target, [r.registration_id for r, _ in different])
        for registration, digest in different:
            await breath.take()
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
        await _write_rows(connection, target, merges, merged_digests)
        outcome.count(merges, target)
    outcome.count_moves([move for move, _, _ in moves], target)
    lines = await _move_bibs(connection, target, page, moves)
    await feed.write(connection, target.partner_id, lines + _lines_of(target, merges))
    return outcome


def _is_stored(known: _Known | None, digest: bytes) -> bool:
    return known is not None and known.is_active and (known.digests or NO_DIGEST).startswith(digest)


async def _bibs_alone(
    connection: Connection,
    target: Target,
    rows: Sequence[_Different],
    stored: Mapping[int, _Known],
    reading: Reading,
) -> tuple[list[tuple[BibMove, _Known, bytes]], list[_Different]]:
    """Tell rows of which the bib and the time of the last change alone may have moved from the others."""
    likely: list[_Different] = []
    others: list[_Different] = []
    for each in rows:
        known = stored.get(each.row.registration_id)
        rest = each.digests[_DIGEST_BYTES:]
        is_likely = rest and known is not None and known.is_active and (known.digests or b"").endswith(rest)
        (likely if is_likely else others).append(each)
    if likely and not stored[likely[0].row.registration_id].place:
        stored = await _stored_of(connection, target, [each.row.registration_id for each in likely])
    moves = []
    for each in likely:
        known = stored.get(each.row.registration_id)
        moved = reading.bib_and_time(each.row.raw)
        # A record that names no event may have come with another's answer.
        if (
            known is None
            or moved is None
            or known.event_id is None
            or known.event_id != each.row.event_id
            or known.race_id != target.race_id
            or not known.is_active
        ):
            others.append(each)
            continue
        move = BibMove(
            known.registration_id, known.event_id, known.bib_num, moved[0], known.last_modified_at, moved[1]
        )
        moves.append((move, known, each.digests))
    others.sort(key=lambda each: each.row.registration_id)
    return moves, others


async def _move_bibs(
    connection: Connection, target: Target, page: Page, moves: Sequence[tuple[BibMove, _Known, bytes]]
) -> list[feed.Line]:
    """Write bibs that moved alone, all in one statement; return their lines of the feed."""
    if not moves:
        return []
    named = statements("loader")
    await connection.execute(named["plan_for_many"])
    values = {
        "partner_id": target.partner_id,
        "race_id": target.race_id,
        "now": target.now,
        "as_of": page.as_of,
        "places": _array(f'"{known.place}"' for _, known, _ in moves),
        "registration_ids": _array(str(move.registration_id) for move, _, _ in moves),
        "bibs_from": _array(_or_null(move.bib_from) for move, _, _ in moves),
        "bibs_to": _array(_or_null(move.bib_to) for move, _, _ in moves),
        "modified_to": _array(str(int(move.modified_to.timestamp())) for move, _, _ in moves),
        "digests": _array(f'"\\\\x{digests.hex()}"' for _, _, digests in moves),
    }
    async with _begun(connection.execute(named["move_bibs"], values, prepare=False)) as answer:
        lines = [
            feed.line_of_move(target.race_id, move, seen_at=target.now)
            for move, _, _ in moves
            if target.tells_of(move.event_id)
        ]
        cursor = await answer
    if cursor.rowcount != len(moves):
        raise Collided("Another transaction changed a row of this page; the next run repeats it.")
    return lines


def _array(elements: Iterable[str]) -> str:
    """Return an array as PostgreSQL reads it: a driver's list costs as much as the row's update."""
    return f"{{{','.join(elements)}}}"


def _or_null(number: int | None) -> str:
    return "NULL" if number is None else str(number)


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
    # Of the record that is stored now no digest is known, and that of an older one would be wrong.
    await _write(connection, target, merges, [NO_DIGEST] * len(merges))
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
        statements("loader")["standings"], {**_key(target), "registration_ids": list(rows)}, prepare=False
    )
    standings = {row[0]: row[1:] for row in await cursor.fetchall()}
    outcome = Outcome()
    bad = _unreadable(page.unreadable)
    different: list[Removal] = []
    breath = Breath()
    for row in rows.values():
        await breath.take()
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
        statements("loader")["active_of"], {**_key(target), "registration_ids": list(rows)}, prepare=False
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
) -> Mapping[int, _Known]:
    """Return what is stored of a page, by id: in a full sweep all that its range should show."""
    if complete_for is None:
        return await _stored_of(connection, target, [row.registration_id for row in page.rows])
    values = {
        **_key(target),
        "event_ids": sorted(complete_for),
        "after": page.after,
        "through": page.through,
    }
    # In binary: as hexadecimal text the digests would cost both sides more than the rest.
    cursor = await connection.execute(
        statements("loader")["stored_range"], values, binary=True, prepare=False
    )
    return {row[0]: _Known(*row) for row in await cursor.fetchall()}


async def _stored_of(
    connection: Connection, target: Target, registration_ids: Sequence[int]
) -> Mapping[int, _Known]:
    if not registration_ids:
        return {}
    values = {"partner_id": target.partner_id, "registration_ids": list(registration_ids)}
    cursor = await connection.execute(statements("loader")["stored_ids"], values, binary=True, prepare=False)
    return {row[0]: _Known(*row) for row in await cursor.fetchall()}


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
    stored: Mapping[int, _Known],
) -> None:
    """Note stored rows the page should show and does not."""
    missing = [number for number, row in stored.items() if row.is_active and number not in rows]
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
    return digest.digest()[:_DIGEST_BYTES]


def _digest_but_bib(raw: bytes, reading: Reading) -> bytes:
    """Return the second digest; nothing where the record is not so simple."""
    rest = reading.without_bib(raw)
    return NO_DIGEST if rest is None else _digest(rest)


def _decoded(row: RawRow, reading: Reading) -> Registration:
    registration = reading.decode(row.raw)
    if registration.event_id is None:
        registration.event_id = row.event_id
    return registration


async def _copy_first(
    connection: Connection,
    target: Target,
    page: Page,
    rows: Iterable[RawRow],
    digests: Mapping[int, bytes],
    reading: Reading,
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
            breath = Breath()
            for start in range(0, len(waiting), ROWS_A_WRITE):
                registrations: list[tuple[Registration, bytes]] = []
                for row in waiting[start : start + ROWS_A_WRITE]:
                    await breath.take()
                    try:
                        both = digests[row.registration_id] + _digest_but_bib(row.raw, reading)
                        registrations.append((_decoded(row, reading), both))
                    except BadRecord as error:
                        refused.append(quarantine.Entry(str(error), row.raw, row.registration_id))
                lines: list[bytes] = []
                for registration, digest in registrations:
                    lines.append(
                        copy_text.line(target.partner_id, registration, standing, digest, target.now)
                    )
                    await breath.take()
                await copy.write(b"".join(lines))
    except psycopg.errors.UniqueViolation:
        return None
    return refused


async def _rows_before(
    connection: Connection, target: Target, registration_ids: Sequence[int]
) -> dict[int, Stored]:
    cursor = await connection.execute(
        statements("loader")["rows_before"],
        # In one order whoever asks: two that lock some of the same rows never wait for each other.
        {**_key(target), "registration_ids": sorted(registration_ids)},
        prepare=False,
    )
    width = len(VENDOR_COLUMNS) + 1
    return {row[0]: Stored(Registration(*row[:width]), *row[width:]) for row in await cursor.fetchall()}


async def _write(
    connection: Connection, target: Target, merges: Sequence[Merge], digests: Sequence[bytes | None]
) -> None:
    await _write_rows(connection, target, merges, digests)
    await feed.write(connection, target.partner_id, _lines_of(target, merges))


def _lines_of(target: Target, merges: Iterable[Merge]) -> list[feed.Line]:
    return [
        feed.line_of(merge, seen_at=target.now)
        for merge in merges
        if target.tells_of(merge.after.registration.event_id)
    ]


async def _write_rows(
    connection: Connection, target: Target, merges: Sequence[Merge], digests: Sequence[bytes | None]
) -> None:
    if not merges:
        return
    named = statements("loader")
    await connection.execute(named["make_stage"])
    breath = Breath()
    async with connection.cursor().copy(named["copy_stage"]) as copy:
        for start in range(0, len(merges), ROWS_A_WRITE):
            lines: list[bytes] = []
            for merge, digest in zip(
                merges[start : start + ROWS_A_WRITE],
                digests[start : start + ROWS_A_WRITE],
                strict=True,
            ):
                standing = copy_text.standing_of(merge.after)
                lines.append(
                    copy_text.line(target.partner_id, merge.after.registration, standing, digest, target.now)
                )
                await breath.take()
            await copy.write(b"".join(lines))
    await connection.execute(named["merge_stage"])
