"""What people do in a season: commands, each a process of its own that may be ended in its middle."""

from __future__ import annotations

import asyncio
import contextvars
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING, Final

import rsusim
from bibwire.domain.errors import BibwireError, SettingsError
from bibwire.domain.verify import MORE_CALLS, Verdict
from bibwire.engine.backfill_reports import BackfillRequest
from bibwire.engine.reconcile import ReconcileRequest
from bibwire.engine.reports import SyncError, SyncRequest
from bibwire.engine.verify import VerifyRequest
from bibwire.runtime import Runtime, open_runtime
from tests.seasons.exits import Exits
from tests.seasons.happenings import Happening, fate_of
from tests.seasons.moved import MACHINE, Machine
from tests.seasons.season import MachineClock, Season, credential_of
from tests.seasons.watch import LISTED_WITHIN, STARTED_WITHIN

if TYPE_CHECKING:
    from tests.seasons.troubles import Troubles
    from tests.seasons.watch import Watch

# Who is told that it cannot be done now tries again so much later.
AGAIN_SECONDS: Final = 30.0
TRIES: Final = 100
# The share of the hour's calls that verification may take is used up: it says so, and has not failed.
NO_CALLS: Final = "No call may be made at present"
# Nobody waits longer for a command, and then tells it to leave.
LONGEST_SECONDS: Final = 900.0


def is_true_of(world: rsusim.World, error: SyncError) -> bool:
    """Say whether it is so: of a race that was canceled, or an event, it is told that nobody knows it."""
    if error.race_id is None:
        return False
    race = world.races[error.race_id]
    gone = re.search(r"does not find event (\d+)", error.error)
    return race.removed or (gone is not None and not world.events[int(gone[1])].published)


class People:
    """Gives commands."""

    def __init__(self, season: Season, watch: Watch, troubles: Troubles, *, limit: int) -> None:
        # Calls an hour of each partner.
        self._limit_of_each = limit
        self._season = season
        self._watch = watch
        self._troubles = troubles
        self._exits = Exits(season, watch)

    async def add(self, account: rsusim.Account) -> None:
        """Add a partner."""
        limit = self._limit_of_each
        await self._surely(
            lambda runtime: runtime.partners.add(account.name, credential_of(account), calls_per_hour=limit)
        )
        self._season.bell.ring()
        self._watch.limited(account.name, limit)
        self._watch.new_partner(account.name)

    async def do(self, line: Happening) -> None:
        """Do what a line says."""
        # Every second command is for a partner that is not paused, if there is one: it has to succeed.
        working = sorted(self._watch.partners.keys() - self._watch.partners_paused)
        names = working if working and line.b % 2 == 0 else sorted(self._watch.partners)
        if names:
            await getattr(self, f"_{line.kind}")(line, names[line.a % len(names)])

    # Partners: given again until they succeed

    async def _pause(self, line: Happening, name: str) -> None:
        self._watch.partners_paused.add(name)
        await self._surely(lambda runtime: runtime.partners.pause(name))
        await asyncio.sleep(line.seconds)

        async def resume(runtime: Runtime) -> None:
            await runtime.partners.resume(name)
            await runtime.wake_planner()

        await self._surely(resume)
        self._season.bell.ring()
        self._watch.partners_paused.discard(name)
        if name in self._watch.partners:
            self._watch.new_partner(name)

    async def _limit(self, line: Happening, name: str) -> None:
        # An eighth more or less.
        limit = self._limit_of_each * 7 // 8 + line.b % (self._limit_of_each // 4)
        if limit > self._watch.limit_of(name):
            self._watch.limited(name, limit)  # in force before it is known to be
        if await self._surely(lambda runtime: runtime.partners.limit(name, limit)):
            self._watch.limited(name, limit)

    async def _rotate(self, line: Happening, name: str) -> None:
        key = credential_of(self._season.world.accounts[name])
        await self._surely(lambda runtime: runtime.partners.rotate(name, key))

    async def _remove_partner(self, line: Happening, name: str) -> None:
        if len(self._watch.partners) < 2:
            return
        self._watch.gone(name)
        await self._surely(lambda runtime: runtime.partners.remove(name))
        await asyncio.sleep(line.seconds)
        await self.add(self._season.world.accounts[name])

    async def _partner_comes(self, line: Happening, name: str) -> None:
        """A new customer, with a race next month."""
        world = self._season.world
        newcomer = f"Newcomer {line.a}"
        if newcomer in world.accounts:
            return
        with world:
            account = world.add_partner(newcomer)
            race = world.add_race([account], f"{newcomer}'s Mile", "America/Denver")
            for _ in range(2 + line.b % 5):
                world.register(world.add_event(race, "1 Mile"))
        await self.add(account)

    async def _partner_leaves(self, line: Happening, name: str) -> None:
        """A customer who does not come back."""
        if len(self._watch.partners) > 1:
            self._watch.gone(name)
            await self._surely(lambda runtime: runtime.partners.remove(name))

    # What reads: may end in its middle

    async def _sync(self, line: Happening, name: str) -> None:
        async def sync(runtime: Runtime) -> None:
            began = self._now
            if line.b & 1:
                self._watch.lists_read.setdefault(name, []).append(began)
            report = await runtime.engine.sync(SyncRequest(partner=name, full=bool(line.b & 1)))
            self._nothing_failed("sync", name, report.errors, began)
            self._exits.is_true("sync", report.exit_code, name, began)

        await self._perhaps(line, name, sync)

    async def _reconcile(self, line: Happening, name: str) -> None:
        async def reconcile(runtime: Runtime) -> None:
            began = self._now
            self._watch.lists_read.setdefault(name, []).append(began)
            report = await runtime.reconcile(ReconcileRequest(partner=name))
            self._nothing_failed("reconcile", name, report.errors, began)
            self._exits.is_true("reconcile", report.exit_code, name, began)

        await self._perhaps(line, name, reconcile)

    async def _verify(self, line: Happening, name: str) -> None:
        async def verify(runtime: Runtime) -> None:
            began = self._now
            partners = await runtime.engine.chosen(name)
            report = await runtime.verifier.verify(
                partners, VerifyRequest(partner=name, seed=line.b, max_calls=40)
            )
            self._exits.is_true("verify", report.exit_code, name, began)
            if self._may_fail(name, began):
                return
            wrong = [
                check
                for check in (*report.of(Verdict.FAIL), *report.of(Verdict.ERROR))
                if not self._has_changed(name, check.race_id, began)
                and not any(text in check.seen for text in (MORE_CALLS, NO_CALLS))
            ]
            assert not wrong, f"verify: {wrong}"
            self._watch.checks["verify"] += 1

        await self._perhaps(line, name, verify)

    async def _backfill(self, line: Happening, name: str) -> None:
        since = self._season.now - timedelta(days=730)

        async def backfill(runtime: Runtime) -> None:
            began = self._season.now.timestamp()
            report = await runtime.backfill(BackfillRequest(since=since, partner=name))
            self._nothing_failed("backfill", name, report.errors, began)
            assert not report.races_loaded or report.calls, "a backfill loaded races without a call"

        await self._perhaps(line, name, backfill)

    async def _discover(self, line: Happening, name: str) -> None:
        async def discover(runtime: Runtime) -> None:
            for partner in await runtime.engine.chosen(name):
                await runtime.discover(partner)
            await runtime.wake_planner()

        await self._perhaps(line, name, discover)
        self._season.bell.ring()

    async def _lookup_live(self, line: Happening, name: str) -> None:
        races = [n for n in self._season.world.races if self._season.world.may_read(name, n)]
        if races:
            race = races[line.b % len(races)]

            async def look_up(runtime: Runtime) -> None:
                with suppress(SettingsError):  # nothing of it is live
                    await runtime.engine.lookup_live(name, race, 1 + line.b % 2000, within_seconds=8)

            await self._perhaps(line, name, look_up)

    # Processes

    async def _surely(self, do: Callable[[Runtime], Awaitable[object]]) -> bool:
        """Give a command again until it succeeds; False: there is nothing that it could be done to."""
        for _ in range(TRIES):
            try:
                await do(self._season.runtime)
            except SettingsError:
                return False
            except BibwireError as error:
                why = error
                await asyncio.sleep(AGAIN_SECONDS)
            else:
                return True
        raise AssertionError(f"a command failed {TRIES} times: {why}")

    async def _perhaps(self, line: Happening, name: str, do: Callable[[Runtime], Awaitable[object]]) -> None:
        """Give a command as a process of its own, to its end or not."""
        random = Random(line.b)
        fate, after = fate_of(line.b), random.choice((0.05, 0.3, 1.0, 5.0, 20.0))
        machine, began = Machine(line.kind), self._now

        async def run() -> None:
            try:
                async with open_runtime(self._season.settings, machine=MachineClock(self._season)) as runtime:
                    await do(runtime)
            except BibwireError as error:  # it says why, and is given again by the person
                if not self._may_fail(name, began):
                    raise AssertionError(f"{line.kind} of {name} failed: {error!r}") from error

        context = contextvars.copy_context()
        context.run(MACHINE.set, machine)
        task = asyncio.get_running_loop().create_task(run(), context=context)
        # A backfill may wait for calls for hours.
        await asyncio.wait({task}, timeout=LONGEST_SECONDS if fate == "to its end" else after)
        if not task.done():
            self._troubles.ended_early.append(self._season.now.timestamp())
        if task.done():
            task.result()
        elif fate == "killed":
            await self._season.kill(machine)
        else:
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                task.result()

    @property
    def _now(self) -> float:
        return self._season.now.timestamp()

    def _may_fail(self, name: str, began: float) -> bool:
        """Say whether a command for a partner may fail: something was wrong, or he came or went meanwhile."""
        return (
            self._watch.is_disturbed(name, since=began)
            or name in self._watch.partners_paused
            or self._watch.partners.get(name, began) + STARTED_WITHIN > began
        )

    def _has_changed(self, name: str, race_id: int | None, began: float) -> bool:
        """Say whether something happened to a race that the lists had not told when a command began."""
        return race_id is not None and self._watch.changed.get((name, race_id), 0.0) + LISTED_WITHIN > began

    def _nothing_failed(self, what: str, name: str, errors: list[SyncError], began: float) -> None:
        """Where nothing was wrong, no race fails; but those the vendor does not know any more."""
        if self._may_fail(name, began):
            return
        wrong = [
            error
            for error in errors
            if not is_true_of(self._season.world, error) and not self._has_changed(name, error.race_id, began)
        ]
        assert not wrong, f"{what}: {wrong}"
        self._watch.checks[what] += 1
