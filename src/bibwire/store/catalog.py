"""
Races and events, and which of them are to be kept fresh.

What is equal to the stored row is not written. Nothing is deleted: a race that the list no
longer shows, or that the vendor disowns, is marked.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from bibwire.clock import Breath
from bibwire.domain.backfill import PastRace, newest_first
from bibwire.domain.instants import race_zone, zone_named
from bibwire.domain.race_days import HotSpan, Start, hot_spans
from bibwire.domain.records import Event, Race, UnreadableRow
from bibwire.domain.sweeps import LIVE_AFTER_END, is_live
from bibwire.store import quarantine
from bibwire.store.database import Database, statements
from bibwire.store.feed import encode_json


@dataclass(frozen=True, slots=True)
class Scope:
    """
    A race of a partner and its live events.

    `is_listed`: the last complete race list shows it. `is_loaded`: its first load is over.
    """

    partner_id: int
    race_id: int
    name: str
    event_ids: frozenset[int]
    starts_at: datetime | None
    is_listed: bool = True
    is_loaded: bool = False


async def store_races(
    db: Database,
    partner_id: int,
    races: Sequence[Race],
    unreadable: Sequence[UnreadableRow],
    *,
    reading: int,
    now: datetime,
    events_only: bool = False,
) -> None:
    """
    Store one page of the race list.

    Args:
        reading: The number drawn before it was asked for.
        events_only: Leave the races themselves alone: a race's own page says more of it than the
            list, and each would undo what the other wrote.
    """
    named = statements("catalog")
    # A page that shifted while it was read may show a race twice; the last one counts.
    by_id = {race.race_id: race for race in races}
    breath = Breath()
    events: dict[int, tuple[Event, HotSpan | None]] = {}
    for race in by_id.values():
        await breath.take()
        for event, span in zip(race.events, _hot_spans(race), strict=True):
            events[event.event_id] = event, span
    async with db.transaction() as connection:
        await connection.execute(named["lock_list"], {"partner_id": partner_id})
        await connection.execute(named["make_race_stage"])
        await connection.execute(named["make_event_stage"])
        async with connection.cursor().copy(named["copy_races"]) as copy:
            for race in () if events_only else by_id.values():
                await breath.take()
                await copy.write_row(
                    (
                        partner_id,
                        race.race_id,
                        race.name,
                        race.timezone,
                        race.url,
                        None if race.address is None else encode_json(race.address).decode(),
                        race.next_date,
                        race.last_modified_at,
                        encode_json(race.additional_data).decode(),
                        now,
                        now,
                    )
                )
        async with connection.cursor().copy(named["copy_events"]) as copy:
            for event, span in events.values():
                await breath.take()
                await copy.write_row(
                    (
                        partner_id,
                        event.event_id,
                        event.race_id,
                        event.name,
                        event.starts_at,
                        event.ends_at,
                        event.distance,
                        event.distance_m,
                        event.event_type,
                        encode_json(event.additional_data).decode(),
                        None if span is None else span.hot_from,
                        None if span is None else span.hot_until,
                        None if span is None else span.because,
                        now,
                        now,
                    )
                )
        for name in ("drop_older_races", "drop_older_events"):
            await connection.execute(named[name], {"reading": reading})
        await connection.execute(named["relist_returned"], {"now": now})
        await connection.execute(named["merge_races"])
        await connection.execute(named["merge_events"])
        await connection.execute(named["open_scopes"], {"over_before": now - LIVE_AFTER_END})
        for name in ("note_shown_races", "note_shown_events"):
            await connection.execute(named[name], {"reading": reading})
        entries = [quarantine.Entry(row.reason, row.raw, None) for row in unreadable]
        await quarantine.keep(connection, partner_id, None, "races", entries, now=now)


def _hot_spans(race: Race) -> list[HotSpan | None]:
    return hot_spans(
        [Start(event.starts_at, event.ends_at) for event in race.events],
        zone=zone_named(race.timezone),
        fallback=race_zone(race.timezone),
        next_date=race.next_date,
    )


async def next_reading(db: Database) -> int:
    """Return the number of a page of a race list; to be drawn before the page is asked for."""
    [[number]] = await db.fetch(statements("catalog")["next_reading"])
    return int(number)


async def note_list(
    db: Database,
    partner_id: int,
    *,
    race_ids: Collection[int],
    event_ids: Collection[int],
    reading: int,
    began_at: datetime,
    now: datetime,
) -> None:
    """
    Mark what a complete list does not show: races as unlisted, events that were not found as removed.

    Args:
        race_ids, event_ids: What the list shows.
        reading: Number of its first page: what was shown to others since is listed, too.
        began_at: When its reading began, by our clock.
    """
    named = statements("catalog")
    key = {"partner_id": partner_id, "reading": reading}
    async with db.transaction() as connection:
        await connection.execute(named["lock_list"], key)
        races = await connection.execute(named["shown_since"], key)
        listed = sorted({*race_ids, *(row[0] for row in await races.fetchall())})
        events = await connection.execute(named["events_shown_since"], key)
        found = sorted({*event_ids, *(row[0] for row in await events.fetchall())})
        values = {
            **key,
            "race_ids": listed,
            "event_ids": found,
            "began_at": began_at,
            "over_before": now - LIVE_AFTER_END,
            "now": now,
        }
        for name in (
            "note_unlisted",
            "reread_unlisted",
            "mark_unlisted",
            "ask_after_unlisted",
            "ask_after_events",
            "events_found",
            "events_gone",
            "list_read",
        ):
            await connection.execute(named[name], values)


async def note_coming(
    db: Database, partner_id: int, *, race_ids: Collection[int], reading: int, now: datetime
) -> int:
    """
    Note what a complete list of coming races shows; return how many are missing that the last one showed.

    Args:
        reading: Number of its first page.
    """
    named = statements("catalog")
    values = {
        "partner_id": partner_id,
        "reading": reading,
        "race_ids": sorted(race_ids),
        "over_before": now - LIVE_AFTER_END,
        "now": now,
    }
    async with db.transaction() as connection:
        await connection.execute(named["lock_list"], values)
        missing = await (await connection.execute(named["left_coming"], values)).fetchall()
        await connection.execute(named["note_coming"], values)
        await connection.execute(named["ask_after_events"], values)
    return len(missing)


async def lose_access(db: Database, partner_id: int, race_id: int, *, now: datetime) -> None:
    """Note that the vendor denies us a race's participants."""
    named = statements("catalog")
    values = {"partner_id": partner_id, "race_id": race_id, "now": now}
    async with db.transaction() as connection:
        for name in ("relist_lost", "lose_access"):
            await connection.execute(named[name], values)


async def resolve_races(db: Database, partner_id: int, *, since: datetime) -> None:
    """Close the quarantined races that a complete list, begun at `since` (our clock), shows mended."""
    async with db.transaction() as connection:
        await quarantine.resolve_unmet(connection, partner_id, None, ["races"], since=since)


async def live_scopes(
    db: Database, partner_id: int, *, now: datetime, race_id: int | None = None
) -> list[Scope]:
    """Return the races with live events, those that start next first."""
    rows = await run(
        db,
        "events_since",
        partner_id,
        race_id=race_id,
        over_after=now - LIVE_AFTER_END - timedelta(days=1),
    )
    names: dict[int, str] = {}
    events: dict[int, set[int]] = {}
    starts: dict[int, datetime] = {}
    standing: dict[int, tuple[bool, bool]] = {}
    for race, name, event_id, starts_at, ends_at, *listed_and_loaded in rows:
        if not is_live(starts_at, ends_at, now=now):
            continue
        names[race] = name
        standing[race] = (listed_and_loaded[0], listed_and_loaded[1])
        events.setdefault(race, set()).add(event_id)
        if starts_at is not None and max(starts_at, ends_at or starts_at) >= now:
            starts[race] = min(starts.get(race, starts_at), starts_at)
    scopes = [
        Scope(partner_id, race, names[race], frozenset(ids), starts.get(race), *standing[race])
        for race, ids in events.items()
    ]
    return sorted(scopes, key=lambda s: (s.starts_at is None, s.starts_at or now, s.race_id))


async def past_races(
    db: Database,
    partner_id: int,
    *,
    now: datetime,
    since: datetime,
    until: datetime | None,
    race_id: int | None = None,
) -> list[PastRace]:
    """
    Return the races with events that are over, or live, in a span of time, the newest first.

    Args:
        since: What was over before is left out.
        until: What began at or after it is left out; None: nothing is.
    """
    rows = await run(db, "events_since", partner_id, race_id=race_id, over_after=since)
    found: dict[int, _Found] = {}
    for race, name, event_id, starts_at, ends_at, _, is_loaded in rows:
        known = found.setdefault(race, _Found(name, is_loaded))
        live = is_live(starts_at, ends_at, now=now)
        known.has_live |= live
        if until is not None and (starts_at is None or starts_at >= until):
            continue
        (known.live if live else known.past).add(event_id)
        if starts_at is not None:
            known.newest = max(known.newest or starts_at, starts_at)
    return sorted(
        (
            PastRace(
                partner_id,
                race,
                each.name,
                frozenset(each.past),
                frozenset(each.live),
                each.newest,
                each.is_loaded,
                each.has_live,
            )
            for race, each in found.items()
            if each.past or each.live
        ),
        key=newest_first,
    )


@dataclass(slots=True)
class _Found:
    """Events of a race, as they are read."""

    name: str
    is_loaded: bool
    has_live: bool = False
    past: set[int] = field(default_factory=set)
    live: set[int] = field(default_factory=set)
    newest: datetime | None = None


async def run(db: Database, name: str, partner_id: int, **values: Any) -> list[tuple[Any, ...]]:
    """Run one of the small statements of `catalog.sql` for a partner."""
    return await db.fetch(statements("catalog")[name], partner_id=partner_id, **values)
