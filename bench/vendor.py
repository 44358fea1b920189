"""
The simulated vendor with an account of the original's shape, all of it still to come.

`rsusim --scale original` has the original's history too, of which a sync rightly fetches only what
is live. Prints one JSON object, then serves until standard input ends.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime, timedelta
from random import Random

import msgspec

import rsusim
from bench.pages import people_of
from rsusim import rows, worlds
from rsusim.control import describe


def make(people: int) -> rsusim.World:
    """Return 13 partners with the original's number of races, events and people, or a part of it."""
    world = rsusim.World(seed=11, now=datetime.now(UTC))
    random = Random(11)
    share = people / worlds.ORIGINAL_PEOPLE
    races = max(1, round(worlds.ORIGINAL_RACES * share))
    events = max(races, round(worlds.ORIGINAL_EVENTS * share))
    partners = [world.add_partner(name) for name in worlds.PARTNER_NAMES]
    day = datetime.now(UTC).replace(tzinfo=None, hour=7, minute=0, second=0, microsecond=0)
    weights = [random.lognormvariate(0, 1.1) for _ in range(events)]
    made = 0
    for i in range(races):
        race = world.add_race([partners[i % len(partners)]], None, random.choice(worlds.ZONES))
        starts = day + timedelta(days=random.randint(2, 240))
        for j in range(events // races + (i < events % races)):
            event = world.add_event(race, f"Distance {j + 1}", starts + timedelta(minutes=30 * j), fee=4500)
            size = round(people * weights[made] / sum(weights))
            world.populate(event, people_of(world, size, i % 2 == 0, random))
            made += 1
    return world


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--people", type=int, required=True)
    world = make(parser.parse_args().people)
    rows.warm(world)
    world.clock.run(1.0)
    with rsusim.Server(world) as server:
        sys.stdout.write(msgspec.json.encode(describe(world, server.base_url)).decode() + "\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
