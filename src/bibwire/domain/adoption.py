"""
What can be taken over from the original, and what is wrong with the rest. Pure.

The original is the system that many move in from: credentials in clear text, and participants
with duplicates, rows that nobody can tell apart, and people who left long ago. Nothing of its
participants is copied; they are only judged, so that whoever moves sees why the numbers differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Final, Literal

from bibwire.domain import pasted
from bibwire.domain.errors import BadRecord
from bibwire.domain.secrets import Credential, Secret

MOST_CALLS_PER_HOUR: Final = 1_000_000
# The last four characters of less would be too much of it.
SHORTEST_WITH_FINGERPRINT: Final = 12

# What stands in credential_type, without case and signs between words, and what it is to us.
_KINDS: Final[Mapping[str, Literal["key", "v2", "bearer"]]] = {
    "": "key",
    "key": "key",
    "apikey": "key",
    "apikeysecret": "key",
    "keysecret": "key",
    "apikeyandsecret": "key",
    "v1": "key",
    "apikeyv1": "key",
    "v2": "v2",
    "apikeyv2": "v2",
    "rsuapikey": "v2",
    "bearer": "bearer",
    "bearertoken": "bearer",
    "accesstoken": "bearer",
    "token": "bearer",
}


def is_runsignup(provider: str | None) -> bool:
    """Whether a provider of that name is RunSignup. Its number differs from one database to the next."""
    return "runsignup" in re.sub(r"[^a-z0-9]", "", (provider or "").casefold())


def calls_per_hour(rate_limit: object, default: int) -> int:
    """Return the provider's calls an hour where that is a number that can be meant, else `default`."""
    if type(rate_limit) is int and 1 <= rate_limit <= MOST_CALLS_PER_HOUR:
        return rate_limit
    return default


def map_credential(
    principal: str | None, secret: str | None, credential_type: str | None, config: object
) -> Credential:
    """
    Return the credential that a row of the original holds.

    Args:
        config: Its additional_config, which may name the kind, and hold an access token.

    Raises:
        BadRecord: It holds none that RunSignup's API takes; the text shows nothing of it.
    """
    named = config if isinstance(config, Mapping) else {}
    said = named.get("kind") or credential_type or ""
    kind = _KINDS.get(re.sub(r"[^a-z0-9]", "", str(said).casefold()))
    token = named.get("access_token")
    if kind is None and isinstance(token, str) and token.strip():
        kind = "bearer"
    if kind is None:
        # What stands there may be anything, a secret put into the wrong column as well.
        raise BadRecord("its credential_type is none that Bibwire knows: an API key, v2 or bearer")
    if kind == "bearer":
        text = token if isinstance(token, str) and token.strip() else (secret or principal)
        return Credential(kind, _word(text, "access token"))
    return Credential(kind, _word(principal, "API key (principal)"), _word(secret, "API secret (secret)"))


def _word(text: str | None, what: str) -> Secret:
    text = pasted.clean(text or "").text
    if not text:
        raise BadRecord(f"its {what} is empty")
    if len(text.split()) > 1 or not text.isprintable():
        raise BadRecord(f"its {what} is not one word")
    if odd := pasted.oddity(text):
        raise BadRecord(f"its {what} holds {odd}, which no key has")
    return Secret(text)


def fingerprint(text: str | None) -> str | None:
    """Return the last four characters of a key; None where there is none, or four would be much of it."""
    text = (text or "").strip()
    return text[-4:] if len(text) >= SHORTEST_WITH_FINGERPRINT else None


@dataclass(frozen=True, slots=True)
class Listed:
    """
    The rows of one partner in the original.

    `by_event` holds the registration ids by event (None: of no event); `repeated` are rows of an id
    that another row has as well, `unnumbered` those without an id.
    """

    rows: int = 0
    repeated: int = 0
    unnumbered: int = 0
    by_event: Mapping[int | None, Set[int]] | None = None

    @property
    def registrations(self) -> Set[int]:
        """Every registration id, once."""
        return set().union(*(self.by_event or {}).values())


@dataclass(frozen=True, slots=True)
class Mirrored:
    """What our mirror of one partner holds: events it is complete for, and who is active and in which."""

    events: Set[int]
    active: Mapping[int, int | None]


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    What one partner's rows in the original are worth.

    `trusted` rows are one a registration, without `ghosts`: people it holds for active and the vendor
    does not list. Only those in events that the mirror has loaded are `compared`; `lacking` are
    active at the vendor, in those events, and not there at all. Both are None where no event is loaded.
    """

    rows: int
    trusted: int
    duplicates: int
    null_registration_ids: int
    compared: int
    not_compared: int
    ghosts: int | None
    lacking: int | None


def judge(listed: Listed, mirrored: Mirrored | None = None) -> Verdict:
    """Judge a partner's rows; without a mirror none of them is compared."""
    known = listed.registrations
    events = mirrored.events if mirrored is not None else frozenset[int]()
    active = mirrored.active if mirrored is not None else {}
    compared = _ids(listed, events)
    ghosts = compared - active.keys()
    lacking = {number for number, event in active.items() if event in events} - known
    return Verdict(
        rows=listed.rows,
        trusted=len(known) - len(ghosts),
        duplicates=listed.repeated,
        null_registration_ids=listed.unnumbered,
        compared=len(compared),
        not_compared=len(known) - len(compared),
        ghosts=len(ghosts) if events else None,
        lacking=len(lacking) if events else None,
    )


def _ids(listed: Listed, events: Iterable[int]) -> set[int]:
    by_event = listed.by_event or {}
    return {number for event in events for number in by_event.get(event, ())}
