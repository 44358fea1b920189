"""Which partners' calls will not suffice: those the planner foresaw, as it stands now."""

from __future__ import annotations

from datetime import datetime

from bibwire.engine.planner import Outlook, outlook
from bibwire.store.database import Database
from bibwire.store.partners import Partners
from bibwire.store.shortages import short_partners


async def shortages(db: Database, partners: Partners, *, now: datetime) -> list[Outlook]:
    """Return what is planned for each active partner whose last plan foresaw a shortage, if one is left."""
    foreseen = await short_partners(db)
    if not foreseen:
        return []
    found = [
        await outlook(db, each, now=now)
        for each in await partners.list()
        if each.partner_id in foreseen and each.paused_at is None
    ]
    return [each for each in found if each.shortage is not None]
