"""
HTTP content codings -> the bytes that were meant. Pure.

A body comes in pieces and goes out in pieces, none larger than `PIECE_BYTES`: a packed body of a few
kilobytes may hold gigabytes, so whoever unpacks can stop, and let others have a turn, after each.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

# What is asked for; others are refused by name.
ACCEPTED: Final = "gzip, deflate"
PIECE_BYTES: Final = 256 * 1024
# Of what is packed: what follows a gzip member is copied, and a piece may hold a thousand of them.
PACKED_BYTES: Final = 16 * 1024

_GZIP: Final = frozenset({"gzip", "x-gzip"})
_PLAIN: Final = frozenset({"", "identity", "none"})
# Two are a proxy in front of a server that packed already; more are a joke.
_MOST_CODINGS: Final = 3
_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS
_RAW_WINDOW: Final = -zlib.MAX_WBITS


class UnknownCoding(Exception):
    """A coding that was not asked for; its text is the coding's name, made safe to show."""


class BrokenCoding(Exception):
    """What is packed is damaged, or cut off."""


class _Coding(Protocol):
    def unpack(self, piece: bytes) -> Iterator[bytes]: ...

    def end(self) -> None:
        """Raise BrokenCoding if more should have come."""


class Unpacker:
    """
    Undoes the codings of one body.

    Args:
        names: The value of `Content-Encoding`; "" without one.

    Raises:
        UnknownCoding: One of them is not known.
    """

    def __init__(self, names: str) -> None:
        codings: list[_Coding] = []
        for name in reversed(names.lower().split(",")):
            name = name.strip()
            if name in _PLAIN:
                continue
            if name not in _GZIP | {"deflate"} or len(codings) == _MOST_CODINGS:
                raise UnknownCoding(_safe(name))
            codings.append(_Gzip() if name in _GZIP else _Deflate())
        self._codings = codings

    def unpack(self, piece: bytes) -> Iterator[bytes]:
        """Yield what a piece of the body gives."""
        return _through(self._codings, piece)

    def end(self) -> None:
        """
        Check that the body was complete.

        Raises:
            BrokenCoding: It was not.
        """
        for coding in self._codings:
            coding.end()


def _through(codings: Sequence[_Coding], piece: bytes) -> Iterator[bytes]:
    if not codings:
        yield piece
        return
    for part in codings[0].unpack(piece):
        yield from _through(codings[1:], part)


def _safe(name: str) -> str:
    return "".join(sign for sign in name if sign.isascii() and (sign.isalnum() or sign in "-_."))[:20]


class _Gzip:
    """One member or several, one after the other; zeros may fill up the end."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP_WINDOW)
        self._is_inside = self._has_ended = False

    def unpack(self, piece: bytes) -> Iterator[bytes]:
        while piece:
            if not self._is_inside:
                if self._has_ended:
                    piece = piece.lstrip(b"\0")
                    if not piece:
                        return
                self._member = zlib.decompressobj(_GZIP_WINDOW)
                self._is_inside = True
            yield from _decompressed(self._member, piece)
            piece = self._member.unused_data
            if self._member.eof:
                self._is_inside, self._has_ended = False, True

    def end(self) -> None:
        if self._is_inside:
            raise BrokenCoding


class _Deflate:
    """With the header of zlib, as the standard wants it, or without, as some send it."""

    def __init__(self) -> None:
        self._head = b""
        self._stream: zlib._Decompress | None = None
        self._is_empty = True

    def unpack(self, piece: bytes) -> Iterator[bytes]:
        self._is_empty = False
        if self._stream is None:
            self._head += piece
            if len(self._head) < 2:
                return
            piece = self._head
            has_header = piece[0] & 0x0F == 8 and int.from_bytes(piece[:2], "big") % 31 == 0
            self._stream = zlib.decompressobj(zlib.MAX_WBITS if has_header else _RAW_WINDOW)
        if not self._stream.eof:
            yield from _decompressed(self._stream, piece)

    def end(self) -> None:
        if not self._is_empty and (self._stream is None or not self._stream.eof):
            raise BrokenCoding


def _decompressed(stream: zlib._Decompress, piece: bytes) -> Iterator[bytes]:
    try:
        while True:
            part = stream.decompress(piece, PIECE_BYTES)
            if part:
                yield part
            piece = stream.unconsumed_tail
            if stream.eof or (not piece and len(part) < PIECE_BYTES):
                return
    except zlib.error:
        raise BrokenCoding from None
