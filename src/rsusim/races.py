"""
Races and events as answers show them (sections 6 and 7).

`GET races` shows only the current set of events of each race, `GET race/:id` those of all years.
"""

from collections.abc import Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Final

from rsusim import wire
from rsusim.params import Params
from rsusim.quirks import Quirks
from rsusim.records import Event, EventDays, Race

if TYPE_CHECKING:
    from rsusim.world import World

UNKNOWN_FIELD: Final = {"zz_unknown": {"added": "2026", "list": [1, "2", None]}}
SORTS: Final = frozenset({"name", "date", "end_date"})
_NEVER: Final = date(9999, 12, 31)


def today_of(world: "World", race: Race) -> date:
    return datetime.fromtimestamp(world.clock.time(), race.zone).date()


def next_days(world: "World", race: Race) -> EventDays | None:
    """Return the first set of days not over yet, in the race's zone."""
    today = today_of(world, race)
    coming = [days for days in _published(world, race) if days.last >= today]
    return min(coming, key=lambda days: days.first, default=None)


def last_days(world: "World", race: Race) -> EventDays | None:
    """Return the latest set of days that is over."""
    today = today_of(world, race)
    past = [days for days in _published(world, race) if days.last < today]
    return max(past, key=lambda days: days.first, default=None)


def _published(world: "World", race: Race) -> list[EventDays]:
    return [days for days in race.days if any(world.events[number].published for number in days.event_ids)]


def current_events(world: "World", race: Race) -> list[int]:
    """Return the events of the coming year, or else of the last one."""
    days = next_days(world, race) or last_days(world, race)
    if days is None:
        return []
    return [number for number in days.event_ids if world.events[number].published]


def select(world: "World", params: Params, account: str | None) -> list[Race]:
    """Return the races a `GET races` lists, filtered and sorted, before paging."""
    start, end = params.day("start_date", "today"), params.day("end_date")
    start_only = params.flag("search_start_date_only")
    partner_only = params.flag("only_partner_races")
    created_bounds = params.day("created_since"), params.day("created_on_or_before")
    modified_bounds = params.day("modified_since"), params.day("modified_on_or_before")
    keys = params.sort(SORTS, "name ASC")
    races = []
    for race in world.races.values():
        if race.removed:
            continue
        if account is not None:
            if not world.may_read(account, race.race_id):
                continue
        elif partner_only or race.is_draft_race or race.is_private_race:
            continue
        if not _in_dates(world, race, start, end, start_only) or not _searched(race, params):
            continue
        created = datetime.fromtimestamp(race.created, wire.EASTERN).date()
        modified = datetime.fromtimestamp(race.last_modified, wire.EASTERN).date()
        if not _within(created, *created_bounds):
            continue
        if not _within(modified, *modified_bounds):
            continue
        races.append(race)
    races.sort(key=lambda race: race.race_id)
    for key, descending in reversed(keys):
        races.sort(key=lambda race, key=key: _sort_key(world, race, key), reverse=descending)  # type: ignore[misc]
    return races


def _in_dates(world: "World", race: Race, start: date | None, end: date | None, start_only: bool) -> bool:
    days = _published(world, race)
    if not days:
        return end is None  # a race without dates yet is still to come
    return any(
        _within(row.first if start_only else row.last, start, None) and _within(row.first, None, end)
        for row in days
    )


def _within(day: date, low: date | None, high: date | None) -> bool:
    return (low is None or day >= low) and (high is None or day <= high)


def _searched(race: Race, params: Params) -> bool:
    name = params.text("name")
    if name is not None and name.lower() not in race.name.lower():
        return False
    for parameter, key in (("city", "city"), ("state", "state"), ("country", "country_code")):
        wanted = params.text(parameter)
        if wanted is not None and wanted.lower() != str(race.address.get(key, "")).lower():
            return False
    return True


def _sort_key(world: "World", race: Race, key: str) -> tuple[str, date]:
    if key == "name":
        return race.name.lower(), _NEVER
    days = next_days(world, race) or last_days(world, race)
    if days is None:
        return "", _NEVER
    return "", days.first if key == "date" else days.last


def race_object(
    world: "World",
    race: Race,
    quirks: Quirks,
    params: Params,
    *,
    events: Sequence[int] | None,
    single: bool = False,
) -> dict[str, Any]:
    """Return a race's fields in the order of the samples; `events` None leaves them out."""
    coming, past = next_days(world, race), last_days(world, race)
    row: dict[str, Any] = {
        "race_id": race.race_id,
        "name": race.name,
        "last_date": wire.padded_day(past.first if past else None),
        "last_end_date": wire.padded_day(past.last if past else None),
        "next_date": wire.padded_day(coming.first if coming else None),
        "next_end_date": wire.padded_day(coming.last if coming else None),
        "is_draft_race": wire.flag(race.is_draft_race),
        "is_private_race": wire.flag(race.is_private_race),
        "is_registration_open": wire.flag(race.is_registration_open and coming is not None),
        "created": wire.eastern_minute(race.created),
        "last_modified": wire.eastern_minute(race.last_modified),
        "description": race.description,
        "url": race.url,
        "external_race_url": race.external_race_url,
        "external_results_url": race.external_results_url,
        "fb_page_id": race.fb_page_id,
        "fb_event_id": race.fb_event_id,
        "address": race.address,
        "timezone": race.timezone,
        "logo_url": race.logo_url,
    }
    if single:
        row["can_use_registration_api"] = wire.flag(race.can_use_registration_api)
    row["real_time_notifications_enabled"] = wire.flag(race.real_time_notifications_enabled)
    if params.flag("include_event_days"):
        row["race_event_days"] = [
            {
                "race_event_days_id": days.race_event_days_id,
                "start_date": wire.midnight(days.first),
                "end_date": wire.midnight(days.last),
            }
            for days in _published(world, race)
        ]
    if events is not None:
        giveaways = params.flag("include_giveaway_details")
        row["events"] = [event_object(world.events[number], quirks, giveaways) for number in events]
    if params.flag("include_questions"):
        row["questions"] = race.questions
    row.update(race.extra)
    if quirks.unknown_fields:
        row.update(UNKNOWN_FIELD)
    if not quirks.absent_keys or race.race_id % 3 or race.is_private_race:
        return row
    del row["is_private_race"]  # absent in older recordings (section 6)
    return row


def event_object(event: Event, quirks: Quirks, giveaways: bool) -> dict[str, Any]:
    """Return an event's fields; start and end are in the race's zone, the rest is Eastern."""
    row: dict[str, Any] = {
        "event_id": event.event_id,
        "race_event_days_id": event.race_event_days_id,
        "name": event.name,
        "details": event.details,
        "start_time": wire.minute(event.start),
        "end_time": wire.minute(event.end),
        "age_calc_base_date": None,
        "registration_opens": wire.eastern_minute(event.registration_opens),
        "event_type": event.event_type,
        "distance": event.distance,
        "volunteer": wire.flag(event.volunteer),
        "require_dob": wire.flag(event.require_dob),
        "require_phone": wire.flag(event.require_phone),
        "registration_periods": [
            {
                "registration_opens": wire.eastern_minute(period.opens),
                "registration_closes": wire.eastern_minute(period.closes),
                "race_fee": wire.money(period.race_fee),
                "processing_fee": wire.money(period.processing_fee),
            }
            for period in event.periods
        ],
        "sub_event_ids": event.sub_event_ids,
        "giveaway": event.giveaway,
    }
    if event.participant_cap is not None:
        row["participant_cap"] = event.participant_cap
    if event.previous_year_event_id is not None:
        row["previous_year_event_id"] = event.previous_year_event_id
    if giveaways:
        row["giveaway_options"] = [
            {
                "giveaway_option_id": option_id,
                "giveaway_option_text": text,
                "additional_cost": wire.money(cents),
            }
            for option_id, text, cents in event.giveaway_options
        ]
    row.update(event.extra)
    if quirks.unknown_fields:
        row.update(UNKNOWN_FIELD)
    return row


def events_of(world: "World", race: Race, params: Params) -> list[int]:
    """Return the events a `GET race/:id` shows: all years, unless narrowed (section 7)."""
    numbers = [number for number in race.event_ids if world.events[number].published]
    days = params.integer("race_event_days_id")
    if days is not None:
        numbers = [n for n in numbers if world.events[n].race_event_days_id == days]
    if params.flag("future_events_only"):
        # When an event stops being future on its own day is unknown; here, when it starts.
        now = world.clock.time()
        numbers = [n for n in numbers if world.events[n].starts_at > now]
    if params.flag("most_recent_events_only"):
        recent = set(current_events(world, race))
        numbers = [n for n in numbers if n in recent]
    return numbers
