"""
Which error again, after how long.

`stamina` runs the attempts and counts them; what is decided here is whether there is another
one and what it waits for: exponential with jitter, never less than the vendor's Retry-After,
within a total of seconds. It waits by the clock it is given, which stamina has no place
for, so the hook answers 0 and `pause` waits before the next attempt.
"""

from __future__ import annotations

import random
from typing import Final

from bibwire.clock import Clock
from bibwire.domain.errors import RetryLater, Throttled

_FIRST_WAIT_SECONDS: Final = 0.5
_LONGEST_WAIT_SECONDS: Final = 15.0


class Backoff:
    """
    The retries of one call.

    Only seconds in flight and seconds waited count against `retry_seconds`: a call that
    stands in line for a permit is not failing.
    """

    def __init__(self, *, clock: Clock, retry_seconds: float) -> None:
        self._clock = clock
        self._left_seconds = retry_seconds
        self._failures = 0
        self._wait_seconds = 0.0
        self.retry_after_seconds: float | None = None

    def spend(self, seconds: float) -> None:
        """Count seconds of an attempt."""
        self._left_seconds -= seconds

    def __call__(self, error: Exception) -> float | bool:
        """Return False to give up, 0.0 to try again after `pause`. A hook of stamina's."""
        if not isinstance(error, RetryLater) or self._left_seconds <= 0:
            return False
        self._failures += 1
        asked = self.retry_after_seconds or 0.0
        if isinstance(error, Throttled):
            asked = max(asked, error.retry_after_seconds or 0.0)
        if asked > self._left_seconds:
            return False
        longest = min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2.0 ** (self._failures - 1))
        wait = asked + longest * random.uniform(0.5, 1.0)
        self._wait_seconds = min(wait, self._left_seconds)
        return 0.0

    async def pause(self) -> None:
        """Wait for what the last failure asked for; nothing before the first attempt."""
        wait, self._wait_seconds = self._wait_seconds, 0.0
        if wait > 0:
            await self._clock.sleep(wait)
            self._left_seconds -= wait
