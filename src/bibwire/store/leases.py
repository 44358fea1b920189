"""
The right to sweep a scope: one process at a time, with a fencing number.

A lease ends with its holder's process or when it runs out. Whoever was too slow finds at its
next commit that the epoch has moved on, and writes nothing (`hold`).

It ends with its server too. A standby that takes over may lack the newest commits: the page that a
sweep stored before this one, or the lease itself, whose epoch then is given out again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from bibwire.domain.errors import DatabaseReplaced, LeaseLost
from bibwire.store.database import Connection, Database, statements
from bibwire.store.session import INSTANCE_LOCKS, Session

# How long a frozen process keeps others out at most; a dead one frees its leases at once.
TTL_SECONDS = 30.0
# A live holder renews it meanwhile: waiting for the budget or a slow vendor may take longer.
RENEW_SECONDS = TTL_SECONDS / 4
# After one that failed: the database may be back at once.
RENEW_AGAIN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to sweep one scope, while `epoch` is the newest and the server that gave it runs."""

    partner_id: int
    race_id: int
    epoch: int
    server_started_at: datetime


async def acquire(db: Database, session: Session, partner_id: int, race_id: int) -> Lease | None:
    """Take the lease of a scope; None if another holds it."""
    rows = await db.fetch(
        statements("leases")["acquire"],
        partner_id=partner_id,
        race_id=race_id,
        instance=await session.ensure(),
        ttl_seconds=TTL_SECONDS,
        lock_class=INSTANCE_LOCKS,
    )
    return Lease(partner_id, race_id, *rows[0]) if rows else None


async def hold(connection: Connection, lease: Lease) -> datetime | None:
    """
    Renew the lease within a transaction; return when the scope was loaded, None if not yet.

    Raises:
        LeaseLost: Another process has taken the scope over.
        DatabaseReplaced: The server was started again, or another one took its place.
    """
    cursor = await connection.execute(
        statements("leases")["hold"],
        {
            "partner_id": lease.partner_id,
            "race_id": lease.race_id,
            "epoch": lease.epoch,
            "server_started_at": lease.server_started_at,
            "ttl_seconds": TTL_SECONDS,
        },
    )
    row = await cursor.fetchone()
    if row is None:
        cursor = await connection.execute(statements("leases")["server_started_at"])
        if await cursor.fetchone() != (lease.server_started_at,):
            raise DatabaseReplaced(
                "PostgreSQL was started again, or a standby took over, while a race was read: what is read "
                "is not stored, and the race is read again."
            )
        raise LeaseLost(f"Race {lease.race_id} was taken over by another process.")
    loaded_at: datetime | None = row[0]
    return loaded_at


async def renew(db: Database, lease: Lease) -> None:
    """Renew the lease in a transaction of its own; raises as `hold`."""
    async with db.transaction() as connection:
        await hold(connection, lease)


async def release(db: Database, lease: Lease) -> None:
    """Give the lease back."""
    await db.fetch(
        statements("leases")["release"],
        partner_id=lease.partner_id,
        race_id=lease.race_id,
        epoch=lease.epoch,
        server_started_at=lease.server_started_at,
    )
