"""
Which key RunSignup refused: the stored one, or one that the environment names in its place.

Of a refusal only its text is kept. So the text names the variables and the key's last characters, and is
read here again: what was said of the one key is never said of the other. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bibwire.domain.secrets import Credential

REFUSED: Final = "RunSignup does not accept this key"
_GIVEN: Final = re.compile(
    r"RunSignup does not accept the key \.\.\.(?P<fingerprint>.+?) of "
    r"(?P<variables>BIBWIRE_\S+(?: and BIBWIRE_\S+)?)"
)


@dataclass(frozen=True, slots=True)
class GivenKey:
    """A key from the environment: its last characters, and the variables that hold it, as in a sentence."""

    fingerprint: str
    variables: str

    @property
    def remedy(self) -> str:
        """The sentence that says what to do once it is refused."""
        return f"Correct {self.variables}; where they are not set, the stored key is used."


def of_key(said: str, credential: Credential | None) -> str:
    """Return a refusal with the key that it is about, where that is not the stored one."""
    if credential is None or not credential.variables:
        return said
    given = f"...{credential.fingerprint} of {joined(credential.variables)}"
    return said.replace(REFUSED, f"RunSignup does not accept the key {given}", 1)


def given_key(said: str | None) -> GivenKey | None:
    """Return the key from the environment that a refusal is about; None: it is about no such key."""
    found = _GIVEN.search(said or "")
    return None if found is None else GivenKey(found["fingerprint"], found["variables"])


def joined(variables: Sequence[str]) -> str:
    """Return the names of variables as in a sentence."""
    return " and ".join(variables)
