"""
What a perfect mirror holds, told from the simulated world, and how the real one differs.

`assert_mirror_equals_world` compares every promised column of races, events and participants of
one account. `assert_feed_is_sound` replays the change feed from `loaded`. What the columns should
hold is worked out here a second time, from the vendor's reference alone: nothing of Bibwire is
imported but the names of things.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

import rsusim
from rsusim.params import Params
from rsusim.races import event_object, next_days, race_object
from rsusim.records import MONEY_FIELDS
from rsusim.truth import EventTruth, RaceTruth, RegistrationTruth, RemovedTruth

Row = dict[str, Any]
Rows = Callable[..., list[Row]]  # House.rows

_PLAIN: Final = (
    "race_id",
    "event_id",
    "user_id",
    "first_name",
    "middle_name",
    "last_name",
    "email",
    "phone",
    "dob",
    "gender",
    "age",
    "city",
    "state",
    "country_code",
    "bib_num",
    "chip_num",
    "registered_at",
    "last_modified_at",
    "removed_at",
    "removed_reason",
    "new_registration_id",
)
_JSON: Final = ("address", "team_info", "payment_info", "additional_data")
PARTICIPANT_COLUMNS: Final = (*_PLAIN, *_JSON)
_TEAM: Final = ("team_id", "team_name", "team_type_id", "team_type", "team_gender", "team_bib_num")
_ADDRESS: Final = ("street", "city", "state", "zipcode", "country_code")
_NOT_MODELLED: Final = (
    "rsu_transaction_id",
    "transaction_id",
    "usatf_discount_additional_field",
    "giveaway",
    "giveaway_option_id",
)
_REMOVED_MONEY: Final = (
    "race_fee",
    "processing_fee",
    "processing_fee_paid_by_user",
    "processing_fee_paid_by_race",
    "amount_paid",
)
_EDITS: Final = ("edited", "bib_assigned", "bib_changed", "bib_cleared")
_EASTERN: Final = ZoneInfo("America/New_York")
_METRES: Final = {"5K": Decimal(5000), "10K": Decimal(10000)}


def assert_mirror_equals_world(
    rows: Rows,
    world: rsusim.World,
    *accounts: rsusim.Account | str,
    races: frozenset[int] | None = None,
    catalog: bool = True,
    every_event: bool = False,
) -> None:
    """
    Fail with every difference between the mirror and what its accounts can read now.

    Args:
        rows: `House.rows`.
        accounts: Whose views, one at least; their names are the partners' names.
        races: Only these races; None is all.
        catalog: Also races and events; False where nothing was discovered, and then only
            registrations of events the mirror knows are compared.
        every_event: Also registrations of events that are over for more than 7 days or of other
            years, as a backfill loads them.
    """
    assert accounts, "nothing would be compared"
    found = [
        text
        for account in accounts
        for text in differences(rows, world, account, races=races, catalog=catalog, every_event=every_event)
    ]
    assert not found, "the mirror differs from the world:\n" + "\n".join(found[:30])


def differences(
    rows: Rows,
    world: rsusim.World,
    account: rsusim.Account | str,
    *,
    races: frozenset[int] | None = None,
    catalog: bool = True,
    every_event: bool = False,
) -> list[str]:
    """Return a line for each column that differs; arguments as above."""
    name = account if isinstance(account, str) else account.name
    with world:
        truths = [t for t in world.truth(name) if races is None or t.race_id in races]
        found = [
            *_race_differences(rows, world, name, truths),
            *_event_differences(rows, world, name, truths),
        ]
    if not catalog:
        found = []
    stored = participants(rows, name)
    compared = {event.event_id for truth in truths for event in truth.events}
    if not every_event:
        compared = {e.event_id for truth in truths for e in truth.events if _is_live(e, world)}
    if not catalog:
        compared &= {row["event_id"] for row in rows("SELECT DISTINCT event_id FROM bibwire.events")}
    for truth in truths:
        expected: dict[int, Row] = {}
        for event in truth.events:
            if event.event_id not in compared:
                continue
            for registration in event.active:
                expected[registration.registration_id] = _active(registration, truth.race_id)
            for removed in event.removed:
                row = stored.get(removed.registration_id)
                # The first removed row stays what is known of a person who was never listed.
                listed = row is not None and (
                    row["raw_hash"] is not None or row["last_modified_at"] != _instant(removed.last_modified)
                )
                expected[removed.registration_id] = _removed(removed, truth.race_id, listed=listed)
        for number in sorted(expected):
            if number not in stored:
                found.append(f"{name}: registration {number} is missing: {expected[number]}")
                continue
            for column, value in expected[number].items():
                is_value = stored[number][column]
                if not _same(column, is_value, value):
                    found.append(f"{name}: registration {number} {column}: {is_value!r}, not {value!r}")
        for number, row in stored.items():
            is_here = row["race_id"] == truth.race_id and row["event_id"] in compared
            if is_here and number not in expected and row["removed_at"] is None:
                found.append(f"{name}: registration {number} is active here and gone there")
    if races is None:
        known_races = {truth.race_id for truth in truths}
        found += [
            f"{name}: registration {number} is of race {row['race_id']}, which the account has not"
            for number, row in stored.items()
            if row["race_id"] not in known_races and row["race_id"] not in world.races
        ]
    return found


def participants(rows: Rows, partner: str) -> dict[int, Row]:
    """Return the stored registrations of a partner by id: plain values, JSON exact."""
    columns = ", ".join([*(f"p.{c}" for c in _PLAIN), *(f"p.{c}::text AS {c}" for c in _JSON)])
    found = rows(
        f"SELECT p.registration_id, p.raw_hash, {columns} FROM bibwire.participants AS p"
        " JOIN bibwire.partners AS n USING (partner_id) WHERE n.name = %(name)s ORDER BY 1",
        name=partner,
    )
    return {row.pop("registration_id"): _read(row) for row in found}


def changes(rows: Rows, partner: str) -> list[Row]:
    """Return a partner's feed, in order."""
    found = rows(
        "SELECT c.seq, c.race_id, c.event_id, c.registration_id, c.kind, c.fields::text AS fields,"
        " c.modified_at, c.seen_at FROM bibwire.changes AS c"
        " JOIN bibwire.partners AS n USING (partner_id) WHERE n.name = %(name)s ORDER BY c.seq",
        name=partner,
    )
    return [{**row, "fields": loads(row["fields"])} for row in found]


def bib_changes(rows: Rows, partner: str) -> list[Row]:
    """Return a partner's bib changes, in order."""
    return rows(
        "SELECT b.* FROM bibwire.bib_changes AS b"
        " JOIN bibwire.partners AS n USING (partner_id) WHERE n.name = %(name)s ORDER BY b.seq",
        name=partner,
    )


def loads(text: str) -> Any:
    """Read JSON without losing a digit."""
    return json.loads(text, parse_float=Decimal)


@dataclass(slots=True)
class Replay:
    """
    A reader of one partner's feed, which remembers one number.

    `take` reads on from there. When it meets a scope's `loaded` it takes the scope's rows, or those
    of the events it names, as they stand in the table, less what the feed has told of them since.
    """

    partner: str
    seq: int = 0
    state: dict[int, Row] = field(default_factory=dict)
    loaded: set[int] = field(default_factory=set)
    bibs: dict[int, list[int | None]] = field(default_factory=dict)  # the bib in force, each value it had

    def take(self, rows: Rows) -> None:
        """Read what is new, apply it, and hold the result against the mirror."""
        feed = changes(rows, self.partner)
        told = {row["seq"]: row for row in bib_changes(rows, self.partner)}
        assert [row["seq"] for row in feed] == list(range(1, len(feed) + 1)), "seq has a gap"
        new = feed[self.seq :]
        stored = {
            number: {column: _json_form(row[column]) for column in PARTICIPANT_COLUMNS}
            for number, row in participants(rows, self.partner).items()
        }
        for at, change in enumerate(new):
            if change["kind"] in ("loaded", "history_loaded"):
                self._load(change, stored, new[at + 1 :])
            else:
                self._apply(change, told.get(change["seq"]))
        self.seq = len(feed)
        mirror = {number: row for number, row in stored.items() if row["race_id"] in self.loaded}
        assert self.state.keys() == mirror.keys(), (
            f"{self.partner}: in one only: {sorted(self.state.keys() ^ mirror.keys())}"
        )
        for number, row in mirror.items():
            assert self.state[number] == row, (
                f"{self.partner}: the feed says of {number}: "
                f"{ {c: (self.state[number][c], row[c]) for c in row if self.state[number][c] != row[c]} }"
            )
            assert self.bibs[number][-1] == _in_force(row), (
                f"{self.partner}: bib changes of {number} end at {self.bibs[number][-1]}"
            )

    def _load(self, change: Row, stored: Mapping[int, Row], later: list[Row]) -> None:
        race_id, events = change["race_id"], change["fields"].get("event_ids")
        assert (race_id in self.loaded) == (events is not None), f"race {race_id} is loaded twice"
        assert (change["kind"] == "history_loaded") == (events is not None), change
        self.loaded.add(race_id)
        state = {
            number: dict(row)
            for number, row in stored.items()
            if row["race_id"] == race_id and (events is None or row["event_id"] in events)
        }
        later = [row for row in later if row["race_id"] == race_id]
        for row in later:
            if row["kind"] == "history_loaded":  # of these it is told later
                told_later = set(row["fields"]["event_ids"])
                state = {number: each for number, each in state.items() if each["event_id"] not in told_later}
        assert not state.keys() & self.state.keys(), "loaded twice"
        for row in reversed(later):
            if row["kind"] != "history_loaded" and row["registration_id"] in state:
                person = state[row["registration_id"]]
                for column, (before, after) in row["fields"].items():
                    assert person[column] == after, (row, person)
                    person[column] = before
        state = {number: row for number, row in state.items() if row["race_id"] is not None}
        self.state |= state
        self.bibs |= {number: [_in_force(row)] for number, row in state.items()}
        counts = {
            "participants": sum(row["removed_at"] is None for row in state.values()),
            "removed": sum(row["removed_at"] is not None for row in state.values()),
            "with_bib": sum(_in_force(row) is not None for row in state.values()),
        }
        assert counts.items() <= change["fields"].items(), (change, counts)

    def _apply(self, change: Row, told: Row | None) -> None:
        number = change["registration_id"]
        assert change["race_id"] in self.loaded, f"told before the race was loaded: {change}"
        assert change["fields"], f"a change of nothing: {change}"
        is_new = number not in self.state
        assert not is_new or change["kind"] in ("registered", "removed"), change
        person = self.state.setdefault(number, dict.fromkeys(PARTICIPANT_COLUMNS))
        before = None if is_new else _in_force(person)
        for column, (old, new) in change["fields"].items():
            assert person[column] == old, f"{column} was {person[column]!r} before {change}"
            assert old != new, change
            person[column] = new
        after = _in_force(person)
        if change["kind"] in _EDITS:
            assert change["kind"] == _edit_of(before, after), f"a bib goes from {before} to {after}: {change}"
        path = self.bibs.setdefault(number, [None])
        assert path[-1] == before
        if before == after:
            assert told is None, f"a bib change from {before} to {after}: {told}"
            return
        assert told is not None, f"the bib change from {before} to {after} is not told: {change}"
        assert (told["registration_id"], told["bib_from"], told["bib_to"]) == (number, before, after), told
        path.append(after)


def _edit_of(before: int | None, after: int | None) -> str:
    """Return the kind of an edit, by the bib in force (design.md, section 5)."""
    if before == after:
        return "edited"
    if before is None:
        return "bib_assigned"
    return "bib_cleared" if after is None else "bib_changed"


def assert_feed_is_sound(rows: Rows, *accounts: rsusim.Account | str) -> None:
    """Replay each account's feed from its begin: no gap, every change once, ends at the mirror."""
    assert accounts, "nothing would be looked at"
    for account in accounts:
        Replay(account if isinstance(account, str) else account.name).take(rows)


def assert_no_cursor_is_ahead(rows: Rows, world: rsusim.World) -> None:
    """No cursor and no `high` of a sweep is later than the vendor's clock."""
    ahead = rows(
        "SELECT partner_id, race_id, stream, cursor_at, sweep_high FROM bibwire.streams"
        " WHERE greatest(cursor_at, sweep_high) > %(now)s",
        now=world.now,
    )
    assert not ahead, f"ahead of the vendor's clock {world.now}: {ahead}"


# What the columns should hold


def _is_live(event: EventTruth, world: rsusim.World) -> bool:
    end = event.starts_at if event.ends_at is None else max(event.starts_at, event.ends_at)
    return event.current and world.clock.time() < end + 7 * 86_400


def _active(truth: RegistrationTruth, race_id: int) -> Row:
    fields = truth.fields
    left: Row = {name: fields[name] for name in _NOT_MODELLED}
    left["imported"] = _flag(fields["imported"])
    user: Row = {"profile_image_url": fields["profile_image_url"]}
    row = _user(fields, user)
    bib = fields["bib_num"]
    if isinstance(bib, str):
        digits = bib.isascii() and bib.isdigit() and int(bib) < 1 << 31
        if not digits or str(int(bib)) != bib:
            left["bib_num"] = bib
        bib = int(bib) if digits else None
    money: Row = {}
    for name in MONEY_FIELDS:
        if isinstance(fields[name], Decimal):
            money[name] = fields[name]
        elif fields[name] is not None and fields[name] != "":
            left[name] = fields[name]
    team = {name: fields[name] for name in _TEAM if fields[name] is not None}
    left |= fields.get("extra") or {}
    left["user"] = user
    return row | {
        "race_id": race_id,
        "event_id": truth.event_id,
        "bib_num": bib,
        "chip_num": fields["chip_num"],
        # The wire shows whole minutes of a registration.
        "registered_at": _instant(truth.registered_at // 60 * 60),
        "last_modified_at": _instant(truth.last_modified),
        "team_info": team or None,
        "payment_info": money or None,
        "additional_data": left,
        "removed_at": None,
        "removed_reason": None,
        "new_registration_id": None,
    }


def _removed(truth: RemovedTruth, race_id: int, *, listed: bool) -> Row:
    """A tombstone with what the removed list says of the person; of one never listed before, the rest too."""
    row: Row = {
        "race_id": race_id,
        "removed_at": _instant(truth.last_modified),
        "removed_reason": truth.reason,
        "new_registration_id": truth.new_registration_id,
    } | _user(truth.fields, {})
    if listed:
        return row
    money = {name: truth.fields[name] for name in _REMOVED_MONEY}
    return row | {
        "event_id": truth.event_id,
        "bib_num": None,
        "registered_at": _instant(truth.registered_at),
        "last_modified_at": _instant(truth.last_modified),
        "payment_info": {k: v for k, v in money.items() if isinstance(v, Decimal)} or None,
    }


def _user(fields: Mapping[str, Any], left: Row) -> Row:
    address = {name: fields[name] for name in _ADDRESS}
    names = ("first_name", "middle_name", "last_name", "email", "phone", "gender", "user_id", "age")
    row = {name: fields[name] for name in names}
    row["address"] = address
    row |= {name: address[name] or None for name in ("city", "state", "country_code")}
    try:
        row["dob"] = date.fromisoformat(fields["dob"]) if fields["dob"] else None
    except ValueError:
        row["dob"], left["dob"] = None, fields["dob"]
    return row


def _race_differences(rows: Rows, world: rsusim.World, name: str, truths: list[RaceTruth]) -> Iterator[str]:
    found = rows(
        "SELECT r.race_id, r.name, r.timezone, r.url, r.address::text AS address, r.next_date,"
        " r.last_modified_at, r.additional_data::text AS additional_data, r.access_lost_at, r.removed_at"
        " FROM bibwire.races AS r JOIN bibwire.partners AS n USING (partner_id) WHERE n.name = %(name)s",
        name=name,
    )
    stored = {row["race_id"]: _read(row) for row in found}
    modelled = ("race_id", "name", "timezone", "url", "address", "next_date", "last_modified")
    for truth in truths:
        race = world.races[truth.race_id]
        params = Params({}, world.quirks, world.clock.time())
        sent = race_object(world, race, world.quirks, params, events=None)
        coming = next_days(world, race)
        yield from _unequal(
            f"{name}: race {truth.race_id}",
            stored.get(truth.race_id),
            {
                "name": truth.name,
                "timezone": truth.timezone,
                "url": truth.url,
                "address": truth.address,
                "next_date": coming.first if coming else None,
                "last_modified_at": _instant(truth.last_modified // 60 * 60),
                "additional_data": {k: v for k, v in sent.items() if k not in modelled},
                "access_lost_at": None,
                "removed_at": None,
            },
        )


def _event_differences(rows: Rows, world: rsusim.World, name: str, truths: list[RaceTruth]) -> Iterator[str]:
    found = rows(
        "SELECT e.event_id, e.race_id, e.name, e.starts_at, e.ends_at, e.distance, e.distance_m,"
        " e.event_type, e.additional_data::text AS additional_data, e.removed_at"
        " FROM bibwire.events AS e JOIN bibwire.partners AS n USING (partner_id) WHERE n.name = %(name)s",
        name=name,
    )
    stored = {row["event_id"]: _read(row) for row in found}
    modelled = ("event_id", "name", "start_time", "end_time", "distance", "event_type")
    # The race list shows the events of the current year alone.
    events: list[EventTruth] = [event for truth in truths for event in truth.events if event.current]
    for truth in events:
        sent = event_object(world.events[truth.event_id], world.quirks, False)
        expected: Row = {
            "race_id": truth.race_id,
            "name": truth.name,
            "starts_at": _instant(truth.starts_at),
            "ends_at": None if truth.ends_at is None else _instant(truth.ends_at),
            "distance": truth.distance,
            "event_type": truth.event_type,
            "additional_data": {k: v for k, v in sent.items() if k not in modelled},
            "removed_at": None,
        }
        if truth.distance in _METRES:
            expected["distance_m"] = _METRES[truth.distance]
        yield from _unequal(f"{name}: event {truth.event_id}", stored.get(truth.event_id), expected)


def _unequal(what: str, row: Row | None, expected: Row) -> Iterator[str]:
    if row is None:
        yield f"{what} is missing"
        return
    for column, value in expected.items():
        if not _same(column, row[column], value):
            yield f"{what} {column}: {row[column]!r}, not {value!r}"


def _same(column: str, stored: Any, expected: Any) -> bool:
    if column in _JSON:
        # A key that is missing and one that is null are the same to a reader.
        return bool(_without_nulls(stored) == _without_nulls(expected))
    if column == "registered_at" and stored is not None and expected is not None:
        # The wire tells Eastern time: when clocks are set back, not which of two hours it was.
        return bool(_eastern(stored) == _eastern(expected))
    return bool(stored == expected)


def _eastern(instant: datetime) -> datetime:
    return instant.astimezone(_EASTERN).replace(tzinfo=None)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        cleaned = {key: _without_nulls(item) for key, item in value.items()}
        return {key: item for key, item in cleaned.items() if item is not None and item != {}}
    if isinstance(value, list | tuple):
        return [_without_nulls(item) for item in value]
    return value


def _read(row: Row) -> Row:
    """Return a row with its JSON parsed and its instants in UTC."""
    read: Row = {}
    for name, value in row.items():
        if name in _JSON and value is not None:
            value = loads(value)
        elif isinstance(value, datetime):
            value = value.astimezone(UTC)
        read[name] = value
    return read


def _json_form(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date | datetime) else value


def _in_force(row: Row) -> int | None:
    bib: int | None = row["bib_num"] if row["removed_at"] is None else None
    return bib


def _instant(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _flag(value: Any) -> Any:
    return value if isinstance(value, str) else "T" if value else "F"
