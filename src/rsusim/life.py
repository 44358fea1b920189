"""
A life that goes on: plausible happenings in simulated time, by the phase each race is in.

Early: sign-ups, edits, transfers, refunds, deferrals, second thoughts. A week before the start: one
burst that numbers the whole field. The last days and the morning: walk-ups, bibs handed out,
check-ins, swaps. Afterwards: corrections. Events long over rest.
"""

from collections.abc import Callable
from random import Random
from typing import Any, Final

from rsusim import names
from rsusim.records import ACTIVE, Event
from rsusim.world import DAY, World

CLEAR_SECONDS: Final = 15 * 60  # section 9: a registration is undone within 15 minutes
BULK_DAYS: Final = 7

_EARLY: Final = (
    ("sign_up", 55),
    ("edit", 22),
    ("second_thoughts", 4),
    ("transfer", 4),
    ("refund", 5),
    ("defer", 2),
    ("bib", 5),
    ("restore", 1),
)
_LATE: Final = (
    ("hand_out", 55),
    ("sign_up", 10),
    ("edit", 10),
    ("transfer", 4),
    ("swap", 3),
    ("bib", 6),
    ("unbib", 2),
    ("check_in", 10),
)
_MORNING: Final = (
    ("hand_out", 45),
    ("walk_up", 25),
    ("check_in", 20),
    ("swap", 3),
    ("bib", 4),
    ("edit", 3),
)
_AFTER: Final = (("edit", 80), ("bib", 15), ("refund", 5))


class Life:
    """
    Args:
        world: Where it happens.
        seed: The same seed in the same world gives the same life.
        rate: Happenings a simulated second, over the whole world.
        mischief: Share of happenings that a mirror has trouble with: an edit that does not move
            `last_modified`, a deletion without a trace, an edit seen half a minute late.
        team_edits: Share of happenings after which a team also gets another name or bib. It
            draws from a chance of its own: everything else is the same with and without.
    """

    def __init__(
        self,
        world: World,
        seed: int = 1,
        rate: float = 0.2,
        mischief: float = 0.0,
        team_edits: float = 0.0,
    ) -> None:
        if rate <= 0:
            raise ValueError("rate is above 0")
        self.world = world
        self.rate = rate
        self.mischief = mischief
        self.happened: dict[str, int] = {}
        self.team_edits = team_edits
        self._random = Random(f"life:{seed}")
        self._team_random = Random(f"life of teams:{seed}")
        self._bulk_done: set[int] = set()
        self._removed: list[int] = []
        self._fresh: list[tuple[int, int]] = []  # (registration, made at)
        self._next_at = world.clock.time() + self._pause()
        self._deeds: dict[str, Callable[[Event], bool]] = {
            "sign_up": self._sign_up,
            "edit": self._edit,
            "second_thoughts": self._second_thoughts,
            "transfer": self._transfer,
            "refund": self._refund,
            "defer": self._defer,
            "bib": self._bib,
            "unbib": self._unbib,
            "restore": self._restore,
            "hand_out": self._hand_out,
            "swap": self._swap,
            "check_in": self._check_in,
            "walk_up": self._walk_up,
        }

    def step(self, seconds: float) -> int:
        """Advance a frozen clock by `seconds`, happenings each at their moment; return how many."""
        world, count = self.world, 0
        until = world.clock.time() + seconds
        with world.lock:
            while self._next_at <= until:
                world.advance(max(0.0, self._next_at - world.clock.time()))
                count += self._one() + self._team_edit()
                self._next_at += self._pause()
            world.advance(max(0.0, until - world.clock.time()))
        return count

    def catch_up(self, limit: int = 500) -> int:
        """Let happen what was due by now on a running clock, at most `limit`; return how many."""
        count = 0
        with self.world.lock:
            now = self.world.clock.time()
            while self._next_at <= now and count < limit:
                count += self._one() + self._team_edit()
                self._next_at += self._pause()
            if self._next_at <= now:
                self._next_at = now + self._pause()  # far behind: do not chase
        return count

    def _pause(self) -> float:
        return self._random.expovariate(self.rate)

    def _one(self) -> int:
        now = self.world.clock.time()
        living = self._living(now)
        for event in living:
            if 0 < event.starts_at - now < BULK_DAYS * DAY and event.event_id not in self._bulk_done:
                self._bulk_done.add(event.event_id)
                if not event.sub_event_ids and self._bulk(event):
                    return self._note("bulk_assign")
        if not living:
            return 0
        weights = [_nearness(event.starts_at - now) for event in living]
        for _ in range(8):  # a deed may find nobody to happen to
            event = self._random.choices(living, weights)[0]
            if self.mischief and self._random.random() < self.mischief:
                return self._mischief(event)
            names, shares = zip(*_deeds_at(event.starts_at - now), strict=True)
            deed = self._random.choices(names, shares)[0]
            if self._deeds[deed](event):
                return self._note(deed)
        return 0

    def _living(self, now: float) -> list[Event]:
        return [
            event
            for event in self.world.events.values()
            if event.published and -3 * DAY < event.starts_at - now < 400 * DAY
        ]

    def _team_edit(self) -> int:
        random, world = self._team_random, self.world
        if random.random() >= self.team_edits:
            return 0
        living = self._living(world.clock.time())
        teams = [team for event in living for team in world.teams_of(event.event_id)]
        if not teams:
            return 0
        team = random.choice(teams)
        if random.random() < 0.5:
            world.rename_team(team.team_id, f"{random.choice(names.TEAM_NAMES)} {random.randrange(100)}")
            return self._note("rename_team")
        world.assign_team_bib(team.team_id, random.randrange(9000, 9900))
        return self._note("team_bib")

    def _mischief(self, event: Event) -> int:
        number = self._anyone(event)
        if number is None:
            return 0
        deed = self._random.choice(("edit_silently", "bib_silently", "vanish", "late_bib"))
        if deed == "edit_silently":
            self.world.edit_silently(number, city=f"Hidden {self._random.randrange(100)}")
        elif deed == "bib_silently":
            self.world.edit_silently(number, bib_num=self._free_bib(event))
        elif deed == "vanish":
            self.world.vanish(number)
        else:
            self.world.assign_bib(number, self._free_bib(event), published_after=30)
        return self._note(deed)

    def _note(self, deed: str) -> int:
        self.happened[deed] = self.happened.get(deed, 0) + 1
        return 1

    def _anyone(self, event: Event) -> int | None:
        ids = self.world.indexes[event.event_id].active.ids
        for _ in range(4):
            if not ids:
                return None
            number = self._random.choice(ids)
            if self.world.status(number) == ACTIVE:
                return number
        return None

    def _free_bib(self, event: Event) -> int:
        return self._random.randrange(1, 40 + 3 * len(self.world.indexes[event.event_id].active.ids))

    def _bulk(self, event: Event) -> bool:
        if any(self.world.bib(number) is not None for number in self.world.active(event.event_id)):
            return False  # the field was numbered before our life began
        first = 1 + 1000 * (event.event_id % 9)
        return self.world.bulk_assign(event.event_id, first) > 0

    def _sign_up(self, event: Event) -> bool:
        if event.volunteer and self._random.random() < 0.8:
            return False
        for _ in range(self._random.choice((1, 1, 1, 2, 3))):  # several in one checkout
            number = self.world.register(event.event_id)
            self._fresh.append((number, int(self.world.clock.time())))
        return True

    def _walk_up(self, event: Event) -> bool:
        self.world.register(
            event.event_id, imported=True, user_id=None, bib_num=self._free_bib(event), email=None
        )
        return True

    def _edit(self, event: Event) -> bool:
        number = self._anyone(event)
        if number is None:
            return False
        changes: tuple[dict[str, Any], ...] = (
            {"phone": f"555-012-{self._random.randrange(10_000):04d}"},
            {"street": f"{self._random.randrange(1, 900)} Moved St", "city": "Port Nový"},
            {"last_name": self._random.choice(("Smith-Jones", "Núñez", "O'Hara", "Groß"))},
            {"email": f"new{number}@example.net"},
            {"gender": self._random.choice("MFX")},
            {"giveaway": "Adult XXL"},
        )
        self.world.edit(number, **self._random.choice(changes))
        return True

    def _second_thoughts(self, event: Event) -> bool:
        now = self.world.clock.time()
        self._fresh = [row for row in self._fresh[-50:] if now - row[1] < CLEAR_SECONDS]
        for number, _ in self._fresh:
            if self.world.status(number) == ACTIVE:
                self.world.clear(number)
                return True
        return False

    def _transfer(self, event: Event) -> bool:
        number = self._anyone(event)
        others = [
            other
            for other in self.world.races[event.race_id].event_ids
            if self.world.events[other].race_event_days_id == event.race_event_days_id
            and other != event.event_id
            and not self.world.events[other].sub_event_ids
        ]
        if number is None or not others or event.sub_event_ids:
            return False
        self.world.transfer(number, self._random.choice(others), self._random.random() < 0.2)
        return True

    def _refund(self, event: Event) -> bool:
        return self._leave(event, "removed")

    def _defer(self, event: Event) -> bool:
        return self._leave(event, "deferred")

    def _leave(self, event: Event, reason: str) -> bool:
        number = self._anyone(event)
        if number is None:
            return False
        self.world.remove(number, reason)
        self._removed = [*self._removed[-50:], number]
        return True

    def _restore(self, event: Event) -> bool:
        while self._removed:
            number = self._removed.pop()
            if self.world.status(number) != ACTIVE:
                self.world.restore(number)
                return True
        return False

    def _bib(self, event: Event) -> bool:
        number = self._anyone(event)
        if number is None:
            return False
        self.world.assign_bib(number, self._free_bib(event))
        return True

    def _unbib(self, event: Event) -> bool:
        number = self._anyone(event)
        if number is None or self.world.bib(number) is None:
            return False
        self.world.clear_bib(number)
        return True

    def _hand_out(self, event: Event) -> bool:
        for _ in range(6):
            number = self._anyone(event)
            if number is not None and self.world.bib(number) is None:
                self.world.assign_bib(number, self._free_bib(event))
                self.world.check_in(number)
                return True
        return False

    def _swap(self, event: Event) -> bool:
        a, b = self._anyone(event), self._anyone(event)
        if a is None or b is None or a == b or self.world.bib(a) == self.world.bib(b):
            return False
        self.world.swap_bibs(a, b)
        return True

    def _check_in(self, event: Event) -> bool:
        number = self._anyone(event)
        if number is None:
            return False
        self.world.check_in(number)
        return True


def _deeds_at(left: float) -> tuple[tuple[str, int], ...]:
    """Return deeds and their shares, `left` seconds before a start."""
    if left > 3 * DAY:
        return _EARLY
    if left > 3 * 3600:
        return _LATE
    return _MORNING if left > -900 else _AFTER


def _nearness(left: float) -> float:
    """Return how much happens, `left` seconds before a start: the morning is the peak."""
    if left < -900:
        return 0.3
    if left < DAY / 2:
        return 20.0
    return 6.0 if left < 3 * DAY else 1.0
