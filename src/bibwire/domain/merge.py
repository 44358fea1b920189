"""
What one listed or removed registration does to the row stored for it.

Decisions are made on content, never on keys or timestamps alone; timestamps only decide
which of two contradicting lists is believed:

- The newest answer wins, and that is the one asked for last: the lease of a scope lets nobody
  ask for a page before the last one is stored. Instants do not order answers, because the clocks
  of the vendor's servers differ; a row ignored for its answer's date would be behind the cursor.
- Of an active row and a removal of the same registration the later one counts: lists can lag,
  and a row can come back. Where both are of the same second, the active one counts if the vendor
  lists it now (`still_listed`): neither time tells a removal after the last edit from a restore.
- Of a person who left, what the removed list says counts, for an edit just before is in no other
  list; what it does not speak of (bib, chip, event, team) stays as it was.
- A full listing that shows a removed registration which the complete removed list no longer
  holds restores it, however old its last modification (`merge_listed_again`).

Pure: no I/O and no clock. Every datetime is aware and in UTC.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any, NamedTuple

from bibwire.domain.instants import are_readings_of_one_time
from bibwire.domain.records import Json, Registration, Removal

ABSENT = "absent"

VENDOR_COLUMNS: tuple[str, ...] = tuple(
    name for name in Registration.__dataclass_fields__ if name != "registration_id"
)
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


class Kind(StrEnum):
    """Kinds of change, as table `changes` has them."""

    LOADED = "loaded"
    HISTORY_LOADED = "history_loaded"
    REGISTERED = "registered"
    EDITED = "edited"
    BIB_ASSIGNED = "bib_assigned"
    BIB_CHANGED = "bib_changed"
    BIB_CLEARED = "bib_cleared"
    REMOVED = "removed"
    RESTORED = "restored"


@dataclass(frozen=True, slots=True)
class Stored:
    """A row of `participants`: the registration and what we know about its standing."""

    registration: Registration
    race_id: int
    as_of: datetime
    removed_at: datetime | None = None
    removed_reason: str | None = None
    new_registration_id: int | None = None

    @property
    def bib_in_force(self) -> int | None:
        """The bib on the start list: a removed registration has none."""
        return self.registration.bib_num if self.removed_at is None else None


@dataclass(frozen=True, slots=True)
class Merge:
    """What to store, and the line the feed gets for it."""

    before: Stored | None
    after: Stored
    kind: Kind
    fields: dict[str, Json]
    modified_at: datetime | None

    @property
    def bib_from(self) -> int | None:
        return None if self.before is None else self.before.bib_in_force

    @property
    def bib_to(self) -> int | None:
        return self.after.bib_in_force


class BibMove(NamedTuple):
    """
    A listed, active registration whose record is as it was, but for its bib and its last change.

    What `merge_listed` would make of it, without the rest of the record: when everybody gets a bib
    at once, this is every row.
    """

    registration_id: int
    event_id: int
    bib_from: int | None
    bib_to: int | None
    modified_from: datetime | None
    modified_to: datetime

    @property
    def kind(self) -> Kind:
        return _kind_of_edit(self.bib_from, self.bib_to)

    @property
    def is_change(self) -> bool:
        """Whether anything moved."""
        return self.bib_from != self.bib_to or self.modified_from != self.modified_to

    @property
    def fields(self) -> dict[str, Json]:
        """What moved, as in a Merge."""
        fields: dict[str, Json] = {}
        if self.bib_from != self.bib_to:
            fields["bib_num"] = [self.bib_from, self.bib_to]
        if self.modified_from != self.modified_to:
            fields["last_modified_at"] = [_to_json(self.modified_from), _to_json(self.modified_to)]
        return fields


def merge_listed(
    before: Stored | None, listed: Registration, *, race_id: int, as_of: datetime
) -> Merge | None:
    """
    Merge a registration listed as active. None: nothing changes.

    Args:
        before: The row stored, None if there is none.
        race_id: The race it was listed for.
        as_of: Vendor instant that the answer which listed it is not older than.
    """
    if before is None:
        after = Stored(registration=listed, race_id=race_id, as_of=as_of)
        return _merge(None, after, Kind.REGISTERED, listed.last_modified_at)
    listed = _dated_as(before.registration, listed)
    if before.removed_at is not None:
        return _restored(before, listed, race_id, as_of) if _is_active_again(before, listed) else None
    if listed == before.registration and before.race_id == race_id:
        return None
    after = replace(before, registration=listed, race_id=race_id, as_of=max(before.as_of, as_of))
    kind = _kind_of_edit(before.registration.bib_num, listed.bib_num)
    return _merge(before, after, kind, listed.last_modified_at)


def merge_listed_again(before: Stored, listed: Registration, *, race_id: int, high: datetime) -> Merge | None:
    """
    Restore what a listing, begun at `high`, showed and the complete removed list no longer holds.

    None: something was stored since; what that listing showed is not the newest answer any more.
    """
    if before.removed_at is None or before.as_of > high:
        return None
    return _restored(before, _dated_as(before.registration, listed), race_id, high)


def merge_removal(
    before: Stored | None,
    removal: Removal,
    *,
    race_id: int,
    as_of: datetime,
    still_listed: bool = False,
) -> Merge | None:
    """
    Merge a row of the removed list. None: nothing changes.

    Args:
        before, race_id, as_of: As of `merge_listed`.
        still_listed: The vendor, asked after it listed the removal, lists it as active too.
    """
    standing: dict[str, Any] = {
        "removed_at": removal.removed_at,
        "removed_reason": removal.reason,
        "new_registration_id": removal.new_registration_id,
    }
    if before is None:
        after = Stored(registration=removal.registration, race_id=race_id, as_of=as_of, **standing)
        return _merge(None, after, Kind.REMOVED, removal.removed_at)
    if before.removed_at is None:
        if removal.removed_at < (before.registration.last_modified_at or _LONG_AGO):
            return None
        if still_listed and is_contested(before.registration.last_modified_at, removal):
            return None
    elif before.removed_reason != ABSENT and removal.removed_at < before.removed_at:
        return None
    registration = _as_removed(before.registration, removal)
    after = replace(before, registration=registration, as_of=max(before.as_of, as_of), **standing)
    if registration == before.registration and _standing(after) == _standing(before):
        return None
    return _merge(before, after, Kind.REMOVED, removal.removed_at)


def tells_more(before: Stored, removal: Removal) -> bool:
    """Say whether a removed row says another thing of the person than is stored."""
    return _as_removed(before.registration, removal) != before.registration


def _as_removed(before: Registration, removal: Removal) -> Registration:
    """Return a registration with what its removed row says of it."""
    told, left = removal.registration, dict(before.additional_data)
    user, told_user = left.get("user"), told.additional_data.get("user")
    if isinstance(user, dict) and removal.said:
        # What a column could not hold stood here; the column holds it now, or the row brings it anew.
        left["user"] = {name: value for name, value in user.items() if name not in removal.said}
    left |= {name: value for name, value in told.additional_data.items() if name != "user"}
    if isinstance(told_user, dict):
        known = left.get("user")
        left["user"] = (known if isinstance(known, dict) else {}) | told_user
    if not left.get("user"):
        left.pop("user", None)
    changed: dict[str, Any] = {name: getattr(told, name) for name in removal.said}
    if before.event_id is None:
        # A list of several events need not say whose event it was; a later one did.
        changed["event_id"] = told.event_id
    if before.registered_at is None:
        changed["registered_at"] = told.registered_at
    if told.payment_info:
        changed["payment_info"] = (before.payment_info or {}) | told.payment_info
    return replace(before, additional_data=left, **changed)


def is_contested(last_modified_at: datetime | None, removal: Removal) -> bool:
    """Say whether only the active list can tell if an active row of that time is removed."""
    return removal.removed_at == last_modified_at


def merge_absence(before: Stored, *, high: datetime) -> Merge | None:
    """
    Mark an active registration that a complete listing, begun at `high`, does not show.

    The caller has held the listing against the vendor's own count.
    """
    if before.removed_at is not None or before.as_of > high:
        return None
    after = replace(before, as_of=high, removed_at=high, removed_reason=ABSENT)
    return _merge(before, after, Kind.REMOVED, None)


def _is_active_again(before: Stored, listed: Registration) -> bool:
    assert before.removed_at is not None
    # Only a listing said that an absent one was gone; a newer listing takes that back.
    absent = before.removed_reason == ABSENT
    return absent or (listed.last_modified_at or _LONG_AGO) >= before.removed_at


def _restored(before: Stored, listed: Registration, race_id: int, as_of: datetime) -> Merge:
    after = replace(
        before,
        registration=listed,
        race_id=race_id,
        as_of=max(before.as_of, as_of),
        removed_at=None,
        removed_reason=None,
        new_registration_id=None,
    )
    return _merge(before, after, Kind.RESTORED, listed.last_modified_at)


def _dated_as(before: Registration, listed: Registration) -> Registration:
    """
    Keep the known reading of a time of registration that may be either of two.

    In the hour that happens twice `last_modified` tells which, until the first edit.
    """
    known, read = before.registered_at, listed.registered_at
    if known is None or read is None or known == read or not are_readings_of_one_time(known, read):
        return listed
    return replace(listed, registered_at=known)


def _kind_of_edit(before: int | None, after: int | None) -> Kind:
    if before == after:
        return Kind.EDITED
    if before is None:
        return Kind.BIB_ASSIGNED
    return Kind.BIB_CLEARED if after is None else Kind.BIB_CHANGED


def _standing(row: Stored) -> tuple[datetime | None, str | None, int | None]:
    return row.removed_at, row.removed_reason, row.new_registration_id


def _merge(before: Stored | None, after: Stored, kind: Kind, modified_at: datetime | None) -> Merge:
    old = {} if before is None else _promised(before)
    new = _promised(after)
    fields: dict[str, Json] = {
        name: [_to_json(old.get(name)), _to_json(value)]
        for name, value in new.items()
        if value != old.get(name)
    }
    return Merge(before=before, after=after, kind=kind, fields=fields, modified_at=modified_at)


def _promised(row: Stored) -> dict[str, Any]:
    values: dict[str, Any] = {name: getattr(row.registration, name) for name in VENDOR_COLUMNS}
    values["race_id"] = row.race_id
    values["removed_at"], values["removed_reason"], values["new_registration_id"] = _standing(row)
    return values


def _to_json(value: Any) -> Json:
    if isinstance(value, datetime | date):
        return value.isoformat()
    return value  # type: ignore[no-any-return]
