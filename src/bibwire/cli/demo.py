"""
`bibwire demo`: the main job, live, against the simulated vendor, with nothing set up before.

It takes no setting from the environment, so that it can neither meet a real key nor write
into a real database. Whatever ends it, be it kill -9, the server is stopped and its temporary folder
removed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Coroutine

    import rsusim
    from bibwire.api.client import CallMade
    from bibwire.cli.demo_screen import Screen, Stopping
    from bibwire.runtime import Runtime
    from bibwire.settings import Settings

POLL_SECONDS = 2.0
REFRESH_SECONDS = 0.5
# Happenings a second: enough to see, few enough to read.
LIFE_RATE = 1.0
# The simulated keys may call as often as a lively demonstration needs; real ones have 1,000.
CALLS_PER_HOUR = 100_000


def add_to(app: typer.Typer) -> None:
    app.command()(demo)


def demo(
    seconds: Annotated[
        float | None,
        typer.Option("--seconds", metavar="N", min=0, help="End by itself after so long; else by Ctrl-C."),
    ] = None,
    home: Annotated[
        Path | None,
        typer.Option("--home", metavar="DIR", help="Keep database and key here; else in a temporary folder."),
    ] = None,
) -> None:
    """Try all of it: a simulated RunSignup, a database, a first sync, and live changes."""
    from bibwire.cli.demo_screen import Stopping

    stopping = Stopping()
    _show(stopping, seconds, home)
    if stopping.is_early:
        typer.echo("Ended before it had begun.")


def _show(stopping: Stopping, seconds: float | None, home: Path | None) -> None:
    import asyncio
    from datetime import UTC, datetime

    import rsusim
    from bibwire import logs
    from bibwire.cli.demo_guard import guarded
    from bibwire.cli.demo_home import demo_home
    from bibwire.domain.secrets import Secret
    from bibwire.settings import GivenSettings

    logs.set_up(level="ERROR")
    world = rsusim.worlds.lively_demo(now=datetime.now(UTC))
    life = rsusim.Life(world, rate=LIFE_RATE)
    logs.hide(Secret(account.api_secret) for account in world.accounts.values())
    logs.hide(Secret(account.api_key) for account in world.accounts.values())
    with (
        demo_home(home) as folder,
        guarded(folder, remove=home is None),
        rsusim.Server(world, life=life) as vendor,
    ):
        world.clock.run(1.0)
        settings = GivenSettings(home=folder, api_url=vendor.base_url)
        if not stopping.is_early:
            try:
                asyncio.run(_perform(settings, world, seconds, stopping))
            finally:
                stopping.listen()  # whoever is impatient leaves nothing behind either


async def _perform(
    settings: Settings, world: rsusim.World, seconds: float | None, stopping: Stopping
) -> None:
    import asyncio

    from bibwire.cli.demo_screen import Screen
    from bibwire.runtime import open_runtime

    stop = asyncio.Event()
    screen = Screen()

    def end() -> None:
        if not stop.is_set():
            screen.stop()
            stop.set()

    stopping.tell(end)
    screen.say(f"Simulated RunSignup at {settings.api_url}; all names are invented.")
    screen.say(f"Starting an embedded PostgreSQL in {settings.home} ...")
    # Opening and closing are not interrupted: a server half started would be left running.
    async with open_runtime(settings) as runtime:
        await _until(stop, None, _add_partners(runtime, world, screen))
        await _until(stop, None, _first_sync(runtime, screen))
        if not stop.is_set():
            # The time given is for what is to be seen: it runs from the first sync's end.
            with screen:
                await _until(
                    stop, seconds, _poll(runtime, screen), _follow(runtime, screen), _tick(runtime, screen)
                )
    screen.end(f"Ended: {screen.changes:,} changes, {screen.bibs:,} of bibs, with {screen.calls:,} calls.")


async def _add_partners(runtime: Runtime, world: rsusim.World, screen: Screen) -> None:
    from bibwire.cli.terminal import counted
    from bibwire.domain.secrets import Credential, Secret

    for account in world.accounts.values():
        credential = Credential("key", Secret(account.api_key), Secret(account.api_secret))
        asked: list[CallMade] = []
        races = await runtime.check_credential(credential, asked.append)
        screen.calls += sum(call.sent for call in asked)
        await runtime.partners.add(account.name, credential, calls_per_hour=CALLS_PER_HOUR, verified=True)
        screen.say(f"Partner {account.name} is added: its key sees {counted(len(races), 'race')}.")


async def _first_sync(runtime: Runtime, screen: Screen) -> None:
    from bibwire.cli.progress import sync_progress
    from bibwire.cli.sync import show
    from bibwire.engine.reports import SyncRequest

    heads = await runtime.reports.heads()
    with sync_progress() as watch:
        report = await runtime.engine.sync(SyncRequest(full=True), watch=watch)
    screen.calls += report.calls
    show(report, await runtime.reports.loaded_since(heads))
    await _look(runtime, screen)
    screen.say("Now its life goes on, and the mirror follows:")


async def _poll(runtime: Runtime, screen: Screen) -> None:
    """Fetch what changed, again and again."""
    from bibwire.engine.reports import SyncRequest

    while True:
        await runtime.clock.sleep(POLL_SECONDS)
        report = await runtime.engine.sync(SyncRequest())
        screen.calls += report.calls
        screen.trouble = f", {report.errors[0].error}" if report.errors else ""
        await _look(runtime, screen)


async def _look(runtime: Runtime, screen: Screen) -> None:
    """Read how the mirror stands."""
    status = await runtime.reports.status(runs=0)
    screen.people = sum(partner.participants for partner in status.partners)
    loaded = [race.as_of for race in status.races if race.as_of is not None]
    screen.as_of = min(loaded, default=None)


async def _follow(runtime: Runtime, screen: Screen) -> None:
    """Show each change as the feed tells of it."""
    from bibwire.store.follow import follow

    async for change in follow(runtime.reports, since={}, bibs_only=False):
        screen.change(change)


async def _tick(runtime: Runtime, screen: Screen) -> None:
    while True:
        screen.refresh(runtime.clock.now())
        await runtime.clock.sleep(REFRESH_SECONDS)


async def _until(stop: asyncio.Event, seconds: float | None, *work: Coroutine[object, object, None]) -> None:
    """Do `work` until one part of it ends or fails, `stop` is set, or the time is over."""
    import asyncio

    if stop.is_set():
        for part in work:
            part.close()
        return
    stopping = asyncio.create_task(stop.wait())
    tasks = [asyncio.create_task(part) for part in work]
    try:
        await asyncio.wait([*tasks, stopping], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        failed = [error for task in tasks if task.done() and (error := task.exception())]
    finally:
        for task in (*tasks, stopping):
            task.cancel()
        await asyncio.gather(*tasks, stopping, return_exceptions=True)
    if failed:
        raise failed[0]
