"""The shortages of calls that operators were told of."""

from __future__ import annotations

from bibwire.domain.shortages import Told
from bibwire.store.database import Connection, Database, statements


async def told(connection: Connection, partner_id: int) -> tuple[str, bool, Told | None]:
    """Return the partner's name, whether it is paused, and of which shortage the operator was told."""
    cursor = await connection.execute(statements("shortages")["told"], {"partner_id": partner_id})
    [[name, paused, begins_at, *rest]] = await cursor.fetchall()
    return name, paused, None if begins_at is None else Told(begins_at, *rest)


async def keep(connection: Connection, partner_id: int, told: Told | None) -> None:
    """Keep what the operator is told; None: nothing, or that the calls suffice again."""
    values = {
        "partner_id": partner_id,
        "begins_at": None if told is None else told.begins_at,
        "ends_at": None if told is None else told.ends_at,
        "needed": None if told is None else told.needed_calls_per_hour,
    }
    await connection.execute(statements("shortages")["keep"], values)


async def short_partners(db: Database) -> set[int]:
    """Return the partners of whose shortage the operator was told."""
    return {row[0] for row in await db.fetch(statements("shortages")["short_partners"])}
