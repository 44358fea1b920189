"""
Looks after the embedded server while somebody works with it: one that was killed is started again.

Every process with a hold on the server does, since any of them may be the last that lives; the lock
of starting lets one be first, and the others find it running.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from bibwire.domain.errors import BibwireError
from bibwire.store.embedded import EmbeddedServer

LOOK_SECONDS: Final = 2.0
# After a start that failed: what keeps it from starting seldom goes away by itself.
LONGEST_PAUSE_SECONDS: Final = 15.0

log = structlog.get_logger()


async def look_after(server: EmbeddedServer) -> None:
    """Start the server again whenever it ends, until cancelled."""
    pause = LOOK_SECONDS
    while True:
        await asyncio.sleep(pause)
        if server.is_up():
            pause = LOOK_SECONDS
            continue
        log.error("the embedded PostgreSQL has ended and is started again", action="database")
        try:
            await asyncio.to_thread(server.start_again)
        except BibwireError as error:
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            log.error(
                "the embedded PostgreSQL does not start",
                action="database",
                error=str(error),
                again_in_seconds=round(pause),
            )
        else:
            log.warning("the embedded PostgreSQL runs again", action="database")
