"""What every command that works begins with: settings, logs, the runtime."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from bibwire.runtime import Runtime
    from bibwire.settings import Settings

T = TypeVar("T")


def read_settings(*, summary: bool = False) -> Settings:
    """
    Read the settings, and start the logs with all their secrets known.

    Args:
        summary: The command says itself what it did: on a terminal only warnings are shown besides,
            unless a level is set.
    """
    import sys

    from bibwire import logs
    from bibwire.cli.terminal import complain
    from bibwire.settings import load_settings

    settings = load_settings(warn=complain)
    logs.hide(settings.secrets())
    quiet = summary and sys.stderr.isatty() and "log_level" not in settings.model_fields_set
    # Never more than the level asked for, which is INFO here.
    shown = "WARNING" if quiet else None
    logs.set_up(level=settings.log_level, log_file=settings.log_file, shown=shown)
    return settings


class ToldToEnd(KeyboardInterrupt):
    """SIGTERM, or the terminal was closed: stop in order, as on Ctrl-C."""


def work(do: Callable[[Runtime], Awaitable[T]], settings: Settings | None = None, *, make: bool = True) -> T:
    """
    Open the runtime, do `do` with it, close all; return what it returned.

    Args:
        make: Whether an embedded database that is not there yet is made.
    """
    import asyncio

    settings = settings or read_settings()
    _check_home(settings)
    if not make:
        check_database_made(settings)
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


def check_database_made(settings: Settings) -> None:
    """
    Find out that the embedded database was never made: nothing can be read from it.

    Raises:
        DatabaseUnavailable: It was not.
    """
    from bibwire.domain.errors import DatabaseUnavailable

    _check_home(settings)
    if settings.database_url is None and not (settings.home / "postgres" / "data").exists():
        raise DatabaseUnavailable(
            f"There is no database at {settings.home} yet: run bibwire init, or name the right folder in "
            "BIBWIRE_HOME or a server in BIBWIRE_DATABASE_URL."
        )


def _check_home(settings: Settings) -> None:
    from bibwire.domain.errors import SettingsError

    if settings.home.exists() and not settings.home.is_dir():
        raise SettingsError(f"BIBWIRE_HOME has to be a folder, and {settings.home} is a file.")


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
