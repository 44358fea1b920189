"""One odd thing in an answer stops that thing alone: its race, its people and all others are mirrored."""

from __future__ import annotations

import asyncio
import gc
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

import rsusim
from bibwire.engine.reports import SyncRequest
from tests.house import House
from tests.watchdog import Watchdog


@pytest.fixture
def account(world: rsusim.World) -> rsusim.Account:
    return world.add_partner("Peak Timing")


def _race(world: rsusim.World, account: rsusim.Account, name: str, **fields: Any) -> tuple[int, int]:
    """Add a race with six people; return it and its event."""
    race = world.add_race([account], name, **fields)
    event = world.add_event(race, "10K")
    for bib in range(1, 7):
        world.register(event, bib_num=bib)
    return race, event


@pytest.mark.parametrize(
    "text",
    ["Harbor \0 Lights", "Harbor \ud800 Lights", "Harbor Lights \udfff"],
    ids=["NUL", "half", "other half"],
)
def test_a_text_no_database_can_hold_costs_that_text_and_neither_race_nor_people(
    text: str, house: House, world: rsusim.World, account: rsusim.Account
) -> None:
    race, event = _race(world, account, text, description=f"<p>{text}</p>")
    world.edit_event(event, name=f"10K {text}", details=text)
    house.add_partner(account)

    report = house.sync()

    assert (report.errors, report.participants.inserted) == ([], 6)
    [stored] = house.rows(
        "SELECT r.name, r.additional_data, e.name AS event, e.additional_data AS more "
        "FROM bibwire.races AS r JOIN bibwire.events AS e USING (partner_id, race_id)"
    )
    readable = text.translate({0: "\ufffd", 0xD800: "\ufffd", 0xDFFF: "\ufffd"})
    assert (stored["name"], stored["event"]) == (readable, f"10K {readable}")
    assert stored["additional_data"]["description"] == f"<p>{readable}</p>"
    [entry] = house.rows("SELECT * FROM bibwire.quarantine")
    assert entry["reason"].startswith(f"race {race} is kept without it: a text of the record holds ")
    assert "Harbor" in entry["raw"]


@pytest.mark.parametrize(
    "odd",
    ['"name":"' + "x" * 3_000_000 + '"', '"name":"Huge","a":1e99999', '"name":"\\u0000"'],
    ids=["larger than any race", "a number", "NUL"],
)
def test_what_is_gone_is_noted_beside_a_race_that_cannot_be_read(
    odd: str, house: House, world: rsusim.World, account: rsusim.Account
) -> None:
    _race(world, account, "Stays")
    unread, _ = _race(world, account, "Becomes unreadable")
    gone, _ = _race(world, account, "Goes")
    house.add_partner(account)
    house.sync()
    world.remove_race(gone)
    world.remove_race(unread)
    text = f'{{"race":{{"race_id":{unread},{odd}}}}}'
    world.faults.add(rsusim.Fault(path="races", kind="hostile_rows", rows=[text], times=None))

    house.sync()

    marked = house.rows("SELECT race_id FROM bibwire.races WHERE unlisted_at IS NOT NULL")
    assert [row["race_id"] for row in marked] == [gone]


def _edited(house: House, world: rsusim.World, race: int, timezone: str) -> dict[str, Any]:
    """Have the vendor call the race's zone so, and return the event that the mirror then holds."""
    world.advance(60)
    world.edit_race(race, timezone=timezone, zone=ZoneInfo("America/Chicago"))
    assert house.sync().errors == []
    [event] = house.rows("SELECT * FROM bibwire.events")
    return event


def test_a_zone_is_trimmed_and_folded_and_an_unknown_one_is_told_and_watched_all_day(
    house: House, world: rsusim.World, account: rsusim.Account
) -> None:
    race = world.add_race([account], "Lakefront", timezone="America/Chicago")
    world.add_event(race, "10K", start=datetime(2027, 6, 5, 7, 30))
    house.add_partner(account)

    for timezone in ("America/Chicago", " America/Chicago ", "america/chicago", "US/Central", "Central Time"):
        event = _edited(house, world, race, timezone)
        assert event["starts_at"] == datetime(2027, 6, 5, 12, 30, tzinfo=UTC)
        assert event["hot_until"] - event["hot_from"] == timedelta(hours=5)
    assert house.rows("SELECT FROM bibwire.quarantine") == []

    event = _edited(house, world, race, "Lake Time")
    # Hot from early morning where that day begins first, and until the evening where it ends last.
    assert event["hot_until"] - event["hot_from"] > timedelta(hours=40)
    [entry] = house.rows("SELECT reason, resolved_at FROM bibwire.quarantine")
    assert entry["reason"].startswith(f"the time zone of race {race} is not known")

    _edited(house, world, race, "America/Denver")
    [entry] = house.rows("SELECT resolved_at FROM bibwire.quarantine")
    assert entry["resolved_at"] is not None


def test_people_are_mirrored_and_kept_fresh_where_the_vendor_sorts_as_it_likes(
    house: House, world: rsusim.World, account: rsusim.Account
) -> None:
    _, event = _race(world, account, "Harbor Lights")
    _race(world, account, "Short")
    world.quirks.sort, world.quirks.default_sort = "ignored", "registration_id DESC"
    house.page_size = 4
    house.restart()
    house.add_partner(account)

    first = house.sync()
    people = house.rows("SELECT registration_id FROM bibwire.participants WHERE event_id = %(e)s", e=event)
    for number, row in enumerate(people):
        world.assign_bib(row["registration_id"], 500 + number)
    world.remove(people[0]["registration_id"])
    world.advance(60)
    second = house.sync()
    full = house.sync(full=True)

    assert (first.errors, first.participants.inserted) == ([], 12)
    assert (second.errors, second.participants.updated, second.participants.removed) == ([], 5, 1)
    assert (full.errors, full.participants.unchanged) == ([], 11)


def _people(row: str, count: int) -> str:
    rows = ",".join(row % number for number in range(95_000_000, 95_000_000 + count))
    return f'[{{"event":{{}},"participants":[{rows}]}}]'


HOSTILE = {
    "all quarantined": _people('{"registration_id":%d,"x":NaN,"y":"' + "z" * 300 + '"}', 5_000),
    "wide people": _people('{"registration_id":%d,"x":[' + "[]," * 3_000 + "0]}", 80),
    "long texts": _people('{"registration_id":%d,"user":{"first_name":"' + "\\u00e9" * 150_000 + '"}}', 4),
    "many people": _people('{"registration_id":%d,"bib_num":7}', 5_000),
}


@pytest.mark.parametrize("shape", HOSTILE)
def test_storing_what_a_hostile_answer_holds_keeps_the_loop_free(
    shape: str, house: House, world: rsusim.World, account: rsusim.Account
) -> None:
    _race(world, account, "Harbor Lights")
    house.add_partner(account)
    house.sync()
    body = HOSTILE[shape]
    world.faults.add(rsusim.Fault(path="participants", kind="body", body=body, times=None))
    world.advance(60)

    # What the test runner holds is not ours: the collector need not go over it.
    gc.collect()
    gc.freeze()

    async def watched() -> float:
        # What is stored is prepared by the loop's own thread; what reads it is watched elsewhere.
        dog = Watchdog(time.thread_time)
        watching = asyncio.create_task(dog.run())
        await asyncio.sleep(0)
        await house.runtime.engine.sync(SyncRequest(full=True))
        watching.cancel()
        return dog.worst

    try:
        worst = house.run(watched())
    finally:
        gc.unfreeze()

    assert worst < 0.1
    [seen] = house.rows(
        "SELECT (SELECT count(*) FROM bibwire.participants) + (SELECT count(*) FROM bibwire.quarantine) AS n"
    )
    assert seen["n"] == 6 + body.count("registration_id")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_costs_its_row_and_not_the_page(
    number: str, house: House, world: rsusim.World, account: rsusim.Account
) -> None:
    _, event = _race(world, account, "Harbor Lights")
    house.add_partner(account)
    row = f'{{"registration_id": 95000000, "event_id": {event}, "last_modified": 1, "fee": [{number}]}}'
    world.faults.add(rsusim.Fault(path="participants", kind="hostile_rows", rows=[row], times=None))

    report = house.sync(full=True)

    assert (report.participants.inserted, report.participants.quarantined) == (6, 1)
    [entry] = house.rows("SELECT * FROM bibwire.quarantine")
    assert (entry["registration_id"], entry["raw"]) == (95_000_000, row)
    assert "NaN or Infinity" in entry["reason"]
    assert report.errors == []
