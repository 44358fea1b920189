"""
Who is asking: the schemes of section 2, and the caller registration of section 3.

`identify` only looks; whether a wrong key is answered with error 6 at once is decided by the order
of checks, which is a quirk.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hmac import compare_digest
from typing import TYPE_CHECKING

from rsusim.errors import ApiError
from rsusim.quirks import Quirks

if TYPE_CHECKING:
    from rsusim.world import World


@dataclass(frozen=True, slots=True)
class Identity:
    """
    What the credentials of a call amount to.

    Attributes:
        account: Name of the account, if they are right.
        scheme: See `RequestInfo.scheme`.
        wrong: Something was sent, and it is wrong.
    """

    account: str | None
    scheme: str
    wrong: bool


def identify(
    world: "World", quirks: Quirks, query: Mapping[str, str], headers: Mapping[str, str]
) -> Identity:
    """Return whose credentials these are."""
    found: list[tuple[str, str | None]] = []
    if "api_key" in query or "api_secret" in query:
        found.append(("api_key", _pair(world, query)))
    if "rsu_api_key" in query:
        found.append(("v2_key", _v2(world, query, headers)))
    if "sp_api_key" in query:
        found.append(("super", None))  # resellers' keys: no account of this world has one
    if "tmp_key" in query:
        found.append(("tmp_key", None))  # ended 2026-02-01 (section 2)
    authorization = headers.get("authorization", "")
    if authorization[:7].lower() == "bearer ":
        found.append(("bearer", _bearer(world, authorization[7:].strip())))
    if not found:
        return Identity(None, "none", False)
    scheme = "+".join(name for name, _ in found)
    if len(found) > 1 and quirks.combined_schemes == "refused":
        return Identity(None, scheme, True)
    account = found[0][1]
    return Identity(account, scheme, account is None)


def _pair(world: "World", query: Mapping[str, str]) -> str | None:
    key, secret = query.get("api_key", ""), query.get("api_secret", "")
    for account in world.accounts.values():
        if _same(account.api_key, key) and _same(account.api_secret, secret):
            return account.name
    return None


def _v2(world: "World", query: Mapping[str, str], headers: Mapping[str, str]) -> str | None:
    key, secret = query["rsu_api_key"], headers.get("x-rsu-api-secret", "")
    for account in world.accounts.values():
        if _same(account.v2_key, key) and _same(account.v2_secret, secret):
            return account.name
    return None


def _bearer(world: "World", token: str) -> str | None:
    name, until = world.tokens.get(token, (None, None))
    if until is not None and world.clock.time() >= until:
        return None
    return name


def _same(a: str, b: str) -> bool:
    return compare_digest(a.encode(), b.encode())


def check_caller(
    world: "World", quirks: Quirks, query: Mapping[str, str], headers: Mapping[str, str]
) -> str | None:
    """
    Return the id of the caller registration, or None if there is none.

    Raises:
        ApiError: 17, with HTTP 400, if it is wrong, or missing where it is required.
    """
    registration = query.get("rsu_api_reg")
    secret = headers.get("x-rsu-api-reg-secret")
    shown = registration.split(".")[0] if registration else None
    if quirks.caller_registration == "ignored":
        return shown
    refusal = ApiError(17, quirks.caller_registration_status, ["API caller identification is invalid."])
    if registration is None and secret is None:
        if quirks.caller_registration == "required":
            raise refusal
        return None
    wanted = world.callers.get(registration or "")
    if wanted is None or secret is None or not _same(wanted, secret):
        raise refusal
    return shown
