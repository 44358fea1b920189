"""Odd rows are stored or quarantined, and stop neither the good ones beside them nor the planner."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rsusim
from bibwire.api.participants import decode_participant
from bibwire.domain.errors import BadRecord
from bibwire.engine.planner import Planner
from tests.api.test_fuzzed_answers import PEOPLE, RACES, REMOVED, is_json, is_template
from tests.fuzzing import ODD, altered, examples, json_values, one_of, render
from tests.house import House

GOOD: Final = 3
numbers = count(95_000_000)


@pytest.fixture
def account(house: House, world: rsusim.World) -> rsusim.Account:
    """A partner with a race of tomorrow, in which is one person."""
    account = world.add_partner("Peak Timing")
    house.add_partner(account)
    tomorrow = datetime(2026, 9, 13, 8)
    world.register(world.add_event(world.add_race([account], "Harbor Lights"), start=tomorrow), bib_num=1)
    return account


def listed(samples: list[Any]) -> st.SearchStrategy[list[Any]]:
    """Return some rows, each with an id of its own (if that was not altered) that no other example has."""
    row = one_of(samples).map(lambda each: each | {"registration_id": "ID", "event_id": "EVENT"})
    return st.lists(row.flatmap(altered) | one_of(ODD) | json_values, min_size=1, max_size=12)


def rendered(rows: list[Any], event: int) -> list[str]:
    """Return the rows' texts as a server can send them, and a parser tell where they end."""
    found = [render(row).replace('"EVENT"', str(event)).replace('"ID"', str(next(numbers))) for row in rows]
    return [text for text in found if is_sendable(text)]


def is_sendable(text: str) -> bool:
    try:
        return is_json(text.encode())
    except UnicodeEncodeError:
        return False


def active(house: House, race: int) -> dict[int, Any]:
    found = house.rows(
        "SELECT registration_id, bib_num FROM bibwire.participants WHERE race_id = %(race)s"
        " AND removed_at IS NULL",
        race=race,
    )
    return {row["registration_id"]: row["bib_num"] for row in found}


def times_kept(house: House) -> Counter[str]:
    """Return how often each row went into quarantine."""
    found = house.rows("SELECT raw, sum(times) AS times FROM bibwire.quarantine GROUP BY raw")
    return Counter({row["raw"]: int(row["times"]) for row in found})


@given(people=listed(PEOPLE), gone=listed(REMOVED), position=st.sampled_from(["start", "end"]))
@examples(6, cost=200)
def test_good_rows_are_stored_and_bad_ones_kept_whatever_they_are(
    people: list[Any],
    gone: list[Any],
    position: str,
    house: House,
    world: rsusim.World,
    account: rsusim.Account,
) -> None:
    race = world.add_race([account])
    event = world.add_event(race)
    good = {world.register(event, bib_num=bib): bib for bib in range(1, GOOD + 1)}
    odd, odd_gone = rendered(people, event), rendered(gone, event)
    world.faults.clear()
    for path, texts in (("participants", odd), ("removed-participants", odd_gone)):
        world.faults.add(
            rsusim.Fault(path=path, kind="hostile_rows", rows=texts, position=position, times=None)
        )

    before = times_kept(house)
    report = house.sync(race=race)

    assert report.errors == []
    stored = active(house, race)
    assert good.items() <= stored.items()
    # Those of this time: other examples' rows are kept too.
    kept = (times_kept(house) - before).keys()
    known = {
        row["registration_id"]
        for row in house.rows(
            "SELECT registration_id FROM bibwire.participants WHERE race_id = %(r)s", r=race
        )
    }
    for text in odd + odd_gone:
        raw = text.encode()
        number: int | None = None
        with suppress(BadRecord):
            number = decode_participant(raw, event).registration_id
        assert is_template(raw) or number in known or text in kept, text
    assert report.participants.quarantined <= len(odd) + len(odd_gone)
    world.faults.clear()
    world.advance(60)
    assert house.sync(race=race).errors == []
    assert good.items() <= active(house, race).items()


odd_races = st.lists(
    one_of(RACES).flatmap(lambda race: altered(race, most=6)) | one_of(ODD), min_size=1, max_size=6
)


@given(races=odd_races, times=st.lists(one_of(ODD), max_size=4))
@examples(6, cost=200)
def test_odd_races_stop_neither_the_others_nor_the_planner(
    races: list[Any], times: list[Any], house: House, world: rsusim.World, account: rsusim.Account
) -> None:
    for number, when in enumerate(times):
        races.append(
            {"race": {"race_id": 40_000 + number, "name": "Odd", "timezone": "America/New_York",
                      "events": [{"event_id": 70_000 + number, "start_time": when, "end_time": when}]}}
        )  # fmt: skip
    texts = [text for text in map(render, races) if is_sendable(text)]
    world.faults.clear()
    world.faults.add(rsusim.Fault(path="races", kind="hostile_rows", rows=texts, times=None))

    report = house.sync()

    # The odd ones are no races of the vendor's, which says so of each.
    for error in report.errors:
        assert "could not be read" in error.error or "error 201" in error.error, error
    assert [
        row["name"] for row in house.rows("SELECT name FROM bibwire.races WHERE name LIKE 'Harbor Lights'")
    ]
    assert house.rows("SELECT FROM bibwire.participants WHERE bib_num = 1")
    runtime = house.runtime
    ticked = house.run(Planner(runtime.db, runtime.jobs, house.clock).tick())
    assert ticked.planned >= 0
    world.advance(3600)


@pytest.mark.parametrize("seconds_before_the_end", [30, 120])
def test_a_date_at_the_end_of_the_calendar_is_just_not_believed(
    seconds_before_the_end: int, house: House, world: rsusim.World, account: rsusim.Account
) -> None:
    end = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    world.quirks.date_offset_seconds = int((end - world.now).total_seconds()) - seconds_before_the_end

    assert house.sync().errors == []
    world.advance(10)
    assert house.sync().errors == []
    assert len(house.rows("SELECT FROM bibwire.participants")) == 1


ENDS: Final = ("1/1/0001 00:00", "12/31/9999 23:59")


def test_times_at_both_ends_of_the_calendar_stop_nothing(
    house: House, world: rsusim.World, account: rsusim.Account
) -> None:
    event = world.add_event(race := world.add_race([account], "Far Away"), start=datetime(2026, 9, 13, 8))
    person = world.register(event)
    rows = [
        {"registration_id": 95_000_000 + number, "event_id": event, "last_modified": epoch,
         "registration_date": date, "user": {"dob": dob}}
        for number, (epoch, date, dob) in enumerate(
            [(0, ENDS[0], "0001-01-01"), (253402300799, ENDS[1], "9999-12-31"), (253402300799, None, None)]
        )
    ]  # fmt: skip
    gone = [{"registration_id": 95_000_005, "last_modified_ts": 253402300799, "removed_reason": "removed"}]
    races = [
        {"race": {"race_id": 40_000 + number, "name": "Odd", "timezone": zone, "next_date": date[:10],
                  "last_modified": date, "events": [{"event_id": 70_000 + number, "start_time": date}]}}
        for number, (zone, date) in enumerate(
            (zone, date) for zone in ("Pacific/Kiritimati", "Pacific/Pago_Pago", "UTC") for date in ENDS
        )
    ]  # fmt: skip
    hostile: dict[str, list[Any]] = {"participants": rows, "removed-participants": gone, "races": races}
    for path, texts in hostile.items():
        fault = rsusim.Fault(
            path=path, kind="hostile_rows", rows=[render(each) for each in texts], times=None
        )
        world.faults.add(fault)
    runtime = house.runtime

    for full in (False, False, True):
        house.sync(race=None if full else race, full=full)
        ticked = house.run(Planner(runtime.db, runtime.jobs, house.clock).tick())
        assert ticked.planned >= 0
        world.advance(3600)
        world.assign_bib(person, 7)

    runs = house.rows("SELECT outcome, error FROM bibwire.sync_history WHERE race_id = %(race)s", race=race)
    assert [run["error"] for run in runs] == [None] * 3
    assert {95_000_000, 95_000_001, 95_000_002, person} <= active(house, race).keys()
