"""
`python -m bench`: measure, print, leave nothing behind.

Everything is timed against raw COPY of the same rows in the same run, in turn, because the machine
may have other work: ratios say more than the figures themselves.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import psycopg

from bench import memory, pages
from bench.loading import COPY, FIRST, Bench, Figure
from bibwire.store import embedded

ORIGINAL_PEOPLE = 407_053


@contextmanager
def server(home: Path) -> Iterator[embedded.EmbeddedServer]:
    """
    An embedded PostgreSQL as it is installed, fsync and all.

    Only autovacuum is off, so that its work does not fall into one figure or another, and so that
    no table is ever analysed: the planner's worst case.
    """
    with embedded.start(home) as running:
        with psycopg.connect(running.conninfo, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET autovacuum = off")
            connection.execute("SELECT pg_reload_conf()")
        yield running


def main() -> int:
    """Run the command; the exit code is 0 whatever the figures are."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--people", type=int, default=200_000, help="loaded in pages; default: 200000")
    parser.add_argument("--rounds", type=int, default=3, help="medians are of these; default: 3")
    parser.add_argument(
        "--sync-people", type=int, default=ORIGINAL_PEOPLE, help="synced over HTTP; 0: none; default: 407053"
    )
    args = parser.parse_args()
    if args.people < 1000 or args.rounds < 1:
        parser.error("at least 1000 people and one round")
    started = time.monotonic()

    def tell(line: str) -> None:
        print(f"[{time.monotonic() - started:4.0f} s] {line}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="bibwire-bench-", dir="/tmp") as name:
        home = Path(name)
        # As root the database's own user has to get in.
        home.chmod(0o755)
        tell(f"making {args.people:,} people and their pages")
        command = [sys.executable, "-m", "bench.pages", "--people", str(args.people), "--folder", name]
        subprocess.run(command, check=True)
        with server(home) as running:
            postmaster = int((home / "postgres" / "data" / "postmaster.pid").read_text().split()[0])
            bench = Bench(running.conninfo, postmaster, home, pages.read(home), tell)
            figures = bench.run(args.rounds)
            show(figures, bench.record_bytes, args.rounds, running.version)
            if args.sync_people:
                tell(f"starting a simulated account of {args.sync_people:,} people")
                for what, sync in zip(
                    ("first", "again"),
                    memory.run(running.conninfo, home, args.sync_people, tell),
                    strict=True,
                ):
                    show_sync(what, sync)
    tell("done, and everything removed")
    return 0


def show(figures: dict[str, Figure], record_bytes: float, rounds: int, version: str) -> None:
    """Print the table of the loader."""
    people = figures[COPY].rows
    print(f"\n{people:,} people, records of {record_bytes:,.0f} bytes, pages of {pages.PAGE_ROWS:,};")
    print(
        f"PostgreSQL {version}; medians of {rounds} rounds, each pass in turn, the ratios round by round.\n"
    )
    print("| pass | rows | rows/s | x COPY | x first load | WAL bytes/row | CPU us/row ours + server's |")
    print("|---|---|---|---|---|---|---|")
    for name, figure in figures.items():
        print(
            f"| {name} | {figure.rows:,} | {figure.rows_a_second:,.0f} | {_ratio(figure, figures[COPY])} "
            f"| {_ratio(figure, figures[FIRST])} | {median(figure.wal_bytes) / figure.rows:,.1f} "
            f"| {figure.client_cpu_us:,.1f} + {figure.server_cpu_us:,.1f} |"
        )
    print(flush=True)


def _ratio(figure: Figure, other: Figure) -> str:
    pairs = zip(figure.seconds, other.seconds, strict=True)
    return f"{median((figure.rows / mine) / (other.rows / its) for mine, its in pairs):.2f}"


def show_sync(what: str, sync: memory.Sync) -> None:
    """Print one whole sync."""
    print(
        f"bibwire sync --full, {what}: {sync.people:,} people of {sync.races:,} races in "
        f"{sync.seconds:.0f} s ({sync.people_a_second:,.0f} people/s) with {sync.calls:,} calls; "
        f"peak {sync.peak_mib:.0f} MiB; "
        f"MiB at each tenth of the time: {', '.join(f'{each:.0f}' for each in sync.curve)}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
