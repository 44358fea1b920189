"""
What monitors are told, read from the database in one go.

The values are those of all processes together: whoever reads them, and from which machine, reads
the same. Nothing here writes, and no statement reads the people or the feed. Spans are in seconds,
instants in seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import psycopg
from psycopg.rows import TupleRow

from bibwire.domain.budget import Budget
from bibwire.store import jobs, permits
from bibwire.store.database import connect, fetch, statements
from bibwire.store.jobs import JobStats
from bibwire.store.reconciliations import DRIFT_KINDS
from bibwire.store.refusals import translated
from bibwire.store.reports import is_late


@dataclass(frozen=True, slots=True)
class PartnerFacts:
    """
    A partner as monitors see it.

    Attributes:
        quarantined: Records not representable at present.
        doubted: Events whose listing was not believed, because lost rights look the same.
        drift: Rows that reconciliations ever found, by how they were wrong; it never falls.
        checks_failed, checks_unfinished: Of the last verification.
        verified_at: When it was; None: never.
        calls: What the budget counts in the last hour, by class.
        limit: Calls an hour in use at present.
        blocked: No call is made now, for the vendor asked for none.
    """

    partner: str
    paused: bool
    failing: bool
    quarantined: int
    doubted: int
    drift: Mapping[str, int]
    checks_failed: int
    checks_unfinished: int
    verified_at: float | None
    calls: Mapping[str, int]
    limit: int
    blocked: bool


@dataclass(frozen=True, slots=True)
class RaceFacts:
    """
    A race that is kept fresh.

    Attributes:
        age_seconds: None: not loaded yet.
        listed_seconds: Since it was last listed in full, by a first load or a reconciliation; None: never.
        p50_seconds, p95_seconds, worst_seconds: How soon the changes of its newest hour were seen, no
            older than the hour before this one; None: there were none.
    """

    partner: str
    race_id: int
    age_seconds: float | None
    target_seconds: int
    failing: bool
    listed_seconds: float | None
    p50_seconds: float | None
    p95_seconds: float | None
    worst_seconds: float | None

    @property
    def late(self) -> bool:
        return is_late(self.age_seconds, self.target_seconds)


@dataclass(frozen=True, slots=True)
class EndpointFacts:
    """A partner's calls to an endpoint within the last hour; `errors` are those of them that failed."""

    partner: str
    endpoint: str
    calls: int
    errors: int


@dataclass(frozen=True, slots=True)
class Facts:
    """All of it, as of one instant. `callers_blocked`: callers whose every credential must wait."""

    partners: list[PartnerFacts]
    races: list[RaceFacts]
    endpoints: list[EndpointFacts]
    jobs: JobStats
    callers_blocked: int


async def read(conninfo: str) -> Facts:
    """
    Read everything, on a connection of its own: a pool would be slow to see that the server is back.

    Raises:
        DatabaseUnavailable: It cannot be reached, or a statement takes longer than 2 s.
    """
    connection = await connect(conninfo)
    named = statements("metrics")
    try:
        await connection.execute("SET statement_timeout = '2s'")
        # All of it is as of one instant, and nothing of it can write.
        await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
        await connection.set_read_only(True)
        await connection.set_autocommit(False)
        partners = await fetch(connection, named["partners"])
        budgets = await permits.budgets(connection, [row[0] for row in partners])
        [[callers_blocked]] = await fetch(connection, named["callers_blocked"])
        return Facts(
            partners=[_partner_facts(row, budgets[row[0]]) for row in partners],
            races=[RaceFacts(*row) for row in await fetch(connection, named["races"])],
            endpoints=[EndpointFacts(*row) for row in await fetch(connection, named["endpoints"])],
            jobs=await jobs.stats(connection),
            callers_blocked=callers_blocked,
        )
    except psycopg.Error as error:
        raise translated(error) from None
    finally:
        await connection.close()


def _partner_facts(row: TupleRow, budget: Budget) -> PartnerFacts:
    _, partner, paused, failing, quarantined, doubted, *drift, failed, unfinished, verified_at = row
    return PartnerFacts(
        partner=partner,
        paused=paused,
        failing=failing,
        quarantined=quarantined,
        doubted=doubted,
        drift=dict(zip(DRIFT_KINDS, drift, strict=True)),
        checks_failed=failed,
        checks_unfinished=unfinished,
        verified_at=verified_at,
        calls={str(urgency): calls for urgency, calls in budget.spent_by_urgency.items()},
        limit=budget.limit_in_use,
        blocked=budget.blocked_until is not None,
    )
