"""A listing of teams goes on where it stood, and a list of several events is not believed blindly."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from bibwire.domain import teams as rules
from bibwire.domain.backfill import PastRace
from bibwire.domain.records import TeamPage
from bibwire.domain.teams import TeamPosition, TeamsKnown

NOON = datetime(2026, 9, 12, 16, tzinfo=UTC)
RACE = PastRace(1, 2, "Relay", frozenset({11, 12}), frozenset({21}), NOON, is_loaded=True, has_live=True)


def page(number: int, *, is_last: bool, full: int = 50) -> TeamPage:
    return TeamPage([], [], number, full, is_last)


def test_all_events_are_asked_for_together_page_after_page() -> None:
    begin = TeamsKnown().begin({12, 11}, now=NOON)
    assert (begin.groups, begin.asked, begin.number, begin.full) == (((11, 12),), (11, 12), 1, None)

    after = begin.after(page(1, is_last=False))

    assert after is not None
    assert (after.asked, after.number, after.full) == ((11, 12), 2, 50)
    assert after.after(page(2, is_last=True)) is None


def test_a_hundred_events_a_list_and_each_list_begins_with_its_first_page() -> None:
    begin = TeamsKnown().begin(range(1, 151), now=NOON)
    assert [len(group) for group in begin.groups] == [100, 50]

    second = begin.after(page(1, is_last=True))

    assert second is not None
    assert (second.asked[0], second.number, second.full) == (101, 1, None)


def test_events_are_asked_for_one_at_a_time_where_lists_of_them_come_out_short() -> None:
    assert TeamsKnown(one_event=True).begin({11, 12}, now=NOON).groups == ((11,), (12,))
    for days, together in ((6, False), (8, True)):
        known = TeamsKnown(one_event_since=NOON - timedelta(days=days))
        assert known.begin({11, 12}, now=NOON).has_lists == together


def test_reading_again_event_by_event_begins_anew_with_the_same_events() -> None:
    at = TeamPosition(((11, 12), (13,)), NOON, group=1, number=3, full=50)

    assert at.singly(lacking={5}) == TeamPosition(
        ((11,), (12,), (13,)), NOON, group=0, number=1, full=None, lacking=frozenset({5})
    )


def test_numbered_pages_are_not_gone_on_with_much_later() -> None:
    known = TeamsKnown(position=TeamPosition(((11, 12),), NOON, number=3, full=50))

    assert known.resume(now=NOON + timedelta(hours=1)) == known.position
    assert known.resume(now=NOON + timedelta(days=1)) is None


def test_what_a_backfill_lists_is_what_it_has_not_and_what_it_loads_anew() -> None:
    def left(known: TeamsKnown, people_left: frozenset[int] = frozenset()) -> frozenset[int]:
        return rules.left_to_list(RACE, known, now=NOON, people_left=people_left)

    assert left(TeamsKnown()) == {11, 12, 21}
    assert left(TeamsKnown(event_ids=frozenset({11, 12, 21, 99}))) == set()
    assert left(TeamsKnown(event_ids=frozenset({11, 12, 21})), frozenset({12})) == {12}


def test_who_refused_is_left_alone_for_a_week() -> None:
    known = TeamsKnown(refused_at=NOON)

    assert not rules.left_to_list(RACE, known, now=NOON + timedelta(days=6))
    assert rules.left_to_list(RACE, known, now=NOON + timedelta(days=7)) == {11, 12, 21}


def test_a_list_lacks_what_members_name_and_it_should_show() -> None:
    assert rules.lacking({1, 2, 3}, shown={1, 9}, unlisted={3}) == {2}
    assert not rules.lacking({1, 3}, shown={1, 9}, unlisted={3})
