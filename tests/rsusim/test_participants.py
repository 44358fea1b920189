"""Which registrations a call lists: filters, pages and layouts of sections 8 to 10."""

from datetime import datetime
from typing import Any

import pytest

from tests.rsusim.conftest import NOW, Scene

T0 = int(NOW.timestamp())


def test_the_delta_filter_is_inclusive_and_in_whole_seconds(scene: Scene) -> None:
    first = scene.world.register(scene.five)
    scene.world.advance(10.7)
    second = scene.world.register(scene.five)

    def since(ts: int) -> list[int]:
        return scene.api.ids(scene.race, scene.five, modified_after_timestamp=ts)

    assert since(T0) == [first, second]
    assert since(T0 + 1) == [second]
    assert since(T0 + 10) == [second]
    assert since(T0 + 11) == []


def test_the_delta_filter_can_be_made_exclusive(scene: Scene) -> None:
    scene.world.register(scene.five)
    scene.world.quirks.modified_after_inclusive = False

    assert scene.api.ids(scene.race, scene.five, modified_after_timestamp=T0) == []


@pytest.mark.parametrize("text", ["2026-10-02", "1.5", "yesterday", "0x10", "1790942400.0"])
def test_a_timestamp_that_is_no_integer_is_refused(scene: Scene, text: str) -> None:
    path = f"race/{scene.race}/participants"

    assert scene.api.error(path, event_id=scene.five, modified_after_timestamp=text) == 3


def test_after_registration_id_is_strict_and_before_too(scene: Scene) -> None:
    a, b, c = (scene.world.register(scene.five) for _ in range(3))

    assert scene.api.ids(scene.race, scene.five, after_registration_id=a) == [b, c]
    assert scene.api.ids(scene.race, scene.five, before_registration_id=c) == [a, b]
    scene.world.quirks.after_registration_id_strict = False
    assert scene.api.ids(scene.race, scene.five, after_registration_id=a) == [a, b, c]


def test_pages_count_rows_over_all_events_and_keyset_meets_each_row_once(scene: Scene) -> None:
    made = [scene.world.register(scene.five if i % 3 else scene.ten) for i in range(17)]
    seen: list[int] = []
    while True:
        page = scene.api.ids(
            scene.race,
            scene.five,
            scene.ten,
            results_per_page=5,
            sort="registration_id ASC",
            after_registration_id=seen[-1] if seen else 0,
        )
        seen = sorted(seen + page)
        if len(page) < 5:
            break

    assert seen == made
    by_page = [
        scene.api.ids(scene.race, scene.five, scene.ten, results_per_page=5, page=n) for n in range(1, 6)
    ]
    assert [len(page) for page in by_page] == [5, 5, 5, 2, 0]
    assert sorted(number for page in by_page for number in page) == made


def test_a_page_is_50_rows_unless_asked_and_never_above_the_highest(scene: Scene) -> None:
    for _ in range(60):
        scene.world.register(scene.five)

    assert len(scene.api.ids(scene.race, scene.five)) == 50
    assert len(scene.api.ids(scene.race, scene.five, results_per_page=99999)) == 60
    scene.world.quirks.page_cap = 25
    assert len(scene.api.ids(scene.race, scene.five, results_per_page=2500)) == 25
    scene.world.quirks.page_size_excess = "error3"
    path = f"race/{scene.race}/participants"
    assert scene.api.error(path, event_id=scene.five, results_per_page=2501) == 3


def test_edits_between_two_pages_do_not_hide_a_standing_row_from_keyset(scene: Scene) -> None:
    made = [scene.world.register(scene.five) for _ in range(6)]
    calls = []
    scene.world.before_answer(lambda info: calls.append(info.number))
    scene.world.before_answer(
        lambda _: scene.world.remove(made[0]) if len(calls) == 2 else None  # between the pages
    )
    query: dict[str, Any] = {"results_per_page": 3, "sort": "registration_id ASC"}

    first = scene.api.ids(scene.race, scene.five, **query)
    second = scene.api.ids(scene.race, scene.five, after_registration_id=first[-1], **query)
    by_page = scene.api.ids(scene.race, scene.five, page=2, **query)

    assert first + second == made
    assert by_page == made[4:]  # what paging by number skips


def test_rows_stand_beside_their_event_and_the_key_is_absent_without_rows(scene: Scene) -> None:
    number = scene.world.register(scene.ten)
    path, both = f"race/{scene.race}/participants", f"{scene.five},{scene.ten}"

    body = scene.api.json(path, event_id=both)

    assert body[0] == {"event": {"event_id": scene.five, "participants": []}}
    assert body[1]["event"] == {"event_id": scene.ten, "participants": []}
    assert [row["registration_id"] for row in body[1]["participants"]] == [number]
    scene.world.quirks.participants_key_when_empty = "empty"
    assert scene.api.json(path, event_id=both)[0]["participants"] == []


def test_the_documented_layouts_put_all_rows_together(scene: Scene) -> None:
    made = {scene.world.register(scene.ten), scene.world.register(scene.five)}
    path, both = f"race/{scene.race}/participants", f"{scene.ten},{scene.five}"

    scene.world.quirks.layout = "object"
    body = scene.api.json(path, event_id=both)
    assert set(body) == {"event", "participants"}
    assert {row["registration_id"] for row in body["participants"]} == made
    assert {row["event_id"] for row in body["participants"]} == {scene.five, scene.ten}
    scene.world.quirks.layout = "together"
    assert scene.api.json(path, event_id=both) == [body]


def test_a_comma_list_can_be_ignored_or_answered_with_foreign_rows(scene: Scene) -> None:
    first, second = scene.world.register(scene.five), scene.world.register(scene.ten)

    scene.world.quirks.comma_list = "first_only"
    assert scene.api.ids(scene.race, scene.five, scene.ten) == [first]
    scene.world.quirks.comma_list = "first_two"
    assert scene.api.ids(scene.race, scene.five, scene.ten) == [first, second]
    mile = scene.world.add_event(scene.race, "Mile")
    third = scene.world.register(mile)
    assert scene.api.ids(scene.race, scene.five, scene.ten, mile) == [first, second]
    scene.world.quirks.comma_list = "foreign_rows"
    assert scene.api.ids(scene.race, scene.five) == [first, second, third]


def test_removed_rows_stand_inside_the_event_in_each_empty_form(scene: Scene) -> None:
    number = scene.world.register(scene.five)
    path = f"race/{scene.race}/removed-participants"
    head = {"event_id": scene.five}
    forms: dict[str, Any] = {
        "empty_list": [{"event": head | {"participants": []}}],
        "no_participants": [{"event": head}],
        "no_event": [{}],
        "no_elements": [],
    }
    for name, form in forms.items():
        scene.world.quirks.set("removed_when_empty", name)
        assert scene.api.json(path, event_id=scene.five) == form

    for name, value in (("array", []), ("null", None)):
        scene.world.quirks.set("event_when_empty", name)
        assert scene.api.json(path, event_id=scene.five) == [{"event": value}]
        assert scene.api.json(f"race/{scene.race}/participants", event_id=scene.ten) == [{"event": value}]

    scene.world.remove(number)

    row = scene.api.json(path, event_id=scene.five)[0]["event"]["participants"][0]
    assert row["registration_id"] == number
    assert "bib_num" not in row
    assert "event_id" not in row


def test_removed_rows_are_filtered_paged_and_condensed(scene: Scene) -> None:
    numbers = [scene.world.register(scene.five) for _ in range(4)]
    for number in reversed(numbers):
        scene.world.advance(60)
        scene.world.remove(number)

    def removed(**params: Any) -> list[int]:
        return [row["registration_id"] for row in scene.api.removed(scene.race, scene.five, **params)]

    assert removed() == numbers
    assert removed(sort="last_modified ASC") == numbers[::-1]
    assert removed(modified_after_timestamp=T0 + 180) == numbers[:2]
    assert removed(after_registration_id=numbers[1], results_per_page=1) == [numbers[2]]
    condensed = scene.api.removed(scene.race, scene.five, condensed_format="T")[0]
    assert condensed == {
        "registration_id": numbers[0],
        "removed_reason": "removed",
        "new_registration_id": None,
    }


def test_search_by_bib_is_exact(scene: Scene) -> None:
    wanted = scene.world.register(scene.five, bib_num=10)
    scene.world.register(scene.five, bib_num=100)

    assert scene.api.ids(scene.race, scene.five, search_bib=10) == [wanted]
    assert scene.api.ids(scene.race, scene.five, search_bib=1) == []


def test_search_by_name_and_mail_ignores_case(scene: Scene) -> None:
    wanted = scene.world.register(scene.five, first_name="Zoë", last_name="O'Brady", email="Z@x.org")
    scene.world.register(scene.five, first_name="Zoe", last_name="Brady", email="z2@x.org")

    for name, text in (("first_name", "zoË"), ("last_name", "o'brady"), ("email", "z@X.ORG")):
        assert scene.api.ids(scene.race, scene.five, **{f"search_{name}": text}) == [wanted]


def test_filters_by_moment_of_registration_are_inclusive(scene: Scene) -> None:
    a = scene.world.register(scene.five)
    scene.world.advance(60)
    b = scene.world.register(scene.five)
    scene.world.edit(a, city="Elsewhere")

    assert scene.api.ids(scene.race, scene.five, registered_after_timestamp=T0 + 60) == [b]
    assert scene.api.ids(scene.race, scene.five, registered_before_timestamp=T0) == [a]


def test_sorting_works_by_every_documented_key(scene: Scene) -> None:
    low = scene.world.register(
        scene.five, first_name="Ann", last_name="Zed", bib_num=9, dob="2000-01-01", gender="F", chip_num="1"
    )
    scene.world.advance(60)
    high = scene.world.register(
        scene.five, first_name="Bob", last_name="Abe", bib_num=10, dob="1990-01-01", gender="M", chip_num="2"
    )
    last_name_first = {"name", "last_name"}
    keys = "registration_id registration_date age name first_name last_name bib_num chip_num gender"
    for key in keys.split():
        wanted = [high, low] if key in last_name_first else [low, high]
        assert scene.api.ids(scene.race, scene.five, sort=f"{key} ASC") == wanted, key
        assert scene.api.ids(scene.race, scene.five, sort=f"{key} DESC") == wanted[::-1], key
    assert scene.api.ids(scene.race, scene.five, sort="gender DESC, bib_num ASC") == [high, low]
    assert scene.api.error(f"race/{scene.race}/participants", event_id=scene.five, sort="dob") == 3


def test_gender_x_needs_supports_nb(scene: Scene) -> None:
    scene.world.register(scene.five, gender="X")

    def gender(**params: Any) -> Any:
        return scene.api.rows(scene.race, scene.five, **params)[0]["user"].get("gender", "absent")

    assert gender(supports_nb="T") == "X"
    assert gender() is None
    scene.world.quirks.gender_x_without_supports_nb = "absent"
    assert gender() == "absent"
    scene.world.quirks.gender_x_without_supports_nb = "M"
    assert gender() == "M"


def test_rows_through_a_bundle_can_be_left_out(scene: Scene) -> None:
    bundle = scene.world.bundle(scene.race, [scene.five, scene.ten])
    alone = scene.world.register(scene.five)
    whole = scene.world.register(bundle)

    events = (scene.five, scene.ten, bundle)
    assert len(scene.api.ids(scene.race, *events)) == 4
    narrowed = scene.api.ids(scene.race, *events, exclude_registrations_via_super_event="T")
    assert sorted(narrowed) == [alone, whole]


def test_dates_are_eastern_and_ages_as_of_the_event(scene: Scene) -> None:
    moment = datetime.fromisoformat("2026-07-01T03:05:59+00:00").timestamp()
    scene.world.register(scene.five, registered_at=moment, dob="2000-10-05")

    row = scene.api.rows(scene.race, scene.five)[0]

    assert row["registration_date"] == "6/30/2026 23:05"
    assert row["last_modified"] == int(moment)
    assert row["age"] == 25


def test_counts_agree_with_the_listing_and_can_lie(scene: Scene) -> None:
    scene.world.register(scene.five)
    path = f"race/{scene.race}/participant-counts"

    def counts() -> list[tuple[int, int]]:
        rows = scene.api.json(path, event_id=f"{scene.five},{scene.ten}")["participant_counts"]
        return [(row["event_id"], row["num_participants"]) for row in rows]

    assert counts() == [(scene.five, 1), (scene.ten, 0)]
    scene.world.quirks.counts_off_by = 2
    assert counts() == [(scene.five, 3), (scene.ten, 2)]


def test_check_ins_are_listed_by_time_and_leave_last_modified(scene: Scene) -> None:
    a, b = scene.world.register(scene.five), scene.world.register(scene.ten)
    for number in (b, a):
        scene.world.advance(60)
        scene.world.check_in(number)
    path = "v2/participants/checkin-timestamps.json"

    def rows(**params: Any) -> list[Any]:
        body = scene.api.json(path, race_id=scene.race, format=None, **params)
        return [(row["registration_id"], row["checkin_ts"]) for row in body["checkin_timestamps"]]

    assert rows() == [(b, T0 + 60), (a, T0 + 120)]
    assert rows(min_checkin_ts=T0 + 120) == [(a, T0 + 120)]
    assert rows(max_checkin_ts=T0 + 60, num=1, page=1) == [(b, T0 + 60)]
    assert scene.api.ids(scene.race, scene.five, modified_after_timestamp=T0 + 1) == []


def test_old_events_can_be_outside_a_window_of_one_year(scene: Scene) -> None:
    old = scene.world.add_event(scene.race, "Old 5K", datetime(2025, 9, 1, 9))
    scene.world.register(old)
    scene.world.quirks.one_year_window = "empty"
    assert scene.api.ids(scene.race, old) == []
    scene.world.quirks.one_year_window = "error"
    assert scene.api.error(f"race/{scene.race}/participants", event_id=old) == 3


def test_values_and_fields_can_be_bent(scene: Scene) -> None:
    scene.world.register(
        scene.five, amount_paid=-500, race_fee=123_450, email="a@b.org", bib_num=5, transaction_id="x"
    )

    def row() -> dict[str, Any]:
        return scene.api.rows(scene.race, scene.five)[0]

    assert row()["amount_paid"] == "-$5.00"
    assert row()["race_fee"] == "$1,234.50"
    scene.world.quirks.money_negative = "parentheses"
    assert row()["amount_paid"] == "($5.00)"
    scene.world.quirks.transaction_id_as_int = True
    assert row()["transaction_id"] == row()["registration_id"]
    scene.world.quirks.ints_as_strings = "some"
    assert row()["bib_num"] == "5"
    assert isinstance(row()["registration_id"], int)
    scene.world.quirks.ints_as_strings = "all"
    assert isinstance(row()["registration_id"], str)
    assert isinstance(row()["last_modified"], str)
    scene.world.quirks.unknown_fields = True
    assert "zz_unknown" in row()
    assert "zz_unknown" in row()["user"]


def test_the_template_row_comes_only_when_asked_for(scene: Scene) -> None:
    assert scene.api.ids(scene.race, scene.five) == []
    assert scene.api.ids(scene.race, scene.five, include_template_participant="T") == [-1]
