"""`bibwire metrics`: what monitors are told, once, on standard output."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from bibwire.runtime import Runtime
    from bibwire.store.metrics import Facts


def add_to(app: typer.Typer) -> None:
    app.command()(metrics)


def metrics() -> None:
    """
    Print the metrics for monitors, in Prometheus' text format.

    For a look by hand, or a cron job whose output the node exporter picks up; bibwire run serves
    the same over HTTP with --metrics-port. A database that cannot be read is told as bibwire_up 0, and
    is exit code 1. docs/metrics.md says what each metric means, and when to raise an alarm.
    """
    from bibwire.cli.exposition import as_text
    from bibwire.cli.session import read_settings, work
    from bibwire.domain.errors import DatabaseUnavailable

    async def do(runtime: Runtime) -> Facts:
        from bibwire.store.metrics import read

        return await read(runtime.conninfo)

    settings = read_settings(summary=True)
    try:
        found = work(do, settings, make=False)
    except DatabaseUnavailable:
        typer.echo(as_text(None), nl=False)
        raise
    typer.echo(as_text(found), nl=False)
