"""
The loader against raw COPY: rows a second, and bytes of WAL a row.

Pages go the engine's own way (`ScopeSync`: the lease, the rows, the feed and the position in one
transaction a page) from a client that has them in memory instead of asking for them. The clock
runs from a page's bytes to its commit. Raw COPY gets the very rows the first load stored, as text
ready to send, into a table made LIKE participants INCLUDING ALL.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Final, cast

import psutil
import psycopg
from psycopg.rows import TupleRow

from bench import pages
from bench.pages import Body, Pages
from bibwire.api.client import VendorClient
from bibwire.api.dates import VendorTime
from bibwire.api.paging import Fullness, page_of
from bibwire.api.rows import cut
from bibwire.api.wire import decode_race_list
from bibwire.clock import SystemClock
from bibwire.domain.records import Dated, Page
from bibwire.domain.secrets import Credential, Secret
from bibwire.domain.sweeps import Lookback
from bibwire.engine.scope import ScopeSync
from bibwire.store import catalog, leases, migrate, streams
from bibwire.store.catalog import Scope
from bibwire.store.database import Database, open_database
from bibwire.store.loader import Outcome
from bibwire.store.partners import Partners
from bibwire.store.session import Session, open_session
from bibwire.store.vault import Vault

Observer = psycopg.Connection[TupleRow]

COPY: Final = "COPY, one transaction"
COPY_PAGES: Final = "COPY, a commit a page"
FIRST: Final = "first load"
BIBS: Final = "bibs at once, delta"
BIBS_AGAIN: Final = "other bibs, no checkpoint before"
# As reconcile and sync --full do: the columns too, not digests alone.
COMPARED: Final = "unchanged, columns compared"


@dataclass(frozen=True, slots=True)
class Pass:
    """One listing, stored once a round. `compared`: the columns of what is stored, too."""

    name: str
    listing: str
    full: bool = False
    checkpoint: bool = True
    compared: bool = False


LOADER: Final = (
    Pass(FIRST, "first"),
    Pass("unchanged reload", "first", full=True),
    Pass(COMPARED, "first", full=True, compared=True),
    Pass("1 % changed, full listing", "edited", full=True),
    Pass("1 % changed, delta", "delta"),
    Pass(BIBS, "bibs"),
)
# Bibs for everybody, and for everybody another one.
BULK: Final = (Pass(FIRST, "first"), Pass(BIBS, "bibs"), Pass(BIBS_AGAIN, "bibs again", checkpoint=False))


@dataclass(slots=True)
class Figure:
    """What one pass cost, once a round."""

    rows: int
    seconds: list[float] = field(default_factory=list)
    wal_bytes: list[int] = field(default_factory=list)
    client_cpu: list[float] = field(default_factory=list)
    server_cpu: list[float] = field(default_factory=list)

    @property
    def rows_a_second(self) -> float:
        return self.rows / median(self.seconds)

    @property
    def client_cpu_us(self) -> float:
        return median(self.client_cpu) / self.rows * 1e6

    @property
    def server_cpu_us(self) -> float:
        return median(self.server_cpu) / self.rows * 1e6


class Canned:
    """A client whose answers are there already. It cuts and checks them as the real one does."""

    def __init__(self, events: int) -> None:
        self.listed: Sequence[Body] = ()
        self.events = events
        self._counts: Counter[int] = Counter()
        self.vendor_time = VendorTime(SystemClock())

    async def participants(
        self,
        race_id: int,
        event_ids: Sequence[int],
        *,
        after: int,
        modified_after: datetime | None,
        page_size: int,
        longest_page: int | None,
    ) -> AsyncGenerator[Page, None]:
        # What is listed here holds the rows of all events, whichever are asked for.
        assert len(event_ids) == self.events, "the engine did not ask for all events together"
        fullness = Fullness(page_size, longest=longest_page)
        self._counts.clear()
        # A first page of a round number of rows is followed by one more, which is empty.
        for body in (*self.listed, Body(b"[]", self.listed[-1].answered_at)):
            page = page_of(
                cut(body.body, event_ids),
                asked_event_ids=event_ids,
                after=after,
                page_size=page_size,
                fullness=fullness,
                dated=Dated(body.answered_at, body.answered_at),
            )
            self._counts.update(row.event_id for row in page.rows if row.event_id is not None)
            yield page
            if page.through is None:
                return
            after = page.through

    async def removed_participants(
        self,
        race_id: int,
        event_ids: Sequence[int],
        *,
        after: int,
        modified_after: datetime | None,
        page_size: int,
        longest_page: int | None,
    ) -> AsyncGenerator[Page, None]:
        at = self.listed[0].answered_at
        yield Page((), (), at, after, None, as_of=at)

    async def participant_counts(self, race_id: int, event_ids: Sequence[int]) -> dict[int, int]:
        return dict(self._counts)


class Bench:
    """The passes of one round, on a database of its own."""

    def __init__(
        self,
        conninfo: str,
        postmaster: int,
        folder: Path,
        found: Pages,
        tell: Callable[[str], None],
        *,
        passes: Sequence[Pass] = LOADER,
        analysed: bool = False,
    ) -> None:
        self._conninfo = conninfo
        self._passes = passes
        self._analysed = analysed
        self._postmaster = psutil.Process(postmaster)
        self._folder = folder
        self._found = found
        self._tell = tell
        self._listings = {name: pages.bodies(folder, each) for name, each in found.listings.items()}
        self._prepared: list[bytes] = []
        self.figures: dict[str, Figure] = {}
        self._round = 0

    @property
    def record_bytes(self) -> float:
        return sum(len(each.body) for each in self._listings["first"]) / self._found.people

    def run(self, rounds: int) -> dict[str, Figure]:
        """Run the rounds after one that only warms up and prepares the rows of raw COPY."""
        for number in range(rounds + 1):
            self._round = number
            name = f"bench_{number}"
            with psycopg.connect(self._conninfo, autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {name}".encode())
            url = psycopg.conninfo.make_conninfo(self._conninfo, dbname=name)
            migrate.upgrade(url)
            with psycopg.connect(url, autocommit=True) as connection:
                if number:
                    # In turn: whatever slows the machine for a while slows both.
                    self._copy(connection, COPY, one_commit=True)
                    self._copy(connection, COPY_PAGES, one_commit=False)
                asyncio.run(self._load(url, connection))
                if not number:
                    self._prepare(connection)
            with psycopg.connect(self._conninfo, autocommit=True) as connection:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
        return self.figures

    def _prepare(self, connection: Observer) -> None:
        query = b"COPY (SELECT * FROM bibwire.participants ORDER BY registration_id) TO STDOUT"
        rows: list[bytes] = []
        with connection.cursor().copy(query) as copy:
            for row in copy:
                rows.append(bytes(row))
                if len(rows) == pages.PAGE_ROWS:
                    self._prepared.append(b"".join(rows))
                    rows = []
        self._prepared.append(b"".join(rows))

    def _copy(self, connection: Observer, name: str, *, one_commit: bool) -> None:
        connection.execute("CREATE TABLE public.raw (LIKE bibwire.participants INCLUDING ALL)")
        statement = "COPY public.raw FROM STDIN"
        with self._timed(connection, name, self._found.people):
            if one_commit:
                with connection.cursor().copy(statement) as copy:
                    for chunk in self._prepared:
                        copy.write(chunk)
            else:
                for chunk in self._prepared:
                    with connection.cursor().copy(statement) as copy:
                        copy.write(chunk)
        [rows] = connection.execute("SELECT count(*) FROM public.raw").fetchone() or (0,)
        assert rows == self._found.people
        connection.execute("DROP TABLE public.raw")

    async def _load(self, url: str, observer: Observer) -> None:
        async with open_database(url) as db, open_session(url) as session:
            partner_id = await self._furnish(db)
            people = self._found.people
            client = Canned(len(self._found.event_ids))
            for each in self._passes:
                client.listed = self._listings[each.listing]
                outcome = await self._pass(db, session, observer, partner_id, client, each)
                rows = self._found.listings[each.listing].rows
                assert outcome.inserted + outcome.updated + outcome.unchanged == rows, (each, outcome)
                if each.name == FIRST:
                    assert outcome == Outcome(inserted=people, listed=outcome.listed), outcome
                    if self._analysed:
                        observer.execute("ANALYZE")
                elif each.listing == "first":
                    assert outcome == Outcome(unchanged=people, listed=outcome.listed), outcome
                elif each.listing.startswith("bibs"):
                    assert outcome.bibs["assigned"] + outcome.bibs["changed"] == rows, outcome
                else:
                    assert outcome.updated == people // 100, outcome

    async def _furnish(self, db: Database) -> int:
        credential = Credential(kind="key", key=Secret("bench-key"), secret=Secret("bench-secret"))
        partner = await Partners(db, Vault(bytes(32))).add("Bench", credential, calls_per_hour=1000)
        now = SystemClock().now()
        races = decode_race_list((self._folder / self._found.races).read_bytes(), Dated(now, now))
        reading = await catalog.next_reading(db)
        await catalog.store_races(db, partner.partner_id, races.races, (), reading=reading, now=now)
        return partner.partner_id

    async def _pass(
        self,
        db: Database,
        session: Session,
        observer: Observer,
        partner_id: int,
        client: Canned,
        each: Pass,
    ) -> Outcome:
        scope = Scope(partner_id, self._found.race_id, "Figures", frozenset(self._found.event_ids), None)
        rows = self._found.listings[each.listing].rows
        with self._timed(observer, each.name, rows, checkpoint=each.checkpoint):
            await streams.open_scope(db, partner_id, scope.race_id)
            lease = await leases.acquire(db, session, partner_id, scope.race_id)
            assert lease is not None
            sync = ScopeSync(
                db,
                cast(VendorClient, client),
                SystemClock(),
                lease,
                scope,
                lookback=Lookback(),
                page_size=pages.PAGE_ROWS,
                on_page=lambda _: None,
            )
            result = await sync.run(full=each.full, compare_stored=each.compared)
            await leases.release(db, lease)
        assert result.unsettled is None
        return result.outcome

    @contextmanager
    def _timed(
        self, connection: Observer, name: str, rows: int, *, checkpoint: bool = True
    ) -> Iterator[None]:
        if checkpoint:
            # After it the first touch of each database page costs a whole page of WAL.
            connection.execute("CHECKPOINT")
        gc.collect()
        wal, server_cpu, client_cpu = _lsn(connection), self._server_cpu(), time.process_time()
        started = time.perf_counter()
        yield
        seconds = time.perf_counter() - started
        client_cpu = time.process_time() - client_cpu
        server_cpu = self._server_cpu() - server_cpu
        wal = _lsn(connection) - wal
        if self._round:
            figure = self.figures.setdefault(name, Figure(rows))
            figure.seconds.append(seconds)
            figure.wal_bytes.append(wal)
            figure.client_cpu.append(client_cpu)
            figure.server_cpu.append(server_cpu)
        self._tell(
            f"round {self._round or 'to warm up'}, {name}: {rows / seconds:,.0f} rows/s, "
            f"{wal / rows:,.1f} bytes of WAL a row"
        )

    def _server_cpu(self) -> float:
        """Return the seconds of all the server's processes."""
        spent = 0.0
        for process in (self._postmaster, *self._postmaster.children()):
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                spent += times.user + times.system
        return spent


def _lsn(connection: Observer) -> int:
    [lsn] = connection.execute("SELECT pg_current_wal_lsn() - '0/0'").fetchone() or (0,)
    return int(lsn)
