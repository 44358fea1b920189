"""A wrong setting becomes one sentence that says what is wrong; a right one is read exactly."""

from __future__ import annotations

import os
from datetime import time
from pathlib import Path

import pytest

from bibwire.domain.errors import SettingsError
from bibwire.settings import GivenSettings, Settings, load_settings


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("BIBWIRE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("BIBWIRE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def load(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Settings:
    for name, value in environment.items():
        monkeypatch.setenv(f"BIBWIRE_{name}", value)
    return load_settings()


def refusal(monkeypatch: pytest.MonkeyPatch, **environment: str) -> str:
    with pytest.raises(SettingsError) as error:
        load(monkeypatch, **environment)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_defaults_are_those_of_the_design(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch)

    assert settings.database_url is None
    assert settings.api_url == "https://api.runsignup.com/rest"
    assert (settings.calls_per_hour, settings.max_calls_in_flight) == (1000, 2)
    assert (settings.retry_seconds, settings.timeout_seconds) == (60, 30)
    assert (settings.log_file, settings.log_level, settings.caller) == (None, "INFO", None)


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:8080/rest", "http://127.9.9.9/rest", "http://[::1]:8080/rest", "http://localhost/rest",
     "https://example.com/rest"],
)  # fmt: skip
def test_http_to_this_machine_and_https_to_any_are_taken(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    assert load(monkeypatch, API_URL=f" {url}/ ").api_url == url


@pytest.mark.parametrize(
    "url",
    ["http://api.runsignup.com/rest", "http://127.0.0.1.example.com/", "http://localhost.example.com/",
     "http://127.0.0.1@example.com/", "http://[::2]/", "http://0x7f.1/"],
)  # fmt: skip
def test_http_to_any_other_machine_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    assert "BIBWIRE_API_URL" in refusal(monkeypatch, API_URL=url)


@pytest.mark.parametrize(
    "url", ["runsignup.com", "ftp://x/", "https://", "https://[::1", "https://a:b/", "https://a/?k=v"]
)
def test_what_is_no_plain_url_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    assert "BIBWIRE_API_URL has to be a" in refusal(monkeypatch, API_URL=url)


@pytest.mark.parametrize(("given", "lacking"), [("REG", "SECRET"), ("SECRET", "REG")])
def test_half_a_caller_registration_is_refused(
    monkeypatch: pytest.MonkeyPatch, given: str, lacking: str
) -> None:
    told = refusal(monkeypatch, **{f"CALLER_{given}": "canary"})

    assert f"BIBWIRE_CALLER_{lacking} is not" in told
    assert "canary" not in told


def test_white_space_around_values_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, CALLER_REG=" 1.token\n", CALLER_SECRET="\tsecret ", CALLS_PER_HOUR=" 500 ")

    assert settings.caller is not None
    assert settings.caller.registration.reveal() == "1.token"
    assert settings.caller.secret.reveal() == "secret"
    assert settings.calls_per_hour == 500


def test_a_blank_value_is_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, DATABASE_URL="", CALLER_REG=" ", CALLER_SECRET="")

    assert settings.database_url is None
    assert settings.caller is None


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("TIMEOUT_SECONDS", "0", "a number from 1 to 600, not '0'"),
        ("TIMEOUT_SECONDS", "soon", "a number from 1 to 600, not 'soon'"),
        ("TIMEOUT_SECONDS", "nan", "a number from 1 to 600"),
        ("RETRY_SECONDS", "-1", "a number from 0 to 3600"),
        ("CALLS_PER_HOUR", "0", "a whole number from 1 to 1000000"),
        ("CALLS_PER_HOUR", "1.5", "a whole number from 1 to 1000000"),
        ("METRICS_PORT", "65536", "a whole number from 0 to 65535, not '65536'"),
        ("METRICS_PORT", "on", "a whole number from 0 to 65535, not 'on'"),
        ("MAX_CALLS_IN_FLIGHT", "two", "a whole number from 1 to 2, not 'two'"),
        ("MAX_CALLS_IN_FLIGHT", "3", "1 or 2, not 3: RunSignup allows each caller two calls at a time"),
        ("MAX_CALLS_IN_FLIGHT", "0", "1 or 2, not 0: RunSignup allows each caller two calls at a time"),
        ("MAX_CALLS_IN_FLIGHT", "-1", "1 or 2, not -1"),
        ("LOG_LEVEL", "LOUD", "one of DEBUG, INFO, WARNING, ERROR"),
    ],
)
def test_a_value_out_of_range_is_refused_with_the_range(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    assert f"BIBWIRE_{name} has to be {told}" in refusal(monkeypatch, **{name: value})


def test_a_database_that_is_no_postgresql_is_refused_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = refusal(monkeypatch, DATABASE_URL="mysql://user:canary@host/db")

    assert "BIBWIRE_DATABASE_URL has to begin with postgresql://" in told
    assert "canary" not in told


def test_two_keys_at_once_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    told = refusal(monkeypatch, SECRET_KEY="00" * 32, SECRET_KEY_FILE="/key")

    assert "keep one of them" in told


@pytest.mark.parametrize("key", ["BIBWIRE_TIMEOUT_SECONDS", "timeout_seconds"])
def test_the_file_is_read_and_the_environment_wins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, key: str
) -> None:
    (tmp_path / "bibwire.toml").write_text(f"{key} = 7\n")

    assert load_settings().timeout_seconds == 7
    assert load(monkeypatch, TIMEOUT_SECONDS="8").timeout_seconds == 8


def test_the_file_is_found_in_the_home_too_but_the_working_folder_goes_first(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "bibwire.toml").write_text("timeout_seconds = 7\nlog_file = 'log.json'\n")
    assert load_settings().timeout_seconds == 7
    assert load_settings().log_file == tmp_path / "home" / "log.json"

    (tmp_path / "bibwire.toml").write_text("timeout_seconds = 9\n")
    assert load_settings().timeout_seconds == 9


def test_a_file_that_is_a_folder_or_a_broken_link_is_not_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "bibwire.toml"
    file.mkdir()
    assert refusal(monkeypatch) == f"{file} cannot be read: Is a directory."

    file.rmdir()
    file.symlink_to(tmp_path / "nowhere.toml")
    assert refusal(monkeypatch) == f"{file} cannot be read: No such file or directory."


@pytest.mark.skipif(os.name != "posix", reason="only POSIX has such files")
@pytest.mark.timeout(20)
def test_a_file_whose_end_never_comes_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "bibwire.toml"
    os.mkfifo(file)
    assert refusal(monkeypatch) == f"{file} is no plain file: put one there, or remove it."

    file.unlink()
    file.symlink_to("/dev/zero")
    assert refusal(monkeypatch) == f"{file} is no plain file: put one there, or remove it."


def test_a_wrong_value_in_the_file_names_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bibwire.toml").write_text("timeout_seconds = 'soon'\n")

    assert f"BIBWIRE_TIMEOUT_SECONDS in {tmp_path / 'bibwire.toml'} has to be" in refusal(monkeypatch)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("timeout_second = 7", r"unknown key timeout_second (did you mean BIBWIRE_TIMEOUT_SECONDS?)"),
        ("colour = 'red'", "unknown key colour."),
        ("key_acme = 'canary'", "stored with bibwire partner add"),
        ("timeout_seconds = 7\nBIBWIRE_TIMEOUT_SECONDS = 8", "twice"),
        ("timeout_seconds = [7]", "plain value"),
        ('log_file = "a\\u0000b"', "holds a NUL character (U+0000): take it out."),
        ("timeout_seconds = ", "not valid TOML"),
    ],
)
def test_what_the_file_may_not_hold_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str, told: str
) -> None:
    (tmp_path / "bibwire.toml").write_text(content)

    sentence = refusal(monkeypatch)

    assert told in sentence
    assert "canary" not in sentence


def test_an_unknown_variable_is_warned_of_with_the_nearest_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    load(monkeypatch, CALLS_PER_HOURS="canary")

    warned = capsys.readouterr().err
    assert "BIBWIRE_CALLS_PER_HOURS is no setting" in warned
    assert "did you mean BIBWIRE_CALLS_PER_HOUR?" in warned
    assert "canary" not in warned


def test_no_secret_is_shown_by_the_settings_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(
        monkeypatch,
        DATABASE_URL="postgresql://user:canary1@host/db",
        SECRET_KEY="canary2",
        CALLER_REG="canary3",
        CALLER_SECRET="canary4",
    )

    assert "canary" not in repr(settings)
    assert "canary" not in str(settings)
    hidden = {secret.reveal() for secret in settings.secrets()}
    assert {"canary1", "canary2", "canary3", "canary4"} <= hidden


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:can%20ary@h/d",
        "host=h password='can ary' user=u",
        "postgresql://h/d?password=can%20ary",
    ],
)
def test_the_database_password_is_known_as_a_secret_by_itself(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    settings = load(monkeypatch, DATABASE_URL=url)

    assert "can ary" in {secret.reveal() for secret in settings.secrets()}


def test_a_partner_s_key_is_overridden_by_its_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, KEY_ACME_TIMING_CO_="k", SECRET_ACME_TIMING_CO_=" s ")

    override = settings.partner_override("Acme Timing/Co.")

    assert override is not None
    assert override.secret is not None
    assert (override.kind, override.key.reveal(), override.secret.reveal()) == ("key", "k", "s")
    assert settings.partner_override("Other") is None
    assert {"k", "s"} <= {secret.reveal() for secret in settings.secrets()}


def test_a_bearer_token_is_overridden_by_either_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    override = load(monkeypatch, SECRET_ACME="token").partner_override("acme", "bearer")

    assert override is not None
    assert (override.key.reveal(), override.secret) == ("token", None)


def test_half_an_override_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, KEY_ACME="canary")

    with pytest.raises(SettingsError, match="BIBWIRE_SECRET_ACME is not") as error:
        settings.partner_override("acme")
    assert "canary" not in str(error.value)


def test_a_partner_called_key_is_not_given_the_encryption_key(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, SECRET_KEY="00" * 32, KEY_KEY="k")

    assert settings.partner_override("key") is None


def test_given_settings_take_nothing_from_the_environment_or_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BIBWIRE_DATABASE_URL", "postgresql://host/real")
    monkeypatch.setenv("BIBWIRE_KEY_ACME", "k")
    (tmp_path / "bibwire.toml").write_text("timeout_seconds = 9\n")

    settings = GivenSettings(home=tmp_path)

    assert settings.database_url is None
    assert settings.timeout_seconds == 30
    assert settings.partner_override("acme") is None


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("BIBWIRE_DISCOVERY_TIMES", "25:00", "times of day"),
        ("BIBWIRE_DISCOVERY_TIMES", "6", "times of day"),
        ("BIBWIRE_VERIFY_AT", "3", "time of day"),
        ("BIBWIRE_VERIFY_AT", "never", "or off"),
        ("BIBWIRE_TIMEZONE", "Mars/Olympus", "zone like"),
    ],
)
def test_a_discovery_time_or_zone_that_is_none_is_refused(
    name: str, value: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=told):
        load_settings()


def test_discovery_times_and_zone_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIBWIRE_DISCOVERY_TIMES", " 5:30, 17:00")
    monkeypatch.setenv("BIBWIRE_TIMEZONE", "America/Denver")

    settings = load_settings()

    assert settings.discovery_times == (time(5, 30), time(17))
    assert settings.timezone.key == "America/Denver"


@pytest.mark.parametrize(
    ("text", "at"), [(None, time(3)), ("", time(3)), (" 4:15 ", time(4, 15)), ("off", None), ("OFF", None)]
)
def test_when_mirrors_are_verified_is_read(
    text: str | None, at: time | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if text is not None:
        monkeypatch.setenv("BIBWIRE_VERIFY_AT", text)

    assert load_settings().verify_at == at
