"""What a demonstration shows: a line a change, and below them how the mirror stands."""

from __future__ import annotations

import time
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

    def say(self, text: str | Text) -> None:
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
