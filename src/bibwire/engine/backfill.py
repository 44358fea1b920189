"""
All history of all partners: events that are over, and those kept fresh that are not loaded yet.

Nobody waits for it: its calls are of the class that leaves the most of the hour's to others, and
where there is no room it holds neither a race nor a connection while it waits. A race that fails
is set aside and tried once more at the end. What is loaded is noted page by page, so that the same
request, made again, goes on where this one was stopped, by whatever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

import structlog

from bibwire.api.client import VendorClient
from bibwire.clock import Clock
from bibwire.domain import backfill as rules
from bibwire.domain import teams as team_rules
from bibwire.domain.backfill import Cost, PastRace, Progressed
from bibwire.domain.budget import Budget, Urgency, ceilings
from bibwire.domain.errors import (
    AnswerUnreadable,
    BibwireError,
    Blocked,
    BudgetSpent,
    CallerRefused,
    DatabaseUnavailable,
    KeyRefused,
    PartnerRemoved,
    PartnerStopped,
    ScopeBusy,
    SettingsError,
)
from bibwire.engine.backfill_reports import BackfillProgress, BackfillReport, BackfillRequest, Watch
from bibwire.engine.calls import CallCounter, count_calls
from bibwire.engine.clients import Clients
from bibwire.engine.discovery import discover
from bibwire.engine.gate import Gate
from bibwire.engine.past import PastSync, Turn, count_people
from bibwire.engine.patience import Patience
from bibwire.engine.pauses import Pauses
from bibwire.engine.reports import SyncError
from bibwire.engine.sweeper import Sweeper
from bibwire.engine.teams import PastTeams
from bibwire.store import backfills, catalog, runs, schedule, teams
from bibwire.store.catalog import Scope
from bibwire.store.database import Database, of_partner
from bibwire.store.leases import Lease
from bibwire.store.loader import Outcome
from bibwire.store.partners import Partner, Partners
from bibwire.store.permits import budget_of_partner

# Of one partner: while some wait, for its calls or after a failure, another goes on.
RACES_AT_ONCE: Final = 3
# Of all partners: as many as the calls a caller may have in flight. Each has a call in flight or stores
# what it brought, so that a process that dies loses so many answers at most.
CALLS_AT_ONCE: Final = 2
# A list of races as old as this is read again, for the sake of new ones.
LIST_IS_OLD: Final = timedelta(hours=24)
# Whoever polls the same race tries again within less.
BREATH_SECONDS: Final = 3.5
# So many races of a partner are looked at before the first is loaded; the others are guessed from them.
LOOKED_AT_AHEAD: Final = 100

# What does a part of a race in a turn, given a client and the race's lease.
_Part = Callable[[VendorClient, Lease], PastSync | PastTeams]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Known:
    """What is wanted of a race, how far it was, and the events whose teams were to be listed."""

    race: PastRace
    state: Progressed
    teams: frozenset[int]

    @property
    def left(self) -> frozenset[int]:
        return rules.left_of(self.race, self.state)


@dataclass(slots=True)
class _Job:
    """
    One partner's part.

    `races` are all it can see, those with the latest event first; `known` is what is wanted of those
    looked at so far, and how far that is. None: nothing, or it could not be looked at. `loaded` are those
    whose people, if not their teams, this run has loaded.
    """

    partner: Partner
    races: list[int]
    trusted: int
    known: dict[int, _Known | None] = field(default_factory=dict)
    loaded: set[int] = field(default_factory=set)
    stopped: BibwireError | None = None


@dataclass(slots=True)
class _Run:
    """One backfill."""

    request: BackfillRequest
    report: BackfillReport
    progress: BackfillProgress
    watch: Watch | None
    pauses: Pauses
    patiently: Patience
    gate: Gate = field(default_factory=lambda: Gate(CALLS_AT_ONCE))
    counters: list[CallCounter] = field(default_factory=list)

    def count(self) -> CallCounter:
        counter = count_calls()
        self.counters.append(counter)
        return counter

    def tell(self) -> None:
        self.progress.calls = sum(counter.made for counter in self.counters)
        if self.watch is not None:
            self.watch(self.progress)

    def failed(self, partner: str, race_id: int | None, error: str) -> None:
        self.report.errors.append(SyncError(partner, race_id, error))


class Backfill:
    """Loads history."""

    def __init__(
        self,
        *,
        db: Database,
        partners: Partners,
        clients: Clients,
        clock: Clock,
        sweeper: Sweeper,
        budget_time: Callable[[], datetime] | None = None,
    ) -> None:
        self._db = db
        self._partners = partners
        self._clients = clients
        self._clock = clock
        self._sweeper = sweeper
        self._page_size = sweeper.page_size
        self._budget_time = budget_time

    async def run(
        self, partners: Sequence[Partner], request: BackfillRequest, watch: Watch | None = None
    ) -> BackfillReport:
        """
        Load what is wanted and not there yet.

        Args:
            partners: Whose history; side by side.
            watch: Called with the progress after each page and before each wait.

        Raises:
            SettingsError: The race is unknown to all of them.
            DatabaseUnavailable: PostgreSQL cannot be used. What was committed stays.
        """
        started = self._clock.monotonic()
        pauses = Pauses(self._clock, lambda: run.tell())
        progress = BackfillProgress(waiting_until=pauses.until)
        report = BackfillReport(partners=len(partners))
        run = _Run(request, report, progress, watch, pauses, Patience(self._db))
        jobs = [_Job(partner, [], 1) for partner in partners]
        await self._together(run, jobs, self._prepare)
        if request.race_id is not None and not any(job.races for job in jobs) and not run.report.errors:
            raise SettingsError(
                f"No race {request.race_id} is visible to {request.partner or 'any partner'}: check the "
                "number with 'bibwire status'."
            )
        await self._together(run, jobs, self._look_ahead)
        await self._foretell(run, jobs)
        run.progress.counting = False
        run.tell()
        if not request.dry_run:
            await self._together(run, jobs, self._load)
        run.tell()
        run.report.calls = run.progress.calls
        run.report.seconds = self._clock.monotonic() - started
        return run.report

    async def _together(
        self, run: _Run, jobs: Sequence[_Job], part: Callable[[_Run, _Job], Awaitable[None]]
    ) -> None:
        """Do a part for each partner, side by side; what stops one does not stop the others."""

        async def one(job: _Job) -> None:
            if job.stopped is not None:
                return
            try:
                await part(run, job)
            except (DatabaseUnavailable, SettingsError):
                raise
            except BibwireError as error:
                job.stopped = error
                await self._note_partner(run, job.partner, error)

        await _all(one(job) for job in jobs)

    async def _note_partner(self, run: _Run, partner: Partner, error: BibwireError) -> None:
        if isinstance(error, CallerRefused):
            run.pauses.refused = error
        elif isinstance(error, KeyRefused):
            await self._partners.mark_failing(partner, str(error))
        log.warning("partner not loaded", action="backfill", partner=partner.name, error=str(error))
        run.failed(partner.name, None, str(error))

    async def _prepare(self, run: _Run, job: _Job) -> None:
        """Find out which races a partner has."""
        run.count()
        partner_id, now = job.partner.partner_id, self._clock.now()
        [listed_at] = of_partner(await catalog.run(self._db, "race_list_at", partner_id))
        if listed_at is None or now - listed_at >= LIST_IS_OLD:
            await self._patiently(
                run,
                job.partner,
                lambda client: discover(self._db, client, self._clock, partner_id),
                Urgency.DELTA,
            )
        rows = await catalog.run(self._db, "listed_races", partner_id, race_id=run.request.race_id)
        job.races = [row[0] for row in rows]
        await backfills.open_races(self._db, partner_id, job.races, now=now)
        [job.trusted] = of_partner(await catalog.run(self._db, "trusted_length", partner_id))
        run.progress.races += len(job.races)
        run.tell()

    async def _look_ahead(self, run: _Run, job: _Job) -> None:
        """Look at the first races, so that the cost can be told before it is spent."""
        run.count()
        for race_id in job.races[:LOOKED_AT_AHEAD]:
            try:
                await run.patiently(partial(self._look_at, run, job, race_id))
            except (DatabaseUnavailable, PartnerStopped, PartnerRemoved):
                raise
            except BibwireError:
                continue  # the same will be said when the race is loaded
            run.tell()

    async def _look_at(self, run: _Run, job: _Job, race_id: int) -> None:
        """Find out what is wanted of a race: its events of all years, and how many people they have."""
        if race_id in job.known:
            return
        partner_id, request = job.partner.partner_id, run.request
        [years_read] = of_partner(await backfills.run(self._db, "years_read", partner_id, race_id))
        if not years_read:
            await self._patiently(
                run, job.partner, lambda client: self._read_years(client, partner_id, race_id)
            )
        now = self._clock.now()
        found = await catalog.past_races(
            self._db, partner_id, now=now, since=request.since, until=request.until, race_id=race_id
        )
        if not found:
            job.known[race_id] = None
            await backfills.want_nothing(self._db, partner_id, race_id, now=now)
            return
        [race] = found
        state = await backfills.want(self._db, race, now=now)
        left = rules.left_of(race, state)
        if not left <= state.counts.keys():
            await self._patiently(
                run, job.partner, lambda client: count_people(self._db, client, race, left, state)
            )
        wanted = team_rules.left_to_list(
            race, await teams.state(self._db, partner_id, race_id), now=now, people_left=state.left(race.past)
        )
        job.known[race_id] = _Known(race, state, wanted)
        run.report.races += 1
        run.report.events += len(race.past | race.live)
        if not left and not wanted:
            run.report.races_before += 1

    async def _read_years(self, client: VendorClient, partner_id: int, race_id: int) -> None:
        """Read a race's own page, which shows the events of all years, and store those."""
        reading = await catalog.next_reading(self._db)
        page = await client.race(race_id)
        now = self._clock.now()
        await catalog.store_races(
            self._db,
            partner_id,
            page.races,
            [*page.unreadable, *page.faults],
            reading=reading,
            now=now,
            events_only=True,
        )
        await backfills.run(self._db, "note_years_read", partner_id, race_id, now=now)

    async def _foretell(self, run: _Run, jobs: Sequence[_Job]) -> None:
        """Say what is left to do, as far as races were looked at; the others are guessed from them."""
        for job in jobs:
            cost = Cost()
            for known in filter(None, job.known.values()):
                cost.add(rules.cost(known.race, known.state, teams=known.teams, page_size=self._page_size))
            if job.known:
                share = len(job.races) / len(job.known)
                cost.calls, cost.people = round(cost.calls * share), round(cost.people * share)
                cost.calls += 2 * (len(job.races) - len(job.known))
            limit = (await self._budget(job.partner)).limit_ahead
            run.report.left_calls += cost.calls
            run.report.left_people += cost.people
            hours = cost.calls / ceilings(limit, Urgency.BACKFILL)[1]
            run.report.left_hours = max(run.report.left_hours, hours)
        run.progress.left_calls, run.progress.left_people = run.report.left_calls, run.report.left_people

    async def _budget(self, partner: Partner) -> Budget:
        now = None if self._budget_time is None else self._budget_time()
        return await budget_of_partner(self._db, partner.partner_id, now=now)

    async def _load(self, run: _Run, job: _Job) -> None:
        """Load a partner's races, the newest first; those that fail once more at the end."""
        failed = await self._load_all(run, job, job.races, last=False)
        if failed:
            await self._load_all(run, job, failed, last=True)

    async def _load_all(self, run: _Run, job: _Job, races: Sequence[int], *, last: bool) -> list[int]:
        """Load races, some at a time; return those that failed, which are reported the last time."""
        waiting, failed = iter(races), list[int]()

        async def work() -> None:
            run.count()
            for race_id in waiting:
                error = await run.patiently(partial(self._load_race, run, job, race_id, again=last))
                if error is not None and last:
                    run.failed(job.partner.name, race_id, error)
                elif error is not None:
                    failed.append(race_id)
                run.progress.races_done += error is None or last
                run.tell()

        await _all(work() for _ in range(RACES_AT_ONCE))
        return failed

    async def _load_race(self, run: _Run, job: _Job, race_id: int, *, again: bool) -> str | None:
        """
        Load one race; return why that failed.

        Raises:
            PartnerStopped, PartnerRemoved, DatabaseUnavailable: It concerns more than this race.
        """
        try:
            await self._look_at(run, job, race_id)
            known = job.known[race_id]
            if known is not None and (known.left or known.teams):
                await self._load_known(run, job, known, again=again)
        except (PartnerStopped, PartnerRemoved, DatabaseUnavailable):
            raise
        except BibwireError as caught:
            error = caught
        except Exception as caught:  # a fault of ours with one race must not stop the others
            log.exception("race not loaded", action="backfill", race_id=race_id)
            error = BibwireError(f"An unexpected {type(caught).__name__} stopped this race; see the log.")
        else:
            return None
        partner_id = job.partner.partner_id
        await self._sweeper.note_lost(partner_id, race_id, error)
        await backfills.run(
            self._db,
            "fail",
            partner_id,
            race_id,
            error=str(error),
            # What came out short is listed again from its begin.
            begin_again=isinstance(error, AnswerUnreadable),
            now=self._clock.now(),
        )
        told = {"partner": job.partner.name, "race_id": race_id, "error": str(error)}
        log.warning("race not loaded", action="backfill", **told)
        return str(error)

    async def _load_known(self, run: _Run, job: _Job, known: _Known, *, again: bool) -> None:
        """Load what is left of a race, people first, with its line of sync_history."""
        counter, outcome, race = run.count(), Outcome(), known.race
        key, error = (race.partner_id, race.race_id), None
        run_id = await runs.begin(self._db, *key, "backfill", now=self._clock.now())
        try:
            if race.live and not race.is_loaded:
                await self._load_live(run, job, race, outcome)
            if race.past:
                await self._in_turns(run, job, race, outcome, self._past_of(job, race, again=again))
            if known.left:
                self._note_loaded(run, job, race)
            if known.teams:
                await self._in_turns(run, job, race, outcome, self._teams_of(race))
            self._note_loaded(run, job, race)
        except BaseException as caught:
            error = str(caught) or type(caught).__name__
            raise
        finally:
            run.report.participants.add(outcome)
            run.report.bibs.add(outcome)
            calls, now = counter.made, self._clock.now()
            await runs.finish(
                self._db, run_id, outcome, calls=calls, error=error, failed=error is not None, now=now
            )
            run.count()

    async def _load_live(self, run: _Run, job: _Job, race: PastRace, outcome: Outcome) -> None:
        """Load the events that are kept fresh, as a sync would."""
        while True:
            scopes = await catalog.live_scopes(
                self._db, race.partner_id, now=self._clock.now(), race_id=race.race_id
            )
            if not scopes or scopes[0].is_loaded:
                return  # or another process did it meanwhile
            [scope] = scopes

            def on_page(rows: int) -> None:
                run.progress.people += rows
                run.tell()

            async with run.gate.place(), self._clients.use(job.partner, Urgency.BACKFILL) as client:
                swept = await self._sweeper.sweep(
                    client, scope, full=False, on_page=on_page, lease_wait_seconds=0
                )
            outcome.add(swept.outcome)
            run.report.notes.extend(swept.notes)
            if swept.error is None:
                return
            await run.pauses.wait(job.partner.name, swept.error)

    def _note_loaded(self, run: _Run, job: _Job, race: PastRace) -> None:
        """Count a race once, however often it is tried."""
        run.report.races_loaded += race.race_id not in job.loaded
        job.loaded.add(race.race_id)

    def _past_of(self, job: _Job, race: PastRace, *, again: bool) -> _Part:
        return lambda client, lease: PastSync(
            self._db,
            client,
            self._clock,
            lease,
            race,
            page_size=self._page_size,
            trusted=job.trusted,
            again=again,
        )

    def _teams_of(self, race: PastRace) -> _Part:
        return lambda client, lease: PastTeams(
            self._db, client, self._clock, lease, race, page_size=self._page_size
        )

    async def _in_turns(self, run: _Run, job: _Job, race: PastRace, outcome: Outcome, part: _Part) -> None:
        """Load a part of a race, leaving it to whoever polls it between two turns."""
        while not await self._turn(run, job, race, outcome, part):
            if race.live:
                await self._clock.sleep(BREATH_SECONDS)

    async def _turn(self, run: _Run, job: _Job, race: PastRace, outcome: Outcome, part: _Part) -> bool:
        """Have one turn at a part of a race, as soon as there are calls and nobody else has it."""
        scope = Scope(race.partner_id, race.race_id, race.name, race.past, race.newest)
        turn = Turn()
        pace = await self._pace(job.partner)
        try:
            async with (
                run.gate.place(),
                self._clients.use(job.partner, Urgency.BACKFILL) as client,
                self._sweeper.leased(scope, wait_seconds=0) as lease,
            ):
                sync = part(client, lease)
                turn = sync.turn
                await sync.run(most_pages=1 if pace else None)
        except (BudgetSpent, Blocked, ScopeBusy) as error:
            await run.pauses.wait(job.partner.name, error)
        finally:  # what was stored is stored, whatever came then
            _add(run, outcome, turn)
        return turn.done

    async def _patiently(
        self,
        run: _Run,
        partner: Partner,
        ask: Callable[[VendorClient], Any],
        urgency: Urgency = Urgency.BACKFILL,
    ) -> Any:
        """Ask the vendor as soon as there are calls for it, and store the answer; `ask` does both."""
        while True:
            await self._pace(partner)
            try:
                async with run.gate.place(), self._clients.use(partner, urgency) as client:
                    return await ask(client)
            except (BudgetSpent, Blocked) as error:
                await run.pauses.wait(partner.name, error)

    async def _pace(self, partner: Partner) -> bool:
        """
        While one of the partner's races is hot, let the hour's share pass evenly; say whether one is.

        What is taken at one go would be missing for the rest of the hour from polls that were
        planned to the last call.
        """
        if not await schedule.any_hot(self._db, partner.partner_id):
            return False
        limit = (await self._budget(partner)).limit_in_use
        await self._clock.sleep(3600 * RACES_AT_ONCE / ceilings(limit, Urgency.BACKFILL)[1])
        return True


async def _all(parts: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do parts side by side; the first failure cancels the rest and is raised by itself, not in a group."""
    try:
        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(part)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None


def _add(run: _Run, outcome: Outcome, turn: Turn) -> None:
    """Note what came of a turn."""
    outcome.add(turn.outcome)
    outcome.quarantined += turn.teams.quarantined
    run.report.teams.add(turn.teams)
    done = turn.outcome
    run.progress.people += done.inserted + done.updated + done.unchanged
    run.report.notes.extend(turn.notes)
    run.tell()
