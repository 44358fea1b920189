"""What every command that works begins with: settings, logs, the runtime."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
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
    from bibwire.cli.streams import check_descriptors
    from bibwire.cli.terminal import complain
    from bibwire.domain.errors import SettingsError
    from bibwire.settings import load_settings

    too_few = check_descriptors()
    if too_few is not None:
        raise SettingsError(too_few)
    settings = load_settings(warn=complain)
    logs.hide(settings.secrets())
    quiet = summary and sys.stderr.isatty() and "log_level" not in settings.model_fields_set
    # Never more than the level asked for, which is INFO here.
    shown = "WARNING" if quiet else None
    logs.set_up(level=settings.log_level, log_file=settings.log_file, shown=shown)
    return settings


# Of a command that was stopped, where nobody knows better how to go on.
WHEN_STOPPED = "stopped. Nothing is lost: the next run goes on where this one was."


class ToldToEnd(KeyboardInterrupt):
    """SIGTERM, or the terminal was closed: stop in order, as on Ctrl-C."""


def work(
    do: Callable[[Runtime], Awaitable[T]],
    settings: Settings | None = None,
    *,
    make: bool = True,
    repeat: bool = False,
) -> T:
    """
    Open the runtime, do `do` with it, close all; return what it returned.

    Args:
        make: Whether an embedded database that is not there yet is made.
        repeat: Whether `do` may be done twice, and takes long: it waits for a database that goes away in
            its middle. Everything else says at once that it did.
    """
    import asyncio

    settings = settings or read_settings()
    _check_home(settings)
    if not make:
        check_database_made(settings)
    elif not _is_made(settings):
        from bibwire.cli.terminal import complain

        # Where the home was mistyped, that is how one finds out.
        complain(f"making a new database in {settings.home} ...", prefix="")
    _check_key(settings)

    async def inside() -> T:
        from bibwire.runtime import open_runtime

        _cancel_on_signals()
        async with open_runtime(settings) as runtime:
            if not repeat:
                return await do(runtime)
            from bibwire.engine.patience import Patience

            return await Patience(runtime.db)(lambda: do(runtime))

    try:
        return asyncio.run(inside())
    except asyncio.CancelledError:
        raise ToldToEnd from None


@contextmanager
def asking() -> Iterator[None]:
    """
    Let signals end the command at once while it waits for somebody to type, in the middle of `work`.

    The event loop, which hears of them otherwise, stands still meanwhile.
    """
    import signal

    told = False

    def told_to_end(*_: object) -> None:
        nonlocal told
        told = True
        raise KeyboardInterrupt

    before = {}
    loops = signal.set_wakeup_fd(-1)
    for name, handler in (
        ("SIGINT", signal.default_int_handler),
        ("SIGTERM", told_to_end),
        ("SIGHUP", told_to_end),
    ):
        number = getattr(signal, name, None)
        # What nohup switched off stays off.
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, handler)
    try:
        yield
    except BaseException:
        # Whatever the library that asks has made of it.
        if told:
            raise ToldToEnd("stopped, nothing was done.") from None
        raise
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
        signal.set_wakeup_fd(loops, warn_on_full_buffer=False)


def check_database_made(settings: Settings) -> None:
    """
    Find out that the embedded database was never made: nothing can be read from it.

    Raises:
        DatabaseUnavailable: It was not.
    """
    from bibwire.domain.errors import DatabaseUnavailable

    _check_home(settings)
    if not _is_made(settings):
        raise DatabaseUnavailable(
            f"There is no database at {settings.home} yet: run bibwire init, or name the right folder in "
            "BIBWIRE_HOME or a server in BIBWIRE_DATABASE_URL."
        )


def _is_made(settings: Settings) -> bool:
    return settings.database_url is not None or (settings.home / "postgres" / "data").exists()


def _check_home(settings: Settings) -> None:
    """
    Find out that the home cannot be used, before anything is done there.

    Raises:
        SettingsError: It cannot.
    """
    import os

    from bibwire.domain.errors import SettingsError

    home = settings.home
    try:
        exists = home.exists()
        stands_on = next(path for path in (home, *home.parents) if path.exists())
        is_folder = stands_on.is_dir()
    except OSError as error:
        why = os.strerror(error.errno or 0).lower()
        raise SettingsError(
            f"BIBWIRE_HOME cannot be used, {home}: {why}. Run Bibwire as the user who owns it, give that "
            "user access, or name another folder."
        ) from None
    if not is_folder:
        where = "" if exists else f", not {home}"
        what = "a file" if stands_on.is_file() else "no folder"
        raise SettingsError(f"BIBWIRE_HOME has to be a folder{where}, and {stands_on} is {what}.")
    if exists and not os.access(home, os.R_OK | os.X_OK):
        raise SettingsError(
            f"BIBWIRE_HOME cannot be read, {home}: run Bibwire as the user who owns it, or give the user "
            "it runs as access."
        )


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
