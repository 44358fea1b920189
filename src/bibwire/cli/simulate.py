"""`bibwire simulate`: the simulated vendor alone. What follows is handed on to rsusim."""

from __future__ import annotations

import typer


def add_to(app: typer.Typer) -> None:
    app.command(
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
    )(simulate)


def simulate(context: typer.Context) -> None:
    """Serve a simulated RunSignup on this machine; options are those of python -m rsusim."""
    from rsusim.__main__ import main

    raise typer.Exit(main(context.args))
