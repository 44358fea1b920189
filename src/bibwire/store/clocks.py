"""
What is stored of clocks: instants to come that outlived their cause, and the vendor's clock.

Every stored instant is the database's time. Its clock can be set all the same, and most often it is the
clock of a laptop: what was stored while it was ahead is pulled back by whoever plans next.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import msgspec

from bibwire.domain.clocks import SLACK, VendorClock
from bibwire.domain.tiers import Tier
from bibwire.store.database import Connection, Database, statements
from bibwire.store.schedule import CLAIM, LONGEST_PLAN, PUT_OFF

_TIERS = msgspec.json.encode({tier.value: tier.seconds for tier in Tier}).decode()


@dataclass(frozen=True, slots=True)
class PulledBack:
    """
    How many scopes and partners were due too late.

    `set_back`: some of it can only have been stored while a clock was ahead.
    """

    scopes: int
    partners: int
    set_back: bool


async def pull_back(connection: Connection, *, now: datetime) -> PulledBack:
    """Bring back what lies further ahead than its cause allows."""
    values = {
        "now": now,
        "present": now + SLACK,
        "claim": CLAIM.total_seconds(),
        "plan": LONGEST_PLAN.total_seconds(),
        "put_off": PUT_OFF.total_seconds(),
        "tiers": _TIERS,
    }
    # In the order in which others lock them: pages lock scopes first.
    scopes = await (await connection.execute(statements("clocks")["pull_scopes_back"], values)).fetchall()
    partners = (await connection.execute(statements("clocks")["pull_plans_back"], values)).rowcount
    return PulledBack(len(scopes), partners, bool(partners) or any(by_clock for *_, by_clock in scopes))


async def note(db: Database, partner_id: int, clock: VendorClock) -> None:
    """Note how the vendor's clock was seen."""
    await db.fetch(
        statements("clocks")["note"],
        partner_id=partner_id,
        ahead=clock.ahead,
        date_ahead=clock.date_ahead,
        data_ahead=clock.data_ahead,
    )


async def vendor_ahead(db: Database) -> tuple[float | None, float | None]:
    """Return how far the vendor's Dates, and its newest changes, were last ahead of the database's clock."""
    [[date_ahead, data_ahead]] = await db.fetch(statements("clocks")["vendors_clock"])
    return date_ahead, data_ahead
