"""`bibwire worker`: one worker; `bibwire run`: several, looked after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from bibwire.cli.options import MetricsHostOption, MetricsPortOption

if TYPE_CHECKING:
    import asyncio
    import socket
    from contextlib import AbstractAsyncContextManager

    from bibwire.runtime import Runtime
    from bibwire.settings import Settings

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
    metrics_port: MetricsPortOption = None,
    metrics_host: MetricsHostOption = None,
) -> None:
    """
    Keep the mirror fresh: schedule and workers, until Ctrl-C.

    Races are polled faster as their start comes near (bibwire plan tells how and why). More workers
    can be started on other machines with the same database: bibwire worker. Nobody is in charge:
    any of them can be lost.
    """
    from bibwire.cli.session import read_settings, work
    from bibwire.cli.stop import Stop
    from bibwire.cli.supervisor import supervise

    settings = read_settings()
    port = settings.metrics_port if metrics_port is None else metrics_port
    listening = _listen(settings, port, metrics_host)

    async def do(runtime: Runtime) -> int:
        # The runtime holds the embedded server open, and has brought the schema up to date.
        stop = Stop()
        runtime.partners.check_key_at_hand()
        await runtime.check_access()
        await runtime.check_connections(workers)
        if not await runtime.partners.list():
            _say(
                "No partner yet: add one with bibwire partner add NAME --api-key KEY; it is taken up at once."
            )
        await runtime.discover_at_start()
        _say(f"Keeping the mirror fresh with {workers} worker{'s' if workers > 1 else ''}. Ctrl-C ends it.")
        async with _serving(listening, runtime, stop):
            await supervise(workers, stop, grace_seconds=GRACE_SECONDS, pause_seconds=LONGEST_PAUSE_SECONDS)
        return stop.exit_code

    _end(work(do, settings, make=False))


def worker(
    supervised: Annotated[
        bool, typer.Option("--supervised", hidden=True, help="End when standard input ends.")
    ] = False,
    metrics_port: MetricsPortOption = None,
    metrics_host: MetricsHostOption = None,
) -> None:
    """Run one worker, on any machine with the same database, until Ctrl-C."""
    from bibwire.cli.session import read_settings, work
    from bibwire.cli.stop import Stop

    settings = read_settings()
    # The port of the settings is that of `run`, whose workers read the same settings.
    listening = _listen(settings, metrics_port, metrics_host)

    async def do(runtime: Runtime) -> int:
        stop = Stop()
        runtime.partners.check_key_at_hand()
        if not supervised:
            await runtime.check_access()
        if supervised:
            _stop_with_parent(stop)
        else:
            _say("Working for this database, beside any other worker. Ctrl-C ends it.")
        async with _serving(listening, runtime, stop), runtime.open_worker() as worker:
            await worker.run(stop)
        return stop.exit_code

    _end(work(do, settings, make=False), tells=not supervised)


def _end(exit_code: int, *, tells: bool = True) -> NoReturn:
    """Leave with a word to whoever stopped it; `run` tells for its workers."""
    from bibwire.cli.session import WHEN_STOPPED
    from bibwire.cli.terminal import complain

    if exit_code and tells:
        complain(WHEN_STOPPED)
    raise typer.Exit(exit_code)


def _listen(settings: Settings, port: int | None, host: str | None) -> socket.socket | None:
    """Take the port for metrics before anything is started; None: none is wanted."""
    from bibwire.domain.errors import SettingsError

    if port is None:
        if host is not None:
            raise SettingsError("--metrics-host alone serves nothing: add --metrics-port PORT.")
        return None
    from bibwire.cli.metrics_server import listen

    return listen(host or settings.metrics_host, port)


def _serving(
    listening: socket.socket | None, runtime: Runtime, stop: asyncio.Event
) -> AbstractAsyncContextManager[None]:
    """Serve metrics while the command works, where that is wanted."""
    from contextlib import nullcontext

    if listening is None:
        return nullcontext()
    from bibwire.cli.metrics_server import serving

    return serving(listening, runtime.conninfo, stop)


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
