"""`bibwire psql`: PostgreSQL's own command line on the mirror."""

from __future__ import annotations

import typer


def add_to(app: typer.Typer) -> None:
    app.command(
        context_settings={
            "ignore_unknown_options": True,
            "allow_extra_args": True,
            # -h is psql's own.
            "help_option_names": ["--help"],
        },
        options_metavar="[ARGS]...",
    )(psql)


def psql(context: typer.Context) -> None:
    """
    Open psql on the mirror; an embedded database runs as long as it is open.

    What follows is handed on to psql: bibwire psql -c 'SELECT count(*) FROM bibwire.participants'
    """
    from bibwire.cli.session import check_database_made, read_settings
    from bibwire.store import embedded
    from bibwire.store.psql import run

    settings = read_settings()
    if settings.database_url is not None:
        raise typer.Exit(run(settings.database_url.reveal(), context.args, embedded=False))
    check_database_made(settings)
    with embedded.start(settings.home) as server:
        code = run(server.conninfo, context.args, embedded=True)
    raise typer.Exit(code)
