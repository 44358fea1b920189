"""
Follows partners' feeds as they grow.

The database says when something was written (LISTEN bibwire_changes); what was written is
read from the table, after the last seq handed out. So nothing is missed when a notice is
lost, the connection breaks or it never stood: every two seconds the table is looked at anyway.

Numbers that were handed out can come again with other changes: a standby that takes over, or a backup
that is restored, may lack the newest. So what stood under a number is remembered and looked at again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing
from time import monotonic

import psycopg

from bibwire.domain.errors import DatabaseDenied, DatabaseUnavailable, FeedRewound
from bibwire.store.database import connect
from bibwire.store.reports import BATCH, Change, Head, Mark, Reports
from bibwire.store.watched import CHECK_SECONDS, Watched

POLL_SECONDS = 2.0
# A connection without notices for so long is tried: its server may be gone without a word.
TRY_SECONDS = 10.0
# So many positions are remembered of each partner: where a feed went back, the last that agrees is told.
MARKS_KEPT = 1000


async def follow(
    reports: Reports,
    *,
    since: dict[int, int],
    partner_id: int | None = None,
    race_id: int | None = None,
    bibs_only: bool = True,
) -> AsyncGenerator[Change]:
    """
    Yield each change after `since`, for ever. A database that is away is waited for, however long.

    Args:
        since: The last seq known of each partner, by id; moved on as changes are handed out.
            A partner not in it is read from its beginning.
        partner_id: None: all partners, those added meanwhile too.

    Raises:
        FeedRewound: The database lost changes that were handed out.
        DatabaseDenied: It refuses us.
    """
    marks: dict[int, deque[Mark]] = {}
    async with _Notices(reports.conninfo) as notices:
        while True:
            try:
                async with aclosing(_new(reports, since, marks, partner_id, race_id, bibs_only)) as changes:
                    async for change in changes:
                        yield change
            except DatabaseDenied:
                raise
            except DatabaseUnavailable:
                pass  # said by whoever watches over the races (cli/freshness.py)
            await notices.wait()


async def _new(
    reports: Reports,
    since: dict[int, int],
    marks: dict[int, deque[Mark]],
    partner_id: int | None,
    race_id: int | None,
    bibs_only: bool,
) -> AsyncGenerator[Change]:
    for head in await reports.heads(partner_id):
        known = marks.get(head.partner_id)
        if known is None:
            known = marks[head.partner_id] = deque(maxlen=MARKS_KEPT)
            known.extend(await reports.change_marks(head.partner_id, [since.get(head.partner_id, 0)]))
        await _check(reports, head, since.get(head.partner_id, 0), known)
        while since.get(head.partner_id, 0) < head.last_seq:
            batch = await reports.changes(
                head,
                since=since.get(head.partner_id, 0),
                race_id=race_id,
                bibs_only=bibs_only,
                limit=BATCH,
            )
            for change in batch:
                yield change
                since[head.partner_id] = change.seq
                known.append(
                    (change.seq, change.kind, change.race_id, change.registration_id, change.seen_at)
                )
            if len(batch) < BATCH and since.get(head.partner_id, 0) < head.last_seq:
                known.extend(await reports.change_marks(head.partner_id, [head.last_seq]))
                since[head.partner_id] = head.last_seq


async def _check(reports: Reports, head: Head, at: int, known: Collection[Mark]) -> None:
    """
    Look whether the feed still holds what was handed out, where it has moved.

    Raises:
        FeedRewound: It does not.
    """
    if head.last_seq == at:
        return
    last = max(known, default=None)
    if head.last_seq > at and (
        last is None or await reports.change_marks(head.partner_id, [last[0]]) == [last]
    ):
        return
    standing = set(await reports.change_marks(head.partner_id, [mark[0] for mark in known]))
    agreed = max((mark[0] for mark in known if mark in standing), default=0)
    raise FeedRewound(
        f"The feed of {head.partner} went back: the database lost its newest changes, as when a standby "
        "takes over or a backup is restored, and gives their numbers out again. What was shown after "
        f"number {agreed:,} may not be true any more",
        partner=head.partner,
        agreed=agreed,
    )


class _Notices:
    """Waits until the database says that a feed grew, at most POLL_SECONDS."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._connection: Watched | None = None
        self._heard_at = monotonic()

    async def __aenter__(self) -> _Notices:
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    async def wait(self) -> None:
        if self._connection is None:
            await asyncio.sleep(POLL_SECONDS)
            await self._listen()
            return
        try:
            async for _ in self._connection.notifies(timeout=POLL_SECONDS, stop_after=1):
                self._heard_at = monotonic()
            if monotonic() - self._heard_at > TRY_SECONDS:
                with self._connection.at_most(CHECK_SECONDS):
                    await self._connection.execute("SELECT 1")
                self._heard_at = monotonic()
        except psycopg.Error:
            await self._close()

    async def _listen(self) -> None:
        try:
            self._connection = await connect(self._conninfo)
            await self._connection.execute("LISTEN bibwire_changes")
            self._heard_at = monotonic()
        except (DatabaseUnavailable, psycopg.Error):
            await self._close()

    async def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
