"""What seasons are made of, before they are played: nothing is left out over the seeds."""

from __future__ import annotations

import pytest

from tests.seasons.happenings import MET, TROUBLES, Happening, a_round
from tests.seasons.shapes import HOUR, SHAPES, season_of, shape_of

IN_EACH = 6


def met(lines: list[Happening]) -> set[tuple[str, str]]:
    """Return what happens while which trouble lasts."""
    troubles = [line for line in lines if line.is_trouble]
    return {
        (line.kind, trouble.kind)
        for trouble in troubles
        for line in lines
        if not line.is_trouble and trouble.at <= line.at <= trouble.at + trouble.seconds
    }


def test_within_a_round_of_seeds_everything_happens_during_each_trouble() -> None:
    seen: set[tuple[str, str]] = set()
    for seed in range(1, 1 + a_round(IN_EACH)):
        seen |= met(season_of(seed, shape=shape_of(seed), troubles=IN_EACH))

    missing = {(kind, trouble) for kind in MET for trouble in TROUBLES} - seen
    assert not missing


def test_all_shapes_come_in_turn_and_every_other_season_is_a_busy_hour() -> None:
    shapes = [shape_of(seed) for seed in range(1, 13)]

    assert set(shapes) == set(SHAPES)
    assert shapes[::2] == ["busy"] * 6


@pytest.mark.parametrize("shape", SHAPES)
def test_a_season_is_in_order_and_has_time_to_settle_at_its_end(shape: str) -> None:
    for seed in range(20):
        lines = season_of(seed, shape=shape)

        assert lines == sorted(lines)
        assert lines == season_of(seed, shape=shape)
        assert lines[0].at >= 0
        assert lines[-1].at < SHAPES[shape].hours * HOUR
