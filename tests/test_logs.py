"""No secret that is known leaves through a log, whoever logs it and however it is written."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from bibwire import logs
from bibwire.domain.errors import SettingsError
from bibwire.domain.secrets import Secret

CANARY = 'can"ary/sécret 1'


@pytest.fixture
def log_file(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "bibwire.jsonl"
    root = logging.getLogger()
    level = root.level
    logs.hide([Secret(CANARY)])
    logs.set_up(level="DEBUG", log_file=path)
    yield path
    for handler in [handler for handler in root.handlers if getattr(handler, "of_bibwire", False)]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    structlog.reset_defaults()


def written(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    text = path.read_text("utf-8") + capsys.readouterr().err
    for form in (CANARY, "can%22ary", 'can\\"ary', "sécret", "s\\u00e9cret", "s%C3%A9cret"):
        assert form not in text
    return text


def test_an_event_goes_to_standard_error_and_as_json_to_the_file(
    log_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    structlog.get_logger().info("race synced", action="sync_scope", race_id=5, partner="Peak Timing")

    line = json.loads(log_file.read_text())
    assert (line["event"], line["level"], line["race_id"]) == ("race synced", "info", 5)
    assert (
        'info     race synced   action=sync_scope race_id=5 partner="Peak Timing"' in capsys.readouterr().err
    )


def test_a_secret_is_struck_out_of_every_field_and_form(
    log_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    structlog.get_logger().warning(
        f"asked with {CANARY}",
        url="https://host/?api_secret=can%22ary%2Fs%C3%A9cret%201",
        nested={"headers": [("X", CANARY)], CANARY: 1},
        body=CANARY.encode(),
        thing=Secret(CANARY),
    )

    assert "[redacted]" in written(log_file, capsys)


def test_a_secret_is_struck_out_of_exceptions_and_their_causes(
    log_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Built apart, so that the line of code in the traceback does not hold it in parts.
    def fail() -> None:
        try:
            raise ValueError(CANARY)
        except ValueError as error:
            raise RuntimeError("outer") from error

    for log in (structlog.get_logger(), logging.getLogger("some.library")):
        try:
            fail()
        except RuntimeError:
            log.exception("failed")

    text = written(log_file, capsys)
    assert "RuntimeError: outer" in text
    assert "ValueError: [redacted]" in text


def test_what_a_library_logs_takes_the_same_way(log_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("some.library").error("refused %s", CANARY)

    assert json.loads(log_file.read_text())["event"] == "refused [redacted]"
    written(log_file, capsys)


@pytest.mark.parametrize("name", ["httpx2", "httpcore2.http11"])
def test_the_http_library_is_quiet_below_warning(
    log_file: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A client that another test built has silenced the library altogether.
    monkeypatch.setattr(logging.getLogger(name), "filters", [])
    logging.getLogger(name).info("HTTP Request: GET https://host/?api_secret=x")
    logging.getLogger(name).warning("odd")

    assert [json.loads(line)["event"] for line in log_file.read_text().splitlines()] == ["odd"]


def test_a_text_from_outside_cannot_forge_a_line_or_steer_the_terminal(
    log_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    structlog.get_logger().info("name\n12:00:00 error forged", race="\x1b[2J")

    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "\x1b" not in told


def test_setting_up_twice_writes_each_line_once(log_file: Path) -> None:
    logs.set_up(level="INFO", log_file=log_file)

    structlog.get_logger().info("once")
    structlog.get_logger().debug("too fine")

    assert [json.loads(line)["event"] for line in log_file.read_text().splitlines()] == ["once"]


def test_a_log_file_that_cannot_be_written_is_a_wrong_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(SettingsError, match="BIBWIRE_LOG_FILE"):
        logs.set_up(log_file=tmp_path / "file" / "log")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk is played by /dev/full")
def test_a_log_file_that_cannot_be_written_is_told_of_once(
    log_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.set_up(level="INFO", log_file=Path("/dev/full"))

    for number in range(3):
        structlog.get_logger().info("race synced", race_id=number)

    shown = capsys.readouterr().err
    assert shown.count("/dev/full cannot be written") == 1
    assert shown.count("race synced") == 3
    assert "Traceback" not in shown
