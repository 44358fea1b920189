"""
What to poll how often, so that a credential's calls of an hour buy the most freshness.

The owner's tiers are the slowest a race may be polled, and hold whenever the calls suffice.
What is left over goes to the hot races; when the calls do not suffice, the least urgent races
wait first, and all of a tier alike. A plan never spends more than is usable.
Pure: no I/O and no clock. Every datetime is aware and in UTC.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from operator import itemgetter

from bibwire.domain.pace import (
    FLOOR_SECONDS,
    PEOPLE_RESERVE,
    SWEEPS_A_REMOVED,
    calls_of,
    needed_calls,
    spread,
    stretched,
    sufficient_calls,
    usable_calls,
)
from bibwire.domain.reasons import reason
from bibwire.domain.tiers import (
    EventTimes,
    Tier,
    gun_of,
    longer_because,
    next_boundary,
    tier_changes,
    tier_of,
)

__all__ = [
    "FLOOR_SECONDS",
    "FORESIGHT",
    "PEOPLE_RESERVE",
    "EventTimes",
    "PartnerPlan",
    "Poll",
    "ScopeFacts",
    "Shortage",
    "Tier",
    "foresee",
    "next_boundary",
    "plan",
    "probe_seconds",
    "rate_after",
    "tier_of",
    "wait_after_failure",
    "wait_after_poll",
]

# No check-in hands out bibs faster (26,800 runners: 60 to 100 a minute at the peak). What is
# more was a bulk, over when it is seen, and must not draw the calls away for an hour.
MOST_CHANGES_PER_MINUTE = 100.0
RATE_HALF_LIFE = timedelta(minutes=10)
BULK_CHANGES = 50
RETRY_SECONDS = 5.0
PROBE_SECONDS = 10.0
# Of three calls one is spent on trying.
PROBE_SHARE = 3
# How far ahead a shortage is foreseen: time enough to ask the vendor for more calls.
FORESIGHT = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class ScopeFacts:
    """
    What the planner knows of a race.

    Args:
        changes_per_minute: As `rate_after` has it at the time of the plan.
        failures: Polls that failed since the last that succeeded.
        loaded: Whether its first full load is done; it is planned alike.
        calls: What one poll takes: more than one where lists of its events are not believed.
        news: Whether an event of it waits for its own first load.
    """

    race_id: int
    name: str
    events: tuple[EventTimes, ...]
    changes_per_minute: float = 0.0
    failures: int = 0
    loaded: bool = True
    calls: int = 1
    news: bool = False


@dataclass(frozen=True, slots=True)
class Poll:
    """
    How often a race is polled.

    Args:
        every_seconds: Of its participants.
        removed_every_seconds: Of its removed list.
        calls_per_hour: Of both together.
        reason: In words, for the operator.
        at_once: Whether it is polled now, whenever it was due: an event of it was never loaded.
    """

    race_id: int
    tier: Tier
    every_seconds: float
    removed_every_seconds: float
    calls_per_hour: float
    reason: str
    at_once: bool = False


@dataclass(frozen=True, slots=True)
class PartnerPlan:
    """
    What is polled under one credential.

    Args:
        polls: The most urgent first; closed races have none.
        usable_calls_per_hour: What polls may use.
        planned_calls_per_hour: What these polls use.
        needed_calls_per_hour: What the tiers take, and nothing faster.
        next_plan_at: When the first race passes into another tier; None: none will.
    """

    polls: tuple[Poll, ...]
    usable_calls_per_hour: float
    planned_calls_per_hour: float
    needed_calls_per_hour: float
    next_plan_at: datetime | None

    @property
    def short(self) -> bool:
        """Whether the calls do not suffice for the tiers."""
        return self.needed_calls_per_hour > self.usable_calls_per_hour


@dataclass(frozen=True, slots=True)
class Shortage:
    """
    A time in which the tiers cannot be held.

    Args:
        ends_at: The end of what was looked at, if it goes on beyond.
        needed_calls_per_hour: What the tiers take when they take most.
        usable_calls_per_hour: What polls may use then.
        race_ids: The races that are hot in it, in the order in which they become so.
    """

    begins_at: datetime
    ends_at: datetime
    needed_calls_per_hour: float
    usable_calls_per_hour: float
    race_ids: tuple[int, ...]

    @property
    def sufficient_calls_per_hour(self) -> int:
        """So many calls an hour for the credential would be enough."""
        return math.ceil(sufficient_calls(self.needed_calls_per_hour, hot=len(self.race_ids)))


def plan(scopes: Iterable[ScopeFacts], *, calls_per_hour: float, now: datetime) -> PartnerPlan:
    """
    Plan the polls of all races under one credential.

    Args:
        calls_per_hour: Calls the credential may make in any rolling hour; above zero.

    Raises:
        InvariantBroken: If there are no calls to plan with.
    """
    live = [(scope, tier) for scope in scopes if (tier := tier_of(scope.events, now)) is not None]
    calls: Counter[Tier | None] = Counter()
    for scope, tier in live:
        calls[tier] += scope.calls
    usable = usable_calls(calls_per_hour, Counter(tier for _, tier in live))
    needed = needed_calls(calls)
    paces = stretched(calls, usable) if needed > usable else {tier: tier.seconds for tier in Tier}
    # A race that fails keeps its tier, since more calls would fail too.
    eager = {
        scope.race_id: scope.changes_per_minute
        for scope, tier in live
        if tier is Tier.HOT and not scope.failures
    }
    costs = {scope.race_id: scope.calls for scope, _ in live}
    hot = spread(eager, usable - needed, costs) if usable > needed else {}
    polls = []
    for scope, tier in live:
        every = hot.get(scope.race_id, paces[tier])
        poll = poll_of(scope, tier, every, calls_per_hour=calls_per_hour, now=now)
        gun = gun_of(scope.events, tier, now)
        distance = math.inf if gun is None else abs((gun - now).total_seconds())
        polls.append((tier.seconds, every, distance, scope.race_id, poll))
    polls.sort(key=itemgetter(0, 1, 2, 3))
    boundaries = [next_boundary(scope.events, now) for scope, _ in live]
    return PartnerPlan(
        polls=tuple(poll for *_, poll in polls),
        usable_calls_per_hour=usable,
        planned_calls_per_hour=math.fsum(poll.calls_per_hour for *_, poll in polls),
        needed_calls_per_hour=needed,
        next_plan_at=min((instant for instant in boundaries if instant is not None), default=None),
    )


def poll_of(
    scope: ScopeFacts, tier: Tier, every_seconds: float, *, calls_per_hour: float, now: datetime
) -> Poll:
    """Return what polling a race in that tier at that pace comes to, and why, in words."""
    gun = gun_of(scope.events, tier, now)
    calls = calls_of(tier, every_seconds) * scope.calls
    return Poll(
        race_id=scope.race_id,
        tier=tier,
        every_seconds=every_seconds,
        removed_every_seconds=every_seconds * SWEEPS_A_REMOVED[tier],
        calls_per_hour=calls,
        reason=reason(
            tier,
            every_seconds=every_seconds,
            to_gun=None if gun is None else gun - now,
            because=longer_because(scope.events, now),
            changes_per_minute=scope.changes_per_minute,
            calls=calls,
            calls_a_poll=scope.calls,
            of_calls=calls_per_hour,
            failures=scope.failures,
            loaded=scope.loaded,
        ),
        # One that fails waits for its turn to fail again.
        at_once=scope.news and not scope.failures,
    )


def foresee(
    scopes: Iterable[ScopeFacts],
    *,
    calls_per_hour: float,
    now: datetime,
    horizon: timedelta = FORESIGHT,
) -> Shortage | None:
    """
    Return the first time from `now` to the horizon in which the tiers cannot be held.

    Arguments and errors as `plan`.
    """
    until = now + horizon
    scopes = list(scopes)
    cost = {scope.race_id: scope.calls for scope in scopes}
    counts: Counter[Tier | None] = Counter()
    calls: Counter[Tier | None] = Counter()
    hot: dict[int, None] = {}
    begins_at: datetime | None = None
    most = (0.0, 0.0)
    affected: dict[int, None] = {}
    for instant, changes in groupby(_changes_until(scopes, now, until), key=itemgetter(0)):
        for _, race_id, before, after in changes:
            counts[before] -= 1
            counts[after] += 1
            calls[before] -= cost[race_id]
            calls[after] += cost[race_id]
            if after is Tier.HOT:
                hot[race_id] = None
                affected[race_id] = None
            elif before is Tier.HOT:
                hot.pop(race_id, None)
        needed, usable = needed_calls(calls), usable_calls(calls_per_hour, counts)
        if needed > usable:
            if begins_at is None:
                begins_at, affected = instant, dict(hot)
            most = max(most, (needed, usable))
        elif begins_at is not None:
            return Shortage(begins_at, instant, *most, tuple(affected))
    return None if begins_at is None else Shortage(begins_at, until, *most, tuple(affected))


def rate_after(rate: float, rate_at: datetime | None, changes: int, now: datetime) -> float:
    """
    Return the changes a minute, older ones forgotten by half in ten minutes.

    The changes are taken as spread evenly over the time since `rate_at`: after a long gap the
    rate is their mean, and not that of a burst. Never above `MOST_CHANGES_PER_MINUTE`.

    Args:
        rate: As it was at `rate_at`.
        rate_at: None: nothing was seen before; the changes count as those of one half-life.
        changes: Seen since.
    """
    half_life = RATE_HALF_LIFE.total_seconds() / 60
    if rate_at is None:
        return min(changes / half_life, MOST_CHANGES_PER_MINUTE)
    # A clock set back is no time passed.
    minutes = max((now - rate_at).total_seconds() / 60, 0.0)
    decay = minutes * math.log(2) / half_life
    # The limit of (1 - e^-x) / x at 0 is 1: changes of one instant.
    spread = -math.expm1(-decay) / decay if decay else 1.0
    seen = changes * math.log(2) / half_life * spread
    return min(rate * math.exp(-decay) + seen, MOST_CHANGES_PER_MINUTE)


def wait_after_poll(poll_every: float, changes: int) -> float:
    """Return the seconds to the next poll. After a bulk change it comes soon: more is under way."""
    return min(poll_every, 2 * FLOOR_SECONDS) if changes >= BULK_CHANGES else poll_every


def wait_after_failure(
    failures: int, tier_seconds: float, *, spread: float = 0.0, longest: float = math.inf
) -> float:
    """
    Return the seconds to the next try: 5 doubled with each failure, never more than the tier.

    Args:
        failures: In a row, this one counted.
        spread: 0 to 1, another for each scope: up to twice as long, so that scopes which failed
            together do not come back together.
        longest: Of a hot scope: `probe_seconds`.
    """
    # So many doublings are longer than any tier, and still a number.
    doublings = min(max(failures - 1, 0), 32)
    return float(min(RETRY_SECONDS * 2**doublings * (1 + spread), tier_seconds, longest))


def probe_seconds(failing: int, calls_per_hour: float) -> float:
    """
    Return how long a hot scope waits at most between two tries while it fails.

    One of those that fail is tried every ten seconds, and the first that succeeds calls the others. No
    more than a third of the calls is spent on it: when the outage ends there have to be some.

    Args:
        failing: Hot scopes of the credential that fail, this one counted.
        calls_per_hour: Of the credential.
    """
    return max(1, failing) * max(PROBE_SECONDS, PROBE_SHARE * 3600 / max(calls_per_hour, 1.0))


def _changes_until(
    scopes: Iterable[ScopeFacts], now: datetime, until: datetime
) -> list[tuple[datetime, int, Tier | None, Tier | None]]:
    """Return each race's tier now, as a change from none, and its changes before `until`, in order."""
    found: list[tuple[datetime, int, Tier | None, Tier | None]] = []
    for scope in scopes:
        before = tier_of(scope.events, now)
        found.append((now, scope.race_id, None, before))
        for instant, after in tier_changes(scope.events, now):
            if instant >= until:
                break
            found.append((instant, scope.race_id, before, after))
            before = after
    return sorted(found, key=itemgetter(0))
