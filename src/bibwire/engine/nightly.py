"""Mirrors verified once a day by themselves; what fails is told as an error."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import structlog

from bibwire.clock import Clock
from bibwire.domain.budget import MINUTE, WINDOW_MINUTES
from bibwire.domain.verify import Verdict
from bibwire.engine.verify import Verifier, VerifyReport, VerifyRequest
from bibwire.store import schedule
from bibwire.store.database import Database
from bibwire.store.partners import Partners

# A vendor that could not be asked is asked again before the next night.
AGAIN_UNASKED: Final = timedelta(hours=1)
# So it is where the hour's calls did not suffice: by then those of this minute do not count any more.
AGAIN_WITH_CALLS: Final = (WINDOW_MINUTES + 1) * MINUTE
DAY_SECONDS: Final = 86_400

log = structlog.get_logger()


class Nightly:
    """The verification job."""

    def __init__(
        self,
        *,
        db: Database,
        partners: Partners,
        verifier: Verifier,
        clock: Clock,
        next_verification: Callable[[datetime], datetime] | None,
    ) -> None:
        self._db = db
        self._partners = partners
        self._verifier = verifier
        self._clock = clock
        self._next_verification = next_verification

    async def verify(self, args: Mapping[str, Any], stopping: asyncio.Event) -> None:
        """
        Verify a partner's mirror and note when to do it next.

        Args:
            args: `partner_id`.
            stopping: Set when the worker is to leave: no other check is made, and the night's is repeated.
        """
        partner = await self._partners.find(int(args["partner_id"]))
        if partner is None or partner.paused_at is not None or self._next_verification is None:
            return
        # Every day other races and bibs.
        seed = int(self._clock.now().timestamp()) // DAY_SECONDS
        report = await self._verifier.verify(
            [partner], VerifyRequest(partner.name, max_calls=None, seed=seed), stopping=stopping.is_set
        )
        # At once: a worker that is to leave now has found it all the same.
        _tell_failures(partner.name, report)
        if stopping.is_set():
            return  # it is due again soon
        now = self._clock.now()
        next_at = self._next_verification(now)
        if (report.unverified or report.out_of_calls) and not report.of(Verdict.FAIL):
            next_at = min(next_at, now + (AGAIN_WITH_CALLS if report.out_of_calls else AGAIN_UNASKED))
        await schedule.verify_next(self._db, partner.partner_id, next_at=next_at)
        errors = len(report.of(Verdict.ERROR))
        how = "verified in part" if errors else "verified"
        log.info(
            f"mirror {'not verified' if report.unverified else how}",
            action="verify",
            partner=partner.name,
            checks=len(report.checks),
            failed=len(report.of(Verdict.FAIL)),
            errors=errors,
            skipped=len(report.of(Verdict.SKIPPED)),
            calls=report.calls,
        )


def _tell_failures(partner: str, report: VerifyReport) -> None:
    for verdict, tell, what in (
        (Verdict.FAIL, log.error, "a check of the mirror failed"),
        (Verdict.ERROR, log.warning, "a check of the mirror could not be made"),
    ):
        for check in report.of(verdict):
            tell(
                what,
                action="verify",
                partner=partner,
                race_id=check.race_id,
                check=check.check,
                expected=check.expected,
                seen=check.seen,
            )
