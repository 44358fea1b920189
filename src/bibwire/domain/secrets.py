"""
Secrets in memory, and the means to keep them out of everything that is written down.

A `Secret` shows itself only through `reveal()`; nothing else (repr, str, format, pickle,
copy to a log's fields) gives the text away. A `Redactor` is the second line: it strikes known
secrets out of text or bodies that came from somewhere else, a vendor that echoes them, say.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal, NoReturn
from urllib.parse import quote, quote_plus

MASK = "***"
REDACTED = "[redacted]"

# A secret of five signs or fewer ("12345") turns up by chance all over a body of millions of
# bytes: striking it out there would damage bibs, ids and names. In our own sentences, where a
# false hit costs one unclear word, it is struck out all the same.
SHORTEST_IN_BODIES = 6
# Digits alone hit ids, and an id with "[redacted]" in it makes the whole body unreadable;
# unless there are more of them than an id can have.
SHORTEST_DIGITS_IN_BODIES = 20
_REDACTED_BYTES = REDACTED.encode()
# Of a body, so much at a time is searched in one step.
_WINDOW = 1 << 20


class Secret:
    """A text that is not to be shown."""

    __slots__ = ("__text",)

    def __init__(self, text: str) -> None:
        self.__text = text

    def reveal(self) -> str:
        """Return the text itself. Call it where it is sent or encrypted, and nowhere else."""
        return self.__text

    def __repr__(self) -> str:
        return f"Secret({MASK})"

    def __str__(self) -> str:
        return MASK

    def __format__(self, format_spec: str) -> str:
        return MASK

    def __bool__(self) -> bool:
        return bool(self.__text)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(_as_bytes(self.__text), _as_bytes(other.__text))

    def __hash__(self) -> int:
        return hash((Secret, self.__text))

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Secret is neither pickled nor copied; pass it on, or reveal() it")


# Whose calls are limited together where there is no caller registration.
NOBODY: Final = Secret("")


@dataclass(frozen=True, slots=True)
class Credential:
    """
    What a partner's calls are authenticated with.

    kind "key": `api_key` and `api_secret`, both in the query. kind "v2": `rsu_api_key` in the
    query and its secret in a header. kind "bearer": `key` is the access token, and there is
    no secret. `variables`: of the environment, which hold it; none: it is the stored one.
    """

    kind: Literal["key", "v2", "bearer"]
    key: Secret
    secret: Secret | None = None
    variables: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if not self.key:
            raise ValueError("a credential needs a key")
        if (self.kind == "bearer") != (self.secret is None):
            raise ValueError("a bearer token has no secret; a key needs one")

    @property
    def fingerprint(self) -> str:
        """Return the last four characters of the key, by which people tell keys apart."""
        return self.key.reveal()[-4:]

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """Return everything that must not be shown, the key included."""
        return (self.key,) if self.secret is None else (self.key, self.secret)


@dataclass(frozen=True, slots=True)
class CallerRegistration:
    """Which software is calling: `registration` is "<id>.<token>", sent with every call."""

    registration: Secret
    secret: Secret

    @property
    def secrets(self) -> tuple[Secret, ...]:
        return (self.registration, self.secret)


class Redactor:
    """
    Strikes known secrets out of text and bodies.

    Each is found as it is, URL-quoted (both ways) and JSON-escaped (with and without `\\/`
    and `\\u` escapes). Longer forms go first, so that no part of one is left behind.
    """

    __slots__ = ("__in_bodies", "__in_text")

    def __init__(self, secrets: Iterable[Secret] = ()) -> None:
        revealed = {secret.reveal() for secret in secrets if secret}
        self.__in_text = _longest_first(form for text in revealed for form in _forms(text))
        self.__in_bodies = tuple(
            _as_bytes(form)
            for form in _longest_first(
                form for text in revealed if len(text) >= _shortest_in_bodies(text) for form in _forms(text)
            )
        )

    def redact_text(self, text: str) -> str:
        """Return `text` with every secret replaced by "[redacted]"."""
        for form in self.__in_text:
            if form in text:
                text = text.replace(form, REDACTED)
        return text

    def redact_bytes(self, body: bytes) -> bytes:
        """Return `body` with every secret that is long enough replaced by "[redacted]"."""
        for form in self.__in_bodies:
            if any(_spans(body, form)):
                body = _without(body, form)
        return body

    def __repr__(self) -> str:
        return f"Redactor({len(self.__in_text)} forms)"


def _spans(body: bytes, form: bytes) -> Iterator[bool]:
    """Tell of each window of a body whether the form begins in it: one call would hold up everything."""
    for start in range(0, len(body), _WINDOW):
        yield body.find(form, start, start + _WINDOW + len(form) - 1) >= 0


def _without(body: bytes, form: bytes) -> bytes:
    """Return a body without the form: by windows too, of which each is one step however often it is found."""
    parts: list[bytes] = []
    start = 0
    while start < len(body):
        end = start + _WINDOW
        over_the_edge = body.find(form, max(start, end - len(form) + 1), end + len(form) - 1)
        if over_the_edge >= 0:
            end = over_the_edge
        parts.append(body[start:end].replace(form, _REDACTED_BYTES))
        if over_the_edge >= 0:
            parts.append(_REDACTED_BYTES)
            end += len(form)
        start = end
    return b"".join(parts)


def _shortest_in_bodies(text: str) -> int:
    return SHORTEST_DIGITS_IN_BODIES if text.isdecimal() else SHORTEST_IN_BODIES


def _as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _forms(text: str) -> set[str]:
    escaped = json.dumps(text)[1:-1]
    as_utf8 = json.dumps(text, ensure_ascii=False)[1:-1]
    quoted = {
        quote(_as_bytes(text), safe=""),
        quote(_as_bytes(text)),
        quote_plus(_as_bytes(text)),
    }
    forms = {text, escaped, as_utf8, *quoted}
    forms |= {form.replace("/", "\\/") for form in (escaped, as_utf8)}
    # Percent escapes are written in either case.
    forms |= {_lower_escapes(form) for form in quoted}
    return forms - {""}


def _lower_escapes(quoted: str) -> str:
    parts = quoted.split("%")
    return "%".join([parts[0], *(part[:2].lower() + part[2:] for part in parts[1:])])


def _longest_first(forms: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(forms), key=lambda form: (-len(form), form)))
