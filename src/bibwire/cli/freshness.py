"""Says on standard error when races stop being fresh, and are fresh again, while a feed is shown."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from datetime import datetime

    from bibwire.runtime import Runtime
    from bibwire.store.reports import StaleRace

LOOK_SECONDS: Final = 2.0
# So long after an outage of the database nothing is said of workers: they come back within seconds.
WORKERS_BACK_SECONDS: Final = 15.0
# Races named in a sentence.
MOST_NAMED: Final = 3


@asynccontextmanager
async def watching(runtime: Runtime, partner_id: int | None, race_id: int | None) -> AsyncIterator[None]:
    """
    Look at the freshness of races while the block goes on.

    Args:
        partner_id: None: of all partners.
        race_id: None: of all hot races.
    """
    import asyncio

    task = asyncio.create_task(_watch(runtime, partner_id, race_id))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _watch(runtime: Runtime, partner_id: int | None, race_id: int | None) -> None:
    import asyncio

    from bibwire.domain.errors import BibwireError

    watch = Watch(runtime.clock.now)
    while True:
        try:
            stale = await runtime.reports.stale_races(partner_id=partner_id, race_id=race_id)
            workers = (await runtime.jobs.stats()).workers
        except BibwireError as error:
            watch.no_answer(error)
        else:
            watch.look(stale, workers)
        await asyncio.sleep(LOOK_SECONDS)


def is_recent(back_at: datetime | None, now: datetime) -> bool:
    """Say whether the database is back for so short a time that its workers may not be yet."""
    return back_at is not None and (now - back_at).total_seconds() < WORKERS_BACK_SECONDS


class Watch:
    """What was said so far, so that it is said once."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        # Of each race, since when it is not fresh.
        self._stale: dict[tuple[str, int], datetime] = {}
        self._names: dict[tuple[str, int], str] = {}
        self._silent_since: datetime | None = None
        self._back_at: datetime | None = None
        self._idle = False

    def no_answer(self, error: Exception) -> None:
        """Note that the database did not answer."""
        if self._silent_since is None:
            self._silent_since = self._now()
            why = str(error).rstrip(".?")
            self._say(f"the database does not answer, so nothing new is shown: {why}. Trying again ...")

    def look(self, stale: Collection[StaleRace], workers: int) -> None:
        """Say what is new since the last look."""
        if self._silent_since is not None:
            lasted = self._lasted(self._silent_since)
            self._silent_since, self._back_at = None, self._now()
            self._say(f"the database answers again, after {lasted}.")
        if workers or not is_recent(self._back_at, self._now()):
            if not workers and not self._idle:
                self._say("no worker is running, so nothing new comes by itself: start bibwire run.")
            elif workers and self._idle:
                self._say("a worker is running again.")
            self._idle = not workers
        new: dict[str, list[StaleRace]] = {}
        for race in stale:
            key = (race.partner, race.race_id)
            if key not in self._stale:
                self._stale[key] = race.failing_since or self._now()
                self._names[key] = f"{(race.race or '').strip() or 'race'} ({race.race_id})"
                new.setdefault(race.error or "its polls are late", []).append(race)
        for why, races in new.items():
            self._say(self._lost([(race.partner, race.race_id) for race in races], why, races))
        over = self._stale.keys() - {(race.partner, race.race_id) for race in stale}
        if over:
            lasted = self._lasted(min(self._stale[key] for key in over))
            self._say(f"{self._named(sorted(over))} fresh again, after {lasted}.")
            for key in over:
                del self._stale[key]

    def _lost(self, keys: list[tuple[str, int]], why: str, races: list[StaleRace]) -> str:
        from bibwire.cli.terminal import moment, plain

        known = [race.as_of for race in races if race.as_of is not None]
        shown = f" What is shown is as of {moment(min(known))[11:]}." if known else " Nothing is loaded yet."
        return f"{self._named(keys)} not fresh: {plain(why).rstrip('.')}.{shown}"

    def _named(self, keys: list[tuple[str, int]]) -> str:
        from bibwire.cli.terminal import plain

        names = [plain(self._names[key]) for key in keys[:MOST_NAMED]]
        more = len(keys) - len(names)
        if more:
            return f"{', '.join(names)} and {more:,} more are"
        return f"{names[0]} is" if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]} are"

    def _lasted(self, since: datetime) -> str:
        from bibwire.cli.terminal import age

        return age((self._now() - since).total_seconds())

    def _say(self, text: str) -> None:
        from bibwire.cli.terminal import complain, moment

        complain(f"{moment(self._now())[11:]} {text}", prefix="")
