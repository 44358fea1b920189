"""
What fails and works again, told to the operator once and not with every poll.

A warning when polls begin to fail, for all races and partners together that fail for one cause, and
one when they work again, which says how long it lasted. Each worker tells of its own polls.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import structlog

from bibwire.clock import Clock
from bibwire.domain.errors import (
    AnswerUnreadable,
    BibwireError,
    BudgetSpent,
    CallerRefused,
    KeyRefused,
    Throttled,
    VendorUnavailable,
    VendorUnreachable,
)

# Who begins to fail within this time of others fails for the same cause: a poll and its time-out.
TOGETHER_SECONDS: Final = 60.0

log = structlog.get_logger()

# A partner and a race, or None for the partner's list of races.
Key = tuple[int, int | None]


@dataclass(slots=True, eq=False)
class _Outage:
    """
    Polls that fail for one cause.

    Instants are by the monotonic clock: `began_at` when the first failed poll began, `joined_at` when
    the last one joined.
    """

    cause: str
    began_at: float
    joined_at: float
    keys: set[Key] = field(default_factory=set)


class Outages:
    """The outages that a worker sees."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._outages: list[_Outage] = []

    def failed(self, key: Key, error: BibwireError, *, began_at: float, partner: str, **told: object) -> None:
        """
        Note that a poll failed, and say so if it is news.

        Args:
            began_at: When the poll began, by the monotonic clock.
            told: What else the operator is to read.
        """
        cause, race = _cause(key, error), ({} if key[1] is None else {"race_id": key[1]})
        now = self._clock.monotonic()
        known = self._of(key)
        if known is not None and known.cause == cause:
            log.debug("still not polled", action="sweep", partner=partner, error=str(error), **race, **told)
            return
        if known is not None:
            self._leave(known, key)
        for outage in self._outages:
            everybodys = cause == VendorUnreachable.__name__
            if outage.cause == cause and (everybodys or now - outage.joined_at <= TOGETHER_SECONDS):
                outage.keys.add(key)
                outage.joined_at = now
                log.info(
                    "not polled either", action="sweep", partner=partner, error=str(error), **race, **told
                )
                return
        self._outages.append(_Outage(cause, min(began_at, now), now, {key}))
        log.warning(
            "race not polled" if key[1] is not None else "race list not read",
            action="sweep" if key[1] is not None else "discover",
            partner=partner,
            **race,
            error=str(error),
            **told,
        )

    def worked(self, key: Key, *, partner: str) -> bool:
        """Note that a poll succeeded; say so, and return true, if that ends an outage."""
        outage = self._of(key)
        if outage is None and self._outages:
            # Whoever gets through shows that the way is open for all.
            lost = [each for each in self._outages if each.cause == VendorUnreachable.__name__]
            outage = lost[0] if lost else None
        if outage is None:
            return False
        # Those that still fail say so anew.
        self._outages.remove(outage)
        log.warning(
            "back: polled again" if key[1] is not None else "back: race list read again",
            action="sweep" if key[1] is not None else "discover",
            partner=partner,
            **({} if key[1] is None else {"race_id": key[1]}),
            lasted_seconds=round(self._clock.monotonic() - outage.began_at),
            **({"others_failed_too": len(outage.keys) - 1} if len(outage.keys) > 1 else {}),
        )
        return True

    def forget(self, key: Key) -> None:
        """Note that a race is not polled any more."""
        outage = self._of(key)
        if outage is not None:
            self._leave(outage, key)

    def _of(self, key: Key) -> _Outage | None:
        return next((outage for outage in self._outages if key in outage.keys), None)

    def _leave(self, outage: _Outage, key: Key) -> None:
        outage.keys.discard(key)
        if not outage.keys:
            self._outages.remove(outage)


def _cause(key: Key, error: BibwireError) -> str:
    """Name what an error is about: network and vendor concern all, a key its partner, the rest a race."""
    match error:
        case VendorUnreachable():
            return VendorUnreachable.__name__
        case VendorUnavailable() | AnswerUnreadable():
            return VendorUnavailable.__name__
        case CallerRefused():
            return CallerRefused.__name__
        case KeyRefused() | Throttled() | BudgetSpent():
            return f"{type(error).__name__} {key[0]}"
        case _:
            return f"{type(error).__name__} {key}"
