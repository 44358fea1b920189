"""
The three standard streams as a command finds them, and what becomes of errors of the system.

A stream may be closed, be a pipe that nobody reads, or stand on a disk that is full; the process may
have hardly any descriptors, or stand in a folder that was removed. Each is said in a sentence.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# Files, connections to PostgreSQL and RunSignup, and what the libraries need: about forty.
LEAST_DESCRIPTORS = 64
WANTED_DESCRIPTORS = 1024

# How often one who has nothing to write looks whether somebody still reads.
LOOK_SECONDS = 1.0

# Why standard output could not be written.
_lost: OSError | None = None
# Whether whoever read standard output (| head) has seen enough.
_is_unread = False


class ReaderGone(Exception):
    """Nobody reads standard output any more, and the command does nothing but write there."""


def open_missing() -> None:
    """
    Give the streams that are closed something to stand on.

    Without it the next file that is opened would be taken for standard output. What is read finds its
    end, what is complained goes nowhere, and what is written to standard output fails as it should.
    """
    for number, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, flags)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)


class _Outlasting(io.FileIO):
    """
    The descriptor of standard output or error, for a command that outlasts whoever reads it.

    What nobody reads any more goes nowhere, and the command ends with the code it would have ended with.
    Of standard error that holds for whatever cannot be written: there is nobody to tell.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)

    def write(self, text: ReadableBuffer, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            if self.fileno() == 1 and not isinstance(error, BrokenPipeError):
                raise
        global _is_unread
        _is_unread = _is_unread or self.fileno() == 1
        _send_nowhere(self.fileno())
        return memoryview(text).nbytes


def outlast_readers() -> None:
    """Let no command fail, nor Python at its end, because whoever read what it says is gone."""
    sys.stdout, sys.stderr = _outlasting(sys.stdout, 1), _outlasting(sys.stderr, 2)


def _outlasting(stream: TextIO, descriptor: int) -> TextIO:
    # Something else stands there where a test reads along, and at a Windows console.
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    raw = getattr(stream.buffer, "raw", stream.buffer)
    if type(raw) is not io.FileIO or raw.fileno() != descriptor:
        return stream
    stream.flush()
    outlasting = _Outlasting(descriptor)
    return io.TextIOWrapper(
        # With PYTHONUNBUFFERED nothing waits in between.
        outlasting if raw is stream.buffer else io.BufferedWriter(outlasting),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def check_reader() -> None:
    """
    End a command that does nothing but write, once nobody reads that.

    Raises:
        ReaderGone: Nobody does.
    """
    if _is_unread:
        raise ReaderGone


@contextlib.asynccontextmanager
async def while_read() -> AsyncIterator[None]:
    """
    End the block within a second or two of the end of whoever reads standard output.

    A pipe or socket whose reader is gone is known at once, without a write: what is followed may be quiet.

    Raises:
        ReaderGone: Nobody reads it any more.
    """
    import asyncio

    block = asyncio.current_task()
    assert block is not None
    gone = False

    async def look() -> None:
        nonlocal gone
        while not gone:
            await asyncio.sleep(LOOK_SECONDS)
            gone = _has_lost_its_reader()
        block.cancel()

    looking = asyncio.create_task(look())
    try:
        yield
    except asyncio.CancelledError:
        if gone and not block.uncancel():
            raise ReaderGone from None
        raise
    finally:
        looking.cancel()


def _has_lost_its_reader() -> bool:
    import select

    if _is_unread or not hasattr(select, "poll"):
        return _is_unread
    poll = select.poll()
    try:
        # Errors and the other end's hanging up are told unasked.
        poll.register(sys.stdout.fileno(), 0)
    except (OSError, ValueError):
        return False
    return any(found & (select.POLLERR | select.POLLHUP) for _, found in poll.poll(0))


def flush() -> None:
    """
    Write out what is to be written.

    Raises:
        OSError: It cannot be; nothing more is written then, not by Python at its end either.
    """
    global _lost
    try:
        sys.stdout.flush()
    except OSError as error:
        _lost = error
        drop_output()
        raise


def drop_output() -> None:
    """Send what is left of standard output nowhere: Python would complain when it flushes it at its end."""
    _send_nowhere(1)
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()


def _send_nowhere(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def output_error(error: OSError) -> OSError | None:
    """Return why standard output cannot be written, if that is what an error may mean; None: it can."""
    if error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EBADF, errno.EIO):
        try:
            flush()
            # What met the error may have thrown away what it was to write: only writing tells.
            os.write(1, b"\n")
        except OSError as met:
            drop_output()
            return met
    return _lost


def check_descriptors() -> str | None:
    """Make sure of enough descriptors; return what to say where there are too few."""
    if sys.platform == "win32":
        return None
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= LEAST_DESCRIPTORS or soft == resource.RLIM_INFINITY:
        return None
    wanted = WANTED_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, WANTED_DESCRIPTORS)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    if soft >= LEAST_DESCRIPTORS:
        return None
    return (
        f"This process may open {soft} files, and Bibwire needs {LEAST_DESCRIPTORS}: raise the limit with "
        f"ulimit -n {WANTED_DESCRIPTORS}, or LimitNOFILE of the service."
    )


def explained(error: OSError) -> str | None:
    """Return what to say of an error of the system; None: it may be a fault of ours."""
    name = error.filename if isinstance(error.filename, str | bytes) else None
    where = "" if name is None else f" {os.fsdecode(name)}"
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            what = f":{where} cannot be written" if where else ""
            return f"The disk is full{what}. Make room, then try again."
        case errno.EROFS:
            return f"The disk of{where or ' this folder'} is read-only."
        case errno.EMFILE | errno.ENFILE:
            return (
                "Too many files are open: raise the limit with "
                f"ulimit -n {WANTED_DESCRIPTORS}, or LimitNOFILE of the service."
            )
        case errno.ENOMEM:
            return "This computer has no memory left: end other programs, then try again."
        case errno.EIO:
            return f"The disk of{where or ' this folder'} cannot be read or written: check its health."
        case errno.EACCES | errno.EPERM if where:
            return f"Bibwire may not use{where}: run it as the user who owns it, or give that user access."
        case errno.ENAMETOOLONG | errno.ELOOP | errno.ENOTDIR | errno.EISDIR | errno.ENOENT if where:
            return f"{where.strip()} cannot be used: {os.strerror(error.errno).lower()}."
    return None
