"""`bibwire worker`: one worker; `bibwire run`: several, looked after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import asyncio

    from bibwire.runtime import Runtime

# How long a worker that was told to end may take; then it is killed, and its work taken over.
GRACE_SECONDS = 12.0
LONGEST_PAUSE_SECONDS = 30.0


def add_to(app: typer.Typer) -> None:
    app.command()(run)
    app.command()(worker)


def run(
    workers: Annotated[
        int, typer.Option("--workers", metavar="N", min=1, max=64, help="Worker processes to run.")
    ] = 1,
) -> None:
    """
    Keep the mirror fresh: schedule and workers, until Ctrl-C.

    Races are polled faster as their start comes near (bibwire plan tells how and why). More workers
    can be started on other machines with the same database: bibwire worker. Nobody is in charge:
    any of them can be lost.
    """
    from bibwire.cli.session import read_settings, work
    from bibwire.cli.supervisor import supervise

    settings = read_settings()

    async def do(runtime: Runtime) -> None:
        # The runtime holds the embedded server open, and has brought the schema up to date.
        stop = _stop_on_signals()
        await runtime.check_connections(workers)
        if not await runtime.partners.list():
            _say(
                "No partner yet: add one with bibwire partner add NAME --api-key KEY; it is taken up at once."
            )
        await runtime.discover_at_start()
        _say(f"Keeping the mirror fresh with {workers} worker{'s' if workers > 1 else ''}. Ctrl-C ends it.")
        await supervise(workers, stop, grace_seconds=GRACE_SECONDS, pause_seconds=LONGEST_PAUSE_SECONDS)

    work(do, settings)


def worker(
    supervised: Annotated[
        bool, typer.Option("--supervised", hidden=True, help="End when standard input ends.")
    ] = False,
) -> None:
    """Run one worker, on any machine with the same database, until Ctrl-C."""
    from bibwire.cli.session import work

    async def do(runtime: Runtime) -> None:
        stop = _stop_on_signals()
        if supervised:
            _stop_with_parent(stop)
        else:
            _say("Working for this database, beside any other worker. Ctrl-C ends it.")
        async with runtime.open_worker() as worker:
            await worker.run(stop)

    work(do)


def _stop_on_signals() -> asyncio.Event:
    """Return what is set by Ctrl-C or SIGTERM: first finish what is under way."""
    import asyncio
    import contextlib
    import signal

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        # What nohup switched off stays off; Windows has no such handlers.
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            with contextlib.suppress(NotImplementedError):
                loop.add_signal_handler(number, stop.set)
    return stop


def _stop_with_parent(stop: asyncio.Event) -> None:
    """Stop when whoever looks after us is gone, however it went: our standard input ends then."""
    import asyncio
    import os
    import sys
    import threading

    loop = asyncio.get_running_loop()
    pipe = sys.stdin.fileno()

    def wait() -> None:
        while os.read(pipe, 1024):
            pass
        loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=wait, daemon=True).start()


def _say(text: str) -> None:
    from bibwire.cli.terminal import complain

    complain(text, prefix="")
