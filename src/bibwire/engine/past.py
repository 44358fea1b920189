"""
Events of one race that are over, loaded under a lease, a few seconds at a time.

A page is one transaction: rows, feed, position, and the check that the race is still ours. Whoever
polls the race's live events wants the lease too, so it is given back every now and then; the next
turn goes on at the page after the last one stored. Nothing is ever taken for gone here: a list may
be empty for want of rights, and what deltas and full listings found out since is newer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Final

from bibwire.api import wire
from bibwire.api.client import VendorClient
from bibwire.clock import Clock
from bibwire.domain import backfill as rules
from bibwire.domain.backfill import PastRace, Position, Progressed
from bibwire.domain.errors import AnswerUnreadable, EventGone, ListingNotTrusted
from bibwire.domain.records import Page
from bibwire.domain.sweeps import Stream
from bibwire.domain.teams import TeamCounts
from bibwire.engine.reading import READING
from bibwire.store import backfills, catalog, leases, loader
from bibwire.store.database import Connection, Database
from bibwire.store.leases import Lease
from bibwire.store.loader import Outcome, Target

# So long a poll of the same race waits at most, and a page more.
TURN_SECONDS: Final = 2.0


@dataclass(slots=True)
class Turn:
    """What came of one turn. `done`: all that was wanted of the race is loaded."""

    done: bool = False
    outcome: Outcome = field(default_factory=Outcome)
    teams: TeamCounts = field(default_factory=TeamCounts)
    notes: list[str] = field(default_factory=list)


async def count_people(
    db: Database, client: VendorClient, race: PastRace, event_ids: Collection[int], state: Progressed
) -> None:
    """
    Ask how many people the vendor counts in some of a race's events, note it in `state`, and store it.

    Raises:
        BibwireError: The vendor did not say.
    """
    counts = await client.participant_counts(race.race_id, sorted(event_ids))
    state.counts |= dict.fromkeys(event_ids, 0) | counts
    await backfills.save_counts(db, race.partner_id, race.race_id, state.counts)


class PastSync:
    """One turn at the past events of a race."""

    def __init__(
        self,
        db: Database,
        client: VendorClient,
        clock: Clock,
        lease: Lease,
        race: PastRace,
        *,
        page_size: int,
        trusted: int,
        again: bool = False,
    ) -> None:
        """
        Make it.

        Args:
            trusted: Of how many events together lists are believed under this credential.
            again: Everything was listed once before: an event that shows fewer people than the vendor
                counts is taken as it is, for nobody says that both count alike.
        """
        self._db = db
        self._client = client
        self._clock = clock
        self._lease = lease
        self._race = race
        self._page_size = page_size
        self._trusted = trusted
        self._again = again
        self._key = (race.partner_id, race.race_id)
        self._ends_at = clock.monotonic() + TURN_SECONDS
        # Records of the present list that could not even be told apart.
        self._unreadable = 0
        self.turn = Turn()

    async def run(self, *, most_pages: int | None = None) -> Turn:
        """
        Load until all is there or the turn is over.

        Args:
            most_pages: End the turn after so many pages at the latest.

        Raises:
            BibwireError: What was stored stays; the next turn goes on after it.
        """
        pages = 0
        while True:
            state = await backfills.state(self._db, *self._key)
            position = state.position or await self._begin(state)
            if position is None:
                self.turn.done = True
                return self.turn
            try:
                while position is not None:
                    if self._clock.monotonic() >= self._ends_at or pages == most_pages:
                        return self.turn
                    position = await self._page(position, state)
                    pages += 1
            except ListingNotTrusted as error:
                await self._one_event(str(error))
            except EventGone:
                group = position.sweep.groups[position.sweep.group] if position is not None else ()
                if len(group) == 1:
                    await catalog.run(
                        self._db,
                        "event_not_found",
                        self._race.partner_id,
                        event_id=group[0],
                        now=self._clock.now(),
                    )
                    raise
                await self._one_event("the vendor does not find one of its events")

    async def _begin(self, state: Progressed) -> Position | None:
        """Return where to begin with what is left; None: nothing is."""
        left = state.left(self._race.past)
        if not left:
            return None
        if not left <= state.counts.keys():
            await count_people(self._db, self._client, self._race, left, state)
        silent = await backfills.unstored(self._db, *self._key, left)
        return rules.begin(left, silent=silent, one_event=state.one_event, now=self._clock.now())

    async def _one_event(self, why: str) -> None:
        """Ask for one event at a time from now on, and list again what a list of events brought."""
        await backfills.run(self._db, "ask_one_event", *self._key, now=self._clock.now())
        self._unreadable = 0
        self.turn.notes.append(
            f"Race {self._race.race_id}: {why}; its past events are asked for one at a time."
        )

    async def _page(self, position: Position, state: Progressed) -> Position | None:
        """Ask for a page and store it; return where the race then stands, None at its end."""
        sweep, stream = position.sweep, position.stream
        ask = (
            self._client.participants if stream is Stream.PARTICIPANTS else self._client.removed_participants
        )
        group = sweep.groups[sweep.group]
        pages = ask(self._race.race_id, group, after=sweep.after, page_size=self._page_size)
        async with aclosing(pages):
            page = await anext(pages)
        listed: Counter[int] = Counter()
        if stream is Stream.PARTICIPANTS:
            listed.update(row.event_id for row in page.rows if row.event_id is not None)
        counted = sweep.counted(as_of=page.as_of, listed=dict(listed))
        self._unreadable += len(page.unreadable)
        if page.is_last and stream is Stream.PARTICIPANTS:
            position = replace(position, proven=await self._count(position, counted.listed, state))
        if page.is_last:
            self._unreadable = 0
        ahead = counted.advanced(through=page.through)
        after: Position | None
        if ahead is not None:
            after = replace(position, sweep=ahead)
        elif stream is Stream.PARTICIPANTS:
            proven = max(position.proven, 1 if state.one_event else self._trusted)
            after = rules.to_removed(position, proven=proven, now=self._clock.now())
        else:
            after = None
        async with self._db.transaction() as connection:
            target = await self._target(connection, position)
            self.turn.outcome.add(await self._store(connection, target, stream, page))
            if after is not None:
                await backfills.save_position(connection, target, after)
            else:
                await backfills.finish_events(connection, target, position, live=self._race.has_live)
        return after

    async def _count(self, position: Position, listed: dict[int, int], state: Progressed) -> int:
        """
        Hold a list that ends here against the vendor's counts; return of how many events it is proof.

        Raises:
            ListingNotTrusted: A list of several events is short.
            AnswerUnreadable: A single event's list is, and it shows nobody or is the first one.
        """
        group = position.sweep.groups[position.sweep.group]
        shown = {event_id: listed.get(event_id, 0) for event_id in group}
        if rules.short_of(shown, state.counts, unreadable=self._unreadable) is not None:
            # Somebody may have left since they were counted.
            await count_people(self._db, self._client, self._race, group, state)
        short = rules.short_of(shown, state.counts, unreadable=self._unreadable)
        if short is not None:
            event_id = short[0]
            said = (
                f"the vendor listed {shown[event_id]} registrations of event {event_id} "
                f"and counts {state.counts[event_id]}"
            )
            if len(group) > 1:
                raise ListingNotTrusted(said)
            if not self._again or not shown[event_id]:
                raise AnswerUnreadable(said)
            self.turn.notes.append(f"Race {self._race.race_id}: {said}, twice; what is listed is loaded.")
        return max(position.proven, rules.proven_length(group, shown))

    async def _store(self, connection: Connection, target: Target, stream: Stream, page: Page) -> Outcome:
        if stream is Stream.PARTICIPANTS:
            return await loader.merge_listed_page(
                connection, target, page, reading=READING, complete_for=None
            )
        return await loader.merge_removed_page(connection, target, page, decode=wire.decode_removed)

    async def _target(self, connection: Connection, position: Position) -> Target:
        loaded_at = await leases.hold(connection, self._lease)
        return Target(*self._key, loaded=loaded_at is not None, now=self._clock.now(), silent=position.silent)
