"""
Accounts (timing partners) and the credentials the reference knows (section 2).

Keys look random but come from the world's seed, so that a run can be repeated to the byte.
"""

import base64
import hashlib
from dataclasses import dataclass, field

ACCESS_TOKEN_SECONDS = 2_592_000  # section 2: 30 days
CODE_SECONDS = 300  # section 2: an authorisation code lives 5 minutes


@dataclass(frozen=True, slots=True)
class Account:
    """One account with every kind of credential; `api_secret` and the like are never logged."""

    name: str
    api_key: str = field(repr=False)
    api_secret: str = field(repr=False)
    v2_key: str = field(repr=False)
    v2_secret: str = field(repr=False)
    bearer_token: str = field(repr=False)
    refresh_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Caller:
    """A registered caller (section 3): `registration` is `<id>.<token>`."""

    registration: str
    secret: str


@dataclass(frozen=True, slots=True)
class OAuthClient:
    client_id: str
    client_secret: str


class Mint:
    """Makes secrets from a seed: the same seed, in the same order, gives the same secrets."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._made = 0

    def secret(self, length: int = 32) -> str:
        """Return `length` characters of letters and digits."""
        text = ""
        while len(text) < length:
            self._made += 1
            digest = hashlib.sha256(f"rsusim:{self._seed}:{self._made}".encode()).digest()
            text += "".join(c for c in base64.b64encode(digest).decode() if c.isalnum())
        return text[:length]

    def token(self) -> str:
        """Return something that looks like a JWT (section 2), and is none."""
        return f"eyJ0eXAiOiJKV1Qi{self.secret(20)}.eyJ{self.secret(60)}.{self.secret(43)}"

    def account(self, name: str) -> Account:
        return Account(
            name=name,
            api_key=self.secret(32),
            api_secret=self.secret(32),
            v2_key=self.secret(40),
            v2_secret=self.secret(48),
            bearer_token=self.token(),
            refresh_token="def50200" + self.secret(72),
        )

    def caller(self, number: int) -> Caller:
        return Caller(registration=f"{number}.{self.secret(32)}", secret=self.secret(40))

    def oauth_client(self) -> OAuthClient:
        return OAuthClient(client_id=self.secret(24), client_secret=self.secret(40))
