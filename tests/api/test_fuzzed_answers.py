"""
Whatever bytes the vendor sends are read as what is declared, or refused by a declared error.

Rows that are fine are read as if nothing odd stood beside them, no row is lost without a word, and what
was read fits the database: ids their columns, texts and numbers PostgreSQL, instants the calendar.
"""

from __future__ import annotations

import gzip
import json
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bibwire.api import rows, teams
from bibwire.api.answers import check_answer, parse_http_date, retry_after_seconds
from bibwire.api.codings import PIECE_BYTES, BrokenCoding, UnknownCoding, Unpacker
from bibwire.api.dates import VendorTime
from bibwire.api.participants import bib_and_time, decode_participant, decode_removed, without_bib
from bibwire.api.races import count_races, decode_counts, decode_race, decode_race_list
from bibwire.domain.errors import (
    AnswerUnreadable,
    BadRecord,
    BibwireError,
    PartnerStopped,
    RequestRefused,
    RetryLater,
    ScopeStopped,
)
from bibwire.domain.records import Dated, Event, Race, RacePage, Registration, Removal, Team, UnreadableRow
from tests.api.loopback import MovedClock
from tests.fuzzing import (
    BROKEN,
    ODD,
    altered,
    damaged,
    doubled_keys,
    encode,
    examples,
    json_values,
    one_of,
    texts,
)

SAMPLES: Final = Path(__file__).parent.parent / "samples"
NOW: Final = datetime(2026, 10, 5, tzinfo=UTC)
DATED: Final = Dated(NOW, NOW)
ASKED: Final = [901003]

BODIES: Final = {path.stem: path.read_bytes() for path in sorted(SAMPLES.glob("*.json"))}
PEOPLE: Final[list[Any]] = json.loads(BODIES["participants_single_event"])[0]["participants"]
REMOVED: Final[list[Any]] = json.loads(BODIES["removed_participants"])[0]["event"]["participants"]
RACES: Final[list[Any]] = [
    *json.loads(BODIES["races_list"])["races"],
    *json.loads(BODIES["races_list_with_event_days"])["races"],
]
TEAMS: Final[list[Any]] = [
    {"team_id": 55501, "team_name": "The Hares", "team_type_id": 7701, "team_gender": "C",
     "team_bib_num": 9001, "team_member_current_count": 4, "last_modified_ts": 1631042122},
    {"team_id": 55502, "event_id": 901003, "team_name": "Zoë & Co", "team_bib_num": "0042"},
    {"team": {"team_id": 55503, "team_name": None, "captain": {"user_id": 7}}},
]  # fmt: skip
TEAMS_BODY: Final = encode([{"event": {"event_id": 901003}, "teams": TEAMS}])

bodies = one_of([*BODIES.values(), TEAMS_BODY])
# Anything at all, real answers with bytes changed, and real answers with values changed.
answers = (
    st.binary(max_size=300)
    | bodies.flatmap(damaged)
    | bodies.flatmap(lambda body: altered(json.loads(body))).map(encode)
    | st.builds(lambda mark, body: mark + body, st.sampled_from([b"\xef\xbb\xbf", b"\0", b" \n"]), bodies)
    | json_values.map(encode)
)


# What fits the database.


def check_text(text: object) -> None:
    assert type(text) is str
    assert "\0" not in text
    text.encode()  # no half of a pair


def check_json(value: object) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            check_text(key)
            check_json(inner)
    elif isinstance(value, list):
        for inner in value:
            check_json(inner)
    elif type(value) is str:
        check_text(value)
    elif type(value) is Decimal:
        assert value.is_finite()
        assert abs(value.adjusted()) <= 1000
        assert len(value.as_tuple().digits) <= 1000
    elif type(value) is int:
        assert abs(value) < 10**5000
    else:
        assert value is None or type(value) is bool, type(value)


def check_int(value: object, bits: int, *, least: int | None = None) -> None:
    assert type(value) is int
    assert -(1 << (bits - 1)) <= value < 1 << (bits - 1)
    assert least is None or value >= least


def check_instant(value: object) -> None:
    assert type(value) is datetime
    assert value.tzinfo is UTC


def check_optional(check: Callable[..., None], *values: object, **more: Any) -> None:
    for value in values:
        if value is not None:
            check(value, **more)


def check_date(value: object) -> None:
    assert type(value) is date


def check_registration(person: Registration) -> None:
    check_int(person.registration_id, 64, least=1)
    check_optional(check_int, person.event_id, bits=64, least=1)
    check_optional(check_int, person.user_id, bits=64)
    check_optional(check_int, person.age, person.bib_num, bits=32)
    check_optional(check_text, person.first_name, person.middle_name, person.last_name, person.email)
    check_optional(check_text, person.phone, person.gender, person.city, person.state, person.country_code)
    check_optional(check_text, person.chip_num)
    check_optional(check_date, person.dob)
    check_optional(check_instant, person.registered_at, person.last_modified_at)
    for each in (person.address, person.team_info, person.payment_info):
        assert each is None or type(each) is dict
        check_json(each)
    assert type(person.additional_data) is dict
    check_json(person.additional_data)


def check_removal(gone: Removal) -> None:
    check_int(gone.registration_id, 64, least=1)
    check_instant(gone.removed_at)
    check_text(gone.reason)
    check_optional(check_int, gone.new_registration_id, bits=64, least=1)
    check_registration(gone.registration)
    assert gone.said <= set(Registration.__slots__)


def check_event(event: Event) -> None:
    check_int(event.event_id, 64, least=1)
    check_text(event.name)
    check_optional(check_instant, event.starts_at, event.ends_at)
    check_optional(check_text, event.distance, event.event_type)
    assert event.distance_m is None or 0 < event.distance_m <= 10_000_000
    check_json(event.additional_data)


def check_race(race: Race) -> None:
    check_int(race.race_id, 64, least=1)
    check_text(race.name)
    check_optional(check_text, race.timezone, race.url)
    assert race.address is None or type(race.address) is dict
    check_json(race.address)
    check_optional(check_date, race.next_date)
    check_optional(check_instant, race.last_modified_at)
    check_json(race.additional_data)
    for event in race.events:
        assert event.race_id == race.race_id
        check_event(event)


def check_team(team: Team) -> None:
    check_int(team.team_id, 64, least=1)
    check_optional(check_int, team.event_id, bits=64, least=1)
    check_optional(check_int, team.team_type_id, bits=64)
    check_optional(check_int, team.bib_num, team.member_count, bits=32)
    check_optional(check_text, team.name, team.gender)
    check_optional(check_instant, team.last_modified_at)
    check_json(team.additional_data)


def check_sentence(text: str) -> None:
    check_text(text)
    assert text.isprintable()
    assert len(text) < 1000


def check_unreadable(found: Iterable[UnreadableRow]) -> None:
    for each in found:
        check_sentence(each.reason)
        assert type(each.raw) is bytes


def check_page(page: RacePage) -> None:
    for race in page.races:
        check_race(race)
    check_unreadable([*page.unreadable, *page.faults])
    check_optional(check_int, *page.unread_race_ids, bits=64)


@contextmanager
def refused_as(*kinds: type[BibwireError], length: int) -> Iterator[None]:
    """Let these errors pass, and no other; what is read takes no longer than its length excuses."""
    started = time.thread_time()
    try:
        yield
    except kinds as error:
        check_sentence(str(error))
    assert time.thread_time() - started < 1 + length / 50_000


# Of any bytes.


@given(answers, st.sampled_from([[1], ASKED, [901001, 901003]]))
@examples(100)
def test_rows_are_cut_or_refused(body: bytes, asked: list[int]) -> None:
    with refused_as(AnswerUnreadable, length=len(body)):
        found = rows.cut(body, asked)
        ids = [row.registration_id for row in found.rows]
        assert ids == sorted(set(ids))
        assert found.received == len(found.rows) + len(found.unreadable)
        assert found.last_id == max(ids, default=None)
        check_unreadable(found.unreadable)
        for row in found.rows:
            check_int(row.registration_id, 64, least=1)
            check_optional(check_int, row.event_id, bits=64)
            for decode in (decode_participant, decode_removed):
                with suppress(BadRecord):
                    assert decode(row.raw, row.event_id).registration_id == row.registration_id


records = (
    st.binary(max_size=200)
    | one_of([*PEOPLE, *REMOVED]).flatmap(altered).map(encode)
    | one_of([*PEOPLE, *REMOVED]).flatmap(doubled_keys).map(encode)
    | one_of([*PEOPLE, *REMOVED]).map(encode).flatmap(damaged)
)


@given(records, st.none() | st.integers(1, 2**63 - 1))
@example(encode(PEOPLE[0] | {"registration_id": 2**63}), None)
@example(encode(PEOPLE[0] | {"event_id": "9223372036854775808", "age": 2**31, "bib_num": 2**31}), None)
@example(encode(PEOPLE[0] | {"user": {"user_id": 2**63}, "age": str(2**31), "bib_num": str(2**31)}), None)
@examples(166)
def test_a_record_is_a_person_or_a_bad_record(raw: bytes, event_id: int | None) -> None:
    with refused_as(BadRecord, length=len(raw)):
        check_registration(decode_participant(raw, event_id))
    with refused_as(BadRecord, length=len(raw)):
        check_removal(decode_removed(raw, event_id))


@given(records)
@examples(66)
def test_a_bib_alone_is_told_of_any_record(raw: bytes) -> None:
    found, rest = bib_and_time(raw), without_bib(raw)
    if found is not None and rest is not None:
        person: Registration | None = None
        with suppress(BadRecord):
            person = decode_participant(raw)
        if person is not None:
            assert (person.bib_num, person.last_modified_at) == found


@given(answers)
@examples(100)
def test_a_race_list_is_read_or_refused(body: bytes) -> None:
    with refused_as(AnswerUnreadable, length=len(body)):
        check_page(decode_race_list(body, DATED))
    with refused_as(AnswerUnreadable, length=len(body)):
        page = decode_race(body, DATED)
        check_page(page)
        assert len(page.races) == 1


@given(answers, st.sampled_from([[1], ASKED, [901001, 901003]]))
@examples(66)
def test_teams_are_read_or_refused(body: bytes, asked: list[int]) -> None:
    with refused_as(AnswerUnreadable, length=len(body)):
        found = teams.cut(body, asked)
        check_unreadable([*found.unreadable, *found.faults])
        ids = [team.team_id for team, _ in found.rows]
        assert len(ids) == len(set(ids))
        for team, _ in found.rows:
            check_team(team)


counted = st.lists(
    st.fixed_dictionaries(
        {"event_id": st.integers(1, 5) | one_of(ODD), "num_participants": st.integers(0, 5)}
    )
    | altered({"event_id": 1, "num_participants": 5}),
    max_size=3,
).map(lambda each: encode({"participant_counts": each}))


@given(answers | counted)
@examples(66)
def test_counts_are_read_whole_or_refused(body: bytes) -> None:
    with refused_as(AnswerUnreadable, length=len(body)):
        for event_id, count in decode_counts(body).items():
            check_int(event_id, 64)
            check_int(count, 64, least=0)


headers = st.dictionaries(st.sampled_from(["retry-after", "date", "x"]), texts)
errors = one_of([BODIES[name] for name in BODIES if name.startswith(("error", "oauth_error"))])
DECLARED: Final = (RetryLater, PartnerStopped, ScopeStopped, RequestRefused)


@given(
    st.integers(100, 599) | st.sampled_from([200, 200, 429]),
    answers
    | errors.flatmap(lambda body: altered(json.loads(body))).map(encode)
    | st.builds(lambda code, text: encode({"error": {"error_code": code, "error_msg": text}}),
                json_values, json_values)
    | st.builds(lambda each: encode({"error": "x", "error_details": each}), json_values),
    headers,
)  # fmt: skip
@examples(133)
def test_an_error_is_one_of_those_declared(status: int, body: bytes, headers: Mapping[str, str]) -> None:
    with refused_as(*DECLARED, length=len(body)):
        check_answer(status, body, headers)


DATES: Final = (
    "Wed, 30 Sep 2026 12:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT", "Sat, 01 Jan 0100 00:00:00 GMT",
    "Fri, 31 Dec 9999 23:59:59 -2359", "Mon, 1 Jan 1 0:0:0 +2359", "30 Sep 2026 12:00:00 +999999999999",
    "Wednesday, 30-Sep-26 12:00:00 GMT", "Wed Sep 30 12:00:00 2026",
)  # fmt: skip
dates = (
    one_of(DATES)
    | one_of(DATES).flatmap(lambda text: damaged(text.encode())).map(lambda each: each.decode("latin-1"))
    | st.text(max_size=80)
    | st.text("0123456789 :+-,MonJanGT", max_size=40)
)


@given(dates, dates)
@example(DATES[0], DATES[1])
@examples(133)
def test_a_date_and_a_wait_of_any_text(date_header: str, wait: str) -> None:
    moment = parse_http_date(date_header)
    check_optional(check_instant, moment)
    assert moment is None or 1970 <= moment.year < 9000
    for headers in ({"retry-after": wait}, {"retry-after": wait, "date": date_header}):
        seconds = retry_after_seconds(headers, now=NOW)
        assert seconds is None or 0 <= seconds < 10**12


# Of a row, and of an answer.
changes = st.datetimes(timezones=st.just(UTC)) | one_of(
    [
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 30, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    ]
)
moments = st.datetimes(datetime(1970, 1, 1), datetime(8999, 12, 31), timezones=st.just(UTC))


@given(st.lists(st.tuples(moments, st.none() | changes, st.floats(0, 600)), min_size=1, max_size=5))
@examples(66)
def test_no_date_of_an_answer_or_of_a_row_is_too_far_away(
    seen: list[tuple[datetime, datetime | None, float]],
) -> None:
    clock = MovedClock()
    vendor = VendorTime(clock)
    for date_header, newest, in_flight in seen:
        at = clock.monotonic()
        dated = vendor.dated(
            date_header.replace(microsecond=0), sent=at, received=at + 1, in_flight=in_flight
        )
        check_instant(dated.as_of)
        if dated.claimed is not None:
            vendor.show(newest, dated.claimed)
        check_instant(vendor.now())
        vendor.seen()
        assert vendor.spread_seconds() >= 0
        clock.advance(10)


packed = bodies.flatmap(
    lambda body: one_of([gzip.compress(body, mtime=0), zlib.compress(body), gzip.compress(b"") * 3])
)


@given(
    st.lists(st.binary(max_size=40) | packed | packed.flatmap(damaged), max_size=3),
    st.lists(st.sampled_from(["gzip", "deflate", "identity", " GZIP "]), max_size=3).map(",".join) | texts,
)
@examples(66)
def test_what_is_packed_comes_out_or_is_told_as_broken(pieces: list[bytes], names: str) -> None:
    with suppress(BrokenCoding, UnknownCoding):
        unpacker = Unpacker(names)
        for piece in pieces:
            assert all(len(part) <= max(PIECE_BYTES, len(piece)) for part in unpacker.unpack(piece))
        unpacker.end()


# Of a bad row among good ones.

odd_people = (
    json_values
    | one_of([*PEOPLE, *REMOVED]).flatmap(altered)
    | one_of(PEOPLE).flatmap(doubled_keys)
    | one_of(BROKEN)
)


def people_around(good: list[Any], odd: list[Any], at: list[int]) -> list[Any]:
    """Return the good rows, and the odd ones where it is said."""
    listed = list(good)
    for row, place in zip(odd, at, strict=True):
        listed.insert(place % (len(listed) + 1), row)
    return listed


SHAPES: Final[dict[str, Callable[[list[Any]], Any]]] = {
    "beside": lambda listed: [{"event": {"event_id": 901003}, "participants": listed}],
    "inside": lambda listed: [{"event": {"event_id": 901003, "participants": listed}}],
    "bare": lambda listed: {"participants": listed},
    "two": lambda listed: [
        {"event": {"event_id": 901003, "participants": listed[:1]}, "participants": []},
        {"event": {"event_id": 901003}, "participants": listed[1:]},
    ],
}


def is_template(raw: bytes) -> bool:
    with suppress(ValueError, AttributeError, RecursionError):
        return json.loads(raw).get("registration_id") in (-1, "-1")
    return False


@given(
    st.lists(odd_people, min_size=1, max_size=3).flatmap(
        lambda odd: st.tuples(st.just(odd), st.lists(st.integers(0, 9), min_size=len(odd), max_size=len(odd)))
    ),
    st.sampled_from(sorted(SHAPES)),
    st.booleans(),
)
@examples(100)
def test_no_row_is_lost_and_none_is_read_otherwise_for_its_neighbours(
    odd_at: tuple[list[Any], list[int]], shape: str, is_heavy: bool
) -> None:
    odd, at = odd_at
    good = [*PEOPLE, *REMOVED]
    make = SHAPES[shape]
    alone = rows.cut(encode(make(good)), ASKED)
    sent = people_around(good, odd, at)
    body = encode(make(sent))

    are_json = all(is_json(encode(row)) for row in odd)
    with pytest.MonkeyPatch.context() as patch:
        if is_heavy:  # as if it were too large for the parser
            patch.setattr(rows, "is_light", lambda body: False)
        try:
            found = rows.cut(body, ASKED)
        except AnswerUnreadable:
            # Only for what is broken, so that nobody can say where a row ends.
            assert not are_json, body
            return

    assert found.received == len(found.rows) + len(found.unreadable)
    if not are_json:
        return  # two such rows may make one that is fine, with what stands between them
    kept = {row.raw for row in found.rows} | {row.raw for row in found.unreadable}
    assert {raw for raw in map(encode, sent) if not is_template(raw)} <= kept
    by_id = {row.registration_id: row for row in found.rows}
    odd_texts = set(map(encode, odd))
    of_odd = {row.registration_id for row in found.rows if row.raw in odd_texts}
    assert [by_id[row.registration_id] for row in alone.rows if row.registration_id not in of_odd] == [
        row for row in alone.rows if row.registration_id not in of_odd
    ]


def is_json(raw: bytes) -> bool:
    """Say whether it is JSON, but for what some send all the same: NaN, and texts as they are."""
    try:
        json.loads(raw.decode("utf-8", "replace"), strict=False)
    except RecursionError:
        return True
    except ValueError as error:
        return "limit" in str(error)  # an integer of many digits
    return True


@given(st.lists(one_of(RACES).flatmap(altered) | json_values, min_size=1, max_size=3), st.booleans())
@examples(66)
def test_a_bad_race_changes_no_other(odd: list[Any], is_first: bool) -> None:
    alone = decode_race_list(encode({"races": RACES}), DATED)
    listed = [*odd, *RACES] if is_first else [*RACES, *odd]
    body = encode({"races": listed})

    page = decode_race_list(body, DATED)

    assert count_races(page) == len(listed)
    count = len(alone.races)
    assert list(page.races[-count:] if is_first else page.races[:count]) == list(alone.races)
    check_page(page)


@given(st.lists(one_of(TEAMS).flatmap(altered) | json_values, min_size=1, max_size=3))
@examples(66)
def test_a_bad_team_changes_no_other(odd: list[Any]) -> None:
    body = encode([{"event": {"event_id": 901003}, "teams": [*TEAMS, *odd]}])

    found = teams.cut(body, ASKED)

    assert found.received == len(TEAMS) + len(odd)
    alone = teams.cut(TEAMS_BODY, ASKED)
    assert [team for team, _ in found.rows][: len(TEAMS)] == [team for team, _ in alone.rows]
    twice = Counter(team.team_id for team, _ in found.rows)
    assert set(twice.values()) == {1}
