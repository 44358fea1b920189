"""
Plants each known bug by itself, and plays seasons until one fails: `python -m tests.mutations [NAME ...]`

The same seasons are played without a bug first: none of them may fail. It prints which seed saw each, as soon
as it was seen. A bug that outlives all of them is one that nobody would see.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parent.parent


def patches() -> list[Path]:
    """Return all of them, by name."""
    return sorted(HERE.glob("*.patch"))


def plant(patch: Path | None, copy: Path) -> None:
    """
    Copy the program and its seasons, with the bug in it; None: without one.

    Raises:
        subprocess.CalledProcessError: The patch does not fit the code any more.
    """
    for name in ("src", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    if patch is not None:
        subprocess.run(["git", "apply", "--whitespace=nowarn", str(patch)], cwd=copy, check=True)


def caught(copy: Path, *, seed: int, seeds: int, hours: float) -> tuple[int, str] | None:
    """Play seasons with a bug; return after how many one failed, and why. None: none did."""
    command = [sys.executable, "-m", "tests.seasons", "--until-fails", "--no-shorten"]
    command += ["--seed", str(seed), "--seeds", str(seeds), "--hours", str(hours)]
    environment = {**os.environ, "PYTHONPATH": str(copy / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    told = re.findall(r"^seed \d+: .*", done.stdout, re.MULTILINE)
    if not told or done.returncode not in (0, 1):
        raise SystemExit(f"The seasons do not play:\n{done.stdout}\n{done.stderr}")
    if done.returncode == 0:
        return None
    return len(told), told[-1].partition("FAILS: ")[2]


def main() -> int:
    """Plant and play; return 1 if a bug was not seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="of patches; default: all")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--seeds", type=int, default=15, help="how many at most for each bug")
    parser.add_argument("--hours", type=float, default=0.75, help="how long a season lasts")
    parser.add_argument(
        "--no-baseline", action="store_true", help="the seeds are known to hold without a bug"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many seasons at a time")
    chosen = parser.parse_args()
    known = [patch.stem for patch in patches()]
    if unknown := set(chosen.names).difference(known):
        parser.error(f"no bug {min(unknown)!r}; there are: {', '.join(known)}")

    def seen(patch: Path | None, seed: int, seeds: int) -> tuple[int, str] | None:
        # PostgreSQL's own user has to get in.
        with tempfile.TemporaryDirectory(prefix="bibwire-mutant-", dir="/tmp") as folder:
            plant(patch, Path(folder))
            return caught(Path(folder), seed=seed, seeds=seeds, hours=chosen.hours)

    def holds(seed: int) -> str | None:
        found = seen(None, seed, 1)
        return None if found is None else f"seed {seed} fails without a bug: {found[1]}"

    def survives(patch: Path) -> bool:
        began = time.monotonic()
        found = seen(patch, chosen.seed, chosen.seeds)
        told = f"NOT SEEN in {chosen.seeds} seeds"
        if found is not None:
            told = f"seed {chosen.seed + found[0] - 1}: {found[1][:300]}"
        print(f"{patch.stem}: {told} ({time.monotonic() - began:.0f} s)", flush=True)
        return found is None

    with ThreadPoolExecutor(chosen.jobs) as pool:
        if not chosen.no_baseline:
            failed = [why for why in pool.map(holds, range(chosen.seed, chosen.seed + chosen.seeds)) if why]
            if failed:
                print("\n".join(failed))
                return 1
        planted = {
            pool.submit(survives, patch): patch.stem
            for patch in patches()
            if not chosen.names or patch.stem in chosen.names
        }
        survived = [planted[each] for each in as_completed(planted) if each.result()]
    print(f"{len(survived)} not seen" + (f": {', '.join(survived)}" if survived else ""))
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
