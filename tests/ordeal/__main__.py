"""
Plays troubles on real processes: `python -m tests.ordeal [--seed 1] [--minutes 10]`

The order of troubles follows from the seed; what they meet, from the machine. Where it is permitted, all
of it runs in a network namespace of its own, so that its packets can be dropped.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack
from random import Random
from typing import Final

from tests.ordeal.ordeal import Ordeal, Told
from tests.ordeal.troubles import OPERATOR, TROUBLES, NotPermitted, may_make_networks, played

# How many of the times another trouble comes before the first one is over.
OVERLAPPING: Final = 0.6
# So often the mirror is compared with the world, and after each trouble of the database.
COMPARED_EVERY: Final = 3
INSIDE: Final = "BIBWIRE_ORDEAL_NETWORK"


def plan(seed: int, names: list[str]) -> Iterator[list[str]]:
    """Yield what comes together, for ever: each trouble once before any comes again."""
    random = Random(f"plan {seed}")
    deck: list[str] = []
    while True:
        if not deck:
            deck = random.sample(names, len(names))
        together = [deck.pop(0)]
        places = {TROUBLES[together[0]].place}
        others = [name for name in deck if TROUBLES[name].place not in places]
        if others and random.random() < OVERLAPPING:
            deck.remove(others[0])
            together.append(others[0])
        yield together


def play(ordeal: Ordeal, seed: int, seconds: float | None, names: list[str], longest: float) -> None:
    """Play for so many seconds, or each trouble once; none lasts longer than `longest`."""
    ordeal.start()
    until = math.inf if seconds is None else time.monotonic() + seconds
    for number, together in enumerate(plan(seed, names)):
        permitted = [name for name in together if name not in ordeal.told.not_permitted]
        # It takes as long as a trouble: the list of who left is read every 20 s.
        compare = number % COMPARED_EVERY == 0 or any(TROUBLES[name].place == "database" for name in together)
        play_together(ordeal, permitted, longest, compare=compare)
        had_their_turn = ordeal.told.happened.total() + len(ordeal.told.not_permitted)
        if time.monotonic() > until or (seconds is None and had_their_turn >= len(names)):
            break
    ordeal.end()


def play_together(ordeal: Ordeal, names: list[str], longest: float, *, compare: bool) -> None:
    """Play troubles that overlap, look at what is left of them, and `compare` the mirror with the world."""
    told = ordeal.told
    ordeal.met.clear()
    begun = time.monotonic()
    ends: list[tuple[float, str, ExitStack]] = []
    for number, name in enumerate(names):
        going = ExitStack()
        try:
            going.enter_context(played(name, ordeal))
        except NotPermitted as error:
            told.not_permitted[name] = str(error)
            told.say(f"{name}: not played: {error}")
            continue
        told.happened[name] += 1
        told.say(f"{time.strftime('%H:%M:%S')} {name} ...")
        lasts = min(longest, ordeal.random.uniform(*TROUBLES[name].seconds))
        ends.append((time.monotonic() + lasts, name, going))
        if number + 1 < len(names):
            ordeal.wait(min(lasts / 2, 3.0))
    if not ends:
        return
    # Commands last: they may wait for what the other trouble took away.
    for at, _, going in sorted(ends, key=lambda each: (TROUBLES[each[1]].place == OPERATOR, each[0])):
        ordeal.wait(at - time.monotonic())
        going.close()
    over, lasted = ordeal.now, time.monotonic() - begun
    ordeal.active.add("recovering")
    polled = ordeal.recover(over)
    ordeal.active.clear()
    ordeal.calm_since = time.time()
    told.slowest = max(told.slowest, polled)
    ordeal.watch.processes(ordeal.crew.pids())
    equal = f", equal after {ordeal.compare():.1f} s more" if compare else ""
    what = " and ".join(name for _, name, _ in ends)
    told.say(f"         {what}: {lasted:.1f} s, polled again {polled:.1f} s later{equal}")


def main() -> int:
    """Play; return 1 if a rule was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the order of troubles")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long they go on")
    parser.add_argument("--once", action="store_true", help="instead: until each trouble was there")
    parser.add_argument("--longest", type=float, default=60.0, help="seconds that one lasts at most")
    parser.add_argument("--only", nargs="*", help="names of troubles; all by default")
    chosen = parser.parse_args()
    if INSIDE not in os.environ and may_make_networks():
        inside = [sys.executable, "-m", "tests.ordeal", *sys.argv[1:]]
        os.environ[INSIDE] = "own"
        os.execvp("unshare", ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *inside])
    names = chosen.only or list(TROUBLES)
    unknown = [name for name in names if name not in TROUBLES]
    if unknown:
        parser.error(f"no trouble {unknown[0]!r}; there are: {', '.join(TROUBLES)}")
    # Whoever ends us finds nothing left of our servers and disks.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    told = Told()
    began = time.monotonic()
    ordeal = Ordeal(chosen.seed, told, has_own_network=os.environ.get(INSIDE) == "own")
    code = 0
    try:
        with ordeal:
            seconds = None if chosen.once else chosen.minutes * 60
            play(ordeal, chosen.seed, seconds, names, chosen.longest)
    except Exception as error:
        code = 1
        traceback.print_exc()
        told.say(f"seed {chosen.seed} FAILS: {type(error).__name__}: {error}")
        told.say(f"at that moment: {', '.join(sorted(ordeal.active)) or 'no trouble'}; logs: {ordeal.folder}")
    watch = ordeal.watch
    print(
        f"seed {chosen.seed}: {(time.monotonic() - began) / 60:.1f} minutes, {told.happened.total()} troubles"
        f", {ordeal.world.log.calls:,} calls, {watch.looks:,} looks at the rules ({watch.blind} while the"
        f" database was away), {sum(ordeal.moving.life.happened.values())} happenings among people,"
        f" {ordeal.moving.new_events} new events, {ordeal.moving.new_races} new races; hot races polled"
        f" again after {told.slowest:.1f} s at most. Played: "
        + ", ".join(f"{kind} {number}" for kind, number in sorted(told.happened.items()))
    )
    print("commands: " + ", ".join(f"{code} ({number})" for code, number in sorted(told.codes.items())))
    for name, why in told.not_permitted.items():
        print(f"not played: {name}: {why}")
    return code


if __name__ == "__main__":
    sys.exit(main())
