"""
Plays seasons: `python -m tests.seasons [--seed 1] [--seeds 20] [--hours 1] [--troubles 6]`

Each seed is a season of its own, and the same one each time. Of one that fails, the happenings are left
out for which it fails as well; what is left is printed with the reason.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from tests.seasons.happenings import Happening, season_of
from tests.seasons.postgres import MovedPostgres, programs
from tests.seasons.season import Season, play
from tests.seasons.story import Story, world_of

WORKERS = 2


@dataclass
class Played:
    """How a season went."""

    seed: int
    calls: int = 0
    checks: int = 0
    happened: Counter[str] = field(default_factory=Counter)
    why: str | None = None
    digest: str = ""


def play_one(server: MovedPostgres, seed: int, lines: Sequence[Happening], *, hours: float) -> Played:
    """Play one season; what is wrong is returned, not raised."""
    world, played = world_of(seed), Played(seed)
    story: Story | None = None

    async def tell(season: Season) -> None:
        nonlocal story
        story = Story(season, lines, hours=hours)
        await story.play()

    try:
        play(world, server, tell, workers=WORKERS, seed=seed)
    except Exception as error:
        played.why = f"{type(error).__name__}: {error}"
    if not server.is_up:
        server.start()
    played.calls = world.log.calls
    if story is not None:
        played.checks, played.happened = story.watch.checks, story.done
    calls = [(round(info.at, 3), info.account, info.endpoint, info.race_id) for info in world.log.requests]
    played.digest = hashlib.sha256(repr(calls).encode()).hexdigest()[:12]
    return played


def shortened(
    server: MovedPostgres, seed: int, lines: list[Happening], *, hours: float, tries: int = 60
) -> list[Happening]:
    """Leave out what a season fails without, by halves, then by quarters, and so on."""
    parts = 2
    while tries and len(lines) > 1:
        size = -(-len(lines) // parts)
        for start in range(0, len(lines), size):
            fewer = lines[:start] + lines[start + size :]
            tries -= 1
            if play_one(server, seed, fewer, hours=hours).why is not None:
                lines, parts = fewer, max(2, parts - 1)
                break
            if not tries:
                break
        else:
            if size == 1:
                break
            parts = min(len(lines), parts * 2)
    return lines


def quiet() -> None:
    """Say nothing of what is meant to go wrong."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def main() -> int:
    """Play; return 1 if a season failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--seeds", type=int, default=10, help="how many")
    parser.add_argument("--hours", type=float, default=1.0, help="how long a season lasts")
    parser.add_argument("--troubles", type=int, default=6, help="how many things go wrong in each")
    parser.add_argument("--no-shorten", action="store_true", help="do not look for the happenings that count")
    chosen = parser.parse_args()
    found = programs()
    if found is None:
        print("Seasons need a PostgreSQL of the system and faketime: apt-get install postgresql faketime")
        return 2
    failed, calls, checks, happened = 0, 0, 0, Counter[str]()
    began = time.monotonic()
    with MovedPostgres(found) as server:
        server.make_template()
        for seed in range(chosen.seed, chosen.seed + chosen.seeds):
            lines = season_of(seed, hours=chosen.hours, troubles=chosen.troubles)
            at = time.monotonic()
            played = play_one(server, seed, lines, hours=chosen.hours)
            calls, checks, happened = calls + played.calls, checks + played.checks, happened + played.happened
            told = "holds" if played.why is None else f"FAILS: {played.why[:600]}"
            print(
                f"seed {seed}: {played.calls} calls, {time.monotonic() - at:.0f} s, {played.digest}: {told}",
                flush=True,
            )
            if played.why is not None:
                failed += 1
                if not chosen.no_shorten:
                    for line in shortened(server, seed, lines, hours=chosen.hours):
                        print(f"    {line}")
    print(
        f"{chosen.seeds} seasons of {chosen.hours:g} h, {failed} failed; {calls:,} calls,"
        f" {checks:,} looks at the rules, {time.monotonic() - began:.0f} s. Happened: "
        + ", ".join(f"{kind} {number}" for kind, number in sorted(happened.items()))
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
