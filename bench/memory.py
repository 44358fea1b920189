"""
A whole sync over HTTP: the original account's size, all of it live, into an empty mirror and again.

The vendor is simulated in a process of its own (`bench.vendor`). What is watched is
`bibwire sync --full` alone, from outside.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import psycopg

from bibwire.domain.secrets import Credential, Secret
from bibwire.store import migrate
from bibwire.store.database import open_database
from bibwire.store.partners import Partners
from bibwire.store.vault import Vault

SAMPLE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Sync:
    """One run. `curve`: MiB resident when a tenth, two tenths, ... of the time had passed."""

    people: int
    calls: int
    races: int
    seconds: float
    peak_mib: float
    curve: list[float]

    @property
    def people_a_second(self) -> float:
        return self.people / self.seconds


def run(conninfo: str, home: Path, people: int, tell: Callable[[str], None]) -> tuple[Sync, Sync]:
    """Return a first sync and the same again, nothing having changed."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("CREATE DATABASE bench_sync")
    url = psycopg.conninfo.make_conninfo(conninfo, dbname="bench_sync")
    migrate.upgrade(url)
    key = secrets.token_bytes(32)
    with _vendor(people) as told:
        asyncio.run(_add_partners(url, key, told["accounts"]))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("BIBWIRE_")}
        environment |= {
            "BIBWIRE_DATABASE_URL": url,
            "BIBWIRE_API_URL": told["base_url"],
            "BIBWIRE_HOME": str(home / "sync"),
            "BIBWIRE_SECRET_KEY": key.hex(),
            "BIBWIRE_LOG_LEVEL": "ERROR",
        }
        results = []
        for what in ("first", "again"):
            result = _sync(environment)
            tell(
                f"sync --full {what}: {result.people_a_second:,.0f} people/s, {result.calls:,} calls, "
                f"peak {result.peak_mib:.0f} MiB"
            )
            results.append(result)
    return results[0], results[1]


@contextmanager
def _vendor(people: int) -> Iterator[dict[str, Any]]:
    command = [sys.executable, "-m", "bench.vendor", "--people", str(people)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as vendor:
        assert vendor.stdin is not None
        assert vendor.stdout is not None
        try:
            yield msgspec.json.decode(vendor.stdout.readline())
        finally:
            vendor.stdin.close()


async def _add_partners(url: str, key: bytes, accounts: list[dict[str, Any]]) -> None:
    async with open_database(url) as db:
        partners = Partners(db, Vault(key))
        for account in accounts:
            credential = Credential(
                kind="key", key=Secret(account["api_key"]), secret=Secret(account["api_secret"])
            )
            await partners.add(account["name"], credential, calls_per_hour=1_000_000)


def _sync(environment: dict[str, str]) -> Sync:
    command = [sys.executable, "-m", "bibwire", "sync", "--full", "--json"]
    resident: list[float] = []
    peak = 0.0
    started = time.perf_counter()
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    ) as process:
        while process.poll() is None:
            sample = _memory(process.pid)
            if sample is not None:
                resident.append(sample[0])
                peak = sample[1]
            time.sleep(SAMPLE_SECONDS)
        assert process.stdout is not None
        report = msgspec.json.decode(process.stdout.read())
    assert process.returncode == 0, report
    counts = report["participants"]
    return Sync(
        people=counts["inserted"] + counts["updated"] + counts["unchanged"],
        calls=report["calls"],
        races=report["races"],
        seconds=time.perf_counter() - started,
        peak_mib=peak,
        curve=[resident[(len(resident) - 1) * tenth // 10] for tenth in range(1, 11)],
    )


def _memory(pid: int) -> tuple[float, float] | None:
    """Return resident and highest resident MiB; None once the process has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    found = [re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE) for name in ("VmRSS", "VmHWM")]
    now, peak = (0.0 if each is None else int(each[1]) / 1024 for each in found)
    return (now, peak) if now else None
