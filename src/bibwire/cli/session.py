"""What every command that works begins with: settings, logs, the runtime."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from bibwire.runtime import Runtime
    from bibwire.settings import Settings

T = TypeVar("T")


def read_settings() -> Settings:
    """Read the settings, and start the logs with all their secrets known."""
    from bibwire import logs
    from bibwire.cli.terminal import complain
    from bibwire.settings import load_settings

    settings = load_settings(warn=complain)
    logs.hide(settings.secrets())
    logs.set_up(level=settings.log_level, log_file=settings.log_file)
    return settings


class ToldToEnd(KeyboardInterrupt):
    """SIGTERM, or the terminal was closed: stop in order, as on Ctrl-C."""


def work(do: Callable[[Runtime], Awaitable[T]], settings: Settings | None = None) -> T:
    """Open the runtime, do `do` with it, close all; return what it returned."""
    import asyncio

    settings = settings or read_settings()
    _check_key(settings)

    async def inside() -> T:
        from bibwire.runtime import open_runtime

        _cancel_on_signals()
        async with open_runtime(settings) as runtime:
            return await do(runtime)

    try:
        return asyncio.run(inside())
    except asyncio.CancelledError:
        raise ToldToEnd from None


def _check_key(settings: Settings) -> None:
    """Find out that a key that was named cannot be used, before a database is made."""
    from bibwire.store.vault import load_key

    if settings.secret_key is not None or settings.secret_key_file is not None:
        load_key(key=settings.secret_key, key_file=settings.secret_key_file, home=settings.home)


def _cancel_on_signals() -> None:
    import asyncio
    import contextlib
    import signal

    task = asyncio.current_task()
    assert task is not None
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        # What nohup switched off stays off; Windows has no such handlers.
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            with contextlib.suppress(NotImplementedError):
                asyncio.get_running_loop().add_signal_handler(number, task.cancel)
