"""Whether the vendor's address answers as its API does, and what its clock says: a request without a key."""

from __future__ import annotations

import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPResponse

import msgspec

TIMEOUT_SECONDS = 5.0
# One race's record, or an error, is far less.
MOST_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Answer:
    """
    An answer of the vendor's address.

    `is_api`: it is JSON, as the API's answers are. `date` is its `Date`, None where it sent none.
    """

    status: int
    is_api: bool
    date: datetime | None


def reach(url: str) -> Answer:
    """
    Ask the API at `url` for the public race list; whether that is shown without a key does not matter.

    Raises:
        OSError: No answer; the text says why.
    """
    # The settings allow https, and http to this machine, and nothing else.
    request = urllib.request.Request(  # noqa: S310
        f"{url.rstrip('/')}/races?format=json&results_per_page=1", headers={"User-Agent": "bibwire doctor"}
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310
            return _answer(response.status, response)
    except urllib.error.HTTPError as answer:
        # A refusal is an answer: somebody is there.
        with answer:
            return _answer(answer.code, answer)
    except urllib.error.URLError as error:
        raise OSError(str(error.reason)) from None


def _answer(status: int, response: HTTPResponse | urllib.error.HTTPError) -> Answer:
    try:
        msgspec.json.decode(response.read(MOST_BYTES))
        is_api = True
    except (msgspec.DecodeError, UnicodeDecodeError):
        is_api = False
    return Answer(status, is_api, _date(response.headers.get("Date")))


def _date(text: str | None) -> datetime | None:
    try:
        date = parsedate_to_datetime(text or "")
    except ValueError:
        return None
    return date if date.tzinfo is not None else None
