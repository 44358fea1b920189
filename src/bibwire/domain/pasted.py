"""
What people paste: taken as they meant it, and told what came along.

A web page, a mail or a chat adds characters that nobody sees; an env file keeps the quotes around
a value; a password makes an address ambiguous. None of it may end in a stored key or in an error
about something else. Pure; no message here repeats what was pasted but for the odd character.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

AROUND: Final = "quotes around it"
_QUOTES: Final = {'"': '"', "'": "'", "“": "”", "‘": "’", "„": "“", "`": "`"}
_INVISIBLE_NAMES: Final = {"\ufeff": "a byte order mark", "\u00a0": "a non-breaking space"}
# Spaces that are none to the eye or not to a program. The usual ones at the ends are nobody's business.
_ORDINARY_SPACES: Final = " \t\r\n\f\v"


@dataclass(frozen=True, slots=True)
class Pasted:
    """A text as it was meant. `found`: what was taken out of it, for people; None: nothing to tell."""

    text: str
    found: str | None = None


def clean(pasted: str, *, inside: bool = True) -> Pasted:
    """
    Take out what cannot be seen, and quotes around the whole.

    Args:
        inside: Whether also between other characters. Not in a path: some scripts need joiners.
    """
    kept = pasted
    found: list[str] = []
    while True:
        before = kept
        kept = kept.strip(_ORDINARY_SPACES)
        if kept and (is_invisible(kept[0]) or is_invisible(kept[-1])):
            odd = kept[0] if is_invisible(kept[0]) else kept[-1]
            found.append(_named(odd))
            kept = kept.removeprefix(odd).removesuffix(odd)
        elif len(kept) > 1 and _QUOTES.get(kept[0]) == kept[-1]:
            found.append(AROUND)
            kept = kept[1:-1]
        if kept == before:
            break
    if inside:
        found += [_named(character) for character in kept if is_invisible(character)]
        kept = "".join(character for character in kept if not is_invisible(character))
    return Pasted(kept, " and ".join(dict.fromkeys(found)) or None)


def is_invisible(character: str) -> bool:
    """Whether nobody sees it and no key, address or number has it."""
    if character in _ORDINARY_SPACES:
        return False
    # Format characters, and every other kind of space.
    return unicodedata.category(character) in ("Cf", "Zs", "Zl", "Zp")


def oddity(text: str) -> str | None:
    """
    Say which character of a cleaned key cannot be one of a key; None: all can.

    Keys, secrets and tokens are printable ASCII without spaces: another character came from a
    word processor (a dash, a quote) or was typed on another keyboard.
    """
    for character in text:
        if not (character.isascii() and character.isprintable()) or character == " ":
            return _named(character)
    return None


def database_url(text: str) -> str:
    """
    Return a PostgreSQL address as libpq reads it.

    Names of drivers in it (`postgresql+psycopg://`, as SQLAlchemy writes them) are dropped, and the
    characters of a password that end it too early (`@`, `/`, `?`, `%`) are quoted where the address
    can be read in no other way.
    """
    text = re.sub(r"^(postgres(?:ql)?)\+\w+://", r"\1://", text)
    if not re.match(r"postgres(?:ql)?://", text) or _URL.fullmatch(text):
        return text
    ambiguous = _USER_AND_PASSWORD.fullmatch(text)
    if ambiguous is None:
        return text
    start, password, rest = ambiguous.groups()
    password = re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", password)
    return start + quote(password, safe="%!$&'()*+,;=:~._-") + rest


def is_clear(url: str) -> bool:
    """Whether an address (a URL) can be read in one way only."""
    return _URL.fullmatch(url) is not None


# An address that is as it should be: whoever is before the only @ is quoted.
_HOST: Final = r"(?:[^/@?#:,\[\]]*|\[[0-9a-fA-F:.]*\])(?::\d*)?"
_HOSTS: Final = rf"{_HOST}(?:,{_HOST})*"
_PATH: Final = r"(?:/[^@?]*)?(?:\?.*)?"
_QUOTED: Final = r"(?:[^/@?#%]|%[0-9A-Fa-f]{2})*"
_URL: Final = re.compile(rf"\w+://(?:{_QUOTED}@)?{_HOSTS}{_PATH}", re.DOTALL)
# One whose password is not: it goes to the last @ that a host can follow.
_USER_AND_PASSWORD: Final = re.compile(rf"(\w+://[^/@?#:]+:)(?!\d+[/?,])(.+)(@{_HOSTS}{_PATH})", re.DOTALL)


def _named(character: str) -> str:
    name = _INVISIBLE_NAMES.get(character)
    if name is None:
        known = unicodedata.name(character, "").lower()
        article = "an" if known[:1] in tuple("aeio") else "a"
        name = f"{article} {known}" if known else "a control character"
    return f"{name} (U+{ord(character):04X})"
