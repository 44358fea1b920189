"""
Which error again, after how long.

`stamina` runs the attempts and counts them; what is decided here is whether there is another
one and what it waits for: exponential with jitter, never less than the vendor's Retry-After,
within a total of seconds. Where the vendor cannot even be connected to, that is found out for all
calls together (`api/reach.py`) and given up sooner. It waits by the clock it is given, which
stamina has no place for, so the hook answers 0 and `pause` waits before the next attempt.

Where the vendor asks for fewer calls, that concerns every process: the pause is computed here,
kept by the permits, and waited for in line for the next one.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Final

from bibwire.api.reach import Reach
from bibwire.clock import Clock
from bibwire.domain.errors import Blocked, NotTheApi, RetryLater, Throttled, VendorUnreachable

_FIRST_WAIT_SECONDS: Final = 0.5
_LONGEST_WAIT_SECONDS: Final = 15.0


class Backoff:
    """
    The retries of one call.

    Only seconds in flight, and seconds waited because of its own failures, count against
    `retry_seconds`: a call that stands in line for its first permit is not failing.

    Args:
        aside: Entered while it waits.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        retry_seconds: float,
        reach: Reach,
        aside: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
    ) -> None:
        self._clock = clock
        self._aside = aside
        self._reach = reach
        self._left_seconds = retry_seconds
        self._failures = 0
        self._wait_seconds = 0.0
        self.retry_after_seconds: float | None = None

    def patience_seconds(self, attempt: int) -> float:
        """
        Return how long the attempt may stand in line because of throttling.

        The first one may always wait for a pause of which the vendor said no length: it may come
        from another call's failure, even where nothing is to be retried.
        """
        left = max(0.0, self._left_seconds)
        return max(left, _LONGEST_WAIT_SECONDS) if attempt == 1 else left

    def spend(self, seconds: float) -> None:
        """Count seconds of an attempt."""
        self._left_seconds -= seconds

    def pause_asked_seconds(self) -> float:
        """Return how long to wait after the failure that was just met."""
        longest = min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2.0**self._failures)
        return (self.retry_after_seconds or 0.0) + longest * random.uniform(0.5, 1.0)

    def __call__(self, error: Exception) -> float | bool:
        """Return False to give up, 0.0 to try again after `pause`. A hook of stamina's."""
        if not isinstance(error, RetryLater) or isinstance(error, Blocked | NotTheApi):
            return False
        if self._left_seconds <= 0:
            return False
        wait = 0.0
        if not isinstance(error, Throttled):  # otherwise the next permit waits, or says that it is too long
            if (self.retry_after_seconds or 0.0) > self._left_seconds:
                return False
            wait = self.pause_asked_seconds()
        wait = min(wait, self._left_seconds)
        if isinstance(error, VendorUnreachable) and self._reach.is_lost(in_seconds=wait):
            return False
        self._failures += 1
        self._wait_seconds = wait
        return 0.0

    async def pause(self) -> None:
        """Wait for what the last failure asked for; nothing before the first attempt."""
        wait, self._wait_seconds = self._wait_seconds, 0.0
        if wait > 0:
            async with self._aside():
                await self._clock.sleep(wait)
                self._left_seconds -= wait
