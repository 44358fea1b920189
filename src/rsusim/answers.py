"""
The methods a sync client calls, each from a call to the answer's JSON.

Checks run in the order of the quirk `error_order`, because which error wins when several apply is
not known (section 4). Everything here runs under the world's lock: an answer is one moment.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rsusim import wire
from rsusim.auth import Identity
from rsusim.errors import ApiError
from rsusim.faults import Fault
from rsusim.listings import Query, TeamQuery
from rsusim.log import RequestInfo
from rsusim.params import Params
from rsusim.quirks import Quirks
from rsusim.races import UNKNOWN_FIELD, current_events, events_of, race_object, select
from rsusim.records import ACTIVE, Race
from rsusim.rows import GROUP_SIZES, Options, Rows

if TYPE_CHECKING:
    from rsusim.world import World

YEAR_SECONDS: Final = 366 * 86_400
CHECKINS_PAGE: Final = 100
CHECKINS_MAX_PAGE: Final = 1250
RACES_PAGE: Final = 50


def _nothing() -> None:
    """A check that does not apply."""


@dataclass(slots=True)
class Call:
    """One call with all that its answer depends on."""

    world: "World"
    info: RequestInfo
    quirks: Quirks
    params: Params
    identity: Identity
    fault: Fault | None

    def encode(self, value: object) -> bytes:
        return wire.encode(value, self.quirks.wire_escapes)

    def check(self, *, rights: bool, event: bool = False, parse: Callable[[], object]) -> None:
        """
        Raise the first error that applies.

        Args:
            rights: The method needs rights on the race.
            event: The method needs events of this race.
            parse: Reads the parameters; raises on bad ones.
        """
        checks: dict[str, Callable[[], object]] = {
            "key": self.check_key,
            "race": self._check_race,
            "rights": self._check_rights if rights else _nothing,
            "event": self._check_events if event else _nothing,
            "params": parse,
        }
        for name in self.quirks.error_order.split(","):
            checks.pop(name.strip(), _nothing)()
        for check in checks.values():
            check()

    def check_key(self) -> None:
        if self.identity.wrong:
            raise ApiError(6)

    def race(self) -> Race:
        race = self.world.races.get(self.info.race_id or 0)
        if race is None or race.removed:
            raise ApiError(201)
        return race

    def _check_race(self) -> None:
        self.race()

    def _check_rights(self) -> None:
        account = self.identity.account
        if account is None:
            raise ApiError(6 if self.identity.wrong else self.quirks.missing_key_error)
        race_id = self.info.race_id or 0
        if not self.world.may_read(account, race_id) and not self.lost_rights():
            raise ApiError(7)

    def lost_rights(self) -> bool:
        """Tell whether rights were withdrawn and the vendor answers an empty list (section 20)."""
        rights = self.world.rights.get(self.identity.account or "", {})
        return self.quirks.lost_rights == "empty" and rights.get(self.info.race_id or 0) is False

    def _check_events(self) -> None:
        try:
            numbers = self.params.ids("event_id")
        except ApiError:
            return  # a bad parameter is reported in its own turn
        known = [number for number in numbers if self._is_event(number)]
        if numbers and (
            not known or (len(known) < len(numbers) and self.quirks.unknown_event_in_list == "error")
        ):
            raise ApiError(301)

    def _is_event(self, number: int) -> bool:
        event = self.world.events.get(number)
        return event is not None and event.published and event.race_id == self.info.race_id

    def require_events(self) -> None:
        if not self.params.ids("event_id"):
            raise ApiError(3, details=["event_id is required."])

    def events(self) -> list[int]:
        """Return the events asked for, or those that are answered instead."""
        numbers = [number for number in self.params.ids("event_id") if self._is_event(number)]
        if self.quirks.comma_list == "first_only":
            return numbers[:1]
        if self.quirks.comma_list == "first_two":
            return numbers[:2]
        if self.quirks.comma_list == "foreign_rows":
            every = [n for n in self.race().event_ids if self._is_event(n)]
            return numbers + [number for number in every if number not in numbers]
        return numbers

    def bend_rows(self, rows: list[bytes]) -> list[bytes]:
        """Apply a fault that works on the rows of a page."""
        fault = self.fault
        if fault is None:
            return rows
        if fault.kind == "no_rows":
            return []
        if fault.kind == "short_page":
            return rows[: fault.count]
        if fault.kind == "skip_rows":
            return rows[fault.count :]
        if fault.kind == "duplicate_rows":
            return [row for row in rows for _ in range(2)]
        return rows


def races(call: Call) -> bytes:
    """Answer `GET races` (section 6)."""
    if call.quirks.bad_key_on_public == "refused":
        call.check_key()
    found = select(call.world, call.params, call.identity.account)
    found = found[: call.quirks.races_most or None]
    size = call.params.page_size("results_per_page", RACES_PAGE, call.quirks.races_max_page)
    first = (call.params.page() - 1) * size
    with_events = call.params.flag("events")
    rows = []
    for race in found[first : first + size]:
        events = current_events(call.world, race) if with_events else None
        body = race_object(call.world, race, call.quirks, call.params, events=events)
        rows.append(call.encode({"race": body}))
    rows = call.bend_rows(rows)
    call.info.rows = len(rows)
    more = b"," + call.encode(UNKNOWN_FIELD)[1:] if call.quirks.unknown_fields else b"}"
    return b'{"races":[' + b",".join(_with_hostile(call, rows)) + b"]" + more


def race(call: Call) -> bytes:
    """Answer `GET race/:id` (section 7): public data, so rights matter for hidden races only."""
    call.check(rights=call.quirks.race_needs_rights, parse=_nothing)
    record = call.race()
    hidden = record.is_draft_race or record.is_private_race
    if hidden and not call.world.may_read(call.identity.account or "", record.race_id):
        raise ApiError(7)
    events = events_of(call.world, record, call.params)
    body: object = {
        "race": race_object(call.world, record, call.quirks, call.params, events=events, single=True)
    }
    call.info.rows = len(events)
    return call.encode([body] if call.quirks.race_in_array else body)


def participants(call: Call) -> bytes:
    """Answer `GET race/:id/participants` (section 8): rows beside `event`."""
    query, options = _listing(call, removed=False)
    events, numbers = _page(call, query)
    encoder = Rows(call.world, call.quirks, options)
    if call.params.flag("include_template_participant") and query.page == 1:
        template = b'{"user":{"user_id":null},"registration_id":-1}'  # never to be stored
    else:
        template = b""
    shown = [(_event_of(call.world, number), encoder.active(number)) for number in numbers]
    if template and events:
        shown.insert(0, (events[0], template))
    groups = _grouped(call, events, shown, call.quirks.layout == "per_event")
    elements = []
    for event, rows in groups:
        if not rows and call.quirks.event_when_empty != "object":
            elements.append(_EMPTY_EVENT[call.quirks.event_when_empty])
            continue
        head = b'{"event":' + call.encode(_event_head(call, event))[:-1] + b',"participants":[]}'
        if rows or call.quirks.participants_key_when_empty == "empty":
            head += b',"participants":[' + b",".join(rows) + b"]"
        elements.append(head + b"}")
    return _laid_out(call, elements)


_EMPTY_EVENT: Final = {"array": b'{"event":[]}', "null": b'{"event":null}'}


def removed_participants(call: Call) -> bytes:
    """Answer `GET race/:id/removed-participants` (section 9): rows inside `event`."""
    query, options = _listing(call, removed=True)
    events, numbers = _page(call, query)
    encoder = Rows(call.world, call.quirks, options)
    condensed = call.params.flag("condensed_format")
    shown = [(_event_of(call.world, number), encoder.removed(number, condensed)) for number in numbers]
    groups = _grouped(call, events, shown, call.quirks.layout == "per_event")
    empty = call.quirks.removed_when_empty
    elements = []
    for event, rows in groups:
        if not rows and call.quirks.event_when_empty != "object":
            elements.append(_EMPTY_EVENT[call.quirks.event_when_empty])
            continue
        head = b'{"event":' + call.encode(_event_head(call, event))[:-1]
        if rows or empty == "empty_list":
            elements.append(head + b',"participants":[' + b",".join(rows) + b"]}}")
        elif empty == "no_participants":
            elements.append(head + b"}}")
        elif empty == "no_event":
            elements.append(b"{}")
    return _laid_out(call, elements)


def _listing(call: Call, removed: bool) -> tuple[Query, Options]:
    parsed: list[tuple[Query, Options]] = []

    def parse() -> None:
        call.require_events()
        query = Query(call.params, call.quirks, removed)
        parsed.append((query, Options.of(call.params)))

    call.check(rights=True, event=True, parse=parse)
    return parsed[0]


def _page(call: Call, query: Query) -> tuple[list[int], list[int]]:
    events = call.events()
    if call.lost_rights():
        return events, []
    readable = events
    if call.quirks.one_year_window != "off":
        oldest = call.world.clock.time() - YEAR_SECONDS
        readable = [n for n in events if call.world.events[n].starts_at >= oldest]
        if call.quirks.one_year_window == "error" and len(readable) < len(events):
            raise ApiError(3, details=["Data older than one year is not available."])
    if not readable:
        return events, []
    return events, query.rows(call.world, readable)


def _event_of(world: "World", number: int) -> int:
    version = world.lingering.get(number) or world.registrations[number].shown
    assert version is not None, "a listed registration is published"
    return version.event_id


def _event_head(call: Call, event: int) -> dict[str, object]:
    head: dict[str, object] = {"event_id": event}
    return head | UNKNOWN_FIELD if call.quirks.unknown_fields else head


def _grouped(
    call: Call, events: list[int], shown: list[tuple[int, bytes]], per_event: bool
) -> list[tuple[int, list[bytes]]]:
    """Return (event, its rows) for each element, or one pair with all rows (section 8)."""
    bent = call.bend_rows([row for _, row in shown])
    if len(bent) != len(shown):
        owner = {row: event for event, row in shown}
        shown = [(owner[row], row) for row in bent]
    call.info.rows = len(shown)
    if per_event:
        by_event: dict[int, list[bytes]] = {event: [] for event in events}
        for event, row in shown:
            by_event[event].append(row)
        groups = list(by_event.items())
    else:
        groups = [(events[0], [row for _, row in shown])]
    if groups:
        at = 0 if call.fault is not None and call.fault.position == "start" else -1
        event, rows = groups[at]
        groups[at] = (event, _with_hostile(call, rows))
    return groups


def _with_hostile(call: Call, rows: list[bytes]) -> list[bytes]:
    fault = call.fault
    if fault is None or fault.kind != "hostile_rows":
        return rows
    hostile = [row.encode("utf-8", "surrogatepass") for row in fault.rows]
    return hostile + rows if fault.position == "start" else rows + hostile


def _laid_out(call: Call, elements: list[bytes]) -> bytes:
    if call.quirks.layout == "object":
        return elements[0] if elements else b"{}"
    return b"[" + b",".join(elements) + b"]"


def teams(call: Call) -> bytes:
    """Answer `GET race/:id/teams` (section 14), whose envelope is not documented."""
    parsed: list[tuple[TeamQuery, bool]] = []

    def parse() -> None:
        call.require_events()
        parsed.append((TeamQuery(call.params, call.quirks), call.params.flag("include_group_sizes")))

    call.check(rights=True, event=True, parse=parse)
    query, sizes = parsed[0]
    quirks, events = call.quirks, call.events()
    found = [] if call.lost_rights() else query.rows(call.world, events)
    encoder = Rows(call.world, quirks, Options())
    in_rows = sizes and quirks.teams_group_sizes == "row"
    shown = [(row.team.event_id, encoder.team(row, in_rows)) for row in found]
    layout = quirks.teams_layout
    beside = {"group_sizes": GROUP_SIZES} if sizes and quirks.teams_group_sizes == "beside" else {}
    elements = []
    for event, rows in _grouped(call, events, shown, layout != "flat"):
        parts = []
        if rows or quirks.teams_key_when_empty == "empty":
            parts.append(b'"teams":[' + b",".join(rows) + b"]")
        if beside:
            parts.append(call.encode(beside)[1:-1])
        head = call.encode(_event_head(call, event))[1:-1]
        if layout == "flat":
            more = [call.encode(UNKNOWN_FIELD)[1:-1]] if quirks.unknown_fields else []
            elements.append(_object(*parts, *more))
        elif layout == "events":
            elements.append(_object(head, *parts))
        elif not rows and quirks.event_when_empty != "object":
            elements.append(_EMPTY_EVENT[quirks.event_when_empty])
        elif layout == "inside":
            elements.append(_object(b'"event":' + _object(head, *parts)))
        else:
            elements.append(_object(b'"event":' + _object(head), *parts))
    if layout == "flat":
        return elements[0]
    listed = b"[" + b",".join(elements) + b"]"
    return _object(b'"events":' + listed) if layout == "events" else listed


def _object(*members: bytes) -> bytes:
    return b"{" + b",".join(members) + b"}"


def participant_counts(call: Call) -> bytes:
    """Answer `GET race/:id/participant-counts` (section 10); without ids, for all events."""
    call.check(rights=True, event=True, parse=lambda: call.params.ids("event_id"))
    world, quirks = call.world, call.quirks
    asked = call.params.ids("event_id") or call.race().event_ids
    rows = []
    for event in asked:
        if event not in world.events or not world.events[event].published:
            continue
        ids = world.indexes[event].active.ids
        count = len(ids)
        if not quirks.counts_bundle_rows:
            count = sum(world.registrations[number].parent is None for number in ids)
        if call.lost_rights():
            count = 0
        rows.append({"event_id": event, "num_participants": max(0, count + quirks.counts_off_by)})
    call.info.rows = len(rows)
    return call.encode({"participant_counts": rows})


def checkin_timestamps(call: Call) -> bytes:
    """Answer `GET v2/participants/checkin-timestamps.json` (section 10)."""
    params = call.params
    low, high = params.integer("min_checkin_ts"), params.integer("max_checkin_ts")
    size = params.page_size("num", CHECKINS_PAGE, CHECKINS_MAX_PAGE)
    first = (params.page() - 1) * size
    if call.info.race_id is None:
        raise ApiError(3, details=["race_id is required."])
    call.check(rights=True, parse=_nothing)
    found = sorted(
        (at, number)
        for number, at in call.world.checkins.get(call.info.race_id, {}).items()
        if not call.lost_rights()
        and (low is None or at >= low)
        and (high is None or at <= high)
        and call.world.registrations[number].head.status == ACTIVE
    )
    rows = [{"registration_id": n, "checkin_ts": at} for at, n in found[first : first + size]]
    call.info.rows = len(rows)
    return call.encode({"checkin_timestamps": rows})


METHODS: Final[dict[str, Callable[[Call], bytes]]] = {
    "races": races,
    "race": race,
    "participants": participants,
    "removed-participants": removed_participants,
    "teams": teams,
    "participant-counts": participant_counts,
    "checkin-timestamps": checkin_timestamps,
}
