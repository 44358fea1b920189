"""
What the vendor sends -> records, or the one right error. Pure: no I/O and no clock.

The names others use; the work is done in the modules beside this one.
"""

from __future__ import annotations

from collections.abc import Collection

from bibwire.api.answers import check_answer
from bibwire.api.participants import bib_and_time, decode_participant, decode_removed, without_bib
from bibwire.api.races import decode_counts, decode_race_list
from bibwire.api.rows import cut
from bibwire.domain.records import RawRow, UnreadableRow

__all__ = [
    "bib_and_time",
    "check_answer",
    "cut_participants",
    "cut_removed",
    "decode_counts",
    "decode_participant",
    "decode_race_list",
    "decode_removed",
    "without_bib",
]


def cut_participants(
    body: bytes, asked_event_ids: Collection[int]
) -> tuple[list[RawRow], list[UnreadableRow]]:
    """
    Return the rows of a participants answer, ascending by id, and those without usable ids.

    Raises:
        AnswerUnreadable: If the body is not of a known shape.
    """
    result = cut(body, asked_event_ids)
    return result.rows, result.unreadable


def cut_removed(body: bytes, asked_event_ids: Collection[int]) -> tuple[list[RawRow], list[UnreadableRow]]:
    """Return the same of a removed-participants answer, whose rows stand inside `event`."""
    return cut_participants(body, asked_event_ids)
