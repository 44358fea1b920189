"""
What the mirror holds, compared column by column with what a full listing says.

A digest tells that the vendor's record is the one that was stored; it cannot tell that the columns
are still what was stored, or were stored right. Somebody may have altered them, and a connection of
another encoding may have spoilt them. So a reconciliation and a full sync compare the columns
themselves. The rows stay in the server: one COPY and one query a page, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from bibwire.domain.errors import BadRecord
from bibwire.domain.merge import VENDOR_COLUMNS, Stored
from bibwire.domain.records import RawRow, Registration
from bibwire.store import copy_text
from bibwire.store.database import Connection, statements

# As many rows a write as the loader's.
_ROWS_A_WRITE = 64


async def altered(
    connection: Connection,
    key: Mapping[str, int],
    rows: Sequence[RawRow],
    *,
    decode: Callable[[RawRow], Registration],
    events: Collection[int],
    now: datetime,
) -> frozenset[int]:
    """
    Return those registrations whose stored columns are not what their record says.

    Args:
        key: `partner_id` and `race_id`.
        rows: Records of active rows that are stored under this very race and one of `events`.
        decode: Record from its row; raises BadRecord.
    """
    if not rows:
        return frozenset()
    named = statements("audit")
    await connection.execute(named["make_stage"])
    standing = copy_text.standing(race_id=key["race_id"], as_of=now)
    async with connection.cursor().copy(named["copy_stage"]) as copy:
        for start in range(0, len(rows), _ROWS_A_WRITE):
            lines: list[bytes] = []
            for row in rows[start : start + _ROWS_A_WRITE]:
                with suppress(BadRecord):  # whoever raised DECODING_VERSION quarantines it
                    lines.append(copy_text.line(key["partner_id"], decode(row), standing, None, now))
            await copy.write(b"".join(lines))
    ids = [row.registration_id for row in rows]
    values: dict[str, Any] = {"event_ids": list(events), "lowest": min(ids), "highest": max(ids)}
    cursor = await connection.execute(named["differing"], {**key, **values})
    return frozenset(row[0] for row in await cursor.fetchall())


async def stored(
    connection: Connection, partner_id: int, registration_ids: Collection[int]
) -> dict[int, Stored]:
    """Return registrations as they are stored, without a lock."""
    values = {"partner_id": partner_id, "registration_ids": list(registration_ids)}
    cursor = await connection.execute(statements("audit")["rows"], values)
    width = len(VENDOR_COLUMNS) + 1
    return {row[0]: Stored(Registration(*row[:width]), *row[width:]) for row in await cursor.fetchall()}
