"""
How registrations stand, and what readers see of them.

Keeps true: a change replaces the head at once and is seen by readers at its publication; a later
version never gives way to an earlier one that is published late; `last_modified` is the whole
second of the change itself, not of its publication (sections 11 and 19.8).
"""

import heapq
import threading
from collections.abc import Callable, Collection
from random import Random
from typing import Any

from rsusim import people
from rsusim.clock import Clock
from rsusim.index import EventIndex
from rsusim.quirks import Quirks
from rsusim.records import (
    ABSENT,
    ACTIVE,
    REMOVED,
    Event,
    Race,
    Registration,
    Version,
)
from rsusim.rosters import Rosters


class State:
    """The part of a world that holds registrations; `Registrations` adds what happens to them."""

    def __init__(self, seed: int, clock: Clock) -> None:
        self.seed = seed
        self.clock = clock
        self.lock = threading.RLock()
        self.quirks = Quirks()
        self.random = Random(f"rsusim:{seed}")
        self.races: dict[int, Race] = {}
        self.events: dict[int, Event] = {}
        self.registrations: dict[int, Registration] = {}
        self.indexes: dict[int, EventIndex] = {}
        self.children: dict[int, list[int]] = {}  # bundle's registration -> those it made
        self.lingering: dict[int, Version] = {}  # removed, yet still in the active list
        self.still_removed: dict[int, Version] = {}  # active again, yet still in the removed list
        self.checkins: dict[int, dict[int, int]] = {}  # race -> registration -> epoch seconds
        self._pending: list[tuple[float, int, Callable[[], None]]] = []
        self.generation = 0  # moves when a race or an event does, so that kept rows are not stale
        self._versions = 0
        self.next_registration_id = 92_000_000 + seed % 1000
        self.next_person = 1
        self.rosters = Rosters(self)

    # Publication

    def settle(self) -> None:
        """Publish what is due by now. Called before every read and every change."""
        now = self.clock.time()
        while self._pending and self._pending[0][0] <= now:
            heapq.heappop(self._pending)[2]()

    def publish(self, action: Callable[[], None], published_after: float | None = None) -> None:
        """Let readers see a change, at once or `published_after` simulated seconds from now."""
        delay = self.quirks.publication_delay_seconds if published_after is None else published_after
        if delay <= 0:
            action()
        else:
            self._versions += 1
            heapq.heappush(self._pending, (self.clock.time() + delay, self._versions, action))

    def _show(self, registration: Registration, version: Version, changed_at: int) -> None:
        old = registration.shown
        if old is not None and old.number >= version.number:
            return
        number = registration.registration_id
        if number in self.lingering:
            self._forget(number, self.lingering[number])
        if version.status != ACTIVE and (before := self.still_removed.pop(number, None)):
            self.indexes[before.event_id].removed.discard(number, before.last_modified)
        if old is not None and (listing := self.indexes[old.event_id].listing(old)):
            lingers = self.quirks.removed_stays_listed_seconds
            if lingers > 0 and old.status == ACTIVE and version.status == REMOVED:
                self.lingering[number] = old
                self.publish(lambda: self._forget(number, old), lingers)
            elif self.quirks.restored_stays_removed and old.status == REMOVED and version.status == ACTIVE:
                self.still_removed[number] = old
            else:
                listing.discard(number, old.last_modified)
        registration.shown = version
        if listing := self.indexes[version.event_id].listing(version):
            listing.add(number, version.last_modified)
        self.rosters.follow(registration, old, changed_at)

    def _forget(self, number: int, old: Version) -> None:
        if self.lingering.get(number) is old:
            del self.lingering[number]
            self.indexes[old.event_id].active.discard(number, old.last_modified)

    def _change(
        self,
        registration: Registration,
        *,
        published_after: float | None = None,
        moves: bool = True,
        bib_num: Any = ABSENT,
        patch: dict[str, Any] | None = None,
        forget: Collection[str] = (),
        status: str | None = None,
        reason: str | None = None,
        new_id: int | None = None,
        event_id: int | None = None,
    ) -> None:
        self.settle()
        old = registration.head
        self._versions += 1
        now = int(self.clock.shown())
        kept = {key: value for key, value in old.patch.items() if key not in forget} if forget else old.patch
        version = Version(
            self._versions,
            event_id or old.event_id,
            now if moves else old.last_modified,
            old.bib_num if bib_num is ABSENT else bib_num,
            {**kept, **patch} if patch else kept,
            status or old.status,
            reason,
            new_id,
        )
        if status is None:
            version.reason, version.new_id = old.reason, old.new_id
        registration.head = version
        self.publish(lambda: self._show(registration, version, now), published_after)

    # What is known of a registration

    def fields_of(self, registration: Registration, version: Version) -> dict[str, Any]:
        """
        Return all fields, flat, as they stand in `version`.

        Money is whole cents unless it was given as text; missing keys are ABSENT; `imported` is a
        bool. Keys are USER_FIELDS, MONEY_FIELDS and PLAIN_FIELDS, and what was edited besides. The
        team's are those of the team as readers see it now, whatever the version.
        """
        event = self.events[version.event_id]
        flat = people.person(self.seed, registration.who)
        patch = version.patch
        if "imported" in patch:
            imported = patch["imported"] in (True, "T")
        else:
            imported = people.is_imported(self.seed, registration.registration_id)
        team = self.rosters.team_of(registration, version)
        more = people.entry(self.seed, registration, event, self.races[event.race_id], imported, team)
        if imported:
            flat["user_id"] = None
            flat["email"] = ABSENT
            flat["middle_name"] = None
            if registration.who & 1:
                flat["dob"] = None
                flat["gender"] = ABSENT
                flat["street"], flat["city"], flat["state"], flat["zipcode"] = None, "", "", ""
        flat.update(more)
        bib = version.bib_num
        flat["bib_num"] = bib
        flat["chip_num"] = str(bib) if bib is not None and event.chip_is_bib else None
        if patch:
            flat.update(patch)
            if "team_id" in patch and self.rosters.is_known(patch["team_id"]):
                flat["team_id"] = more["team_id"]  # none, once that team is removed
        if "age" not in patch:
            start = event.start
            flat["age"] = people.age_on(flat["dob"], start.year, start.month, start.day)
        return flat

    def status(self, registration_id: int) -> str:
        """Return how it stands: active, removed or vanished, published or not."""
        return self.registrations[registration_id].head.status

    def bib(self, registration_id: int) -> Any:
        """Return the bib as it stands, published or not."""
        return self.registrations[registration_id].head.bib_num

    def active(self, event_id: int) -> list[int]:
        """Return the active registrations of an event as readers see them, ascending."""
        with self.lock:
            self.settle()
            listed = self.indexes[event_id].active.ids
            return [number for number in listed if number not in self.lingering]
