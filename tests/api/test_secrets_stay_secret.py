"""No key, no secret and no caller registration leaves the client by any door but the request."""

from __future__ import annotations

import asyncio
import copy
import io
import json
import logging
import pickle
import traceback
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
import stamina.instrumentation
from hypothesis import given
from hypothesis import strategies as st

import bibwire.domain.secrets
from bibwire.api.client import CallMade, VendorClient
from bibwire.api.endpoints import PARTICIPANT_COUNTS
from bibwire.domain.errors import AnswerUnreadable, BibwireError, SettingsError
from bibwire.domain.records import Dated, Page
from bibwire.domain.secrets import CallerRegistration, Credential, Redactor, Secret

from .loopback import (
    CALLER_ID,
    CALLER_SECRET,
    EVERY_SECRET,
    KEY,
    SECRET,
    CountingPermits,
    MovedClock,
    Reply,
    error,
    listing,
    person,
    reply,
    scene,
)


# What a leak of any of them would look like: as it is, quoted, or escaped.
def traces_of(secret: str) -> set[str]:
    return {secret, quote(secret, safe=""), quote_plus(secret), secret.replace("/", "\\/")}


def leaks(told: str, secrets: tuple[str, ...] = EVERY_SECRET) -> list[str]:
    return [trace for secret in secrets for trace in traces_of(secret) if trace in told]


def everything_about(problem: BaseException) -> str:
    """Return all that a report could print: the whole chain, with the locals of each frame."""
    told: list[str] = []
    seen: set[int] = set()
    waiting: list[BaseException | None] = [problem]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        told += [str(one), repr(one), repr(one.args), repr(vars(one))]
        summary = traceback.TracebackException.from_exception(one, capture_locals=True)
        told += summary.format(chain=True)
        # A local that holds an object of ours is printed by debuggers field by field.
        waiting += [one.__cause__, one.__context__]
    return "\n".join(told)


ECHO = json.dumps({"error": {"error_code": 3, "error_msg": f"bad: {' '.join(EVERY_SECRET)}"}})

FAULTS: dict[str, Reply] = {
    "key refused": error(6),
    "no right": error(7),
    "caller refused": error(17, status=400),
    "throttled": error(14),
    "unknown code": error(999),
    "echoed in an error": Reply(ECHO.encode()),
    "echoed as PHP writes it": Reply(ECHO.replace("/", "\\/").encode()),
    "echoed in HTML": Reply(f"<p>{quote_plus(SECRET)} {KEY}</p>".encode(), status=500),
    "echoed in a string error": reply({"error": f"who is {KEY}/{SECRET}?"}, status=403),
    "echoed in a redirect": Reply(status=302, headers={"Location": f"https://x/?s={SECRET}"}),
    "half a body": Reply(b'[{"event":', cut_at=5),
    "hang-up": Reply(hang_up=True),
    "silence": Reply(before=3600),
    "bad gzip": Reply(b"no", headers={"Content-Encoding": "gzip"}),
    "bad header": Reply(b"[]", headers={"Content-Length": "many"}),
    "wrong shape": reply([[KEY, SECRET]]),
}

CREDENTIALS = {
    "key": Credential("key", Secret(KEY), Secret(SECRET)),
    "v2": Credential("v2", Secret(KEY), Secret(SECRET)),
    "bearer": Credential("bearer", Secret(KEY)),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", CREDENTIALS)
def test_no_fault_shows_a_secret(fault: str, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.NOTSET)

    async def run() -> tuple[BaseException, list[CallMade]]:
        async with scene(
            FAULTS[fault], credential=CREDENTIALS[kind], max_attempts=2, timeout_seconds=0.1
        ) as s:
            with pytest.raises(BibwireError) as caught:
                async for _ in s.client.participants(7, [1]):
                    pass
            return caught.value, s.calls

    try:
        problem, calls = asyncio.run(run(), debug=False)
    finally:
        root.setLevel(before)
        root.removeHandler(handler)

    # With a bearer token there is no second secret that the client could know.
    known = (KEY, CALLER_ID, CALLER_SECRET) if kind == "bearer" else EVERY_SECRET
    told = everything_about(problem)
    assert type(problem).__module__ == "bibwire.domain.errors"
    assert len(told) > 100
    assert leaks(told, known) == []
    assert leaks(repr(calls), known) == []
    assert leaks(log.getvalue(), known) == []
    assert "/rest/race/" not in log.getvalue()
    assert leaks("".join(capfd.readouterr()), known) == []


def test_an_error_of_the_client_has_no_chain() -> None:
    async def run() -> BaseException:
        async with scene(Reply(hang_up=True), max_attempts=3) as s:
            with pytest.raises(BibwireError) as caught:
                await s.client.participant_counts(7, [1])
            return caught.value

    problem = asyncio.run(run())

    assert problem.__cause__ is None
    context = problem.__context__
    while context is not None:
        assert type(context).__module__.startswith(("bibwire", "tenacity"))
        context = context.__context__


def test_what_a_reader_was_doing_when_it_failed_is_cut_off() -> None:
    def careless(body: bytes, dated: Dated) -> None:
        try:
            raise KeyError(SECRET)
        except KeyError:
            raise AnswerUnreadable("the answer is odd")  # noqa: B904

    async def run() -> BaseException:
        async with scene(reply(listing()), max_attempts=1) as s:
            with pytest.raises(AnswerUnreadable) as caught:
                await s.client._call(PARTICIPANT_COUNTS, 7, [], careless)
            return caught.value

    assert leaks(everything_about(asyncio.run(run()))) == []


def test_a_short_secret_in_the_vendors_words_is_struck_out() -> None:
    async def run() -> str:
        credential = Credential("key", Secret("K9z"), Secret(SECRET))
        async with scene(error(3, "who is K9z?"), credential=credential) as s:
            with pytest.raises(BibwireError) as caught:
                await s.client.participant_counts(7, [1])
            return f"{caught.value} {s.calls}"

    told = asyncio.run(run())

    assert "who is [redacted]?" in told
    assert "K9z" not in told


def test_a_log_set_up_later_still_hears_nothing_of_requests() -> None:
    log = io.StringIO()

    async def run() -> None:
        async with scene(reply(listing(person(1)))) as s:
            handlers = []
            for name in ("httpx2", "httpcore2", "httpcore2.http11", "httpcore2.connection"):
                logger = logging.getLogger(name)
                logger.setLevel(logging.DEBUG)
                handler = logging.StreamHandler(log)
                logger.addHandler(handler)
                handlers.append((logger, handler))
            try:
                async for _ in s.client.participants(7, [1]):
                    pass
            finally:
                for logger, handler in handlers:
                    logger.removeHandler(handler)
                    logger.setLevel(logging.NOTSET)

    asyncio.run(run())

    assert log.getvalue() == ""


def test_retries_write_nothing_by_themselves(capfd: pytest.CaptureFixture[str]) -> None:
    stamina.instrumentation.set_on_retry_hooks(None)  # as it is in a new process

    async def run() -> None:
        async with scene(error(14), reply(listing())) as s:
            async for _ in s.client.participants(7, [1]):
                pass
            assert len(s.calls) == 2

    asyncio.run(run())

    assert "".join(capfd.readouterr()) == ""


def test_secrets_echoed_into_a_record_never_reach_it() -> None:
    row = person(1, note=f"key {KEY}", extra={"s": SECRET, "url": f"?s={quote(SECRET, safe='')}"})

    async def run() -> list[Page]:
        async with scene(reply(listing(row))) as s:
            return [page async for page in s.client.participants(7, [1])]

    [page] = asyncio.run(run())

    [raw] = [row.raw.decode() for row in page.rows]
    assert leaks(raw) == []
    assert raw.count("[redacted]") == 3
    assert json.loads(raw)["registration_id"] == 1


def test_a_secret_that_no_header_can_carry_is_refused_without_being_shown() -> None:
    for text in ("bad\nheader-value", "schlüssel-geheim"):
        with pytest.raises(SettingsError) as caught:
            VendorClient(
                base_url="http://127.0.0.1/rest",
                credential=Credential("bearer", Secret(text)),
                caller=None,
                permits=CountingPermits(),
                clock=MovedClock(),
            )
        assert text not in f"{caught.value!s} {caught.value!r}"


HOLDERS: list[Any] = [
    Secret(SECRET),
    Credential("key", Secret(KEY), Secret(SECRET)),
    CallerRegistration(Secret(CALLER_ID), Secret(CALLER_SECRET)),
    Redactor([Secret(KEY), Secret(SECRET)]),
    {"secret": Secret(SECRET)},
]


@pytest.mark.parametrize("holder", HOLDERS, ids=lambda holder: type(holder).__name__)
def test_what_holds_a_secret_does_not_show_it(holder: Any) -> None:
    assert leaks(f"{holder} {holder!r} {holder!s:>10} {[holder]}") == []


@pytest.mark.parametrize("holder", HOLDERS[:3], ids=lambda holder: type(holder).__name__)
def test_what_holds_a_secret_is_not_pickled_or_copied(holder: Any) -> None:
    for careless in (pickle.dumps, copy.copy, copy.deepcopy):
        try:
            made = careless(holder)
        except TypeError:
            continue
        assert careless is copy.copy  # a copy of a holder holds the same Secret
        assert made == holder
    with pytest.raises(TypeError):
        pickle.dumps(holder)


def test_secrets_are_compared_by_their_text() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a")}) == 1


def test_a_fingerprint_is_the_last_four_signs_of_the_key() -> None:
    assert Credential("key", Secret(KEY), Secret(SECRET)).fingerprint == KEY[-4:]


@given(
    st.text(st.characters(blacklist_characters="¤"), min_size=6, max_size=30).filter(
        lambda secret: not secret.isdecimal()
    ),
    st.text("¤", max_size=9),
    st.text("¤", max_size=9),
)
def test_a_secret_is_struck_out_in_each_form(secret: str, before: str, after: str) -> None:
    redactor = Redactor([Secret(secret)])
    as_bytes = secret.encode("utf-8", "surrogatepass")
    for form in (
        secret,
        quote_plus(as_bytes),
        quote(as_bytes, safe=""),
        json.dumps(secret)[1:-1],
        json.dumps(secret)[1:-1].replace("/", "\\/"),
    ):
        clean = f"{before}[redacted]{after}"
        assert redactor.redact_text(before + form + after) == clean
        sent = (before + form + after).encode("utf-8", "surrogatepass")
        assert redactor.redact_bytes(sent) == clean.encode()


@given(
    parts=st.lists(st.sampled_from(["secret-", "1", "secret-1", "x", "-1", "s"]), max_size=40),
    window=st.integers(1, 20),
)
def test_no_secret_hides_at_the_edge_of_a_window(parts: list[str], window: int) -> None:
    body = "".join(parts).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bibwire.domain.secrets, "_WINDOW", window)

        struck = Redactor([Secret("secret-1")]).redact_bytes(body)

    assert struck == body.replace(b"secret-1", b"[redacted]")


def test_a_short_secret_is_struck_from_sentences_and_left_in_bodies() -> None:
    redactor = Redactor([Secret("1234"), Secret("longer-one")])

    assert redactor.redact_text("key 1234") == "key [redacted]"
    assert redactor.redact_bytes(b'{"bib_num":1234,"s":"longer-one"}') == (
        b'{"bib_num":1234,"s":"[redacted]"}'
    )


def test_a_secret_of_digits_does_not_damage_the_ids_of_a_body() -> None:
    redactor = Redactor([Secret("926456")])

    assert redactor.redact_text("key 926456") == "key [redacted]"
    assert redactor.redact_bytes(b'{"registration_id":92645624}') == (b'{"registration_id":92645624}')
