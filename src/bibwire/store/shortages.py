"""The shortages of calls that the partners' last plans foresaw."""

from __future__ import annotations

from bibwire.domain.shortages import Foreseen
from bibwire.store.database import Connection, Database, statements


async def foreseen(connection: Connection, partner_id: int) -> tuple[str, Foreseen | None]:
    """Return the partner's name, and what its last plan foresaw; None: no shortage, or no plan yet."""
    cursor = await connection.execute(statements("shortages")["foreseen"], {"partner_id": partner_id})
    [[name, begins_at, *rest]] = await cursor.fetchall()
    return name, None if begins_at is None else Foreseen(begins_at, *rest)


async def short_partners(db: Database) -> set[int]:
    """Return the partners whose last plan foresaw a shortage."""
    return {row[0] for row in await db.fetch(statements("shortages")["short_partners"])}
