"""
The rules by which pages make a complete listing. Pure.

A listing is walked by `registration_id`, ascending: each page is asked for with the last id of
the one before, so that no row can be skipped that stands throughout. Whatever would break that
(rows out of order, at or before the id asked after, more than were asked for) is an error and
never a page. The last page needs no order: nothing is asked for after it. Where order cannot be
had, pages are asked for by number, several times over, and the whole is compared (`Numbered`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from bibwire.api.rows import Cut
from bibwire.domain.errors import AnswerUnreadable, ListingNotTrusted
from bibwire.domain.records import Dated, Page, RawRow, UnreadableRow

# What page sizes are limited to is not documented everywhere. A limit is a round number.
_ROUND: Final = 50
# The documented default: a limit that nobody told us of is not below it.
_LEAST_LIMIT: Final = 50


class Unordered(AnswerUnreadable):
    """The listing cannot be walked by id. Asked again it is not in order either."""


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
        Unordered: If sort or after were ignored, or the walk would not advance.
        ListingNotTrusted: If several events were asked for and the answer does not fit them.
    """
    several = len(asked_event_ids) > 1
    if several and cut.received > page_size:
        # A limit for each event instead of all: the ids then advance past rows not shown.
        raise ListingNotTrusted("the vendor sent more rows than were asked for over several events")
    through: int | None = None
    if fullness.is_full(cut.received):
        through = cut.last_id
        odd = ""
        if not cut.in_order:
            odd = "the vendor's rows are not sorted by registration_id as asked"
        elif cut.rows and cut.rows[0].registration_id < after:
            odd = "the vendor sent rows from before after_registration_id"
        elif through is None or through <= after:
            odd = "a full page of the vendor's does not advance the listing"
        if odd:
            raise ListingNotTrusted(odd) if several else Unordered(odd)

    rows, unreadable = asked_for(cut, asked_event_ids)
    rows = [row for row in rows if row.registration_id != after]
    return Page(
        rows=rows,
        unreadable=unreadable,
        answered_at=dated.answered_at,
        after=after,
        through=through,
        as_of=dated.as_of,
        claimed=dated.claimed,
    )


def asked_for(cut: Cut, asked_event_ids: Collection[int]) -> tuple[Sequence[RawRow], list[UnreadableRow]]:
    """
    Return the rows of the events asked for, and what is to be set aside.

    Raises:
        ListingNotTrusted: If several events were asked for and rows of others came.
    """
    asked = frozenset(asked_event_ids)
    strangers = [row for row in cut.rows if row.event_id is not None and row.event_id not in asked]
    if not strangers:
        return cut.rows, list(cut.unreadable)
    if len(asked) > 1:
        raise ListingNotTrusted("the vendor sent rows of events that were not asked for")
    rows = [row for row in cut.rows if row.event_id is None or row.event_id in asked]
    aside = [UnreadableRow("event not asked for", row.raw) for row in strangers]
    return rows, [*cut.unreadable, *aside]


class Numbered:
    """
    A listing put together from numbered pages, whose rows stand in no order that is known.

    What changes while it is read moves rows from one page to another, so that a walk over all pages
    may miss some. Walks are added up until one shows nobody new; of active people the vendor's own
    counts must be met, too.
    """

    def __init__(self, asked_event_ids: Collection[int], dated: Dated) -> None:
        self._asked = asked_event_ids
        self._dated = dated
        self._rows: dict[int, RawRow] = {}
        self._unreadable: dict[bytes, UnreadableRow] = {}
        self._shown: set[int | bytes] = set()

    def add(self, cut: Cut) -> bool:
        """Add a page; say whether it shows anything that this walk has not shown yet."""
        rows, unreadable = asked_for(cut, self._asked)
        self._rows |= {row.registration_id: row for row in rows}
        self._unreadable |= {row.raw: row for row in unreadable}
        before = len(self._shown)
        self._shown |= {row.registration_id for row in rows} | {row.raw for row in unreadable}
        return len(self._shown) > before

    def end_walk(self) -> None:
        self._shown.clear()

    @property
    def found(self) -> int:
        """How much was found by all walks."""
        return len(self._rows) + len(self._unreadable)

    def meets(self, counts: Mapping[int, int]) -> bool:
        """Say whether there are as many rows of each event as the vendor counts."""
        listed = Counter(row.event_id for row in self._rows.values())
        short = sum(max(0, counts.get(event_id, 0) - listed[event_id]) for event_id in self._asked)
        return short <= len(self._unreadable)

    def pages(self, *, after: int, page_size: int) -> Iterator[Page]:
        """Yield the rows with ids above `after`, as if they had come in order."""
        ids = sorted(each for each in self._rows if each > after)
        unreadable = list(self._unreadable.values())
        for start in range(0, len(ids) or 1, page_size):
            part = ids[start : start + page_size]
            through = part[-1] if start + page_size < len(ids) else None
            yield Page(
                rows=[self._rows[each] for each in part],
                unreadable=unreadable if start == 0 else [],
                answered_at=self._dated.answered_at,
                after=after if start == 0 else ids[start - 1],
                through=through,
                as_of=self._dated.as_of,
                claimed=self._dated.claimed,
            )
