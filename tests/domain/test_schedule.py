"""The calls of an hour hold the owner's tiers whenever they can, and never more is planned than there is."""

from __future__ import annotations

import math
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bibwire.domain import schedule
from bibwire.domain.errors import InvariantBroken
from bibwire.domain.schedule import (
    FLOOR_SECONDS,
    PEOPLE_RESERVE,
    EventTimes,
    PartnerPlan,
    ScopeFacts,
    Tier,
    foresee,
    next_boundary,
)

NOON = datetime(2026, 9, 12, 16, 0, tzinfo=UTC)
TICK = timedelta(microseconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
HOT, NEAR, AFTERGLOW, FAR = 2 * HOUR, 10 * HOUR, -3 * HOUR, 12 * DAY


def race(
    race_id: int,
    *leads: timedelta | None,
    rate: float = 0.0,
    failures: int = 0,
    loaded: bool = True,
    calls: int = 1,
) -> ScopeFacts:
    """A race whose events start so long after noon; None: no start is known."""
    events = tuple(EventTimes(None if lead is None else NOON + lead, None) for lead in leads)
    return ScopeFacts(race_id, f"Race {race_id}", events, rate, failures, loaded, calls)


def races(first: int, count: int, lead: timedelta) -> list[ScopeFacts]:
    return [race(first + number, lead) for number in range(count)]


def plan(scopes: list[ScopeFacts], calls: float = 1000, now: datetime = NOON) -> PartnerPlan:
    return schedule.plan(scopes, calls_per_hour=calls, now=now)


def every(planned: PartnerPlan) -> dict[int, float]:
    return {poll.race_id: poll.every_seconds for poll in planned.polls}


def test_each_tier_has_its_pace_and_reads_the_removed_list_less_often() -> None:
    planned = plan([race(1, None), race(2, AFTERGLOW), race(3, NEAR), race(4, FAR), *races(10, 10, HOT)])

    paces = {poll.tier: (poll.every_seconds, poll.removed_every_seconds) for poll in planned.polls[9:]}
    assert paces[Tier.NEAR] == (900, 3600)
    assert paces[Tier.AFTERGLOW] == (3600, 6 * 3600)
    assert paces[Tier.FAR] == (14_400, 86_400)
    assert paces[Tier.HOT][1] == 5 * paces[Tier.HOT][0]
    assert [poll.race_id for poll in planned.polls] == [*range(10, 20), 3, 2, 4, 1]


def test_a_closed_race_is_not_polled() -> None:
    planned = plan([race(1, -8 * DAY), race(2)])

    assert (planned.polls, planned.planned_calls_per_hour, planned.next_plan_at) == ((), 0, None)


def test_the_plan_is_made_anew_when_the_first_race_changes_its_tier() -> None:
    assert plan([race(1, 30 * HOUR), race(2, 26 * HOUR), race(3, None)]).next_plan_at == NOON + 2 * HOUR


@pytest.mark.parametrize(
    ("hot", "in_the_table", "seconds"), [(1, 6.3, 5.12), (2, 11.9, 10.25), (3, 17.0, 15.39), (6, 29.6, 30.86)]
)
def test_hot_races_of_a_weekend_are_polled_as_the_arithmetic_says(
    hot: int, in_the_table: float, seconds: float
) -> None:
    """
    Domain.md 6.2, six races at 850 usable calls: there the others are polled every 2 min, here they are far.

    With all six hot nothing is gained from the others, and ten calls are kept for housekeeping.
    """
    planned = plan(races(1, hot, HOT) + races(50, 6 - hot, FAR))

    assert planned.polls[0].every_seconds == pytest.approx(seconds, abs=0.01)
    assert planned.polls[0].every_seconds < in_the_table * 1.05


def test_calls_go_by_the_square_root_of_the_changes() -> None:
    paces = every(plan([race(1, HOT, rate=16), race(2, HOT, rate=4), race(3, HOT, rate=1)]))

    assert paces[2] / paces[1] == pytest.approx(2)
    assert paces[3] / paces[1] == pytest.approx(4)


def test_what_a_race_at_its_floor_or_ceiling_does_not_use_goes_to_the_others() -> None:
    # By the square roots alone it would be every 3, 34 and 150 seconds.
    planned = plan([race(1, HOT, rate=100), race(2, HOT, rate=1), *races(3, 3, HOT)], calls=1600)

    paces = every(planned)
    assert paces == {1: FLOOR_SECONDS, 2: pytest.approx(15.94, abs=0.01), 3: 60, 4: 60, 5: 60}
    assert planned.planned_calls_per_hour == pytest.approx(planned.usable_calls_per_hour)


def test_a_quiet_hot_race_gains_as_well() -> None:
    assert every(plan([race(1, HOT), race(2, HOT, rate=0.05)]))[1] == pytest.approx(10.24, abs=0.01)


@pytest.mark.parametrize("calls", [100_000, math.inf])
def test_with_calls_enough_every_hot_race_is_at_the_floor(calls: float) -> None:
    assert set(every(plan([race(number, HOT, rate=number) for number in range(30)], calls)).values()) == {5.0}


def test_a_race_that_fails_keeps_its_tier_and_leaves_the_rest_to_others() -> None:
    paces = every(plan([race(1, HOT, rate=50, failures=1), race(2, HOT)]))

    assert paces == {1: 60.0, 2: pytest.approx(5.60, abs=0.01)}


def test_a_quiet_day_costs_at_most_four_tenths_of_the_original() -> None:
    """231 races to come, none within a day, of 13 partners."""
    partners = [
        [race(number, FAR + number * HOUR) for number in range(231) if number % 13 == partner]
        for partner in range(13)
    ]
    plans = [plan(scopes) for scopes in partners]

    polls = 24 * sum(planned.planned_calls_per_hour for planned in plans)
    discoveries = 2 * len(partners)
    assert polls == pytest.approx(231 * (6 + 1))
    assert polls + discoveries <= 0.4 * 4410
    assert not any(planned.short for planned in plans)


def test_thirty_hot_races_of_thirteen_partners_keep_one_minute() -> None:
    for partner in range(13):
        hot = [race(number, HOT, rate=number) for number in range(30) if number % 13 == partner]
        planned = plan(hot + races(100, 15, FAR) + races(200, 5, NEAR) + races(300, 5, AFTERGLOW))

        assert not planned.short
        assert max(poll.every_seconds for poll in planned.polls if poll.tier is Tier.HOT) <= 60
        assert foresee(hot, calls_per_hour=1000, now=NOON) is None


@pytest.mark.parametrize(
    ("hot", "near", "after", "far", "stretched"),
    [
        (11, 0, 0, 200, {Tier.FAR}),
        (11, 5, 20, 20, {Tier.FAR, Tier.AFTERGLOW}),
        (11, 15, 10, 20, {Tier.FAR, Tier.AFTERGLOW, Tier.NEAR}),
        (15, 15, 20, 200, {Tier.FAR, Tier.AFTERGLOW, Tier.NEAR, Tier.HOT}),
    ],
)
def test_in_a_shortage_the_less_urgent_wait_first(
    hot: int, near: int, after: int, far: int, stretched: set[Tier]
) -> None:
    limits = {Tier.FAR: 86_400, Tier.AFTERGLOW: 21_600, Tier.NEAR: 3600, Tier.HOT: 3600}
    planned = plan(
        races(1, hot, HOT) + races(100, near, NEAR) + races(200, after, AFTERGLOW) + races(300, far, FAR)
    )

    assert planned.short
    assert {poll.tier for poll in planned.polls if poll.every_seconds > poll.tier.seconds} == stretched
    last = min(stretched, key=lambda tier: tier.seconds)
    for poll in planned.polls:
        assert poll.every_seconds <= limits[poll.tier]
        if poll.tier in stretched and poll.tier is not last:
            assert poll.every_seconds == limits[poll.tier]
    assert planned.planned_calls_per_hour == pytest.approx(planned.usable_calls_per_hour)


def test_a_hot_race_is_never_polled_less_than_one_less_urgent() -> None:
    """Not even when the vendor throttles a credential to almost nothing."""
    planned = plan(races(1, 40, HOT) + races(100, 10, NEAR) + races(200, 200, FAR), calls=20)

    paces = [poll.every_seconds for poll in planned.polls]
    assert paces == sorted(paces)
    assert paces[0] > 3600
    assert planned.planned_calls_per_hour <= planned.usable_calls_per_hour * (1 + 1e-9)


def test_without_any_calls_there_is_no_plan() -> None:
    with pytest.raises(InvariantBroken):
        plan([race(1, HOT)], calls=0)


def test_a_shortage_is_told_before_it_comes() -> None:
    saturday = [race(number, 3 * DAY) for number in range(1, 9)]
    later = [race(number, 3 * DAY + 2 * HOUR) for number in range(20, 24)]

    shortage = foresee(saturday + later + [race(99, HOT)], calls_per_hour=1000, now=NOON)

    assert shortage is not None
    assert (shortage.begins_at, shortage.ends_at) == (NOON + 3 * DAY - 2 * HOUR, NOON + 3 * DAY + HOUR)
    assert shortage.needed_calls_per_hour == pytest.approx(12 * 72 + 7 / 6)
    assert shortage.usable_calls_per_hour == 1000 * (1 - PEOPLE_RESERVE) - 4 - 12
    assert shortage.race_ids == (*range(1, 9), *range(20, 24))


def test_a_shortage_that_has_begun_begins_now_and_one_that_goes_on_ends_with_what_was_looked_at() -> None:
    shortage = foresee(races(1, 5000, 40 * DAY), calls_per_hour=1000, now=NOON, horizon=DAY)

    assert shortage is not None
    assert (shortage.begins_at, shortage.ends_at, shortage.race_ids) == (NOON, NOON + DAY, ())


def test_each_poll_tells_its_reason() -> None:
    planned = plan(
        [race(1, 42 * MINUTE, rate=14.2), race(2, None, loaded=False), race(3, -9 * HOUR, failures=2)]
    )

    assert [poll.reason for poll in planned.polls] == [
        "every 5.1 s: gun in 42 min, 14 changes/min, 844 calls/h of 1,000",
        "hourly: gun was 9 h ago, failed 2 times in a row",
        "every 4 h: no start time known, not loaded yet",
    ]


LEADS = st.one_of(
    st.none(),
    st.integers(-9 * 24 * 60, 9 * 24 * 60).map(lambda minutes: minutes * MINUTE),
    st.integers(-60, 240).map(lambda minutes: minutes * MINUTE),
    st.sampled_from([-7 * DAY, -HOUR, 4 * HOUR, DAY]),
)
SCOPES = st.lists(
    st.tuples(
        st.lists(LEADS, max_size=3),
        st.one_of(st.just(0.0), st.floats(0, 100)),
        st.sampled_from([0, 0, 0, 1, 9]),
        st.sampled_from([1, 1, 1, 2, 7]),
    ),
    max_size=40,
).map(
    lambda scopes: [
        race(number, *leads, rate=rate, failures=failures, calls=calls)
        for number, (leads, rate, failures, calls) in enumerate(scopes)
    ]
)
CALLS = st.one_of(st.floats(0.1, 5000), st.sampled_from([1, 10, 100, 1000, 10_000]))
# Sums of rounded figures: a billionth is no call.
MORE = 1 + 1e-9


@given(scopes=SCOPES, calls=CALLS)
def test_a_plan_never_exceeds_what_is_usable_and_keeps_the_tiers_if_they_can_be_kept(
    scopes: list[ScopeFacts], calls: float
) -> None:
    planned = plan(scopes, calls)
    cost = {scope.race_id: scope.calls for scope in scopes}

    assert 0 < planned.usable_calls_per_hour <= calls * (1 - PEOPLE_RESERVE)
    assert planned.planned_calls_per_hour <= planned.usable_calls_per_hour * MORE
    assert planned.planned_calls_per_hour == pytest.approx(
        sum(
            cost[poll.race_id] * (3600 / poll.every_seconds + 3600 / poll.removed_every_seconds)
            for poll in planned.polls
        )
    )
    if planned.short:
        assert any(poll.every_seconds > poll.tier.seconds for poll in planned.polls)
        assert all(poll.every_seconds >= poll.tier.seconds for poll in planned.polls)
        paces = defaultdict(set)
        for poll in planned.polls:
            paces[poll.tier].add(poll.every_seconds)
        assert all(len(seconds) == 1 for seconds in paces.values())
    for poll in planned.polls:
        if not planned.short:
            assert FLOOR_SECONDS <= poll.every_seconds <= poll.tier.seconds
            assert poll.tier is Tier.HOT or poll.every_seconds == poll.tier.seconds


@given(scopes=SCOPES, calls=CALLS)
def test_no_call_is_left_while_a_hot_race_could_use_it(scopes: list[ScopeFacts], calls: float) -> None:
    planned = plan(scopes, calls)

    eager = {scope.race_id for scope in scopes if not scope.failures}
    hot = [poll for poll in planned.polls if poll.tier is Tier.HOT and poll.race_id in eager]
    if any(poll.every_seconds > FLOOR_SECONDS * MORE for poll in hot):
        assert planned.planned_calls_per_hour == pytest.approx(planned.usable_calls_per_hour)


@given(scopes=SCOPES, calls=CALLS, more=st.floats(1, 3))
def test_more_calls_make_no_race_slower(scopes: list[ScopeFacts], calls: float, more: float) -> None:
    before, after = every(plan(scopes, calls)), every(plan(scopes, calls * more))

    assert all(after[race_id] <= seconds * MORE for race_id, seconds in before.items())


@given(scopes=SCOPES, calls=CALLS)
def test_of_two_hot_races_the_one_with_more_changes_is_polled_no_less(
    scopes: list[ScopeFacts], calls: float
) -> None:
    # To a call that a poll takes; one with no change at all counts as one that had a few.
    rates = {
        scope.race_id: max(scope.changes_per_minute, 0.05) / scope.calls
        for scope in scopes
        if not scope.failures
    }
    hot = [poll for poll in plan(scopes, calls).polls if poll.tier is Tier.HOT and poll.race_id in rates]

    paces = [poll.every_seconds for poll in sorted(hot, key=lambda poll: rates[poll.race_id])]
    assert all(second <= first * MORE for first, second in pairwise(paces))


@settings(deadline=None)
@given(scopes=SCOPES, calls=CALLS, sample=st.lists(st.integers(0, 7 * 86_400 - 1), max_size=10))
def test_a_shortage_foreseen_is_the_one_the_plans_will_have(
    scopes: list[ScopeFacts], calls: float, sample: list[int]
) -> None:
    instants = {NOON} | {NOON + timedelta(seconds=seconds) for seconds in sample}
    for scope in scopes:
        at = next_boundary(scope.events, NOON)
        while at is not None and at < NOON + 7 * DAY:
            instants |= {at - TICK, at}
            at = next_boundary(scope.events, at)

    shortage = foresee(scopes, calls_per_hour=calls, now=NOON)

    most = 0.0
    for instant in sorted(instants):
        planned = plan(scopes, calls, instant)
        if shortage is None or instant < shortage.begins_at:
            assert not planned.short
        elif instant < shortage.ends_at:
            assert planned.short
            most = max(most, planned.needed_calls_per_hour)
            hot = {poll.race_id for poll in planned.polls if poll.tier is Tier.HOT}
            assert hot <= set(shortage.race_ids)
        elif instant == shortage.ends_at:
            assert not planned.short
    if shortage is not None:
        assert most == shortage.needed_calls_per_hour
