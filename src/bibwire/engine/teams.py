"""
Teams of one race listed under its lease, a page a transaction.

A backfill loads those of all years and notes each page, so that the next process goes on after it;
it takes none for gone. A reconciliation lists those of the live events from the first page to the
last, and marks what it did not show. Who is refused asks again after days, not with the next race.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from datetime import datetime
from typing import Final

from bibwire.api.client import VendorClient
from bibwire.clock import Clock
from bibwire.domain import teams as rules
from bibwire.domain.backfill import PastRace
from bibwire.domain.errors import (
    AccessLost,
    AnswerUnreadable,
    EventGone,
    ListingNotTrusted,
    RaceGone,
    RequestRefused,
    Stopped,
)
from bibwire.domain.records import TeamPage
from bibwire.domain.teams import TeamCounts, TeamPosition, TeamsKnown
from bibwire.engine.past import TURN_SECONDS, Turn
from bibwire.engine.sweeper import Sweeper
from bibwire.store import leases, quarantine, teams
from bibwire.store.catalog import Scope
from bibwire.store.database import Connection, Database
from bibwire.store.leases import Lease

# What a vendor answers that lists people but no teams: rights to the method may be apart. What is to
# be said of the race itself, its people's lists say.
REFUSED: Final = (AccessLost, RaceGone, RequestRefused)


class _Listing:
    """What every listing of teams does."""

    def __init__(
        self,
        db: Database,
        client: VendorClient,
        clock: Clock,
        lease: Lease,
        *,
        page_size: int,
    ) -> None:
        self._db = db
        self._client = client
        self._clock = clock
        self._lease = lease
        self._page_size = page_size
        self._key = (lease.partner_id, lease.race_id)
        self._known = TeamsKnown()
        self.counts = TeamCounts()
        self.notes: list[str] = []

    async def _open(self) -> None:
        await teams.run(self._db, "open", *self._key)
        self._known = await teams.state(self._db, *self._key)

    async def _walk(
        self, position: TeamPosition, *, enough: Callable[[], bool] = lambda: False
    ) -> TeamPosition | None:
        """
        List on from a position until the end, or until it is `enough`, which is asked before each page.

        Returns where it then stands; None: at its end.
        """
        ahead: TeamPosition | None = position
        while ahead is not None and not enough():
            at = ahead
            try:
                ahead = await self._group(at, enough)
            except ListingNotTrusted as error:
                await teams.run(self._db, "ask_one_event", *self._key, now=self._clock.now())
                self._note(f"{error}; its events are asked for their teams one at a time.")
                ahead = at.singly()
            except EventGone:
                if len(at.asked) > 1:
                    ahead = at.singly()
                    continue
                self._note(f"the vendor knows no teams of event {at.asked[0]}, which it does not find.")
                async with self._db.transaction() as connection:
                    await leases.hold(connection, self._lease)
                    ahead = await self._settle(connection, at, at.after_group(), self._clock.now())
        return ahead

    async def _group(self, position: TeamPosition, enough: Callable[[], bool]) -> TeamPosition | None:
        """List the teams of the present events; return where the listing then stands."""
        ahead: TeamPosition | None = position
        pages = self._client.teams(
            self._lease.race_id,
            position.asked,
            number=position.number,
            full=position.full,
            page_size=self._page_size,
        )
        async with aclosing(pages):
            async for page in pages:
                ahead = await self._commit(position, page)
                if ahead is None or page.is_last or enough():
                    break
                position = ahead
        return ahead

    async def _commit(self, position: TeamPosition, page: TeamPage) -> TeamPosition | None:
        now = self._clock.now()
        async with self._db.transaction() as connection:
            await leases.hold(connection, self._lease)
            found = await teams.merge_page(connection, *self._key, page, asked=position.asked, now=now)
            self._show(page)
            after = await self._settle(connection, position, position.after(page), now)
        self.counts.add(found)
        return after

    def _show(self, page: TeamPage) -> None:
        """Remember what a page showed."""

    async def _shown(self, connection: Connection, named: frozenset[int]) -> frozenset[int]:
        """Return those of some teams that the listing has brought."""
        return await teams.stored_of(connection, *self._key, named)

    async def _settle(
        self, connection: Connection, position: TeamPosition, after: TeamPosition | None, now: datetime
    ) -> TeamPosition | None:
        """
        Hold a listing that ends here against what members say; return where it goes on, None: nowhere.

        What one of several events lacks is looked for event by event. What is found then shows that
        lists of events come out short; what is not, members alone know of.
        """
        if after is not None or not (position.has_lists or position.lacking):
            return after
        named = await teams.named_by_members(connection, *self._key, event_ids=position.event_ids)
        shown = await self._shown(connection, named)
        if not position.lacking:
            lacking = rules.lacking(named, shown=shown, unlisted=self._known.unlisted)
            return position.singly(lacking=lacking) if lacking else None
        still = named - shown
        if position.lacking - still:
            await teams.write(connection, "ask_one_event", *self._key, now=now)
            self._note("a list of several events lacked teams; they are asked for one at a time.")
        unlisted = sorted((self._known.unlisted - shown) | still)
        await teams.write(connection, "save_unlisted", *self._key, team_ids=unlisted)
        return None

    async def _refused(self, error: Exception) -> None:
        await teams.run(self._db, "refuse", *self._key, now=self._clock.now())
        days = rules.TRY_AGAIN.days
        self._note(f"teams are not listed: {error}; they are asked for again in {days} days.")

    def _note(self, text: str) -> None:
        self.notes.append(f"Race {self._lease.race_id}: {text}")


class PastTeams(_Listing):
    """One turn at the teams of all events of a race that a backfill covers."""

    def __init__(
        self,
        db: Database,
        client: VendorClient,
        clock: Clock,
        lease: Lease,
        race: PastRace,
        *,
        page_size: int,
    ) -> None:
        super().__init__(db, client, clock, lease, page_size=page_size)
        self._race = race
        self._ends_at = clock.monotonic() + TURN_SECONDS
        self.turn = Turn(teams=self.counts, notes=self.notes)

    async def run(self, *, most_pages: int | None = None) -> Turn:
        """
        Load until all is there, the vendor refuses, or the turn is over.

        Args:
            most_pages: End the turn after so many pages at the latest.

        Raises:
            BibwireError: What was stored stays; the next turn goes on after it.
        """
        await self._open()
        pages = 0

        def enough() -> bool:
            nonlocal pages
            if self._clock.monotonic() >= self._ends_at or pages == most_pages:
                return True
            pages += 1
            return False

        while True:
            now = self._clock.now()
            left = rules.left_to_list(self._race, self._known, now=now)
            if not left:
                self.turn.done = True
                return self.turn
            position = self._known.resume(now=now) or self._known.begin(left, now=now)
            try:
                if await self._walk(position, enough=enough) is not None:
                    return self.turn
            except REFUSED as error:
                await self._refused(error)
            except AnswerUnreadable:
                # Pages that repeat themselves do so from the first on.
                async with self._db.transaction() as connection:
                    await teams.save_position(connection, *self._key, None)
                raise
            self._known = await teams.state(self._db, *self._key)

    async def _settle(
        self, connection: Connection, position: TeamPosition, after: TeamPosition | None, now: datetime
    ) -> TeamPosition | None:
        after = await super()._settle(connection, position, after, now)
        if after is not None:
            await teams.save_position(connection, *self._key, after)
            return after
        await teams.write(connection, "finish", *self._key, event_ids=sorted(position.event_ids))
        await teams.write(connection, "works", *self._key)
        await teams.write(connection, "note_listed", *self._key, now=now)
        return None


class LiveTeams(_Listing):
    """One complete listing of the teams of a race's live events."""

    def __init__(
        self, db: Database, client: VendorClient, clock: Clock, lease: Lease, scope: Scope, *, page_size: int
    ) -> None:
        super().__init__(db, client, clock, lease, page_size=page_size)
        self._scope = scope
        self._all_shown: set[int] = set()
        self._has_unreadable = False

    async def run(self, *, stopping: Callable[[], bool] = lambda: False) -> bool:
        """
        List all, and mark what was not shown; return False where the vendor refuses.

        Args:
            stopping: Asked before each page; true ends the listing there, and nothing is marked.

        Raises:
            Stopped: `stopping` said so.
            BibwireError: The listing is not complete: nothing is marked.
        """
        await self._open()
        position = self._known.begin(self._scope.event_ids, now=self._clock.now())
        try:
            if await self._walk(position, enough=stopping) is not None:
                raise Stopped("The teams were not listed to the end.")
        except REFUSED as error:
            await self._refused(error)
            return False
        return True

    def _show(self, page: TeamPage) -> None:
        self._all_shown.update(team.team_id for team in page.teams)
        self._has_unreadable |= bool(page.unreadable)

    async def _shown(self, connection: Connection, named: frozenset[int]) -> frozenset[int]:
        return named & self._all_shown

    async def _settle(
        self, connection: Connection, position: TeamPosition, after: TeamPosition | None, now: datetime
    ) -> TeamPosition | None:
        after = await super()._settle(connection, position, after, now)
        if after is not None:
            return after
        # A row that cannot be read may be of any of them.
        if not self._has_unreadable:
            self.counts.missing += await teams.mark_missing(
                connection,
                *self._key,
                event_ids=position.event_ids,
                shown=self._all_shown,
                now=now,
            )
        await quarantine.resolve_unmet(connection, *self._key, ["teams"], since=position.started_at)
        await teams.write(connection, "note_listed", *self._key, now=now)
        return None


class KnownTeams:
    """Lists the teams of a race's live events where the mirror knows of any: others cost no call."""

    def __init__(self, db: Database, clock: Clock, sweeper: Sweeper) -> None:
        self._db = db
        self._clock = clock
        self._sweeper = sweeper

    async def are_due(self, scope: Scope, *, on_request: bool) -> bool:
        """
        Say whether the teams of a race are to be listed with its people.

        Args:
            on_request: A person asks: where the vendor refused, it is tried again.
        """
        key = (scope.partner_id, scope.race_id)
        if not await teams.are_known(self._db, *key, event_ids=scope.event_ids):
            return False
        known = await teams.state(self._db, *key)
        return on_request or not known.is_refused(now=self._clock.now())

    async def list_all(
        self, client: VendorClient, scope: Scope, *, stopping: Callable[[], bool] = lambda: False
    ) -> tuple[TeamCounts | None, list[str]]:
        """
        List them; return what became of them, None if they are refused, and what a person should know.

        Raises:
            BibwireError: As `LiveTeams.run`, and ScopeBusy.
        """
        async with self._sweeper.leased(scope, wait_seconds=0) as lease:
            listing = LiveTeams(
                self._db, client, self._clock, lease, scope, page_size=self._sweeper.page_size
            )
            is_listed = await listing.run(stopping=stopping)
        return listing.counts if is_listed else None, listing.notes
