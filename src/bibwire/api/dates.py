"""
What time it is at the vendor: by the `Date` of its answers, and by nothing of ours but elapsed seconds.

A cursor that is ahead of the vendor's time loses changes, so an answer's Date is believed only if
others agree that it is that late already: most of the last answers, whose Dates have gone on since by
our monotonic clock. A single answer that is far ahead is not believed, and neither is our own time of
day where it differs: a laptop that nobody sets is likelier than a wrong vendor. It is asked only before
there are answers.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median_low
from typing import Final

from bibwire.clock import Clock
from bibwire.domain.records import Dated

# How far the clocks of the vendor's servers may differ: less than the long lookback reads again.
FAR_AHEAD: Final = timedelta(minutes=5)
# Without a Date that is believed, the moment before sending is the best there is. The margin is for
# what it was guessed from: an `as_of` too early costs rows read twice, one too late costs rows.
MARGIN: Final = timedelta(seconds=60)
ANSWERS_KEPT: Final = 16


@dataclass(frozen=True, slots=True)
class _Seen:
    """A Date as seconds since 1970, less the monotonic ones of the answer: at most so, and about so."""

    least: float
    about: float


class VendorTime:
    """The vendor's clock as seen by one process, over all its partners."""

    def __init__(self, clock: Clock) -> None:
        """`clock` is the database's time, and monotonic."""
        self._clock = clock
        self._seen: deque[_Seen] = deque(maxlen=ANSWERS_KEPT)
        self._believes = False

    def dated(self, date: datetime | None, *, sent: float, received: float, in_flight: float) -> Dated:
        """
        Return when an answer was given.

        Args:
            date: Its `Date`, in whole seconds; None: it had none that can be read.
            sent, received: When, in monotonic seconds; `in_flight` may be more than lies between.
        """
        before = list(self._seen)
        if date is not None:
            seen = _Seen(date.timestamp() - received, date.timestamp() + 0.5 - (sent + received) / 2)
            self._seen.append(seen)
            self._believes = self._is_believed(seen, before)
            if self._believes:
                # The rows may have been read as soon as it was sent, and what came after be behind.
                as_of = date - timedelta(seconds=in_flight)
                return Dated(date, as_of.replace(microsecond=0))
        if before:
            passed = received - in_flight
            as_of = _instant(min(each.least for each in before) + passed) - MARGIN
        else:
            as_of = self._ours(received - in_flight) - MARGIN
        return Dated(as_of, as_of.replace(microsecond=0), is_by_vendor=False)

    def now(self) -> datetime:
        """Return what time it is at the vendor; by our clock before there are answers."""
        ahead = self.ahead_seconds()
        return self._clock.now() + timedelta(seconds=ahead or 0.0)

    def ahead_seconds(self) -> float | None:
        """Return how far the vendor's clock is ahead of the database's; None: it is not known yet."""
        if not self._seen or (len(self._seen) == 1 and not self._believes):
            return None
        offset = median_low([each.about for each in self._seen])
        return offset + self._clock.monotonic() - self._clock.now().timestamp()

    def spread_seconds(self) -> float:
        """Return how far the Dates of the last answers lie apart, as if all were of one moment."""
        offsets = [each.about for each in self._seen]
        return max(offsets) - min(offsets) if offsets else 0.0

    def _is_believed(self, seen: _Seen, before: list[_Seen]) -> bool:
        tolerance = FAR_AHEAD.total_seconds()
        if not before:
            ours = self._clock.now().timestamp() - self._clock.monotonic()
            return seen.about <= ours + tolerance
        agree = sum(each.about >= seen.about - tolerance for each in before)
        return 2 * agree > len(before)

    def _ours(self, monotonic: float) -> datetime:
        return self._clock.now() - timedelta(seconds=self._clock.monotonic() - monotonic)


def _instant(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
