"""
Looks for what deltas cannot see, and mends it: a full listing compared by content.

Edits need not move `last_modified`, and registrations can vanish without a line in the removed list.
A full sync of the race brings the mirror to what the vendor lists, under the same rules as any
other: nothing is taken for gone unless the vendor's counts agree with a complete listing. What
it had to change, and the deltas should have seen, is drift.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, Final

import structlog

from bibwire.api.client import VendorClient
from bibwire.clock import Clock
from bibwire.domain import reconcile as rules
from bibwire.domain.budget import Urgency
from bibwire.domain.errors import (
    BibwireError,
    Blocked,
    BudgetSpent,
    DatabaseUnavailable,
    KeyRefused,
    PartnerStopped,
    ScopeBusy,
    SettingsError,
    VendorUnreachable,
)
from bibwire.domain.reconcile import EventDrift, Verdict
from bibwire.domain.teams import TeamCounts
from bibwire.engine.calls import count_calls
from bibwire.engine.clients import Clients
from bibwire.engine.discovery import discover
from bibwire.engine.patience import Patience
from bibwire.engine.pauses import Pauses
from bibwire.engine.reports import SyncError, SyncProgress, Watch
from bibwire.engine.sweeper import Sweeper, Swept
from bibwire.engine.teams import KnownTeams
from bibwire.store import catalog, reconciliations, runs, streams
from bibwire.store.catalog import Scope
from bibwire.store.database import Database
from bibwire.store.loader import Outcome
from bibwire.store.partners import Partner, Partners

# Deltas read this far back now and then: what surfaces so late is not lost yet.
LATE: Final = timedelta(minutes=10)
TOTALS: Final = ("listed", "same", "differing", "missing", "extra", "repaired", "meanwhile")

log = structlog.get_logger()


@dataclass(slots=True)
class Reconciled:
    """
    What a reconciliation came to.

    `events` is empty if it could not be finished, which `swept` says, or if the counts sufficed.
    `teams` is None where they were not listed.
    """

    swept: Swept = field(default_factory=Swept)
    events: list[EventDrift] = field(default_factory=list)
    teams: TeamCounts | None = None

    @property
    def drift(self) -> int:
        """Rows that differed and should not have."""
        return sum(each.drift for each in self.events)


class Reconciler:
    """Reconciles one scope at a time."""

    def __init__(self, db: Database, clock: Clock, sweeper: Sweeper) -> None:
        self._db = db
        self._clock = clock
        self._sweeper = sweeper
        self._teams = KnownTeams(db, clock, sweeper)

    async def differing(self, client: VendorClient, scope: Scope) -> dict[int, tuple[int, int]]:
        """
        Ask for the vendor's counts, one call; return counted and stored of the events that differ.

        Raises:
            BibwireError: The vendor could not be asked.
        """
        events = sorted(scope.event_ids)
        counts = await client.participant_counts(scope.race_id, events)
        stored = await self._stored(scope, events)
        await reconciliations.note_counted(self._db, scope.partner_id, scope.race_id, now=self._clock.now())
        return {
            event_id: (counts.get(event_id, 0), stored.get(event_id, 0))
            for event_id in events
            if counts.get(event_id, 0) != stored.get(event_id, 0)
        }

    async def list_all(
        self,
        client: VendorClient,
        scope: Scope,
        *,
        on_page: Callable[[int], None] = lambda _: None,
        with_counts: bool = True,
        lease_wait_seconds: float | None = None,
        stopping: Callable[[], bool] = lambda: False,
        run_id: int | None = None,
    ) -> Reconciled:
        """
        List a loaded scope in full, mend the mirror, and keep what had differed.

        Errors are in what is returned, as `Sweeper.sweep` returns them; arguments are its own.

        Args:
            with_counts: Ask for the vendor's counts as well, which costs a call.
            run_id: The run in `sync_history` it belongs to.
        """
        key = (scope.partner_id, scope.race_id)
        began = await reconciliations.begin(self._db, *key, now=self._clock.now())
        done = Reconciled()
        counted: dict[int, int] | None = None
        done.swept = await self._sweeper.sweep(
            client,
            scope,
            full=True,
            on_page=on_page,
            lease_wait_seconds=lease_wait_seconds,
            stopping=stopping,
        )
        after_seq, cursor = began or (0, None)
        if done.swept.error is not None or cursor is None:  # without one nothing was loaded before
            return done
        if with_counts:
            try:
                counted = await client.participant_counts(scope.race_id, sorted(scope.event_ids))
            except BibwireError as error:  # it is not needed for what follows
                done.swept.notes.append(f"Race {scope.race_id}: not counted: {error}")
        done.events = rules.compare(
            await reconciliations.lines(self._db, *key, after_seq=after_seq),
            listed=done.swept.listed,
            counted=counted,
            stored=await self._stored(scope, sorted(done.swept.listed)),
            before=cursor - LATE,
            unsettled=done.swept.text,
        )
        await reconciliations.end(self._db, *key, done.events, run_id=run_id, now=self._clock.now())
        if done.drift:
            log.warning(
                "drift found and repaired",
                action="reconcile",
                partner_id=scope.partner_id,
                race_id=scope.race_id,
                differing=sum(each.differing for each in done.events),
                missing=sum(each.missing for each in done.events),
                extra=sum(each.extra for each in done.events),
            )
        return done

    async def list_teams(
        self,
        client: VendorClient,
        scope: Scope,
        done: Reconciled,
        *,
        on_request: bool = False,
        stopping: Callable[[], bool] = lambda: False,
    ) -> list[str]:
        """
        List the teams of a scope whose people were just listed, where the mirror knows of any.

        What comes of it is added to `done`. That they could not be listed is in the notes returned, and
        no error: people are listed all the same.

        Args:
            on_request: A person asks: where the vendor refused, it is tried again.

        Raises:
            BudgetSpent, Blocked, ScopeBusy: They can be listed later.
            PartnerStopped, DatabaseUnavailable: It concerns more than this race.
        """
        if not await self._teams.are_due(scope, on_request=on_request):
            return []
        try:
            done.teams, notes = await self._teams.list_all(client, scope, stopping=stopping)
        except (BudgetSpent, Blocked, ScopeBusy, PartnerStopped, DatabaseUnavailable):
            raise
        except BibwireError as error:
            notes = [f"Race {scope.race_id}: teams are not listed: {error}"]
        except Exception as error:  # a fault of ours with the teams is none of the people's
            log.exception("teams not listed", action="reconcile", race_id=scope.race_id)
            what = type(error).__name__
            notes = [
                f"Race {scope.race_id}: an unexpected {what} stopped the list of its teams; see the log."
            ]
        counts = done.teams
        if notes or (counts and (counts.new or counts.changed or counts.missing or counts.returned)):
            log.info(
                "teams listed",
                action="reconcile",
                partner_id=scope.partner_id,
                race_id=scope.race_id,
                notes=notes,
                **({} if counts is None else asdict(counts)),
            )
        return notes

    async def _stored(self, scope: Scope, events: Sequence[int]) -> dict[int, int]:
        rows = await streams.run(
            self._db, "active_by_event", scope.partner_id, scope.race_id, event_ids=list(events)
        )
        return dict(rows)


@dataclass(frozen=True, slots=True)
class ReconcileRequest:
    """What to reconcile; `counts_only`: list only those races whose counts differ."""

    partner: str | None = None
    race_id: int | None = None
    counts_only: bool = False


@dataclass(slots=True)
class ReconcileReport:
    """
    What reconciliations came to.

    `races` are the loaded ones with live events, `races_same_by_count` those that were not listed
    because their counts agreed, `not_loaded` those that have to be loaded first. `teams` has a line
    for each race whose teams were listed.
    """

    partners: int = 0
    races: int = 0
    races_reconciled: int = 0
    races_same_by_count: int = 0
    not_loaded: int = 0
    calls: int = 0
    seconds: float = 0.0
    events: list[dict[str, Any]] = field(default_factory=list)
    teams: list[dict[str, Any]] = field(default_factory=list)
    errors: list[SyncError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def total(self, name: str) -> int:
        """Return the sum of one number over all events."""
        return sum(event[name] for event in self.events)

    @property
    def exit_code(self) -> int:
        """0 all well, or repaired; 1 nothing could be reconciled; 3 some of it could not, or is open."""
        if self.errors:
            return 3 if self.races_reconciled or self.races_same_by_count else 1
        return 3 if any(event["verdict"] == Verdict.OPEN for event in self.events) else 0

    def as_json(self) -> dict[str, Any]:
        """Return the object `bibwire reconcile --json` prints."""
        totals = {name: self.total(name) for name in TOTALS}
        return asdict(self) | {"seconds": round(self.seconds, 3), "total": totals}


class Reconciliation:
    """Reconciles every scope that is asked for, on a person's word."""

    def __init__(
        self, *, db: Database, partners: Partners, clients: Clients, clock: Clock, sweeper: Sweeper
    ) -> None:
        self._db = db
        self._partners = partners
        self._clients = clients
        self._clock = clock
        self._reconciler = Reconciler(db, clock, sweeper)

    async def run(
        self, partners: Sequence[Partner], request: ReconcileRequest, watch: Watch | None = None
    ) -> ReconcileReport:
        """
        Reconcile the loaded races with live events.

        Args:
            watch: Called with the progress after each page and race.

        Raises:
            SettingsError: The race is unknown, or has no live event.
            DatabaseUnavailable: PostgreSQL cannot be used. What was committed stays.
        """
        started, now = self._clock.monotonic(), self._clock.now()
        report, progress = ReconcileReport(partners=len(partners)), SyncProgress(partners=len(partners))

        def tell() -> None:
            progress.calls = counter.made
            if watch is not None:
                watch(progress)

        counter = count_calls()
        pauses, patiently = Pauses(self._clock, tell), Patience(self._db)
        for partner in partners:
            try:
                if not request.counts_only and await self._may_know(partner, request.race_id):
                    await patiently(partial(self._read_list, report, pauses, partner))
                    tell()
                scopes = await patiently(
                    partial(
                        catalog.live_scopes,
                        self._db,
                        partner.partner_id,
                        now=now,
                        race_id=request.race_id,
                    )
                )
                report.races += len(scopes)
                progress.races += len(scopes)
                for scope in scopes:
                    if not scope.is_loaded:
                        report.not_loaded += 1
                        continue
                    await self._one(report, progress, pauses, patiently, partner, scope, request, tell)
                    progress.races_done += 1
                    tell()
            except PartnerStopped as error:
                if isinstance(error, KeyRefused):
                    await self._partners.mark_failing(partner, str(error))
                report.errors.append(SyncError(partner.name, None, str(error)))
            except BibwireError:
                raise
            except Exception as caught:  # a fault of ours with one partner must not stop the others
                log.exception("partner not reconciled", action="reconcile", partner=partner.name)
                what = type(caught).__name__
                told = f"An unexpected {what} stopped it; see the log."
                report.errors.append(SyncError(partner.name, None, told))
            progress.partners_done += 1
        if request.race_id is not None and not report.races:
            raise SettingsError(
                f"Race {request.race_id} has no event that is still to come or ended within 7 days, or is "
                "not in the mirror: run 'bibwire sync' first."
            )
        report.calls, report.seconds = counter.made, self._clock.monotonic() - started
        return report

    async def _may_know(self, partner: Partner, race_id: int | None) -> bool:
        """Say whether a partner has the race asked for, if one is."""
        if race_id is None:
            return True
        [[known]] = await catalog.run(self._db, "race_known", partner.partner_id, race_id=race_id)
        return bool(known)

    async def _read_list(self, report: ReconcileReport, pauses: Pauses, partner: Partner) -> None:
        """
        Compare races and events with the race list, which is one call for all of them.

        Raises:
            PartnerStopped, DatabaseUnavailable, SettingsError: It concerns more than the list.
        """
        began_at = self._clock.now()
        while True:
            try:
                async with self._clients.use(partner, Urgency.RECONCILE) as client:
                    await discover(self._db, client, self._clock, partner.partner_id)
                break
            except (BudgetSpent, Blocked) as wait:
                await pauses.wait(partner.name, wait)
            except (PartnerStopped, DatabaseUnavailable, SettingsError):
                raise
            except BibwireError as error:  # people are compared all the same
                lost = isinstance(error, VendorUnreachable)  # the same for all, so told once for all
                why = str(error) if lost else f"races and events are not compared: {error}"
                report.errors.append(SyncError(partner.name, None, why))
                return
        [[races, events]] = await catalog.run(self._db, "changed_since", partner.partner_id, since=began_at)
        if races or events:
            report.notes.append(
                f"{partner.name}: {races:,} {'race' if races == 1 else 'races'} and {events:,} "
                f"{'event' if events == 1 else 'events'} were not as the race list shows them: they are now."
            )

    async def _one(
        self,
        report: ReconcileReport,
        progress: SyncProgress,
        pauses: Pauses,
        patiently: Patience,
        partner: Partner,
        scope: Scope,
        request: ReconcileRequest,
        tell: Callable[[], None],
    ) -> None:
        key = (scope.partner_id, scope.race_id)
        run_id = await patiently(lambda: runs.begin(self._db, *key, "reconcile", now=self._clock.now()))

        def on_page(rows: int) -> None:
            progress.people += rows
            tell()

        outcome, calls_before = Outcome(), progress.calls
        error: str | None = None

        async def listed() -> Reconciled | None:
            """Return None where the counts agree."""
            while True:
                try:
                    async with self._clients.use(partner, Urgency.RECONCILE) as client:
                        if request.counts_only and not await self._reconciler.differing(client, scope):
                            return None
                        done = await self._reconciler.list_all(
                            client, scope, on_page=on_page, lease_wait_seconds=0, run_id=run_id
                        )
                    outcome.add(done.swept.outcome)
                    if done.swept.error is None:
                        return done
                    await pauses.wait(partner.name, done.swept.error)
                except (BudgetSpent, Blocked) as wait:
                    await pauses.wait(partner.name, wait)

        async def finish() -> None:
            await runs.finish(
                self._db,
                run_id,
                outcome,
                calls=progress.calls - calls_before,
                error=error,
                failed=bool(report.errors) and report.errors[-1].race_id == scope.race_id,
                now=self._clock.now(),
            )

        try:
            done = await patiently(listed)
            if done is None:
                report.races_same_by_count += 1
            else:
                report.races_reconciled += 1
                report.notes.extend(done.swept.notes)
                race = {"partner": partner.name, "race_id": scope.race_id, "race": scope.name}
                report.events.extend(race | each.as_fields() for each in done.events)
                listed_now = done
                report.notes.extend(
                    await patiently(lambda: self._list_teams(partner, scope, listed_now, pauses))
                )
                if done.teams is not None:
                    report.teams.append(race | asdict(done.teams))
                error = done.swept.text
        except BaseException as caught:
            tell()
            error = str(caught) if isinstance(caught, BibwireError) else None
            if not isinstance(caught, BibwireError) or isinstance(
                caught, PartnerStopped | DatabaseUnavailable | SettingsError
            ):
                with suppress(DatabaseUnavailable):  # what stops us is worth more
                    await finish()
                raise
            report.errors.append(SyncError(partner.name, scope.race_id, error or ""))
        tell()
        await patiently(finish)

    async def _list_teams(
        self, partner: Partner, scope: Scope, done: Reconciled, pauses: Pauses
    ) -> list[str]:
        """List a race's teams as soon as there are calls for it."""
        while True:
            try:
                async with self._clients.use(partner, Urgency.RECONCILE) as client:
                    return await self._reconciler.list_teams(client, scope, done, on_request=True)
            except (BudgetSpent, Blocked, ScopeBusy) as wait:
                await pauses.wait(partner.name, wait)
