"""The rules of the budget: who stops where, what a throttle answer does, and when there is room again."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bibwire.domain import budget as rules
from bibwire.domain.budget import Budget, CallerStanding, Spent, Standing, Stop, Urgency, stops_at

NOON = datetime(2026, 9, 12, 12, 0, 30, tzinfo=UTC)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
LIMITS = st.integers(1, 1_000_000)
GAPS = st.lists(st.floats(0, 20_000), min_size=1, max_size=20)


def budget(**spent: int) -> Budget:
    return Budget(1000, 1000, 1000, spent_by_urgency={each: spent.get(each, 0) for each in Urgency})


def test_of_a_thousand_calls_each_class_has_the_share_the_docstring_says() -> None:
    found = {urgency: rules.ceilings(1000, urgency) for urgency in Urgency}

    assert found == {
        Urgency.LIVE: (980, 980),
        Urgency.RACE_DAY: (950, 950),
        Urgency.DELTA: (931, 931),
        Urgency.RECONCILE: (686, 294),
        Urgency.BACKFILL: (490, 490),
    }


def test_backfill_and_reconciliation_leave_race_day_and_people_their_calls() -> None:
    worst = budget(backfill=490, reconcile=196)

    assert rules.room(worst, Urgency.BACKFILL) == 0
    assert rules.room(worst, Urgency.RECONCILE) == 0
    assert rules.room(worst, Urgency.RACE_DAY) == 264
    assert rules.room(budget(race_day=950), Urgency.LIVE) == 30


def test_reconciliation_stops_at_its_own_ceiling_though_there_is_room() -> None:
    assert rules.room(budget(reconcile=294), Urgency.RECONCILE) == 0
    assert rules.room(budget(delta=294), Urgency.RECONCILE) == 294


@given(LIMITS)
def test_who_is_more_urgent_never_stops_earlier_and_everybody_gets_a_call(limit: int) -> None:
    totals = [rules.ceilings(limit, urgency)[0] for urgency in Urgency]

    assert totals == sorted(totals, reverse=True)
    assert all(1 <= own <= total <= limit for total, own in (rules.ceilings(limit, u) for u in Urgency))


@pytest.mark.parametrize(("until", "room"), [(NOON + SECOND, 0), (None, 980)])
def test_a_blocked_credential_has_no_room(until: datetime | None, room: int) -> None:
    blocked = Budget(1000, 1000, 1000, blocked_until=until)

    assert rules.room(blocked, Urgency.LIVE) == room


def test_what_was_stored_while_the_clock_was_ahead_is_over() -> None:
    standing = rules.after_throttle(Standing(1000), now=NOON + 48 * HOUR, seconds=600)

    assert rules.limit_in_use(standing, now=NOON + 48 * HOUR) < 1000
    assert standing.at(NOON + 48 * HOUR) == standing
    assert standing.at(NOON) == Standing(1000)

    ahead = CallerStanding(1, NOON + 48 * HOUR, NOON + 49 * HOUR)
    after = rules.caller_after_throttle(ahead, credential_id=2, now=NOON, seconds=600)
    assert after == CallerStanding(2, NOON, None)


@given(LIMITS, GAPS)
def test_the_limit_in_use_stays_between_its_floor_and_what_is_configured(
    limit: int, gaps: list[float]
) -> None:
    standing, now = Standing(limit), NOON
    for gap in gaps:
        now += timedelta(seconds=gap)
        standing = rules.after_throttle(standing, now=now, seconds=1)
        for later in (0, 60, 3_600, 7_199):
            in_use = rules.limit_in_use(standing, now=now + timedelta(seconds=later))
            assert max(1, limit // 10) <= in_use <= limit


@given(LIMITS, GAPS, st.lists(st.floats(0, 10_000), min_size=2))
def test_without_a_throttle_the_limit_only_grows_and_is_whole_after_two_hours(
    limit: int, gaps: list[float], later: list[float]
) -> None:
    standing, now = Standing(limit), NOON
    for gap in gaps:
        now += timedelta(seconds=gap)
        standing = rules.after_throttle(standing, now=now, seconds=1)

    grown = [rules.limit_in_use(standing, now=now + timedelta(seconds=each)) for each in sorted(later)]

    assert grown == sorted(grown)
    assert rules.limit_in_use(standing, now=now + 2 * HOUR) == limit


def test_recovery_is_linear() -> None:
    standing = rules.after_throttle(Standing(1000), now=NOON, seconds=1)

    limits = [rules.limit_in_use(standing, now=NOON + each * HOUR / 2) for each in range(6)]

    assert limits == [700, 775, 850, 925, 1000, 1000]


def test_a_throttle_lowers_at_most_once_a_minute_and_to_a_tenth_at_least() -> None:
    standing = Standing(1000)
    limits = []
    for second in range(0, 1200, 20):
        standing = rules.after_throttle(standing, now=NOON + second * SECOND, seconds=1)
        limits.append(rules.limit_in_use(standing, now=NOON + second * SECOND))

    assert limits[:3] == [700, 700, 700]
    assert limits[3] == 490
    assert min(limits) == 100


def test_a_limit_configured_anew_is_in_force_at_once_within_its_own_bounds() -> None:
    lowered = Standing(1000, lowered_to=700, lowered_at=NOON, throttled_at=NOON)

    for limit, in_use in ((500, 500), (10_000, 1000), (2000, 700)):
        changed = Standing(limit, lowered.lowered_to, lowered.lowered_at, lowered.throttled_at)
        assert rules.limit_in_use(changed, now=NOON) == in_use


def test_a_shorter_block_does_not_end_a_longer_one_and_none_is_endless() -> None:
    standing = rules.after_throttle(Standing(1000), now=NOON, seconds=600)
    standing = rules.after_throttle(standing, now=NOON + MINUTE, seconds=5)
    assert standing.blocked_until == NOON + 10 * MINUTE

    standing = rules.after_throttle(standing, now=NOON, seconds=1e12)
    assert standing.blocked_until == NOON + 15 * MINUTE


def test_a_long_pause_is_believed_longer_only_when_careful_calls_confirm_it() -> None:
    standing = Standing(1000)
    at, waits = NOON, []
    for _ in range(4):
        standing = rules.after_throttle(standing, now=at, seconds=86_400)
        # Calls that were in flight with it confirm nothing.
        again = rules.after_throttle(standing, now=at + SECOND, seconds=86_400)
        assert standing.blocked_until is not None
        assert again.blocked_until == standing.blocked_until + SECOND
        assert standing.asked_until == at + 24 * HOUR
        assert rules.is_blocked(standing, now=standing.blocked_until - SECOND)
        assert rules.is_careful(standing, now=standing.blocked_until)
        waits.append((standing.blocked_until - at) / MINUTE)
        at = standing.blocked_until

    assert waits == [15, 30, 60, 60]
    short = rules.after_throttle(standing, now=at, seconds=30)
    assert (short.blocked_until, short.asked_until, short.confirmed) == (at + 30 * SECOND, None, 0)
    assert not rules.is_careful(short, now=at + MINUTE)


def test_two_credentials_throttled_within_a_minute_block_their_caller_for_a_minute_at_most() -> None:
    first = rules.caller_after_throttle(CallerStanding(), credential_id=1, now=NOON, seconds=9)
    same = rules.caller_after_throttle(first, credential_id=1, now=NOON + SECOND, seconds=9)
    other = rules.caller_after_throttle(same, credential_id=2, now=NOON + 30 * SECOND, seconds=9)
    long = rules.caller_after_throttle(same, credential_id=2, now=NOON + 30 * SECOND, seconds=3600)
    late = rules.caller_after_throttle(same, credential_id=2, now=NOON + 2 * MINUTE, seconds=9)

    assert (first.blocked_until, same.blocked_until, late.blocked_until) == (None, None, None)
    assert other.blocked_until == NOON + 39 * SECOND
    assert long.blocked_until == NOON + 90 * SECOND


def test_a_lowered_limit_is_for_the_calls_since_the_vendor_asked_for_fewer() -> None:
    standing = rules.after_throttle(Standing(1000), now=NOON, seconds=30)
    before, since = Spent(NOON - 10 * MINUTE, 900, 900), Spent(NOON + MINUTE, 60, 60)

    at = NOON + 2 * MINUTE
    assert rules.seconds_until_room(standing, [before, since], Urgency.DELTA, now=at) > 0, "of all calls"
    assert rules.seconds_until_room(standing, [before], Urgency.DELTA, now=at) == 0
    many = Spent(NOON + MINUTE, 700, 700)
    assert rules.seconds_until_room(standing, [many], Urgency.DELTA, now=at) > 0, "of those since"


def test_room_is_what_both_limits_leave() -> None:
    spent = dict.fromkeys(Urgency, 0) | {Urgency.DELTA: 800}
    lately = dict.fromkeys(Urgency, 0) | {Urgency.DELTA: 90}

    def room(limit_in_use: int) -> int:
        budget = Budget(1000, limit_in_use, 1000, spent_by_urgency=spent, spent_since_throttle=lately)
        return rules.room(budget, Urgency.LIVE)

    assert [room(limit) for limit in (1000, 200, 100, 50)] == [180, 106, 8, 0]


def test_told_is_the_number_of_calls_that_stops_a_class() -> None:
    spent = dict.fromkeys(Urgency, 0)
    hour = Budget(1000, 1000, 1000, spent_by_urgency=spent | {Urgency.DELTA: 931})
    assert stops_at(hour, Urgency.DELTA) == Stop(931, 931, lowered=False)
    assert stops_at(hour, Urgency.RACE_DAY) == Stop(931, 950, lowered=False)

    lowered = Budget(
        1000, 350, 550,
        spent_by_urgency=spent | {Urgency.DELTA: 700},
        spent_since_throttle=spent | {Urgency.DELTA: 330},
    )  # fmt: skip
    assert stops_at(lowered, Urgency.DELTA) == Stop(330, 325, lowered=True)
    # All calls of the hour may stop it before the lowered limit does.
    most = replace(lowered, spent_by_urgency=spent | {Urgency.DELTA: 940})
    assert stops_at(most, Urgency.DELTA) == Stop(940, 931, lowered=False)


COUNTS = st.fixed_dictionaries({each: st.tuples(st.integers(0, 150), st.integers(0, 50)) for each in Urgency})


@given(st.integers(1, 1500), st.floats(0.1, 1), COUNTS, st.sampled_from([Urgency.RACE_DAY, Urgency.DELTA]))
def test_what_is_left_until_the_number_told_is_the_room_there_is(
    limit: int, kept: float, counts: dict[Urgency, tuple[int, int]], polls: Urgency
) -> None:
    before = {each: count for each, (count, _) in counts.items()}
    since = {each: count for each, (_, count) in counts.items()}
    whole = Budget(limit, limit, limit, spent_by_urgency=before).with_spent(since)
    lowered = replace(whole, limit_in_use=max(1, int(limit * kept)), spent_since_throttle=since)

    for found in (whole, lowered):
        told = stops_at(found, polls)
        assert max(0, told.most - told.made) == rules.room(found, polls)
        assert told.made == sum(since.values() if told.lowered else found.spent_by_urgency.values())


def test_the_limit_ahead_counts_on_its_recovery() -> None:
    lowered = Standing(1000, lowered_to=100, lowered_at=NOON, throttled_at=NOON)

    assert rules.limit_ahead(Standing(1000), now=NOON) == 1000
    assert rules.limit_ahead(lowered, now=NOON) == 325
    assert rules.limit_ahead(lowered, now=NOON + 2 * HOUR) == 1000
    assert rules.lowered_since(lowered, now=NOON + HOUR) == NOON.replace(second=0)
    assert rules.lowered_since(lowered, now=NOON + 2 * HOUR) is None


MINUTES = st.dictionaries(
    st.integers(0, 60), st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=61
)


@given(MINUTES, st.sampled_from(Urgency), st.integers(1, 300), st.none() | st.integers(0, 7200))
def test_there_is_room_when_the_wait_is_over_and_not_a_minute_earlier(
    minutes: dict[int, tuple[int, int]], urgency: Urgency, limit: int, throttled: int | None
) -> None:
    begun = NOON.replace(second=0)
    spent = [Spent(begun - ago * MINUTE, own + other, own) for ago, (own, other) in minutes.items()]
    standing = Standing(limit)
    if throttled is not None:
        standing = rules.after_throttle(standing, now=NOON - throttled * SECOND, seconds=0)

    def has_room(at: datetime) -> bool:
        left = [each for each in spent if each.minute > at.replace(second=0) - 61 * MINUTE]
        since = rules.lowered_since(standing, now=at)
        lately = [each for each in left if since is not None and each.minute >= since]
        return all(
            sum(each.total for each in counted) < total and sum(each.own for each in counted) < own
            for counted, (total, own) in (
                (left, rules.ceilings(limit, urgency)),
                (lately, rules.ceilings(rules.limit_in_use(standing, now=at), urgency)),
            )
        )

    wait = rules.seconds_until_room(standing, spent, urgency, now=NOON)

    assert 0 <= wait <= 61 * 60
    assert has_room(NOON + wait * SECOND)
    if wait > 0:
        assert (NOON + wait * SECOND).second == 0
        assert not has_room(max(NOON, NOON + (wait - 60) * SECOND))
