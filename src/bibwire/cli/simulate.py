"""`bibwire simulate`: the simulated vendor alone. What follows is handed on to rsusim."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import typer

if TYPE_CHECKING:
    from rsusim.world import World


def add_to(app: typer.Typer) -> None:
    app.command(
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
    )(simulate)


def simulate(context: typer.Context) -> None:
    """Serve a simulated RunSignup on this machine, to try everything without an account."""
    from rsusim.__main__ import main

    def refuse(message: str) -> NoReturn:
        raise WrongUse(message, ctx=context)

    raise typer.Exit(main(context.args, program="bibwire simulate", introduce=introduce, refuse=refuse))


class WrongUse(typer.BadParameter):
    """What was typed, in the simulator's words."""

    def format_message(self) -> str:
        """Return its words alone, without those that are put in front of a value."""
        return self.message[:1].upper() + self.message[1:]


def introduce(world: World, base_url: str) -> str:
    """Return who can be mirrored from here, and what to type for it."""
    from bibwire.store.partners import partner_command

    accounts = list(world.accounts.values())
    lines = [f"RunSignup is simulated at {base_url}; all people are invented. Ctrl-C ends it.", ""]
    for account in accounts:
        lines += [account.name, f"  key     {account.api_key}", f"  secret  {account.api_secret}"]
    first = accounts[0]
    lines += [
        "",
        f"To mirror {first.name}, paste into another terminal, and type the secret when asked:",
        f"  export BIBWIRE_API_URL={base_url}",
        f"  {partner_command('add', first.name, options=f'--api-key {first.api_key}')}",
    ]
    return "\n".join(lines)
