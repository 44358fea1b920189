"""
Whatever stands in `bibwire.toml` and the environment is a setting within its bounds, or one sentence.

The sentence names what is wrong, and never holds a secret.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import time
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from bibwire.domain.errors import SettingsError
from bibwire.domain.secrets import CallerRegistration, Secret
from bibwire.settings import PREFIX, Settings, load_settings
from tests.fuzzing import ODD, damaged, examples, one_of, texts

CANARY: Final = "canary7Zq"
CANARY_NUMBER: Final = 71_727_374_757_677
FIELDS: Final = sorted(Settings.model_fields)
SECRETS: Final = ("database_url", "adopt_from", "proxy", "secret_key", "caller_reg", "caller_secret")
RANGES: Final[dict[str, tuple[type[int | float], int, int]]] = {
    "calls_per_hour": (int, 1, 1_000_000),
    "max_calls_in_flight": (int, 1, 2),
    "retry_seconds": (float, 0, 3600),
    "timeout_seconds": (float, 1, 600),
    "metrics_port": (int, 0, 65535),
}
FINE: Final = {
    "database_url": "postgresql://bibwire:pw@db.example.com/bibs",
    "home": "/var/lib/bibwire",
    "api_url": "https://api.runsignup.com/rest",
    "proxy": "http://proxy.example.com:3128",
    "calls_per_hour": "1000",
    "retry_seconds": "60",
    "discovery_times": "06:00, 18:00",
    "verify_at": "03:00",
    "timezone": "America/New_York",
    "metrics_port": "9464",
    "log_level": "INFO",
}
TOML: Final = b"""\xef\xbb\xbf# Ours
database_url = "postgresql://bibwire:pw@db.example.com/bibs"
BIBWIRE_CALLS_PER_HOUR = 1_000
retry_seconds = 60.5
verify_at = 03:00:00
discovery_times = '06:00,18:00'
log_file = \"\"\"log.json\"\"\"
timezone = "America/New_York"
"""
NASTY: Final = (
    "~nobody-of-that-name/x", "~", "~root", "a\nb", "a\x1b[2Jb", "x" * 100_000, "9" * 5000, "-" + "9" * 5000,
    "1e400", "nan", "inf", "-inf", "true", "0x10", "1_0", "٣", "²", "1.0", " 2 ", "2\n", "００:００", "٠٦:٠٠",
    "24:00", "06:00,", "off", "postgresql://", "postgresql://u:p@[::1", "postgresql://u:p@h:99999999/d", "=",
    "host=", "password=", "http://[", "http://127.0.0.1:x", "https://a\tb", "https://a b/", "https://é.example",
    "https://x:99999", "http://u:p@h", "localtime", "../../etc/passwd", "/etc/passwd", "UTC", "utc", "EST",
    ".", "/", "\\", "\"", "''", "\ufeff", "\u200b", "a\u202eb", "-", "--", "%", "%s", "{}", "$HOME", "\udcff",
    "a\udc80b", "postgresql://u:\udcff@h/d", "/tmp/\udcff", "https://\udcff.example", "127.0.0.1\udcff",
)  # fmt: skip

values = (
    one_of(NASTY)
    | one_of([each for each in ODD if isinstance(each, str)])
    | texts
    | one_of(sorted(FINE.values()))
    | one_of(sorted(FINE.values())).flatmap(lambda text: damaged(text.encode())).map(os.fsdecode)
)
# What an environment can hold.
variables = values.filter(lambda text: "\0" not in text and not has_no_bytes(text))


def has_no_bytes(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return True
    return False


@contextmanager
def surroundings(folder: Path, variables: Mapping[str, str], content: bytes | None) -> Iterator[None]:
    """Stand in a folder with such a file and such an environment."""
    path = folder / "bibwire.toml"
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIBWIRE_HOME", str(folder / "home"))
        patch.chdir(folder)
        for name, value in variables.items():
            patch.setenv(name, value)
        yield


def check_settings(settings: Settings) -> None:
    for name, (kind, least, most) in RANGES.items():
        value = getattr(settings, name)
        if value is not None:
            assert type(value) is kind, name
            assert least <= value <= most, name
    for name in SECRETS:
        secret = getattr(settings, name)
        if secret is not None:
            assert isinstance(secret, Secret)
            check_plain(secret.reveal())
            if name not in ("secret_key",):
                assert CANARY not in repr(settings)
    for name in ("home", "secret_key_file", "log_file"):
        path = getattr(settings, name)
        assert path is None or (isinstance(path, Path) and path.is_absolute())
        assert path is None or "\0" not in str(path)
    for text in (settings.api_url, settings.metrics_host):
        check_plain(text)
    assert settings.log_level in ("DEBUG", "INFO", "WARNING", "ERROR")
    assert all(type(each) is time and each.tzinfo is None for each in settings.discovery_times)
    assert settings.verify_at is None or (
        type(settings.verify_at) is time and settings.verify_at.tzinfo is None
    )
    assert isinstance(settings.timezone, ZoneInfo)
    assert settings.caller is None or isinstance(settings.caller, CallerRegistration)
    assert all(isinstance(each, Secret) for each in settings.secrets())


def check_plain(text: object) -> None:
    """It can be sent and stored."""
    assert type(text) is str
    assert "\0" not in text
    text.encode()


def check_refusal(error: SettingsError, folder: Path) -> None:
    told = str(error)
    assert "\n" not in told
    assert "\r" not in told
    assert told.endswith((".", "?"))
    assert CANARY not in told
    assert str(CANARY_NUMBER) not in told
    # In people's words, and no longer than is read: the library's own are for programmers.
    assert "Traceback" not in told
    assert len(told.replace(str(folder), "")) < 500
    assert "BIBWIRE_" in told or "bibwire.toml" in told


def load(folder: Path, variables: Mapping[str, str], content: bytes | None) -> Settings | None:
    """Return the settings, checked; None: they were refused, and rightly said so."""
    warned: list[str] = []
    settings: Settings | None = None
    with surroundings(folder, variables, content):
        try:
            settings = load_settings(warned.append)
        except SettingsError as error:
            check_refusal(error, folder)
        else:
            check_settings(settings)
    for sentence in warned:
        assert "\n" not in sentence
        assert CANARY not in sentence
    return settings


@given(content=st.binary(max_size=200) | damaged(TOML))
@example(content=b"calls_per_hour = " + b"9" * 5000)
@example(content=b"a = " + b"[" * 5000)
@example(content=b"a = " + b"{b=" * 5000)
@example(content=b'"a\\nb" = 1')
@example(content=b'log_file = "a\\u0000b"')
@examples(50, cost=5)
def test_any_bytes_of_a_file_are_settings_or_one_sentence(content: bytes, tmp_path: Path) -> None:
    load(tmp_path, {}, content)


def toml(value: Any) -> str:
    """Return a value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = "".join(
            each if each.isprintable() and each not in '"\\' else f"\\U{ord(each):08x}" for each in value
        )
        return f'"{escaped}"'
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(str(key))} = {toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return str(value) if value is not None else "1979-05-27T07:32:00Z"


plain_values = (
    values
    | st.integers()
    | st.floats()
    | st.booleans()
    | st.none()
    | st.dates().map(lambda day: RawToml(day.isoformat()))
    | st.times().map(lambda at: RawToml(at.isoformat()))
    | st.sampled_from([2**63, -(2**64), 10**30, 0, 1, 2, 3, -1])
    | st.lists(texts, max_size=2)
    | st.dictionaries(texts, st.integers(), max_size=2)
)


class RawToml:
    """A value as TOML writes it."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text


names = st.sampled_from(FIELDS) | st.sampled_from(FIELDS).map(lambda name: PREFIX + name.upper())


@given(
    document=st.dictionaries(names | names | texts, plain_values, max_size=4),
    variables=st.dictionaries(names.filter(str.isupper), variables, max_size=1),
)
@example(document={"max_calls_in_flight": "9" * 5000}, variables={})
@example(document={"log_file": "a\0b"}, variables={})
@example(document={"log_file": "~nobody-of-that-name/x"}, variables={})
@example(document={"calls_per_hour": True}, variables={})
@example(document={"verify_at": 0}, variables={})
@examples(83, cost=5)
def test_any_document_is_settings_or_one_sentence(
    document: dict[str, Any], variables: dict[str, str], tmp_path: Path
) -> None:
    lines = [f"{toml(key)} = {toml(value)}" for key, value in document.items()]
    try:
        content = "\n".join(lines).encode()
    except UnicodeEncodeError:
        assume(False)
    settings = load(tmp_path, variables, content)
    for name in RANGES:
        assert settings is None or not isinstance(document.get(name), bool), "true is no number"


@given(
    variables=st.dictionaries(names.filter(str.isupper), variables, min_size=1, max_size=3)
    | st.dictionaries(
        st.from_regex(r"BIBWIRE_[A-Z0-9_]{0,12}", fullmatch=True), variables, min_size=1, max_size=2
    )
)
@example(variables={"BIBWIRE_HOME": "~nobody-of-that-name/x"})
@example(variables={"BIBWIRE_LOG_FILE": "~nobody-of-that-name/x"})
@example(variables={"BIBWIRE_MAX_CALLS_IN_FLIGHT": "9" * 5000})
@example(variables={"BIBWIRE_RETRY_SECONDS": "x" * 100_000})
@example(variables={"BIBWIRE_DISCOVERY_TIMES": "6:00,\nx"})
@example(variables={"BIBWIRE_API_URL": "https://\udcff.example"})
@example(variables={"BIBWIRE_DATABASE_URL": "postgresql://u:\udcff@h/d"})
@examples(83, cost=5)
def test_any_environment_is_settings_or_one_sentence(variables: dict[str, str], tmp_path: Path) -> None:
    settings = load(tmp_path, variables, None)
    for partner in ("Peak Timing", "key", "ß\ud800", ""):
        with surroundings(tmp_path, variables, None):
            try:
                if settings is not None:
                    settings.partner_override(partner)
            except SettingsError as error:
                check_refusal(error, tmp_path)


@given(
    name=st.sampled_from(SECRETS),
    before=texts,
    after=texts | one_of(NASTY),
    is_in_file=st.booleans(),
)
@examples(50, cost=5)
def test_no_sentence_holds_a_secret(
    name: str, before: str, after: str, is_in_file: bool, tmp_path: Path
) -> None:
    value = f"{before}{CANARY}{after}"
    assume("\0" not in value and not has_no_bytes(value))
    try:
        line = f"{name} = {toml(value)}".encode()
    except UnicodeEncodeError:
        assume(False)
    variables = {} if is_in_file else {PREFIX + name.upper(): value}
    load(tmp_path, variables, line if is_in_file else None)
    # Nor where it is not even a text, or the file is broken after it, and the parser says where.
    assert load(tmp_path, {}, f"{name} = {CANARY_NUMBER}".encode()) is None
    load(tmp_path, {}, line + b'"\n[')
