"""No record is lost between two sweeps: the cursor speaks for exactly the events it was moved for."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bibwire.domain import sweeps
from bibwire.domain.sweeps import Listing, StreamState, Sweep, SweepKind, Wish

NOON = datetime(2026, 9, 12, 16, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
LOADED = StreamState(cursor_at=NOON, event_ids=frozenset({1, 2}), long_at=NOON)


def plan(
    state: StreamState,
    live: set[int],
    *,
    now: datetime = NOON + MINUTE,
    full_since: datetime | None = None,
    single: bool = False,
) -> list[Sweep]:
    longest = 1 if single else sweeps.EVENTS_A_REQUEST
    wish = Wish(frozenset(live), now, full_since=full_since, full_list=longest, delta_list=longest)
    return sweeps.plan(state, wish)


def ended(state: StreamState, sweep: Sweep, live: set[int], *, at: datetime = NOON + MINUTE) -> StreamState:
    """Run a sweep whose one page was answered at an instant."""
    counted = sweep.counted(as_of=at, listed={})
    return state.finished(counted, frozenset(live), now=at)


def interrupted(state: StreamState, sweep: Sweep, **changes: Any) -> StreamState:
    position: dict[str, Any] = {"high": NOON, "after": 5} | changes
    return replace(state, sweep=replace(sweep, **position))


def test_a_stream_without_a_cursor_is_swept_in_full() -> None:
    [sweep] = plan(StreamState(), {1, 2})

    assert (sweep.kind, sweep.since, sweep.groups) == (SweepKind.FULL, None, ((1, 2),))


def test_a_delta_asks_from_the_cursor_less_the_short_lookback() -> None:
    [sweep] = plan(LOADED, {1, 2})

    assert (sweep.kind, sweep.since) == (SweepKind.DELTA, NOON - 15 * SECOND)


def test_a_long_look_goes_back_to_before_the_last_one() -> None:
    moved = replace(LOADED, cursor_at=NOON + 9 * MINUTE)

    [sweep] = plan(moved, {1, 2}, now=NOON + 10 * MINUTE)

    assert (sweep.since, sweep.long) == (NOON - 10 * MINUTE, True)
    assert ended(moved, sweep, {1, 2}, at=NOON + 10 * MINUTE).long_at == NOON + 10 * MINUTE


def test_the_long_look_is_timed_by_the_vendors_clock() -> None:
    moved = replace(LOADED, cursor_at=NOON + MINUTE)

    def sweep(now: datetime, vendor_now: datetime) -> Sweep:
        [found] = sweeps.plan(moved, Wish(moved.event_ids, now, vendor_now=vendor_now))
        return found

    assert not sweep(NOON + HOUR, NOON + 2 * MINUTE).long, "a fast clock of ours is no reason for it"
    assert sweep(NOON - HOUR, NOON + 10 * MINUTE).long


def test_a_slow_clock_of_ours_does_not_put_the_long_look_off() -> None:
    [sweep] = plan(replace(LOADED, cursor_at=NOON + 10 * MINUTE), {1, 2}, now=NOON - HOUR)

    assert sweep.long


@given(
    polls=st.lists(st.integers(1, 1000), min_size=1, max_size=60),
    at=st.integers(0, 3000),
    late=st.integers(0, 600),
)
def test_a_change_that_surfaces_up_to_ten_minutes_late_is_read(polls: list[int], at: int, late: int) -> None:
    """Whenever the polls fall, one of those up to ten minutes and one poll after it surfaces has it."""
    state, now = LOADED, NOON
    changed_at, visible_at = NOON + at * SECOND, NOON + (at + late) * SECOND
    waited = None
    for seconds in polls:
        now += seconds * SECOND
        [sweep] = plan(state, {1, 2}, now=now)
        state = ended(state, sweep, {1, 2}, at=now)
        if now < visible_at:
            continue
        assert sweep.since is not None
        if sweep.since <= changed_at:
            return
        waited = waited or now
        assert now - waited < 10 * MINUTE


def test_a_new_event_is_swept_in_full_before_the_delta_of_all() -> None:
    first, second = plan(LOADED, {1, 2, 3})

    assert (first.kind, first.groups) == (SweepKind.FULL, ((3,),))
    assert (second.kind, second.groups) == (SweepKind.DELTA, ((1, 2, 3),))


def test_a_new_event_joins_without_moving_the_cursor_of_the_others() -> None:
    [sweep, _] = plan(LOADED, {1, 2, 3})

    joined = ended(LOADED, sweep, {1, 2, 3})

    assert (joined.cursor_at, joined.event_ids) == (NOON, frozenset({1, 2, 3}))


def test_an_event_that_was_left_out_of_a_delta_is_new_when_it_comes_back() -> None:
    [delta] = plan(LOADED, {1})
    without = ended(LOADED, delta, {1})

    first, _ = plan(without, {1, 2})

    assert (first.kind, first.groups) == (SweepKind.FULL, ((2,),))


@pytest.mark.parametrize("live", [{2, 3}, {3, 4}])
def test_a_full_sweep_of_the_live_events_moves_the_cursor_whatever_it_spoke_for(live: set[int]) -> None:
    [sweep] = plan(LOADED, live, full_since=NOON)

    state = ended(LOADED, sweep, live)

    assert (state.cursor_at, state.event_ids) == (NOON + MINUTE, frozenset(live))


def test_the_cursor_is_the_date_of_the_first_answer_not_of_the_last() -> None:
    [sweep] = plan(StreamState(), {1})
    second = sweep.counted(as_of=NOON, listed={1: 10}).advanced(through=10)
    assert second is not None
    last = second.counted(as_of=NOON + MINUTE, listed={1: 3})

    assert last.advanced(through=None) is None
    assert (last.high, last.listed) == (NOON, {1: 13})


def test_a_sweep_goes_group_by_group() -> None:
    [sweep] = plan(StreamState(), {1, 2}, single=True)

    second = sweep.advanced(through=None)

    assert second is not None
    assert (second.groups[second.group], second.after) == ((2,), 0)


@pytest.mark.parametrize(
    ("change", "live", "full_since", "single", "resumed"),
    [
        ({}, {1, 2}, None, False, True),
        ({}, {1, 2, 3}, None, False, True),
        ({}, {1}, None, False, False),
        ({}, {1, 2}, NOON, False, False),
        ({"kind": SweepKind.FULL}, {1, 2}, NOON, False, True),
        ({"kind": SweepKind.FULL, "started_at": NOON - 2 * DAY}, {1, 2}, NOON, False, False),
        ({}, {1, 2}, None, True, False),
        ({"high": None}, {1, 2}, None, False, False),
    ],
)
def test_an_interrupted_sweep_goes_on_only_where_it_still_means_the_same(
    change: dict[str, object], live: set[int], full_since: datetime | None, single: bool, resumed: bool
) -> None:
    [delta] = plan(LOADED, {1, 2})
    state = interrupted(LOADED, delta, **change)

    todo = plan(state, live, full_since=full_since, single=single)

    assert (todo[0] is state.sweep) is resumed


def test_a_sweep_resumed_at_once_is_enough_and_later_is_followed_by_the_changes() -> None:
    [delta] = plan(LOADED, {1, 2})
    state = interrupted(LOADED, delta)

    assert plan(state, {1, 2}) == [state.sweep]
    assert [s.kind for s in plan(state, {1, 2}, now=NOON + HOUR)] == [SweepKind.DELTA, SweepKind.DELTA]


def test_a_stream_listed_since_the_full_sync_began_is_not_listed_again() -> None:
    state = replace(LOADED, listing=Listing(NOON, NOON, {}))

    assert plan(state, {1, 2}, full_since=NOON - HOUR) == []
    assert [s.kind for s in plan(state, {1, 2}, now=NOON + HOUR, full_since=NOON - HOUR)] == [SweepKind.DELTA]
    assert [s.kind for s in plan(state, {1, 2}, full_since=NOON + SECOND)] == [SweepKind.FULL]


def test_an_event_is_live_until_seven_days_after_its_end_or_else_its_start() -> None:
    assert sweeps.is_live(NOON, None, now=NOON + 7 * DAY - SECOND)
    assert not sweeps.is_live(NOON, None, now=NOON + 7 * DAY)
    assert sweeps.is_live(NOON, NOON + 3 * DAY, now=NOON + 9 * DAY)
    assert sweeps.is_live(NOON, NOON - 365 * DAY, now=NOON + 7 * DAY - SECOND)
    assert not sweeps.is_live(NOON, NOON - 365 * DAY, now=NOON + 7 * DAY)
    assert sweeps.is_live(None, None, now=NOON)
    assert sweeps.is_live(datetime.max.replace(tzinfo=UTC), None, now=NOON)


@given(ids=st.sets(st.integers(1, 10**9), max_size=450), size=st.integers(1, 100))
def test_groups_hold_every_event_once_and_no_list_is_too_long(ids: set[int], size: int) -> None:
    groups = sweeps.grouped(ids, size)

    assert [event_id for group in groups for event_id in group] == sorted(ids)
    assert all(1 <= len(group) <= size for group in groups)


@given(
    sightings=st.lists(
        st.tuples(st.integers(0, 3600), st.sets(st.integers(1, 4), min_size=1), st.booleans(), st.booleans()),
        max_size=8,
    )
)
def test_no_event_is_ever_asked_from_later_than_it_was_last_swept(
    sightings: list[tuple[int, set[int], bool, bool]],
) -> None:
    """Model: for each event, the instant to which it was truly read; some sweeps are cut off."""
    state, read_to, now = StreamState(), dict[int, datetime](), NOON
    for seconds, live, full, cut_off in sightings:
        now += seconds * SECOND
        for sweep in plan(state, live, now=now, full_since=now if full else None):
            begun = sweep.counted(as_of=now, listed={})
            if cut_off:
                state = replace(state, sweep=begun)
                break
            assert begun.high is not None
            for event_id in sweep.event_ids:
                if sweep.since is not None:
                    assert sweep.since < read_to[event_id]
                read_to[event_id] = begun.high
            state = state.finished(begun, frozenset(live), now=now)
        else:
            assert state.cursor_at is not None
            assert all(state.cursor_at <= read_to[event_id] for event_id in state.event_ids)
            assert live <= state.event_ids
