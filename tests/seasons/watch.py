"""
The rules of a season, held all the time: what is wrong is told by an assertion with its reason.

What the vendor's own log and truth say is believed, and of the program's tables only what users read.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from bibwire.store.reports import is_late
from rsusim.truth import RaceTruth
from tests.e2e.truth import Replay, assert_no_cursor_is_ahead

if TYPE_CHECKING:
    from tests.seasons.season import Season

HOUR: Final = 3600.0
DAY: Final = 24 * HOUR
# The owner's tiers: the seconds to the start, or since the end, and how old a race may be then.
HOT_BEFORE: Final = 4 * HOUR
HOT_AFTER: Final = HOUR
# The lists are read every 15 minutes; what they bring is polled a minute later.
LISTED_WITHIN: Final = 960.0
# A poll begins with a look of the schedule, every five seconds, and takes its turn.
SLACK: Final = 15.0
# Answers that bring what was asked for, sooner or later, and more besides.
READ_ALL_THE_SAME: Final = (
    None,
    "quirk",
    "duplicate_rows",
    "hostile_rows",
    "slow",
    "slow_after_reading",
    "slow_body",
)
# Two polls, and what `status` allows them.
UNTOLD: Final = 240.0
# Of a partner's calls, so much may be planned with for certain.
ENOUGH: Final = 0.6


def may_be_old(race: RaceTruth, at: float) -> float | None:
    """Return for how long a race may go without a poll at an instant; None: it is over, or has no event."""
    least: float | None = None
    for event in race.events:
        if not event.current:
            continue
        start = event.starts_at
        end = max(start, event.ends_at) if event.ends_at is not None else start
        if at > end + 7 * DAY:
            continue
        if start - HOT_BEFORE <= at <= start + HOT_AFTER:
            this = 60.0
        elif at > start:
            this = HOUR
        elif start - DAY <= at:
            this = 900.0
        else:
            this = 4 * HOUR
        least = this if least is None else min(least, this)
    return least


class Watch:
    """What has to hold, and when it may not because of a trouble."""

    def __init__(self, season: Season) -> None:
        self._season = season
        self._readers: dict[str, Replay] = {}
        # Until when polls may be late.
        self.excused_until = 0.0
        # When something happened to a race, or to a partner, that the schedule has to learn of.
        self.changed: dict[tuple[str, int], float] = {}
        self.partners: dict[str, tuple[float, int]] = {}
        self.partners_paused: set[str] = set()
        self._logged = 0
        self._polls: dict[tuple[str, int], list[float]] = {}
        # The last one that was answered as it should be.
        self._answered: dict[tuple[str, int], float] = {}
        self._calls: dict[str, list[float]] = {}
        self.something_hung = False
        # Somebody holds the registrations: nobody can read them.
        self.is_locked = False
        self.checks = 0

    def excuse(self, seconds: float) -> None:
        """Nothing is late for so long."""
        self.excused_until = max(self.excused_until, self._season.now.timestamp() + seconds)

    def new_partner(self, name: str, limit: int, *, settled_after: float = 0.0) -> None:
        """A partner is synced from now on, with so many calls an hour at most."""
        before = self.partners.get(name)
        most = limit if before is None else max(limit, before[1])
        self.partners[name] = (self._season.now.timestamp() + settled_after, most)

    def gone(self, name: str) -> None:
        """A partner is removed: its feed ends."""
        self.partners.pop(name, None)
        self._readers.pop(name, None)

    def read_feeds_again(self) -> None:
        """The database lost what it had told last: read each feed from its first line."""
        self._readers.clear()

    def look(self) -> None:
        """Check every rule that must hold at any moment."""
        self.checks += 1
        season = self._season
        now = season.now.timestamp()
        self._read_log()
        # The simulated vendor goes on with a call that hangs though nobody waits for it any more.
        if not self.something_hung:
            assert season.world.log.highest_in_flight <= 2, "more than two calls in flight at the vendor"
        for name, (_, limit) in self.partners.items():
            self._budget(name, limit)
        if season.server.is_up and not self.is_locked:
            rows = season.rows
            for name in self.partners:
                self._readers.setdefault(name, Replay(name)).take(rows)
            assert_no_cursor_is_ahead(rows, season.world)
            for name in self.partners:
                self._never_fresher_than_true(name)
                self._nobody_is_taken_for_gone(name)
            for name, (since, _) in self.partners.items():
                if name not in self.partners_paused:
                    self._what_fails_is_told(name, since, now)
        if now > self.excused_until:
            for name, (since, _) in self.partners.items():
                if name in self.partners_paused:
                    continue
                self._polled(name, since, now)

    def _read_log(self) -> None:
        requests = self._season.world.log.requests
        for info in requests[self._logged :]:
            account = info.account or ""
            self._calls.setdefault(account, []).append(info.at)
            if info.endpoint == "participants":
                key = (account, info.race_id or 0)
                self._polls.setdefault(key, []).append(info.at)
                if info.status == 200 and info.fault in READ_ALL_THE_SAME:
                    self._answered[key] = info.at
        self._logged = len(requests)

    def _budget(self, name: str, limit: int) -> None:
        calls = self._calls.get(name, [])
        if len(calls) > limit:
            for first, last in zip(calls, calls[limit:], strict=False):
                assert last - first >= HOUR, (
                    f"{name}: more than {limit} calls in the hour before {_utc(last)}"
                )

    def _never_fresher_than_true(self, name: str) -> None:
        """What was published before a race's `as_of` is in the mirror."""
        season = self._season
        now = season.now.timestamp()
        told: dict[int, datetime] = {}
        # The events that were read, of each race.
        listed: dict[int, set[int]] = {}
        for row in season.rows(
            "SELECT f.race_id, f.as_of, t.event_ids FROM bibwire.freshness AS f JOIN bibwire.partners AS p"
            " USING (partner_id) JOIN bibwire.streams AS t USING (partner_id, race_id)"
            " WHERE p.name = %(name)s AND f.as_of IS NOT NULL AND t.stream = 'participants'",
            name=name,
        ):
            told[row["race_id"]] = row["as_of"]
            listed[row["race_id"]] = set(row["event_ids"])
        stored = {
            row["registration_id"]: row
            for row in season.rows(
                "SELECT q.registration_id, q.event_id, q.bib_num, q.removed_at"
                " FROM bibwire.participants AS q JOIN bibwire.partners AS p USING (partner_id)"
                " WHERE p.name = %(name)s",
                name=name,
            )
        }
        with season.world:
            truths = season.world.truth(name)
        for race in truths:
            as_of = told.get(race.race_id)
            if as_of is None:
                continue
            changed = self.changed.get((name, race.race_id), 0.0)
            for event in race.events:
                if not event.current or now < changed + LISTED_WITHIN:
                    continue
                if event.event_id not in listed[race.race_id]:
                    # The lists that would have told of it may have failed; it speaks for those it has read.
                    assert now < self.excused_until + LISTED_WITHIN, (
                        f"{name}: event {event.event_id} of race {race.race_id} was never read"
                    )
                    continue
                for person in event.active:
                    if person.last_modified >= as_of.timestamp():
                        continue
                    found = stored.get(person.registration_id)
                    where = f"{name}, race {race.race_id}, told fresh as of {as_of}: {person.registration_id}"
                    assert found is not None, f"{where} is missing, registered before"
                    assert found["removed_at"] is None, f"{where} is held removed"
                    assert (found["event_id"], found["bib_num"]) == (person.event_id, person.bib_num), (
                        f"{where} has bib {person.bib_num} in event {person.event_id}: {found}"
                    )

    def _nobody_is_taken_for_gone(self, name: str) -> None:
        """Who is on the list, as RunSignup has it, was not marked as absent: whoever may see the list now."""
        world = self._season.world
        absent = self._season.rows(
            "SELECT q.registration_id FROM bibwire.participants AS q JOIN bibwire.partners AS p"
            " USING (partner_id) WHERE p.name = %(name)s AND q.removed_reason = 'absent'",
            name=name,
        )
        for row in absent:
            found = world.registrations.get(row["registration_id"])
            assert found is not None, f"{name}: {row} is nobody"
            event = world.events[found.head.event_id]
            is_there = event.published and not world.races[event.race_id].removed
            assert not (is_there and found.head.status == "active"), (
                f"{name}: {row['registration_id']} of race {event.race_id} is marked as absent, and is not"
            )

    def _told(self, name: str) -> dict[int, tuple[bool, bool]]:
        """Return of each race whether status and the alarms say that it is late, and that it fails."""
        rows = self._season.rows(
            "SELECT f.race_id, f.target_seconds, f.failing_since IS NOT NULL AS fails,"
            " (extract(epoch FROM now() - f.participants_as_of) + coalesce(w.clock_ahead_seconds, 0))::float8"
            " AS age_seconds FROM bibwire.freshness AS f JOIN bibwire.partners AS p USING (partner_id)"
            " LEFT JOIN bibwire.plans AS w USING (partner_id) WHERE p.name = %(name)s",
            name=name,
        )
        return {
            row["race_id"]: (is_late(row["age_seconds"], row["target_seconds"]), row["fails"]) for row in rows
        }

    def _what_fails_is_told(self, name: str, since: float, now: float) -> None:
        """A hot race that nobody could read for minutes is said to be late, or to fail."""
        with self._season.world:
            truths = self._season.world.truth(name)
        told = self._told(name)
        for race in truths:
            if race.race_id not in told:
                continue  # no list that could tell of it was answered
            known = max(self.changed.get((name, race.race_id), 0.0), since)
            unread = now - max(self._answered.get((name, race.race_id), 0.0), known + LISTED_WITHIN)
            if may_be_old(race, now) == 60.0 and may_be_old(race, now - unread) == 60.0 and unread > UNTOLD:
                assert any(told[race.race_id]), (
                    f"{name}: hot race {race.race_id} was not read for {unread:.0f} s, and nothing says so"
                )

    def _polled(self, name: str, since: float, now: float) -> None:
        with self._season.world:
            truths = self._season.world.truth(name)
        told = self._told(name)
        needed = sum(HOUR / every * 1.2 for race in truths if (every := may_be_old(race, now)) is not None)
        if needed > ENOUGH * self.partners[name][1]:
            return  # then the least urgent wait longer
        for race in truths:
            key = (name, race.race_id)
            known = max(self.changed.get(key, 0.0), since)
            if now < known + LISTED_WITHIN or now < self.excused_until + 60:
                continue
            allowed = may_be_old(race, now)
            if allowed is None:
                continue
            polls = self._polls.get(key)
            assert polls, f"{name}: race {race.race_id} was never polled"
            before = may_be_old(race, polls[-1])
            most = max(allowed, before or 0.0) + SLACK
            assert now - polls[-1] <= most, (
                f"{name}: race {race.race_id} was last polled at {_utc(polls[-1])},"
                f" {now - polls[-1]:.0f} s ago, and {most:.0f} s is the most"
            )
            late, fails = told.get(race.race_id, (True, False))
            assert not late, f"{name}: race {race.race_id} is said to be late, and is not"
            assert not fails, f"{name}: race {race.race_id} is said to fail, and nothing is wrong"


def _utc(at: float) -> str:
    return f"{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=at):%d %H:%M:%S}"
