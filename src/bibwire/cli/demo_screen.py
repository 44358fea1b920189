"""What a demonstration shows: a line a change, and below them how the mirror stands."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Self

from bibwire.cli.changes import describe
from bibwire.cli.streams import check_reader
from bibwire.cli.terminal import console

if TYPE_CHECKING:
    from rich.status import Status
    from rich.text import Text

    from bibwire.store.reports import Change

# Without a terminal the state is a line among the others; this often it is news.
PLAIN_STATE_SECONDS = 10.0
SHOWN_OF_A_GROUP = 6


STOPPING = "Stopping ..."


class Stopping:
    """
    Ends a demonstration in order on Ctrl-C, when told to, and when the terminal is closed.

    While it starts that is noted and said; nothing is interrupted, for what was half made would be left.
    """

    def __init__(self) -> None:
        # Whether it came before there was anything to end.
        self.is_early = False
        self._numbers = [
            number
            for name in ("SIGINT", "SIGTERM", "SIGHUP")
            # What nohup switched off stays off; Windows has not all of them.
            if (number := getattr(signal, name, None)) is not None
            and signal.getsignal(number) is not signal.SIG_IGN
        ]
        self._has_begun = False
        self.listen()

    def listen(self) -> None:
        """Note what comes while no loop runs."""
        for number in self._numbers:
            signal.signal(number, self._note)

    def tell(self, end: Callable[[], None]) -> None:
        """Call `end` in the running loop from now on; at once if it was told already."""
        self._has_begun = True
        for number in self._numbers:
            try:
                asyncio.get_running_loop().add_signal_handler(number, end)
            except NotImplementedError:
                # On Windows Ctrl-C ends with an error, and as cleanly.
                signal.signal(number, signal.default_int_handler)
        if self.is_early:
            self.is_early = False
            end()

    def _note(self, *_: object) -> None:
        if not self._has_begun and not self.is_early:
            self.is_early = True
            # Not through the stream, which may just be writing.
            with contextlib.suppress(OSError):
                os.write(1, f"{STOPPING}\n".encode())


class Screen:
    """Counts and shows what happens."""

    def __init__(self) -> None:
        self._out = console()
        self._status: Status | None = None
        self._stated_at = time.monotonic()
        self.calls = 0
        self.changes = 0
        self.bibs = 0
        self.people = 0
        self.as_of: datetime | None = None
        self.trouble = ""
        self._alike: tuple[object, ...] | None = None
        self._in_group = 0
        self._is_stopping = False

    def __enter__(self) -> Self:
        if self._out.is_terminal:
            self._status = self._out.status("", spinner="dots")
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_group()
        if self._status is not None:
            self._status.stop()

    def stop(self) -> None:
        """Say that it ends, and from now on nothing but `end`."""
        self.say(STOPPING)
        self._is_stopping = True

    def end(self, text: str) -> None:
        """Say what it came to."""
        self._is_stopping = False
        self.say(text)

    def say(self, text: str | Text) -> None:
        """Show a line."""
        if self._is_stopping:
            return
        self._out.print(text, soft_wrap=True)
        self._out.file.flush()
        check_reader()

    def change(self, change: Change) -> None:
        """Show a change; of many alike, such as bibs given to a whole field, the first ones."""
        # A first load is no change of anybody's.
        self.changes += change.registration_id is not None
        self.bibs += change.moves_bib
        kind = "bib" if change.moves_bib else change.kind
        alike = (change.partner, change.race_id, change.event_id, kind)
        if alike != self._alike:
            self._end_group()
            self._alike = alike
        self._in_group += 1
        if self._in_group <= SHOWN_OF_A_GROUP:
            self.say(describe(change))

    def _end_group(self) -> None:
        left = self._in_group - SHOWN_OF_A_GROUP
        if left > 0:
            self.say(f"         ... and {left:,} more like this")
        self._alike, self._in_group = None, 0

    def refresh(self, now: datetime) -> None:
        """Show how the mirror stands."""
        self._end_group()
        if self._status is not None:
            self._status.update(self._state(now))
        elif time.monotonic() - self._stated_at >= PLAIN_STATE_SECONDS:
            self._stated_at = time.monotonic()
            self.say(self._state(now))

    def _state(self, now: datetime) -> str:
        age = "not loaded" if self.as_of is None else f"{(now - self.as_of).total_seconds():.0f} s old"
        return (
            f"mirror {age}, {self.people:,} people, {self.changes:,} changes, {self.bibs:,} of bibs, "
            f"{self.calls:,} calls{self.trouble}. Ctrl-C ends."
        )
