"""How far long work is, shown on a terminal and nowhere else."""

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


Show = Callable[[int, int | None, str], None]


@contextmanager
def bar(told: str) -> Iterator[Show | None]:
    """
    Show a bar on standard error; None where that is no terminal.

    Yields what to call with how much is done, of how much (None: not known yet), and in words. It
    begins with `told`.
    """
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
        task = progress.add_task("work", total=None, told=told)
        yield lambda done, total, told: progress.update(task, completed=done, total=total, told=told)


@contextmanager
def sync_progress() -> Iterator[Callable[[SyncProgress], None] | None]:
    """Yield what to call with the progress; None where standard error is no terminal."""
    with bar("looking for races") as show:
        if show is None:
            yield None
            return
        rate = Rate()

        def watch(state: SyncProgress) -> None:
            per_second = rate.of(state.people, time.monotonic())
            told = (
                f"partners {state.partners_done}/{state.partners}  races {state.races_done}/{state.races}"
                f"  people {state.people:,}  calls {state.calls:,}  {per_second:,.0f} people/s"
            )
            show(state.races_done, state.races or None, told)

        yield watch


@contextmanager
def verify_progress() -> Iterator[Callable[[VerifyProgress], None]]:
    """Yield what to call with the progress of a verification; it shows nothing where there is no terminal."""
    from bibwire.cli.terminal import plain

    with bar("planning the checks") as show:

        def watch(state: VerifyProgress) -> None:
            told = (
                f"{plain(state.partner)}  partners {state.partners_done}/{state.partners}"
                f"  checks {state.checks_done}/{state.checks}  calls {state.calls:,}"
            )
            if show is not None:
                show(state.checks_done, state.checks or None, told)

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
