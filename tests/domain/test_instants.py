"""Each of the vendor's dates is the instant it means, on the days the clocks change too."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bibwire.domain import instants
from bibwire.domain.instants import EASTERN, parse_eastern, parse_moment, race_zone


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# Zone, an ordinary winter noon, an ordinary summer noon (by the north's seasons), in UTC.
NOONS = {
    "America/New_York": ("17:00", "16:00"),
    "America/Chicago": ("18:00", "17:00"),
    "America/Denver": ("19:00", "18:00"),
    "America/Phoenix": ("19:00", "19:00"),
    "America/Los_Angeles": ("20:00", "19:00"),
    "Pacific/Honolulu": ("22:00", "22:00"),
    "Europe/London": ("12:00", "11:00"),
    "Australia/Sydney": ("01:00", "02:00"),
}


@pytest.mark.parametrize("zone", NOONS)
def test_an_event_starts_by_the_clock_of_its_race(zone: str) -> None:
    winter, summer = NOONS[zone]

    for text, expected in (("1/15/2026 12:00", winter), ("7/15/2026 12:00", summer)):
        moment = parse_moment(text, race_zone(zone))
        assert moment is not None
        assert moment.instant.strftime("%H:%M") == expected
        assert moment.instant.tzinfo is UTC
        assert (moment.second_instant, moment.in_gap) == (None, False)


# Zone, a wall time in the hour left out in spring 2026, and its instant by the offset before.
GAPS = [
    ("America/New_York", "3/8/2026 02:30", "2026-03-08 07:30"),
    ("America/Chicago", "3/8/2026 02:00", "2026-03-08 08:00"),
    ("America/Denver", "3/8/2026 02:59", "2026-03-08 09:59"),
    ("America/Los_Angeles", "3/8/2026 02:30", "2026-03-08 10:30"),
    ("Europe/London", "3/29/2026 01:30", "2026-03-29 01:30"),
    ("Australia/Sydney", "10/4/2026 02:30", "2026-10-03 16:30"),
]
# Zone, a wall time in the hour lived twice in autumn 2026, and its two instants.
REPEATS = [
    ("America/New_York", "11/1/2026 01:30", "2026-11-01 05:30", "2026-11-01 06:30"),
    ("America/Chicago", "11/1/2026 01:00", "2026-11-01 06:00", "2026-11-01 07:00"),
    ("America/Denver", "11/1/2026 01:59", "2026-11-01 07:59", "2026-11-01 08:59"),
    ("America/Los_Angeles", "11/1/2026 01:30", "2026-11-01 08:30", "2026-11-01 09:30"),
    ("Europe/London", "10/25/2026 01:30", "2026-10-25 00:30", "2026-10-25 01:30"),
    ("Australia/Sydney", "4/5/2026 02:30", "2026-04-04 15:30", "2026-04-04 16:30"),
]


@pytest.mark.parametrize(("zone", "text", "expected"), GAPS)
def test_an_hour_left_out_is_read_by_the_offset_before_it(zone: str, text: str, expected: str) -> None:
    assert parse_moment(text, race_zone(zone)) == (utc(expected), None, True)


@pytest.mark.parametrize(("zone", "text", "first", "second"), REPEATS)
def test_an_hour_lived_twice_is_the_first_and_says_the_second(
    zone: str, text: str, first: str, second: str
) -> None:
    assert parse_moment(text, race_zone(zone)) == (utc(first), utc(second), False)


@pytest.mark.parametrize("zone", ["America/Phoenix", "Pacific/Honolulu"])
@pytest.mark.parametrize("text", ["3/8/2026 02:30", "11/1/2026 01:30"])
def test_where_clocks_never_change_no_hour_is_special(zone: str, text: str) -> None:
    moment = parse_moment(text, race_zone(zone))

    assert moment is not None
    assert (moment.second_instant, moment.in_gap) == (None, False)


@pytest.mark.parametrize("zone", NOONS)
def test_the_minutes_around_both_changes_are_not_special(zone: str) -> None:
    for _, text, *_ in [gap for gap in GAPS if gap[0] == zone]:
        day, clock = text.split()
        hour = int(clock[:2])
        for wall in (f"{day} {hour - 1:02}:59", f"{day} {hour + 1:02}:00"):
            moment = parse_moment(wall, race_zone(zone))
            assert moment is not None
            assert not moment.in_gap
    for _, text, *_ in [repeat for repeat in REPEATS if repeat[0] == zone]:
        day, clock = text.split()
        hour = int(clock[:2])
        for wall in (f"{day} {hour - 1:02}:59", f"{day} {hour + 1:02}:00"):
            moment = parse_moment(wall, race_zone(zone))
            assert moment is not None
            assert moment.second_instant is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2/5/2015 12:23", "2015-02-05 17:23"),
        ("1/11/2019 01:58", "2019-01-11 06:58"),
        ("9/7/2021 15:15", "2021-09-07 19:15"),
        ("09/07/2021 15:15", "2021-09-07 19:15"),
        ("2021-09-23 09:54:37", "2021-09-23 13:54:37"),
        ("2021-09-23 09:54", "2021-09-23 13:54"),
        ("2/29/2028 00:00", "2028-02-29 05:00"),
    ],
)
def test_each_shape_of_an_eastern_time_is_read(text: str, expected: str) -> None:
    moment = parse_eastern(text)

    assert moment is not None
    assert moment.instant == utc(expected)


def test_the_vendors_own_examples_agree_with_their_epoch_seconds() -> None:
    made = parse_eastern("9/7/2021 15:15")
    gone = parse_eastern("2021-09-23 09:54:37")

    assert made is not None
    assert gone is not None
    assert instants.from_epoch(1631042122) == made.instant + timedelta(seconds=22)
    assert instants.from_epoch(1632405277) == gone.instant


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2/5/2015",
        "12:23",
        "2/30/2015 12:23",
        "13/1/2015 12:23",
        "0/1/2015 12:23",
        "2/5/2015 24:00",
        "2/5/2015 12:60",
        "2/5/2015 12:23:61",
        "2/5/15 12:23",
        "2/5/2015  12:23",
        " 2/5/2015 12:23",
        "2/5/2015 12:23 ",
        "2/5/2015 12:23\n",
        "2/5/2015 12:23 PM",
        "2/5/2015T12:23",
        "0000-00-00 00:00:00",
        "٢/5/2015 12:23",
        "1442",
    ],
)
def test_what_is_no_time_is_none(text: str) -> None:
    assert parse_eastern(text) is None
    assert parse_moment(text, EASTERN) is None


@given(st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59)))
def test_eastern_times_read_by_day_are_those_read_in_full(wall: datetime) -> None:
    for text in (f"{wall.month}/{wall.day}/{wall.year:04} {wall:%H:%M}", f"{wall:%Y-%m-%d %H:%M:%S}"):
        if len(text.split(" ")[0].replace("-", "/").split("/")[0]) < 4 and text[0] == "-":
            continue
        assert parse_eastern(text) == parse_moment(text, EASTERN)


@given(
    st.datetimes(datetime(1971, 1, 1), datetime(2037, 12, 31), timezones=st.just(UTC)),
    st.sampled_from(sorted(NOONS)),
)
def test_an_instant_is_found_again_from_its_wall_time(instant: datetime, zone: str) -> None:
    instant = instant.replace(second=0, microsecond=0)
    local = instant.astimezone(ZoneInfo(zone))
    moment = parse_moment(f"{local.month}/{local.day}/{local.year} {local:%H:%M}", ZoneInfo(zone))

    assert moment is not None
    assert not moment.in_gap
    assert instant in (moment.instant, moment.second_instant)


@pytest.mark.parametrize(
    "name",
    [None, "", "Mars/Olympus", "America", "../../etc/passwd", "/etc/localtime", "localtime", "a\0b"],
)
def test_a_zone_nobody_knows_is_us_eastern(name: str | None) -> None:
    assert race_zone(name) is EASTERN
    assert instants.zone_named(name) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("04/06/2019", date(2019, 4, 6)),
        ("4/6/2019", date(2019, 4, 6)),
        ("02/30/2019", None),
        ("2019-04-06", None),
        ("", None),
    ],
)
def test_race_dates_are_month_day_year(text: str, expected: date | None) -> None:
    assert instants.parse_us_date(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1986-01-06", date(1986, 1, 6)),
        ("2028-02-29", date(2028, 2, 29)),
        ("2027-02-29", None),
        ("0000-00-00", None),
        ("19860106", None),
        ("1986-W01-1", None),
        ("86-01-06", None),
        ("1986-1-6", None),
        ("1986-01-06 ", None),
    ],
)
def test_birthdays_are_year_month_day_exactly(text: str, expected: date | None) -> None:
    assert instants.parse_iso_date(text) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, utc("1970-01-01")),
        (1631042122, utc("2021-09-07 19:15:22")),
        ("1631042122", utc("2021-09-07 19:15:22")),
        (253402300799, utc("9999-12-31 23:59:59")),
        (253402300800, None),
        (-1, None),
        (True, None),
        (1.5, None),
        ("1.5", None),
        ("", None),
        ("-5", None),
        (None, None),
        (10**40, None),
    ],
)
def test_epoch_seconds_are_whole_and_within_the_calendar(value: object, expected: datetime | None) -> None:
    assert instants.from_epoch(value) == expected


@pytest.mark.parametrize(
    ("text", "zone"),
    [
        (" America/Chicago ", "America/Chicago"),
        ("america/chicago", "America/Chicago"),
        ("AMERICA/NEW YORK", "America/New_York"),
        ("US/Central", "US/Central"),
        ("us/central", "US/Central"),
        ("Central Time", "America/Chicago"),
        ("CENTRAL STANDARD TIME", "America/Chicago"),
        ("Central Time (US & Canada)", "America/Chicago"),
        ("CST", "America/Chicago"),
        ("EST", "America/New_York"),
        ("EST5EDT", "EST5EDT"),
        ("Pacific", "America/Los_Angeles"),
        ("Arizona", "America/Phoenix"),
        ("Hawaii", "Pacific/Honolulu"),
        ("utc", "UTC"),
    ],
)
def test_a_zone_is_known_by_what_people_call_it(text: str, zone: str) -> None:
    found = instants.zone_named(text)

    assert found is not None
    assert found.key == zone


@pytest.mark.parametrize(
    "text", ["MST", "Mountain Standard Time", "UTC-6", "CDT6", "Chicago", "x" * 1_000_000]
)
def test_a_zone_that_may_be_two_is_not_guessed(text: str) -> None:
    assert instants.zone_named(text) is None


def test_what_is_longer_than_any_zone_or_time_is_not_looked_at_and_not_remembered() -> None:
    remembering = (instants._zone_named, instants._since_midnight, instants._unchanging_midnight)
    before = [each.cache_info() for each in remembering]

    assert instants.zone_named(" " * 100_000 + "America/Chicago") is None
    assert parse_moment("1/15/2026 " + "1" * 100_000, EASTERN) is None
    assert parse_eastern("1/" * 100_000 + " 12:00") is None

    assert [each.cache_info() for each in remembering] == before
