"""
All that happens to registrations: sign-ups, edits, bibs, transfers, removals.

Keeps true: registration ids ascend over the whole world in creation order, and an id never names
another registration. Every method may be called from any thread.
"""

from collections.abc import Iterable
from typing import Any

from rsusim import people
from rsusim.records import (
    ABSENT,
    ACTIVE,
    EDITABLE,
    NO_PATCH,
    REMOVED,
    VANISHED,
    Registration,
    Version,
)
from rsusim.state import State


class Registrations(State):
    """What tests and `life` do; `World` adds races, accounts and time."""

    def register(
        self,
        event: int,
        *,
        published_after: float | None = None,
        person: int | None = None,
        registered_at: float | None = None,
        **fields: Any,
    ) -> int:
        """
        Sign somebody up now and return the registration id.

        A bundle also makes a registration in each of its sub-events (section 7).

        Args:
            event: Event id.
            published_after: Simulated seconds until readers see it.
            person: Number of the person; None is somebody new.
            registered_at: Epoch seconds, when not now: an old registration loaded later.
            fields: Flat field values that replace the derived ones; money in cents or as text.
        """
        _check(fields)
        with self.lock:
            self.settle()
            if person is None:
                person = self.next_person
                self.next_person += 1
            at = int(self.clock.shown() if registered_at is None else registered_at)
            number = self._create(event, person, at, None, fields, published_after)
            for sub_event in self.events[event].sub_event_ids:
                child = self._create(sub_event, person, at, number, fields, published_after)
                self.children.setdefault(number, []).append(child)
            return number

    def _create(
        self,
        event: int,
        person: int,
        at: int,
        parent: int | None,
        fields: dict[str, Any],
        published_after: float | None,
    ) -> int:
        if event not in self.events:
            raise KeyError(f"no event {event}")
        patch = {key: value for key, value in fields.items() if key != "bib_num"}
        self._versions += 1
        version = Version(self._versions, event, at, fields.get("bib_num"), patch or NO_PATCH)
        number = self.next_registration_id
        self.next_registration_id += 1 + people.mix(number ^ self.seed) % 3
        registration = Registration(number, person, at, parent, version)
        self.registrations[number] = registration
        if isinstance(patch.get("checkin_ts"), int):
            self._note_checkin(number, patch["checkin_ts"])
        self.publish(lambda: self._show(registration, version, at), published_after)
        return number

    def edit(self, registration_id: int, *, published_after: float | None = None, **fields: Any) -> None:
        """Change fields by their flat names; moves `last_modified`."""
        self._edit(registration_id, fields, published_after, self.quirks.edit_moves_last_modified)

    def edit_silently(
        self, registration_id: int, *, published_after: float | None = None, **fields: Any
    ) -> None:
        """Change fields and leave `last_modified` as it is (sections 11, 19.8)."""
        self._edit(registration_id, fields, published_after, False)

    def _edit(self, number: int, fields: dict[str, Any], published_after: float | None, moves: bool) -> None:
        _check(fields)
        patch = {key: value for key, value in fields.items() if key != "bib_num"}
        with self.lock:
            self._change(
                self.registrations[number],
                published_after=published_after,
                moves=moves,
                bib_num=fields.get("bib_num", ABSENT),
                patch=patch,
            )

    def set_raw(self, registration_id: int, raw: str | None, *, published_after: float | None = None) -> None:
        """Serve this text in place of the row until it is set to None; moves `last_modified`."""
        self._edit(registration_id, {"raw": raw}, published_after, True)

    def assign_bib(self, registration_id: int, bib: Any, *, published_after: float | None = None) -> None:
        """Give a bib; an int as a rule, any JSON value to be nasty. None takes it away."""
        moves = self.quirks.bib_moves_last_modified
        self._edit(registration_id, {"bib_num": bib}, published_after, moves)

    def clear_bib(self, registration_id: int, *, published_after: float | None = None) -> None:
        self.assign_bib(registration_id, None, published_after=published_after)

    def swap_bibs(self, a: int, b: int, *, published_after: float | None = None) -> None:
        """Exchange the bibs of two registrations, in the same instant."""
        with self.lock:
            bib_a, bib_b = self.bib(a), self.bib(b)
            self.assign_bib(a, bib_b, published_after=published_after)
            self.assign_bib(b, bib_a, published_after=published_after)

    def bulk_assign(self, event: int, first_bib: int, *, published_after: float | None = None) -> int:
        """Number all active registrations of an event in id order; return how many."""
        with self.lock:
            numbers = self.active(event)
            for bib, number in enumerate(numbers, first_bib):
                self.assign_bib(number, bib, published_after=published_after)
            return len(numbers)

    def check_in(self, registration_id: int) -> None:
        """Note a check-in now; it has its own timestamp and does not move `last_modified`."""
        with self.lock:
            now = int(self.clock.shown())
            self._edit(registration_id, {"checkin_ts": now}, None, False)
            self._note_checkin(registration_id, now)

    def _note_checkin(self, number: int, at: int) -> None:
        event = self.events[self.registrations[number].head.event_id]
        self.checkins.setdefault(event.race_id, {})[number] = at

    def transfer(
        self,
        registration_id: int,
        new_event: int,
        transfer_bib: bool = False,
        *,
        published_after: float | None = None,
    ) -> int:
        """Move to another event: the old id is removed as `transferred`, a new id is returned."""
        with self.lock:
            self.settle()
            old = self.registrations[registration_id]
            fields = {k: v for k, v in old.head.patch.items() if not _stays_behind(k)}
            fields.setdefault("imported", self.fields_of(old, old.head)["imported"])
            if transfer_bib:
                fields["bib_num"] = old.head.bib_num
            new_id = self.register(new_event, person=old.who, published_after=published_after, **fields)
            self._leave(registration_id, "transferred", published_after, new_id)
            return new_id

    def remove(
        self,
        registration_id: int,
        reason: str = "removed",
        *,
        published_after: float | None = None,
        new_registration_id: int | None = None,
    ) -> None:
        """Take out of the active list into the removed list; a bundle takes its parts along."""
        with self.lock:
            self._leave(registration_id, reason, published_after, new_registration_id)

    def _leave(self, number: int, reason: str, published_after: float | None, new_id: int | None) -> None:
        self._change(
            self.registrations[number],
            published_after=published_after,
            status=REMOVED,
            reason=reason,
            new_id=new_id,
        )
        for child in self.children.get(number, ()):
            if self.status(child) == ACTIVE:
                self._leave(child, reason, published_after, None)

    def clear(self, registration_id: int, *, published_after: float | None = None) -> None:
        """Undo a registration, as its owner may within 15 minutes (section 9)."""
        self.remove(registration_id, "cleared", published_after=published_after)

    def defer(
        self,
        registration_id: int,
        new_event: int | None = None,
        *,
        published_after: float | None = None,
    ) -> int | None:
        """Defer to a later year; with the quirk and a new event, an unrelated new id is made."""
        with self.lock:
            self.remove(registration_id, "deferred", published_after=published_after)
            if new_event is None or not self.quirks.deferral_makes_new:
                return None
            who = self.registrations[registration_id].who
            return self.register(new_event, person=who, published_after=published_after)

    def restore(self, registration_id: int, *, published_after: float | None = None) -> None:
        """Undo a removal: the same id is active again, changed now (section 11)."""
        with self.lock:
            self._change(
                self.registrations[registration_id],
                published_after=published_after,
                status=ACTIVE,
            )

    def move(self, registration_id: int, event: int, *, published_after: float | None = None) -> None:
        """Put a registration into another event under its own id, as organisers can."""
        with self.lock:
            self._change(self.registrations[registration_id], published_after=published_after, event_id=event)

    def vanish(self, registration_id: int, *, published_after: float | None = None) -> None:
        """Delete without a trace: in neither list (sections 11, 19.8)."""
        with self.lock:
            self._change(
                self.registrations[registration_id],
                published_after=published_after,
                status=VANISHED,
            )

    def populate(self, event: int, rows: Iterable[tuple[int, int, int, Any]]) -> int:
        """
        Load many registrations at once, published, and return how many.

        Args:
            event: Event id.
            rows: (person, registered at, last modified, bib), in order of registration.
        """
        with self.lock:
            listed: list[tuple[int, int]] = []
            number, seed, mix = self.next_registration_id, self.seed, people.mix
            for who, registered_at, last_modified, bib in rows:
                self._versions += 1
                version = Version(self._versions, event, last_modified, bib)
                registration = Registration(number, who, registered_at, None, version)
                registration.shown = version
                self.registrations[number] = registration
                listed.append((number, last_modified))
                number += 1 + mix(number ^ seed) % 3
            self.next_registration_id = number
            self.indexes[event].active.load(listed)
            self.rosters.forget(event)
            return len(listed)


def _stays_behind(field: str) -> bool:
    """Teams, check-in and chip stay with the old event (section 11)."""
    return field.startswith("team_") or field in ("checkin_ts", "chip_num", "raw")


def _check(fields: Iterable[str]) -> None:
    if unknown := sorted(set(fields) - EDITABLE):
        raise TypeError(f"unknown fields {unknown}; put what the reference lacks into extra={{}}")
