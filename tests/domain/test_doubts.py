"""A few who are missing are believed to be gone; that everybody is takes more."""

from __future__ import annotations

import pytest

from bibwire.domain.doubts import FEW, doubtful_events


@pytest.mark.parametrize(
    ("missing", "stored", "doubtful"),
    [(1, 1, False), (FEW, FEW, False), (FEW + 1, FEW + 1, True), (40, 80, False), (41, 80, True)],
)
def test_an_event_is_doubtful_when_many_and_more_than_half_are_missing(
    missing: int, stored: int, doubtful: bool
) -> None:
    counts = {1: stored - missing, 2: 5}

    found = doubtful_events({1: missing}, stored={1: stored, 2: 5}, listed=counts, counted=counts)

    assert found == ({1} if doubtful else set())


def test_whoever_is_missing_is_doubtful_when_the_whole_race_lists_or_counts_nobody() -> None:
    some, none = {1: 3, 2: 0}, {1: 0, 2: 0}

    assert doubtful_events({2: 1}, stored={1: 3, 2: 1}, listed=none, counted=some) == {2}
    assert doubtful_events({2: 1}, stored={1: 3, 2: 1}, listed=some, counted=none) == {2}
    assert doubtful_events({2: 1}, stored={1: 3, 2: 1}, listed=some, counted=some) == frozenset()
