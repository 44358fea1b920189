"""
The budget of calls, held over all processes by the database.

Per credential never more than its limit, less a margin, in any rolling hour: one-minute
counters by the database's clock, taken under a lock before the call is sent (decision 6). Per
caller never more than the allowed calls in flight: places that outlive their process as long as
its call may (decision 12). When the vendor asks for fewer calls, that is written here too, and
holds for all at once.

The rules are in `domain/budget.py`. Whoever waits holds neither a connection nor a place.
"""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import psycopg
import structlog
from psycopg.rows import TupleRow

from bibwire.clock import Clock
from bibwire.domain import budget as rules
from bibwire.domain.budget import Budget, CallerStanding, Spent, Standing, Urgency
from bibwire.domain.errors import (
    BibwireError,
    Blocked,
    DatabaseUnavailable,
    PartnerRemoved,
    VendorUnreachable,
)
from bibwire.domain.secrets import NOBODY, Secret
from bibwire.store import call_stats
from bibwire.store.call_stats import prune
from bibwire.store.database import Connection, Database, fetch, statements
from bibwire.store.session import Place, Session, digest

__all__ = [
    "Budget",
    "Permits",
    "Refusal",
    "Throttling",
    "blocked_callers",
    "budget_of_partner",
    "budgets",
    "in_flight",
    "prune",
    "unblock",
    "used_up_until",
]

SLOT_POLL_SECONDS: Final = 0.02
# Those who wait for the answer to a careful call look so often.
CAREFUL_POLL_SECONDS: Final = 2.0
# A wait is one sleep, but none is longer: the limit may be raised meanwhile, and a laptop's lid
# that was closed stops the clock that sleeps are measured by.
LONGEST_SLEEP_SECONDS: Final = 600.0
# Those who wait for the same minute wake one after the other.
JITTER: Final = 0.1
LONGEST_JITTER_SECONDS: Final = 2.0

log = structlog.get_logger()


_RANKS = {urgency: rank for rank, urgency in enumerate(Urgency)}


@asynccontextmanager
async def in_flight(
    session: Session, clock: Clock, caller: Secret, calls: int, urgency: Urgency = Urgency.DELTA
) -> AsyncIterator[Place]:
    """
    Hold one of the caller's places for calls in flight, waiting until one is free; see `Place.is_used`.

    Raises:
        DatabaseUnavailable: It could not be kept.
    """
    async with session.line(caller, calls).place(_RANKS[urgency]):
        while (place := await session.take_place(caller, calls)) is None:
            await clock.sleep(SLOT_POLL_SECONDS)
        async with session.holding(place):
            yield place


@dataclass(frozen=True, slots=True)
class Refusal:
    """
    Why a call may not be made now.

    `seconds` is how long to wait at most; `reason` what the vendor answered, None if the
    hour's calls are used up. `again`: the same call was refused before.
    """

    seconds: float
    reason: str | None = None
    again: bool = False


@dataclass(frozen=True, slots=True)
class Throttling:
    """
    What a throttle answer led to.

    `asked_seconds`: the pause that the vendor asked for, of which `seconds` are believed.
    `caller_seconds`: as far as every credential is blocked too.
    """

    reason: str
    seconds: float
    asked_seconds: float
    limit: int
    limit_in_use: int
    caller_seconds: float


@dataclass(frozen=True, slots=True)
class _Answer:
    """The budget's answer as of `at`: refused if `wait` is not None; `blocked_until`, if that is why."""

    at: datetime
    wait: float | None = None
    blocked_until: datetime | None = None
    reason: str | None = None


class Permits:
    """
    Permits for the calls of one credential, of one urgency.

    Args:
        caller: The caller registration, `NOBODY` without one.
        waiting: Entered while a call is refused; what it raises ends the wait.
        on_throttle: Told once of each throttle answer.
        on_throttle_over: Told that a careful call was answered.
        now: For simulations: the time the budget is counted by, instead of the database's.
        seed: Of the jitter; for tests.
    """

    def __init__(
        self,
        db: Database,
        session: Session,
        clock: Clock,
        *,
        credential_id: int,
        caller: Secret,
        calls_in_flight: int,
        urgency: Urgency = Urgency.DELTA,
        waiting: Callable[[Refusal], AbstractAsyncContextManager[None]] = lambda _: nullcontext(),
        on_throttle: Callable[[Throttling], None] = lambda _: None,
        on_throttle_over: Callable[[], None] = lambda: None,
        now: Callable[[], datetime] | None = None,
        seed: int | None = None,
    ) -> None:
        self._db = db
        self._session = session
        self._clock = clock
        self._credential_id = credential_id
        self._caller = caller
        self._calls_in_flight = calls_in_flight
        self._urgency = urgency
        self._waiting = waiting
        self._on_throttle = on_throttle
        self._on_throttle_over = on_throttle_over
        self._now = now
        self._random = random.Random(seed)
        self._stats_fail = False
        # A careful call of ours is being made.
        self._careful = False

    @asynccontextmanager
    async def permit(self, endpoint: str, *, patience_seconds: float = math.inf) -> AsyncIterator[float]:
        """
        Wait until one more call may be made, and hold its place while it is in flight.

        A VendorUnreachable raised inside means that nothing was sent: the call is not counted.

        Args:
            patience_seconds: How long to wait at most while the vendor wants no calls; not for room.

        Yields:
            Seconds waited because the vendor wanted no calls.

        Raises:
            Blocked: The vendor wants none for longer than that.
        """
        blocked_since: datetime | None = None
        again = False
        while True:
            # The place comes first: a call counted now must not be sent in a later minute.
            async with in_flight(
                self._session, self._clock, self._caller, self._calls_in_flight, self._urgency
            ) as place:
                answer = await self._spend()
                if answer.wait is None:
                    place.is_used = True
                    try:
                        yield 0.0 if blocked_since is None else (answer.at - blocked_since).total_seconds()
                    except VendorUnreachable:
                        await self._give_back(answer.at)
                        raise
                    return
            if answer.blocked_until is not None:
                blocked_since = blocked_since or answer.at
                if (answer.blocked_until - blocked_since).total_seconds() > patience_seconds:
                    raise _blocked(answer)
            async with self._waiting(Refusal(answer.wait, answer.reason, again)):
                await self._clock.sleep(self._with_jitter(answer.wait))
            again = True

    async def throttled(self, reason: str, seconds: float) -> None:
        """
        Note that the vendor answered by asking for fewer calls; it holds for all processes at once.

        Args:
            reason: What it answered; shown, so without secrets.
            seconds: How long nothing may be asked.
        """
        self._careful = False
        named, values = statements("permits"), self._values()
        async with self._db.transaction() as connection:
            before, at, _ = _standing_of(await _one(connection, "lock_budget", values))
            after = rules.after_throttle(before, now=at, seconds=seconds)
            await connection.execute(
                named["throttle"],
                values
                | {
                    "lowered_to": after.lowered_to,
                    "lowered_at": after.lowered_at,
                    "throttled_at": after.throttled_at,
                    "blocked_until": after.blocked_until,
                    "asked_until": after.asked_until,
                    "confirmed": after.confirmed,
                    "reason": reason,
                },
            )
            # Always after the credential's row: so two never wait for each other.
            await connection.execute(named["add_caller"], values)
            known = await _one(connection, "lock_caller", values)
            assert known is not None
            caller = rules.caller_after_throttle(
                CallerStanding(*known), credential_id=self._credential_id, now=at, seconds=seconds
            )
            await connection.execute(
                named["throttle_caller"],
                values
                | {
                    "throttled_at": caller.throttled_at,
                    "blocked_until": caller.blocked_until,
                    "reason": reason,
                },
            )
        self._on_throttle(
            Throttling(
                reason,
                seconds=_seconds(at, after.blocked_until),
                asked_seconds=max(seconds, _seconds(at, after.asked_until)),
                limit=after.limit,
                limit_in_use=rules.limit_in_use(after, now=at),
                caller_seconds=_seconds(at, caller.blocked_until),
            )
        )

    async def answered(self, *, accepted: bool) -> None:
        """
        Note the end of a call that was not throttled: if it was a careful one, the pause is over.

        Args:
            accepted: The vendor answered; otherwise nobody knows.
        """
        if not self._careful:
            return
        self._careful = False
        if not accepted:
            await self._db.fetch(statements("permits")["careful_call_failed"], **self._values())
        elif await self._db.fetch(statements("permits")["unblock"], **self._values()):
            self._on_throttle_over()

    async def record(self, endpoint: str, *, failed: bool, bytes_received: int, seconds: float) -> None:
        """Add an attempt to the statistics. Raises nothing for trouble with the database."""
        try:
            await call_stats.record(
                self._db,
                self._credential_id,
                endpoint,
                failed=failed,
                bytes_received=bytes_received,
                seconds=seconds,
                now=None if self._now is None else self._now(),
            )
        except (BibwireError, psycopg.Error) as error:
            if not self._stats_fail:
                log.warning(
                    "statistics of calls cannot be written", action="call_stats", error=type(error).__name__
                )
            self._stats_fail = True

    async def room(self, urgency: Urgency | None = None) -> int:
        """Return how many calls of that class, by default our own, may be made right now."""
        now = None if self._now is None else self._now()
        found = await budgets(self._db, [self._credential_id], caller=self._caller, now=now)
        if self._credential_id not in found:
            raise PartnerRemoved
        return rules.room(found[self._credential_id], urgency or self._urgency)

    async def _spend(self) -> _Answer:
        """Count one call if the budget has room."""
        values = self._values()
        async with self._db.transaction() as connection:
            standing, at, reason = _standing_of(await _one(connection, "lock_budget", values))
            careful = rules.is_careful(standing, now=at)
            if careful and standing.careful_until is not None and standing.careful_until > at:
                # Its answer may come at any moment.
                again_at = at + timedelta(seconds=CAREFUL_POLL_SECONDS)
                return _Answer(at, CAREFUL_POLL_SECONDS, again_at, reason)
            if standing.blocked_until is not None and standing.blocked_until > at:
                wait = _seconds(at, standing.blocked_until)
                return _Answer(at, wait, standing.blocked_until, reason)
            most, most_own = rules.ceilings(standing.limit, self._urgency)
            most_lately, most_own_lately = rules.ceilings(rules.limit_in_use(standing, now=at), self._urgency)
            spending = values | {
                "most": most,
                "most_own": most_own,
                "since": rules.lowered_since(standing, now=at),
                "most_lately": most_lately,
                "most_own_lately": most_own_lately,
            }
            if await _one(connection, "spend", spending) is not None:
                if careful:
                    until = at + rules.CAREFUL_CALL
                    await connection.execute(
                        statements("permits")["be_careful"], values | {"careful_until": until}
                    )
                    self._careful = True
                return _Answer(at)
            blocked = await _one(connection, "caller_blocked", values)
            if blocked is not None:
                return _Answer(at, _seconds(at, blocked[0]), *blocked)
            await connection.execute(statements("permits")["bring_minutes_back"], values | {"at": at})
            cursor = await connection.execute(statements("permits")["minutes"], values | {"at": at})
            spent = [Spent(*row) for row in await cursor.fetchall()]
        return _Answer(at, rules.seconds_until_room(standing, spent, self._urgency, now=at))

    async def _give_back(self, at: datetime) -> None:
        """Count a call no more that was counted at `at` and never sent. It stays counted if that fails."""
        with suppress(DatabaseUnavailable):
            await self._db.fetch(statements("permits")["give_back"], **self._values() | {"at": at})

    def _with_jitter(self, seconds: float) -> float:
        jitter = self._random.uniform(0.01, min(LONGEST_JITTER_SECONDS, 0.05 + JITTER * seconds))
        return min(LONGEST_SLEEP_SECONDS, seconds + jitter)

    def _values(self) -> dict[str, Any]:
        return {
            "credential_id": self._credential_id,
            "caller_digest": digest(self._caller),
            "urgency": str(self._urgency),
            "now": None if self._now is None else self._now(),
        }


async def budgets(
    db: Database | Connection,
    credential_ids: Collection[int],
    *,
    caller: Secret = NOBODY,
    now: datetime | None = None,
) -> dict[int, Budget]:
    """
    Return the budgets of these credentials; none for one that was removed.

    `blocked_until` is None unless it is still to come, by the clock that counts.

    Args:
        caller: Under whose registration the calls would be made: it may be blocked as well.
        now: The database's clock by default.
    """
    rows = await _rows(db, credential_ids=list(credential_ids), partner_id=None, caller=caller, now=now)
    return {row[0]: _budget_of(row) for row in rows}


async def budget_of_partner(
    db: Database | Connection, partner_id: int, *, caller: Secret = NOBODY, now: datetime | None = None
) -> Budget:
    """
    Return the budget of a partner's credential; arguments as of `budgets`.

    Raises:
        PartnerRemoved: The partner was removed.
    """
    rows = await _rows(db, credential_ids=[], partner_id=partner_id, caller=caller, now=now)
    if not rows:
        raise PartnerRemoved
    return _budget_of(rows[0])


async def used_up_until(
    db: Database | Connection, partner_id: int, *, now: datetime | None = None
) -> dict[Urgency, datetime]:
    """
    Return when each class has room again for which the hour's calls are used up; pauses are not looked at.

    Raises:
        PartnerRemoved: The partner was removed.
    """
    rows = await _rows(db, credential_ids=[], partner_id=partner_id, caller=NOBODY, now=now)
    if not rows:
        raise PartnerRemoved
    standing, at = _standing_in(rows[0])
    found: dict[Urgency, datetime] = {}
    for urgency in Urgency:
        values = {"credential_id": rows[0][0], "urgency": str(urgency), "at": at}
        minutes = await fetch(db, statements("permits")["minutes"], **values)
        seconds = rules.seconds_until_room(standing, [Spent(*row) for row in minutes], urgency, now=at)
        if seconds > 0:
            found[urgency] = at + timedelta(seconds=seconds)
    return found


async def blocked_callers(db: Database) -> list[tuple[datetime, str | None]]:
    """Return until when callers are blocked whose every credential must wait, and why."""
    return [(row[0], row[1]) for row in await db.fetch(statements("permits")["blocked_callers"], now=None)]


async def unblock(
    db: Database, credential_id: int, *, caller: Secret = NOBODY, now: datetime | None = None
) -> bool:
    """
    Let calls be made again, whatever pause the vendor asked for; say whether there was one.

    Args:
        caller: Under whose registration calls are made: if it is blocked as well, that ends too.
    """
    values = {"credential_id": credential_id, "caller_digest": digest(caller), "now": now}
    named = statements("permits")
    async with db.transaction() as connection:
        found = await _one(connection, "unblock", values)
        cursor = await connection.execute(named["unblock_caller"], values)
        return found is not None or bool(cursor.rowcount)


async def _rows(
    db: Database | Connection,
    *,
    credential_ids: list[int],
    partner_id: int | None,
    caller: Secret,
    now: datetime | None,
) -> list[TupleRow]:
    values = {
        "credential_ids": credential_ids,
        "partner_id": partner_id,
        "caller_digest": digest(caller),
        "now": now,
    }
    return await fetch(db, statements("permits")["budgets"], **values)


def _budget_of(row: TupleRow) -> Budget:
    limit, reason, caller_until, caller_reason = row[1], *row[6:9]
    spent, lately = row[11:]
    standing, at = _standing_in(row)
    until, asked_until = standing.blocked_until, standing.asked_until
    if caller_until is not None and (until is None or caller_until > until):
        until, reason = caller_until, caller_reason
    blocked = until is not None and until > at
    lowered = rules.lowered_since(standing, now=at) is not None
    return Budget(
        limit=limit,
        limit_in_use=rules.limit_in_use(standing, now=at),
        limit_ahead=rules.limit_ahead(standing, now=at),
        blocked_until=until if blocked else None,
        blocked_reason=reason if blocked else None,
        asked_until=asked_until if asked_until is not None and asked_until > at else None,
        spent_by_urgency=dict(zip(Urgency, spent, strict=True)),
        spent_since_throttle=dict(zip(Urgency, lately, strict=True)) if lowered else None,
    )


def _standing_in(row: TupleRow) -> tuple[Standing, datetime]:
    """Return how the credential of a row of `budgets` stands, and as of when."""
    _, limit, lowered_to, lowered_at, throttled_at, until, _, _, _, asked_until, at, *_ = row
    return Standing(limit, lowered_to, lowered_at, throttled_at, until, asked_until).at(at), at


async def _one(connection: Connection, name: str, values: dict[str, Any]) -> TupleRow | None:
    return await (await connection.execute(statements("permits")[name], values)).fetchone()


def _standing_of(row: TupleRow | None) -> tuple[Standing, datetime, str | None]:
    if row is None:
        raise PartnerRemoved
    *standing, reason, at = row
    return Standing(*standing).at(at), at, reason


def _blocked(answer: _Answer) -> Blocked:
    assert answer.wait is not None
    assert answer.blocked_until is not None
    said = answer.reason or "the vendor asks for fewer calls"
    # Rounded up: whoever comes back then is let through.
    until = answer.blocked_until + timedelta(seconds=1)
    return Blocked(
        f"{said}: none is made before {until:%Y-%m-%d %H:%M:%S} UTC, {math.ceil(answer.wait):,} s from now, "
        "which is longer than BIBWIRE_RETRY_SECONDS lets a call wait; bibwire partner unblock ends it",
        retry_after_seconds=answer.wait,
    )


def _seconds(at: datetime, until: datetime | None) -> float:
    return 0.0 if until is None else max(0.0, (until - at).total_seconds())
