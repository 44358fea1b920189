"""
The rules of a season, held all the time: what is wrong is told by an assertion with its reason.

What the vendor's own log and truth say is believed, and of the program's tables only what users read.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import rsusim
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
# Those of a partner that is added, or resumed, are read at once.
STARTED_WITHIN: Final = 120.0
# After a trouble a hot race is polled within half a minute, and a look of the schedule; others after the
# longest back-off at the latest.
HOT_RECOVERY: Final = 40.0
RECOVERY: Final = 360.0
# What RunSignup asked for is believed for a while, and what the lists showed until they are read again.
RECOVERY_OF: Final = {"http_429": 960.0, "short_race_list": LISTED_WITHIN}
# A poll begins with a look of the schedule, every five seconds, and takes its turn.
SLACK: Final = 15.0
# Who asks counts a call before it is sent, and may have been told another limit since.
LIMIT_SLACK: Final = 60.0
# What RunSignup asks for where it answers that there were too many calls; and who was about to call calls.
RETRY_AFTER: Final = 30.0
ABOUT_TO_CALL: Final = 2.0
# A call of a hot race is waited for so long; the simulated vendor goes on with one that hangs.
CALL_SECONDS: Final = 20.0
# Answers that bring what was asked for, sooner or later, and more besides; or cannot be told from such.
READ_ALL_THE_SAME: Final = (
    None,
    "empty_array",
    "quirk",
    "duplicate_rows",
    "hostile_rows",
    "slow",
    "slow_after_reading",
    "slow_body",
)
# Two polls, and what `status` allows them.
UNTOLD: Final = 240.0
# The calls of one poll follow each other, and no two polls do.
ONE_POLL: Final = 4.0
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


@dataclass(eq=False)
class Wrong:
    """A trouble: of one partner, or of all; `ended`: None while it goes on."""

    kind: str
    partner: str | None
    began: float
    ended: float | None = None

    def disturbs(self, name: str | None, since: float) -> bool:
        """Say whether it went on, for a partner or for any, at an instant or later."""
        concerns = name is None or self.partner in (None, name)
        return concerns and (self.ended is None or self.ended >= since)


class Watch:
    """What has to hold, and when it may not because of a trouble."""

    def __init__(self, season: Season) -> None:
        self._season = season
        self._readers: dict[str, Replay] = {}
        self._wrong: list[Wrong] = []
        # When something happened to a race that the schedule has to learn of.
        self.changed: dict[tuple[str, int], float] = {}
        # Since when a partner is synced.
        self.partners: dict[str, float] = {}
        self.partners_paused: set[str] = set()
        # Of each partner, the limits it was given, and when.
        self._limits: dict[str, list[tuple[float, int]]] = {}
        self._logged = 0
        self._polls: dict[tuple[str, int], list[float]] = {}
        # The last one that was answered as it should be.
        self._answered: dict[tuple[str, int], float] = {}
        self._calls: dict[str, list[float]] = {}
        # When access to a race was taken away without a word, and when people had all lists read.
        self.lost: dict[tuple[str, int], float] = {}
        self.lists_read: dict[str, list[float]] = {}
        # Since when each partner has to pause.
        self._pausing: dict[str, float] = {}
        # When calls began that hang.
        self._hung: list[float] = []
        # Somebody holds the registrations: nobody can read them.
        self.is_locked = False
        # How often each rule was held against something.
        self.checks: Counter[str] = Counter()
        # Until when the vendor's own clock was ahead, and instants that it has shown twice.
        self._dated_truly_from = 0.0
        self._twice: list[tuple[float, float]] = []

    @property
    def _now(self) -> float:
        return self._season.now.timestamp()

    def goes_wrong(self, kind: str, partner: str | None) -> Wrong:
        """Note that a trouble begins; it goes on until its `ended` is set."""
        wrong = Wrong(kind, partner, self._now)
        self._wrong.append(wrong)
        return wrong

    def is_disturbed(self, name: str | None, *, since: float, recovery: float = RECOVERY) -> bool:
        """Say whether something was wrong since an instant, for a partner or for any, or was not over yet."""
        return any(
            each.disturbs(name, since - max(recovery, RECOVERY_OF.get(each.kind, 0.0)))
            for each in self._wrong
        )

    def _is_else_wrong(self, kind: str, name: str, since: float, until: float) -> bool:
        """Say whether something else than this was wrong for a partner between two instants."""
        return any(
            each.kind != kind and each.began <= until and each.disturbs(name, since) for each in self._wrong
        )

    def known_at(self, name: str, race_id: int) -> float:
        """Return from when on the schedule has to know of a race as it is now."""
        since = self.partners[name]
        if self.is_disturbed(name, since=since) and any(
            each.disturbs(name, since) and each.began <= since + STARTED_WITHIN for each in self._wrong
        ):
            since += LISTED_WITHIN
        return max(since + STARTED_WITHIN, self.changed.get((name, race_id), -LISTED_WITHIN) + LISTED_WITHIN)

    def new_partner(self, name: str) -> None:
        """A partner is synced from now on."""
        self.partners[name] = self._now

    def limited(self, name: str, limit: int) -> None:
        """So many calls an hour may be made for a partner from now on."""
        self._limits.setdefault(name, []).append((self._now, limit))

    def limit_of(self, name: str) -> int:
        """Return how many calls an hour may be made for a partner."""
        return self._limits[name][-1][1]

    def gone(self, name: str) -> None:
        """A partner is removed: its feed ends."""
        self.partners.pop(name, None)
        self._readers.pop(name, None)

    def vendor_clock_stepped(self, first: float, last: float) -> None:
        """The vendor's clock shows, or will have shown, the time between two instants twice."""
        self._twice.append((first, last))
        self._dated_truly_from = max(self._dated_truly_from, last)

    def _is_dated_twice(self, at: float) -> bool:
        return any(first <= at <= last for first, last in self._twice)

    def read_feeds_again(self) -> None:
        """The database lost what it had told last: read each feed from its first line."""
        self._readers.clear()

    def look(self) -> None:
        """Check every rule that must hold at any moment."""
        season, now = self._season, self._now
        self.checks["looks"] += 1
        self._read_log()
        if season.server.is_up and not self.is_locked:
            rows = season.rows
            for name in self.partners:
                self._readers.setdefault(name, Replay(name)).take(rows)
            if now > self._dated_truly_from:
                assert_no_cursor_is_ahead(rows, season.world)
            for name in self.partners:
                self._never_fresher_than_true(name)
                self._nobody_is_taken_for_gone(name)
                self._no_race_is_taken_for_gone(name, now)
            for name in self.partners.keys() - self.partners_paused:
                self._what_fails_is_told(name, now)
                self._polled(name, now)

    def _read_log(self) -> None:
        requests = self._season.world.log.requests
        for info in requests[self._logged :]:
            account = info.account or ""
            self._in_flight(info)
            self._pause(info)
            self._calls.setdefault(account, []).append(info.at)
            self._budget(account)
            if info.endpoint == "participants":
                key = (account, info.race_id or 0)
                self._polls.setdefault(key, []).append(info.at)
                if info.status == 200 and info.fault in READ_ALL_THE_SAME:
                    self._answered[key] = info.at
        self._logged = len(requests)

    def _in_flight(self, info: rsusim.RequestInfo) -> None:
        """Two at most, as the vendor counts them; it goes on with a call that hangs though nobody waits."""
        forsaken = sum(1 for began in self._hung if began + CALL_SECONDS - 1 <= info.at)
        assert info.in_flight - forsaken <= 2, f"{info.in_flight} calls in flight at {_utc(info.at)}"
        self.checks["in flight"] += 1
        if info.fault == "hang":
            self._hung.append(info.at)

    def _pause(self, info: rsusim.RequestInfo) -> None:
        """Who is asked for a pause makes one, unless what is stored of it may be lost."""
        name = info.account or ""
        since = self._pausing.get(name)
        if (
            since is not None
            and since + ABOUT_TO_CALL < info.at < since + RETRY_AFTER - ABOUT_TO_CALL
            and not self._is_else_wrong("http_429", name, since, info.at)
            and self.partners.get(name, since) < since
        ):
            raise AssertionError(
                f"{name}: a call at {_utc(info.at)}, and RunSignup asked at {_utc(since)} for a pause"
            )
        if info.status == 429:
            self._pausing[name] = info.over_at or info.at
            self.checks["pauses"] += 1

    def _budget(self, name: str) -> None:
        """When a call is made, no more are in its hour than the limit in force."""
        calls, limits = self._calls[name], self._limits.get(name, [])
        if not limits:
            return
        at = calls[-1]
        in_force = [limit for since, limit in limits if at - LIMIT_SLACK <= since <= at]
        in_force += [limit for since, limit in limits if since < at - LIMIT_SLACK][-1:]
        # It is noted once it is stored: a partner that was just added may have been polled before.
        most = max(in_force, default=limits[0][1])
        if len(calls) > most:
            self.checks["full hours"] += at - calls[-most - 1] < 1.5 * HOUR
            assert at - calls[-most - 1] >= HOUR, (
                f"{name}: more than {most} calls in the hour before {_utc(at)}"
            )

    def _never_fresher_than_true(self, name: str) -> None:
        """What was published before a race's `as_of` is in the mirror."""
        season, now = self._season, self._now
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
        # Of those it is told that they could not be read.
        unreadable = {
            row["registration_id"]
            for row in season.rows(
                "SELECT q.registration_id FROM bibwire.quarantine AS q JOIN bibwire.partners AS p"
                " USING (partner_id) WHERE p.name = %(name)s",
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
                    assert self.is_disturbed(name, since=now - LISTED_WITHIN), (
                        f"{name}: event {event.event_id} of race {race.race_id} was never read"
                    )
                    continue
                for person in event.active:
                    if (
                        person.last_modified >= as_of.timestamp()
                        or person.registration_id in unreadable
                        or self._is_dated_twice(person.last_modified)
                    ):
                        continue
                    self.checks["people fresh"] += 1
                    found = stored.get(person.registration_id)
                    where = f"{name}, race {race.race_id}, told fresh as of {as_of}: {person.registration_id}"
                    assert found is not None, f"{where} is missing, registered before"
                    assert found["removed_at"] is None, f"{where} is held removed"
                    assert (found["event_id"], found["bib_num"]) == (person.event_id, person.bib_num), (
                        f"{where} has bib {person.bib_num} in event {person.event_id}: {found}"
                    )

    def _nobody_is_taken_for_gone(self, name: str) -> None:
        """
        Who is on the list, as RunSignup has it, was not marked as absent: whoever may see the list now.

        But where two listings in a row show nobody, and the race list the race: nothing could tell.
        """
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
            lost = self.lost.get((name, event.race_id))
            if lost is not None and any(at >= lost - HOUR for at in self.lists_read.get(name, ())):
                continue
            is_there = event.published and not world.races[event.race_id].removed
            assert not (is_there and found.head.status == "active"), (
                f"{name}: {row['registration_id']} of race {event.race_id} is marked as absent, and is not"
            )

    def _no_race_is_taken_for_gone(self, name: str, now: float) -> None:
        """No race is marked as gone that a partner can read, whatever a list lacks."""
        gone = self._season.rows(
            "SELECT r.race_id FROM bibwire.races AS r JOIN bibwire.partners AS p USING (partner_id)"
            " WHERE p.name = %(name)s AND r.removed_at IS NOT NULL",
            name=name,
        )
        world = self._season.world
        listed = now - LISTED_WITHIN
        if (
            name in self.partners_paused
            or self.partners[name] > listed
            or self._is_else_wrong("short_race_list", name, listed, now)
        ):
            return  # a list that shows it again may not have been read
        for row in gone:
            race_id = row["race_id"]
            is_there = not world.races[race_id].removed and world.may_read(name, race_id)
            assert not is_there or listed < self.changed.get((name, race_id), 0.0), (
                f"{name}: race {race_id} is marked as gone, and is not"
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

    def _what_fails_is_told(self, name: str, now: float) -> None:
        """A hot race that nobody could read for minutes is said to be late, or to fail."""
        with self._season.world:
            truths = self._season.world.truth(name)
        told = self._told(name)
        for race in truths:
            if race.race_id not in told:
                continue  # no list that could tell of it was answered
            key = (name, race.race_id)
            unread = now - max(self._answered.get(key, 0.0), self.known_at(*key))
            if may_be_old(race, now) == 60.0 and may_be_old(race, now - unread) == 60.0 and unread > UNTOLD:
                self.checks["told"] += 1
                assert any(told[race.race_id]), (
                    f"{name}: hot race {race.race_id} was not read for {unread:.0f} s, and nothing says so"
                )

    def _calls_a_poll(self, name: str, race_id: int) -> int:
        """Return how many calls its last poll took: where lists of events are not believed, one for each."""
        polls = self._polls.get((name, race_id), [])
        return max(1, sum(polls[-1] - at <= ONE_POLL for at in polls[-8:]))

    def _polled(self, name: str, now: float) -> None:
        """Each race is polled within its tier, and status says neither that it is late nor that it fails."""
        with self._season.world:
            truths = self._season.world.truth(name)
        told = self._told(name)
        limit = self.limit_of(name)
        needed = sum(
            HOUR / every * 1.2 * self._calls_a_poll(name, race.race_id)
            for race in truths
            if (every := may_be_old(race, now)) is not None
        )
        made = sum(1 for at in self._calls.get(name, ()) if at > now - HOUR)
        if max(needed, made) > ENOUGH * limit:
            return  # then the least urgent wait longer
        for race in truths:
            key = (name, race.race_id)
            allowed = may_be_old(race, now)
            if allowed is None or now < self.known_at(*key):
                continue
            if self.is_disturbed(name, since=now, recovery=HOT_RECOVERY if allowed == 60.0 else RECOVERY):
                continue
            polls = self._polls.get(key)
            assert polls, f"{name}: race {race.race_id} was never polled"
            before = may_be_old(race, polls[-1])
            most = max(allowed, before or 0.0) + SLACK
            assert now - polls[-1] <= most, (
                f"{name}: race {race.race_id} was last polled at {_utc(polls[-1])},"
                f" {now - polls[-1]:.0f} s ago, and {most:.0f} s is the most"
            )
            self.checks["polled in time" if allowed > 60.0 else "polled in time while hot"] += 1
            if not self.is_disturbed(name, since=now):
                late, fails = told.get(race.race_id, (True, False))
                assert not late, f"{name}: race {race.race_id} is said to be late, and is not"
                assert not fails, f"{name}: race {race.race_id} is said to fail, and nothing is wrong"
                self.checks["nothing said"] += 1


def _utc(at: float) -> str:
    return f"{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=at):%d %H:%M:%S}"
