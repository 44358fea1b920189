"""
The rules by which pages make a complete listing. Pure.

A listing is walked by `registration_id`, ascending: each page is asked for with the last id of
the one before, so that no row can be skipped that stands throughout. Whatever would break that
(rows out of order, at or before the id asked after, more than were asked for) is an error and
never a page.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from bibwire.api.rows import Cut
from bibwire.domain.errors import AnswerUnreadable, ListingNotTrusted
from bibwire.domain.records import Dated, Page, UnreadableRow

# What page sizes are limited to is not documented everywhere. A limit is a round number.
_ROUND: Final = 50
# The documented default: a limit that nobody told us of is not below it.
_LEAST_LIMIT: Final = 50


class Fullness:
    """
    Tells whether a page was full, so that another one must be asked for.

    A first page shorter than asked for, but of a round number of rows, may have been cut to
    a limit nobody told us: then one more is asked for, and that length counts as full. So may
    one be that is as long as the longest ever seen: a limit shows no longer page than itself.
    """

    def __init__(self, page_size: int, *, longest: int | None = None, is_first: bool = True) -> None:
        """
        Judge pages of at most `page_size` rows.

        Args:
            longest: Rows of the longest page seen under the credential; None: it does not matter.
            is_first: The next page is the first; if not, the ones before have shown that `page_size`
                rows make a full one.
        """
        self._full = page_size
        self._longest = longest
        self._is_first = is_first

    @property
    def length(self) -> int:
        """Rows that make a full page, as far as is known."""
        return self._full

    def is_full(self, received: int) -> bool:
        """Judge the next page; to be called once a page, in order."""
        is_first, self._is_first = self._is_first, False
        if received >= self._full:
            return True
        is_longest = self._longest is not None and received >= max(_LEAST_LIMIT, self._longest)
        if is_longest or (is_first and received > 0 and received % _ROUND == 0):
            self._full = received
            self._longest = None if self._longest is None else max(self._longest, received)
            return True
        return False


def page_of(
    cut: Cut,
    *,
    asked_event_ids: Collection[int],
    after: int,
    page_size: int,
    fullness: Fullness,
    dated: Dated,
) -> Page:
    """
    Return what was cut as the page after that id.

    A row with the very id asked after is left out: whether the vendor's "after" is strict
    is not documented, and that row was in the page before.

    Raises:
        AnswerUnreadable: If sort or after were ignored, or the walk would not advance.
        ListingNotTrusted: If several events were asked for and the answer does not fit them.
    """
    several = len(asked_event_ids) > 1
    if several and cut.received > page_size:
        # A limit for each event instead of all: the ids then advance past rows not shown.
        raise ListingNotTrusted("the vendor sent more rows than were asked for over several events")
    if not cut.in_order:
        raise AnswerUnreadable("the vendor's rows are not sorted by registration_id as asked")
    if cut.rows and cut.rows[0].registration_id < after:
        raise AnswerUnreadable("the vendor sent rows from before after_registration_id")

    rows, unreadable = cut.rows, list(cut.unreadable)
    if rows and rows[0].registration_id == after:
        rows = rows[1:]
    asked = frozenset(asked_event_ids)
    strangers = [row for row in rows if row.event_id is not None and row.event_id not in asked]
    if strangers:
        if several:
            raise ListingNotTrusted("the vendor sent rows of events that were not asked for")
        unreadable += [UnreadableRow("event not asked for", row.raw) for row in strangers]
        rows = [row for row in rows if row.event_id is None or row.event_id in asked]

    through: int | None = None
    if fullness.is_full(cut.received):
        through = cut.last_id
        if through is None or through <= after:
            raise AnswerUnreadable("a full page of the vendor's does not advance the listing")
    return Page(
        rows=rows,
        unreadable=unreadable,
        answered_at=dated.answered_at,
        after=after,
        through=through,
        as_of=dated.as_of,
        claimed=dated.claimed,
    )
