"""
The race list -> races with their events, and the counts of participants. Pure.

Event times are in the race's zone, `last_modified` is US Eastern, `next_date` a date. A race
without a zone, or with one nobody knows, is read as US Eastern; `timezone` keeps what was sent.
"""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec

from bibwire.api.answers import first_sign, without_bom
from bibwire.api.apart import step
from bibwire.api.distances import parse_distance
from bibwire.api.exact import decode_storable, is_bounded, plain_int
from bibwire.api.fields import take, take_text
from bibwire.api.outline import MOST_ROWS, is_light, outline
from bibwire.domain.errors import AnswerUnreadable, BadRecord
from bibwire.domain.instants import EASTERN, parse_moment, parse_us_date, race_zone, zone_named
from bibwire.domain.records import Dated, Event, Race, RacePage, UnreadableRow

# A thousand races have some thousand events, and a series a hundred.
_MOST_EVENTS: Final = 100_000


class _RaceList(msgspec.Struct):
    races: list[msgspec.Raw]


class _Counts(msgspec.Struct):
    participant_counts: list[dict[str, Any]]


_race_list: Final = msgspec.json.Decoder(_RaceList)
_counts: Final = msgspec.json.Decoder(_Counts)


def decode_race_list(body: bytes, dated: Dated) -> RacePage:
    """
    Return one page of the race list.

    A race that cannot be read goes to `unreadable`, and so does an event, whose race stays. What
    could not be kept as sent of a race that is there stands in `faults`.

    Raises:
        AnswerUnreadable: If the body is no race list at all.
    """
    races: list[Race] = []
    unreadable: list[UnreadableRow] = []
    faults: list[UnreadableRow] = []
    unread: list[int | None] = []
    events = 0
    for raw in _race_slices(without_bom(body)):
        step()
        try:
            races.append(race := _race(raw, unreadable, faults))
            events += len(race.events)
        except BadRecord as error:
            unreadable.append(UnreadableRow(str(error), raw))
            unread.append(_race_id_in(raw))
        if events + len(unreadable) > _MOST_EVENTS:
            raise AnswerUnreadable("the vendor's answer has far more events than a list of races can")
    return RacePage(
        races=races, unreadable=unreadable, dated=dated, faults=faults, unread_race_ids=tuple(unread)
    )


def decode_race(body: bytes, dated: Dated) -> RacePage:
    """
    Return the one race of a race's own page, with its events of all years.

    Raises:
        AnswerUnreadable: If the body is not one race.
    """
    body = without_bom(body)
    # One client has seen an array around it.
    page = decode_race_list(b'{"races":%b}' % (body if first_sign(body) == b"[" else b"[%b]" % body), dated)
    if len(page.races) != 1:
        raise AnswerUnreadable("the vendor's answer is not a race")
    return page


def decode_counts(body: bytes) -> dict[int, int]:
    """
    Return the vendor's number of participants by event.

    Raises:
        AnswerUnreadable: If anything in it is not an event and a number: a count is used to
            decide that rows are gone, so half of one is worse than none.
    """
    counts: dict[int, int] = {}
    body = without_bom(body)
    try:
        rows = _counts.decode(body).participant_counts if is_bounded(body) else None
    except (ValueError, RecursionError):
        rows = None
    for row in rows or ():
        event_id = plain_int(row.get("event_id"))
        count = plain_int(row.get("num_participants"))
        if event_id is None or count is None or count < 0:
            rows = None
            break
        if counts.setdefault(event_id, count) != count:
            rows = None
            break
    if rows is None:
        raise AnswerUnreadable("the vendor's answer is not a list of participant counts")
    return counts


def count_races(page: RacePage) -> int:
    """Return how many races the page's answer held, readable or not."""
    return len(page.races) + len(page.unread_race_ids)


_RACE_ID: Final = re.compile(rb'"race_id"[ ]?:[ ]?"?([0-9]{1,18})(?![0-9])')


def _race_id_in(raw: bytes) -> int | None:
    """Return the id a race that cannot be read seems to have."""
    found = _RACE_ID.search(raw)
    return int(found[1]) if found is not None else None


def _race_slices(body: bytes) -> list[bytes]:
    slices = _slices(body) if is_light(body) else None
    if slices is not None and len(slices) > MOST_ROWS:
        raise AnswerUnreadable("the vendor's answer has far more races than were asked for")
    if slices is not None:
        return [bytes(slice_) for slice_ in slices]
    parts = outline(body)
    slices = _slices(parts.frame) if parts is not None else None
    if parts is None or slices is None:
        raise AnswerUnreadable("the vendor's answer is not a list of races")
    return [parts.row(slice_) for slice_ in slices]


def _slices(document: bytes) -> list[msgspec.Raw] | None:
    try:
        return _race_list.decode(document).races
    except (ValueError, RecursionError):
        return None


def _race(raw: bytes, unreadable: list[UnreadableRow], faults: list[UnreadableRow]) -> Race:
    record, problems = decode_storable(raw)
    wrapped = record.get("race")
    if "race_id" not in record and type(wrapped) is dict:
        record = wrapped
    race_id = plain_int(record.pop("race_id", None))
    if race_id is None or race_id <= 0:
        raise BadRecord("the race_id is missing or not a positive 64-bit number")
    name = take_text(record, "name")
    timezone = take_text(record, "timezone")
    url = take_text(record, "url")
    address = record.pop("address", None)
    if address is not None and type(address) is not dict:
        record["address"] = address
        address = None
    zone = race_zone(timezone)
    reasons = [f"race {race_id} is kept without it: {'; '.join(problems)}"] if problems else []
    if timezone and zone_named(timezone) is None:
        reasons.append(
            f"the time zone of race {race_id} is not known: its times are read as US Eastern, and it is "
            "polled as on a race day wherever on Earth that may be"
        )
    if reasons:
        # Together, because an entry of the quarantine is known by its text.
        faults.append(UnreadableRow("; ".join(reasons), raw))

    events: list[Event] = []
    sent = record.pop("events", None)
    if type(sent) is list:
        for item in sent:
            step()
            try:
                events.append(_event(item, race_id, zone))
            except BadRecord as error:
                reason = f"an event of race {race_id}: {error}"
                unreadable.append(UnreadableRow(reason, raw))
    elif sent is not None:
        record["events"] = sent
    return Race(
        race_id=race_id,
        name=name or "",
        timezone=timezone,
        url=url,
        address=address,
        next_date=take(record, "next_date", _us_date),
        last_modified_at=_instant(record, "last_modified", EASTERN),
        additional_data=record,
        events=tuple(events),
    )


def _event(item: object, race_id: int, zone: ZoneInfo) -> Event:
    if type(item) is not dict:
        raise BadRecord("it is not a JSON object")
    record: dict[str, Any] = item
    event_id = plain_int(record.pop("event_id", None))
    if event_id is None or event_id <= 0:
        raise BadRecord("the event_id is missing or not a positive 64-bit number")
    distance = take_text(record, "distance")
    return Event(
        event_id=event_id,
        race_id=race_id,
        name=take_text(record, "name") or "",
        starts_at=_instant(record, "start_time", zone),
        ends_at=_instant(record, "end_time", zone),
        distance=distance,
        distance_m=parse_distance(distance) if distance else None,
        event_type=take_text(record, "event_type"),
        additional_data=record,
    )


def _us_date(value: object) -> date | None:
    return parse_us_date(value) if type(value) is str else None


def _instant(record: dict[str, Any], key: str, zone: ZoneInfo) -> datetime | None:
    """Take a wall time of that zone; what cannot be rebuilt from the instant stays as sent."""
    sent = record.pop(key, None)
    if sent is None or sent == "":
        return None
    moment = parse_moment(sent, zone) if type(sent) is str else None
    if moment is None or moment.in_gap:
        record[key] = sent
    return None if moment is None else moment.instant
