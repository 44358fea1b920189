"""
What flows between vendor, engine and database.

Every datetime is aware and in UTC. Ids are the vendor's and fit 64 bits. A value the
vendor sent that does not fit its column stays, as sent, in `additional_data` under the
path it had, and the column is None: nothing is dropped, nothing is guessed.
Values inside the dicts are what JSON can hold, with Decimal for every non-integer number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import NamedTuple

Json = None | bool | int | Decimal | str | list["Json"] | dict[str, "Json"]
JsonObject = dict[str, Json]


@dataclass(frozen=True, slots=True)
class Event:
    """
    One distance in one year.

    `starts_at` and `ends_at` are the race zone's wall times resolved to instants;
    `distance` is the text as typed, `distance_m` metres where that could be read.
    """

    event_id: int
    race_id: int
    name: str
    starts_at: datetime | None
    ends_at: datetime | None
    distance: str | None
    distance_m: Decimal | None
    event_type: str | None
    additional_data: JsonObject


@dataclass(frozen=True, slots=True)
class Race:
    """The organiser's lasting page, with the events the listing showed."""

    race_id: int
    name: str
    timezone: str | None
    url: str | None
    address: JsonObject | None
    next_date: date | None
    last_modified_at: datetime | None
    additional_data: JsonObject
    events: tuple[Event, ...]


@dataclass(slots=True)
class Registration:
    """
    One person in one event, as the mirror's table `participants` holds it.

    Registrations share their `payment_info` where it is the same: nobody writes into it.
    """

    registration_id: int
    event_id: int | None
    user_id: int | None
    first_name: str | None
    middle_name: str | None
    last_name: str | None
    email: str | None
    phone: str | None
    dob: date | None
    gender: str | None
    age: int | None
    address: JsonObject | None
    city: str | None
    state: str | None
    country_code: str | None
    bib_num: int | None
    chip_num: str | None
    registered_at: datetime | None
    last_modified_at: datetime | None
    team_info: JsonObject | None
    payment_info: JsonObject | None
    additional_data: JsonObject


@dataclass(frozen=True, slots=True)
class Removal:
    """
    A registration that left its event, as `removed-participants` tells it.

    `removed_at` is the vendor's instant (`last_modified_ts`). `registration` is what the
    removed row says of the person: it has no bib, and an event only where the answer's
    envelope names one. `said` are the columns it speaks of, those it says are empty included.
    """

    registration_id: int
    removed_at: datetime
    reason: str
    new_registration_id: int | None
    registration: Registration
    said: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Team:
    """
    A team of one race, as the mirror's table `teams` holds it.

    `event_id` is None where neither the row nor its answer names it and several events were asked
    for. A bib that is not just its plain digits stands in `additional_data` as sent, too.
    """

    team_id: int
    event_id: int | None
    name: str | None
    team_type_id: int | None
    gender: str | None
    bib_num: int | None
    member_count: int | None
    last_modified_at: datetime | None
    additional_data: JsonObject


class RawRow(NamedTuple):
    """A record not decoded yet: its ids, and its JSON text as sent."""

    registration_id: int
    event_id: int | None
    raw: bytes


class UnreadableRow(NamedTuple):
    """A record of which not even the ids can be read."""

    reason: str
    raw: bytes


class Dated(NamedTuple):
    """
    When an answer was given, by the vendor's clock.

    `answered_at` is its `Date`. `as_of`, in whole seconds, is no later than the moment it was
    asked for: nothing that it says is older. Both are guesses, early ones, where the answer had no Date,
    or one that is not believed. `claimed` is the `as_of` of a Date that is believed as soon as the
    answer itself shows changes as late.
    """

    answered_at: datetime
    as_of: datetime
    claimed: datetime | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """
    One answer of a keyset-paged listing; rows ascend by registration id.

    It is a complete listing of the ids in (`after`, `through`]; `through` is None on the
    last page, which is complete to the end. `answered_at`, `as_of` and `claimed` are as in `Dated`.
    """

    rows: Sequence[RawRow]
    unreadable: Sequence[UnreadableRow]
    answered_at: datetime
    after: int
    through: int | None
    as_of: datetime
    claimed: datetime | None = None

    @property
    def is_last(self) -> bool:
        return self.through is None


@dataclass(frozen=True, slots=True)
class RacePage:
    """
    One page of the race list. A race or an event that cannot be read stands in `unreadable`.

    `faults` are what could not be kept as sent of races that are in `races`. `unread_race_ids` has an
    entry for each race that could not be read, None where not even its id can be told.
    """

    races: Sequence[Race]
    unreadable: Sequence[UnreadableRow]
    dated: Dated
    faults: Sequence[UnreadableRow] = ()
    unread_race_ids: Sequence[int | None] = ()


@dataclass(frozen=True, slots=True)
class TeamPage:
    """
    One page of a list of teams; pages are numbered from 1.

    Each team stands once in `teams`; `faults` are what could not be kept as sent of them. `full` is
    how many rows make a full page, as far as the pages up to this one tell. Pages are no complete
    listing by themselves: what changes meanwhile moves others from one to the next.
    """

    teams: Sequence[Team]
    unreadable: Sequence[UnreadableRow]
    number: int
    full: int
    is_last: bool
    faults: Sequence[UnreadableRow] = ()
