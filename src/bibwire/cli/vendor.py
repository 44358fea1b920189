"""Whether the vendor's address answers, and what its clock says. One request without a key."""

from __future__ import annotations

import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime

TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """`date` is the vendor's `Date`, None where it sent none."""

    status: int
    date: datetime | None


def reach(url: str) -> Answer:
    """
    Ask for `url` and read nothing of the answer but its head.

    Raises:
        OSError: No answer; the text says why.
    """
    # The settings allow https, and http to this machine, and nothing else.
    request = urllib.request.Request(url, headers={"User-Agent": "bibwire doctor"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310
            return Answer(response.status, _date(response.headers.get("Date")))
    except urllib.error.HTTPError as answer:
        # A refusal is an answer: somebody is there.
        with answer:
            return Answer(answer.code, _date(answer.headers.get("Date")))
    except urllib.error.URLError as error:
        raise OSError(str(error.reason)) from None


def _date(text: str | None) -> datetime | None:
    try:
        date = parsedate_to_datetime(text or "")
    except ValueError:
        return None
    return date if date.tzinfo is not None else None
