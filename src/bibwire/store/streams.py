"""
Reads and writes where a scope's streams stand.

The position is written only by `save`, in the transaction that stores what it covers.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from bibwire.domain.sweeps import Listing, Stream, StreamState, Sweep, SweepKind
from bibwire.store.database import Connection, Database, of_partner, statements


@dataclass(frozen=True, slots=True)
class ScopeState:
    """
    How a scope stands.

    `loaded_at` is when its first load ended, `one_event_since` since when it asks event by
    event, `full_since` when the full sync began that goes on or was interrupted. `trusted_length`
    is of how many events together its partner's lists are believed, `pages_proven` whether those of
    several pages are, and `longest_page` how many rows a page had at most. `relist_since` and
    `reread_from` are what `take_back` does. `empty_event_ids` were last listed without anybody,
    though people of them were stored.
    """

    loaded_at: datetime | None
    one_event_since: datetime | None
    full_since: datetime | None
    trusted_length: int
    pages_proven: bool
    longest_page: int
    relist_since: datetime | None
    reread_from: datetime | None
    empty_event_ids: list[int]


async def open_scope(db: Database, partner_id: int, race_id: int) -> None:
    """Make sure that the scope has its rows."""
    await run(db, "open_scope", partner_id, race_id)


async def scope(db: Database, partner_id: int, race_id: int) -> ScopeState:
    """Return how an opened scope stands; raises PartnerRemoved."""
    return ScopeState(*of_partner(await run(db, "scope", partner_id, race_id)))


async def load(db: Database, partner_id: int, race_id: int, stream: Stream) -> StreamState:
    """
    Return where a stream of an opened scope stands.

    Raises:
        PartnerRemoved: The partner was removed meanwhile.
    """
    row = of_partner(await run(db, "stream", partner_id, race_id, stream=stream.value))
    (cursor_at, event_ids, long_at, ended_at, listing_high, counts, *position) = row
    (kind, since, long, high, groups, group, after, listed, started_at) = position
    sweep = listing = None
    if kind is not None:
        sweep = Sweep(
            kind=SweepKind(kind),
            since=since,
            long=long,
            groups=tuple(tuple(ids) for ids in groups),
            started_at=started_at,
            group=group,
            after=after,
            high=high,
            listed=_by_event(listed),
        )
    if ended_at is not None:
        listing = Listing(ended_at=ended_at, high=listing_high, counts=_by_event(counts))
    return StreamState(cursor_at, frozenset(event_ids), long_at, sweep, listing)


async def save(
    connection: Connection, partner_id: int, race_id: int, stream: Stream, state: StreamState
) -> None:
    """Write where a stream stands: inside a sweep, or at the cursor a sweep has reached."""
    values: dict[str, Any]
    sweep, listing = state.sweep, state.listing
    if sweep is None:
        name = "save_cursor"
        values = {
            "cursor_at": state.cursor_at,
            "event_ids": sorted(state.event_ids),
            "long_at": state.long_at,
            "listing_ended_at": None if listing is None else listing.ended_at,
            "listing_high": None if listing is None else listing.high,
            "listing_counts": None if listing is None else _as_json(listing.counts),
        }
    else:
        name = "save_position"
        values = {
            "kind": sweep.kind.value,
            "since": sweep.since,
            "long": sweep.long,
            "high": sweep.high,
            "groups": _as_json(sweep.groups),
            "group": sweep.group,
            "after": sweep.after,
            "listed": _as_json(sweep.listed),
            "started_at": sweep.started_at,
        }
    await write(connection, name, partner_id, race_id, stream=stream.value, **values)


async def mark_loaded(
    connection: Connection, partner_id: int, race_id: int, *, now: datetime
) -> dict[str, int] | None:
    """
    Note the end of a scope's first load if both streams have a cursor.

    Returns what the mirror holds of it, by name; None while the load goes on.
    """
    [row] = await write(connection, "loaded_counts", partner_id, race_id)
    if not row[0]:
        return None
    await write(connection, "set_loaded", partner_id, race_id, now=now)
    return dict(zip(("participants", "removed", "with_bib", "events"), row[1:], strict=True))


async def write(
    connection: Connection, name: str, partner_id: int, race_id: int, **values: Any
) -> list[tuple[Any, ...]]:
    """Run one of the statements of `streams.sql` on a scope, within a transaction."""
    key = {"partner_id": partner_id, "race_id": race_id}
    cursor = await connection.execute(statements("streams")[name], key | values)
    return await cursor.fetchall() if cursor.description else []


async def run(db: Database, name: str, partner_id: int, race_id: int, **values: Any) -> list[tuple[Any, ...]]:
    """Run one of the statements of `streams.sql` on a scope, in a transaction of its own."""
    return await db.fetch(statements("streams")[name], partner_id=partner_id, race_id=race_id, **values)


def _by_event(counts: dict[str, int]) -> dict[int, int]:
    return {int(event_id): count for event_id, count in counts.items()}


def _as_json(value: object) -> str:
    return msgspec.json.encode(value).decode()
