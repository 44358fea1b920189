"""
Which registrations a call lists, in which order (sections 8 and 9), and which teams (section 14).

The way a mirror asks (by id, after an id, changed since) is answered from the sorted indexes; any
other sort or search looks at every row of the events asked for.
"""

import heapq
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from rsusim.index import Listing
from rsusim.params import Params
from rsusim.quirks import Quirks
from rsusim.records import ABSENT, Registration, Version
from rsusim.rosters import Standing

if TYPE_CHECKING:
    from rsusim.world import World

SORTS: Final = frozenset(
    {"registration_id", "registration_date", "age", "name", "first_name", "last_name"}
    | {"bib_num", "chip_num", "gender"}
)
REMOVED_SORTS: Final = frozenset({"registration_id", "registration_date", "last_modified"})
_BY_ID: Final = [("registration_id", False)]

Seen = Callable[[int], tuple[Registration, Version]]


class Query:
    """The part of a participants or removed-participants call that chooses rows."""

    def __init__(self, params: Params, quirks: Quirks, removed: bool) -> None:
        self.removed = removed
        self.quirks = quirks
        self.page = params.page()
        self.size = params.page_size(
            "results_per_page", quirks.participants_default_page, quirks.participants_max_page
        )
        self.sort = params.sort(REMOVED_SORTS if removed else SORTS, quirks.default_sort)
        self.after = params.integer("after_registration_id")
        if quirks.after_registration_id == "ignored":
            self.after = None
        if self.after is not None and not quirks.after_registration_id_strict:
            self.after -= 1
        self.before = params.integer("before_registration_id")
        since = params.integer("modified_after_timestamp")
        if quirks.modified_after == "ignored":
            since = None
        if since is not None and not quirks.modified_after_inclusive:
            since += 1
        self.since = since
        self.registered_after = params.integer("registered_after_timestamp")
        self.registered_before = params.integer("registered_before_timestamp")
        self.no_bundles = params.flag("exclude_registrations_via_super_event")
        self.search_bib = params.integer("search_bib")
        self.search = {
            field: text.casefold()
            for field in ("first_name", "last_name", "email")
            if (text := params.text(f"search_{field}"))
        }

    def rows(self, world: "World", events: Iterable[int]) -> list[int]:
        """Return the registration ids of the page, in its order, over all events together."""
        lists = [self._of_event(world, number) for number in events]
        if len(lists) > 1 and self.quirks.event_cap:
            lists = [rows[: self.quirks.event_cap] for rows in lists]
        first = (self.page - 1) * self.size
        if self.sort == _BY_ID and self.quirks.list_order == "event":
            return [number for rows in lists for number in rows][first : first + self.size]
        if self.sort == _BY_ID:
            merged = lists[0] if len(lists) == 1 else heapq.merge(*lists)
            return list(islice(merged, first, first + self.size))
        numbers = [number for rows in lists for number in rows]
        numbers.sort()
        see = self._seer(world)
        for key, descending in reversed(self.sort):
            numbers.sort(key=_sort_key(world, see, key), reverse=descending)
        return numbers[first : first + self.size]

    def _of_event(self, world: "World", event: int) -> list[int]:
        index = world.indexes[event]
        listing: Listing = index.removed if self.removed else index.active
        if self.since is None:
            numbers = listing.between(self.after, self.before)
        else:
            numbers = listing.changed_since(self.since)
            if self.after is not None:
                numbers = [number for number in numbers if number > self.after]
            if self.before is not None:
                numbers = [number for number in numbers if number < self.before]
        if self._filters():
            see = self._seer(world)
            numbers = [number for number in numbers if self._passes(world, *see(number))]
        return numbers

    def _filters(self) -> bool:
        return (
            bool(self.search)
            or self.no_bundles
            or not (self.registered_after is self.registered_before is self.search_bib is None)
        )

    def _passes(self, world: "World", registration: Registration, version: Version) -> bool:
        if self.no_bundles and registration.parent is not None:
            return False
        if self.search_bib is not None and version.bib_num != self.search_bib:
            return False
        at = registration.registered_at
        if self.registered_after is not None and at < self.registered_after:
            return False
        if self.registered_before is not None and at > self.registered_before:
            return False
        if self.search:
            flat = world.fields_of(registration, version)
            return all(_folded(flat[field]) == text for field, text in self.search.items())
        return True

    def _seer(self, world: "World") -> Seen:
        def see(number: int) -> tuple[Registration, Version]:
            registration = world.registrations[number]
            version = registration.shown
            unlike = world.still_removed if self.removed else world.lingering
            version = unlike.get(number) or version
            assert version is not None, "a listed registration is published"
            return registration, version

        return see


class TeamQuery:
    """The part of a teams call that chooses rows (section 14)."""

    def __init__(self, params: Params, quirks: Quirks) -> None:
        self.page = params.page()
        self.size = params.page_size("results_per_page", quirks.teams_default_page, quirks.teams_max_page)
        by_day = quirks.teams_modified_since == "day"
        since = params.midnight("modified_since") if by_day else params.instant("modified_since")
        if since is not None and not quirks.teams_since_inclusive:
            since += 1
        self.since = None if quirks.teams_modified_since == "ignored" else since
        self.descending = quirks.teams_change_order == "descending"

    def rows(self, world: "World", events: Iterable[int]) -> list[Standing]:
        """Return the teams of the page, in its order, over all events together."""
        found = [row for event in events for row in world.rosters.standings(event)]
        found.sort(key=lambda row: row.team.team_id)
        if self.since is None:
            found.sort(key=lambda row: _folded(row.team.team_name))
        else:
            found = [row for row in found if row.last_modified >= self.since]
            found.sort(key=lambda row: row.last_modified, reverse=self.descending)
        first = (self.page - 1) * self.size
        return found[first : first + self.size]


def _folded(value: Any) -> str:
    return value.strip().casefold() if isinstance(value, str) else ""


def _sort_key(world: "World", see: Seen, key: str) -> Callable[[int], Any]:
    """Return a key function; null sorts before everything, as in MySQL."""

    def by_field(number: int) -> Any:
        registration, version = see(number)
        if key == "registration_date":
            return registration.registered_at
        if key == "last_modified":
            return version.last_modified
        if key == "bib_num":
            bib = version.bib_num
            return (bib is not None, bib if isinstance(bib, int) else 0, str(bib))
        flat = world.fields_of(registration, version)
        if key == "name":
            return (_folded(flat["last_name"]), _folded(flat["first_name"]))
        value = flat[key]
        absent = value is None or value is ABSENT
        number_value = value if isinstance(value, int) else 0
        return (not absent, number_value, _folded(value))

    return (lambda number: number) if key == "registration_id" else by_field
