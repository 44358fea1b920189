"""
The three standard streams as a command finds them, and what becomes of errors of the system.

A stream may be closed, be a pipe that nobody reads, or stand on a disk that is full; the process may
have hardly any descriptors, or stand in a folder that was removed. Each is said in a sentence.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys

# Files, connections to PostgreSQL and RunSignup, and what the libraries need: about forty.
LEAST_DESCRIPTORS = 64
WANTED_DESCRIPTORS = 1024

# Why standard output could not be written.
_lost: OSError | None = None


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
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()


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
