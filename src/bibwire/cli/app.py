"""
The program `bibwire`: its commands, and what becomes of their errors.

Exit codes: 0 all well, 1 failed, 2 wrong use or settings, 3 partly done, 130 stopped by
Ctrl-C (also where something is asked for), 143 by SIGTERM. An error is one sentence on standard
error; `--debug` adds where it came from.
"""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Sequence
from typing import Annotated, Final

import typer

from bibwire.cli import (
    adopt,
    backfill,
    bibs,
    demo,
    discover,
    doctor,
    init,
    lookup,
    metrics,
    partner,
    plan,
    psql,
    reconcile,
    simulate,
    status,
    streams,
    sync,
    verify,
    worker,
)
from bibwire.cli.help import teach
from bibwire.cli.output import make_safe
from bibwire.cli.session import WHEN_STOPPED, ToldToEnd
from bibwire.domain.errors import BibwireError, SettingsError

FAILED = 1
WRONG_USE = 2
STOPPED = 130
TOLD_TO_END = 143
_LONGEST_TYPED = 1000
_LONGEST_WORD = 200

app = typer.Typer(
    name="bibwire",
    help="A live, correct copy of RunSignup registrations in your own PostgreSQL.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from bibwire import __version__

        typer.echo(f"bibwire {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Say which version this is."),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="With an error, say where it came from (a traceback).")
    ] = False,
) -> None:
    """Takes the options of every command; main() has seen to --debug already."""


_MODULES = (
    init,
    doctor,
    sync,
    backfill,
    reconcile,
    verify,
    worker,
    discover,
    plan,
    status,
    bibs,
    lookup,
    metrics,
    psql,
    adopt,
    simulate,
    demo,
)
for _module in _MODULES:
    _module.add_to(app)
app.add_typer(partner.app, name="partner")
teach(app)
teach(partner.app, "partner")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    make_safe()
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Also after the command's name, where people put it once something has failed.
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    streams.open_missing()
    streams.outlast_readers()
    try:
        code = _run(given)
        streams.flush()
        return code
    except KeyboardInterrupt as error:
        # Whoever knows better how to go on says so.
        told = str(error) or WHEN_STOPPED
        _say(told, error, debug)
        return TOLD_TO_END if isinstance(error, ToldToEnd) else STOPPED
    except streams.ReaderGone:
        return 0  # whoever read our output (| head) has seen enough
    except typer.TyperException as error:
        if not error.format_message():
            return WRONG_USE  # no command was named, and the help is shown
        context = getattr(error, "ctx", None)
        where = "bibwire" if context is None else context.command_path
        _say(f"{wrong_use(error)} See {where} --help.", error, debug)
        return error.exit_code
    except typer.Abort as error:  # Ctrl-C, or the end of input, where something was asked for
        _say("stopped, nothing was done.", error, debug)
        return STOPPED
    except Exception as error:
        return _report(error, debug)


def _run(arguments: list[str]) -> int:
    command = typer.main.get_command(app)
    try:
        with command.make_context("bibwire", arguments) as context:
            result = command.invoke(context)
    except typer.Exit as leave:
        return leave.exit_code
    except SystemExit as leave:  # of rsusim's own options
        return leave.code if isinstance(leave.code, int) else 0
    return result if isinstance(result, int) else 0


def _report(error: Exception, debug: bool) -> int:
    known = _first_of_ours(error)
    if known is not None:
        _say(_sentence(str(known)), error, debug)
        return WRONG_USE if isinstance(known, SettingsError) else FAILED
    if _all_of(error, streams.ReaderGone):
        return 0
    system = _of_the_system(error)
    if system is not None:
        _say(_sentence(system), error, debug)
        return FAILED
    told = f"{type(error).__name__}: {error}".splitlines()[0]
    _say(f"failed by a fault of its own ({told}). Please report it, with what --debug says.", error, debug)
    return FAILED


def _all_of(error: BaseException, kind: type[BaseException]) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_all_of(part, kind) for part in error.exceptions)
    return isinstance(error, kind)


def _of_the_system(error: BaseException) -> str | None:
    """Return what to say of an error that the system met us with: full disks, closed outputs and the like."""
    if isinstance(error, BaseExceptionGroup):
        found = [told for part in error.exceptions if (told := _of_the_system(part)) is not None]
        return found[0] if len(found) == len(error.exceptions) else None
    if not isinstance(error, OSError):
        return None
    output = streams.output_error(error)
    if output is not None:
        closed = output.errno == errno.EBADF
        why = "is closed" if closed else f"cannot be written ({output.strerror})"
        return f"Standard output {why}, so that the answer was not shown"
    return streams.explained(error)


def _first_of_ours(error: BaseException) -> BibwireError | None:
    """Find what to tell of in an error, which may be a group of several."""
    if isinstance(error, BibwireError):
        return error
    if isinstance(error, BaseExceptionGroup):
        found = [known for part in error.exceptions if (known := _first_of_ours(part)) is not None]
        return found[0] if len(found) == len(error.exceptions) else None
    return None


# What the library says to programmers, and how we say it.
_LIBRARYS_WORDS: Final = (
    (r"Value error, ", ""),
    (r"Input should be a valid integer, unable to parse string as an integer", "it has to be a whole number"),
    (r"Input should be a valid number, unable to parse string as a number", "it has to be a number"),
    (r"Input should be greater than or equal to (\S+)", r"it has to be \1 or more"),
    (r"Input should be less than or equal to (\S+)", r"it has to be \1 or less"),
)


def wrong_use(error: typer.TyperException) -> str:
    """Return the sentence that says what was typed wrong, without what may be a password."""
    option = str(getattr(error, "option_name", ""))
    if re.fullmatch(r"-\d+", option):
        for name, least in _arguments(error):
            if least is not None:
                return f"{option} is too small: {name} has to be {least} or more."
        return f"{option} may not stand there: a number comes after the option that it is for."
    told = error.format_message()
    # What was typed may be a whole file, and looking through all of it takes minutes.
    is_cut = len(told) > _LONGEST_TYPED
    # A database's address that was taken for something else may hold a password.
    end = r"(?:@|\Z)" if is_cut else "@"
    told = re.sub(rf"(\w+://)\S*{end}", r"\1***@", told[:_LONGEST_TYPED])
    told = re.sub(r"(password\s*=\s*)[^\s)]+", r"\1***", told)
    for words, plainly in _LIBRARYS_WORDS:
        told = re.sub(words, plainly, told)
    told = f"{told}…" if is_cut else told
    names = [name for name, _ in _arguments(error)]
    if re.match(r"-[^-]", option) and "NAME" in names:
        path = getattr(error, "ctx").command_path  # noqa: B009, not every error has it
        told = f"{_sentence(told)} A NAME that starts with a dash comes last: {path} ... -- NAME"
    return _sentence(told)


def _arguments(error: typer.TyperException) -> list[tuple[str, int | None]]:
    """Return the arguments of the command an error is about, each with the least it may be."""
    context = getattr(error, "ctx", None)
    if context is None:
        return []
    return [
        (parameter.metavar or parameter.name, parameter.min)
        for parameter in context.command.params
        if parameter.param_type_name == "argument"
    ]


def _sentence(text: str) -> str:
    from bibwire.cli.terminal import plain

    text = " ".join(
        word if len(word) <= _LONGEST_WORD else f"{word[:_LONGEST_WORD]}…" for word in text.split()
    )
    text = plain(text)
    return text if text.endswith((".", "?", "!", "…")) else f"{text}."


def _say(text: str, error: BaseException, debug: bool) -> None:
    from bibwire.cli.terminal import complain

    if debug:
        import traceback

        complain("".join(traceback.format_exception(error)).rstrip(), prefix="")
    complain(text)
