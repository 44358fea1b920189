"""`bibwire discover`: read the race lists now."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from bibwire.cli.options import JsonOption, PartnerOption

if TYPE_CHECKING:
    from bibwire.engine.upkeep import Found
    from bibwire.runtime import Runtime


def add_to(app: typer.Typer) -> None:
    app.command()(discover)


def discover(partner: PartnerOption = None, json: JsonOption = False) -> None:
    """
    Read the race lists now, for all partners.

    bibwire run does it by itself: the coming races every 15 minutes, all of them at the times of
    BIBWIRE_DISCOVERY_TIMES. New races are loaded by bibwire run at once, or by the next bibwire sync.
    """
    from bibwire.cli import failures
    from bibwire.cli.session import work
    from bibwire.cli.terminal import as_fields, complain, console, print_json, row, table

    idle: str | None = None

    async def do(runtime: Runtime) -> list[Found]:
        nonlocal idle
        idle = await failures.nobody(runtime, partner)
        found = [await runtime.discover(each) for each in await runtime.engine.chosen(partner)]
        await runtime.wake_planner()
        return found

    found = work(do, make=False, repeat=True)
    if json:
        print_json({"partners": [as_fields(each) for each in found]})
    elif found and not all(failures.out_of_reach([each.error or ""]) for each in found):
        numbers = ("races", "new races", "new events")
        shown = table("Race lists", "partner", *numbers, "error", right=numbers)
        for each in found:
            row(shown, (each.partner, each.races, each.new_races, each.new_events, each.error))
        console().print(shown)
    if not found:
        failures.tell_nobody(idle)
    failed = [each for each in found if each.error is not None]
    if failed:
        from bibwire.engine.reports import SyncError

        errors = [SyncError(each.partner, None, each.error or "") for each in failed]
        done = "nothing was read" if len(failed) == len(found) else "not every race list was read"
        complain(failures.sentence(errors, done, "Run it again then."))
        raise typer.Exit(1 if len(failed) == len(found) else 3)
