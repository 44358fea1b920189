"""
One HTTP request and its answer; the only file that imports httpx2.

Nothing is raised from here for a request that fails: a transport error holds the request, its
URL holds `api_secret`, and a raised error would drag all of it along in its context and its
frames. So `get` returns the error as a value, with a sentence of our own, for the caller to raise.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from typing import Final
from urllib.parse import urlsplit

import httpx2

from bibwire.api.apart import apart
from bibwire.api.codings import ACCEPTED, PACKED_BYTES, BrokenCoding, UnknownCoding, Unpacker
from bibwire.api.quiet import quiet_libraries
from bibwire.domain.errors import (
    AnswerUnreadable,
    BibwireError,
    InvariantBroken,
    SettingsError,
    VendorUnavailable,
    VendorUnreachable,
)
from bibwire.domain.key_refusals import of_key
from bibwire.domain.secrets import CallerRegistration, Credential, Redactor, Secret

# 2,500 rows are 5.5 MB. Something ten times as large is not an answer to us.
_LONGEST_BODY_BYTES: Final = 64 * 1024 * 1024
# Each time-out bounds one silence; an answer that drips for ever is bounded by this many of them.
_TIMEOUTS_A_CALL: Final = 4
_HEADERS_USED: Final = ("date", "retry-after")
# A connection is made in a second or not at all; whoever waits is to hear of it within ten.
_CONNECT_SECONDS: Final = 5.0
_USUAL_URL: Final = "https://api.runsignup.com/rest"


@dataclass(frozen=True, slots=True)
class Answer:
    """
    An HTTP answer, its body unpacked and redacted.

    `headers`, by lower-case name, are the few that are used: others may echo the request.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    bytes_received: int


def check_base_url(url: str) -> str:
    """
    Return the API address without a trailing slash.

    Raises:
        SettingsError: If it is not https, nor http to this very machine, or carries a user
            name, a query or a fragment. The message does not repeat the address.
    """
    said = "the API address (BIBWIRE_API_URL)"
    try:
        parts = urlsplit(url.strip())
        host = parts.hostname or ""
        _ = parts.port  # read for its check
    except ValueError:
        raise SettingsError(f"{said} is not an https address") from None
    if not host or parts.scheme not in ("https", "http"):
        raise SettingsError(f"{said} is not an https address")
    if parts.username is not None or parts.password is not None:
        raise SettingsError(f"{said} must not hold a user name or a password")
    if parts.query or parts.fragment:
        raise SettingsError(f"{said} must end with the path, without ? and #")
    if parts.scheme == "http" and not _is_loopback(host):
        raise SettingsError(f"{said} must be https: plain http is for this machine only")
    return url.strip().rstrip("/")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Transport:
    """
    Connections to the vendor under one credential. Follows no redirect.

    Args:
        credential: None: only to see whether the vendor can be reached.
        proxy: Through which every call goes; None: through none, whatever the environment says.
    """

    def __init__(
        self,
        *,
        base_url: str,
        credential: Credential | None,
        caller: CallerRegistration | None,
        timeout_seconds: float,
        proxy: Secret | None = None,
    ) -> None:
        quiet_libraries()
        self._base_url = check_base_url(base_url)
        self._has_proxy = proxy is not None and _may_use(proxy, self._base_url)
        self._credential = credential
        self._caller = caller
        self._timeout_seconds = timeout_seconds
        self._connect_seconds = min(timeout_seconds, _CONNECT_SECONDS)
        self._redactor = Redactor(
            (*(credential.secrets if credential else ()), *(caller.secrets if caller else ()))
        )
        for secret in _in_headers(credential, caller):
            if not (secret.reveal().isascii() and secret.reveal().isprintable()):
                raise SettingsError("a key or secret holds characters that no HTTP header can carry")
        self._client = httpx2.AsyncClient(
            # Proxies, .netrc and the like from the environment would see the secrets.
            trust_env=False,
            proxy=httpx2.Proxy(proxy.reveal()) if proxy is not None and self._has_proxy else None,
            follow_redirects=False,
            verify=_tls(),
            headers={
                "User-Agent": f"bibwire/{_version()}",
                "Accept": "application/json",
                # Not what the library could unpack, but what is unpacked here.
                "Accept-Encoding": ACCEPTED,
            },
            timeout=httpx2.Timeout(
                connect=self._connect_seconds,
                read=timeout_seconds,
                write=timeout_seconds,
                pool=timeout_seconds,
            ),
            limits=httpx2.Limits(max_connections=8, max_keepalive_connections=4, keepalive_expiry=20.0),
        )

    @property
    def redactor(self) -> Redactor:
        return self._redactor

    def answers_otherwise(self, path: str, answered: str) -> str:
        """Return the sentence for what is no answer of the API's, with the address that was asked."""
        # Without the parameters, which hold the key.
        said = f"the API does not answer at {self._base_url}{path}: {answered}"
        if self._base_url == _USUAL_URL:
            return said
        return f"{said}; is BIBWIRE_API_URL right? Its default is {_USUAL_URL}"

    def of_key(self, refused: str) -> str:
        """Return the sentence for a key that is refused, with where it comes from."""
        return of_key(refused, self._credential)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def get(
        self, path: str, parameters: Sequence[tuple[str, str]], *, timeout_seconds: float | None = None
    ) -> Answer | BibwireError:
        """
        Return the answer, or the error that explains why there is none.

        Args:
            timeout_seconds: Of this call, where it is to be shorter than the others'.
        """
        seconds = min(self._timeout_seconds, timeout_seconds or self._timeout_seconds)
        try:
            async with asyncio.timeout(seconds * _TIMEOUTS_A_CALL):
                return await self._get(path, parameters, seconds)
        except (httpx2.HTTPError, httpx2.StreamError, OSError) as error:
            return self._explained(error, seconds)
        except Exception as error:
            # A fault of ours or of the library. Its text is unknown and may quote the request.
            return InvariantBroken(f"the HTTP client failed with {type(error).__name__}")

    async def _get(
        self, path: str, parameters: Sequence[tuple[str, str]], seconds: float
    ) -> Answer | BibwireError:
        query: list[tuple[str, str | int | float | bool | None]] = [*parameters]
        headers: dict[str, str] = {}
        credential, caller = self._credential, self._caller
        if credential is None:
            pass
        elif credential.kind == "key" and credential.secret is not None:
            query.append(("api_key", credential.key.reveal()))
            query.append(("api_secret", credential.secret.reveal()))
        elif credential.kind == "v2" and credential.secret is not None:
            query.append(("rsu_api_key", credential.key.reveal()))
            headers["X-RSU-API-SECRET"] = credential.secret.reveal()
        else:
            headers["Authorization"] = f"Bearer {credential.key.reveal()}"
        if caller is not None:
            query.append(("rsu_api_reg", caller.registration.reveal()))
            headers["X-RSU-API-REG-SECRET"] = caller.secret.reveal()

        timeout = httpx2.Timeout(seconds, connect=min(seconds, self._connect_seconds))
        async with self._client.stream(
            "GET", self._base_url + path, params=query, headers=headers, timeout=timeout
        ) as response:
            body = await _unpacked(response)
        if isinstance(body, BibwireError):
            return body
        # The vendor is spoken to without a session: each call stands for itself.
        self._client.cookies.clear()
        return Answer(
            status=response.status_code,
            headers={name: response.headers[name] for name in _HEADERS_USED if name in response.headers},
            body=await apart(partial(self._redactor.redact_bytes, body)),
            bytes_received=response.num_bytes_downloaded,
        )

    def _explained(self, error: Exception, seconds: float) -> BibwireError:
        within = f"within {seconds:g} s"
        through = " through the proxy of BIBWIRE_PROXY" if self._has_proxy else ""
        match error:
            case httpx2.ProxyError():
                # Its text is what the proxy says, "407 Proxy Authentication Required" for instance.
                reason = self._redactor.redact_text(str(error))
                said = f"the proxy of BIBWIRE_PROXY does not let us through: {reason}"
            case httpx2.ConnectTimeout():
                reason = f"no connection within {min(seconds, self._connect_seconds):g} s"
                return VendorUnreachable(f"{VendorUnreachable.BEGINS}{through}: {reason}")
            case httpx2.ConnectError():
                reason = self._redactor.redact_text(_why_not_connected(error))
                return VendorUnreachable(f"{VendorUnreachable.BEGINS}{through}: {reason}")
            case httpx2.PoolTimeout():
                said = f"no free connection to the vendor {within}"
            case httpx2.WriteTimeout():
                said = f"the request could not be sent {within}"
            case httpx2.ReadTimeout():
                said = f"the vendor sent nothing {within}"
            case TimeoutError():
                said = f"the vendor's answer was not complete within {seconds * _TIMEOUTS_A_CALL:g} s"
            case httpx2.ProtocolError():
                said = "the connection to the vendor broke before the answer was complete"
            case _:
                said = f"the connection to the vendor failed ({type(error).__name__})"
        return VendorUnavailable(said)


def _why_not_connected(error: BaseException) -> str:
    """Say in words of people why no connection was made, as far as the system told."""
    cause: BaseException | None = error
    while cause is not None:
        match cause:
            case socket.gaierror():
                return "its name cannot be looked up; is this computer on the network?"
            case ssl.SSLCertVerificationError():
                return f"its certificate is not accepted ({cause.verify_message})"
            case OSError(errno=int() as number):
                told = os.strerror(number)
                return told[:1].lower() + told[1:]
        cause = cause.__cause__ or cause.__context__
    return str(error) or "no connection"


async def _unpacked(response: httpx2.Response) -> bytes | AnswerUnreadable:
    """Read a body to its end; each piece is small, and others have a turn after it."""
    pieces: list[bytes] = []
    length = 0
    try:
        unpacker = Unpacker(response.headers.get("content-encoding", ""))
        async for raw in response.aiter_raw(PACKED_BYTES):
            if response.num_bytes_downloaded > _LONGEST_BODY_BYTES:
                return AnswerUnreadable("the vendor's answer is far larger than was asked for")
            await asyncio.sleep(0)
            for piece in unpacker.unpack(raw):
                length += len(piece)
                if length > _LONGEST_BODY_BYTES:
                    return AnswerUnreadable("the vendor's answer is far larger than was asked for")
                pieces.append(piece)
                await asyncio.sleep(0)
        unpacker.end()
    except UnknownCoding as unknown:
        return AnswerUnreadable(f"the vendor's answer is packed as {unknown}, which was not asked for")
    except BrokenCoding:
        return AnswerUnreadable("the vendor's answer could not be unpacked")
    return b"".join(pieces)


@cache
def _tls() -> ssl.SSLContext:
    """Return the rules for TLS, certificates verified; they take 60 ms to load, so once."""
    return httpx2.create_ssl_context(verify=True, trust_env=False)


def _may_use(proxy: Secret, base_url: str) -> bool:
    """Plain http goes to this machine only: not to a proxy on another one, which would read the keys."""
    if base_url.startswith("https:"):
        return True
    return _is_loopback(urlsplit(proxy.reveal()).hostname or "")


def _in_headers(credential: Credential | None, caller: CallerRegistration | None) -> list[Secret]:
    secrets = [caller.secret] if caller is not None else []
    if credential is None:
        return secrets
    if credential.kind == "bearer":
        secrets.append(credential.key)
    elif credential.kind == "v2" and credential.secret is not None:
        secrets.append(credential.secret)
    return secrets


def _version() -> str:
    try:
        return version("bibwire")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "0"
