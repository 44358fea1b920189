"""
Keeps the libraries below from writing down what they send.

httpx2 logs each request's whole URL at INFO, and `api_secret` stands in the URL; httpcore2
logs headers at DEBUG; stamina logs each retry, to standard output unless structlog is set up.
What an operator needs of each call is reported by `on_call` instead.
"""

from __future__ import annotations

import logging
from typing import Final

import stamina.instrumentation

_LOGGERS: Final = (
    "httpx2",
    "httpcore2",
    "httpcore2.connection",
    "httpcore2.http11",
    "httpcore2.http2",
    "httpcore2.proxy",
    "httpcore2.socks",
)


class _Nothing(logging.Filter):
    """A filter and not a level: settings of the whole program's log do not undo it."""

    def filter(self, record: logging.LogRecord) -> bool:
        return False


_NOTHING: Final = _Nothing()


def quiet_libraries() -> None:
    """Silence them for the whole process. Calling it again changes nothing."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_NOTHING)
    stamina.instrumentation.set_on_retry_hooks([])
