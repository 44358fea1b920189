"""
What a perfect mirror would hold: the state readers see at this moment, in plain Python values.

Instants are epoch seconds (int), money is Decimal dollars (or the raw text a test gave), a missing
key is None, `imported` is a bool, and money, question answers and add-ons are included whatever a
request would have to ask for. An event in `RaceTruth.events` is any event of any year; races whose
access was withdrawn are not listed. A registration whose publication is still to come is not here.
Teams are a listing of their own, as they are for the vendor (section 14).
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from rsusim import people
from rsusim.races import current_events
from rsusim.records import ABSENT, MONEY_FIELDS, OTHER_FIELDS, Registration, Version

if TYPE_CHECKING:
    from rsusim.world import World


@dataclass(frozen=True, slots=True)
class RegistrationTruth:
    """
    An active registration.

    Attributes:
        registered_at: Epoch seconds; the wire shows whole minutes (section 5).
        last_modified: Epoch seconds.
        fields: Every field of section 8 by its flat name, with `question_responses` and
            `participant_addons`, and under `extra` what a test added.
    """

    registration_id: int
    event_id: int
    bib_num: Any
    registered_at: int
    last_modified: int
    via_bundle: bool
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RemovedTruth:
    """A row of the removed list (section 9)."""

    registration_id: int
    event_id: int
    reason: str
    new_registration_id: int | None
    registered_at: int
    last_modified: int
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class EventTruth:
    """
    An event with its registrations, each list ascending by id.

    Attributes:
        current: It is in the set that GET races shows.
        start, end: Local text `YYYY-MM-DDTHH:MM:SS` in the race's zone; `starts_at` and `ends_at`
            are the instants.
    """

    event_id: int
    race_id: int
    race_event_days_id: int
    name: str
    start: str
    starts_at: int
    end: str | None
    ends_at: int | None
    distance: str | None
    event_type: str
    volunteer: bool
    sub_event_ids: tuple[int, ...]
    current: bool
    active: tuple[RegistrationTruth, ...]
    removed: tuple[RemovedTruth, ...]


@dataclass(frozen=True, slots=True)
class RaceTruth:
    """A race the account can read, with all its events."""

    race_id: int
    name: str
    timezone: str
    url: str
    address: dict[str, Any]
    is_draft_race: bool
    is_private_race: bool
    last_modified: int
    events: tuple[EventTruth, ...]


def truth_of(world: "World", account: str) -> list[RaceTruth]:
    """Return the races of `account`, ascending by id."""
    truths = []
    for race_id in sorted(world.races):
        race = world.races[race_id]
        if race.removed or not world.may_read(account, race_id):
            continue
        current = set(current_events(world, race))
        truths.append(
            RaceTruth(
                race_id=race_id,
                name=race.name,
                timezone=race.timezone,
                url=race.url,
                address=dict(race.address),
                is_draft_race=race.is_draft_race,
                is_private_race=race.is_private_race,
                last_modified=race.last_modified,
                events=tuple(
                    _event(world, number, number in current)
                    for number in race.event_ids
                    if world.events[number].published
                ),
            )
        )
    return truths


def _event(world: "World", number: int, current: bool) -> EventTruth:
    event = world.events[number]
    index = world.indexes[number]
    zone = world.races[event.race_id].zone
    end = event.end
    return EventTruth(
        event_id=number,
        race_id=event.race_id,
        race_event_days_id=event.race_event_days_id,
        name=event.name,
        start=event.start.isoformat(),
        starts_at=event.starts_at,
        end=end.isoformat() if end else None,
        ends_at=int(end.replace(tzinfo=zone).timestamp()) if end else None,
        distance=event.distance,
        event_type=event.event_type,
        volunteer=event.volunteer,
        sub_event_ids=tuple(event.sub_event_ids),
        current=current,
        active=tuple(_active(world, row) for row in index.active.ids if row not in world.lingering),
        removed=tuple(_removed(world, row) for row in index.removed.ids if row not in world.still_removed),
    )


def _active(world: "World", number: int) -> RegistrationTruth:
    registration, version = _shown(world, number)
    return RegistrationTruth(
        registration_id=number,
        event_id=version.event_id,
        bib_num=version.bib_num,
        registered_at=registration.registered_at,
        last_modified=version.last_modified,
        via_bundle=registration.parent is not None,
        fields=plain_fields(world, registration, version),
    )


def _removed(world: "World", number: int) -> RemovedTruth:
    registration, version = _shown(world, number)
    return RemovedTruth(
        registration_id=number,
        event_id=version.event_id,
        reason=version.reason or "removed",
        new_registration_id=version.new_id,
        registered_at=registration.registered_at,
        last_modified=version.last_modified,
        fields=plain_fields(world, registration, version),
    )


def _shown(world: "World", number: int) -> tuple[Registration, Version]:
    registration = world.registrations[number]
    assert registration.shown is not None, "a listed registration is published"
    return registration, registration.shown


def plain_fields(world: "World", registration: Registration, version: Version) -> dict[str, Any]:
    """Return all fields as plain values: no ABSENT, money as Decimal dollars."""
    flat = world.fields_of(registration, version)
    plain = {key: None if value is ABSENT else value for key, value in flat.items()}
    for name in MONEY_FIELDS:
        cents = plain[name]
        if isinstance(cents, int):
            plain[name] = Decimal(cents) / 100
    race = world.races[world.events[version.event_id].race_id]
    number = registration.registration_id
    for name in OTHER_FIELDS:
        plain.setdefault(name, None)
    if "question_responses" not in version.patch:
        plain["question_responses"] = [
            {"question_id": q, "question_text": text, "answer": answer}
            for q, text, answer in people.answers_of(world.seed, number, version.event_id, race)
        ]
    if "participant_addons" not in version.patch:
        plain["participant_addons"] = [
            {"addon_id": a, "addon_name": name, "quantity": n, "amount": Decimal(cents) / 100}
            for a, name, n, cents in people.addons_of(world.seed, number, race)
        ]
    return plain


def teams_truth_of(world: "World", account: str, race: int | None = None) -> list[dict[str, Any]]:
    """
    Return the teams of `account`, or of one race of it, by race, event and order of making.

    Each has the keys of section 14 with plain values, and `race_id`, `event_id`, `team_type` and
    `registration_ids`: its active members, ascending.
    """
    return [
        {
            "race_id": race_id,
            "event_id": event_id,
            "team_id": row.team.team_id,
            "team_name": row.team.team_name,
            "team_type_id": row.team.team_type_id,
            "team_type": row.team.team_type,
            "team_age_restriction_id": row.team.team_age_restriction_id,
            "team_gender": row.team.team_gender,
            "team_bib_num": row.team.team_bib_num,
            "team_member_current_count": len(row.members),
            "last_modified_ts": row.last_modified,
            "registration_ids": list(row.members),
        }
        for race_id, record in sorted(world.races.items())
        if not record.removed and world.may_read(account, race_id) and race in (None, race_id)
        for event_id in record.event_ids
        if world.events[event_id].published
        for row in world.rosters.standings(event_id)
    ]
