"""
Makes sure that whatever a command says can be written, however few characters its output knows.

A terminal or pipe in ASCII or Latin-1 (LANG=C, PYTHONIOENCODING, an old Windows) has no arrow and
not every name. Such a character is written as its nearest plain one, or as `?`; it never ends a
command. JSON is always UTF-8 and stays exact.
"""

from __future__ import annotations

import codecs
import io
import sys
import unicodedata
from typing import Final

_ERRORS: Final = "bibwire"
# Under its own name ASCII is taken by typer for a mistake, and UTF-8 is written in its place.
_ASCII: Final = "bibwire_ascii"
_NEAREST: Final = {
    "→": "->",
    "←": "<-",
    "…": "...",
    "·": "-",
    "•": "*",
    "–": "-",
    "—": "-",
    "−": "-",
    "×": "x",
    "‘": "'",
    "’": "'",
    "“": '"',
    "”": '"',
    "½": "1/2",
    "⁄": "/",
    "ß": "ss",
    "æ": "ae",
    "Æ": "AE",
    "œ": "oe",
    "Œ": "OE",
    "ø": "o",
    "Ø": "O",
    "ł": "l",
    "Ł": "L",
    "đ": "d",
    "Đ": "D",
    "ı": "i",
}


def make_safe() -> None:
    """
    Let standard output and standard error write any text, and standard input bring any.

    May be called again.
    """
    codecs.register_error(_ERRORS, _replace)
    codecs.register(_find)
    for stream in (sys.stdout, sys.stderr):
        # None under pythonw; something else where a test reads along.
        if isinstance(stream, io.TextIOWrapper):
            is_ascii = codecs.lookup(stream.encoding).name == "ascii"
            stream.reconfigure(encoding=_ASCII if is_ascii else None, errors=_ERRORS)
    if isinstance(sys.stdin, io.TextIOWrapper):
        # What is typed where only ASCII was promised is UTF-8, as everywhere else.
        is_ascii = codecs.lookup(sys.stdin.encoding).name == "ascii"
        sys.stdin.reconfigure(encoding="utf-8" if is_ascii else None, errors="replace")


def nearest(text: str) -> str:
    """Return `text` in ASCII, each character as the plain one it looks most like."""
    return "".join(_nearest(character) for character in text)


def _nearest(character: str) -> str:
    if character.isascii():
        return character
    if character in _NEAREST:
        return _NEAREST[character]
    parts = unicodedata.normalize("NFKD", character)
    plain = "".join(part for part in parts if part.isascii())
    if not plain and unicodedata.category(character) in ("Mn", "Cf"):
        return ""
    return plain or "?"


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return nearest(error.object[error.start : error.end]), error.end


class _Encoder(codecs.IncrementalEncoder):
    def encode(self, text: str, final: bool = False) -> bytes:
        return codecs.ascii_encode(text, self.errors)[0]


def _find(name: str) -> codecs.CodecInfo | None:
    if name != _ASCII:
        return None
    return codecs.CodecInfo(
        codecs.ascii_encode, codecs.ascii_decode, incrementalencoder=_Encoder, name=_ASCII
    )
