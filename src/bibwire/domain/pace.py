"""
The arithmetic of calls: what the tiers take, what may be used, and who gets more or less than that.

A poll of a stream is one call, since between two polls no more changes than a page holds, save
after a bulk; or one an event, where lists of events are not believed. Pure: no I/O and no clock.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from bibwire.domain.errors import InvariantBroken
from bibwire.domain.tiers import Tier

FLOOR_SECONDS = 5.0
PEOPLE_RESERVE = 0.15
# Calls of an hour that no poll may use, for what the schedule asks besides: the list of coming races
# four times an hour, and for hot races something of their own now and then. The few pages of all
# races, twice a day, have room in what is kept for people.
DISCOVERY_CALLS = 4.0
RECORD_CALLS = 1.0
# What is to come is listed so often where the calls suffice, and never for more than a twentieth of them.
DISCOVERY_SECONDS = 900.0
DISCOVERY_SHARE = 0.05
# Under a limit lowered to a few calls, or with hot races in masses, that is less.
HOUSEKEEPING_SHARE = 0.1

# One poll of the removed list to so many of the participants; a far race's once a day.
SWEEPS_A_REMOVED: Mapping[Tier, int] = {Tier.HOT: 5, Tier.NEAR: 4, Tier.AFTERGLOW: 6, Tier.FAR: 6}
# How far a shortage stretches a tier, in seconds, before it reaches the next, more urgent one.
# Hot races end where near ones do: so that none is polled less than one less urgent, all are
# stretched together from there on, without limit.
STRETCHED_FIRST: tuple[tuple[Tier, float], ...] = (
    (Tier.FAR, 86_400.0),
    (Tier.AFTERGLOW, 21_600.0),
    (Tier.NEAR, 3_600.0),
    (Tier.HOT, 3_600.0),
)

# A hot race that shows no change counts as one with a change in 20 minutes: beside one with
# 14 a minute it gets a seventeenth of the calls, beside its like an equal part.
QUIET_CHANGES_PER_MINUTE = 0.05
HOUR = 3_600.0

# Races by tier, or the calls that one poll of each of them takes; those that are closed are under None.
Counts = Mapping[Tier | None, int]


def calls_of(tier: Tier, every: float) -> float:
    """Return the calls an hour of a race whose participants are polled every so many seconds."""
    return HOUR / every * (1 + 1 / SWEEPS_A_REMOVED[tier])


def needed_calls(counts: Counts) -> float:
    """Return the calls an hour that the tiers take. `counts`: calls a poll."""
    return math.fsum(counts[tier] * calls_of(tier, tier.seconds) for tier in Tier)


def usable_calls(calls_per_hour: float, counts: Counts) -> float:
    """
    Return the calls an hour that polls may use: without what people and housekeeping need.

    `counts`: races.

    Raises:
        InvariantBroken: If there are no calls to plan with.
    """
    if not calls_per_hour > 0:
        raise InvariantBroken(f"there are no calls to plan with: {calls_per_hour} an hour")
    housekeeping = DISCOVERY_CALLS + RECORD_CALLS * counts[Tier.HOT]
    return calls_per_hour * (1 - PEOPLE_RESERVE) - min(housekeeping, calls_per_hour * HOUSEKEEPING_SHARE)


def discovery_seconds(calls_per_hour: float) -> float:
    """Return the seconds between two readings of a partner's list of coming races, a call each."""
    return max(DISCOVERY_SECONDS, HOUR / max(calls_per_hour * DISCOVERY_SHARE, 0.25))


def sufficient_calls(needed: float, *, hot: int) -> float:
    """Return how many calls an hour a credential must have, so that `needed` of them are usable."""
    housekeeping = DISCOVERY_CALLS + RECORD_CALLS * hot
    # `usable_calls` takes off the lesser of the two.
    return min(
        (needed + housekeeping) / (1 - PEOPLE_RESERVE), needed / (1 - PEOPLE_RESERVE - HOUSEKEEPING_SHARE)
    )


def stretched(counts: Counts, usable: float) -> dict[Tier, float]:
    """
    Return the seconds between polls of each tier, when the calls do not suffice for all.

    `counts`: calls a poll.
    """
    every = {tier: tier.seconds for tier in Tier}
    for tier, slowest in STRETCHED_FIRST:
        others = math.fsum(
            counts[other] * calls_of(other, every[other]) for other in Tier if other is not tier
        )
        if counts[tier] and others + counts[tier] * calls_of(tier, slowest) <= usable:
            every[tier] = counts[tier] * calls_of(tier, 1.0) / (usable - others)
            return every
        every[tier] = slowest
    spent = math.fsum(counts[tier] * calls_of(tier, every[tier]) for tier in Tier)
    return {tier: seconds * spent / usable for tier, seconds in every.items()}


def spread(rates: Mapping[int, float], spare: float, calls: Mapping[int, int]) -> dict[int, float]:
    """
    Return the seconds between polls of hot races that share what calls an hour are left over.

    The mean age of a change is least when polls go in proportion to the square root of the
    changes a minute to a call (domain.md 6.3). Between floor and tier: what a race at its floor
    does not use goes to the others.

    Args:
        rates: Changes a minute by race id.
        spare: Calls an hour beyond those of the tier.
        calls: What one poll takes, by race id.
    """
    slowest, fastest = HOUR / Tier.HOT.seconds, HOUR / FLOOR_SECONDS
    weights = {
        race_id: math.sqrt(max(rate, QUIET_CHANGES_PER_MINUTE) / calls[race_id])
        for race_id, rate in rates.items()
    }
    shares = [(weight, calls[race_id]) for race_id, weight in weights.items()]
    total = sum(cost for _, cost in shares) * slowest + spare / calls_of(Tier.HOT, HOUR)
    level = _level(shares, total, slowest, fastest)
    return {race_id: HOUR / min(max(level * weight, slowest), fastest) for race_id, weight in weights.items()}


def _level(shares: Collection[tuple[float, int]], total: float, least: float, most: float) -> float:
    """
    Return the factor at which weights, each product held between `least` and `most`, cost `total`.

    The sum rises with the factor, in straight lines that bend where a product leaves `least`
    or reaches `most`: walk from bend to bend. Beyond the last bend all are at `most`.

    Args:
        shares: Weight and cost of each.
    """
    bends = sorted(
        [(least / weight, weight * cost) for weight, cost in shares]
        + [(most / weight, -weight * cost) for weight, cost in shares]
    )
    level, reached, slope = 0.0, least * sum(cost for _, cost in shares), 0.0
    for bend, change in bends:
        if reached + slope * (bend - level) > total:
            return level + (total - reached) / slope
        reached += slope * (bend - level)
        level, slope = bend, slope + change
    return level
