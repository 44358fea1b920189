"""
Query parameters, read as section 5 and the parameter tables of sections 6 to 10 say.

What cannot be read is error 3, a date error 9; with the quirk `bad_number=ignored` a number that
is none counts as not sent.
"""

from collections.abc import Mapping
from datetime import date, datetime, time, timedelta

from rsusim.errors import ApiError
from rsusim.quirks import Quirks
from rsusim.wire import EASTERN


class Params:
    """The parameters of one call."""

    def __init__(self, query: Mapping[str, str], quirks: Quirks, now: float) -> None:
        self._query = query
        self._quirks = quirks
        self._now = now

    def text(self, name: str) -> str | None:
        """Return the text, or None if it is missing or empty."""
        return self._query.get(name) or None

    def integer(self, name: str) -> int | None:
        text = self.text(name)
        if text is None:
            return None
        digits = text[1:] if text[0] == "-" else text
        if not _is_number(digits):
            if self._quirks.bad_number == "ignored":
                return None
            raise ApiError(3, details=[f"{name} must be an integer."])
        return int(text)

    def flag(self, name: str) -> bool:
        """Return a T/F parameter, which is F unless sent."""
        text = self.text(name)
        if text in (None, "F"):
            return False
        if text == "T":
            return True
        raise ApiError(3, details=[f"{name} must be T or F."])

    def ids(self, name: str) -> list[int]:
        """Return a comma list of ids, each once, in order."""
        text = self.text(name) or ""
        parts = [part.strip() for part in text.split(",")] if text else []
        if not all(_is_number(part) for part in parts):
            raise ApiError(3, details=[f"{name} must be a list of ids."])
        return list(dict.fromkeys(int(part) for part in parts))

    def page(self) -> int:
        page = self.integer("page")
        if page is None:
            return 1
        if page < 1:
            raise ApiError(3, details=["page starts at 1."])
        return page

    def page_size(self, name: str, default: int, highest: int) -> int:
        """Return how many rows to answer, clamped or refused above `highest` (section 19.6)."""
        size = self.integer(name)
        if size is None:
            size = default
        elif size < 1 or (size > highest and self._quirks.page_size_excess == "error3"):
            raise ApiError(3, details=[f"{name} must be between 1 and {highest}."])
        size = min(size, highest)
        return min(size, self._quirks.page_cap) if self._quirks.page_cap else size

    def day(self, name: str, default: str | None = None) -> date | None:
        """Return a date: `YYYY-mm-dd`, a unix timestamp, `today` or `tomorrow`, all Eastern."""
        text = self.text(name) or default
        if text is None:
            return None
        today = datetime.fromtimestamp(self._now, EASTERN).date()
        if text.lower() == "today":
            return today
        if text.lower() == "tomorrow":
            return today + timedelta(days=1)
        try:
            if _is_number(text):
                return datetime.fromtimestamp(int(text), EASTERN).date()
            return date.fromisoformat(text)
        except (ValueError, OverflowError, OSError):
            raise ApiError(9) from None

    def midnight(self, name: str) -> int | None:
        """Return when the day that `day` reads begins, in epoch seconds."""
        day = self.day(name)
        return None if day is None else int(datetime.combine(day, time(), EASTERN).timestamp())

    def instant(self, name: str) -> int | None:
        """Return a moment in epoch seconds, given as such or as an Eastern date or datetime."""
        text = self.text(name)
        if text is None:
            return None
        if _is_number(text):
            return int(text)
        try:
            moment = datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=EASTERN)
        except ValueError:
            return self.midnight(name)
        return int(moment.timestamp())

    def sort(self, allowed: frozenset[str], default: str) -> list[tuple[str, bool]]:
        """Return (key, descending) in order of weight; several are separated by commas."""
        keys = []
        asked = self.text("sort") if self._quirks.sort == "honoured" else None
        for part in (asked or default).split(","):
            words = part.split()
            if not words or words[0] not in allowed or len(words) > 2:
                raise ApiError(3, details=["sort is not supported."])
            direction = words[1].upper() if len(words) == 2 else "ASC"
            if direction not in ("ASC", "DESC"):
                raise ApiError(3, details=["sort is ASC or DESC."])
            keys.append((words[0], direction == "DESC"))
        return keys


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18  # what a 64-bit column holds
