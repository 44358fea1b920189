"""
Standard output and error that outlast whoever reads them.

A server goes on when nobody reads its first line any more (`| head -1`), and a command ends with its own exit
code, where Python would end with 120 because it could not write the rest.
"""

import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Outlasting(io.FileIO):
    def write(self, text: "ReadableBuffer", /) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return memoryview(text).nbytes


def outlast_readers() -> None:
    """Let what cannot be written because nobody reads it go nowhere."""
    sys.stdout, sys.stderr = _outlasting(sys.stdout), _outlasting(sys.stderr)


def _outlasting(stream: TextIO) -> TextIO:
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    stream.flush()
    outlasting = _Outlasting(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        # With PYTHONUNBUFFERED nothing waits in between.
        outlasting if isinstance(stream.buffer, io.FileIO) else io.BufferedWriter(outlasting),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
