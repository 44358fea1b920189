"""
`python -m bench.bulk`: everybody gets a bib at once, beside the first load and raw COPY in one run.

On each PostgreSQL there is (the embedded one, and Debian's 15), with tables that were never analysed
and with tables that were after their first load. In the pages of a burst the bib and the time of the
last change have moved in every row, and nothing else.
"""

from __future__ import annotations

import argparse
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psycopg

from bench import pages
from bench.__main__ import server, show
from bench.loading import BULK, Bench

DEBIAN_15: Final = Path("/usr/lib/postgresql/15/bin")


@contextmanager
def of_programs(programs: Path, home: Path) -> Iterator[str]:
    """A PostgreSQL of these programs with its default settings, fsync included; its conninfo."""
    home.mkdir()
    user: str | None = None
    if os.geteuid() == 0:
        user = next(name for name in ("postgres", "nobody") if name in {p.pw_name for p in pwd.getpwall()})
        shutil.chown(home, user)

    def run(program: str, *arguments: str) -> None:
        command = [str(programs / program), "-D", str(home / "data"), *arguments]
        subprocess.run(command, check=True, user=user, cwd=home, stdout=subprocess.DEVNULL)

    run("initdb", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8")
    options = f"-c listen_addresses= -c unix_socket_directories={home} -c autovacuum=off"
    run("pg_ctl", "-w", "-l", str(home / "log"), "-o", options, "start")
    try:
        yield f"host={home} user=postgres dbname=postgres"
    finally:
        run("pg_ctl", "-w", "-m", "immediate", "stop")


@contextmanager
def each_server(home: Path, programs: Path | None) -> Iterator[tuple[str, int]]:
    """The embedded server, or one of these programs: conninfo, and the postmaster's process id."""
    data = home / "postgres" / "data" if programs is None else home / "chosen" / "data"
    if programs is None:
        with server(home) as running:
            yield running.conninfo, int((data / "postmaster.pid").read_text().split()[0])
    else:
        with of_programs(programs, home / "chosen") as conninfo:
            yield conninfo, int((data / "postmaster.pid").read_text().split()[0])
        shutil.rmtree(home / "chosen")


def main() -> int:
    """Run the command; the exit code is 0 whatever the figures are."""
    parser = argparse.ArgumentParser(prog="python -m bench.bulk", description=__doc__)
    parser.add_argument("--people", type=int, default=60_000, help="half of them get bibs; default: 60000")
    parser.add_argument("--rounds", type=int, default=5, help="medians are of these; default: 5")
    parser.add_argument(
        "--postgres", type=Path, default=DEBIAN_15, help=f"programs of a second server; default: {DEBIAN_15}"
    )
    args = parser.parse_args()
    if args.people < 1000 or args.rounds < 1:
        parser.error("at least 1000 people and one round")
    started = time.monotonic()

    def tell(line: str) -> None:
        print(f"[{time.monotonic() - started:4.0f} s] {line}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="bibwire-bench-", dir="/tmp") as name:
        home = Path(name)
        home.chmod(0o755)  # as root the database's own user has to get in
        tell(f"making {args.people:,} people and their pages")
        command = [sys.executable, "-m", "bench.pages", "--people", str(args.people), "--folder", name]
        subprocess.run([*command, "--bibs-alone"], check=True)
        for programs in (None, args.postgres):
            if programs is not None and not (programs / "postgres").exists():
                tell(f"no PostgreSQL in {programs}: left out")
                continue
            with each_server(home, programs) as (conninfo, postmaster):
                with psycopg.connect(conninfo) as connection:
                    version = str(connection.info.parameter_status("server_version"))
                for analysed in (False, True):
                    bench = Bench(
                        conninfo, postmaster, home, pages.read(home), tell, passes=BULK, analysed=analysed
                    )
                    figures = bench.run(args.rounds)
                    state = "analysed after the first load" if analysed else "never analysed"
                    show(figures, bench.record_bytes, args.rounds, f"{version}, {state}")
    tell("done, and everything removed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
