"""
Decides what is polled next: plans each partner's polls, and queues what is due and paid for.

A tick is short and repeatable, and any process may make it. What it queues and what it notes of
it are one transaction. It looks a little ahead, so that a scope is in a worker's hands by the
time it is due.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import structlog

from bibwire.clock import Clock
from bibwire.domain import schedule as rules
from bibwire.domain.budget import Budget, Stop, Urgency, room, stops_at
from bibwire.domain.errors import InvariantBroken
from bibwire.domain.pace import usable_calls
from bibwire.domain.schedule import PartnerPlan, ScopeFacts, Shortage, Tier
from bibwire.domain.secrets import NOBODY, Secret
from bibwire.domain.shortages import is_news, is_over, to_tell
from bibwire.store import clocks, schedule, shortages
from bibwire.store.database import Connection, Database
from bibwire.store.jobs import Jobs
from bibwire.store.partners import Partner
from bibwire.store.permits import budget_of_partner, budgets, used_up_until
from bibwire.store.schedule import Claimed, Due, Scheduled

SWEEP: Final = "sweep"
DISCOVER: Final = "discover"
VERIFY: Final = "verify"

TICK_SECONDS: Final = 5.0
# A job waits for its scope's instant: what is due before the next tick is queued in this one.
LOOK_AHEAD: Final = timedelta(seconds=TICK_SECONDS)
# Rates of change move while a race is hot; without one, only the start times count.
REPLAN_HOT: Final = timedelta(seconds=30)
REPLAN_AT_LATEST: Final = schedule.LONGEST_PLAN
# What was dated while a clock was ahead is looked for so often.
PULL_BACK_SECONDS: Final = 30.0
MOST_AT_ONCE: Final = 200
NO_ROOM: Final = timedelta(minutes=1)
DISCOVERY_AGAIN: Final = timedelta(minutes=15)
VERIFY_AGAIN: Final = timedelta(hours=1)
PLAN_AGAIN: Final = timedelta(minutes=5)

log = structlog.get_logger()


@dataclass(slots=True)
class Ticked:
    """What a tick did: partners planned, scopes queued and put off, discoveries and verifications queued."""

    planned: int = 0
    queued: int = 0
    put_off: int = 0
    discoveries: int = 0
    verifications: int = 0


def urgency_of(tier: Tier, *, loaded: bool) -> Urgency:
    """Return under which share of the budget a race is polled."""
    if tier is Tier.HOT:
        return Urgency.RACE_DAY
    return Urgency.DELTA if loaded else Urgency.BACKFILL


class Planner:
    """The planner job."""

    def __init__(
        self,
        db: Database,
        jobs: Jobs,
        clock: Clock,
        *,
        caller: Secret = NOBODY,
        budget_time: Callable[[], datetime] | None = None,
        next_verification: Callable[[datetime], datetime] | None = None,
    ) -> None:
        """
        Make the planner.

        Args:
            caller: The caller registration, `NOBODY` without one.
            budget_time: For simulations: the time calls are counted by, instead of the database's.
            next_verification: When mirrors are verified next, after an instant; None: they are not.
        """
        self._db = db
        self._jobs = jobs
        self._clock = clock
        self._caller = caller
        self._budget_time = budget_time
        self._next_verification = next_verification
        self._pulled_back_at: float | None = None

    async def tick(self) -> Ticked:
        """
        Plan what is to be planned and queue what is due.

        Raises:
            DatabaseUnavailable: PostgreSQL cannot be used; the next tick does all of it.
        """
        ticked = Ticked()
        await self._pull_back()
        await self._discoveries(ticked)
        # What is due comes first, and again between the plans of many partners.
        await self._queue_due(ticked)
        while await self._plan_some(ticked):
            await self._queue_due(ticked)
        await self._verifications(ticked)
        return ticked

    async def _pull_back(self) -> None:
        """Bring back what was stored while a clock was ahead: no instant to come outlives its cause."""
        at = self._clock.monotonic()
        if self._pulled_back_at is not None and at - self._pulled_back_at < PULL_BACK_SECONDS:
            return
        self._pulled_back_at = at
        async with self._db.transaction() as connection:
            pulled = await clocks.pull_back(connection, now=self._clock.now())
        if pulled.set_back:
            log.warning(
                "what lay too far ahead is due again: a clock was set back",
                action="plan",
                scopes=pulled.scopes,
                partners=pulled.partners,
            )
        elif pulled.scopes:
            log.info("polls that waited for calls are due again", action="plan", scopes=pulled.scopes)

    async def _discoveries(self, ticked: Ticked) -> None:
        now = self._clock.now()
        async with self._db.transaction() as connection:
            found = await schedule.claim_discoveries(connection, now=now, again_at=now + DISCOVERY_AGAIN)
            for partner_id in found:
                ticked.discoveries += await self._jobs.defer(
                    connection,
                    DISCOVER,
                    {"partner_id": partner_id},
                    lock=f"discover:{partner_id}",
                    queueing_lock=f"discover:{partner_id}",
                )

    async def _verifications(self, ticked: Ticked) -> None:
        now = self._clock.now()
        async with self._db.transaction() as connection:
            if self._next_verification is None:
                await schedule.forget_verifications(connection)
                return
            found = await schedule.claim_verifications(
                connection, now=now, first_at=self._next_verification(now), again_at=now + VERIFY_AGAIN
            )
            for partner_id in found:
                ticked.verifications += await self._jobs.defer(
                    connection,
                    VERIFY,
                    {"partner_id": partner_id},
                    lock=f"verify:{partner_id}",
                    queueing_lock=f"verify:{partner_id}",
                )

    async def _plan_some(self, ticked: Ticked) -> bool:
        """Plan some partners' polls; say whether there may be more."""
        now = self._clock.now()
        async with self._db.transaction() as connection:
            partner_ids = await schedule.partners_to_plan(connection, now=now)
            for partner_id in partner_ids:
                try:
                    async with connection.transaction():
                        await self._plan(connection, partner_id, now)
                except InvariantBroken as error:
                    log.exception(
                        "partner not planned", action="plan", partner_id=partner_id, error=str(error)
                    )
                    await schedule.put_plan_off(connection, partner_id, again_at=now + PLAN_AGAIN)
        ticked.planned += len(partner_ids)
        return bool(partner_ids)

    async def _plan(self, connection: Connection, partner_id: int, now: datetime) -> None:
        moved = None if self._budget_time is None else self._budget_time()
        partner, paused, told = await shortages.told(connection, partner_id)
        plan, shortage, _, _ = await _planned(connection, partner_id, now, budget_time=moved)
        hot = any(poll.tier is Tier.HOT for poll in plan.polls)
        again_at = now + (REPLAN_HOT if hot else REPLAN_AT_LATEST)
        if plan.next_plan_at is not None:
            again_at = min(again_at, plan.next_plan_at)
        await schedule.store_plan(connection, partner_id, plan, again_at=again_at, now=now)
        news, over = is_news(told, shortage, now=now), is_over(told, shortage, now=now)
        if news and shortage is not None:
            await shortages.keep(connection, partner_id, to_tell(shortage, now=now))
        elif over:
            await shortages.keep(connection, partner_id, None)
        # Before the commit: told twice is better than never. A partner that polls nothing has no more
        # calls for that.
        if over and not paused:
            log.info("the calls suffice again", action="plan", partner=partner)
        if news and shortage is not None:
            log.warning(
                "the calls will not suffice",
                action="plan",
                partner=partner,
                begins_at=shortage.begins_at.isoformat(),
                ends_at=shortage.ends_at.isoformat(),
                calls_an_hour_needed=round(shortage.needed_calls_per_hour),
                calls_an_hour_usable=round(shortage.usable_calls_per_hour),
                hot_races=len(shortage.race_ids),
                sufficient_limit=shortage.sufficient_calls_per_hour,
            )

    async def _queue_due(self, ticked: Ticked) -> None:
        now = self._clock.now()
        async with self._db.transaction() as connection:
            due = await schedule.due(connection, horizon=now + LOOK_AHEAD, now=now, most=MOST_AT_ONCE)
            if not due:
                return
            credential_ids = {each.credential_id for each in due}
            left = await budgets(
                connection,
                credential_ids,
                caller=self._caller,
                now=None if self._budget_time is None else self._budget_time(),
            )
            claimed = await schedule.claimed(connection, credential_ids, horizon=now + LOOK_AHEAD, now=now)
            chosen, put_off = _paid_for(due, claimed, left, now)
            for each in chosen:
                await self._jobs.defer(
                    connection,
                    SWEEP,
                    {"partner_id": each.partner_id, "race_id": each.race_id},
                    lock=f"scope:{each.partner_id}:{each.race_id}",
                    queueing_lock=f"sweep:{each.partner_id}:{each.race_id}",
                    priority=1 if each.tier is Tier.HOT else 0,
                )
            if chosen:
                await schedule.claim(connection, chosen, now=now)
            if put_off:
                await schedule.put_off(connection, put_off)
        ticked.queued += len(chosen)
        ticked.put_off += len(put_off)


def _paid_for(
    due: list[Due], claimed: list[Claimed], left: dict[int, Budget], now: datetime
) -> tuple[list[Due], dict[Due, datetime]]:
    """Choose the scopes the budget has room for; say when to look at the others again."""
    chosen: list[Due] = []
    put_off: dict[Due, datetime] = {}
    # What is queued and has not begun to spend is as good as spent. A poll that is just being made
    # counts twice meanwhile: few are at a time, and a first load makes more calls than one.
    promised: dict[int, Counter[Urgency]] = {credential_id: Counter() for credential_id in left}
    for poll in claimed:
        promised[poll.credential_id][urgency_of(poll.tier, loaded=poll.loaded)] += poll.polls
    for each in due:
        budget, urgency = left[each.credential_id], urgency_of(each.tier, loaded=each.loaded)
        taken = promised[each.credential_id]
        # Whether it is blocked was looked at by the clock that counts the calls.
        if budget.blocked_until is not None:
            put_off[each] = budget.blocked_until
        elif not room(budget.with_spent(taken), urgency):
            put_off[each] = now + NO_ROOM
        else:
            chosen.append(each)
            taken[urgency] += 1
    return chosen, put_off


@dataclass(frozen=True, slots=True)
class Outlook:
    """
    What is scheduled for a partner: its polls, the next shortage, and its races' names.

    `blocked_until`: no call is made before, for the vendor asked for none; None: calls are made.
    `asked_until`: the end of the pause it asked for, where that is longer than is believed.
    `plan` has each live race as it stands in the schedule; one that is not in `scheduled` stands there
    as the planner would plan it now. `due_at`: when those of `scheduled` can be polled next.
    `usable_calls_per_hour`: what polls may use once nothing else takes calls; `taken` of the last hour's
    were history and reconciliation, which `plan` leaves out. `is_former`: what is scheduled would take more
    than that, so that it is planned anew within seconds. `used_up_until`: when the classes have room again
    for which the hour's calls are used up, and `stops` what stops each of them.
    """

    partner: str
    paused: bool
    blocked_until: datetime | None
    asked_until: datetime | None
    calls_per_hour: int
    plan: PartnerPlan
    scheduled: dict[int, Scheduled]
    shortage: Shortage | None
    names: dict[int, str]
    now: datetime
    usable_calls_per_hour: float
    taken: int
    used_up_until: dict[Urgency, datetime]
    stops: dict[Urgency, Stop]
    due_at: dict[int, datetime]
    is_former: bool


async def outlook(db: Database, partner: Partner, *, now: datetime) -> Outlook:
    """Return what is scheduled for a partner; nothing is written."""
    async with db.transaction() as connection:
        plan, shortage, facts, budget = await _planned(connection, partner.partner_id, now)
        standing = await schedule.scheduled(connection, partner.partner_id)
        used_up = await used_up_until(connection, partner.partner_id)
    by_id = {each.race_id: each for each in facts}
    polls = tuple(
        poll
        if (stands := standing.get(poll.race_id)) is None
        else rules.poll_of(
            by_id[poll.race_id],
            stands.tier,
            stands.every_seconds,
            calls_per_hour=_plannable(budget),
            now=now,
        )
        for poll in plan.polls
    )
    usable = usable_calls(budget.limit_ahead, Counter(poll.tier for poll in plan.polls))
    scheduled_calls = math.fsum(poll.calls_per_hour for poll in polls)
    is_former = scheduled_calls > usable + 0.5
    due_at = {
        race_id: max(
            stands.next_due_at,
            used_up.get(urgency_of(stands.tier, loaded=by_id[race_id].loaded), stands.next_due_at),
            budget.blocked_until or stands.next_due_at,
        )
        for race_id, stands in standing.items()
        if race_id in by_id
    }
    return Outlook(
        partner=partner.name,
        paused=partner.paused_at is not None,
        blocked_until=budget.blocked_until,
        asked_until=budget.asked_until,
        calls_per_hour=budget.limit_ahead,
        plan=replace(
            plan,
            polls=polls,
            planned_calls_per_hour=plan.planned_calls_per_hour if is_former else scheduled_calls,
        ),
        scheduled=standing,
        shortage=shortage,
        names={race_id: each.name for race_id, each in by_id.items()},
        now=now,
        usable_calls_per_hour=usable,
        taken=_taken(budget),
        used_up_until=used_up,
        stops={urgency: stops_at(budget, urgency) for urgency in used_up},
        due_at=due_at,
        is_former=is_former,
    )


async def _planned(
    connection: Connection, partner_id: int, now: datetime, *, budget_time: datetime | None = None
) -> tuple[PartnerPlan, Shortage | None, list[ScopeFacts], Budget]:
    facts = await schedule.facts(connection, partner_id, now=now)
    budget = await budget_of_partner(connection, partner_id, now=budget_time)
    plan = rules.plan(facts, calls_per_hour=_plannable(budget), now=now)
    # A limit that was lowered has recovered long before most of what is foreseen.
    shortage = rules.foresee(facts, calls_per_hour=budget.limit, now=now)
    return plan, shortage, facts, budget


def _plannable(budget: Budget) -> int:
    """Return the calls an hour to plan with: those history and reconciliation took are spent."""
    return max(1, budget.limit_ahead - _taken(budget))


def _taken(budget: Budget) -> int:
    return budget.spent_by_urgency[Urgency.BACKFILL] + budget.spent_by_urgency[Urgency.RECONCILE]
