"""
The world's own time: an instant in epoch seconds, frozen or running at a factor of real time.

Nothing else in the simulator reads the machine's clock to decide what a reader sees, so a test
moves time instead of sleeping. Time never goes back; the clock that the vendor reads it off may.
"""

import time
from datetime import UTC, datetime


class Clock:
    """
    Simulated time.

    Args:
        now: Aware start instant.
        speed: Simulated seconds a real second; 0 is frozen.

    Attributes:
        ahead: So many seconds the vendor's own clock is wrong, by which it dates changes and answers.
    """

    def __init__(self, now: datetime, speed: float = 0.0) -> None:
        if now.tzinfo is None:
            raise ValueError("the world's clock needs an aware datetime")
        self._base = now.timestamp()
        self._speed = speed
        self._anchor = time.monotonic()
        self.ahead = 0.0

    def time(self) -> float:
        """Return the simulated instant in epoch seconds, with its fraction."""
        if not self._speed:
            return self._base
        return self._base + (time.monotonic() - self._anchor) * self._speed

    def shown(self) -> float:
        """Return what the vendor's own clock shows, in epoch seconds."""
        return self.time() + self.ahead

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.time(), UTC)

    @property
    def speed(self) -> float:
        return self._speed

    def advance(self, seconds: float) -> None:
        """Move on by `seconds`, zero or more."""
        if seconds < 0:
            raise ValueError("simulated time does not go back")
        self._base += seconds

    def run(self, speed: float) -> None:
        """From now on run at `speed` simulated seconds a real second; 0 freezes."""
        self._base = self.time()
        self._anchor = time.monotonic()
        self._speed = speed
