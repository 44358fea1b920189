"""
Records that cannot be represented: kept with the reason and their text, so that nothing is lost.

An entry is met again and again while the vendor sends it, and resolved when the same
registration is next read without fault.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import NamedTuple

from bibwire.store.database import Connection, statements


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
    async with connection.cursor() as cursor:
        await cursor.executemany(
            statements("quarantine")["keep"],
            [
                {
                    "partner_id": partner_id,
                    "race_id": race_id,
                    "registration_id": entry.registration_id,
                    "source": source,
                    "reason": entry.reason,
                    "raw": entry.raw.decode("utf-8", "backslashreplace").replace("\0", "\\x00"),
                    "raw_hash": blake2b(entry.raw, digest_size=16).digest(),
                    "now": now,
                }
                for entry in sorted(entries, key=lambda entry: entry.raw)
            ],
        )


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
