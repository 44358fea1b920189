"""
What the simulated vendor was asked: every request in order, counts, and calls in flight.

No secret is ever kept: of the credentials only the account's name and the caller's id remain.
Bounded: the oldest requests are forgotten, the counts are not.
"""

import threading
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from typing import Any, Final

SECRET_PARAMETERS: Final = frozenset(
    {"api_key", "api_secret", "rsu_api_key", "sp_api_key", "tmp_key", "tmp_secret", "rsu_api_reg"}
    | {"access_token", "client_secret", "refresh_token", "code", "password"}
)


@dataclass(slots=True)
class RequestInfo:
    """
    One request; the second half is filled in once it is answered.

    Attributes:
        number: 1 for the first request of the world.
        at: Simulated epoch seconds of its arrival.
        endpoint: `races`, `race`, `participants`, `removed-participants`, `participant-counts`, `teams`,
            `checkin-timestamps`, `token` or `unknown`.
        path: Lower case, without a trailing slash.
        query: As sent, without secrets.
        scheme: `none`, `api_key`, `v2_key`, `super`, `bearer`, `tmp_key`, or several by `+`.
        account: Whose valid key it was, or None.
        caller: Id of the caller registration sent, or None.
        in_flight: Calls in flight with this one, of all callers and of its own.
        status: HTTP status; 0 for a connection that was dropped without one.
        error: The vendor's error code answered, if any.
        rows: Participants, removed rows, teams, races or the like in the answer.
        over_at: Simulated epoch seconds at which it was over; None: it is not.
        seconds: Real seconds from arrival to the last byte handed over.
        work_seconds: Real seconds spent to make the answer, without scripted delays.
    """

    number: int
    at: float
    method: str
    endpoint: str
    path: str
    query: dict[str, str]
    race_id: int | None = None
    scheme: str = "none"
    account: str | None = None
    caller: str | None = None
    in_flight: int = 1
    in_flight_of_caller: int = 1
    status: int = 0
    error: int | None = None
    fault: str | None = None
    rows: int = 0
    body_bytes: int = 0
    seconds: float = 0.0
    work_seconds: float = 0.0
    started: float = field(default_factory=time.monotonic)
    over: bool = False
    over_at: float | None = None

    def as_dict(self) -> dict[str, Any]:
        row = asdict(self)
        del row["started"], row["over"]
        return row


class RequestLog:
    """Thread-safe; `limit` bounds how many requests are remembered one by one."""

    def __init__(self, limit: int = 100_000) -> None:
        self._lock = threading.Lock()
        self._requests: deque[RequestInfo] = deque(maxlen=limit)
        self._per_minute: Counter[tuple[str, str, int]] = Counter()
        self._in_flight: Counter[str] = Counter()
        self._highest: Counter[str] = Counter()
        self._now_in_flight = 0
        self._numbered = 0
        self.highest_in_flight = 0
        self.failures: list[str] = []  # tracebacks of the simulator's own faults, or of a hook's

    def number(self) -> int:
        with self._lock:
            self._numbered += 1
            return self._numbered

    def enter(self, info: RequestInfo, caller: str) -> None:
        """Note an arrival, in order; sets how many calls are in flight with it."""
        with self._lock:
            self._requests.append(info)
            self._per_minute[info.account or "-", info.endpoint, int(info.at // 60)] += 1
            self._now_in_flight += 1
            self._in_flight[caller] += 1
            info.in_flight = self._now_in_flight
            info.in_flight_of_caller = self._in_flight[caller]
            self.highest_in_flight = max(self.highest_in_flight, info.in_flight)
            self._highest[caller] = max(self._highest[caller], info.in_flight_of_caller)

    def leave(self, info: RequestInfo, caller: str, at: float) -> None:
        """Note that a call is over, right before its end is sent: the caller may call again then."""
        with self._lock:
            if info.over:
                return
            info.over, info.over_at = True, at
            self._now_in_flight -= 1
            self._in_flight[caller] -= 1
            info.seconds = time.monotonic() - info.started

    @property
    def requests(self) -> list[RequestInfo]:
        """All remembered requests in order of arrival."""
        with self._lock:
            return list(self._requests)

    def of(self, endpoint: str, account: str | None = None) -> list[RequestInfo]:
        """Return the requests of one endpoint, and of one account if given."""
        return [
            row
            for row in self.requests
            if row.endpoint == endpoint and (account is None or row.account == account)
        ]

    @property
    def calls(self) -> int:
        """Requests since the start or the last `clear`."""
        with self._lock:
            return sum(self._per_minute.values())

    def per_minute(self) -> dict[tuple[str, str, int], int]:
        """Return calls by (account or "-", endpoint, simulated minute since the epoch)."""
        with self._lock:
            return dict(self._per_minute)

    def highest_in_flight_of_callers(self) -> dict[str, int]:
        """Return the highest number of simultaneous calls of each caller."""
        with self._lock:
            return dict(self._highest)

    def clear(self) -> None:
        """Forget requests and counts; numbering goes on."""
        with self._lock:
            self._requests.clear()
            self._per_minute.clear()
            self._highest.clear()
            self.highest_in_flight = self._now_in_flight

    def as_dict(self, last: int = 1000) -> dict[str, Any]:
        """Return the log for the control path, with the `last` requests."""
        requests = self.requests
        return {
            "calls": self.calls,
            "failures": self.failures,
            "highest_in_flight": self.highest_in_flight,
            "highest_in_flight_of_callers": self.highest_in_flight_of_callers(),
            "per_minute": [
                {"account": account, "endpoint": endpoint, "minute": minute * 60, "calls": calls}
                for (account, endpoint, minute), calls in sorted(self.per_minute().items())
            ],
            "requests": [row.as_dict() for row in requests[max(0, len(requests) - last) :]],
        }
