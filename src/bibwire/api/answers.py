"""
HTTP status, headers and body -> nothing, or the one error they mean. Pure.

The vendor answers errors with HTTP 200 and an object, even where success is an array; error 17
comes with HTTP 400, its token endpoints use real statuses, and what stands in front of it
answers HTML. So the body decides before the status does (docs/vendor-api.md, "Errors"):
JSON? then an `error`? then a status of 200? The shape is checked by whoever reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import msgspec

from bibwire.api.exact import LIGHT
from bibwire.api.outline import is_light, outline
from bibwire.domain.errors import (
    AccessLost,
    AnswerUnreadable,
    BibwireError,
    CallerRefused,
    EventGone,
    KeyRefused,
    NotTheApi,
    RaceGone,
    RequestRefused,
    Throttled,
    VendorUnavailable,
)
from bibwire.domain.key_refusals import REFUSED

_LONGEST_VENDOR_TEXT: Final = 200
_BOM: Final = b"\xef\xbb\xbf"
# "Wed, 30 September 2026 12:00:00 GMT"; a header may hold 64 kB of anything.
_LONGEST_DATE: Final = 64
# What is added to a moment leads beyond the calendar, at its ends.
_YEARS: Final = range(1970, 9000)


class _Probe(msgspec.Struct):
    error: msgspec.Raw = msgspec.Raw()
    error_details: msgspec.Raw = msgspec.Raw()


_object_probe: Final = msgspec.json.Decoder(_Probe)
_any_probe: Final = msgspec.json.Decoder(msgspec.Raw)


def without_bom(body: bytes) -> bytes:
    """Return the body without the byte-order mark some PHP files put before it."""
    return body[3:] if body.startswith(_BOM) else body


def retry_after_seconds(headers: Mapping[str, str], *, now: datetime | None = None) -> float | None:
    """
    Return the seconds of a Retry-After header, never below zero; None without one.

    Args:
        headers: By lower-case name.
        now: What an HTTP date in it is measured from, where the answer has no `Date`.
    """
    text = headers.get("retry-after", "").strip()[:_LONGEST_DATE]
    if text.isascii() and text.isdigit():
        return float(min(int(text[:12]), 10**9))
    until = parse_http_date(text)
    since = parse_http_date(headers.get("date", "")) or now
    if until is None or since is None:
        return None
    return max(0.0, (until - since).total_seconds())


def parse_http_date(text: str) -> datetime | None:
    """Return an HTTP date as an instant; None if it is not one, or not of these times."""
    try:
        parsed = parsedate_to_datetime(text[:_LONGEST_DATE])
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    if parsed.tzinfo is None:  # "-0000": UTC of unknown origin
        parsed = parsed.replace(tzinfo=UTC)
    try:
        instant = parsed.astimezone(UTC)
    except (OverflowError, ValueError):
        return None
    return instant if instant.year in _YEARS else None


def check_answer(status: int, body: bytes, headers: Mapping[str, str]) -> None:
    """
    Return if the answer is JSON, without an error, with a status of 200.

    Args:
        headers: By lower-case name.

    Raises:
        BibwireError: One of RetryLater, PartnerStopped, ScopeStopped or RequestRefused.
    """
    error = _error_of(status, body, headers)
    if error is not None:
        raise error


def _error_of(status: int, body: bytes, headers: Mapping[str, str]) -> BibwireError | None:
    if 300 <= status < 400:
        return _redirected(status)
    found = _probe(without_bom(body))
    if found is None:
        return _not_json(status, body, headers)
    if error := _parse(found.error):
        return _vendor_error(status, error, _parse(found.error_details), headers)
    if status != 200:
        return _by_status(status, "", headers)
    return None


def _probe(body: bytes) -> _Probe | None:
    """Return the error of a JSON document (empty without one); None if it is not JSON."""
    found = _probe_text(body) if is_light(body) else None
    if found is None and (parts := outline(body)) is not None:
        found = _probe_text(parts.frame)
    return found


def _probe_text(body: bytes) -> _Probe | None:
    decoder: msgspec.json.Decoder[Any] = _object_probe if first_sign(body) == b"{" else _any_probe
    try:
        found = decoder.decode(body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, _Probe) else _Probe()


def first_sign(body: bytes) -> bytes:
    """Return the first sign that is no white space; b"" if there is none near the beginning."""
    return body[:LIGHT].lstrip()[:1]


def _parse(raw: msgspec.Raw) -> Any:
    text = bytes(raw)
    if len(text) > LIGHT:  # an error that long says nothing to anybody
        return "(unreadable)"
    try:
        return msgspec.json.decode(text) if text else None
    except (ValueError, RecursionError):
        return "(unreadable)"


def _redirected(status: int) -> BibwireError:
    said = f"the vendor answered with a redirect (HTTP {status}), which is never followed"
    if status in (301, 308):
        return RequestRefused(f"{said}: check BIBWIRE_API_URL")
    return VendorUnavailable(said)


def _not_json(status: int, body: bytes, headers: Mapping[str, str]) -> BibwireError:
    sign = first_sign(without_bom(body))
    kind = "a body that is not JSON" if sign else "an empty body"
    if sign == b"<":
        kind = "a page of HTML or XML"
    elif sign in (b"{", b"["):
        kind = "half a JSON document"
    if status == 200:
        return AnswerUnreadable(f"the vendor answered with {kind}")
    if status == 429:
        return _throttled(status, headers)
    if status == 404:  # the API itself answers in JSON what it does not know
        return NotTheApi(f"HTTP 404 with {kind}")
    return VendorUnavailable(f"the vendor answered HTTP {status} with {kind}")


def _throttled(status: int, headers: Mapping[str, str]) -> Throttled:
    said = "" if status == 200 else f" (HTTP {status})"
    return Throttled(
        f"the vendor asks for fewer calls{said}",
        retry_after_seconds=retry_after_seconds(headers),
    )


def _vendor_error(status: int, error: Any, details: Any, headers: Mapping[str, str]) -> BibwireError:
    code: int | None = None
    if isinstance(error, dict):
        code = _code(error.get("error_code"))
        said = _readable(error.get("error_msg"))
    else:
        said = _readable(error)
    if isinstance(details, list):
        texts = [_readable(item.get("error_msg")) for item in details if isinstance(item, dict)]
        said = " ".join(text for text in (said, *texts) if text)
    if code is None:
        return _by_status(status, said, headers)
    return _by_code(code, said, status, headers)


def _by_code(code: int, said: str, status: int, headers: Mapping[str, str]) -> BibwireError:
    known = f'error {code}: "{said}"'
    match code:
        case 4 | 5:
            return VendorUnavailable(f"the vendor had a fault of its own ({known})")
        case 6 | 13:
            return KeyRefused(f"{REFUSED} ({known})")
        case 7:
            return AccessLost(f"this key has no right on this race ({known})")
        case 14:
            return _throttled(status, headers)
        case 17:
            return CallerRefused(
                "RunSignup does not accept the caller registration: check BIBWIRE_CALLER_REG"
                f" and BIBWIRE_CALLER_SECRET ({known})"
            )
        case 201:
            return RaceGone(f"the vendor does not know this race ({known})")
        case 301:
            return EventGone(f"the vendor does not know one of these events ({known})")
    if status == 429:
        return _throttled(status, headers)
    if status == 408 or status >= 500:
        return VendorUnavailable(f"the vendor answered HTTP {status} ({known})")
    return RequestRefused(f"the vendor refuses the request ({known})", code=code)


def _by_status(status: int, said: str, headers: Mapping[str, str]) -> BibwireError:
    known = f"HTTP {status}" + (f': "{said}"' if said else "")
    if status == 429:
        return _throttled(status, headers)
    if status == 408 or status >= 500:
        return VendorUnavailable(f"the vendor answered {known}")
    if status == 401:
        return KeyRefused(f"{REFUSED} ({known})")
    if status == 403:
        return AccessLost(f"this key has no right on this race ({known})")
    return RequestRefused(f"the vendor refuses the request ({known})")


def _code(value: object) -> int | None:
    if type(value) is str and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    return value if type(value) is int else None


def _readable(value: object) -> str:
    """Return the vendor's sentence on one line and not too long; "" if it is no text."""
    if not isinstance(value, str):
        return ""
    value = value[: 4 * _LONGEST_VENDOR_TEXT]
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in value).split())
    if len(line) <= _LONGEST_VENDOR_TEXT:
        return line
    return line[:_LONGEST_VENDOR_TEXT] + "…"
