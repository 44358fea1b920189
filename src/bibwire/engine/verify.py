"""
A verification of partners: the vendor asked, the mirror held against it, nothing written but the history.

What is asked is planned from the mirror before the first call, told, and kept within the calls a
partner was given, retries included. A check that fails stops no other; a vendor that cannot be
asked, or a key it does not take, is found out once. No lease is held: a difference is dated instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any, Final

import structlog

from bibwire.clock import Clock
from bibwire.domain.budget import Urgency, ceilings, room
from bibwire.domain.errors import (
    BibwireError,
    Blocked,
    BudgetSpent,
    CallsUsedUp,
    DatabaseUnavailable,
    PartnerStopped,
    ScopeStopped,
    SettingsError,
    VendorUnreachable,
)
from bibwire.domain.verify import HOURS_CALLS, Check, Verdict, calls_given, chosen, exit_code, sample
from bibwire.engine.checks import (
    BIBS,
    BUDGET,
    CREDENTIAL,
    FEED,
    FRESHNESS,
    FULL,
    INCREMENTAL,
    LISTS,
    PAGE_SIZE,
    REMOVED,
    RIGHTS,
    Checks,
    Seen,
    Task,
)
from bibwire.engine.evidence import Evidence, OpenCounted, Purse
from bibwire.engine.patience import Patience
from bibwire.store import catalog, runs, schedule, verify
from bibwire.store.catalog import Scope
from bibwire.store.database import Database
from bibwire.store.loader import Outcome
from bibwire.store.partners import Partner
from bibwire.store.permits import budget_of_partner

SCOPES: Final = 3
MOST_CALLS: Final = 40
BIBS_LOOKED_UP: Final = 5
NOT_LOADED: Final = "no live race is loaded"
# A race of more events is not listed event by event to prove lists of them.
MOST_EVENTS: Final = 8
# Why there may be no race to make a check with.
WHY_NOT: Final = {
    FULL: NOT_LOADED,
    REMOVED: NOT_LOADED,
    INCREMENTAL: NOT_LOADED,
    BIBS: "nobody in the races that were chosen has a bib",
    FEED: NOT_LOADED,
    PAGE_SIZE: NOT_LOADED,
    LISTS: f"no live race that is loaded has 2 to {MOST_EVENTS} live events",
}
NEEDS_LISTING: Final = frozenset({INCREMENTAL, REMOVED})

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class VerifyRequest:
    """
    What to verify.

    Args:
        scopes: Races of a partner that are listed in full.
        max_calls: Calls of a partner at most; None: as many as its checks take, of fewer races where the
            hour does not leave so many.
        seed: Chooses races and bibs.
    """

    partner: str | None = None
    race_id: int | None = None
    scopes: int = SCOPES
    max_calls: int | None = MOST_CALLS
    seed: int = 0


@dataclass(slots=True)
class VerifyProgress:
    """How far a verification is."""

    partner: str = ""
    partners: int = 0
    partners_done: int = 0
    checks: int = 0
    checks_done: int = 0
    calls: int = 0


@dataclass(slots=True)
class VerifyReport:
    """
    What a verification found.

    `unverified`: partners of which nothing could be asked. `out_of_calls`: of how many not everything,
    because there were too few calls, and a later hour has more.
    """

    seed: int
    partners: int = 0
    unverified: int = 0
    out_of_calls: int = 0
    calls: int = 0
    seconds: float = 0.0
    checks: list[Check] = field(default_factory=list)

    def of(self, verdict: Verdict) -> list[Check]:
        """Return the checks that ended so."""
        return [check for check in self.checks if check.verdict is verdict]

    @property
    def exit_code(self) -> int:
        """0 all passed or skipped, 1 one failed or nothing could be asked, 3 some could not be made."""
        return exit_code(
            (check.verdict for check in self.checks), partners=self.partners, unverified=self.unverified
        )

    def as_json(self) -> dict[str, Any]:
        """Return the object `bibwire verify --json` prints."""
        counts = {str(verdict): len(self.of(verdict)) for verdict in Verdict}
        return {
            "partners": self.partners,
            "calls": self.calls,
            "seconds": round(self.seconds, 3),
            "seed": self.seed,
            "verdicts": counts,
            "exit_code": self.exit_code,
            "checks": [asdict(check) | {"seconds": round(check.seconds, 3)} for check in self.checks],
        }


Watch = Callable[[VerifyProgress], None]
# Told of a partner: about how many calls its checks take, and how many they may.
Announce = Callable[[str, int, int], None]


@dataclass(slots=True)
class _Run:
    """One partner's verification as it goes on."""

    partner: Partner
    purse: Purse
    evidence: Evidence
    checks: list[Check] = field(default_factory=list)
    # The hour leaves fewer calls than it takes, and a later one more.
    is_out_of_calls: bool = False
    # Why nothing more is asked, and of which races.
    stopped: str | None = None
    unreadable: dict[int, str] = field(default_factory=dict)

    @property
    def is_unverified(self) -> bool:
        """Whether nothing could be asked."""
        asked = any(check.verdict is Verdict.PASS and check.calls for check in self.checks)
        return self.stopped is not None and not asked


class Verifier:
    """Verifies partners."""

    def __init__(
        self,
        *,
        db: Database,
        open_client: OpenCounted,
        clock: Clock,
        page_size: int,
        budget_time: Callable[[], datetime] | None = None,
        computer_ahead: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """
        Make a verifier.

        Args:
            page_size: Rows asked for at once; the vendor's most but in tests.
            computer_ahead: By how many seconds this computer's clock is ahead of the database's.
            budget_time: For simulations: the time calls are counted by, instead of the database's.
        """
        self._db = db
        self._open_client = open_client
        self._clock = clock
        self._page_size = page_size
        self._budget_time = budget_time
        self._computer_ahead = computer_ahead

    async def verify(
        self,
        partners: Sequence[Partner],
        request: VerifyRequest,
        *,
        watch: Watch = lambda _: None,
        announce: Announce = lambda *_: None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> VerifyReport:
        """
        Verify partners, one after the other.

        Args:
            stopping: Asked before each check; true leaves out the rest.

        Raises:
            SettingsError: The race asked for is not in the mirror.
            DatabaseUnavailable: PostgreSQL cannot be used.
        """
        report = VerifyReport(request.seed, partners=len(partners))
        progress = VerifyProgress(partners=len(partners))
        started, patiently = self._clock.monotonic(), Patience(self._db)
        if request.race_id is not None:
            partners = [each for each in partners if await self._knows(each, request.race_id)]
            report.partners = progress.partners = len(partners)
            if not partners:
                raise SettingsError(
                    f"Race {request.race_id} is not in the mirror: 'bibwire sync' finds new races."
                )
        for partner in partners:
            progress.partner = partner.name

            def tell() -> None:
                progress.calls += 1
                watch(progress)

            try:
                run = await patiently(
                    partial(self._partner, partner, request, tell, progress, watch, announce, stopping)
                )
            except (DatabaseUnavailable, SettingsError):
                raise
            except BibwireError as error:  # its credential cannot be opened: the others go on
                report.checks.append(_not_made(partner, request.race_id, Verdict.ERROR, str(error)))
                report.unverified += 1
            else:
                report.checks += run.checks
                report.calls += run.purse.made
                report.unverified += run.is_unverified
                report.out_of_calls += run.is_out_of_calls
            progress.partners_done += 1
            watch(progress)
        report.seconds = self._clock.monotonic() - started
        return report

    async def _knows(self, partner: Partner, race_id: int) -> bool:
        [[known]] = await catalog.run(self._db, "race_known", partner.partner_id, race_id=race_id)
        return bool(known)

    async def _partner(
        self,
        partner: Partner,
        request: VerifyRequest,
        on_call: Callable[[], None],
        progress: VerifyProgress,
        watch: Watch,
        announce: Announce,
        stopping: Callable[[], bool],
    ) -> _Run:
        if request.max_calls is None:
            purse = Purse(0, on_call, of=HOURS_CALLS)
        else:
            purse = Purse(request.max_calls, on_call)
        began_at = self._clock.now()
        run_id = await runs.begin(self._db, partner.partner_id, request.race_id, "verify", now=began_at)
        said: str | None = "It was stopped before its end."
        failed = False
        try:
            minute = await verify.minute_now(self._db, now=self._counted_by())
            before, _ = await verify.counted(self._db, partner.credential_id, since=minute)
            async with self._open_client(partner, purse.note, purse.take) as client:
                evidence = Evidence(client, purse, page_size=self._page_size)
                run = _Run(partner, purse, evidence)
                tasks = await self._tasks(run, request)
                progress.checks, progress.checks_done = len(tasks), 0
                announce(partner.name, sum(task.calls for task in tasks), purse.most)
                for task in tasks:
                    if stopping():
                        run.stopped = "this process was told to leave"
                    await self._make(run, task)
                    progress.checks_done += 1
                    watch(progress)
            await self._make(run, self._budget(run, minute, before, run_id, began_at))
            run.checks = _folded(run.checks)
            said, failed = _said(run.checks)
        except BibwireError as error:
            said = str(error)
            raise
        else:
            if request.race_id is None and not stopping():
                await self._record(run)
        finally:
            await runs.finish(
                self._db,
                run_id,
                Outcome(),
                calls=purse.made,
                error=said,
                failed=failed,
                now=self._clock.now(),
            )
        return run

    async def _record(self, run: _Run) -> None:
        """Keep what was found for `status`."""
        failures = [
            {
                "check": check.check,
                "race_id": check.race_id,
                "verdict": str(check.verdict),
                "expected": check.expected,
                "seen": check.seen,
            }
            for check in run.checks
            if check.verdict in (Verdict.FAIL, Verdict.ERROR)
        ]
        await schedule.record_verification(
            self._db, run.partner.partner_id, failures, asked=not run.is_unverified, now=self._clock.now()
        )

    async def _tasks(self, run: _Run, request: VerifyRequest) -> list[Task]:
        """Plan the checks of a partner, in order of their worth: the last are left out first."""
        now, partner_id = self._clock.now(), run.partner.partner_id
        scopes = await catalog.live_scopes(self._db, partner_id, now=now, race_id=request.race_id)
        sizes = await verify.sizes(self._db, partner_id, [scope.race_id for scope in scopes])
        loaded = [scope for scope in scopes if scope.race_id in sizes and sizes[scope.race_id].is_loaded]
        checks = Checks(self._db, self._clock, run.evidence, partner_id, sizes)
        if not scopes:
            over = "it has no event that is still to come or ended within 7 days"
            seen = "no race is live" if request.race_id is None else over
            run.checks.append(_not_made(run.partner, request.race_id, Verdict.SKIPPED, seen))
            return []
        listed = chosen(
            [(scope, scope.starts_at) for scope in loaded], request.scopes, seed=request.seed, now=now
        )
        if request.max_calls is not None:
            return await self._tasks_of(run, checks, request, scopes, loaded, listed)
        budget = await budget_of_partner(self._db, partner_id, now=self._counted_by())
        # A pause that the vendor asks for is told by the first call that it prevents.
        left = room(replace(budget, blocked_until=None), Urgency.RECONCILE)
        _, most = ceilings(budget.limit, Urgency.RECONCILE)
        while True:
            tasks = await self._tasks_of(run, checks, request, scopes, loaded, listed)
            planned = sum(task.calls for task in tasks if not task.spare)
            if planned <= left or len(listed) < 2:
                break
            # What starts soon comes first, so that it is others that wait for another night.
            listed = listed[:-1]
        run.purse.most = calls_given(planned, least=MOST_CALLS, room=left)
        run.is_out_of_calls = left < planned <= most
        return tasks

    async def _tasks_of(
        self,
        run: _Run,
        checks: Checks,
        request: VerifyRequest,
        scopes: Sequence[Scope],
        loaded: Sequence[Scope],
        listed: Sequence[Scope],
    ) -> list[Task]:
        """Plan the checks of a partner of which these races are to be `listed` in full."""
        now, partner_id = self._clock.now(), run.partner.partner_id
        first = [*listed, *(scope for scope in scopes if scope not in listed)]
        tasks = [checks.credential(first), *(checks.rights(scope) for scope in listed)]
        bibs = await self._bibs(partner_id, listed, request.seed)
        for scope in listed:
            tasks += [checks.full(scope), checks.removed(scope), checks.incremental(scope)]
        tasks += [checks.bibs(scope, bibs[scope.race_id]) for scope in listed if bibs.get(scope.race_id)]
        if loaded:
            tasks.append(checks.page_size(loaded, listed))
        several = [scope for scope in loaded if 2 <= len(scope.event_ids) <= MOST_EVENTS]
        if several:
            tasks.append(checks.lists(max(several, key=lambda s: (s in listed, len(s.event_ids)))))
        # Where the calls do not suffice for all of them, it is others another night.
        rest = [(scope, scope.starts_at) for scope in scopes if scope not in listed]
        others = chosen(rest, len(rest), seed=request.seed, now=now)
        tasks += [checks.rights(scope, spare=True) for scope in others]
        tasks += [checks.feed(scope) for scope in listed]
        tasks += [checks.freshness(scope) for scope in scopes]
        tasks.append(checks.clock(self._computer_ahead()))
        made = {task.check for task in tasks}
        run.checks[:] = [
            _left_out(run.partner, name, why) for name, why in WHY_NOT.items() if name not in made
        ]
        return tasks

    async def _bibs(self, partner_id: int, scopes: Sequence[Scope], seed: int) -> dict[int, list[int]]:
        """Choose some bibs, by race."""
        found: dict[int, list[int]] = {}
        left = BIBS_LOOKED_UP
        for number, scope in enumerate(scopes):
            known = await verify.bibs_in_force(self._db, partner_id, scope.race_id, scope.event_ids)
            # Each race its part, and the last ones what is left.
            found[scope.race_id] = sample(known, -(-left // (len(scopes) - number)), seed=seed)
            left -= len(found[scope.race_id])
        return found

    async def _make(self, run: _Run, task: Task) -> None:
        """Make a check, or say why it is not made."""
        before, started = run.purse.made, self._clock.monotonic()
        verdict, seen = await self._judge(run, task)
        race_id = None if task.scope is None else task.scope.race_id
        made = run.purse.made - before
        check = Check(
            task.check,
            run.partner.name,
            race_id,
            task.asked,
            task.expected,
            seen,
            verdict,
            made,
            self._clock.monotonic() - started,
        )
        run.checks.append(check)
        if verdict is Verdict.FAIL and race_id is not None and task.check == RIGHTS:
            run.unreadable[race_id] = "it cannot be read: see rights"
        if verdict is Verdict.ERROR and task.check == CREDENTIAL and run.stopped is None:
            run.stopped = "nothing can be asked: see credential"

    async def _judge(self, run: _Run, task: Task) -> Seen:
        if unmade := self._why_not(run, task):
            return unmade
        try:
            return await task.do()
        except (DatabaseUnavailable, SettingsError):
            raise
        except CallsUsedUp as error:
            return Verdict.SKIPPED if task.spare else Verdict.ERROR, str(error)
        except PartnerStopped as error:
            run.stopped = "nothing can be asked: the vendor refuses the credential"
            return Verdict.FAIL, str(error)
        except (BudgetSpent, Blocked) as error:
            run.is_out_of_calls = True
            run.stopped = f"no call may be made at present: {str(error).rstrip('.')}"
            return Verdict.ERROR, str(error)
        except ScopeStopped as error:
            return Verdict.FAIL, str(error)
        except VendorUnreachable as error:
            run.stopped = "nothing could be asked"
            return Verdict.ERROR, str(error)
        except BibwireError as error:
            return Verdict.ERROR, str(error)
        except Exception as caught:  # a fault of ours in one check must not stop the others
            log.exception("check failed", action="verify", partner=run.partner.name, check=task.check)
            return Verdict.ERROR, f"an unexpected {type(caught).__name__}; see the log"

    def _why_not(self, run: _Run, task: Task) -> Seen | None:
        """Return why a check is not made, an error unless another check tells of it; None: it is made."""
        asks = task.calls > 0 or task.check in NEEDS_LISTING
        race_id = None if task.scope is None else task.scope.race_id
        if asks and run.stopped is not None:
            return Verdict.SKIPPED, run.stopped
        if asks and race_id in run.unreadable:
            return Verdict.SKIPPED, run.unreadable[race_id]
        if task.calls > run.purse.left:
            wanted = "1 call" if task.calls == 1 else f"{task.calls:,} calls"
            left = f"{run.purse.left:,} of {run.purse.of} are left"
            return Verdict.SKIPPED if task.spare else Verdict.ERROR, f"it would take {wanted}, and {left}"
        if task.check in NEEDS_LISTING and race_id not in run.evidence.listings:
            return Verdict.SKIPPED, f"there is no full listing of it: see {FULL}"
        return None

    def _budget(self, run: _Run, minute: datetime, before: int, run_id: int, began_at: datetime) -> Task:
        """Return check 10: what we sent, against what was counted in the same class meanwhile."""

        async def do() -> Seen:
            sent = run.purse.made
            if not sent:
                return Verdict.SKIPPED, "no call was made"
            after, _ = await verify.counted(self._db, run.partner.credential_id, since=minute)
            counted = after - before
            seen = f"{sent:,} sent, {counted:,} counted"
            if counted == sent:
                return Verdict.PASS, seen
            others = await verify.others_reconciling(
                self._db, run.partner.partner_id, run_id=run_id, began_at=began_at
            )
            if counted > sent and others:
                return (
                    Verdict.PASS,
                    f"{seen}: meanwhile a verification, a reconciliation or a reading of the race list ran",
                )
            return Verdict.FAIL, seen

        return Task(
            BUDGET,
            None,
            "the calls counted as reconciliation under the credential",
            "as many as were sent",
            0,
            do,
        )

    def _counted_by(self) -> datetime | None:
        return None if self._budget_time is None else self._budget_time()


def _not_made(partner: Partner, race_id: int | None, verdict: Verdict, seen: str) -> Check:
    return Check(CREDENTIAL, partner.name, race_id, "", "", seen, verdict, 0, 0.0)


def _left_out(partner: Partner, name: str, why: str) -> Check:
    return Check(name, partner.name, None, "", "", why, Verdict.SKIPPED, 0, 0.0)


def _folded(checks: list[Check]) -> list[Check]:
    """Say once of how many races the same check was left out for the same reason."""
    folded: list[Check] = []
    left_out: dict[tuple[str, str], list[Check]] = {}
    for check in checks:
        if check.verdict is Verdict.SKIPPED and check.check in (RIGHTS, FRESHNESS):
            left_out.setdefault((check.check, check.seen), []).append(check)
        else:
            folded.append(check)
    for same in left_out.values():
        first = same[0]
        if len(same) == 1:
            folded.append(first)
            continue
        seen = f"{first.seen} ({len(same):,} races)"
        folded.append(
            Check(
                first.check,
                first.partner,
                None,
                first.asked,
                first.expected,
                seen,
                first.verdict,
                0,
                sum(check.seconds for check in same),
            )
        )
    return folded


def _said(checks: Sequence[Check]) -> tuple[str | None, bool]:
    """Return the sentence for the history, and whether a check failed."""
    bad = [check for check in checks if check.verdict in (Verdict.FAIL, Verdict.ERROR)]
    if not bad:
        return None, False
    failed = [check for check in bad if check.verdict is Verdict.FAIL]
    first = (failed or bad)[0]
    where = first.check if first.race_id is None else f"{first.check} of race {first.race_id}"
    what = f"{len(failed)} of {len(checks)} checks failed" if failed else f"{len(bad)} could not be made"
    return f"{what}: {where}: {first.seen}", bool(failed)
