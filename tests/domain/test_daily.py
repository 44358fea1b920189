"""Discovery comes at the operator's 06:00 and 18:00, whatever the clocks do."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bibwire.domain.daily import next_of_day

NEW_YORK = ZoneInfo("America/New_York")
TWICE = (time(6), time(18))


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2026-07-01T05:59:59-04:00", "2026-07-01T06:00-04:00"),
        ("2026-07-01T06:00-04:00", "2026-07-01T18:00-04:00"),
        ("2026-07-01T18:00-04:00", "2026-07-02T06:00-04:00"),
        ("2026-12-31T23:00-05:00", "2027-01-01T06:00-05:00"),
        # The clocks go forward and back in the night before.
        ("2026-03-07T19:00-05:00", "2026-03-08T06:00-04:00"),
        ("2026-10-31T19:00-04:00", "2026-11-01T06:00-05:00"),
    ],
)
def test_the_next_time_is_the_wall_clocks(now: str, expected: str) -> None:
    assert next_of_day(TWICE, NEW_YORK, now=at(now)) == at(expected)


def test_a_time_the_clocks_skip_or_repeat_comes_once() -> None:
    assert next_of_day([time(2, 30)], NEW_YORK, now=at("2026-03-08T00:00-05:00")) == at(
        "2026-03-08T03:30-04:00"
    )
    first = next_of_day([time(1, 30)], NEW_YORK, now=at("2026-11-01T00:00-04:00"))
    assert first == at("2026-11-01T01:30-04:00")
    assert next_of_day([time(1, 30)], NEW_YORK, now=first) == at("2026-11-02T01:30-05:00")


@given(
    now=st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC)),
    zone=st.sampled_from(["America/New_York", "Australia/Lord_Howe", "Pacific/Kiritimati", "UTC"]),
    times=st.lists(st.times().map(lambda t: t.replace(microsecond=0)), min_size=1, max_size=4),
)
def test_it_is_never_now_and_at_most_some_25_hours_away(now: datetime, zone: str, times: list[time]) -> None:
    found = next_of_day(times, ZoneInfo(zone), now=now)

    assert now < found <= now + timedelta(hours=25)
