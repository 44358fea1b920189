"""Of two contradicting lists the right one is believed, and each change is told once."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bibwire.domain.merge import (
    Kind,
    Merge,
    Stored,
    merge_absence,
    merge_listed,
    merge_listed_again,
    merge_removal,
)
from bibwire.domain.records import Registration, Removal

NOON = datetime(2026, 9, 12, 16, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
RACE = 7


def registration(**fields: Any) -> Registration:
    """Ada, changed by the given fields."""
    values: dict[str, Any] = dict.fromkeys(Registration.__dataclass_fields__)
    values |= {"registration_id": 1, "event_id": 2, "first_name": "Ada", "additional_data": {}}
    values |= {"last_modified_at": NOON - MINUTE}
    return Registration(**(values | fields))


def stored(**fields: Any) -> Stored:
    """Ada as stored, active."""
    return replace(Stored(registration(), race_id=RACE, as_of=NOON - MINUTE), **fields)


def removal(at: datetime, reason: str = "removed", new: int | None = None) -> Removal:
    return Removal(1, at, reason, new, registration(event_id=None))


def listed(before: Stored | None, row: Registration, at: datetime = NOON) -> Merge | None:
    return merge_listed(before, row, race_id=RACE, as_of=at)


def removed(before: Stored | None, row: Removal, at: datetime = NOON) -> Merge | None:
    return merge_removal(before, row, race_id=RACE, as_of=at)


def applied(merge: Merge | None) -> Stored:
    assert merge is not None
    return merge.after


def test_an_equal_row_changes_nothing() -> None:
    assert listed(stored(), registration()) is None


def test_only_what_differs_is_told() -> None:
    merge = listed(stored(), registration(last_name="Lovelace"))

    assert merge is not None
    assert (merge.kind, merge.fields) == (Kind.EDITED, {"last_name": [None, "Lovelace"]})


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        (None, 101, Kind.BIB_ASSIGNED),
        (None, 0, Kind.BIB_ASSIGNED),
        (0, None, Kind.BIB_CLEARED),
        (101, 102, Kind.BIB_CHANGED),
        (101, 101, Kind.EDITED),
    ],
)
def test_a_bib_gives_the_change_its_kind_and_zero_is_a_bib(
    before: int | None, after: int | None, kind: Kind
) -> None:
    merge = listed(
        stored(registration=registration(bib_num=before)), registration(bib_num=after, city="Lakeport")
    )

    assert merge is not None
    assert (merge.kind, merge.bib_from, merge.bib_to) == (kind, before, after)


def test_a_new_row_is_told_with_all_it_has() -> None:
    merge = listed(None, registration(bib_num=5))

    assert merge is not None
    assert merge.kind is Kind.REGISTERED
    assert merge.fields["bib_num"] == [None, 5]
    assert merge.fields["last_modified_at"] == [None, "2026-09-12T15:59:00+00:00"]
    assert "phone" not in merge.fields


def test_an_answer_that_is_dated_before_the_stored_one_counts_and_takes_no_instant_back() -> None:
    """It was asked for later, of a server whose clock is behind."""
    after = applied(listed(stored(as_of=NOON), registration(bib_num=5), at=NOON - MINUTE))

    assert (after.registration.bib_num, after.as_of) == (5, NOON)


def test_a_listing_does_not_restore_over_what_was_stored_after_it_began() -> None:
    gone = applied(removed(stored(), removal(NOON), at=NOON + MINUTE))
    back = applied(listed(gone, registration(last_modified_at=NOON, bib_num=5), at=NOON - MINUTE))

    assert merge_listed_again(gone, registration(), race_id=RACE, high=NOON) is None
    assert merge_listed_again(back, registration(), race_id=RACE, high=NOON + 2 * MINUTE) is None


def test_a_removal_keeps_what_is_known_and_frees_the_bib() -> None:
    merge = removed(stored(registration=registration(bib_num=5)), removal(NOON, "transferred", 9))

    assert merge is not None
    assert merge.after.registration.bib_num == 5
    assert (merge.kind, merge.bib_from, merge.bib_to) == (Kind.REMOVED, 5, None)
    assert set(merge.fields) == {"removed_at", "removed_reason", "new_registration_id"}


def test_a_removal_told_again_changes_nothing() -> None:
    gone = applied(removed(stored(), removal(NOON)))

    assert removed(gone, removal(NOON)) is None


def test_a_removal_never_seen_active_is_kept_as_a_tombstone() -> None:
    gone = applied(removed(None, removal(NOON, "cleared")))

    assert (gone.removed_reason, gone.registration.first_name) == ("cleared", "Ada")


def test_a_removal_before_the_last_edit_is_old_news() -> None:
    assert removed(stored(), removal(NOON - 2 * MINUTE)) is None


def test_a_lagging_list_does_not_bring_a_removed_row_back() -> None:
    gone = applied(removed(stored(), removal(NOON)))

    assert listed(gone, registration(), at=NOON + MINUTE) is None


def test_a_row_modified_after_its_removal_is_restored() -> None:
    gone = applied(removed(stored(registration=registration(bib_num=5)), removal(NOON)))

    merge = listed(gone, registration(bib_num=5, last_modified_at=NOON), at=NOON)

    assert merge is not None
    assert (merge.kind, merge.bib_from, merge.bib_to) == (Kind.RESTORED, None, 5)
    assert merge.after.removed_at is None


def test_a_lagging_list_is_not_believed_however_long_it_lags() -> None:
    gone = applied(removed(stored(), removal(NOON)))

    assert listed(gone, registration(), at=NOON + timedelta(hours=2)) is None


def test_a_row_the_removed_list_no_longer_holds_is_restored_though_it_was_not_modified() -> None:
    gone = applied(removed(stored(), removal(NOON)))

    merge = merge_listed_again(gone, registration(), race_id=RACE, high=NOON + MINUTE)

    assert applied(merge).removed_at is None


def test_an_absence_does_not_overwrite_what_a_later_answer_stored() -> None:
    assert merge_absence(stored(as_of=NOON), high=NOON - MINUTE) is None


def test_a_row_removed_restored_and_removed_within_one_second_is_removed() -> None:
    gone = applied(removed(stored(), removal(NOON)))
    back = applied(listed(gone, registration(last_modified_at=NOON), at=NOON))

    again = removed(back, removal(NOON))

    assert applied(again).removed_at == NOON


def test_a_removal_in_the_second_of_the_last_edit_counts_unless_the_row_is_still_listed() -> None:
    edited = stored(registration=registration(last_modified_at=NOON, bib_num=5))

    told = merge_removal(edited, removal(NOON), race_id=RACE, as_of=NOON, still_listed=True)

    assert told is None
    assert applied(removed(edited, removal(NOON))).removed_at == NOON


def test_a_removal_after_the_last_edit_counts_though_the_row_is_still_listed() -> None:
    told = merge_removal(stored(), removal(NOON), race_id=RACE, as_of=NOON, still_listed=True)

    assert applied(told).removed_at == NOON


@pytest.mark.parametrize(
    ("hours", "kept"),
    # 01:30 in New York happens twice, at 05:30 and 06:30 UTC.
    [((5, 6), True), ((6, 5), True), ((4, 5), False), ((6, 7), False)],
)
def test_of_two_readings_of_one_time_of_registration_the_stored_one_stays(
    hours: tuple[int, int], kept: bool
) -> None:
    known, read = (datetime(2026, 11, 1, hour, 30, tzinfo=UTC) for hour in hours)

    after = applied(
        listed(
            stored(registration=registration(registered_at=known)),
            registration(registered_at=read, bib_num=5),
        )
    )

    assert after.registration.registered_at == (known if kept else read)
    assert after.registration.bib_num == 5


def test_an_absent_row_comes_back_with_the_next_listing_that_shows_it() -> None:
    merge = merge_absence(stored(), high=NOON)
    gone = applied(merge)

    assert gone.removed_reason == "absent"
    assert merge is not None
    assert merge.modified_at is None
    assert applied(listed(gone, registration(), at=NOON)).removed_at is None


def test_an_absence_that_the_removed_list_explains_takes_its_reason() -> None:
    gone = applied(merge_absence(stored(), high=NOON))

    explained = applied(removed(gone, removal(NOON - 10 * MINUTE, "deferred")))

    assert (explained.removed_reason, explained.removed_at) == ("deferred", NOON - 10 * MINUTE)


def test_an_older_removal_does_not_replace_a_newer_one() -> None:
    gone = applied(removed(stored(), removal(NOON, "transferred", 9)))

    assert removed(gone, removal(NOON - MINUTE, "removed")) is None
