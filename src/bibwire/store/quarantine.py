"""
Records that cannot be represented: kept with the reason and their text, so that nothing is lost.

An entry is met again and again while the vendor sends it, and resolved when the same
registration is next read without fault.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from bibwire.clock import Breath
from bibwire.store.database import Connection, statements

# Of a longer record the beginning is kept: as much as any that is known, many times over.
LONGEST_TEXT: Final = 1 << 20
ENTRIES_A_WRITE: Final = 50


class Entry(NamedTuple):
    """A record, why it cannot be stored, and its registration id where that can be read."""

    reason: str
    raw: bytes
    registration_id: int | None


async def keep(
    connection: Connection,
    partner_id: int,
    race_id: int | None,
    source: str,
    entries: Sequence[Entry],
    *,
    now: datetime,
) -> None:
    """Store entries, or note that they were met again."""
    if not entries:
        return
    # In one order, so that two transactions that keep the same records wait instead of deadlocking.
    ordered = sorted(entries, key=lambda entry: entry.raw)
    breath, batch, size = Breath(), list[dict[str, Any]](), 0
    async with connection.cursor() as cursor:
        for entry in ordered:
            text = entry.raw[:LONGEST_TEXT].decode("utf-8", "backslashreplace").replace("\0", "\\x00")
            batch.append(
                {
                    "partner_id": partner_id,
                    "race_id": race_id,
                    "registration_id": entry.registration_id,
                    "source": source,
                    "reason": entry.reason,
                    "raw": text,
                    "raw_hash": blake2b(entry.raw, digest_size=16).digest(),
                    "now": now,
                }
            )
            size += len(text)
            await breath.take()
            if len(batch) == ENTRIES_A_WRITE or size > LONGEST_TEXT or entry is ordered[-1]:
                await cursor.executemany(statements("quarantine")["keep"], batch)
                batch, size = [], 0


async def resolve(
    connection: Connection,
    partner_id: int,
    race_id: int,
    source: str,
    registration_ids: Collection[int],
    *,
    now: datetime,
) -> None:
    """Close the entries of registrations that were read without fault."""
    named = statements("quarantine")
    key = {"partner_id": partner_id, "race_id": race_id, "source": source}
    cursor = await connection.execute(named["open_ids"], key)
    again = [row[0] for row in await cursor.fetchall() if row[0] in registration_ids]
    if again:
        await connection.execute(named["resolve"], {**key, "registration_ids": again, "now": now})


async def resolve_unmet(
    connection: Connection, partner_id: int, race_id: int | None, sources: Sequence[str], *, since: datetime
) -> None:
    """Close the entries that a complete listing begun at `since` (our clock) did not meet again."""
    values = {"partner_id": partner_id, "race_id": race_id, "sources": list(sources), "since": since}
    await connection.execute(statements("quarantine")["resolve_unmet"], values)
