"""
How many rows each table may have: figures that do not grow with the time a program has run.

People, the feed and the history of runs are what a mirror is for, and grow. Of all others it is said what
they are rows of, so that each has a figure that follows from the world, or from the calls of the last days.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.seasons.watch import DAY, HOUR

if TYPE_CHECKING:
    from tests.seasons.season import Season

# Counters of calls by the minute, which the budget needs for an hour, are kept for so long.
MINUTES_KEPT: Final = 2 * DAY
# Calls under keys that no partner has any more count for an hour as well.
RETIRED_KEPT: Final = 2 * HOUR
# What is deleted now and then is deleted within so long.
CLEARED_WITHIN: Final = HOUR
# How often a job is begun again while a trouble lasts: every few seconds, for some minutes.
BEGUN_AGAIN: Final = 100
# Programs that were ended, frozen or cut off, and are forgotten by the next rescue.
DEAD: Final = 30


@dataclass(frozen=True, slots=True)
class Known:
    """
    What tables are rows of: all that there ever was, as each partner sees it.

    `listings`: full listings of a race that the vendor was asked for. `recent`, `retired`: calls of the days,
    and of the hours, for which they are kept.
    """

    partners: int
    races: int
    events: int
    people: int
    calls: int
    recent: int
    retired: int
    listings: int
    hours: float


Most = Callable[[Known], float]

GROWS: Final = frozenset({"bibwire.participants", "bibwire.changes", "bibwire.sync_history"})
MOST: Final[dict[str, Most]] = {
    "bibwire.partners": lambda known: known.partners,
    "bibwire.credentials": lambda known: known.partners,
    "bibwire.feed_heads": lambda known: known.partners,
    "bibwire.plans": lambda known: known.partners,
    "bibwire.drift_totals": lambda known: known.partners,
    "bibwire_compat.numbers": lambda known: known.partners,
    "bibwire.races": lambda known: known.races,
    "bibwire.scopes": lambda known: known.races,
    "bibwire.backfills": lambda known: known.races,
    # One for people, one for those who left.
    "bibwire.streams": lambda known: 2 * known.races,
    "bibwire.events": lambda known: known.events,
    "bibwire.doubts": lambda known: known.events,
    "bibwire.team_listings": lambda known: known.events,
    # Nobody is in a team here.
    "bibwire.teams": lambda known: 0,
    "bibwire.missing": lambda known: known.people,
    # One an event for each listing, for 90 days.
    "bibwire.reconciliations": lambda known: known.listings * known.events,
    # One a race and hour in which something changed.
    "bibwire.detection_lag": lambda known: known.races * (known.hours + 2),
    # One for each record of those that no list should have, and each race: see `troubles.ODD_ROWS`.
    "bibwire.quarantine": lambda known: 8 * known.races,
    # One a minute and partner with a call in it.
    "bibwire.call_minutes": lambda known: known.recent,
    "bibwire.retired_calls": lambda known: known.retired,
    # One a minute, partner and kind of call, for 35 days.
    "bibwire.call_stats": lambda known: known.calls,
    # Of one caller, which may make two calls at a time.
    "bibwire.callers": lambda known: 1,
    "bibwire.call_places": lambda known: 2,
    "bibwire.schema_version": lambda known: 1,
    "bibwire_compat.settings": lambda known: 1,
    # One waits and one runs, of each race's polls, each partner's lists and nights, and the chores.
    "bibwire_jobs.procrastinate_jobs": lambda known: _jobs(known),
    "bibwire_jobs.procrastinate_events": lambda known: BEGUN_AGAIN * _jobs(known),
    "bibwire_jobs.procrastinate_workers": lambda known: DEAD,
    "bibwire_jobs.procrastinate_periodic_defers": lambda known: 10,
    "bibwire_jobs.chores": lambda known: 3,
    # Written once, with the schema.
    "bibwire_jobs.engine_migrations": lambda known: 100,
}


def too_many(season: Season) -> Iterator[str]:
    """Tell of each table that has more rows than there is a reason for."""
    known = _known(season)
    for table, rows in _counted(season).items():
        if table in GROWS:
            continue
        most = MOST.get(table)
        if most is None:
            yield f"{table}: nobody has said what its rows are, and how many there may be"
        elif rows > most(known):
            yield f"{table} has {rows} rows, and {most(known):.0f} is the most"


def _jobs(known: Known) -> int:
    return 2 * (known.races + 2 * known.partners + 3)


def _known(season: Season) -> Known:
    world, now = season.world, season.now.timestamp()
    requests = world.log.requests
    races = [number for seen in world.rights.values() for number in seen]
    return Known(
        partners=len(world.accounts),
        races=len(races),
        events=sum(len(world.races[number].event_ids) for number in races),
        people=len(world.registrations) * len(world.accounts),
        calls=len(requests),
        recent=sum(info.at > now - MINUTES_KEPT - CLEARED_WITHIN for info in requests),
        retired=sum(info.at > now - RETIRED_KEPT - CLEARED_WITHIN for info in requests),
        listings=sum(
            info.endpoint in ("participants", "participant-counts")
            and "modified_after_timestamp" not in info.query
            for info in requests
        ),
        hours=(now - season.began) / HOUR,
    )


def _counted(season: Season) -> dict[str, int]:
    tables = season.rows(
        "SELECT n.nspname || '.' || c.relname AS name FROM pg_class AS c JOIN pg_namespace AS n"
        " ON n.oid = c.relnamespace WHERE n.nspname ~ '^bibwire' AND c.relkind IN ('r', 'p')"
        " AND NOT c.relispartition ORDER BY 1"
    )
    each = " UNION ALL ".join(
        f"SELECT '{row['name']}' AS name, count(*) FROM {row['name']}" for row in tables
    )
    return {row["name"]: row["count"] for row in season.rows(each)}
