"""What time it is at the vendor: no cursor gets ahead of it, and our own clock decides nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from bibwire.api.answers import parse_http_date
from bibwire.api.dates import VendorTime
from bibwire.domain.records import Dated
from tests.api.loopback import DATE_AT, MovedClock

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)


class Vendor:
    """Answers at the vendor's own time, which is `ahead` of ours; each takes no time."""

    def __init__(self, ahead: timedelta = timedelta()) -> None:
        self.clock = MovedClock()
        self.time = VendorTime(self.clock)
        self.ahead = ahead

    @property
    def now(self) -> datetime:
        return DATE_AT + timedelta(seconds=self.clock.monotonic()) + self.ahead

    def answer(self, off: timedelta = timedelta(), *, dated: bool = True) -> Dated:
        self.clock.advance(10)
        at = self.clock.monotonic()
        date = (self.now + off).replace(microsecond=0) if dated else None
        return self.time.dated(date, sent=at, received=at, in_flight=0.0)


@pytest.mark.parametrize("ahead", [timedelta(), -HOUR, 4 * MINUTE])
def test_a_date_that_is_not_far_ahead_is_believed_at_once(ahead: timedelta) -> None:
    vendor = Vendor(ahead)

    assert vendor.answer() == (vendor.now, vendor.now, None)


def test_a_date_far_ahead_is_believed_once_a_change_is_as_late() -> None:
    vendor = Vendor(11 * MINUTE)

    first, second = vendor.answer(), vendor.answer()
    assert max(first.as_of, second.as_of) < vendor.now - 11 * MINUTE
    assert second.claimed is not None
    assert not vendor.time.show(vendor.now - HOUR, second.claimed), "an old change proves nothing"
    assert not vendor.time.show(vendor.now + HOUR, second.claimed), "nor one of the future"
    assert vendor.time.show(vendor.now - 20 * SECOND, second.claimed)

    assert vendor.answer() == (vendor.now, vendor.now, None)


@pytest.mark.parametrize("ahead", [timedelta(), 11 * MINUTE, -HOUR])
@pytest.mark.parametrize("before", [1, 2, 30])
def test_a_single_date_from_the_future_is_not_believed(ahead: timedelta, before: int) -> None:
    vendor = Vendor(ahead)
    for _ in range(before):
        claimed = vendor.answer().claimed
        if claimed is not None:
            vendor.time.show(vendor.now, claimed)

    odd = vendor.answer(50 * MINUTE)

    assert odd.as_of <= vendor.now
    assert odd.claimed is None
    assert vendor.answer().as_of == vendor.now, "the next one is believed as before"


def test_without_a_date_an_answer_is_dated_by_those_before() -> None:
    vendor = Vendor(-HOUR)
    vendor.answer()

    dated = vendor.answer(dated=False)

    assert vendor.now - 2 * MINUTE < dated.as_of <= vendor.now, "our clock is an hour fast"


def test_a_vendor_that_sets_its_clock_back_is_believed_at_once() -> None:
    vendor = Vendor(4 * MINUTE)
    vendor.answer()
    vendor.ahead = timedelta()

    assert vendor.answer().as_of == vendor.now


def test_what_another_process_saw_counts_from_the_first_answer() -> None:
    vendor = Vendor(11 * MINUTE)
    vendor.time.remember(640.0)

    assert vendor.answer().as_of == vendor.now


def test_a_clock_of_ours_that_is_set_right_changes_nothing() -> None:
    vendor = Vendor(11 * MINUTE)
    claimed = vendor.answer().claimed
    assert claimed is not None
    assert vendor.time.show(vendor.now, claimed)
    vendor.clock._start += 11 * MINUTE

    assert vendor.answer().as_of == vendor.now
    assert vendor.answer(10 * MINUTE).as_of <= vendor.now, "a server that is wrong is not believed"


def test_a_date_in_the_last_minute_of_the_calendar_is_just_not_believed() -> None:
    vendor = Vendor()
    last = datetime(9999, 12, 31, 23, 59, 29, tzinfo=UTC)
    assert parse_http_date("Fri, 31 Dec 9999 23:59:29 GMT") is None

    assert not vendor.time.show(vendor.now, last)
    assert not vendor.time.show(last, vendor.now)
