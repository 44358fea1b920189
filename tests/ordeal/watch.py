"""
The rules that hold whatever happens, looked at from outside while it happens.

What the vendor's own log and truth say is believed; the program's tables are read in one transaction.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import psutil
import psycopg

import rsusim
from tests.e2e.truth import Replay, assert_no_cursor_is_ahead
from tests.ordeal.postgres import Cluster
from tests.ordeal.vendor import CALLS_PER_HOUR

HOUR: Final = 3600.0
MOST_IN_FLIGHT: Final = 2
# The simulated vendor reads its rows a moment before it writes the date of the answer.
DATED_AFTER: Final = timedelta(seconds=2)
# What is in the lists is loaded within a minute, and something may be in the way.
LOADED_SECONDS: Final = 180.0
# Of one process, whatever it has been through.
MOST_DESCRIPTORS, MOST_MEGABYTES = 120, 400
# What a process may have more after a trouble than when it was first looked at: at the start, or, of one
# that was started later, after the first trouble that it saw.
MORE_DESCRIPTORS, MORE_MEGABYTES = 30, 120


@dataclass
class Watch:
    """
    What has been seen.

    Attributes:
        looks: How often the rules were looked at; `blind`: how often without the database, which was away.
        excused_in_flight: Vendor's instants between which a lost database may have forgotten calls in flight.
        forgotten: Vendor's instants whose calls no database remembers any more.
    """

    world: rsusim.World
    looks: int = 0
    blind: int = 0
    excused_in_flight: list[tuple[float, float]] = field(default_factory=list)
    forgotten: list[tuple[float, float]] = field(default_factory=list)
    _readers: dict[str, Replay] = field(default_factory=dict)
    _number: int = 0
    _calls: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    _known_at: dict[tuple[str, int], float] = field(default_factory=dict)
    _loaded: set[tuple[str, int]] = field(default_factory=set)
    _first: dict[tuple[int, float], tuple[int, int]] = field(default_factory=dict)

    def look(self, cluster: Cluster, *, in_trouble: bool) -> None:
        """Look at every rule; without a trouble the database has to answer."""
        self.looks += 1
        self._calls_made()
        try:
            with cluster.snapshot() as connection:

                def rows(query: str, **values: Any) -> list[dict[str, Any]]:
                    return connection.execute(query.encode(), values).fetchall()

                self._database(rows)
        except psycopg.OperationalError:
            if not in_trouble:
                raise
            self.blind += 1

    def feed_went_back(self) -> None:
        """The newest lines are lost: their numbers are given out again."""
        self._readers.clear()
        self._loaded.clear()
        self._known_at.clear()

    def _calls_made(self) -> None:
        new = [info for info in self.world.log.requests if info.number > self._number]
        for info in new:
            self._number = max(self._number, info.number)
            excused = any(start <= info.at <= end for start, end in self.excused_in_flight)
            assert excused or info.in_flight <= MOST_IN_FLIGHT, (
                f"{info.in_flight} calls in flight at the vendor at {_clock(info.at)}: {info.path}"
            )
            if not any(start <= info.at <= end for start, end in self.forgotten):
                self._calls[info.account or ""].append(info.at)
        for account, limit in CALLS_PER_HOUR.items():
            calls = self._calls[account]
            for first, last in zip(calls, calls[limit:], strict=False):
                assert last - first >= HOUR, f"{account}: more than {limit} calls in the hour before {last}"

    def _database(self, rows: Any) -> None:
        told = rows(
            "SELECT p.name, f.race_id, f.as_of FROM bibwire.freshness AS f"
            " JOIN bibwire.partners AS p USING (partner_id) WHERE f.as_of IS NOT NULL"
        )
        stored = {
            (row["name"], row["registration_id"]): row
            for row in rows(
                "SELECT p.name, q.registration_id, q.event_id, q.bib_num, q.removed_at"
                " FROM bibwire.participants AS q JOIN bibwire.partners AS p USING (partner_id)"
            )
        }
        known = rows(
            "SELECT p.name, e.event_id, count(t.stream) = 2 AS is_loaded FROM bibwire.events AS e"
            " JOIN bibwire.partners AS p USING (partner_id)"
            " LEFT JOIN bibwire.streams AS t ON t.partner_id = e.partner_id AND t.race_id = e.race_id"
            " AND e.event_id = ANY(t.event_ids) GROUP BY 1, 2"
        )
        # Whoever has lines has a feed; it is read to its end before the world is looked at.
        for name in CALLS_PER_HOUR:
            self._readers.setdefault(name, Replay(name)).take(rows)
        assert_no_cursor_is_ahead(rows, self.world)
        now = self.world.clock.time()
        for row in known:
            self._known_at.setdefault((row["name"], row["event_id"]), now)
        self._loaded = {(row["name"], row["event_id"]) for row in known if row["is_loaded"]}
        as_of = {(row["name"], row["race_id"]): row["as_of"] for row in told}
        for name in CALLS_PER_HOUR:
            with self.world:
                truths = self.world.truth(name)
            for race in truths:
                if (instant := as_of.get((name, race.race_id))) is not None:
                    for event in race.events:
                        if self._is_loaded(name, event.event_id, now):
                            _never_fresher_than_true(name, event, instant, stored)

    def _is_loaded(self, name: str, event_id: int, now: float) -> bool:
        """Say whether an event's people have to be there: its lists were read, or it is known for long."""
        known_at = self._known_at.get((name, event_id))
        return known_at is not None and ((name, event_id) in self._loaded or now > known_at + LOADED_SECONDS)

    def processes(self, living: dict[str, psutil.Process]) -> None:
        """Look at what each process takes of the computer, when all is calm."""
        for name, process in living.items():
            try:
                descriptors, megabytes = process.num_fds(), process.memory_info().rss >> 20
                key = process.pid, process.create_time()
            except psutil.NoSuchProcess:
                continue
            told = f"{name} has {descriptors} open descriptors and {megabytes} MB"
            assert descriptors <= MOST_DESCRIPTORS, told
            assert megabytes <= MOST_MEGABYTES, told
            first = self._first.setdefault(key, (descriptors, megabytes))
            assert descriptors <= first[0] + MORE_DESCRIPTORS, f"{told}; at first {first}"
            assert megabytes <= first[1] + MORE_MEGABYTES, f"{told}; at first {first}"


def _never_fresher_than_true(
    name: str, event: rsusim.EventTruth, as_of: datetime, stored: dict[tuple[str, int], dict[str, Any]]
) -> None:
    """What the vendor showed before a race's `as_of` is in the mirror."""
    before = (as_of - DATED_AFTER).timestamp()
    where = f"{name}, race {event.race_id}, told fresh as of {as_of}"
    for person in event.active:
        if person.last_modified < before:
            number = person.registration_id
            row = stored.get((name, number))
            assert row is not None, (
                f"{where}: {number} is missing, shown since {_clock(person.last_modified)}"
            )
            assert row["removed_at"] is None, f"{where}: {number} is a tombstone, and active there"
            assert (row["event_id"], row["bib_num"]) == (person.event_id, person.bib_num), (
                f"{where}: {number} has bib {person.bib_num} in event {person.event_id} since"
                f" {_clock(person.last_modified)}, not {row}"
            )
    for removed in event.removed:
        if removed.last_modified < before:
            row = stored.get((name, removed.registration_id))
            is_tombstone = row is not None and row["removed_at"] is not None
            assert is_tombstone, (
                f"{where}: {removed.registration_id} was removed at {_clock(removed.last_modified)}: {row}"
            )


def _clock(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%H:%M:%S.%f}"[:-3]
