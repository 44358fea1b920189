"""
Page bodies to load: the simulated vendor's own wire bytes, fetched once over HTTP and kept in files.

One race with several events. Four things happen in turn, and each leaves a listing: people
register; one in a hundred is edited (listed in full); one in a hundred is edited, then the largest
event gets its bibs at once, then others (all three listed as changes only).
Runs in a process of its own, because a simulated world is large.
"""

from __future__ import annotations

import argparse
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from random import Random
from typing import Final
from urllib.parse import urlencode

import msgspec

import rsusim
from bibwire.api.endpoints import PARTICIPANTS, RACES, Endpoint
from rsusim import worlds

PAGE_ROWS: Final = 2500
EVENT_PEOPLE: Final = 25_000
BIBS_AT_ONCE: Final = 30_000
NOW: Final = datetime(2026, 9, 12, 16, 0, tzinfo=UTC)


class Listing(msgspec.Struct):
    """The pages of one listing: the file of each body, and the vendor's `Date` on it."""

    files: list[str]
    answered_at: list[datetime]
    rows: int


class Pages(msgspec.Struct):
    """What was fetched; `listings` by name."""

    race_id: int
    event_ids: list[int]
    races: str
    people: int
    listings: dict[str, Listing]


@dataclass(frozen=True, slots=True)
class Body:
    """One answer."""

    body: bytes
    answered_at: datetime


def read(folder: Path) -> Pages:
    """Return what `make` left in a folder."""
    return msgspec.json.decode((folder / "pages.json").read_bytes(), type=Pages)


def bodies(folder: Path, listing: Listing) -> list[Body]:
    """Return the pages of a listing."""
    return [
        Body((folder / name).read_bytes(), at)
        for name, at in zip(listing.files, listing.answered_at, strict=True)
    ]


def make(folder: Path, people: int, *, edits: bool = True) -> None:
    """Make the world, let it live a little, and leave its pages; without `edits` bibs alone move."""
    world = rsusim.World(seed=7, now=NOW)
    account = world.add_partner("Bench Timing")
    race = world.add_race([account], "Figures Marathon, Half & 5K", "America/Chicago")
    worlds.furnish(world, race)
    random = Random(7)
    largest = min(BIBS_AT_ONCE, people // 2)
    sizes = [largest]
    while (left := people - sum(sizes)) > 0:
        sizes.append(min(left, EVENT_PEOPLE))
    events = [_event(world, race, number, size, random) for number, size in enumerate(sizes)]
    ids = [number for event in events for number in world.active(event)]
    listings: dict[str, Listing] = {}
    with rsusim.Server(world) as server:
        fetch = _Fetcher(folder, server.base_url, account)
        [races] = fetch.pages("races", RACES, None, {"results_per_page": "1000"})
        listings["first"] = fetch.listing("first", race, events)

        if edits:
            world.advance(3600)
            _edit(world, random.sample(ids, people // 100), random)
            world.advance(60)
            listings["edited"] = fetch.listing("edited", race, events)

            world.advance(3600)
            since = world.now
            _edit(world, random.sample(ids, people // 100), random)
            world.advance(60)
            listings["delta"] = fetch.listing("delta", race, events, since)

        world.advance(3600)
        since = world.now
        world.bulk_assign(events[0], 1)
        world.advance(60)
        listings["bibs"] = fetch.listing("bibs", race, events, since)

        world.advance(3600)
        since = world.now
        world.bulk_assign(events[0], 50_001)
        world.advance(60)
        listings["bibs again"] = fetch.listing("bibs-again", race, events, since)
    found = Pages(race, events, races, len(ids), listings)
    (folder / "pages.json").write_bytes(msgspec.json.encode(found))


def _event(world: rsusim.World, race: int, number: int, size: int, random: Random) -> int:
    starts = datetime(2026, 10, 4, 7, 0) + timedelta(minutes=10 * number)  # noqa: DTZ001 - the race's wall time
    event = world.add_event(
        race,
        f"Distance {number + 1}",
        starts,
        starts + timedelta(hours=6),
        "13.1 Miles",
        fee=7000,
        giveaway="T-Shirt",
        team_count=12 if number % 2 else 0,
    )
    world.populate(event, people_of(world, size, number > 0, random))
    return event


def people_of(
    world: rsusim.World, size: int, with_bibs: bool, random: Random
) -> Iterator[tuple[int, int, int, int | None]]:
    """Yield (person, registered at, last modified, bib): two in three have bibs, or nobody."""
    first = int((world.now - timedelta(days=150)).timestamp())
    step = 148 * 86400 / max(1, size)
    for i in range(size):
        at = int(first + step * i + random.random() * step)
        yield world.next_person + i, at, at + random.randrange(86400), i + 1 if with_bibs and i % 3 else None
    world.next_person += size


def _edit(world: rsusim.World, numbers: Sequence[int], random: Random) -> None:
    for number in numbers:
        world.edit(number, phone=f"555-{random.randrange(10**7):07}", city="Springfield")


class _Fetcher:
    """Asks as the client asks, and keeps the answers."""

    def __init__(self, folder: Path, base_url: str, account: rsusim.Account) -> None:
        self._folder = folder
        self._base_url = base_url
        self._key = {"api_key": account.api_key, "api_secret": account.api_secret}
        self.answered_at: list[datetime] = []
        self.rows = 0

    def listing(self, name: str, race: int, events: Sequence[int], since: datetime | None = None) -> Listing:
        query = {"event_id": ",".join(map(str, events)), "results_per_page": str(PAGE_ROWS)}
        if since is not None:
            query["modified_after_timestamp"] = str(int(since.timestamp()))
        files = self.pages(name, PARTICIPANTS, race, query)
        return Listing(files, self.answered_at, self.rows)

    def pages(self, name: str, endpoint: Endpoint, race: int | None, query: dict[str, str]) -> list[str]:
        files: list[str] = []
        self.answered_at, self.rows = [], 0
        after = 0
        while True:
            asked = {**endpoint.fixed, **query, **self._key}
            if after:
                asked["after_registration_id"] = str(after)
            url = f"{self._base_url}{endpoint.path_for(race)}?{urlencode(asked)}"
            with urllib.request.urlopen(urllib.request.Request(url)) as answer:
                body, date = answer.read(), answer.headers["Date"]
            file = f"{name}-{len(files):04}.json"
            (self._folder / file).write_bytes(body)
            files.append(file)
            self.answered_at.append(parsedate_to_datetime(date))
            ids = [number for element in msgspec.json.decode(body) for number in _ids(element)]
            self.rows += len(ids)
            if len(ids) < PAGE_ROWS:
                return files
            after = max(ids)


def _ids(element: object) -> list[int]:
    rows = element.get("participants", []) if isinstance(element, dict) else []
    return [row["registration_id"] for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--people", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--bibs-alone", action="store_true")
    args = parser.parse_args()
    make(args.folder, args.people, edits=not args.bibs_alone)


if __name__ == "__main__":
    main()
