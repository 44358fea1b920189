"""Two clocks that agree outvote the third, and nothing is thought to have happened in the future."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from bibwire.domain import clocks

NOON = datetime(2026, 9, 12, 16, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("vendor", "computer", "said"),
    [
        (0.4, -660.0, "this computer's clock is 11 minutes slow"),
        (0.4, 3 * 86_400.0, "this computer's clock is 3 days fast"),
        (660.0, 0.0, "this computer's clock is 11 minutes slow, or RunSignup's is 11 minutes fast"),
        (-45.0, 0.1, "this computer's clock is 45 seconds fast, or RunSignup's is 45 seconds slow"),
        (-7200.0, -7200.0, "the database's clock is 2 hours fast"),
        (
            -7200.0,
            -7800.0,
            "this computer's clock is 10 minutes slow and the database's is 2 hours fast, by RunSignup's",
        ),
        (None, 660.0, "this computer's clock is 11 minutes fast, or the database's is 11 minutes slow"),
    ],
)
def test_who_is_wrong_is_told_by_who_agrees(vendor: float | None, computer: float, said: str) -> None:
    wrong = clocks.wrong_clock(vendor_ahead=vendor, computer_ahead=computer)

    assert wrong is not None
    assert wrong.said == said


@pytest.mark.parametrize("vendor", [None, 0.0, 29.0, -29.0])
def test_clocks_that_agree_are_not_told_of(vendor: float | None) -> None:
    assert clocks.wrong_clock(vendor_ahead=vendor, computer_ahead=20.0) is None


def test_an_instant_to_come_is_as_if_long_ago() -> None:
    assert clocks.elapsed(NOON - timedelta(hours=2), NOON) == timedelta(hours=2)
    assert clocks.elapsed(NOON + timedelta(seconds=1), NOON) == timedelta()
    assert clocks.elapsed(NOON + timedelta(minutes=1), NOON) > timedelta(days=10_000)
