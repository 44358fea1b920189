"""
The OAuth 2 token endpoints (section 2): the one place with real HTTP statuses.

The browser's part is `World.issue_code`; redirect addresses and code verifiers are not compared.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from rsusim.accounts import ACCESS_TOKEN_SECONDS

if TYPE_CHECKING:
    from rsusim.world import World

_TEXTS: Final = {
    "invalid_client": "Client authentication failed",
    "invalid_grant": "The provided authorization grant is invalid or expired.",
    "invalid_request": "The request is missing a required parameter.",
    "unsupported_grant_type": "The authorization grant type is not supported.",
}


def token(world: "World", path: str, form: Mapping[str, str]) -> tuple[int, dict[str, object]]:
    """Return HTTP status and body for `auth-code-redemption.json` or `refresh-token.json`."""
    client = world.oauth_client
    if (form.get("client_id"), form.get("client_secret")) != (
        client.client_id,
        client.client_secret,
    ):
        return _refused("invalid_client", 401)
    refreshing = path.endswith("refresh-token.json")
    wanted = "refresh_token" if refreshing else "authorization_code"
    if form.get("grant_type") != wanted:
        return _refused("unsupported_grant_type", 400)
    proof = form.get("refresh_token" if refreshing else "code")
    if not proof:
        return _refused("invalid_request", 400)
    name: str | None = None
    if refreshing:
        for account in world.accounts.values():
            if account.refresh_token == proof:
                name = account.name
    else:
        name, until = world.codes.pop(proof, (None, 0.0))
        if world.clock.time() >= until:
            name = None
    if name is None:
        return _refused("invalid_grant", 400)
    return 200, {
        "access_token": world.issue_token(name),
        "token_type": "Bearer",
        "expires_in": ACCESS_TOKEN_SECONDS,
        "refresh_token": world.accounts[name].refresh_token,
        "scope": form.get("scope", "rsu_api_read"),
    }


def _refused(error: str, status: int) -> tuple[int, dict[str, object]]:
    text = _TEXTS[error]
    return status, {"error": error, "error_description": text, "message": text}
