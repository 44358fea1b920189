"""
Whether the vendor can be connected to at all, as all clients of a process know it together.

Where it cannot, one call finds that out for the others: after a few seconds of trying, one attempt
at a time goes out to see whether the network is back, and every other call fails at once with what
the last one met. So a network that is away costs a command seconds and not seconds a race.
"""

from __future__ import annotations

from typing import Final

from bibwire.clock import Clock
from bibwire.domain.errors import VendorUnreachable

# With the start of a program and one attempt more, whoever waits hears of it within ten.
PATIENCE_SECONDS: Final = 5.0
PROBE_SECONDS: Final = 2.0


class Reach:
    """What is known of the way to the vendor. For one event loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lost_at: float | None = None
        self._failed_at = 0.0
        self._error = ""
        self._probing = False
        self._given_up = False

    def is_lost(self, *, in_seconds: float = 0.0) -> bool:
        """Say whether no connection was made for so long that trying again at once is of no use."""
        if self._lost_at is None:
            return False
        # Who has given up has done so for all.
        if self._clock.monotonic() + in_seconds - self._lost_at >= PATIENCE_SECONDS:
            self._given_up = True
        return self._given_up

    def check(self) -> None:
        """
        Ask before an attempt, of which `reached`, `failed` or `gave_up` tells afterwards.

        Raises:
            VendorUnreachable: Another attempt just failed, or is finding out.
        """
        if not self.is_lost():
            return
        # A clock that was set back is no reason to wait.
        since = self._clock.monotonic() - self._failed_at
        if self._probing or 0 <= since < PROBE_SECONDS:
            raise VendorUnreachable(self._error)
        self._probing = True

    def reached(self) -> None:
        """Note that the vendor answered."""
        self._lost_at, self._probing, self._given_up = None, False, False

    def failed(self, error: VendorUnreachable, *, began_at: float) -> None:
        """Note that no connection was made; `began_at`, by the monotonic clock: when it was tried."""
        self._failed_at = self._clock.monotonic()
        if self._lost_at is None:
            self._lost_at = began_at
        self._error, self._probing = str(error), False

    def gave_up(self) -> None:
        """Note that an attempt ended without telling anything of the way to the vendor."""
        self._probing = False
