"""
Whatever happens at the vendor, in whatever order, the mirror ends up equal to it.

Hypothesis writes histories: changes at the vendor, syncs, syncs that meet faults, syncs during
which the vendor changes between two answers, syncs that are killed. After every sync the feed is
replayed; after every clean one the mirror is held against the world.

`make test` runs the same histories every time. `make fuzz` takes other ones; it prints its seed,
and BIBWIRE_FUZZ_SEED repeats it.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Final

import hypothesis
import hypothesis.strategies as st
import psycopg
import pytest
import structlog

import rsusim
from bibwire.engine.reports import SyncReport, SyncRequest
from rsusim.log import RequestInfo
from tests.conftest import NOON
from tests.e2e.truth import Replay, assert_mirror_equals_world, assert_no_cursor_is_ahead
from tests.house import House

STEPS: Final = 50
SHARDS: Final = 8
HISTORIES: Final = int(os.environ.get("BIBWIRE_FUZZ_HISTORIES", "208"))
SEED: Final = int(
    os.environ.get("BIBWIRE_FUZZ_SEED")
    or (random.randrange(2**32) if "BIBWIRE_FUZZ_HISTORIES" in os.environ else 0)
)
# To shrink a failing history takes up to five minutes; the seed gives it again.
PHASES: Final = (
    (hypothesis.Phase.generate, hypothesis.Phase.shrink)
    if "BIBWIRE_FUZZ_HISTORIES" in os.environ
    else (hypothesis.Phase.generate,)
)
RACE_DAY: Final = datetime(2026, 9, 19, 8, 0)
LATEST_PUBLICATION: Final = 10
CONFIRMED_AFTER: Final = 10 * 60 + 1
DOUBT: Final = "neither listed nor counted any more"

# What may pass by itself, or is refused in a way nobody can take for an answer.
FAULTS: Final = (
    "http_503",
    "http_429",
    "http_522",
    "http_500",
    "error_14",
    "error_4",
    "error_5",
    "error_3",
    "error_6",
    "error_7",
    "error_99",
    "error_string",
    "html_200",
    "empty_body",
    "truncated",
    "cut_off",
    "reset",
    "empty_object",
    "empty_array",
    "null",
    "string",
    "number",
    "bad_utf8",
    "duplicate_rows",
    "credentials_echoed",
    "credentials_in_error",
    "slow_body",
    "slow_after_reading",
)
FAULTY: Final = ("participants", "removed-participants", "races", "participant-counts")

# Name and weight; the first is what a failing history is shrunk towards.
STEP_WEIGHTS: Final = {
    "wait": 10,
    "wait_long": 2,
    "register": 6,
    "edit": 5,
    "edit_twice": 2,
    "edit_silently": 1,
    "assign_bib": 7,
    "clear_bib": 2,
    "swap_bibs": 2,
    "bulk_assign": 1,
    "transfer": 3,
    "defer": 1,
    "remove": 4,
    "remove_and_restore": 1,
    "restore": 3,
    "vanish": 1,
    "edit_race": 1,
    "add_event": 1,
    "rights": 1,
    "sync": 2,
    "sync_partner": 4,
    "sync_race": 5,
    "sync_full": 1,
    "sync_race_full": 1,
    "sync_faulty": 3,
    "sync_full_faulty": 1,
    "sync_busy": 3,
    "sync_full_busy": 1,
    "sync_killed": 2,
    "sync_full_killed": 1,
}
NAMES: Final = tuple(STEP_WEIGHTS)

Step = tuple[str, int, int]
STEP: Final = st.tuples(
    st.sampled_from([name for name in NAMES for _ in range(STEP_WEIGHTS[name])]),
    st.integers(0, 255),
    st.integers(0, 255),
)
HISTORY: Final = st.lists(STEP, min_size=STEPS, max_size=STEPS)
PAGE_SIZE: Final = st.sampled_from((2500, 2, 3, 5))


class Story:
    """A world and its mirror, and what the steps of a history do to them."""

    def __init__(self, house: House, world: rsusim.World) -> None:
        self.house = house
        self.world = world
        self.peak, self.lake = world.add_partner("Peak Timing"), world.add_partner("Lakeside")
        shared = world.add_race([self.peak, self.lake], "Harbor Lights", "America/Chicago")
        own = world.add_race([self.peak], "Frosty Toes", "America/New_York")
        young = world.add_race([self.lake], "Cañon Trail", "Pacific/Honolulu")
        self.races = [shared, own, young]
        self.shared = shared
        self.events = [
            world.add_event(race, name, RACE_DAY, chip_is_bib=name == "10K", team_count=2)
            for race, name in ((shared, "5K"), (shared, "10K"), (own, "5K"), (own, "1 Mile"), (young, "5K"))
        ]
        self.events.append(world.bundle(shared, self.events[:2]))
        for event in self.events[:4] * 2:
            world.register(event)
        self.accounts = [self.peak, self.lake]
        self.readers = {account.name: Replay(account.name) for account in self.accounts}
        self.withdrawn = False
        self.stopped_at = world.now
        # Until when changes are published that a delta cannot see; None: there are none.
        self.silent_until: dict[str, datetime | None] = {account.name: None for account in self.accounts}
        self.paths: dict[int, list[int | None]] = {}
        self.reports: list[tuple[SyncRequest, SyncReport]] = []
        for account in self.accounts:
            house.add_partner(account)
        self.note_bibs()

    # What happens at the vendor

    def change(self, name: str, a: int, b: int) -> None:
        """Let something happen; `b` picks details, and how late it is published."""
        world, after = self.world, float(b % (LATEST_PUBLICATION + 1)) if b % 3 == 0 else None
        with world:
            active = [n for n, r in world.registrations.items() if r.head.status == "active"]
            gone = [n for n, r in world.registrations.items() if r.head.status != "active"]
            event = self.events[a % len(self.events)]
            one = active[a % len(active)] if active else None
            if name == "wait":
                world.advance((1, 1, 2, 5, 16, 0.5)[a % 6])
            elif name == "wait_long":
                world.advance((60, 240, 299, 301, 650, 3600, 30_000)[a % 7])
            elif name == "register":
                world.register(event, published_after=after, bib_num=None if b % 2 else 500 + b)
            elif name == "edit_race":
                world.edit_race(self.races[a % 3], name=f"Race {b}")
                world.edit_event(event, name=f"Event {b}")
            elif name == "add_event":
                if len(self.events) < 10:
                    self.events.append(world.add_event(self.races[a % 3], f"Event {b}", RACE_DAY))
            elif name == "rights":
                self.withdrawn = not self.withdrawn
                (world.withdraw if self.withdrawn else world.grant)(self.lake, self.shared)
            elif name == "restore":
                if gone:
                    world.restore(gone[a % len(gone)], published_after=after)
            elif one is not None:
                other = active[b % len(active)]
                match name:
                    case "edit":
                        fields: tuple[dict[str, Any], ...] = (
                            {"last_name": f"Name {b}"},
                            {"amount_paid": b * 7, "giveaway": f"Shirt {b}"},
                            {"city": f"City {b}", "email": None},
                            {"team_name": f"Team {b}", "bib_num": 700 + b},
                            {"extra": {"zz": [b]}},
                        )
                        world.edit(one, published_after=after, **fields[b % len(fields)])
                    case "edit_twice":
                        world.edit(one, first_name=f"First {b}", bib_num=800 + b)
                        world.edit(one, published_after=after, first_name="Second", bib_num=b)
                    case "edit_silently":
                        world.edit_silently(one, published_after=after, phone=f"555-{b:04d}")
                        self.be_silent(after)
                    case "assign_bib":
                        world.assign_bib(one, 1 + b % 40, published_after=after)
                    case "clear_bib":
                        world.clear_bib(one, published_after=after)
                    case "swap_bibs":
                        world.swap_bibs(one, other, published_after=after)
                    case "bulk_assign":
                        world.bulk_assign(event, 100 + b, published_after=after)
                    case "transfer":
                        world.transfer(one, event, b % 2 == 0, published_after=after)
                    case "defer":
                        world.defer(one, published_after=after)
                    case "remove":
                        reason = ("removed", "cleared", "refunded")[b % 3]
                        world.remove(one, reason, published_after=after)
                    case "remove_and_restore":
                        world.remove(one)
                        world.restore(one, published_after=after)
                    case "vanish":
                        world.vanish(one, published_after=after)
                        self.be_silent(after)
                    case _:
                        raise AssertionError(name)
            self.note_bibs()

    def be_silent(self, published_after: float | None) -> None:
        """Note that something happens which only a full listing can show."""
        until = self.world.now + timedelta(seconds=published_after or 0)
        for name, before in self.silent_until.items():
            self.silent_until[name] = max(before or until, until)

    def note_bibs(self) -> None:
        """Note the bibs in force that readers can see now."""
        with self.world:
            self.world.settle()
            for number, registration in self.world.registrations.items():
                shown = registration.shown
                bib = shown.bib_num if shown is not None and shown.status == "active" else None
                path = self.paths.setdefault(number, [None])
                if path[-1] != bib:
                    path.append(bib)

    # What the mirror does meanwhile

    def step(self, name: str, a: int, b: int) -> None:
        if not name.startswith("sync"):
            self.change(name, a, b)
            return
        request = SyncRequest(full="full" in name)
        if "race" in name or (b % 4 == 0 and name != "sync"):
            request = self.request_of_race(a, full=request.full)
        elif "partner" in name or b % 2 == 0:
            request = SyncRequest(partner=self.accounts[a % 2].name, full=request.full)
        if "faulty" in name:
            fault = rsusim.Fault(
                path=FAULTY[a % 8 % len(FAULTY)],
                kind=FAULTS[b % len(FAULTS)],
                nth=1 + a // 8 % 4,
                times=(1, None, 2)[a // 32 % 3],
                seconds=0.01,
            )
            self.world.faults.add(fault)
            self.sync(request, faulty=True)
            self.stopped_at = self.world.now
            self.world.faults.clear()
        elif "busy" in name:
            with self.busy(a, b):
                self.sync(request, faulty=True)
            self.stopped_at = self.world.now
        elif "killed" in name:
            self.kill(request, after=a % 24, ticks=b % 40)
        else:
            self.sync(request)

    def request_of_race(self, a: int, *, full: bool) -> SyncRequest:
        account = self.accounts[a % 2]
        race = [self.shared, self.races[1 + a % 2]][a // 2 % 2]
        known = self.house.rows(
            "SELECT 1 FROM bibwire.races JOIN bibwire.partners AS p USING (partner_id)"
            " WHERE p.name = %(name)s AND race_id = %(race)s",
            name=account.name,
            race=race,
        )
        return SyncRequest(partner=account.name, race_id=race if known else None, full=full)

    @contextmanager
    def busy(self, a: int, b: int) -> Iterator[None]:
        """Let something happen around every other answer."""
        names = [
            name for name in NAMES if not name.startswith("sync") and name not in ("rights", "wait_long")
        ]
        calls = iter(range(10_000))

        def hook(info: RequestInfo) -> None:
            at = next(calls)
            if info.endpoint != "races" and at < 12 and (at + a) % 2:
                with self.world:
                    self.change(
                        names[(a * 5 + at * 7) % len(names)], (b * 3 + at * 11) % 256, (a + b + at) % 256
                    )

        (self.world.before_answer if a % 2 else self.world.after_answer)(hook)
        try:
            yield
        finally:
            self.world.clear_hooks()

    def sync(self, request: SyncRequest, *, faulty: bool = False) -> None:
        """Sync; then check the feed, and the mirror if it says that it is fresh."""
        interrupted = bool(self.house.rows("SELECT 1 FROM bibwire.streams WHERE sweep_kind IS NOT NULL"))
        [last] = self.house.rows("SELECT coalesce(max(run_id), 0) AS run_id FROM bibwire.sync_history")
        began = self.world.now
        report = self.house.run(self.house.runtime.engine.sync(request))
        swept = self.house.rows(
            "SELECT partner_id, race_id, outcome, error, finished_at FROM bibwire.sync_history"
            " WHERE run_id > %(run_id)s AND kind <> 'discovery'",
            run_id=last["run_id"],
        )
        assert all(row["finished_at"] and bool(row["error"]) <= (row["outcome"] != "ok") for row in swept)
        assert len({(row["partner_id"], row["race_id"]) for row in swept}) == len(swept)
        if not faulty and not report.notes:
            assert len(swept) == report.races
        self.reports.append((request, report))
        self.after_sync(request, report, began, faulty=faulty, interrupted=interrupted)

    def after_sync(
        self,
        request: SyncRequest,
        report: SyncReport,
        began: datetime,
        *,
        faulty: bool,
        interrupted: bool,
    ) -> None:
        ours = [e.error for e in report.errors if "unexpected" in e.error or "HTTP client failed" in e.error]
        assert not ours, ours
        self.check_always()
        if not faulty and not self.withdrawn and not interrupted:
            # If everybody of a race has left without a trace, a second full sync has to show it, too.
            errors = [e.error for e in report.errors if not (request.full and DOUBT in e.error)]
            assert errors == []
        if faulty or report.errors:
            return
        if any("goes on" in note for note in report.notes):
            return  # races that were done were skipped: as of this very second, perhaps
        if interrupted and began < self.stopped_at + timedelta(seconds=1):
            return  # what was taken up states the second in which it began, and that is not over
        names = [request.partner] if request.partner else [account.name for account in self.accounts]
        races = None if request.race_id is None else frozenset([request.race_id])
        for name in names:
            if not self.is_fresh(name, races, began):
                continue
            until = self.silent_until[name]
            if until is not None and not (request.full and until <= began):
                continue
            if races is None:
                self.silent_until[name] = None
            # A sync of one race does not look for new events.
            catalog = races is None
            assert_mirror_equals_world(self.house.rows, self.world, name, races=races, catalog=catalog)

    def is_fresh(self, name: str, races: frozenset[int] | None, began: datetime) -> bool:
        """Say whether the mirror states that it is complete to `began`, for all that was synced."""
        rows = self.house.rows(
            "SELECT race_id, as_of FROM bibwire.freshness JOIN bibwire.partners USING (partner_id)"
            " WHERE name = %(name)s",
            name=name,
        )
        return bool(rows) and all(
            row["as_of"] is not None and row["as_of"] >= began.replace(microsecond=0)
            for row in rows
            if races is None or row["race_id"] in races
        )

    def kill(self, request: SyncRequest, *, after: int, ticks: int) -> None:
        """Stop a sync at some await, and go on with a new process."""

        async def run() -> None:
            seen = 0
            reached = asyncio.Event()

            def watch(_: object) -> None:
                nonlocal seen
                seen += 1
                if seen > after:
                    reached.set()

            task = asyncio.create_task(self.house.runtime.engine.sync(request, watch))
            reaching = asyncio.create_task(reached.wait())
            await asyncio.wait([task, reaching], return_when=asyncio.FIRST_COMPLETED)
            for _ in range(ticks):
                await asyncio.sleep(0)
            task.cancel()
            reaching.cancel()
            await asyncio.wait([task, reaching])
            if not task.cancelled():
                task.result()

        self.house.run(run())
        self.stopped_at = self.world.now
        self.house.restart()
        with warnings.catch_warnings():
            # A process that is killed closes nothing, and takes its sockets with it: one that was
            # just being connected stays open here until it is collected.
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
        self.check_always()

    def check_always(self) -> None:
        """Check what holds at every moment, whatever went wrong."""
        assert_no_cursor_is_ahead(self.house.rows, self.world)
        for reader in self.readers.values():
            reader.take(self.house.rows)
            for number, path in reader.bibs.items():
                assert _is_subsequence(path, self.paths[number]), (
                    f"{reader.partner}: bibs of {number} were {self.paths[number]}, the feed tells {path}"
                )

    def finish(self) -> None:
        """Let everything calm down: once a sync states that it is fresh, all must be equal."""
        self.world.grant(self.lake, self.shared)
        self.withdrawn = False
        self.world.advance(LATEST_PUBLICATION + 1)
        self.note_bibs()
        began = self.world.now
        # Runs that take up what killed ones left state the instant at which those began: a full sync
        # skips the races that were done, and the next one goes on with half a sweep.
        for _ in range(4):
            self.sync(SyncRequest(full=any(self.silent_until.values())))
            if self.is_calm(began):
                break
            # That everybody left is believed after a second listing, ten minutes later.
            self.world.advance(CONFIRMED_AFTER)
        state = self.house.rows(
            "SELECT * FROM bibwire.scopes JOIN bibwire.streams USING (partner_id, race_id)"
        )
        assert self.is_calm(began), f"{began}: not all is fresh: {self.silent_until} {state}"
        assert_mirror_equals_world(self.house.rows, self.world, *self.accounts)
        told = [reader.seq for reader in self.readers.values()]
        self.world.advance(1)
        self.sync(SyncRequest())
        assert told == [reader.seq for reader in self.readers.values()], "something was told twice"

    def is_calm(self, began: datetime) -> bool:
        fresh = all(self.is_fresh(account.name, None, began) for account in self.accounts)
        return fresh and not any(self.silent_until.values())


def _is_subsequence(part: list[int | None], whole: list[int | None]) -> bool:
    rest = iter(whole)
    return all(value in rest for value in part)


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    """No TLS context for a loopback without TLS (30 ms a client), and no logs."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("httpx2._transports.default.create_ssl_context", lambda *_, **__: None)
        yield
    structlog.reset_defaults()


@contextmanager
def told(database_url: str, page_size: int, background: ThreadPoolExecutor) -> Iterator[Story]:
    """Open a story on an emptied database."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        for table in ("partners", "participants", "changes", "feed_heads", "sync_history"):
            connection.execute(f"DELETE FROM bibwire.{table}".encode())
    world = rsusim.World(seed=1, now=NOON)
    server = rsusim.Server(world).start()
    try:
        with House(world, server.base_url, database_url, page_size=page_size, retry_seconds=1) as house:
            yield Story(house, world)
    finally:
        background.submit(server.stop)  # waits for a tick of the server's


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("shard", range(SHARDS))
def test_after_a_clean_sync_the_mirror_equals_the_world_whatever_happened(
    database_url: str, shard: int
) -> None:
    print(f"BIBWIRE_FUZZ_SEED={SEED}")
    with ThreadPoolExecutor(2) as background:

        @hypothesis.seed(SEED * SHARDS + shard)
        @hypothesis.settings(
            max_examples=-(-HISTORIES // SHARDS),
            deadline=None,
            database=None,
            print_blob=True,
            phases=PHASES,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(steps=HISTORY, page_size=PAGE_SIZE)
        def history(steps: list[Step], page_size: int) -> None:
            with told(database_url, page_size, background) as story:
                for step in steps:
                    story.step(*step)
                story.finish()

        check: Callable[[], None] = history
        check()
