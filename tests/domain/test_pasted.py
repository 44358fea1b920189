"""What people paste is taken as they meant it, and what came along is told."""

from __future__ import annotations

import pytest

from bibwire.domain import pasted


@pytest.mark.parametrize(
    ("given", "meant", "found"),
    [
        ("abc", "abc", None),
        ("  abc\r\n", "abc", None),
        ('"abc"', "abc", pasted.AROUND),
        ("“abc”", "abc", pasted.AROUND),
        ("\ufeffabc\u200b", "abc", "a byte order mark (U+FEFF) and a zero width space (U+200B)"),
        ("a\u00adb", "ab", "a soft hyphen (U+00AD)"),
        ("\u00a0 'abc' ", "abc", "a non-breaking space (U+00A0) and quotes around it"),
        ("'", "'", None),
        ('""', "", pasted.AROUND),
        ("it's", "it's", None),
        ("", "", None),
    ],
)
def test_what_cannot_be_seen_is_taken_out_and_named(given: str, meant: str, found: str | None) -> None:
    assert pasted.clean(given) == pasted.Pasted(meant, found)


def test_in_a_path_joiners_stay() -> None:
    assert pasted.clean("\ufeff/srv/می‌روم", inside=False).text == "/srv/می‌روم"


@pytest.mark.parametrize(
    ("text", "odd"),
    [
        ("Abc-123_~/+=", None),
        ("ab–c", "an en dash (U+2013)"),
        ("а", "a cyrillic small letter a (U+0430)"),
        ("a b", "a space (U+0020)"),
        ("a\x00", "a control character (U+0000)"),
    ],
)
def test_what_no_key_has_is_named(text: str, odd: str | None) -> None:
    assert pasted.oddity(text) == odd


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("postgresql://u:p@ss@host/db", "postgresql://u:p%40ss@host/db"),
        ("postgres://u:pa/ss@host:5433/db?sslmode=require", "postgres://u:pa%2Fss@host:5433/db?sslmode=require"),
        ("postgresql+asyncpg://u:p@h/db", "postgresql://u:p@h/db"),
        ("postgres://u:50%off@h/db", "postgres://u:50%25off@h/db"),
        ("postgresql://u:pa?s#s@h/db", "postgresql://u:pa%3Fs%23s@h/db"),
    ],
)  # fmt: skip
def test_a_password_is_quoted_where_the_address_can_be_read_in_no_other_way(given: str, read: str) -> None:
    assert pasted.database_url(given) == read
    assert pasted.is_clear(read)


@pytest.mark.parametrize(
    "url",
    [
        "postgres://u:p%40ss@h/db",
        "postgresql:///db?host=/tmp/x@y",
        "postgresql://h1:5432,h2:5433/db?options=-c%20a@b",
        "postgresql://u:pw@h1:5432,h2/db?x=a@b",
        "postgresql://u@[::1]:5432/db",
        "postgresql://u:a:b@h/db",
        "postgresql://h:5432/db?x=a@b",
        "postgresql://bibwire@/db?host=%2Ftmp&port=5432",
        "host=x password=a@b",
    ],
)
def test_an_address_that_is_as_it_should_be_stays(url: str) -> None:
    assert pasted.database_url(url) == url
    assert pasted.is_clear(url) or "=" in url


def test_an_address_that_can_be_read_in_two_ways_is_not_guessed_at() -> None:
    url = "postgresql://u:123/x@h/db"

    assert pasted.database_url(url) == url
    assert not pasted.is_clear(url)
