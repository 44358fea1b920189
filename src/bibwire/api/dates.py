"""
What time it is at the vendor: by the `Date` of its answers and the dates of its rows.

A cursor that is ahead of the vendor's time loses changes. So an answer's Date is believed if

- most of the last answers agree that it is that late already, as their Dates have gone on since by our
  monotonic clock: a single answer from the future is not believed; and
- it is not far ahead of the database's clock, or the vendor has shown a change about as late. A laptop
  that nobody sets is likelier than a wrong vendor, and then the changes it shows are from the future,
  too; a proxy with a wrong clock shows none.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median_low
from typing import Final

from bibwire.clock import Clock
from bibwire.domain.clocks import VendorClock
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
        # The newest change that the vendor dated, as `_Seen`; None: none was later than our time.
        self._newest: float | None = None

    def dated(self, date: datetime | None, *, sent: float, received: float, in_flight: float) -> Dated:
        """
        Return when an answer was given.

        Args:
            date: Its `Date`, in whole seconds; None: it had none that can be read.
            sent, received: When, in monotonic seconds; `in_flight` may be more than lies between.
        """
        before, claimed = list(self._seen), None
        if date is not None:
            seen = _Seen(date.timestamp() - received, date.timestamp() + 0.5 - (sent + received) / 2)
            self._seen.append(seen)
            # The rows may have been read as soon as it was sent, and what came after be behind.
            as_of = (date - timedelta(seconds=in_flight)).replace(microsecond=0)
            if _agree(seen, before):
                if seen.about <= self._latest():
                    return Dated(date, as_of)
                claimed = as_of
        began = received - in_flight
        # The earliest of what is known: of a Date that is not believed, our own time is left.
        guess = min((each.least for each in before), default=self._ours())
        as_of = _instant(min(guess, self._ours()) + began) - MARGIN
        return Dated(as_of, as_of.replace(microsecond=0), claimed)

    def show(self, newest: datetime | None, claimed: datetime) -> bool:
        """
        Note the newest change of an answer; say whether its claimed date is believed now.

        Args:
            newest: When the vendor dates it; None: there is none.
            claimed: As in `Dated`.
        """
        if newest is None or newest - claimed > MARGIN:
            return False  # later than the answer itself: a slip
        self._newest = max(self._newest or -math.inf, newest.timestamp() - self._clock.monotonic())
        return claimed.timestamp() - self._clock.monotonic() <= self._latest()

    def remember(self, data_ahead: float) -> None:
        """Take over how far the newest change was ahead of the database's clock when it was last seen."""
        self._newest = self._ours() + data_ahead

    def now(self) -> datetime:
        """Return what time it is at the vendor as far as that is believed; else by our clock."""
        seen = self.seen()
        return self._clock.now() + timedelta(seconds=0.0 if seen is None else seen.ahead)

    def seen(self) -> VendorClock | None:
        """Return how the vendor's clock was seen; None: not yet, or in one answer that is not believed."""
        if not self._seen:
            return None
        # Copied in one step: large answers are dated in a thread.
        offset = median_low([each.about for each in list(self._seen)])
        is_believed = offset <= self._latest()
        if len(self._seen) == 1 and not is_believed:
            return None
        ours, newest = self._ours(), self._newest
        return VendorClock(
            ahead=offset - ours if is_believed else 0.0,
            date_ahead=offset - ours,
            data_ahead=newest - ours if newest is not None and newest > ours else None,
        )

    def spread_seconds(self) -> float:
        """Return how far the Dates of the last answers lie apart, as if all were of one moment."""
        offsets = [each.about for each in list(self._seen)]
        return max(offsets) - min(offsets) if offsets else 0.0

    def _ours(self) -> float:
        """Return the database's time as `_Seen` has it."""
        return self._clock.now().timestamp() - self._clock.monotonic()

    def _latest(self) -> float:
        """Return the latest that a Date may say, as `_Seen` has it."""
        newest = -math.inf if self._newest is None else self._newest
        return max(self._ours(), newest) + FAR_AHEAD.total_seconds()


def _agree(seen: _Seen, before: list[_Seen]) -> bool:
    """Say whether most answers before say that it is as late; without any, nobody says no."""
    agree = sum(each.about >= seen.about - FAR_AHEAD.total_seconds() for each in before)
    return not before or 2 * agree > len(before)


def _instant(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
