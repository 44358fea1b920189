"""`bibwire init`: database made, schema up to date, key at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from bibwire.runtime import Runtime


def add_to(app: typer.Typer) -> None:
    app.command()(init)


def init() -> None:
    """Make the database ready, or bring it up to date; safe to run again."""
    from bibwire.cli.session import read_settings, work
    from bibwire.cli.terminal import counted
    from bibwire.store.migrate import HEAD
    from bibwire.store.vault import KEY_FILE_NAME

    settings = read_settings()

    async def do(runtime: Runtime) -> tuple[str, str, int]:
        runtime.partners.check_key_at_hand()
        await runtime.check_access()
        server = await runtime.reports.server()
        return server.version, server.database, len(await runtime.partners.list())

    version, database, partners = work(do, settings)
    kind = "embedded PostgreSQL" if settings.database_url is None else "PostgreSQL"
    typer.echo(f"Database {database} on {kind} {version} is ready, schema {HEAD}.")
    if settings.database_url is None:
        typer.echo(f"It lives in {settings.home / 'postgres'}.")
    if settings.secret_key is not None:
        typer.echo("Credentials are encrypted with BIBWIRE_SECRET_KEY: keep a copy of it.")
    else:
        path = settings.secret_key_file or settings.home / KEY_FILE_NAME
        typer.echo(
            f"Credentials are encrypted with the key in {path}: keep a copy of it apart from the database's."
        )
    if partners:
        typer.echo(f"{counted(partners, 'partner is', 'partners are')} stored. Next: bibwire sync")
    else:
        typer.echo("Next: bibwire partner add NAME --api-key KEY")
