"""Which calls are made again, after how long; and that each attempt has its permit."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from bibwire.api.client import CallMade, VendorClient, check_base_url
from bibwire.domain.errors import (
    AccessLost,
    AnswerUnreadable,
    BibwireError,
    Blocked,
    CallerRefused,
    EventGone,
    KeyRefused,
    RaceGone,
    RequestRefused,
    SettingsError,
    Throttled,
    VendorUnavailable,
    VendorUnreachable,
)
from bibwire.domain.secrets import Credential, Secret

from .loopback import (
    CALLER_ID,
    CALLER_SECRET,
    KEY,
    SECRET,
    CountingPermits,
    MovedClock,
    Reply,
    Request,
    Scene,
    error,
    listing,
    person,
    reply,
    scene,
)

HTML = b"<html><body><h1>522 Origin is unreachable</h1></body></html>"
GOOD = reply(listing(person(1)))


async def _read(client: VendorClient) -> int:
    return sum([len(page.rows) async for page in client.participants(7, [1])])


def _outcome(*script: Reply, **options: Any) -> tuple[Scene, int | BibwireError]:
    async def run() -> tuple[Scene, int | BibwireError]:
        async with scene(*script, **options) as s:
            try:
                return s, await _read(s.client)
            except BibwireError as failure:
                return s, failure

    return asyncio.run(run())


@pytest.mark.parametrize(
    "first",
    [
        Reply(HTML, status=522),
        Reply(HTML, status=200),
        Reply(b"", status=200),
        Reply(b"", status=503),
        reply({"error": "down"}, status=500),
        error(4),
        error(5),
        error(14, "Request throttled."),
        Reply(HTML, status=429),
        reply({"message": "slow down"}, status=429),
        reply({"message": "took too long"}, status=408),
        Reply(json.dumps(listing(person(1))).encode()[:-9]),
        Reply(json.dumps(listing(person(1))).encode(), cut_at=20),
        Reply(hang_up=True),
        reply({"participants_of": "something else"}),
        reply([{"error": {"error_code": 7}}]),
        Reply(b"not gzip", headers={"Content-Encoding": "gzip"}),
        Reply(HTML, status=302, headers={"Location": "https://example.com/"}),
    ],
    ids=lambda answer: f"{answer.status} {answer.body[:30]!r}",
)
def test_what_may_pass_by_itself_is_asked_again(first: Reply) -> None:
    s, outcome = _outcome(first, GOOD)

    assert outcome == 1
    assert len(s.vendor.requests) == len(s.permits.taken) == len(s.calls) == 2
    assert [call.attempt for call in s.calls] == [1, 2]
    assert s.calls[0].error is not None
    assert s.calls[1].error is None
    assert len(s.clock.slept) == 1


@pytest.mark.parametrize(
    ("first", "kind"),
    [
        (error(6, "Key authentication failed"), KeyRefused),
        (error(13), KeyRefused),
        (error(7, "Permission Denied"), AccessLost),
        (error(201), RaceGone),
        (error(301), EventGone),
        (error(17, status=400), CallerRefused),
        (error(3), RequestRefused),
        (error(15), RequestRefused),
        (error(16), RequestRefused),
        (error(4711), RequestRefused),
        (reply({"error": "invalid_client"}, status=401), KeyRefused),
        (reply({"error": "forbidden", "details": {}}, status=403), AccessLost),
        (reply({"error": "no such page", "details": {}}, status=404), RequestRefused),
        (reply({"error": "what?"}), RequestRefused),
        (Reply(status=301, headers={"Location": "https://example.com/"}), RequestRefused),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else value.body[:40].decode(),
)
def test_a_refusal_is_final(first: Reply, kind: type[BibwireError]) -> None:
    s, outcome = _outcome(first, GOOD)

    assert type(outcome) is kind
    assert len(s.vendor.requests) == len(s.permits.taken) == len(s.calls) == 1
    assert s.clock.slept == []


def test_a_redirect_is_never_followed() -> None:
    async def run() -> list[str]:
        def handler(request: Request) -> Reply:
            return Reply(status=307, headers={"Location": "/rest/elsewhere"})

        async with scene(handler=handler, max_attempts=2) as s:
            with pytest.raises(VendorUnavailable, match="redirect"):
                await _read(s.client)
            return [request.path for request in s.vendor.requests]

    assert asyncio.run(run()) == ["/rest/race/7/participants"] * 2


def test_attempts_are_bounded_in_number() -> None:
    s, outcome = _outcome(Reply(HTML, status=503), max_attempts=3, retry_seconds=1e9)

    assert type(outcome) is VendorUnavailable
    assert len(s.vendor.requests) == len(s.permits.taken) == 3


def test_attempts_are_bounded_in_seconds_by_the_clock_they_are_given() -> None:
    s, outcome = _outcome(Reply(HTML, status=503), max_attempts=1000, retry_seconds=60)

    assert type(outcome) is VendorUnavailable
    assert sum(s.clock.slept) == pytest.approx(60)
    assert 5 < len(s.vendor.requests) < 20


def test_waits_grow_and_differ() -> None:
    s, _ = _outcome(Reply(HTML, status=503), max_attempts=6, retry_seconds=1e9)

    assert len(s.clock.slept) == 5
    for number, wait in enumerate(s.clock.slept):
        assert 0.25 * 2**number <= wait <= 0.5 * 2**number


def test_retry_after_in_seconds_is_honoured() -> None:
    s, outcome = _outcome(Reply(HTML, status=429, headers={"Retry-After": "17"}), GOOD)

    assert outcome == 1
    assert 17 <= s.clock.slept[0] < 18


def test_retry_after_as_a_date_is_measured_by_the_vendors_clock() -> None:
    headers = {
        "Date": "Mon, 05 Oct 2026 08:00:00 GMT",
        "Retry-After": "Mon, 05 Oct 2026 08:00:21 GMT",
    }
    s, outcome = _outcome(Reply(HTML, status=503, headers=headers), GOOD)

    assert outcome == 1
    assert 21 <= s.clock.slept[0] < 22


def test_a_retry_after_beyond_what_is_left_ends_the_call_at_once() -> None:
    s, outcome = _outcome(Reply(HTML, status=429, headers={"Retry-After": "61"}), GOOD)

    assert isinstance(outcome, Blocked)
    assert len(s.vendor.requests) == 1
    assert s.clock.slept == []
    [(_, seconds)] = s.permits.pauses
    assert 61 <= seconds < 62


@pytest.mark.parametrize(
    ("answer", "least"),
    [
        (error(14, "Request throttled."), 0.25),
        (Reply(HTML, status=429), 0.25),
        (reply({"message": "slow down"}, status=429, headers={"Retry-After": "7"}), 7.25),
        (
            Reply(
                HTML,
                status=429,
                headers={
                    "Date": "Mon, 05 Oct 2026 08:00:00 GMT",
                    "Retry-After": "Mon, 05 Oct 2026 08:00:09 GMT",
                },
            ),
            9,
        ),
        # No Date of the vendor's: by our clock.
        (Reply(HTML, status=429, headers={"Retry-After": "Mon, 05 Oct 2026 12:00:11 GMT"}), 11),
    ],
    ids=["error 14", "429", "seconds", "date", "date alone"],
)
def test_a_throttle_answer_is_told_to_the_permits_and_waited_for_there(answer: Reply, least: float) -> None:
    s, outcome = _outcome(answer, GOOD)

    assert outcome == 1
    [(reason, seconds)] = s.permits.pauses
    assert "asks for fewer calls" in reason
    assert least <= seconds <= least + 0.5
    assert s.clock.slept == [seconds], "waited for twice"


@pytest.mark.parametrize(("seconds", "sent"), [(15, 1), (16, 0)])
def test_without_retries_a_call_waits_for_anothers_short_pause_and_not_for_a_long_one(
    seconds: float, sent: int
) -> None:
    async def run() -> int:
        async with scene(GOOD, retry_seconds=0) as s:
            await s.permits.throttled("another call was", seconds)
            with suppress(Blocked):
                await _read(s.client)
            return len(s.vendor.requests)

    assert asyncio.run(run()) == sent


def test_an_overloaded_vendor_is_no_throttle() -> None:
    s, outcome = _outcome(Reply(HTML, status=503, headers={"Retry-After": "3"}), GOOD)

    assert (outcome, s.permits.pauses) == (1, [])


def test_a_vendor_that_goes_on_throttling_is_given_up_within_the_seconds_of_a_retry() -> None:
    s, outcome = _outcome(error(14), max_attempts=1000, retry_seconds=60)

    assert isinstance(outcome, Throttled)
    assert sum(s.clock.slept) <= 60
    assert 4 < len(s.vendor.requests) < 20
    assert len(s.permits.pauses) == len(s.vendor.requests)


def test_each_attempt_is_recorded_as_it_ended() -> None:
    s, outcome = _outcome(Reply(hang_up=True), error(14), Reply(HTML, status=503), GOOD)

    assert outcome == 1
    assert [(endpoint, failed) for endpoint, failed, _, _ in s.permits.recorded] == [
        ("participants", True),
        ("participants", True),
        ("participants", True),
        ("participants", False),
    ]
    assert [received for _, _, received, _ in s.permits.recorded] == [c.bytes_received for c in s.calls]


def test_the_permit_is_held_while_the_call_is_in_flight_and_not_while_waiting() -> None:
    async def run() -> tuple[list[int], list[int]]:
        held_in_flight: list[int] = []
        held_asleep: list[int] = []

        def handler(request: Request) -> Reply:
            held_in_flight.append(s.permits.held)
            return Reply(HTML, status=503) if len(held_in_flight) < 3 else GOOD

        async with scene(handler=handler) as s:
            sleep = s.clock.sleep

            async def watched(seconds: float) -> None:
                held_asleep.append(s.permits.held)
                await sleep(seconds)

            s.clock.sleep = watched  # type: ignore[method-assign]
            assert await _read(s.client) == 1
        return held_in_flight, held_asleep

    assert asyncio.run(run()) == ([1, 1, 1], [0, 0])


def test_a_permit_that_is_refused_means_no_request() -> None:
    class Refusing(CountingPermits):
        def permit(self, endpoint: str, *, patience_seconds: float) -> Any:
            raise SettingsError("no budget")

    async def run() -> int:
        async with scene(GOOD) as s:
            s.client._permits = Refusing()
            with pytest.raises(SettingsError):
                await _read(s.client)
            return len(s.vendor.requests)

    assert asyncio.run(run()) == 0


def test_waiting_for_a_permit_is_not_counted_as_retrying() -> None:
    class Queue(CountingPermits):
        def permit(self, endpoint: str, *, patience_seconds: float) -> Any:
            assert isinstance(self.clock, MovedClock)
            self.clock.advance(3000)
            return super().permit(endpoint, patience_seconds=patience_seconds)

    async def run() -> int:
        async with scene(Reply(HTML, status=503), Reply(HTML, status=503), GOOD) as s:
            s.client._permits = Queue(s.clock)
            return await _read(s.client)

    assert asyncio.run(run()) == 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [(Reply(before=3600), "sent nothing within"), (Reply(hang_up=True), "broke")],
    ids=["silence", "hang-up"],
)
def test_a_silent_or_broken_connection_is_explained(answer: Reply, said: str) -> None:
    # Only the silence is waited for.
    s, outcome = _outcome(answer, max_attempts=1, timeout_seconds=2)

    assert type(outcome) is VendorUnavailable
    assert said in str(outcome)
    assert s.calls[0].status is None


def test_an_answer_that_drips_for_ever_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    # No single silence comes near its bound, on any machine; all together reach theirs.
    monkeypatch.setattr("bibwire.api.transport._TIMEOUTS_A_CALL", 0.01)
    _, outcome = _outcome(Reply(b"[" * 99_999, drip=0.05), max_attempts=1, timeout_seconds=60)

    assert type(outcome) is VendorUnavailable
    assert "not complete within 0.6 s" in str(outcome)


def test_an_answer_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bibwire.api.transport._LONGEST_BODY_BYTES", 1000)
    zipped = gzip.compress(b" " * 10_000_000)
    _, outcome = _outcome(Reply(zipped, headers={"Content-Encoding": "gzip"}), max_attempts=1)

    assert type(outcome) is AnswerUnreadable
    assert "far larger" in str(outcome)


def test_nobody_listening_is_explained() -> None:
    async def run() -> BibwireError:
        async with scene(GOOD, max_attempts=2) as s:
            client = VendorClient(
                base_url="http://127.0.0.1:9/rest",
                credential=Credential("bearer", Secret("a-token-nobody-knows")),
                caller=None,
                permits=s.permits,
                clock=s.clock,
                max_attempts=2,
            )
            async with client:
                with pytest.raises(VendorUnavailable) as caught:
                    await client.participant_counts(1, [1])
            assert len(s.permits.taken) == 2
            return caught.value

    error = asyncio.run(run())
    assert type(error) is VendorUnreachable
    assert str(error) == "RunSignup cannot be reached: connection refused"


def test_a_compressed_answer_is_read_and_its_bytes_on_the_wire_are_counted() -> None:
    body = gzip.compress(json.dumps(listing(*map(person, range(1, 500)))).encode())
    s, outcome = _outcome(Reply(body, headers={"Content-Encoding": "gzip"}))

    assert outcome == 499
    assert s.calls[0].bytes_received == len(body)
    assert "gzip" in s.vendor.requests[0].headers["accept-encoding"]


@pytest.mark.parametrize(
    ("credential", "query", "headers"),
    [
        (Credential("key", Secret(KEY), Secret(SECRET)), {"api_key": KEY, "api_secret": SECRET}, {}),
        (
            Credential("v2", Secret(KEY), Secret(SECRET)),
            {"rsu_api_key": KEY},
            {"x-rsu-api-secret": SECRET},
        ),
        (Credential("bearer", Secret(KEY)), {}, {"authorization": f"Bearer {KEY}"}),
    ],
    ids=["key", "v2", "bearer"],
)
def test_each_kind_of_credential_is_sent_where_the_vendor_wants_it(
    credential: Credential, query: dict[str, str], headers: dict[str, str]
) -> None:
    s, _ = _outcome(GOOD, credential=credential)

    [request] = s.vendor.requests
    assert {k: v for k, v in request.query.items() if "api" in k} == {
        "rsu_api_reg": CALLER_ID,
        **query,
    }
    assert {k: v for k, v in request.headers.items() if "rsu" in k or k == "authorization"} == {
        "x-rsu-api-reg-secret": CALLER_SECRET,
        **headers,
    }


def test_without_a_caller_registration_none_is_sent() -> None:
    s, _ = _outcome(GOOD, caller=None)

    [request] = s.vendor.requests
    assert "rsu_api_reg" not in request.query
    assert "x-rsu-api-reg-secret" not in request.headers


def test_cookies_are_not_kept() -> None:
    def handler(request: Request) -> Reply:
        return Reply(GOOD.body, headers={"Set-Cookie": "session=1; Path=/"})

    async def run() -> list[Request]:
        async with scene(handler=handler) as s:
            await _read(s.client)
            await _read(s.client)
            return s.vendor.requests

    assert all("cookie" not in request.headers for request in asyncio.run(run()))


def test_the_environments_proxy_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")

    assert _outcome(GOOD)[1] == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://api.runsignup.com/rest",
        "http://127.0.0.1.example.com/rest",
        "http://10.0.0.1/rest",
        "ftp://127.0.0.1/rest",
        "api.runsignup.com/rest",
        "https:///rest",
        "https://user:hunter2@api.runsignup.com/rest",
        "https://api.runsignup.com/rest?api_key=1",
        "https://api.runsignup.com:port/rest",
        "https://[::1/rest",
        "",
    ],
)
def test_an_address_that_would_leak_secrets_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        check_base_url(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://api.runsignup.com/rest/", "https://api.runsignup.com/rest"),
        ("http://127.0.0.1:8080/rest", "http://127.0.0.1:8080/rest"),
        ("http://[::1]:8080/rest", "http://[::1]:8080/rest"),
        (" http://localhost:8080/rest ", "http://localhost:8080/rest"),
    ],
)
def test_https_and_this_machine_are_good_addresses(url: str, kept: str) -> None:
    assert check_base_url(url) == kept


def test_an_empty_answer_is_an_error_and_never_an_empty_list() -> None:
    nothings: list[Callable[[], Reply]] = [
        lambda: reply({}),
        lambda: reply(None),
        lambda: reply("down"),
        lambda: reply([{"message": "down"}]),
        lambda: reply({"participants": None}),
    ]
    for nothing in nothings:
        _, outcome = _outcome(nothing(), max_attempts=1)
        assert type(outcome) is AnswerUnreadable


def test_without_a_network_retries_end_within_seconds_and_the_others_do_not_even_begin() -> None:
    async def run() -> tuple[list[CallMade], float, int, list[bool]]:
        async with scene() as s:
            calls = list[CallMade]()
            client = VendorClient(
                base_url="http://127.0.0.1:9/rest",
                credential=Credential("bearer", Secret("a-token-nobody-knows")),
                caller=None,
                permits=s.permits,
                clock=s.clock,
                on_call=calls.append,
            )
            async with client:
                with pytest.raises(VendorUnreachable):
                    await client.participant_counts(1, [1])
                took, tried = s.clock.monotonic(), len(calls)
                with pytest.raises(VendorUnreachable):
                    await client.participant_counts(1, [1])
                # By the next probe the network may be back.
                s.clock.advance(3)
                with pytest.raises(VendorUnreachable):
                    await client.participant_counts(1, [1])
            return calls, took, tried, [call.sent for call in calls]

    calls, took, tried, sent = asyncio.run(run())
    assert took < 5
    assert tried > 2
    assert len(calls) == tried + 1
    assert not any(sent)
