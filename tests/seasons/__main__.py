"""
Plays seasons: `python -m tests.seasons [--seed 1] [--seeds 20 | --real-hours 2] [--shape busy] [--hours 1]`

Each seed is a season of its own, of a shape of its own if none is named, and the same one each time. Of
one that fails, the happenings are left out for which it fails as well; what is left is printed with the
reason.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tests.seasons.happenings import MET, TROUBLES, Happening, a_round
from tests.seasons.postgres import MovedPostgres, programs
from tests.seasons.season import Season, play
from tests.seasons.shapes import SHAPES, season_of, shape_of
from tests.seasons.story import Story

WORKERS = 2


@dataclass
class Played:
    """How a season went."""

    seed: int
    calls: int = 0
    # How often each rule was held against something.
    checks: Counter[str] = field(default_factory=Counter)
    happened: Counter[str] = field(default_factory=Counter)
    # What happened while what was wrong.
    met: Counter[tuple[str, str]] = field(default_factory=Counter)
    why: str | None = None
    digest: str = ""

    def add(self, other: Played) -> None:
        """Count another season too."""
        self.calls += other.calls
        self.checks += other.checks
        self.happened += other.happened
        self.met += other.met


def play_one(
    server: MovedPostgres,
    seed: int,
    lines: Sequence[Happening],
    *,
    hours: float | None = None,
    shape: str = "busy",
) -> Played:
    """Play one season; what is wrong is returned, not raised. `hours`: if other than its shape's."""
    made = SHAPES[shape]
    world, played = made.world(seed), Played(seed)
    lasts = made.hours if hours is None else hours
    story: Story | None = None

    async def tell(season: Season) -> None:
        nonlocal story
        story = Story(season, lines, shape=made, hours=lasts)
        await story.play()

    try:
        play(world, server, tell, workers=WORKERS, seed=seed)
    except Exception as error:
        played.why = f"{type(error).__name__}: {error}"
        if not isinstance(error, AssertionError):
            played.why += f" at {traceback.format_tb(error.__traceback__)[-1].strip()}"
    if not server.is_up:
        server.start()
    played.calls = world.log.calls
    if story is not None:
        played.checks, played.happened, played.met = story.watch.checks, story.done, story.met
    calls = [(round(info.at, 3), info.account, info.endpoint, info.race_id) for info in world.log.requests]
    played.digest = hashlib.sha256(repr(calls).encode()).hexdigest()[:12]
    return played


def shortened(
    server: MovedPostgres,
    seed: int,
    lines: list[Happening],
    *,
    hours: float | None = None,
    shape: str = "busy",
    tries: int = 60,
) -> list[Happening]:
    """Leave out what a season fails without, by halves, then by quarters, and so on."""
    parts = 2
    while tries and len(lines) > 1:
        size = -(-len(lines) // parts)
        for start in range(0, len(lines), size):
            fewer = lines[:start] + lines[start + size :]
            tries -= 1
            if play_one(server, seed, fewer, hours=hours, shape=shape).why is not None:
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
    sys.unraisablehook = lambda _: None  # of machines that were killed, at the very end
    logging.getLogger("asyncio").disabled = True


def report(met: Counter[tuple[str, str]], *, seasons: int, troubles: int) -> Iterator[str]:
    """Tell which happenings met which troubles: a line for each trouble that one of them never met."""
    whole, full = len(MET) * len(TROUBLES), a_round(troubles) if troubles else 0
    cells = sum(1 for kind in MET for trouble in TROUBLES if met[kind, trouble])
    yield f"{cells} of {whole} pairs of a happening and a trouble were met; after {full} seeds all should be"
    unmet = [trouble for trouble in TROUBLES if not any(met[kind, trouble] for kind in MET)]
    if unmet:
        yield f"    not at all: {', '.join(unmet)}"
    for trouble in TROUBLES:
        missing = [kind for kind in MET if not met[kind, trouble]]
        if trouble not in unmet and missing:
            times = sum(met[kind, trouble] for kind in MET)
            yield f"    {trouble}: {times} times, all but {', '.join(missing)}"
    if full and seasons >= full and cells < whole:
        yield f"    a full round is {full} seeds: what is still missing had nobody, or nothing, to happen to"


def _counted(many: Counter[str]) -> str:
    return ", ".join(f"{kind} {number:,}" for kind, number in sorted(many.items()))


def main() -> int:
    """Play; return 1 if a season failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--seeds", type=int, help="how many; default: 10, or as many as there is time for")
    parser.add_argument("--real-hours", type=float, help="start no further season after so long")
    parser.add_argument(
        "--shape", choices=SHAPES, help="of all seasons; default: busy with --hours, else each its own"
    )
    parser.add_argument("--hours", type=float, help="how long a season lasts; default: as its shape does")
    parser.add_argument("--troubles", type=int, default=6, help="how many things go wrong in each")
    parser.add_argument("--no-shorten", action="store_true", help="do not look for the happenings that count")
    parser.add_argument("--until-fails", action="store_true", help="end with the first season that fails")
    chosen = parser.parse_args()
    found = programs()
    if found is None:
        print("Seasons need a PostgreSQL of the system and faketime: apt-get install postgresql faketime")
        return 2
    quiet()
    total, failed, seasons = Played(0), 0, 0
    shapes: Counter[str] = Counter()
    began = time.monotonic()
    most = chosen.seeds or (10 if chosen.real_hours is None else sys.maxsize)
    with MovedPostgres(found) as server:
        server.make_template()
        while seasons < most:
            at = time.monotonic()
            if chosen.real_hours is not None and at - began > chosen.real_hours * 3600:
                break
            seed = chosen.seed + seasons
            seasons += 1
            shape = chosen.shape or ("busy" if chosen.hours else shape_of(seed))
            shapes[shape] += 1
            lines = season_of(seed, shape=shape, hours=chosen.hours, troubles=chosen.troubles)
            played = play_one(server, seed, lines, hours=chosen.hours, shape=shape)
            total.add(played)
            told = "holds" if played.why is None else f"FAILS: {played.why[:600]}"
            print(
                f"seed {seed}: {played.calls} calls, {time.monotonic() - at:.0f} s, {played.digest}: {told}"
                + (f" ({shape})" if shape != "busy" else ""),
                flush=True,
            )
            if played.why is not None:
                failed += 1
                if not chosen.no_shorten:
                    tries = 60 if shape == "busy" else 12
                    for line in shortened(server, seed, lines, hours=chosen.hours, shape=shape, tries=tries):
                        print(f"    {line}")
                if chosen.until_fails:
                    break
    print(
        f"{seasons} seasons ({', '.join(f'{number} {name}' for name, number in sorted(shapes.items()))}),"
        f" {failed} failed; {total.calls:,} calls,"
        f" {time.monotonic() - began:.0f} s. Happened: {_counted(total.happened)}.\n"
        f"Rules held: {_counted(total.checks)}."
    )
    print("\n".join(report(total.met, seasons=seasons, troubles=chosen.troubles)))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
