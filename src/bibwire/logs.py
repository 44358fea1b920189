"""
Logging: lines for people on standard error, and the same as JSON lines in a file.

Whatever is logged, by us or by a library, passes one place that strikes out every secret
known so far, exceptions and their causes included; `hide` makes further secrets known.
"""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import os
import sys
import threading
from collections.abc import Iterable
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO, cast

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

from bibwire.domain.errors import SettingsError
from bibwire.domain.secrets import Redactor, Secret

# They tell every request at INFO and every header at DEBUG; what a reader needs, we log.
_QUIET = ("httpx2", "httpcore2", "hpack", "asyncio", "alembic")

_lock = threading.Lock()
_known: set[Secret] = set()
_redactor = Redactor()


def hide(secrets: Iterable[Secret]) -> None:
    """From now on strike these out of everything that is logged, and of `redact`."""
    global _redactor
    with _lock:
        new = {secret for secret in secrets if secret} - _known
        if new:
            _known.update(new)
            _redactor = Redactor(_known)


def redact(text: str) -> str:
    """Return `text` without any secret known so far."""
    return _redactor.redact_text(text)


def set_up(*, level: str = "INFO", log_file: Path | None = None, shown: str | None = None) -> None:
    """
    Send all logs where they belong; may be called again.

    Args:
        level: DEBUG, INFO, WARNING or ERROR.
        shown: Level of what goes to standard error, where it is to be less.
        log_file: Gets a copy as JSON lines; it is found again after a rotation by logrotate.

    Raises:
        SettingsError: The file cannot be written.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    handlers: list[logging.Handler] = [_StandardError()]
    handlers[0].setFormatter(_formatter(shared, _Lines()))
    handlers[0].setLevel(shown or level)
    if log_file is not None:
        handlers.append(_file_handler(log_file))
        handlers[1].setFormatter(_formatter(shared, structlog.processors.JSONRenderer()))
    root = logging.getLogger()
    for old in list(root.handlers):
        if getattr(old, "of_bibwire", False):
            root.removeHandler(old)
            old.close()
    for handler in handlers:
        handler.of_bibwire = True  # type: ignore[attr-defined]
        root.addHandler(handler)
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


class _File(logging.handlers.WatchedFileHandler):
    """A copy of the log; work goes on without it where it cannot be written, and that is said once."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8")
        self._fails = False

    def _open(self) -> TextIOWrapper:
        # Its group may read it, as system logs; others may not, whatever the umask.
        return cast(
            TextIOWrapper,
            open(self.baseFilename, self.mode, encoding="utf-8", opener=_private),
        )

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._fails:
            self._fails = True
            why = error.strerror or str(error)
            sys.stderr.write(f"bibwire: the log file {self.baseFilename} cannot be written: {why}.\n")

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what could not be written was told
            super().close()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o640)


def _file_handler(path: Path) -> logging.Handler:
    try:
        return _File(path)
    except OSError as error:
        raise SettingsError(
            f"The log file {path} cannot be written ({error.strerror}). Name another one in BIBWIRE_LOG_FILE."
        ) from None


class _StandardError(logging.StreamHandler[TextIO]):
    """Looks standard error up at each line, because a progress bar takes its place meanwhile."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """Redacts once more what is about to be written, however it came there."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def _formatter(shared: list[Processor], renderer: Processor) -> logging.Formatter:
    return _Formatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            # Before redaction, so that what an exception says is struck out too. Plain
            # tracebacks: those with local variables would show what the variables hold.
            structlog.processors.format_exc_info,
            _redact_fields,
            renderer,
        ],
    )


def _redact_fields(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    return {str(_clean(key)): _clean(value) for key, value in event.items()}


def _clean(value: Any) -> Any:
    """Return `value` as what JSON can hold, without secrets."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict):
        return {str(_clean(key)): _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(item) for item in value]
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    return redact(str(value))


class _Lines:
    """12:00:00 info     what happened   field=value: a line for people, without colours."""

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> str:
        at = str(event.pop("timestamp", ""))[11:19]
        level = event.pop("level", "")
        text = event.pop("event", "")
        exception = event.pop("exception", None)
        fields = " ".join(f"{key}={_shown(value)}" for key, value in event.items())
        line = f"{at} {level:<8} {_on_one_line(str(text))}" + (f"   {fields}" if fields else "")
        return line if exception is None else f"{line}\n{exception}"


def _shown(value: Any) -> str:
    text = _on_one_line(str(value))
    return f'"{text}"' if not text or " " in text else text


def _on_one_line(text: str) -> str:
    """A text from outside must neither end our line nor steer the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
