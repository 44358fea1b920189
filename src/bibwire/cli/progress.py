"""How far a sync is, shown on a terminal and nowhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bibwire.engine.reports import SyncProgress
    from bibwire.engine.verify import VerifyProgress

# Seconds over which the rate is taken: long enough to be steady, short enough to be the present.
RATE_SECONDS = 5.0


@contextmanager
def sync_progress() -> Iterator[Callable[[SyncProgress], None] | None]:
    """Yield what to call with the progress; None where standard error is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from bibwire.cli.terminal import console

    columns = (
        SpinnerColumn(),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[told]}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console(stderr=True), transient=True, refresh_per_second=8) as progress:
        task = progress.add_task("sync", total=None, told="looking for races")
        rate = Rate()

        def watch(state: SyncProgress) -> None:
            per_second = rate.of(state.people, time.monotonic())
            told = (
                f"partners {state.partners_done}/{state.partners}  races {state.races_done}/{state.races}"
                f"  people {state.people:,}  calls {state.calls:,}  {per_second:,.0f} people/s"
            )
            progress.update(task, completed=state.races_done, total=state.races or None, told=told)

        yield watch


@contextmanager
def verify_progress() -> Iterator[Callable[[VerifyProgress], None]]:
    """Yield what to call with the progress of a verification; it shows nothing where there is no terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from bibwire.cli.terminal import console, plain

    columns = (
        SpinnerColumn(),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[told]}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console(stderr=True), transient=True, refresh_per_second=8) as progress:
        task = progress.add_task("verify", total=None, told="planning the checks")

        def watch(state: VerifyProgress) -> None:
            told = (
                f"{plain(state.partner)}  partners {state.partners_done}/{state.partners}"
                f"  checks {state.checks_done}/{state.checks}  calls {state.calls:,}"
            )
            progress.update(task, completed=state.checks_done, total=state.checks or None, told=told)

        yield watch


class Rate:
    """People a second over the last seconds."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, int]] = []

    def of(self, people: int, at: float) -> float:
        """
        Return the rate now.

        Args:
            people: How many so far.
            at: Seconds from any origin.
        """
        self._seen.append((at, people))
        while len(self._seen) > 2 and self._seen[1][0] < at - RATE_SECONDS:
            self._seen.pop(0)
        begun, first = self._seen[0]
        return (people - first) / (at - begun) if at > begun else 0.0
