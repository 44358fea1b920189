"""
Faults by rule: what goes wrong, on which calls, how often.

A rule counts the calls it matches; it strikes from the `nth` of them on, with its probability,
until it struck `times` times. At most one rule strikes a call: the first that was added.
"""

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from rsusim.log import RequestInfo
from rsusim.quirks import Quirks

KINDS: Final[dict[str, str]] = {
    "http_<status>": "that status with an HTML page; `retry_after` adds the header",
    "error_<code>": "the vendor's error object; HTTP `status`, 200 unless given",
    "error_string": '{"error": "text", "details": {}}',
    "html_200": "an HTML page with status 200",
    "empty_body": "status 200 and no body",
    "truncated": "half the JSON, as a complete HTTP answer",
    "cut_off": "the connection is closed in the middle of the body",
    "reset": "the connection is reset without an answer",
    "hang": "no answer for `seconds` (an hour unless given), then the connection is closed",
    "slow": "the answer comes `seconds` later (1.4 unless given); rows are read after the wait",
    "slow_after_reading": "the same, rows are read before the wait",
    "slow_body": "half the body, `seconds` of silence, the other half",
    "empty_object": "{}",
    "empty_array": "[]",
    "null": "null",
    "string": 'a JSON string, "OK"',
    "number": "a JSON number",
    "body": "the text `body`, with `status` and `content_type`",
    "bad_utf8": "the answer with a byte that is no UTF-8",
    "no_rows": "the answer without any row",
    "short_page": "only the first `count` rows of the page",
    "skip_rows": "the page without its first `count` rows",
    "duplicate_rows": "every row of the page twice",
    "hostile_rows": "the JSON texts `rows` put into the page, at `position`: start or end",
    "credentials_echoed": "HTTP 500 with an HTML page that shows the URL and headers sent",
    "credentials_in_error": "error 4 whose text repeats the caller's credentials",
    "quirk": "the ordinary answer with `quirks` changed for this call",
}


@dataclass(slots=True)
class Fault:
    """
    One rule.

    Attributes:
        path: An endpoint's name (`participants` is not `removed-participants`), or else a regular
            expression searched in the path; empty is any call.
        kind: One of KINDS.
        nth: First of the matched calls that is struck, from 1.
        times: How many calls are struck; None is no end.
        probability: Of striking, for each call from the `nth` on.
        partner: Only calls of this account.
        race_id: Only calls about this race.
        query: Only calls with these parameters.
        retry_after: Value of a Retry-After header, sent as it is; None sends none.
        seconds: Real seconds for the kinds that wait.
        until: `slow` waits for this instead, however long it takes.
    """

    path: str = ""
    kind: str = "http_503"
    nth: int = 1
    times: int | None = 1
    probability: float = 1.0
    partner: str | None = None
    race_id: int | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    retry_after: str | int | None = None
    seconds: float | None = None
    until: threading.Event | None = None
    status: int = 200
    body: str = ""
    content_type: str = "application/json; charset=utf-8"
    rows: Sequence[str] = ()
    position: str = "end"
    count: int = 1
    quirks: Mapping[str, Any] = field(default_factory=dict)
    matched: int = 0
    struck: int = 0

    def __post_init__(self) -> None:
        known = self.kind in KINDS or re.fullmatch(r"http_[1-5]\d\d|error_\d+", self.kind)
        if not known:
            raise ValueError(f"no fault kind {self.kind!r}; there are: {', '.join(KINDS)}")
        Quirks().with_changes(self.quirks)
        re.compile(self.path)

    def matches(self, info: RequestInfo) -> bool:
        if self.path in ENDPOINTS:
            if info.endpoint != self.path:
                return False
        elif not re.search(self.path, info.path, re.IGNORECASE):
            return False
        return (
            self.partner in (None, info.account)
            and self.race_id in (None, info.race_id)
            and all(info.query.get(name) == value for name, value in self.query.items())
        )


ENDPOINTS: Final = frozenset(
    [
        "races",
        "race",
        "participants",
        "removed-participants",
        "participant-counts",
        "teams",
        "checkin-timestamps",
        "token",
    ]
)


class Faults:
    """The rules of a world; thread-safe."""

    def __init__(self, seed: int) -> None:
        self._lock = threading.Lock()
        self._random = Random(f"faults:{seed}")
        self._rules: list[Fault] = []

    def add(self, rule: Fault) -> Fault:
        with self._lock:
            self._rules.append(rule)
        return rule

    def clear(self) -> None:
        with self._lock:
            self._rules.clear()

    @property
    def rules(self) -> list[Fault]:
        with self._lock:
            return list(self._rules)

    def pick(self, info: RequestInfo) -> Fault | None:
        """Return the rule that strikes this call, and count it."""
        with self._lock:
            chosen: Fault | None = None
            for rule in self._rules:
                if not rule.matches(info):
                    continue
                rule.matched += 1
                if (
                    chosen is None
                    and rule.matched >= rule.nth
                    and (rule.times is None or rule.struck < rule.times)
                    and (rule.probability >= 1 or self._random.random() < rule.probability)
                ):
                    rule.struck += 1
                    chosen = rule
            return chosen
