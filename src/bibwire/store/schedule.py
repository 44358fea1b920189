"""
When each scope is polled next: what was planned, what is due, and what became of it.

Due times live here and never in the job queue, which holds only work that is due now. A scope
that was queued is claimed for a while, so that a job that is lost comes up again.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, LiteralString

import msgspec

from bibwire.domain.clocks import VendorClock
from bibwire.domain.schedule import EventTimes, PartnerPlan, ScopeFacts, Tier, rate_after
from bibwire.domain.sweeps import LIVE_AFTER_END, is_live
from bibwire.store.database import Connection, Database, statements

# Longer than a job's slice and its wait for a place: a live job's scope is not queued again.
CLAIM = timedelta(seconds=150)
# A plan is made anew after that time at the latest.
LONGEST_PLAN = timedelta(hours=1)
# How long a refused key or caller registration is left alone.
PUT_OFF = timedelta(minutes=15)
RUNS_KEPT = timedelta(days=90)
LAGS_KEPT = timedelta(days=400)


@dataclass(frozen=True, slots=True)
class Due:
    """A scope to be polled. `loaded`: its first load is over."""

    partner_id: int
    race_id: int
    credential_id: int
    tier: Tier
    loaded: bool


@dataclass(frozen=True, slots=True)
class Claimed:
    """Polls of one kind that jobs are about to make under a credential."""

    credential_id: int
    tier: Tier
    loaded: bool
    polls: int


@dataclass(frozen=True, slots=True)
class Scheduled:
    """What stands in the schedule for a race. `polled_at`: begin of the last poll that read its people."""

    tier: Tier
    every_seconds: float
    next_due_at: datetime
    polled_at: datetime | None


@dataclass(frozen=True, slots=True)
class Turn:
    """
    How a scope's schedule stands.

    `next_due_at` and the plan are None if it is not scheduled; instants are ours. Registrations were
    last read by a poll that began at `polled_at`. `vendor_clock` is as
    it was noted for the partner; None: never. Everything was first loaded at
    `loaded_at`, listed again at `reconciled_at`; counts were compared at `counted_at`.
    """

    next_due_at: datetime | None
    tier: Tier | None
    polled_at: datetime | None
    poll_every_seconds: float | None
    removed_every_seconds: float | None
    removed_polled_at: datetime | None
    changes_per_minute: float
    rate_at: datetime | None
    failures: int
    vendor_clock: VendorClock | None
    loaded_at: datetime | None
    reconciled_at: datetime | None
    counted_at: datetime | None


async def partners_to_plan(connection: Connection, *, now: datetime) -> list[int]:
    """Take the partners whose plan is due; they are ours until the transaction ends."""
    return [row[0] for row in await _run(connection, "partners_to_plan", now=now)]


async def facts(connection: Connection, partner_id: int, *, now: datetime) -> list[ScopeFacts]:
    """Return what the planner has to know of a partner's scopes with live events."""
    over_after = now - LIVE_AFTER_END - timedelta(days=1)
    events: dict[int, list[EventTimes]] = {}
    rest: dict[int, tuple[Any, ...]] = {}
    news: set[int] = set()
    for race_id, name, starts_at, ends_at, hot_from, hot_until, because, is_new, *seen in await _run(
        connection, "facts", partner_id=partner_id, over_after=over_after
    ):
        if is_live(starts_at, ends_at, now=now):
            times = EventTimes(starts_at, ends_at, hot_from, hot_until, because)
            events.setdefault(race_id, []).append(times)
            rest[race_id] = (name, *seen)
            if is_new:
                news.add(race_id)
    found = []
    for race_id, (name, rate, rate_at, failures, loaded, list_length) in rest.items():
        found.append(
            ScopeFacts(
                race_id=race_id,
                name=name,
                events=tuple(events[race_id]),
                changes_per_minute=rate_after(rate, rate_at, 0, now),
                failures=failures,
                loaded=loaded,
                news=race_id in news,
                # A first load asks for all at once, and learns by it how long a list is believed.
                calls=math.ceil(len(events[race_id]) / list_length) if loaded else 1,
            )
        )
    return found


async def scheduled(connection: Connection, partner_id: int) -> dict[int, Scheduled]:
    """Return what stands in the schedule for a partner, by race; others are not scheduled."""
    rows = await _run(connection, "scheduled", partner_id=partner_id)
    return {race_id: Scheduled(Tier(tier), *rest) for race_id, tier, *rest in rows}


async def store_plan(
    connection: Connection,
    partner_id: int,
    plan: PartnerPlan,
    *,
    again_at: datetime,
    now: datetime,
) -> None:
    """Write a partner's plan; scopes it does not name are not scheduled any more."""
    race_ids = [poll.race_id for poll in plan.polls]
    key = {"partner_id": partner_id, "race_ids": race_ids}
    await _run(connection, "open_scopes", **key)
    await _run(
        connection,
        "store_polls",
        **key,
        tiers=[poll.tier.value for poll in plan.polls],
        poll_every=[poll.every_seconds for poll in plan.polls],
        removed_every=[poll.removed_every_seconds for poll in plan.polls],
        at_once=[poll.at_once for poll in plan.polls],
        now=now,
    )
    await _run(connection, "close_scopes", **key)
    await _run(connection, "forget_failures", partner_id=partner_id, now=now)
    await _run(
        connection,
        "store_plan",
        partner_id=partner_id,
        next_plan_at=again_at,
        now=now,
        usable=plan.usable_calls_per_hour,
        needed=plan.needed_calls_per_hour,
        planned=plan.planned_calls_per_hour,
    )


async def due(connection: Connection, *, horizon: datetime, now: datetime, most: int) -> list[Due]:
    """Take scopes that are due by `horizon`, hot ones first; ours until the transaction ends."""
    rows = await _run(connection, "hot_due", horizon=horizon, now=now, most=most)
    rows += await _run(connection, "others_due", horizon=horizon, now=now, most=most)
    return [Due(row[0], row[1], row[2], Tier(row[3]), row[4]) for row in rows]


async def claimed(
    connection: Connection, credential_ids: Collection[int], *, horizon: datetime, now: datetime
) -> list[Claimed]:
    """Return the polls due by `horizon` that are in the hands of jobs and not made yet."""
    rows = await _run(connection, "claimed", credential_ids=list(credential_ids), horizon=horizon, now=now)
    return [Claimed(row[0], Tier(row[1]), row[2], row[3]) for row in rows]


async def claim(connection: Connection, scopes: Sequence[Due], *, now: datetime) -> None:
    """Leave scopes to the jobs that were queued for them."""
    await _run(connection, "claim", **_keys(scopes), until=now + CLAIM)


async def put_off(connection: Connection, scopes: Mapping[Due, datetime]) -> None:
    """Look at scopes again at these instants."""
    await _run(connection, "put_off", **_keys(list(scopes)), due_at=list(scopes.values()))


async def turn(db: Database, partner_id: int, race_id: int) -> Turn | None:
    """Return how a scope's schedule stands; None if there is no such scope."""
    return _turn_of(await db.fetch(_named("turn"), partner_id=partner_id, race_id=race_id))


async def active(db: Database, partner_id: int, race_id: int) -> int:
    """Return how many active registrations are stored of a race."""
    [[number]] = await db.fetch(_named("active"), partner_id=partner_id, race_id=race_id)
    return int(number)


async def record_poll(
    db: Database,
    partner_id: int,
    race_id: int,
    *,
    polled_at: datetime,
    removed_polled_at: datetime | None,
    rate: float,
    next_due_at: datetime,
    goes_on: bool,
    now: datetime,
) -> Turn | None:
    """
    Note a poll that succeeded; return the next turn.

    Args:
        polled_at: When the poll began that read the registrations.
        removed_polled_at: The same of the removed list; None: it was not read.
        goes_on: The job will do the next turn too.
    """
    rows = await db.fetch(
        _named("record_poll"),
        partner_id=partner_id,
        race_id=race_id,
        polled_at=polled_at,
        removed_polled_at=removed_polled_at,
        rate=rate,
        next_due_at=next_due_at,
        claimed_until=now + CLAIM if goes_on else None,
        now=now,
    )
    return _turn_of(rows)


async def record_failure(
    db: Database,
    partner_id: int,
    race_id: int,
    *,
    next_due_at: datetime,
    now: datetime,
    counts: bool = True,
    read_at: datetime | None = None,
) -> None:
    """
    Note a poll that failed, and when to try again.

    Args:
        counts: It was the scope's own fault.
        read_at: When the poll began, if it read all registrations before it failed.
    """
    await db.fetch(
        _named("record_failure"),
        partner_id=partner_id,
        race_id=race_id,
        next_due_at=next_due_at,
        counts=counts,
        read_at=read_at,
        now=now,
    )


async def failing_hot(db: Database, partner_id: int) -> int:
    """Return how many hot scopes of a partner fail."""
    [[number]] = await db.fetch(_named("failing_hot"), partner_id=partner_id)
    return int(number)


async def try_hot_again(db: Database, *, now: datetime) -> None:
    """Poll the hot scopes that failed, of all partners, at once."""
    await db.fetch(_named("try_hot_again"), now=now)


async def close(
    db: Database, partner_id: int, race_id: int, *, now: datetime, discover_by: datetime | None = None
) -> None:
    """
    Take a scope without live events off the schedule.

    Args:
        discover_by: When the race list is read at the latest; None: at its time.
    """
    await db.fetch(_named("close"), partner_id=partner_id, race_id=race_id, now=now, discover_by=discover_by)


async def discover_by(db: Database, partner_id: int, race_id: int, *, by: datetime, now: datetime) -> None:
    """List all races of a partner at that instant at the latest, because an event of one was not found."""
    await db.fetch(_named("discover_by"), partner_id=partner_id, race_id=race_id, discover_by=by, now=now)


async def discover_all(db: Database) -> None:
    """Read every race list at once."""
    await db.fetch(_named("discover_all"))


async def put_plan_off(connection: Connection, partner_id: int, *, again_at: datetime) -> None:
    """Plan a partner later."""
    await _run(connection, "put_plan_off", partner_id=partner_id, again_at=again_at)


async def prune(db: Database, *, now: datetime) -> None:
    """Delete runs and reconciliations older than 90 days and lags older than 400."""
    await db.fetch(_named("prune"), runs_before=now - RUNS_KEPT, lags_before=now - LAGS_KEPT)


async def let_go(db: Database, partner_id: int, race_id: int) -> None:
    """Note that the scope's job has ended without a poll of its own."""
    await db.fetch(_named("let_go"), partner_id=partner_id, race_id=race_id)


async def put_partner_off(db: Database, partner_id: int, *, until: datetime) -> None:
    """Poll no scope of a partner before that instant."""
    await db.fetch(_named("put_partner_off"), partner_id=partner_id, due_at=until)


async def claim_discoveries(connection: Connection, *, now: datetime, again_at: datetime) -> list[int]:
    """Take the partners whose race list is due; if the job is lost, they are due again."""
    partner_ids = [row[0] for row in await _run(connection, "discoveries_due", now=now)]
    if partner_ids:
        await _run(connection, "claim_discovery", partner_ids=partner_ids, again_at=again_at)
    return partner_ids


async def claim_verifications(
    connection: Connection, *, now: datetime, first_at: datetime, again_at: datetime
) -> list[int]:
    """
    Take the partners whose mirror is to be verified; if the job is lost, they are due again.

    Args:
        first_at: When those are verified that have no time yet.
    """
    await _run(connection, "plan_verifications", next_at=first_at)
    partner_ids = [row[0] for row in await _run(connection, "verifications_due", now=now)]
    if partner_ids:
        await _run(connection, "claim_verification", partner_ids=partner_ids, again_at=again_at)
    return partner_ids


async def forget_verifications(connection: Connection) -> None:
    """Verify nobody by the clock any more."""
    await _run(connection, "forget_verifications")


async def verify_next(db: Database, partner_id: int, *, next_at: datetime) -> None:
    """Verify a partner at that instant."""
    await db.fetch(_named("verify_next"), partner_id=partner_id, next_at=next_at)


async def record_verification(
    db: Database, partner_id: int, failures: Sequence[Mapping[str, Any]], *, asked: bool, now: datetime
) -> None:
    """Note what a verification of all of a partner's races found. `asked`: the vendor could be."""
    await db.fetch(
        _named("record_verification"),
        partner_id=partner_id,
        failures=msgspec.json.encode(failures).decode(),
        asked=asked,
        now=now,
    )


async def full_list_is_due(db: Database, partner_id: int, *, now: datetime) -> bool:
    """Say whether all of a partner's races are to be listed, and not those to come alone."""
    [[due]] = await db.fetch(_named("full_list_is_due"), partner_id=partner_id, now=now)
    return bool(due)


async def record_discovery(
    db: Database,
    partner_id: int,
    *,
    next_at: datetime,
    next_full_at: datetime | None,
    error: str | None,
    note: str | None,
    now: datetime,
) -> None:
    """
    Note a discovery, and that its partner is to be planned anew.

    Args:
        next_full_at: When all races are listed next; None: it was not all of them, and stays as it is.
        note: What was odd about the lists.
    """
    await db.fetch(
        _named("record_discovery"),
        partner_id=partner_id,
        next_at=next_at,
        next_full_at=next_full_at,
        error=error,
        note=note,
        now=now,
    )


async def found_since(db: Database, partner_id: int, *, since: datetime) -> tuple[int, int]:
    """Return how many races and events of a partner were first seen since then."""
    [[races, events]] = await db.fetch(_named("found_since"), partner_id=partner_id, since=since)
    return int(races), int(events)


async def any_hot(db: Database, partner_id: int) -> bool:
    """Say whether any race of a partner is hot."""
    [[hot]] = await db.fetch(_named("any_hot"), partner_id=partner_id)
    return bool(hot)


async def count_lag(db: Database) -> None:
    """Bring `detection_lag` up to date with the feed."""
    for partner_id, after, through, clock_ahead in await db.fetch(_named("lag_heads")):
        key = {"partner_id": partner_id, "through": through}
        async with db.transaction() as connection:
            await _run(connection, "count_lag", **key, after=after, clock_ahead=clock_ahead)
            await _run(connection, "counted_lag", **key)


def _turn_of(rows: Sequence[tuple[Any, ...]]) -> Turn | None:
    if not rows:
        return None
    next_due_at, tier, *rest = rows[0]
    *before, clock, loaded_at, reconciled_at, counted_at = rest
    ahead, date_ahead, data_ahead = clock or (0.0, None, None)
    seen = None if date_ahead is None else VendorClock(ahead, date_ahead, data_ahead)
    rest = [*before, seen, loaded_at, reconciled_at, counted_at]
    return Turn(next_due_at, None if tier is None else Tier(tier), *rest)


def _keys(scopes: Sequence[Due]) -> dict[str, list[int]]:
    return {
        "partner_ids": [scope.partner_id for scope in scopes],
        "race_ids": [scope.race_id for scope in scopes],
    }


def _named(name: str) -> LiteralString:
    return statements("schedule")[name]


async def _run(connection: Connection, name: str, **values: Any) -> list[tuple[Any, ...]]:
    cursor = await connection.execute(_named(name), values)
    return await cursor.fetchall() if cursor.description else []
