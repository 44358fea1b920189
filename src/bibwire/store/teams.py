"""
Reads and writes teams, and how far their listings are.

A page is stored in the caller's transaction, together with the position it leads to. Teams are not
in the feed, whose kinds are those of registrations.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

import msgspec

from bibwire.clock import Breath
from bibwire.domain.records import TeamPage
from bibwire.domain.teams import TeamCounts, TeamPosition, TeamsKnown
from bibwire.store import quarantine
from bibwire.store.database import Connection, Database, of_partner, statements
from bibwire.store.feed import encode_json

_encode = msgspec.json.Encoder().encode


async def merge_page(
    connection: Connection,
    partner_id: int,
    race_id: int,
    page: TeamPage,
    *,
    asked: Collection[int],
    now: datetime,
) -> TeamCounts:
    """
    Store one page of a list of teams; unchanged rows are not written.

    Args:
        asked: The events it was asked for.
    """
    named, asked_ids = statements("teams"), sorted(asked)
    bad = [quarantine.Entry(row.reason, row.raw, None) for row in (*page.unreadable, *page.faults)]
    await quarantine.keep(connection, partner_id, race_id, "teams", bad, now=now)
    done = TeamCounts(listed=len(page.teams) + len(page.unreadable), quarantined=len(bad))
    if not page.teams:
        return done
    breath = Breath()
    await connection.execute(named["make_stage"])
    async with connection.cursor().copy(named["copy_stage"]) as copy:
        for team in page.teams:
            await breath.take()
            await copy.write_row(
                (
                    partner_id,
                    team.team_id,
                    race_id,
                    team.event_id,
                    team.name,
                    team.team_type_id,
                    team.gender,
                    team.bib_num,
                    team.member_count,
                    team.last_modified_at,
                    encode_json(team.additional_data).decode(),
                    now,
                    now,
                    asked_ids,
                )
            )
    cursor = await connection.execute(named["merge"])
    [(done.new, done.changed, done.returned)] = await cursor.fetchall()
    return done


async def mark_missing(
    connection: Connection,
    partner_id: int,
    race_id: int,
    *,
    event_ids: Collection[int],
    shown: Collection[int],
    now: datetime,
) -> int:
    """Mark the teams that a complete listing of these events did not show; return how many are new to it."""
    values = {"event_ids": sorted(event_ids), "shown": sorted(shown), "now": now}
    return len(await write(connection, "mark_missing", partner_id, race_id, **values))


async def are_known(db: Database, partner_id: int, race_id: int, *, event_ids: Collection[int]) -> bool:
    """Say whether there is a team of the race, or somebody of these events in one."""
    [[known]] = await run(db, "known", partner_id, race_id, event_ids=sorted(event_ids))
    return bool(known)


async def named_by_members(
    connection: Connection, partner_id: int, race_id: int, *, event_ids: Collection[int]
) -> frozenset[int]:
    """Return the teams that people of these events are in."""
    rows = await write(connection, "named", partner_id, race_id, event_ids=sorted(event_ids))
    return frozenset(row[0] for row in rows)


async def stored_of(
    connection: Connection, partner_id: int, race_id: int, team_ids: Collection[int]
) -> frozenset[int]:
    """Return those of some teams that are stored."""
    rows = await write(connection, "stored", partner_id, race_id, team_ids=sorted(team_ids))
    return frozenset(row[0] for row in rows)


async def state(db: Database, partner_id: int, race_id: int) -> TeamsKnown:
    """Return how the listings of a race's teams stand; raises PartnerRemoved."""
    event_ids, position, unlisted, *rest = of_partner(await run(db, "state", partner_id, race_id))
    return TeamsKnown(
        frozenset(event_ids),
        None if position is None else msgspec.convert(position, TeamPosition),
        frozenset(unlisted),
        *rest,
    )


async def save_position(
    connection: Connection, partner_id: int, race_id: int, position: TeamPosition | None
) -> None:
    """Write where a backfill's listing stands; None: nowhere."""
    text = None if position is None else _encode(position).decode()
    await write(connection, "save_position", partner_id, race_id, position=text)


async def run(db: Database, name: str, partner_id: int, race_id: int, **values: Any) -> list[tuple[Any, ...]]:
    """Run one of the statements of `teams.sql` on a race."""
    return await db.fetch(statements("teams")[name], partner_id=partner_id, race_id=race_id, **values)


async def write(
    connection: Connection, name: str, partner_id: int, race_id: int, **values: Any
) -> list[tuple[Any, ...]]:
    """Run one within a transaction."""
    key = {"partner_id": partner_id, "race_id": race_id}
    cursor = await connection.execute(statements("teams")[name], key | values)
    return await cursor.fetchall() if cursor.description else []
