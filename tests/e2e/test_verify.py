"""
A verification passes on a sound mirror, fails where one thing is broken, and changes nothing.

Each test that breaks something sees exactly the check fail that is about it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Iterator
from datetime import datetime, time, timedelta
from typing import Any, Final, cast
from zoneinfo import ZoneInfo

import psycopg
import pytest
import structlog

import rsusim
from bibwire.cli.status import verified
from bibwire.domain.budget import Urgency
from bibwire.domain.daily import next_of_day
from bibwire.domain.secrets import NOBODY
from bibwire.domain.verify import Check, Verdict
from bibwire.engine.backfill_reports import BackfillRequest
from bibwire.engine.nightly import Nightly
from bibwire.engine.planner import VERIFY, Planner
from bibwire.engine.reconcile import ReconcileRequest
from bibwire.engine.reports import SyncRequest
from bibwire.engine.verify import VerifyReport, VerifyRequest
from bibwire.store.database import Connection
from bibwire.store.jobs import Jobs
from bibwire.store.permits import Permits
from bibwire.store.session import open_session
from tests.house import House
from tests.waiting import PATIENCE_SECONDS

RACE_DAY: Final = datetime(2026, 9, 19, 8, 0)
HOUR: Final = 3600.0
ALL: Final = {
    "credential", "rights", "full", "removed", "incremental", "bibs", "feed", "page_size", "lists", "clock",
    "freshness", "budget",
}  # fmt: skip


class Scene:
    """A partner with two mirrored races, in which all kinds of changes were seen."""

    def __init__(self, house: House, world: rsusim.World) -> None:
        self.house, self.world = house, world
        self.account = world.add_partner("Peak Timing")
        self.race = world.add_race([self.account], "Harbor Lights", "America/Chicago")
        self.five, self.ten = (world.add_event(self.race, name, RACE_DAY) for name in ("5K", "10K"))
        self.other = world.add_race([self.account], "Hill Climb")
        self.mile = world.add_event(self.other, "Mile", RACE_DAY + timedelta(days=20))
        self.people: list[int] = []
        for event in (self.five, self.ten):
            for number in range(30):
                self.people.append(world.register(event, bib_num=1000 * event % 90_000 + number))
                world.advance(7)
        self.climbers = [world.register(self.mile, bib_num=500 + number) for number in range(30)]
        world.remove(self.people[0])
        self.partner = house.add_partner(self.account)
        self.sync()
        world.assign_bib(self.people[3], 77)
        world.transfer(self.people[4], self.ten)
        world.assign_bib(world.register(self.five), 78)
        world.remove(self.climbers[0], "cleared")
        self.sync()

    def sync(self) -> None:
        self.world.advance(HOUR)
        assert self.house.sync().errors == []
        self.world.advance(HOUR)

    def verify(self, **wishes: Any) -> VerifyReport:
        self.world.log.clear()
        request = VerifyRequest(seed=1, **wishes)
        chosen = self.house.run(self.house.runtime.engine.chosen(None))
        return self.house.run(self.house.runtime.verifier.verify(chosen, request))

    def write(self, statement: str, **values: Any) -> None:
        with psycopg.connect(self.house.runtime.conninfo, autocommit=True) as connection:
            assert connection.execute(statement.encode(), values).rowcount > 0

    def schedule(self) -> None:
        """Let a planner make its plan."""
        runtime = self.house.runtime
        self.house.run(Planner(runtime.db, runtime.jobs, runtime.clock).tick())

    def mirror(self) -> list[list[dict[str, Any]]]:
        tables = ("participants", "changes", "streams", "races", "events", "scopes", "doubts", "quarantine")
        return [self.house.rows(f"SELECT * FROM bibwire.{table} AS t ORDER BY t::text") for table in tables]


def failed(report: VerifyReport) -> set[str]:
    assert report.of(Verdict.ERROR) == []
    return {check.check for check in report.of(Verdict.FAIL)}


def the(report: VerifyReport, name: str, race: int | None = None) -> Check:
    [check] = [each for each in report.checks if each.check == name and race in (None, each.race_id)]
    return check


@pytest.fixture
def scene(house: House, world: rsusim.World) -> Iterator[Scene]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield Scene(house, world)
    structlog.reset_defaults()


def test_everything_passes_on_a_sound_mirror_and_nothing_is_written_to_it(scene: Scene) -> None:
    before = scene.mirror()

    report = scene.verify()

    assert [(c.check, c.seen) for c in report.checks if c.verdict not in ("pass", "skipped")] == []
    assert {check.check for check in report.checks} == ALL
    assert [check.check for check in report.of(Verdict.SKIPPED)] == ["freshness"]
    assert report.exit_code == 0
    assert report.calls == scene.world.log.calls == sum(check.calls for check in report.checks)
    assert scene.mirror() == before
    [row] = scene.house.rows("SELECT * FROM bibwire.sync_history WHERE kind = 'verify'")
    assert (row["outcome"], row["calls"], row["error"]) == ("ok", report.calls, None)
    assert the(report, "budget").seen == f"{report.calls} sent, {report.calls} counted"
    assert "sent" not in json.dumps([check.asked for check in report.checks])


def test_the_plan_is_told_before_the_first_call_and_close_to_what_is_made(scene: Scene) -> None:
    told: list[tuple[str, int, int, int]] = []
    request = VerifyRequest(seed=1)
    scene.world.log.clear()
    chosen = scene.house.run(scene.house.runtime.engine.chosen(None))
    verifying = scene.house.runtime.verifier.verify(
        chosen, request, announce=lambda *words: told.append((*words, scene.world.log.calls))
    )
    report = scene.house.run(verifying)

    assert told == [("Peak Timing", report.calls, 40, 0)]


def test_a_refused_key_fails_and_nothing_else_is_asked(scene: Scene) -> None:
    scene.world.faults.add(rsusim.Fault(kind="error_6", times=None))

    report = scene.verify()

    assert failed(report) == {"credential"}
    assert (report.exit_code, report.unverified, scene.world.log.calls) == (1, 1, 1)
    assert the(report, "lists").verdict == "skipped"


def test_withdrawn_rights_fail_and_the_race_is_named(scene: Scene) -> None:
    scene.world.withdraw(scene.account, scene.race)

    report = scene.verify()

    assert failed(report) == {"rights"}
    [check] = report.of(Verdict.FAIL)
    assert check.race_id == scene.race
    assert "Harbor Lights" in check.seen
    assert the(report, "full", scene.race).verdict == "skipped"
    assert the(report, "full", scene.other).verdict == "pass"


def test_rights_that_went_without_a_word_fail(scene: Scene) -> None:
    scene.world.quirks.lost_rights = "empty"
    scene.world.withdraw(scene.account, scene.race)

    assert failed(scene.verify()) == {"rights"}


@pytest.mark.parametrize(
    ("statement", "seen"),
    [
        ("UPDATE bibwire.participants SET last_name = 'Nobody' WHERE registration_id = %(i)s", "last_name 1"),
        ("UPDATE bibwire.participants SET chip_num = 'X' WHERE registration_id = %(i)s", "chip_num 1"),
        (
            "UPDATE bibwire.participants SET last_modified_at = last_modified_at + interval '9 years' "
            "WHERE registration_id = %(i)s",
            "last_modified_at 1",
        ),
        (
            "UPDATE bibwire.participants SET payment_info = '{}' WHERE registration_id = %(i)s",
            "payment_info 1",
        ),
        ("DELETE FROM bibwire.participants WHERE registration_id = %(i)s", "1 missing in the mirror"),
        (
            "UPDATE bibwire.participants SET removed_at = '2026-09-01', removed_reason = 'absent' "
            "WHERE registration_id = %(i)s",
            "1 missing in the mirror",
        ),
    ],
)
def test_a_row_that_is_not_the_vendors_fails(scene: Scene, statement: str, seen: str) -> None:
    # One without a bib that is looked up.
    number = scene.world.register(scene.five)
    scene.sync()
    scene.write(statement, i=number)

    report = scene.verify()

    assert failed(report) == {"full"}
    assert seen in the(report, "full", scene.race).seen
    assert str(number) in the(report, "full", scene.race).seen


def test_a_row_that_the_vendor_has_no_more_fails(scene: Scene) -> None:
    number = scene.world.register(scene.five)
    scene.sync()
    scene.world.vanish(number)
    scene.world.advance(HOUR)

    report = scene.verify()

    assert failed(report) == {"full"}
    assert f"1 extra in the mirror ({number})" in the(report, "full", scene.race).seen


def test_a_difference_that_a_second_look_does_not_show_is_none(scene: Scene) -> None:
    """As when a change is published very late, and a poll reads it between the two looks."""
    change = "UPDATE bibwire.participants SET last_name = %(n)s WHERE registration_id = %(i)s"
    number = scene.people[20]
    name = scene.house.participant(number)["last_name"]
    scene.write(change, n="Before", i=number)

    def poll(info: rsusim.RequestInfo) -> None:
        if "modified_after_timestamp" in info.query:
            scene.write(change, n=name, i=number)

    scene.world.before_answer(poll)

    assert failed(scene.verify()) == set()


def test_an_edit_that_leaves_no_trace_in_the_changes_fails(scene: Scene) -> None:
    scene.world.edit_silently(scene.people[10], last_name="Quiet")

    assert failed(scene.verify()) == {"full"}


def test_a_vendor_that_does_not_filter_changes_fails(scene: Scene) -> None:
    scene.world.quirks.modified_after = "ignored"

    report = scene.verify()

    assert failed(report) == {"incremental"}
    assert "changed before" in the(report, "incremental", scene.race).seen


def test_a_vendor_whose_changes_lack_some_fails(scene: Scene) -> None:
    scene.world.quirks.modified_after_inclusive = False

    report = scene.verify()

    assert failed(report) == {"incremental"}
    assert "1 lacking" in the(report, "incremental", scene.race).seen


def test_a_vendor_that_finds_no_bibs_fails(scene: Scene) -> None:
    def hide(info: rsusim.RequestInfo) -> None:
        scene.world.quirks.lost_rights = "empty" if "search_bib" in info.query else "error"
        (scene.world.withdraw if "search_bib" in info.query else scene.world.grant)(scene.account, scene.race)

    scene.world.before_answer(hide)

    report = scene.verify()

    assert failed(report) == {"bibs"}
    assert "the vendor does not" in the(report, "bibs", scene.race).seen


def test_a_bib_held_by_another_in_the_mirror_fails_for_rows_and_bibs(scene: Scene) -> None:
    scene.write(
        "UPDATE bibwire.participants SET bib_num = bib_num + 100000 WHERE race_id = %(r)s AND bib_num > 99",
        r=scene.other,
    )

    report = scene.verify()

    assert failed(report) == {"full", "bibs"}
    assert "the mirror has" in the(report, "bibs", scene.other).seen


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM bibwire.changes WHERE kind = 'bib_changed'",
        "DELETE FROM bibwire.changes WHERE seq = (SELECT max(seq) FROM bibwire.changes)",
        "UPDATE bibwire.changes SET bib_to = 99 WHERE kind = 'bib_changed'",
        "UPDATE bibwire.changes SET bib_to = 99 WHERE kind = 'registered' AND bib_to = 78",
        "UPDATE bibwire.changes SET registration_id = 1 WHERE kind = 'bib_changed'",
        "DELETE FROM bibwire.changes WHERE kind = 'loaded'",
    ],
)
def test_a_bib_change_that_is_not_in_the_feed_fails(scene: Scene, statement: str) -> None:
    scene.write(statement)

    assert failed(scene.verify()) == {"feed"}


@pytest.mark.parametrize(
    ("statement", "seen"),
    [
        ("DELETE FROM bibwire.participants WHERE registration_id = %(i)s", "1 missing"),
        (
            "UPDATE bibwire.participants SET removed_reason = 'deferred' WHERE registration_id = %(i)s",
            "1 with another",
        ),
        (
            "UPDATE bibwire.participants SET removed_at = removed_at + interval '1 minute' "
            "WHERE registration_id = %(i)s",
            "1 with another",
        ),
    ],
)
def test_a_removal_that_is_no_such_tombstone_fails(scene: Scene, statement: str, seen: str) -> None:
    scene.write(statement, i=scene.people[0])

    report = scene.verify()

    assert failed(report) == {"removed"}
    assert seen in the(report, "removed", scene.race).seen


@pytest.mark.parametrize("offset", [45.0, -45.0, 1000.0])
def test_a_clock_that_is_not_the_vendors_is_told_and_no_fault_of_the_vendors(
    scene: Scene, offset: float
) -> None:
    scene.world.quirks.date_offset_seconds = offset

    report = scene.verify()

    assert failed(report) == set()
    assert "this computer's clock is" in the(report, "clock").seen


def test_a_vendor_whose_dates_do_not_agree_fails(scene: Scene) -> None:
    odd = {"date_offset_seconds": -90.0}
    scene.world.faults.add(rsusim.Fault(path="participants", kind="quirk", quirks=odd))

    assert failed(scene.verify()) == {"clock"}


@pytest.mark.parametrize("offset", [-25.0, 25.0])
def test_clocks_that_are_a_little_apart_pass(scene: Scene, offset: float) -> None:
    scene.world.quirks.date_offset_seconds = offset

    assert failed(scene.verify()) == set()


@pytest.mark.parametrize("habit", ["first_only", "foreign_rows"])
def test_lists_of_events_that_cannot_be_believed_fail(scene: Scene, habit: str) -> None:
    if habit == "foreign_rows":
        # An event that is over, whose rows come along.
        old = scene.world.add_event(scene.race, "Last year", RACE_DAY - timedelta(days=100))
        scene.world.register(old)
        scene.sync()
    scene.world.quirks.comma_list = habit

    report = scene.verify()

    assert failed(report) == {"lists"}
    assert the(report, "lists").race_id == scene.race


def test_a_race_asked_for_one_event_at_a_time_is_verified_so(scene: Scene) -> None:
    scene.world.quirks.comma_list = "first_only"
    assert scene.house.sync(full=True).errors == []
    fallen_back = "SELECT race_id FROM bibwire.scopes WHERE one_event_since IS NOT NULL"
    assert scene.house.rows(fallen_back) == [{"race_id": scene.race}]
    scene.world.quirks.comma_list = "honoured"
    scene.world.advance(HOUR)

    report = scene.verify()

    assert failed(report) == set()
    together = [r for r in scene.world.log.of("participants") if "," in r.query["event_id"]]
    assert len(together) == 1  # that lists are proven by
    assert the(report, "lists").verdict == "pass"


def test_shorter_pages_than_asked_for_fail(scene: Scene) -> None:
    scene.world.quirks.page_cap = 26

    report = scene.verify()

    assert failed(report) == {"page_size"}
    assert "a page of 26 rows, and more followed" in the(report, "page_size").seen


def test_a_race_of_several_pages_has_its_first_page_full(
    world: rsusim.World, simulator: rsusim.Server, database_url: str
) -> None:
    with House(world, simulator.base_url, database_url, page_size=20) as house:
        scene = Scene(house, world)
        report = scene.verify()

    assert failed(report) == set()
    assert the(report, "page_size").seen == "a first page of 20 rows"


def test_calls_that_were_sent_and_not_counted_fail(scene: Scene) -> None:
    # No run does it: it stands for a bug in the counting.
    def forget(info: rsusim.RequestInfo) -> None:
        if info.endpoint == "removed-participants":
            scene.write("DELETE FROM bibwire.call_minutes")

    scene.world.before_answer(forget)

    report = scene.verify()

    assert failed(report) == {"budget"}
    assert the(report, "budget").seen.startswith(f"{report.calls} sent, ")


def verify_while_another_spends(scene: Scene, urgency: Urgency) -> VerifyReport:
    """Verify; at each call another process takes a permit of that class, and makes no call of it."""
    runtime = scene.house.runtime

    async def go() -> VerifyReport:
        loop = asyncio.get_running_loop()
        async with open_session(runtime.conninfo) as session:
            permits = Permits(
                runtime.db, session, runtime.clock, credential_id=scene.partner.credential_id,
                caller=NOBODY, calls_in_flight=4, urgency=urgency,
            )  # fmt: skip

            async def spend() -> None:
                async with permits.permit("participants"):
                    pass

            scene.world.before_answer(
                lambda info: asyncio.run_coroutine_threadsafe(spend(), loop).result(PATIENCE_SECONDS)
            )
            chosen = await runtime.engine.chosen(None)
            report = await runtime.verifier.verify(chosen, VerifyRequest(seed=1))
            scene.world.clear_hooks()
            return report

    return scene.house.run(go())


def test_calls_of_others_meanwhile_do_not_disturb_the_accounting(scene: Scene) -> None:
    report = verify_while_another_spends(scene, Urgency.RACE_DAY)

    assert failed(report) == set()
    assert the(report, "budget").seen == f"{report.calls} sent, {report.calls} counted"


def test_calls_counted_as_ours_and_made_by_nobody_fail(scene: Scene) -> None:
    report = verify_while_another_spends(scene, Urgency.RECONCILE)

    assert failed(report) == {"budget"}


@pytest.mark.parametrize("still_at_its_list", [True, False])
def test_a_reconciliation_meanwhile_explains_more_calls(scene: Scene, still_at_its_list: bool) -> None:
    runtime = scene.house.runtime

    is_listing, is_verified = threading.Event(), threading.Event()

    async def both() -> VerifyReport:
        loop, under_way = asyncio.get_running_loop(), asyncio.Event()

        def begin(_: rsusim.RequestInfo) -> None:
            loop.call_soon_threadsafe(under_way.set)

        scene.world.before_answer(begin)

        async def reconcile() -> None:
            await under_way.wait()
            assert (await runtime.reconcile(ReconcileRequest())).errors == []

        async def hold() -> None:
            """Let the verification wait for the list to be asked for, and its answer for the verification."""
            faults = scene.world.faults
            asked = faults.add(rsusim.Fault(path="races", kind="slow", until=is_verified))
            faults.add(rsusim.Fault(path="removed-participants", kind="slow", until=is_listing))
            while not asked.struck:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            is_listing.set()

        chosen = await runtime.engine.chosen(None)
        holding = asyncio.create_task(hold() if still_at_its_list else asyncio.sleep(0))
        meanwhile = asyncio.create_task(reconcile())
        try:
            report = await runtime.verifier.verify(chosen, VerifyRequest(seed=1))
            assert not (still_at_its_list and meanwhile.done())
        finally:
            holding.cancel()
            is_listing.set()
            is_verified.set()
        await meanwhile
        return report

    report = scene.house.run(both())

    assert failed(report) == set()
    assert the(report, "budget").seen.endswith("a reading of the race list ran")


def test_a_stale_race_fails_once_a_scheduler_has_run(scene: Scene) -> None:
    scene.schedule()
    assert failed(scene.verify()) == set()
    assert {check.verdict for check in scene.verify().checks if check.check == "freshness"} == {"pass"}
    scene.world.advance(9 * HOUR)

    report = scene.verify()

    assert failed(report) == {"freshness"}
    assert the(report, "freshness", scene.race).seen == "36,000 s old, and 14,400 s is its target"


@pytest.mark.parametrize("most", [1, 4, 11])
def test_no_more_calls_are_made_than_were_given(scene: Scene, most: int) -> None:
    report = scene.verify(max_calls=most)

    assert scene.world.log.calls == report.calls
    assert most - 1 <= report.calls <= most
    assert report.of(Verdict.FAIL) == []
    assert any("--max-calls" in check.seen for check in report.of(Verdict.ERROR))
    # What was not made is no check that passed.
    assert report.exit_code == 3


def test_retries_count_among_the_calls_that_were_given(scene: Scene) -> None:
    scene.world.faults.add(rsusim.Fault(path="participants", kind="http_503", nth=3, times=None))

    scene.verify(max_calls=9)

    assert scene.world.log.calls == 9


def test_what_changes_at_the_vendor_after_the_sync_fails_nothing(scene: Scene) -> None:
    world = scene.world
    world.assign_bib(scene.people[5], 4005)
    world.swap_bibs(scene.people[6], scene.people[7])
    world.edit(scene.people[8], last_name="Later")
    world.remove(scene.people[9])
    world.transfer(scene.people[10], scene.ten)
    world.move(scene.people[11], scene.ten)
    world.register(scene.ten)
    world.restore(scene.people[0])
    world.advance(HOUR)

    report = scene.verify()

    assert failed(report) == set()
    assert "changed meanwhile" in the(report, "full", scene.race).seen


def test_who_left_since_the_removed_list_was_read_fails_nothing(scene: Scene) -> None:
    # It is read with every fourth or sixth poll; here, because it fails in one.
    for person in scene.climbers[1:28]:
        scene.world.remove(person)
    scene.world.advance(HOUR)
    fault = scene.world.faults.add(rsusim.Fault("removed-participants", times=None))
    assert scene.house.sync().errors != []
    fault.times = 0
    scene.world.advance(HOUR)

    report = scene.verify()

    assert failed(report) == set()
    assert "the same holders of" in the(report, "bibs", scene.other).seen


def live(scene: Scene) -> None:
    """Let people sign up, get bibs, move and leave with every answer of the vendor's."""
    world, numbers = scene.world, iter(scene.people[12:29] + scene.people[31:])

    def strike(info: rsusim.RequestInfo) -> None:
        world.advance(2)
        moved = [number for _ in range(3) if (number := next(numbers, None)) is not None]
        world.register(scene.five, bib_num=9000 + info.number)
        if len(moved) == 3:
            world.assign_bib(moved[0], 20_000 + info.number)
            world.remove(moved[1])
            world.transfer(moved[2], scene.five, transfer_bib=True)

    world.after_answer(strike)


def test_what_changes_while_it_is_verified_fails_nothing(scene: Scene) -> None:
    live(scene)

    report = scene.verify(max_calls=80)

    assert [(c.check, c.seen) for c in report.of(Verdict.FAIL) + report.of(Verdict.ERROR)] == []
    assert scene.world.log.failures == []


def test_what_a_worker_stores_while_it_is_verified_fails_nothing(scene: Scene) -> None:
    runtime = scene.house.runtime

    async def both() -> VerifyReport:
        chosen = await runtime.engine.chosen(None)
        verifying = asyncio.create_task(runtime.verifier.verify(chosen, VerifyRequest(max_calls=80, seed=1)))
        while not verifying.done():
            assert (await runtime.engine.sync(SyncRequest())).errors == []
        return verifying.result()

    live(scene)

    report = scene.house.run(both())

    assert [(c.check, c.seen) for c in report.of(Verdict.FAIL) + report.of(Verdict.ERROR)] == []
    assert scene.world.log.failures == []


def test_a_vendor_that_cannot_be_reached_is_an_error_and_no_failure(scene: Scene) -> None:
    scene.world.faults.add(rsusim.Fault(kind="http_503", times=None))

    report = scene.verify(max_calls=9)

    assert report.of(Verdict.FAIL) == []
    assert the(report, "credential").verdict == "error"
    assert the(report, "budget").verdict == "pass"
    assert report.exit_code == 1


def test_a_race_that_cannot_be_read_makes_it_partly_done(scene: Scene) -> None:
    scene.world.faults.add(
        rsusim.Fault(path="participant-counts", kind="error_4", times=None, race_id=scene.other)
    )

    report = scene.verify(max_calls=80)

    assert report.of(Verdict.FAIL) == []
    assert {check.race_id for check in report.of(Verdict.ERROR)} == {scene.other}
    assert report.exit_code == 3
    [row] = scene.house.rows("SELECT outcome, error FROM bibwire.sync_history WHERE kind = 'verify'")
    assert row["outcome"] == "partial"


def test_removals_that_were_taken_back_are_explained(scene: Scene) -> None:
    scene.world.quirks.restored_stays_removed = True
    scene.world.restore(scene.people[0])
    scene.sync()

    report = scene.verify()

    assert failed(report) == set()
    assert "1 active again since" in the(report, "removed", scene.race).seen


def test_a_partner_without_races_is_skipped(house: House, world: rsusim.World) -> None:
    house.add_partner(world.add_partner("Peak Timing"))
    assert house.sync().errors == []

    chosen = house.run(house.runtime.engine.chosen(None))
    report = house.run(house.runtime.verifier.verify(chosen, VerifyRequest()))

    assert {check.verdict for check in report.checks} == {"skipped"}
    assert report.exit_code == 0


class Nights:
    """The planner's tick and the jobs it queues, run at once."""

    def __init__(self, scene: Scene, at: time | None = time(3)) -> None:
        self.scene, house = scene, scene.house
        self.deferred: list[tuple[str, dict[str, Any]]] = []
        zone = ZoneInfo("America/Denver")
        next_at = None if at is None else (lambda now: next_of_day([at], zone, now=now))
        runtime = house.runtime
        self.planner = Planner(runtime.db, cast(Jobs, self), house.clock, next_verification=next_at)
        self.nightly = Nightly(
            db=runtime.db,
            partners=runtime.partners,
            verifier=runtime.verifier,
            clock=house.clock,
            next_verification=next_at,
        )

    async def defer(self, connection: Connection, task: str, args: dict[str, Any], **locks: Any) -> bool:
        self.deferred.append((task, args))
        return True

    def tick(self, stopping: bool = False) -> int:
        """Let the planner look; return how many verifications it had made."""
        self.deferred.clear()
        stop = asyncio.Event()
        if stopping:
            stop.set()

        async def once() -> int:
            queued = (await self.planner.tick()).verifications
            for task, args in list(self.deferred):
                if task == VERIFY:
                    await self.nightly.verify(args, stop)
            return queued

        return self.scene.house.run(once())

    @property
    def plan(self) -> dict[str, Any]:
        [row] = self.scene.house.rows(
            "SELECT next_verify_at, verified_at, verify_failures FROM bibwire.plans"
        )
        return row


def test_every_night_at_its_hour_a_partner_is_verified_once(scene: Scene) -> None:
    nights = Nights(scene)
    assert nights.tick() == 0
    first = nights.plan["next_verify_at"]
    assert first.astimezone(ZoneInfo("America/Denver")).time() == time(3)
    assert nights.plan["verified_at"] is None
    scene.world.advance((first - scene.world.now).total_seconds() - 1)
    scene.house.sync()
    assert nights.tick() == 0
    scene.world.advance(2)

    assert nights.tick() == 1

    assert nights.plan["verified_at"] == scene.world.now
    assert nights.plan["next_verify_at"] == first + timedelta(days=1)
    assert nights.plan["verify_failures"] == []
    assert nights.tick() == 0
    runs = scene.house.rows("SELECT outcome FROM bibwire.sync_history WHERE kind = 'verify'")
    assert [run["outcome"] for run in runs] == ["ok"]


def to_the_hour(scene: Scene, nights: Nights) -> None:
    nights.tick()
    scene.world.advance((nights.plan["next_verify_at"] - scene.world.now).total_seconds() + 1)
    assert scene.house.sync().errors == []


def calls_of_a_night_that_passes(scene: Scene) -> int:
    """Verify at night and find nothing; return how many calls that took."""
    nights = Nights(scene)
    to_the_hour(scene, nights)
    scene.world.log.clear()

    assert nights.tick() == 1

    assert nights.plan["verify_failures"] == []
    assert nights.plan["verified_at"] == scene.world.now
    return scene.world.log.calls


def test_what_fails_at_night_is_an_error_of_the_log_and_of_the_status(scene: Scene) -> None:
    nights = Nights(scene)
    to_the_hour(scene, nights)
    before = scene.house.participant(scene.people[20])["chip_num"]
    scene.write(
        "UPDATE bibwire.participants SET chip_num = 'X' WHERE registration_id = %(i)s", i=scene.people[20]
    )

    structlog.reset_defaults()
    with structlog.testing.capture_logs() as logged:
        assert nights.tick() == 1

    [error] = [line for line in logged if line["log_level"] == "error"]
    assert (error["action"], error["check"], error["race_id"]) == ("verify", "full", scene.race)
    assert "chip_num 1" in error["seen"]
    [failure] = nights.plan["verify_failures"]
    assert (failure["check"], failure["verdict"], failure["race_id"]) == ("full", "fail", scene.race)
    [partner] = scene.house.run(scene.house.runtime.reports.partners())
    assert (partner.mirror_verified_at, partner.verify_failures) == (scene.world.now, [failure])
    told = [sentence for sentence, _ in verified(partner)]
    assert told[1].startswith(f"Peak Timing: check full of race {scene.race} failed: ")
    # By hand it is noted too, once it is mended.
    scene.write("UPDATE bibwire.participants SET chip_num = %(c)s WHERE chip_num = 'X'", c=before)
    assert failed(scene.verify()) == set()
    assert nights.plan["verify_failures"] == []


def test_a_vendor_that_is_gone_at_night_is_asked_again_within_the_hour(scene: Scene) -> None:
    nights = Nights(scene)
    to_the_hour(scene, nights)
    scene.world.faults.add(rsusim.Fault(kind="http_503", times=None))

    assert nights.tick() == 1

    assert nights.plan["verified_at"] is None
    assert nights.plan["next_verify_at"] == scene.world.now + timedelta(hours=1)
    assert [each["verdict"] for each in nights.plan["verify_failures"]] == ["error"]
    scene.world.faults.clear()
    scene.world.advance(HOUR)
    assert nights.tick() == 1
    assert nights.plan["verified_at"] == scene.world.now


def test_at_night_as_many_calls_are_made_as_large_races_take(scene: Scene) -> None:
    scene.house.runtime.page_size = 2  # as if a race had tens of thousands of people

    assert calls_of_a_night_that_passes(scene) > 40


def test_where_the_hour_leaves_too_few_calls_fewer_races_are_verified_at_night(scene: Scene) -> None:
    scene.house.runtime.page_size = 2
    scene.house.run(scene.house.runtime.partners.limit("Peak Timing", 280))

    assert calls_of_a_night_that_passes(scene) <= 82


def test_what_no_call_was_left_for_at_night_is_said_and_made_within_the_hour(scene: Scene) -> None:
    scene.house.runtime.page_size = 2
    scene.house.run(scene.house.runtime.partners.limit("Peak Timing", 280))
    nights = Nights(scene)
    to_the_hour(scene, nights)
    scene.verify(max_calls=30)

    structlog.reset_defaults()
    with structlog.testing.capture_logs() as logged:
        assert nights.tick() == 1

    assert {each["verdict"] for each in nights.plan["verify_failures"]} == {"error"}
    assert any("the hour's calls" in each["seen"] for each in nights.plan["verify_failures"])
    [told] = [line for line in logged if line["event"].startswith("mirror ")]
    assert told["event"] == "mirror verified in part"
    assert (told["failed"], told["errors"]) == (0, len(nights.plan["verify_failures"]))
    again_at = nights.plan["next_verify_at"]
    assert timedelta(hours=1) < again_at - scene.world.now < timedelta(hours=1, minutes=5)
    scene.world.advance((again_at - scene.world.now).total_seconds())
    # Calls are counted by the database's clock, which is not moved: instead of the hour, more are allowed.
    scene.house.run(scene.house.runtime.partners.limit("Peak Timing", 10_000))
    assert nights.tick() == 1
    assert nights.plan["verify_failures"] == []
    assert nights.plan["next_verify_at"] > scene.world.now + timedelta(hours=20)


def test_a_pause_that_the_vendor_asks_for_at_night_is_told_as_one(scene: Scene) -> None:
    nights = Nights(scene)
    to_the_hour(scene, nights)
    scene.world.faults.add(rsusim.Fault(path="participants", kind="http_429", retry_after=600, times=None))
    scene.verify(max_calls=5)
    scene.world.log.clear()

    assert nights.tick() == 1

    assert scene.world.log.calls == 0
    [failure] = nights.plan["verify_failures"]
    assert "HTTP 429" in failure["seen"]
    again_at = nights.plan["next_verify_at"]
    assert timedelta(hours=1) <= again_at - scene.world.now < timedelta(hours=1, minutes=5)


def test_a_verification_that_is_broken_off_is_made_again(scene: Scene) -> None:
    nights = Nights(scene)
    to_the_hour(scene, nights)

    assert nights.tick(stopping=True) == 1

    assert nights.plan["verified_at"] is None
    assert nights.tick() == 0
    scene.world.advance(HOUR)
    assert nights.tick() == 1
    assert nights.plan["verified_at"] == scene.world.now


def test_switched_off_nobody_is_verified_by_the_clock(scene: Scene) -> None:
    Nights(scene).tick()
    nights = Nights(scene, None)

    nights.tick()
    scene.world.advance(30 * HOUR)

    assert nights.tick() == 0
    assert nights.plan["next_verify_at"] is None


def test_history_that_was_loaded_is_no_gap_of_the_feed(scene: Scene) -> None:
    for event in (
        scene.world.add_event(scene.race, "5K", RACE_DAY.replace(year=2025)),
        scene.world.add_event(scene.race, "5K", RACE_DAY.replace(year=2024)),
    ):
        for number in range(10):
            scene.world.register(event, bib_num=number)
    request = BackfillRequest(since=scene.world.now - timedelta(days=3650))
    assert scene.house.run(scene.house.runtime.backfill(request)).errors == []

    assert failed(scene.verify()) == set()
    # What is lost of it later is one.
    scene.write("DELETE FROM bibwire.changes WHERE fields ? 'event_ids'")
    assert "feed" in failed(scene.verify())
