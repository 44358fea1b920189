"""
What happens in a season: at the vendor, to the machines, and by people; made from a seed, kept as a list.

A list can be played without some of its lines: what has nothing to act on any more does nothing. So a
season that fails is made shorter until each line is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Final

# Of a day's happenings, how many are of each kind.
WORLD: Final = {
    "register": 14,
    "edit": 10,
    "assign_bib": 20,
    "clear_bib": 4,
    "swap_bibs": 4,
    "transfer": 5,
    "defer": 2,
    "remove": 5,
    "restore": 3,
    "remove_and_restore": 2,
    "bulk_assign": 1,
    "new_race": 2,
    "new_event": 2,
    "move_event": 3,
    "rename": 2,
    "another_zone": 1,
    "cancel_event": 1,
    "cancel_race": 1,
    "lose_race": 1,
    # Of race mornings and of the turn of the year.
    "walk_up": 0,
    "late_move": 0,
    "next_year": 0,
    "series": 0,
}
# A person's commands; each is a process of its own, which may be told to leave or be killed in its middle.
PEOPLE: Final = {
    "pause": 2,
    "limit": 2,
    "rotate": 2,
    "remove_partner": 1,
    "sync": 2,
    "reconcile": 1,
    "verify": 1,
    "backfill": 1,
    "discover": 1,
    "lookup_live": 1,
    "partner_comes": 0,
    "partner_leaves": 0,
}
VENDOR: Final = (
    "http_503",
    "http_429",
    "reset",
    "hang",
    "slow",
    "slow_after_reading",
    "slow_body",
    "cut_off",
    "truncated",
    "html_200",
    "empty_body",
    "empty_object",
    "empty_array",
    "null",
    "string",
    "bad_utf8",
    "error_5",
    "error_string",
    "credentials_echoed",
    "duplicate_rows",
    "hostile_rows",
    "wrong_counts",
    "short_race_list",
    "silent_rights",
    "another_date",
    "vendor_clock",
)
MACHINES: Final = (
    "kill_worker",
    "freeze_worker",
    "second_worker",
    "crash_database",
    "restart_database",
    "fail_over",
    "end_sessions",
    "time_outs",
    "dba_lock",
    "worker_clock",
    "database_clock",
    "no_connections",
    "newer_schema",
)
# What its owner does.
OWNER: Final = ("few_calls",)
TROUBLES: Final = tuple(sorted(VENDOR + MACHINES + OWNER))
# What is commanded once nothing is wrong, and may not fail.
CALM: Final = ("sync", "reconcile", "verify", "discover")
# The part of a season in which things go wrong; after it no trouble lasts.
TROUBLED: Final = 0.6
# What is over sooner than other troubles, in seconds at most.
SHORT: Final = {
    "end_sessions": 1.0,
    "restart_database": 3.0,
    # A statement of ours that waits for a lock is waited for in real time as well.
    "dba_lock": 20.0,
    "fail_over": 30.0,
    "kill_worker": 60.0,
    "crash_database": 120.0,
    "no_connections": 120.0,
}
# What happens while something is wrong, for each trouble once.
MET: Final = tuple(sorted((*WORLD, *PEOPLE)))
AT_ONCE: Final = 8


# How commands end: twice in four by themselves.
FATES: Final = ("to its end", "to its end", "told to leave", "killed")


def fate_of(number: int) -> str:
    """Return how a command ends, by its line's `b`."""
    return Random(f"fate {number}").choice(FATES)


@dataclass(frozen=True, slots=True, order=True)
class Happening:
    """
    One thing that happens.

    Attributes:
        at: Seconds from the begin of the season.
        kind: A name from the lists above.
        a, b: Pick what it happens to, and how.
        seconds: How long it lasts, if it does.
    """

    at: float
    kind: str
    a: int
    b: int
    seconds: float

    @property
    def is_trouble(self) -> bool:
        """Whether polls may fail, or come late, because of it."""
        return self.kind in TROUBLES


def a_round(troubles: int) -> int:
    """Return after how many seeds everything has happened during each trouble, with so many in each."""
    rounds = 1 + -(-len(MET) // AT_ONCE)  # the first one is hardly ever a whole one
    return -(-len(TROUBLES) * rounds // troubles)


def one(random: Random, kind: str, at: float) -> Happening:
    """Return something that happens at an instant, to whom and for how long by chance."""
    seconds = random.choice((20, 60, 120, 300, 600)) * (0.5 + random.random())
    return Happening(
        round(at, 1), kind, random.randrange(1 << 16), random.randrange(1 << 16), round(seconds, 1)
    )


def anything(seed: int, *, span: float, an_hour: float = 20.0) -> list[Happening]:
    """
    Return anything that may happen, at any moment.

    Args:
        span: Within so many seconds.
        an_hour: Happenings an hour.
    """
    random = Random(f"season {seed}")

    def some(weights: dict[str, int], number: int, *, first: float = 0.0) -> list[Happening]:
        kinds = random.choices(list(weights), list(weights.values()), k=number)
        return [one(random, kind, first + random.random() * (span - first)) for kind in kinds]

    happenings = some(WORLD, round(an_hour * span / 3240)) + some(PEOPLE, round(span / 3240), first=300)
    # What the schedule has to notice, early enough that it is seen whether it did.
    for kind in ("new_race", "new_event", "move_event"):
        [line] = some({kind: 1}, 1)
        happenings.append(replace(line, at=round(line.at / 3, 1)))
    return happenings


def with_troubles(seed: int, lines: Sequence[Happening], *, span: float, troubles: int) -> list[Happening]:
    """
    Return a season's happenings with so many things that go wrong, and what happens meanwhile, in order.

    Troubles come in turn, over the seeds, and while each lasts others happen, in turn as well: so
    each comes together with each within as few seeds as can be. In the last part of a season nothing is
    wrong: what must not fail then is commanded then.
    """
    random = Random(f"troubles {seed}")
    happenings = list(lines)
    wrong_until = 300 + (span - 300) * TROUBLED
    for number in range(troubles):
        turn = seed * troubles + number
        # In another order each time round.
        kinds = list(TROUBLES)
        Random(f"round {turn // len(kinds)}").shuffle(kinds)
        trouble = one(random, kinds[turn % len(kinds)], 0.0)
        seconds = min(trouble.seconds, SHORT.get(trouble.kind, trouble.seconds), wrong_until / 3)
        begin = 300 + random.random() * max(0.0, wrong_until - 300 - seconds)
        trouble = replace(trouble, at=round(begin, 1), seconds=round(seconds, 1))
        happenings.append(trouble)
        met = list(MET)
        Random(f"met by {trouble.kind}").shuffle(met)
        first = turn // len(kinds) * AT_ONCE
        for each in range(first, first + AT_ONCE):
            at = trouble.at + random.random() * trouble.seconds
            happenings.append(one(random, met[each % len(met)], min(at, max(span, trouble.at))))
    for kind in CALM:
        command = one(random, kind, wrong_until + (span - wrong_until) * (0.6 + 0.4 * random.random()))
        while fate_of(command.b) != "to its end" or command.b % 2:
            command = replace(command, b=command.b + 1)
        happenings.append(command)
    return sorted(happenings)
