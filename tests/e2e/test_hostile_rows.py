"""
One bad record stops nothing: good rows are stored, the rest is kept with its reason and its text.

What the vendor sent is in the mirror's columns, in additional_data, or in quarantine: never gone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

import rsusim
from tests.house import House

HUGE = 1 << 80


@pytest.fixture
def account(world: rsusim.World) -> rsusim.Account:
    return world.add_partner("Peak Timing")


@pytest.fixture
def event(world: rsusim.World, account: rsusim.Account) -> int:
    """An event with three ordinary people."""
    event = world.add_event(world.add_race([account], "Harbor Lights"), "10K")
    for number in range(3):
        world.register(event, first_name=f"Ada {number}", bib_num=number + 1)
    return event


@pytest.fixture
def row(event: int, world: rsusim.World) -> Callable[..., str]:
    """Make a row's JSON text from one that is fine, with some of its fields changed."""
    fine: dict[str, Any] = {
        "user": {
            "user_id": 5,
            "first_name": "Grace",
            "last_name": "Hopper",
            "address": {"city": "Arlington"},
            "dob": "1986-01-06",
        },
        "registration_id": 95_000_000,
        "event_id": event,
        "bib_num": 7,
        "registration_date": "9/7/2026 15:15",
        "last_modified": int(world.clock.time()),
    }

    def make(user: object = None, **changes: object) -> str:
        record = fine | changes
        if isinstance(user, dict):
            record["user"] = fine["user"] | user
        return json.dumps(record)

    return make


def serve(world: rsusim.World, *rows: str, path: str = "participants", times: int | None = 1) -> None:
    world.faults.clear()
    world.faults.add(rsusim.Fault(path=path, kind="hostile_rows", rows=rows, times=times))


def quarantine(house: House) -> list[dict[str, Any]]:
    return house.rows("SELECT * FROM bibwire.quarantine ORDER BY quarantine_id")


def active(house: House) -> int:
    [row] = house.rows("SELECT count(*) AS n FROM bibwire.participants WHERE removed_at IS NULL")
    return int(row["n"])


# What the mirror can hold, if need be in another place than its column.
KEPT: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "an id as text": ({"registration_id": "95000000"}, {"registration_id": 95_000_000}, {}),
    "the largest id": ({"registration_id": 2**63 - 1}, {"registration_id": 2**63 - 1}, {}),
    "a bib with a leading zero": ({"bib_num": "0101"}, {"bib_num": 101}, {"bib_num": "0101"}),
    "a bib with a letter": ({"bib_num": "A12"}, {"bib_num": None}, {"bib_num": "A12"}),
    "bib 0": ({"bib_num": 0}, {"bib_num": 0}, {}),
    "bib 0 as text": ({"bib_num": "0"}, {"bib_num": 0}, {}),
    "a negative bib": ({"bib_num": -4}, {"bib_num": -4}, {}),
    "a bib beyond 32 bits": ({"bib_num": 2**40}, {"bib_num": None}, {"bib_num": 2**40}),
    "a bib beyond 64 bits": ({"bib_num": HUGE}, {"bib_num": None}, {"bib_num": HUGE}),
    "a bib that is a list": ({"bib_num": [1, 2]}, {"bib_num": None}, {"bib_num": [1, 2]}),
    "no bib": ({"bib_num": ""}, {"bib_num": None}, {}),
    "a birthday that is none": (
        {"user": {"dob": "0000-00-00"}},
        {"dob": None},
        {"user": {"dob": "0000-00-00"}},
    ),
    "a date that is none": (
        {"registration_date": "0000-00-00 00:00"},
        {"registered_at": None},
        {"registration_date": "0000-00-00 00:00"},
    ),
    "the 30th of February": (
        {"registration_date": "2/30/2026 12:00"},
        {"registered_at": None},
        {"registration_date": "2/30/2026 12:00"},
    ),
    "a name of 10,000 characters": ({"user": {"first_name": "é" * 10_000}}, {"first_name": "é" * 10_000}, {}),
    "a name in another script": ({"user": {"first_name": "𝔄‮𓀀\t\n"}}, {"first_name": "𝔄‮𓀀\t\n"}, {}),
    "a name full of COPY's own signs": (
        {"user": {"last_name": "\\N\\.\t\\\\\r\n\\"}},
        {"last_name": "\\N\\.\t\\\\\r\n\\"},
        {},
    ),
    "a name that is a number": (
        {"user": {"first_name": 12}},
        {"first_name": None},
        {"user": {"first_name": 12}},
    ),
    "a user beyond 64 bits": (
        {"user": {"user_id": HUGE}},
        {"user_id": None},
        {"user": {"user_id": HUGE}},
    ),
    "an age beyond 32 bits": ({"age": 2**31}, {"age": None}, {"age": 2**31}),
    "unknown fields": ({"shoe": {"size": 9.50}}, {"first_name": "Grace"}, {"shoe": {"size": 9.5}}),
    "a number beyond 64 bits": ({"amount": HUGE}, {}, {"amount": HUGE}),
    "money that is none": (
        {"race_fee": "two pence"},
        {"payment_info": None},
        {"race_fee": "two pence"},
    ),
    "a time beyond the calendar": (
        {"last_modified": 10**15},
        {"last_modified_at": None},
        {"last_modified": 10**15},
    ),
    "500 levels": ({"deep": json.loads("[" * 500 + "]" * 500)}, {"first_name": "Grace"}, {}),
}


@pytest.mark.every_postgres
@pytest.mark.parametrize("case", KEPT)
def test_a_value_that_fits_no_column_stays_as_sent(
    case: str, house: House, world: rsusim.World, account: rsusim.Account, row: Callable[..., str]
) -> None:
    changes, columns, left = KEPT[case]
    house.add_partner(account)
    serve(world, row(**changes))

    report = house.sync()

    assert (report.errors, quarantine(house), report.participants.inserted) == ([], [], 4)
    stored = house.participant(int(changes.get("registration_id", 95_000_000)))
    assert {name: stored[name] for name in columns} == columns
    assert {name: stored["additional_data"][name] for name in left} == left
    if "deep" in changes:
        assert stored["additional_data"]["deep"] == changes["deep"]


def test_rows_without_a_user_are_people_all_the_same(
    house: House, world: rsusim.World, account: rsusim.Account, event: int
) -> None:
    house.add_partner(account)
    bare = [{"registration_id": 95_000_000 + i, "event_id": event, "last_modified": 1} for i in range(4)]
    users: list[object] = [None, "Grace", []]
    for record, user in zip(bare[1:], users, strict=True):
        record["user"] = user  # type: ignore[assignment]
    serve(world, *(json.dumps(record) for record in bare))

    report = house.sync()

    assert (report.errors, report.participants.inserted, quarantine(house)) == ([], 7, [])
    assert house.participant(95_000_002)["additional_data"] == {"user": "Grace"}


# What it cannot hold: the row's text, and a word of the reason.
QUARANTINED: dict[str, tuple[str, str]] = {
    "an id beyond 64 bits": ('{"registration_id": 9223372036854775808, "event_id": 1}', "64-bit"),
    "an id far beyond": (f'{{"registration_id": {10**40}, "event_id": 1}}', "64-bit"),
    "an id that is text": ('{"registration_id": "R-12", "event_id": 1}', "64-bit"),
    "an id with a fraction": ('{"registration_id": 12.5, "event_id": 1}', "64-bit"),
    "id 0": ('{"registration_id": 0, "event_id": 1}', "64-bit"),
    "no id": ('{"event_id": 1, "bib_num": 4}', "64-bit"),
    "no object": ('"Grace"', "JSON object"),
    "null": ("null", "JSON object"),
    "NUL": (
        '{"registration_id": 95000000, "event_id": EVENT, "user": {"first_name": "A\\u0000b"}}',
        "U+0000",
    ),
    "NUL in a key": ('{"registration_id": 95000000, "event_id": EVENT, "a\\u0000": 1}', "U+0000"),
    "half a pair": (
        '{"registration_id": 95000000, "event_id": EVENT, "user": {"first_name": "\\ud800 Ada"}}',
        "surrogate",
    ),
    "the other half": ('{"registration_id": 95000000, "event_id": EVENT, "a": "\\uDFFF"}', "surrogate"),
    "a number of 2,000 digits": (
        f'{{"registration_id": 95000000, "event_id": EVENT, "a": 1.{"7" * 2000}}}',
        "too large",
    ),
    "a number with a huge exponent": (
        '{"registration_id": 95000000, "event_id": EVENT, "a": 1e99999}',
        "too large",
    ),
    "an event beyond 64 bits": (
        '{"registration_id": 95000000, "event_id": 99999999999999999999}',
        "event_id",
    ),
    "another's event": ('{"registration_id": 95000000, "event_id": 4}', "not asked for"),
}


@pytest.mark.parametrize("case", QUARANTINED)
def test_a_row_that_cannot_be_held_is_kept_with_its_text(
    case: str, house: House, world: rsusim.World, account: rsusim.Account, event: int
) -> None:
    text, reason = QUARANTINED[case]
    text = text.replace("EVENT", str(event))
    house.add_partner(account)
    # The page is good at both ends of the row.
    after = json.dumps({"registration_id": 96_000_000, "event_id": event})
    serve(world, text, after, times=2)

    report = house.sync(full=True)

    assert report.errors == []
    assert (report.participants.inserted, report.participants.quarantined) == (4, 1)
    [entry] = quarantine(house)
    assert reason in entry["reason"]
    assert entry["raw"] == text
    assert (entry["source"], entry["times"], entry["resolved_at"]) == ("participants", 1, None)
    [run] = house.rows("SELECT * FROM bibwire.sync_history WHERE race_id IS NOT NULL")
    assert (run["outcome"], run["rows_quarantined"]) == ("partial", 1)

    world.advance(60)
    house.sync(full=True)

    [again] = quarantine(house)
    assert (again["quarantine_id"], again["times"]) == (entry["quarantine_id"], 2)
    assert again["last_seen_at"] > again["first_seen_at"]


def test_the_template_row_is_nobody(
    house: House, world: rsusim.World, account: rsusim.Account, row: Callable[..., str]
) -> None:
    house.add_partner(account)
    serve(world, row(registration_id=-1), row(registration_id="-1"))

    report = house.sync()

    assert (report.errors, report.participants.inserted, quarantine(house)) == ([], 3, [])


def test_an_id_twice_in_a_page_is_stored_once_and_the_other_kept(
    house: House, world: rsusim.World, account: rsusim.Account, row: Callable[..., str]
) -> None:
    house.add_partner(account)
    serve(world, row(bib_num=7), row(bib_num=8))

    report = house.sync()

    assert report.errors == []
    assert house.participant(95_000_000)["bib_num"] == 7
    [entry] = quarantine(house)
    assert json.loads(entry["raw"])["bib_num"] == 8


def test_the_same_row_twice_counts_once(
    house: House, world: rsusim.World, account: rsusim.Account, event: int
) -> None:
    house.add_partner(account)
    world.faults.add(rsusim.Fault(path="participants", kind="duplicate_rows"))

    report = house.sync()

    assert (report.errors, report.participants.inserted, quarantine(house)) == ([], 3, [])


def test_a_row_that_becomes_readable_is_stored_and_its_entry_closed(
    house: House, world: rsusim.World, account: rsusim.Account, event: int
) -> None:
    house.add_partner(account)
    ada = world.active(event)[1]
    whole = f'{{"registration_id":{ada},"event_id":{event},"bib_num":5,"last_modified":1}}'
    world.set_raw(ada, whole.replace('"bib_num":5', '"x":"\\u0000"'))
    first = house.sync()
    assert (first.participants.inserted, first.participants.quarantined) == (2, 1)
    [entry] = quarantine(house)
    assert (entry["registration_id"], entry["resolved_at"]) == (ada, None)

    world.advance(60)
    world.set_raw(ada, None)
    report = house.sync()

    assert (report.errors, report.participants.quarantined) == ([], 0)
    assert house.participant(ada)["bib_num"] == 2
    [entry] = quarantine(house)
    assert entry["resolved_at"] == world.now

    world.advance(60)
    world.set_raw(ada, whole.replace('"bib_num":5', '"x":"\\u0000"'))
    house.sync()
    [entry] = quarantine(house)
    assert (entry["resolved_at"], entry["times"]) == (None, 2)


def test_a_stored_row_that_becomes_unreadable_stays_as_it_was(
    house: House, world: rsusim.World, account: rsusim.Account, event: int
) -> None:
    house.add_partner(account)
    house.sync()
    ada = world.active(event)[1]
    before = house.participant(ada)
    for full in (False, True):
        world.advance(60)
        world.set_raw(ada, f'{{"registration_id":{ada},"event_id":{event},"x":"\\ud8ab"}}')

        report = house.sync(full=full)

        assert (report.errors, report.participants.quarantined, report.participants.removed) == ([], 1, 0)
        assert house.participant(ada) == before
    assert house.kinds() == ["loaded"]


@pytest.mark.parametrize("position", ["start", "end"])
def test_a_page_of_bad_rows_alone_does_not_end_the_list(
    position: str, world: rsusim.World, simulator: rsusim.Server, database_url: str
) -> None:
    """Rows that cannot be read still fill their page: the next one is asked for."""
    account = world.add_partner("Peak Timing")
    event = world.add_event(world.add_race([account]), "10K")
    people = [world.register(event, bib_num=number) for number in range(12)]
    for number in people[1:3]:
        world.set_raw(number, f'{{"registration_id":{number},"event_id":{event},"x":"\\u0000"}}')
    with House(world, simulator.base_url, database_url, page_size=4) as house:
        house.add_partner(account)
        if position == "end":
            world.set_raw(people[3], f'{{"registration_id":{people[3]},"event_id":{event},"x":"\\u0000"}}')

        report = house.sync()

        bad = 3 if position == "end" else 2
        assert (report.errors, report.participants.quarantined) == ([], bad)
        assert active(house) == 12 - bad
        assert len(quarantine(house)) == bad


def test_hostile_rows_of_the_removed_list_are_kept_too(
    house: House, world: rsusim.World, account: rsusim.Account, event: int
) -> None:
    house.add_partner(account)
    gone = world.register(event)
    world.remove(gone)
    stamp = int(world.clock.time())
    bad = [
        '{"registration_id": "R-1", "removed_reason": "removed"}',
        f'{{"registration_id": 95000000, "last_modified_ts": {stamp}, "x": "\\u0000"}}',
        '{"registration_id": 95000001, "removed_reason": "removed", "last_modified": "0000-00-00 00:00:00"}',
    ]
    odd = {"registration_id": 95_000_002, "last_modified_ts": stamp, "removed_reason": None}
    far = {"registration_id": 95_000_003, "last_modified_ts": stamp, "new_registration_id": HUGE}
    serve(world, *bad, json.dumps(odd), json.dumps(far), path="removed-participants")

    report = house.sync()

    assert report.errors == []
    assert (report.participants.removed, report.participants.quarantined) == (3, 3)
    assert [(e["source"], e["raw"]) for e in quarantine(house)] == [("removed", text) for text in bad]
    assert house.participant(95_000_002)["removed_reason"] == "unknown"
    assert house.participant(95_000_003)["additional_data"] == {"new_registration_id": HUGE}
    [run] = house.rows("SELECT * FROM bibwire.sync_history WHERE race_id IS NOT NULL")
    assert run["outcome"] == "partial"


def test_one_hostile_race_does_not_hide_the_others(
    house: House, world: rsusim.World, account: rsusim.Account, event: int
) -> None:
    house.add_partner(account)
    serve(
        world,
        '{"race":{"race_id":"none","name":"Bad"}}',
        '{"race":{"race_id":9,"name":"A\\u0000"}}',
        "7",
        path="races",
    )

    report = house.sync()

    assert report.participants.inserted == 3
    [error] = report.errors
    assert (error.race_id, error.error) == (None, "2 races could not be read; see quarantine.")
    assert [entry["source"] for entry in quarantine(house)] == ["races"] * 3
    assert house.rows("SELECT FROM bibwire.races WHERE unlisted_at IS NOT NULL") == []
    [kept] = house.rows("SELECT name FROM bibwire.races WHERE race_id = 9")
    assert kept["name"] == "A\ufffd"


@pytest.mark.parametrize("levels", [450, 1_000, 50_000])
def test_a_row_of_any_depth_stops_no_other(
    levels: int, house: House, world: rsusim.World, account: rsusim.Account, event: int
) -> None:
    house.add_partner(account)
    for bib in (5, 6):
        text = (
            f'{{"registration_id": 95000000, "event_id": {event}, "bib_num": {bib},'
            f' "deep": {"[" * levels}{"]" * levels}}}'
        )
        serve(world, text, times=None)

        report = house.sync(full=True)

        assert report.errors == []
        assert active(house) == 3 + (report.participants.quarantined == 0)
        world.advance(60)
