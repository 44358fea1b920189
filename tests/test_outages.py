"""An outage is told once for all that it concerns, and its end with how long it lasted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from structlog.testing import capture_logs

from bibwire.domain.errors import AccessLost, KeyRefused, VendorUnavailable, VendorUnreachable
from bibwire.engine.outages import Outages


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds


AWAY = VendorUnreachable("RunSignup cannot be reached: connection refused")
BROKEN = VendorUnavailable("the vendor answered HTTP 503")


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def outages(clock: Hand) -> Outages:
    return Outages(clock)


def warned(logs: Sequence[Mapping[str, Any]]) -> list[str]:
    return [f"{line['event']} {line.get('race_id')}" for line in logs if line["log_level"] == "warning"]


def test_a_network_that_is_away_is_told_once_for_all_partners_and_so_is_its_end(
    clock: Hand, outages: Outages
) -> None:
    with capture_logs() as logs:
        for minute in range(5):
            for key in ((1, 11), (1, 12), (2, 21), (2, None)):
                outages.failed(key, AWAY, began_at=clock.seconds, partner=f"P{key[0]}")
            clock.seconds = (minute + 1) * 60.0
        # Whoever gets through ends it, be it a race that was not due meanwhile.
        assert outages.worked((3, 31), partner="P3")
        assert not outages.worked((1, 11), partner="P1")

    assert warned(logs) == ["race not polled 11", "back: polled again 31"]
    assert logs[-1]["lasted_seconds"] == 300
    assert logs[-1]["others_failed_too"] == 3


def test_a_race_that_fails_for_itself_neither_hides_nor_ends_an_outage_of_all(
    clock: Hand, outages: Outages
) -> None:
    with capture_logs() as logs:
        outages.failed((1, 11), BROKEN, began_at=0, partner="P1")
        clock.seconds = 600.0
        outages.failed((1, 11), BROKEN, began_at=600, partner="P1")
        outages.failed((1, 12), BROKEN, began_at=600, partner="P1")
        outages.failed((1, 13), BROKEN, began_at=600, partner="P1")
        clock.seconds = 630.0
        assert outages.worked((1, 12), partner="P1")

    assert warned(logs) == ["race not polled 11", "race not polled 12", "back: polled again 12"]


def test_another_cause_is_told_anew_and_a_key_concerns_its_partner_alone(
    clock: Hand, outages: Outages
) -> None:
    refused = KeyRefused("RunSignup does not accept this key")
    with capture_logs() as logs:
        outages.failed((1, 11), AWAY, began_at=0, partner="P1")
        outages.failed((1, 11), BROKEN, began_at=5, partner="P1")
        outages.failed((1, 11), refused, began_at=9, partner="P1")
        outages.failed((1, 12), refused, began_at=9, partner="P1")
        outages.failed((2, 21), refused, began_at=9, partner="P2")
        outages.failed((2, 22), AccessLost("no access"), began_at=9, partner="P2")
        outages.forget((2, 22))
        assert not outages.worked((2, 22), partner="P2")

    assert warned(logs) == [f"race not polled {race}" for race in (11, 11, 11, 21, 22)]
