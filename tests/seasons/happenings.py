"""
What happens in a season: at the vendor, to the machines, and by people; made from a seed, kept as a list.

A list can be played without some of its lines: what has nothing to act on any more does nothing. So a
season that fails is made shorter until each line is needed.
"""

from __future__ import annotations

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
)
TROUBLES: Final = tuple(sorted(VENDOR + MACHINES))
# What is commanded once nothing is wrong, and may not fail.
CALM: Final = ("sync", "reconcile", "verify", "discover")
# The part of a season in which things go wrong; after it no trouble lasts.
TROUBLED: Final = 0.6
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
        return self.kind in VENDOR or self.kind in MACHINES


def season_of(seed: int, *, hours: float, an_hour: float = 20.0, troubles: int = 6) -> list[Happening]:
    """
    Return what happens in a season.

    Troubles come in turn, over the seeds, and while each lasts others things happen, in turn as well: so
    each comes together with each within as few seeds as can be. In the last part of a season nothing is
    wrong: what must not fail then is commanded then.

    Args:
        hours: How long it lasts; nothing happens in its last tenth.
        an_hour: Happenings an hour, troubles and what happens during them aside.
        troubles: How many things go wrong.
    """
    random = Random(f"season {seed}")
    span = hours * 3600 * 0.9

    def one(kind: str, at: float, seconds: float | None = None) -> Happening:
        if seconds is None:
            seconds = random.choice((20, 60, 120, 300, 600)) * (0.5 + random.random())
        return Happening(
            round(at, 1), kind, random.randrange(1 << 16), random.randrange(1 << 16), round(seconds, 1)
        )

    def some(weights: dict[str, int], number: int, *, first: float = 0.0) -> list[Happening]:
        kinds = random.choices(list(weights), list(weights.values()), k=number)
        return [one(kind, first + random.random() * (span - first)) for kind in kinds]

    happenings = some(WORLD, round(an_hour * hours)) + some(PEOPLE, round(hours), first=300)
    # What the schedule has to notice, early enough that it is seen whether it did.
    for kind in ("new_race", "new_event", "move_event"):
        [line] = some({kind: 1}, 1)
        happenings.append(replace(line, at=round(line.at / 3, 1)))
    trouble_ends = 300 + (span - 300) * TROUBLED
    for number in range(troubles):
        turn = seed * troubles + number
        # In another order each time round.
        kinds = list(TROUBLES)
        Random(f"round {turn // len(kinds)}").shuffle(kinds)
        trouble = one(kinds[turn % len(kinds)], 300 + random.random() * (trouble_ends - 330))
        trouble = replace(trouble, seconds=round(min(trouble.seconds, trouble_ends - trouble.at), 1))
        happenings.append(trouble)
        met = list(MET)
        Random(f"met by {trouble.kind}").shuffle(met)
        first = turn // len(kinds) * AT_ONCE
        for each in range(first, first + AT_ONCE):
            at = trouble.at + random.random() * trouble.seconds
            happenings.append(one(met[each % len(met)], min(at, span)))
    for kind in CALM:
        command = one(kind, trouble_ends + (span - trouble_ends) * (0.6 + 0.4 * random.random()))
        while fate_of(command.b) != "to its end" or command.b % 2:
            command = replace(command, b=command.b + 1)
        happenings.append(command)
    return sorted(happenings)
