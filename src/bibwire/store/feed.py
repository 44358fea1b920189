"""
Writes the change feed, in the transaction that makes the changes.

It comes last in its transaction, because it holds the partner's feed until the commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from bibwire.domain.merge import Kind, Merge
from bibwire.store.database import Connection, statements

encode_json = msgspec.json.Encoder(decimal_format="number").encode


async def write_merges(
    connection: Connection, partner_id: int, merges: Sequence[Merge], *, seen_at: datetime
) -> None:
    """Write one line a merge, in their order."""
    await _write(
        connection,
        partner_id,
        [
            (
                merge.after.race_id,
                merge.after.registration.event_id,
                merge.after.registration.registration_id,
                merge.kind.value,
                encode_json(merge.fields).decode(),
                merge.modified_at,
                seen_at,
                merge.bib_from,
                merge.bib_to,
            )
            for merge in merges
        ],
    )


async def write_loaded(
    connection: Connection,
    partner_id: int,
    race_id: int,
    counts: dict[str, Any],
    *,
    seen_at: datetime,
    history: bool = False,
) -> None:
    """
    Write that a race's first complete load ended here, once a race.

    Args:
        history: It is past events, named in `counts`, that came to a race loaded before.
    """
    fields = encode_json(counts).decode()
    kind = Kind.HISTORY_LOADED if history else Kind.LOADED
    row = (race_id, None, None, kind.value, fields, None, seen_at, None, None)
    await _write(connection, partner_id, [row])


async def _write(connection: Connection, partner_id: int, rows: Sequence[tuple[Any, ...]]) -> None:
    if not rows:
        return
    named = statements("feed")
    cursor = await connection.execute(named["take_seqs"], {"partner_id": partner_id, "number": len(rows)})
    head = await cursor.fetchone()
    assert head is not None
    last_seq = head[0]
    async with connection.cursor().copy(named["copy_changes"]) as copy:
        for seq, row in enumerate(rows, last_seq - len(rows) + 1):
            await copy.write_row((partner_id, seq, *row))
    await connection.execute(named["notify"], {"partner_id": partner_id, "last_seq": last_seq})
