"""How a command that goes on until it is told to end hears of that, and which exit code it ends with."""

from __future__ import annotations

import asyncio
import contextlib
import signal


class Stop(asyncio.Event):
    """
    Set by Ctrl-C, SIGTERM or a terminal that is closed: first finish what is under way.

    `exit_code`: as of a program that such a signal ends; 0 as long as none came.
    """

    def __init__(self) -> None:
        super().__init__()
        self.exit_code = 0
        loop = asyncio.get_running_loop()
        for name, code in (("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 143)):
            number = getattr(signal, name, None)
            # What nohup switched off stays off; Windows has no such handlers.
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                with contextlib.suppress(NotImplementedError):
                    loop.add_signal_handler(number, self._told, code)

    def _told(self, code: int) -> None:
        # The first one counts: whoever presses Ctrl-C again is impatient.
        self.exit_code = self.exit_code or code
        self.set()
