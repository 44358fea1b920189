"""
How many calls a credential may make, for what, and when again.

What is spent is counted in whole minutes; a rolling hour is covered by the last 61 of them, so
that a call counts for 60 to 61 minutes, never less. A limit that was lowered holds for the calls
since the vendor last asked for fewer: those before are no reason to stand still now, and the limit
as configured holds for all of them. Nothing here waits, reads a clock or asks a database: `now` is
an argument, and every instant is aware.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from bibwire.domain.clocks import SLACK

MINUTE: Final = timedelta(minutes=1)
# 60 whole minutes and the one that goes on.
WINDOW_MINUTES: Final = 61
# The vendor's clock is not ours: measured, a callee saw 201 of 200.
MARGIN: Final = 0.02

# What one throttle answer takes from the limit in use, at most once in LOWER_EVERY: the calls in
# flight when the vendor begins to refuse are refused together, and are one sign, not several.
LOWER_BY: Final = 0.7
LOWER_EVERY: Final = timedelta(minutes=1)
# Never below this share of what is configured: of 1,000 calls 100 keep one race a minute alive.
FLOOR: Final = 0.10
RECOVERY: Final = timedelta(hours=2)
# A pause that the vendor asks for is believed this far, for one answer with a mistyped number must not
# take a race day. Then one careful call is made, all others waiting: if it is refused again with a
# longer pause, twice as much is believed, up to the most; if it is answered, all go on.
BELIEVED: Final = timedelta(minutes=15)
MOST_BELIEVED: Final = timedelta(hours=1)
# How long others wait for the careful call of a process that may have died.
CAREFUL_CALL: Final = timedelta(minutes=1)
# Seconds: what is asked for is told as it is, but an instant has to be a date.
_LONGEST_ASKED: Final = 10.0**9
# Throttle answers to two credentials of one caller so close together concern the caller: the
# vendor's answer does not say which it means. As that is a guess, it is not believed for long.
SAME_CAUSE: Final = timedelta(minutes=1)
LONGEST_CALLER_BLOCK: Final = timedelta(minutes=1)


class Urgency(StrEnum):
    """What a call is for, most urgent first."""

    LIVE = "live"  # a person waits for the answer
    RACE_DAY = "race_day"
    DELTA = "delta"  # changes of races that are not hot, and what an operator started by hand
    RECONCILE = "reconcile"  # full listings that look for what the deltas missed
    BACKFILL = "backfill"  # first loads and old races


@dataclass(frozen=True, slots=True)
class Ceiling:
    """
    Where a class stops, as shares of the calls allowed in the hour.

    `total` is for the calls of all classes together, `own` for those of the class.
    """

    total: float
    own: float


CEILINGS: Final[Mapping[Urgency, Ceiling]] = {
    Urgency.LIVE: Ceiling(1.0, 1.0),
    Urgency.RACE_DAY: Ceiling(0.97, 0.97),
    Urgency.DELTA: Ceiling(0.95, 0.95),
    Urgency.RECONCILE: Ceiling(0.70, 0.30),
    Urgency.BACKFILL: Ceiling(0.50, 0.50),
}
"""
Why these numbers, for the 980 calls that 1,000 an hour allow:

- live 1.00: 30 calls that nothing else can take. A look-up by hand costs 3 (search, both streams'
  changes): ten an hour, when all else has used up all it may.
- race_day 0.97 (950), delta 0.95 (931): the 19 between them let hot races go on when an operator's
  `sync` has run into its ceiling. Small, because deltas are kept small by planning, not by refusing.
- reconcile 0.70 (686): whatever reconciliation and backfill do, 264 calls stay for race day: one
  hot race every 15 s or four every minute. Its own 0.30 (294) is a full listing of the largest
  account's 231 future races in an hour, and keeps it from taking what a backfill waits for.
- backfill 0.50 (490): nobody waits for it, and half an hour's calls are still 1.2 million rows.
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """
    How a credential stands with the vendor.

    Args:
        limit: Calls an hour, as configured.
        lowered_to: The limit in use right after the last throttle answer; None: there was none.
        lowered_at: When an answer last lowered it.
        throttled_at: When the last throttle answer came, from which it recovers.
        blocked_until: No call before.
        asked_until: The end of the pause the vendor asked for, where that is longer than is believed.
        confirmed: How often a careful call was refused, each time with a longer pause than is believed.
        careful_until: A careful call is being made, until then at the latest.
    """

    limit: int
    lowered_to: int | None = None
    lowered_at: datetime | None = None
    throttled_at: datetime | None = None
    blocked_until: datetime | None = None
    asked_until: datetime | None = None
    confirmed: int = 0
    careful_until: datetime | None = None

    def at(self, now: datetime) -> Standing:
        """
        Return how it stands at a moment.

        What it was told after that moment was stored while the clock was ahead. It would block calls, or
        keep the limit low, until that time has come: it is taken as over.
        """
        if self.throttled_at is None or self.throttled_at <= now + SLACK:
            return self
        return Standing(self.limit)


@dataclass(frozen=True, slots=True)
class CallerStanding:
    """How a caller stands: the credential throttled last, when, and until when all are blocked."""

    throttled_credential_id: int | None = None
    throttled_at: datetime | None = None
    blocked_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Spent:
    """The calls that began in one minute: of all classes, and of the one that asks."""

    minute: datetime
    total: int
    own: int


@dataclass(frozen=True, slots=True)
class Budget:
    """
    A credential's budget at a moment.

    Args:
        limit_ahead: What the limit in use is on average in the hour to come, for plans.
        blocked_until: No call before, by the clock that counts; None: calls may be made at this moment.
        spent_by_urgency: Calls of the last hour; every class is in it.
        spent_since_throttle: Those since the vendor last asked for fewer; None: the limit is not lowered.
        asked_until: The end of the pause the vendor asked for, where it is longer than is believed.
    """

    limit: int
    limit_in_use: int
    limit_ahead: int
    blocked_until: datetime | None = None
    blocked_reason: str | None = None
    spent_by_urgency: Mapping[Urgency, int] = field(default_factory=lambda: dict.fromkeys(Urgency, 0))
    spent_since_throttle: Mapping[Urgency, int] | None = None
    asked_until: datetime | None = None

    @property
    def spent_total(self) -> int:
        return sum(self.spent_by_urgency.values())

    def with_spent(self, more: Mapping[Urgency, int]) -> Budget:
        """Return the budget as it is once these calls are made as well."""
        lately = self.spent_since_throttle
        return replace(
            self,
            spent_by_urgency={each: self.spent_by_urgency[each] + more.get(each, 0) for each in Urgency},
            spent_since_throttle=None
            if lately is None
            else {each: lately[each] + more.get(each, 0) for each in Urgency},
        )


def allowed(limit: int) -> int:
    """Return the calls made of a limit: all but the margin, at least one."""
    return max(1, int(limit * (1 - MARGIN)))


def ceilings(limit: int, urgency: Urgency) -> tuple[int, int]:
    """Return up to how many calls of all classes, and of its own, the class may go; at least one."""
    ceiling, calls = CEILINGS[urgency], allowed(limit)
    return max(1, int(calls * ceiling.total)), max(1, int(calls * ceiling.own))


def room(budget: Budget, urgency: Urgency) -> int:
    """Return how many calls of the class may be made at the budget's moment; 0 while blocked."""
    if budget.blocked_until is not None:
        return 0
    left = _left(budget.limit, budget.spent_by_urgency, urgency)
    if budget.spent_since_throttle is not None:
        left = min(left, _left(budget.limit_in_use, budget.spent_since_throttle, urgency))
    return max(0, left)


@dataclass(frozen=True, slots=True)
class Stop:
    """
    What stops a class: how many calls count for it, and up to how many may be made.

    `lowered`: they are those since the vendor last asked for fewer; else those of the last hour.
    """

    made: int
    most: int
    lowered: bool


def stops_at(budget: Budget, urgency: Urgency) -> Stop:
    """Return what stops the class, or will first: the calls of all classes against one limit or the other."""
    found = Stop(budget.spent_total, ceilings(budget.limit, urgency)[0], lowered=False)
    if budget.spent_since_throttle is None:
        return found
    lately, most = sum(budget.spent_since_throttle.values()), ceilings(budget.limit_in_use, urgency)[0]
    return Stop(lately, most, lowered=True) if most - lately < found.most - found.made else found


def limit_in_use(standing: Standing, *, now: datetime) -> int:
    """Return the calls an hour at present: as configured, or less for a while after a throttle."""
    if standing.lowered_to is None or standing.throttled_at is None:
        return standing.limit
    lowered_to = min(standing.limit, max(_floor(standing.limit), standing.lowered_to))
    passed = min(1.0, max(0.0, (now - standing.throttled_at) / RECOVERY))
    return lowered_to + int((standing.limit - lowered_to) * passed)


def limit_ahead(standing: Standing, *, now: datetime) -> int:
    """Return what the limit in use is on average in the hour to come, if it goes on recovering."""
    return (limit_in_use(standing, now=now) + limit_in_use(standing, now=now + timedelta(hours=1))) // 2


def lowered_since(standing: Standing, *, now: datetime) -> datetime | None:
    """Return the first minute whose calls count for a lowered limit; None: it is not lowered."""
    if standing.throttled_at is None or limit_in_use(standing, now=now) >= standing.limit:
        return None
    return standing.throttled_at.replace(second=0, microsecond=0)


def after_throttle(standing: Standing, *, now: datetime, seconds: float) -> Standing:
    """
    Return how a credential stands after a throttle answer.

    Args:
        seconds: How long the vendor wants nothing to be asked, which is believed so far and no further; a
            block that is longer already stays.
    """
    confirms = standing.asked_until is not None and not is_blocked(standing, now=now)
    confirmed = standing.confirmed + 1 if confirms else standing.confirmed
    longest = believed(confirmed)
    asked_until: datetime | None = now + timedelta(seconds=min(seconds, _LONGEST_ASKED))
    if seconds <= longest.total_seconds():
        # The answer to a careful call is the newest word; others were asked before.
        asked_until, confirmed = (None, 0) if confirms else (standing.asked_until, standing.confirmed)
    limit = limit_in_use(standing, now=now)
    lowered_at = standing.lowered_at
    # Either way: who waited for a lock read the clock before who held it.
    if lowered_at is None or abs(now - lowered_at) >= LOWER_EVERY:
        limit, lowered_at = max(_floor(standing.limit), round(limit * LOWER_BY)), now
    return replace(
        standing,
        lowered_to=limit,
        lowered_at=lowered_at,
        throttled_at=now,
        blocked_until=_later(standing.blocked_until, now, seconds, longest),
        asked_until=asked_until,
        confirmed=confirmed,
        careful_until=None,
    )


def believed(confirmed: int) -> timedelta:
    """Return how long a pause may be, refused so many times by careful calls."""
    return min(MOST_BELIEVED, BELIEVED * (1 << min(confirmed, 8)))


def is_blocked(standing: Standing, *, now: datetime) -> bool:
    """Say whether no call may be made."""
    return standing.blocked_until is not None and standing.blocked_until > now


def is_careful(standing: Standing, *, now: datetime) -> bool:
    """Say whether one call may be made, and the others wait for its answer."""
    return (
        standing.asked_until is not None and standing.asked_until > now and not is_blocked(standing, now=now)
    )


def caller_after_throttle(
    standing: CallerStanding, *, credential_id: int, now: datetime, seconds: float
) -> CallerStanding:
    """Return how a caller stands after one of its credentials was throttled; see SAME_CAUSE."""
    blocked_until = standing.blocked_until
    if standing.throttled_at is not None and standing.throttled_at > now + SLACK:
        standing, blocked_until = CallerStanding(), None  # see Standing.at
    if (
        standing.throttled_at is not None
        and standing.throttled_credential_id != credential_id
        and abs(now - standing.throttled_at) <= SAME_CAUSE
    ):
        blocked_until = _later(blocked_until, now, seconds, LONGEST_CALLER_BLOCK)
    return CallerStanding(credential_id, now, blocked_until)


def seconds_until_room(
    standing: Standing, spent: Iterable[Spent], urgency: Urgency, *, now: datetime
) -> float:
    """
    Return after how long the class may make one more call, if nobody makes one meanwhile.

    Whole minutes fall out of the hour at the begin of a minute, and a lowered limit recovers,
    so each minute to come is looked at. Blocks are not.
    """
    counted = list(spent)
    begun = now.replace(second=0, microsecond=0)
    for minutes in range(WINDOW_MINUTES + 1):
        at = max(now, begun + minutes * MINUTE)
        left = [each for each in counted if each.minute + WINDOW_MINUTES * MINUTE > at]
        if _has_room(standing.limit, left, urgency):
            since = lowered_since(standing, now=at)
            if since is None:
                return (at - now).total_seconds()
            lately = [each for each in left if each.minute >= since]
            if _has_room(limit_in_use(standing, now=at), lately, urgency):
                return (at - now).total_seconds()
    # Only a clock set back leaves counters of minutes to come.
    return (begun + WINDOW_MINUTES * MINUTE - now).total_seconds()


def _has_room(limit: int, spent: Iterable[Spent], urgency: Urgency) -> bool:
    most, most_own = ceilings(limit, urgency)
    total = own = 0
    for each in spent:
        total, own = total + each.total, own + each.own
    return total < most and own < most_own


def _left(limit: int, spent: Mapping[Urgency, int], urgency: Urgency) -> int:
    most, most_own = ceilings(limit, urgency)
    return min(most - sum(spent.values()), most_own - spent[urgency])


def _floor(limit: int) -> int:
    return max(1, int(limit * FLOOR))


def _later(until: datetime | None, now: datetime, seconds: float, longest: timedelta) -> datetime:
    asked = now + timedelta(seconds=max(0.0, min(seconds, longest.total_seconds())))
    return asked if until is None else max(until, asked)
