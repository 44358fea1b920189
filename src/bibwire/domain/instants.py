"""
The vendor's date shapes, read into instants.

Every instant that leaves this module is aware and in UTC. Wall times are resolved here and
nowhere else: an event's start and end in its race's zone, everything else in US Eastern
(docs/vendor-api.md, "Times"). Pure: no clock; the zone rules are those of `zoneinfo`.

Two hours a year are special, and read the same way everywhere:

- the hour that happens twice (autumn): the first of the two;
- the hour that does not happen (spring): by the offset before the change, so that 02:30
  becomes 03:30 by the new offset. `in_gap` says so, since the text cannot be rebuilt then.
"""

from __future__ import annotations

import re
from datetime import MAXYEAR, MINYEAR, UTC, date, datetime, timedelta
from functools import cache, lru_cache
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo, available_timezones

EASTERN: Final = ZoneInfo("America/New_York")

# No time and no zone is longer. Longer ones are not looked at, and above all not remembered.
_LONGEST_TEXT: Final = 64

# What people and other programs call the zones of the United States.
_CALLED: Final = {
    **dict.fromkeys(("eastern", "et", "est", "edt", "us eastern", "eastern standard", "eastern daylight",
                     "eastern time (us & canada)"), "America/New_York"),
    **dict.fromkeys(("central", "ct", "cst", "cdt", "us central", "central standard", "central daylight",
                     "central time (us & canada)"), "America/Chicago"),
    **dict.fromkeys(("mountain", "mt", "mdt", "us mountain", "mountain daylight",
                     "mountain time (us & canada)"), "America/Denver"),
    **dict.fromkeys(("pacific", "pt", "pst", "pdt", "us pacific", "pacific standard", "pacific daylight",
                     "pacific time (us & canada)"), "America/Los_Angeles"),
    **dict.fromkeys(("arizona", "us mountain standard"), "America/Phoenix"),
    **dict.fromkeys(("alaska", "akst", "akdt", "alaskan standard"), "America/Anchorage"),
    **dict.fromkeys(("hawaii", "hst", "hawaiian standard"), "Pacific/Honolulu"),
}  # fmt: skip

_US_DAY = re.compile(r"([0-9]{1,2})/([0-9]{1,2})/([0-9]{4})")
_DASHED_DAY = re.compile(r"([0-9]{4})-([0-9]{1,2})-([0-9]{1,2})")
_TIME = re.compile(r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?")
_EPOCH_TEXT = re.compile(r"[0-9]{1,12}")
_LAST_EPOCH = 253402300799  # 9999-12-31 23:59:59 UTC, the last second a datetime holds


class Moment(NamedTuple):
    """
    A wall time resolved.

    `second_instant` is the other reading of a wall time that happens twice, else None.
    `in_gap`: the wall time does not exist in its zone.
    """

    instant: datetime
    second_instant: datetime | None
    in_gap: bool


def zone_named(name: str | None) -> ZoneInfo | None:
    """
    Return the zone of that name; None if there is none, or it may be one of two.

    Around the name there may be spaces, its case does not matter, and what Americans call their zones
    is known: "Central Time" is America/Chicago. "MST" is None, for it is Denver's in winter and
    Arizona's all year.
    """
    return _zone_named(name) if name and len(name) <= _LONGEST_TEXT else None


@lru_cache(maxsize=1024)
def _zone_named(name: str) -> ZoneInfo | None:
    words = " ".join(name.casefold().split())
    if (known := _CALLED.get(words.removesuffix(" time"))) is not None:
        return ZoneInfo(known)
    iana = _by_folded_name().get(words.replace(" ", "_"))
    return None if iana is None else ZoneInfo(iana)


@cache
def _by_folded_name() -> dict[str, str]:
    # Without those that are whatever this machine happens to be set to, and those of which nobody
    # says whether summer time is meant.
    names = available_timezones() - {"localtime", "posixrules", "Factory", "EST", "MST", "HST"}
    return {name.casefold(): name for name in sorted(names)}


def race_zone(name: str | None) -> ZoneInfo:
    """Return a race's zone; US Eastern if it is missing or unknown."""
    return zone_named(name) or EASTERN


def parse_wall_time(text: str) -> datetime | None:
    """
    Read `n/j/Y H:i` or `YYYY-MM-DD HH:MM:SS`, seconds optional in both, padded or not.

    Returns a naive datetime, since the text has no zone; None if it is anything else.
    """
    if len(text) > _LONGEST_TEXT:
        return None
    day_text, _, time_text = text.partition(" ")
    day = parse_us_date(day_text) or _parse_dashed(day_text)
    since_midnight = _since_midnight(time_text)
    if day is None or since_midnight is None:
        return None
    return datetime(day.year, day.month, day.day) + since_midnight  # noqa: DTZ001 - a wall time


@lru_cache(maxsize=4096)
def _since_midnight(text: str) -> timedelta | None:
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    hours, minutes, seconds = map(int, match.groups("0"))
    if hours > 23 or minutes > 59 or seconds > 59:
        return None
    return timedelta(hours=hours, minutes=minutes, seconds=seconds)


def resolve(wall: datetime, zone: ZoneInfo) -> Moment | None:
    """Return the instant of a naive wall time; None at the very ends of the calendar."""
    try:
        local = wall.replace(tzinfo=zone)
        instant = local.astimezone(UTC)
        later = local.replace(fold=1)
        if later.utcoffset() == local.utcoffset():
            return Moment(instant, None, False)
        if instant.astimezone(zone).replace(tzinfo=None, fold=0) != wall:
            return Moment(instant, None, True)
        return Moment(instant, later.astimezone(UTC), False)
    except (OverflowError, ValueError):
        return None


def parse_moment(text: str, zone: ZoneInfo) -> Moment | None:
    """Read a wall time of that zone; None if it is not one."""
    wall = parse_wall_time(text)
    return None if wall is None else resolve(wall, zone)


def parse_eastern(text: str) -> Moment | None:
    """
    Read a US Eastern wall time; None if it is not one.

    Runs once for each row of a first load: days and times of day are remembered apart, and
    on the 363 days without a change of the clocks the instant is their sum.
    """
    if len(text) > _LONGEST_TEXT:
        return None
    day_text, _, time_text = text.partition(" ")
    midnight = _unchanging_midnight(day_text)
    if midnight is not None:
        since_midnight = _since_midnight(time_text)
        return None if since_midnight is None else Moment(midnight + since_midnight, None, False)
    return parse_moment(text, EASTERN)


@lru_cache(maxsize=8192)
def _unchanging_midnight(day_text: str) -> datetime | None:
    """Return the instant an Eastern day begins; None if its offset changes, or it is no day."""
    begin = parse_wall_time(f"{day_text} 00:00")
    if begin is None or begin.year in (MINYEAR, MAXYEAR):
        return None
    local = begin.replace(tzinfo=EASTERN)
    if (local + timedelta(days=1)).utcoffset() != local.utcoffset():
        return None
    return local.astimezone(UTC)


def parse_registered(text: str, last_modified: datetime | None) -> Moment | None:
    """
    Read a `registration_date`, which is US Eastern and cut to the minute.

    Of the two readings in the repeated hour of November the first is taken, unless the
    registration was last modified within the very minute of the second: a registration's
    first `last_modified` is the moment it was made.
    """
    moment = parse_eastern(text)
    if moment is None or moment.second_instant is None or last_modified is None:
        return moment
    second = moment.second_instant
    if second <= last_modified < second + timedelta(minutes=1):
        return moment._replace(instant=second)
    return moment


def are_readings_of_one_time(one: datetime, other: datetime) -> bool:
    """Say whether US Eastern clocks showed the same at both instants: one text may mean either."""
    return one.astimezone(EASTERN).replace(tzinfo=None) == other.astimezone(EASTERN).replace(tzinfo=None)


def parse_us_date(text: str) -> date | None:
    """Read `MM/DD/YYYY`; None if it is not one."""
    match = _US_DAY.fullmatch(text)
    return None if match is None else _date(match[3], match[1], match[2])


def _parse_dashed(text: str) -> date | None:
    match = _DASHED_DAY.fullmatch(text)
    return None if match is None else _date(match[1], match[2], match[3])


def _date(year: str, month: str, day: str) -> date | None:
    try:
        return date(int(year), int(month), int(day))
    except ValueError:
        return None


def parse_iso_date(text: str) -> date | None:
    """Read exactly `YYYY-MM-DD`; None if it is not one, "0000-00-00" for example."""
    if len(text) != 10 or text[4] != "-" or text[7] != "-":
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def from_epoch(value: object) -> datetime | None:
    """Read epoch seconds, an integer or its digits as text; None if it is neither."""
    if type(value) is not int:
        if type(value) is not str or not _EPOCH_TEXT.fullmatch(value):
            return None
        value = int(value)
    if not 0 <= value <= _LAST_EPOCH:
        return None
    return datetime.fromtimestamp(value, UTC)
