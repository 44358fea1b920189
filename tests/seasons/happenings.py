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
PEOPLE: Final = {"pause": 2, "limit": 2, "rotate": 2, "sync": 2, "reconcile": 1, "remove_partner": 1}
VENDOR: Final = {
    "http_503": 3,
    "http_429": 2,
    "reset": 2,
    "hang": 2,
    "slow": 1,
    "cut_off": 1,
    "truncated": 1,
    "html_200": 1,
    "empty_body": 1,
    "empty_object": 1,
    "null": 1,
    "error_5": 1,
}
MACHINES: Final = {
    "kill_worker": 3,
    "freeze_worker": 3,
    "crash_database": 3,
    "end_sessions": 2,
    "worker_clock": 2,
    "database_clock": 1,
}


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

    Args:
        hours: How long it lasts; nothing happens in its last tenth.
        an_hour: Happenings an hour, troubles aside.
        troubles: How many things go wrong.
    """
    random = Random(f"season {seed}")
    span = hours * 3600 * 0.9

    def some(weights: dict[str, int], number: int, *, first: float = 0.0) -> list[Happening]:
        kinds = random.choices(list(weights), list(weights.values()), k=number)
        return [
            Happening(
                round(first + random.random() * (span - first), 1),
                kind,
                random.randrange(1 << 16),
                random.randrange(1 << 16),
                round(random.choice((20, 60, 120, 300, 600)) * (0.5 + random.random()), 1),
            )
            for kind in kinds
        ]

    happenings = some(WORLD, round(an_hour * hours)) + some(PEOPLE, round(hours / 2), first=300)
    # What the schedule has to notice, early enough that it is seen whether it did.
    for kind in ("new_race", "new_event", "move_event"):
        [line] = some({kind: 1}, 1)
        happenings.append(replace(line, at=round(line.at / 3, 1)))
    for number in range(troubles):
        happenings += some(VENDOR if number % 2 else MACHINES, 1, first=300)
    return sorted(happenings)
