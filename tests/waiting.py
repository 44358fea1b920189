"""Waiting for what happens in other processes and threads: for the event itself, never for a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

# Guards against hanging alone: ten times what a loaded machine a tenth as fast may need.
PATIENCE_SECONDS: Final = 120.0


def wait_until(happened: Callable[[], object]) -> None:
    """Return once `happened()` is true."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)
