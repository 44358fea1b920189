"""Whether the vendor's address answers as its API does, and what its clock says: a request without a key."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import msgspec

from bibwire.api.answers import parse_http_date
from bibwire.api.endpoints import RACES
from bibwire.api.transport import Transport
from bibwire.domain.errors import BibwireError
from bibwire.domain.secrets import Secret

TIMEOUT_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Reached:
    """
    An answer of the vendor's address.

    `is_api`: it is JSON, as the API's answers are. `date` is its `Date`, None where it sent none.
    """

    status: int
    is_api: bool
    date: datetime | None


async def reach(url: str, proxy: Secret | None) -> Reached:
    """
    Ask the API at `url` for the public race list, the way every call goes.

    Whether that list is shown without a key does not matter.

    Raises:
        BibwireError: No answer; the text says why.
    """
    transport = Transport(
        base_url=url, credential=None, caller=None, timeout_seconds=TIMEOUT_SECONDS, proxy=proxy
    )
    try:
        answer = await transport.get(RACES.path_for(), [("format", "json"), ("results_per_page", "1")])
    finally:
        await transport.aclose()
    if isinstance(answer, BibwireError):
        raise answer
    try:
        msgspec.json.decode(answer.body)
        is_api = True
    except (msgspec.DecodeError, UnicodeDecodeError):
        is_api = False
    return Reached(answer.status, is_api, parse_http_date(answer.headers.get("date", "")))
