"""
Sorted views of what readers see of one event, so that a page is a slice found by bisect.

Each shown version is in exactly one of the two lists, under its registration
id and under its last change. The order by change packs both numbers into one integer.
"""

from bisect import bisect_left, bisect_right, insort

from rsusim.records import ACTIVE, REMOVED, Version

_ID_BITS = 48  # ids beyond 32 bits are expected one day (section 20)
_ID_MASK = (1 << _ID_BITS) - 1


class Listing:
    """Registration ids of one list of one event, ascending, and again ascending by last change."""

    __slots__ = ("_by_change", "ids")

    def __init__(self) -> None:
        self.ids: list[int] = []
        self._by_change: list[int] = []

    def add(self, registration_id: int, last_modified: int) -> None:
        if not self.ids or registration_id > self.ids[-1]:
            self.ids.append(registration_id)
        else:
            insort(self.ids, registration_id)
        insort(self._by_change, last_modified << _ID_BITS | registration_id)

    def discard(self, registration_id: int, last_modified: int) -> None:
        at = bisect_left(self.ids, registration_id)
        if at < len(self.ids) and self.ids[at] == registration_id:
            del self.ids[at]
            key = last_modified << _ID_BITS | registration_id
            del self._by_change[bisect_left(self._by_change, key)]

    def load(self, rows: list[tuple[int, int]]) -> None:
        """Add many (registration id, last change) at once, in any order."""
        self.ids = sorted({*self.ids, *(row[0] for row in rows)})
        self._by_change.extend(changed << _ID_BITS | number for number, changed in rows)
        self._by_change.sort()

    def changed_since(self, timestamp: int) -> list[int]:
        """Return ids changed at `timestamp` or later, ascending by id."""
        keys = self._by_change[bisect_left(self._by_change, timestamp << _ID_BITS) :]
        return sorted([key & _ID_MASK for key in keys])

    def between(self, after: int | None, before: int | None) -> list[int]:
        """Return ids above `after` and below `before`, ascending."""
        low = 0 if after is None else bisect_right(self.ids, after)
        high = len(self.ids) if before is None else bisect_left(self.ids, before)
        return self.ids[low:high]


class EventIndex:
    """The active and the removed listing of one event."""

    __slots__ = ("active", "removed")

    def __init__(self) -> None:
        self.active = Listing()
        self.removed = Listing()

    def listing(self, version: Version) -> Listing | None:
        if version.status == ACTIVE:
            return self.active
        return self.removed if version.status == REMOVED else None
