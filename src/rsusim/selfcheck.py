"""
Measures what a world costs: start, memory, and the server's work for a page and for an empty delta.

Limits are those the simulator promises for the original's account; above them the check fails.
"""

import json
import resource
import sys
import urllib.request
from statistics import median
from typing import Final
from urllib.parse import urlencode

from rsusim.server import Server
from rsusim.world import World

START_SECONDS: Final = 30.0
RSS_MIB: Final = 2048.0
PAGE_MS: Final = 100.0
PAGE_ROWS: Final = 2500
PAGES: Final = 20
ENCODING: Final = "identity"  # gzip costs another 15 ms a page, and is the client's choice


def selfcheck(world: World, start_seconds: float, warmed: bool) -> int:
    """
    Print the figures and return 0, or 1 if one is above its limit.

    The limit of a page holds for rows that are encoded already; without `--warm` those of old
    events are encoded when first asked for, and that is only reported.
    """
    account = next(iter(world.accounts.values()))
    for race in world.races:
        world.grant(account, race)
    events = sorted(world.events.values(), key=lambda e: -len(world.indexes[e.event_id].active.ids))
    by_race: dict[int, list[int]] = {}
    for event in events:
        by_race.setdefault(event.race_id, []).append(event.event_id)
    counts = {r: sum(len(world.indexes[n].active.ids) for n in ids) for r, ids in by_race.items()}
    largest = sorted(by_race, key=lambda race: -counts[race])[:PAGES]
    with Server(world) as server:
        for race in largest:
            for more in ({}, {}, {"modified_after_timestamp": str(int(world.clock.time()) + 1)}):
                query = {
                    "format": "json",
                    "api_key": account.api_key,
                    "api_secret": account.api_secret,
                    "event_id": ",".join(map(str, by_race[race])),
                    "results_per_page": str(PAGE_ROWS),
                    "sort": "registration_id ASC",
                    "supports_nb": "T",
                    "include_questions": "T",
                    **more,
                }
                url = f"{server.base_url}/race/{race}/participants?{urlencode(query)}"
                request = urllib.request.Request(url, headers={"Accept-Encoding": ENCODING})  # noqa: S310
                with urllib.request.urlopen(request) as answer:  # noqa: S310
                    json.load(answer)
    calls = world.log.of("participants")
    full = [row for row in calls if row.rows == PAGE_ROWS]
    cold = [row.work_seconds * 1000 for row in calls[0::3] if row in full]
    warm = [row.work_seconds * 1000 for row in calls[1::3] if row in full]
    empty = [row.work_seconds * 1000 for row in calls[2::3]]
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    future = sum(event.starts_at > world.clock.time() for event in events)
    lines = [
        f"partners {len(world.accounts)}, races {len(world.races)}, events {len(events)} "
        f"({future} to come), people {len(world.registrations)}",
        f"start {start_seconds:.1f} s (limit {START_SECONDS:.0f}), "
        f"highest RSS {rss:.0f} MiB (limit {RSS_MIB:.0f})",
    ]
    passed = start_seconds < START_SECONDS and rss < RSS_MIB
    if cold:
        lines.append(
            f"{len(cold)} full pages of {PAGE_ROWS}: first time median {median(cold):.0f} ms, highest "
            f"{max(cold):.0f} ms (limit {PAGE_MS:.0f}); again median {median(warm):.0f} ms"
        )
        passed = passed and median(cold if warmed else warm) < PAGE_MS
    lines.append(f"delta with nothing new: median {median(empty):.1f} ms, highest {max(empty):.1f} ms")
    sys.stdout.write("\n".join([*lines, "ok" if passed else "FAILED"]) + "\n")
    return 0 if passed else 1
