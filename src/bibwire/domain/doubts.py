"""
When a listing that lacks stored people is believed.

A vendor that withdraws rights without an error lists nobody and counts nobody, as if everybody
had left. What a few people do happens every day; that everybody does is believed only on more
evidence than the listing and the counts. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

# A test import or a club's group is deleted without a trace now and then: two dozen at most.
FEW: Final = 24
# Two listings of one incident are one piece of evidence: the second counts that was begun so much later.
CONFIRMED_AFTER: Final = timedelta(minutes=10)


def doubtful_events(
    missing: Mapping[int, int],
    *,
    stored: Mapping[int, int],
    listed: Mapping[int, int],
    counted: Mapping[int, int],
) -> frozenset[int]:
    """
    Return the events of which too many are missing to believe a listing and the counts alone.

    All of them if nobody was listed or is counted in the whole listing; else those of which
    more than `FEW`, and more than half, are missing.

    Args:
        missing: Stored active registrations that were not listed, by event.
        stored: All stored active registrations, by event.
        listed, counted: What the vendor listed, and counts, by event.
    """
    if not any(listed.values()) or not any(counted.values()):
        return frozenset(missing)
    return frozenset(
        event_id
        for event_id, number in missing.items()
        if number > FEW and 2 * number > stored.get(event_id, 0)
    )
