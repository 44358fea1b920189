"""
The queue without its waiting: jobs lie in its tables, and are taken by its own statements.

What a worker of the queue does by the clock of the machine (it looks every 5 s, it beats, it queues
what is periodic) is done here when there is something to do, so that nothing happens in quiet hours.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from bibwire.domain.errors import BibwireError
from bibwire.store.database import Database, statements
from bibwire.store.jobs import FIRST_PAUSE_SECONDS, RESCUE, Jobs, Periodic, Task
from bibwire.store.jobs_engine import is_done_again_at_once

FETCH: Final = (
    "SELECT id, task_name, args, attempts"
    " FROM bibwire_jobs.procrastinate_fetch_job_v2(%(queues)s, %(worker_id)s)"
)
REGISTER: Final = "SELECT worker_id FROM bibwire_jobs.procrastinate_register_worker_v1()"

log = structlog.get_logger()


class Bell:
    """Wakes all workers: there may be work."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    def ring(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def heard(self) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        await future


@dataclass(frozen=True, slots=True)
class _Job:
    """What was taken from the queue; `attempts`: how often it was tried before."""

    number: int
    name: str
    args: dict[str, Any]
    attempts: int


class SeasonJobs(Jobs):
    """
    The queue of one worker.

    As the real one does, it begins a run of its own, under another number, whenever its sessions were
    ended, and takes back what it had in hand under the former ones.
    """

    def __init__(self, db: Database, bell: Bell, *, first_pause_seconds: float = FIRST_PAUSE_SECONDS) -> None:
        super().__init__(db, first_pause_seconds=first_pause_seconds)
        self._bell = bell
        self.worker_id: int | None = None
        self._former: list[int] = []
        self._run_ends = asyncio.Event()

    def lose_sessions(self) -> None:
        """Its sessions were ended: the run that is going on is over."""
        self._run_ends.set()

    async def wake(self, task: str) -> bool:
        woken = await super().wake(task)
        self._bell.ring()
        return woken

    async def run_worker(
        self,
        tasks: Mapping[str, Task],
        *,
        concurrency: int,
        periodic: Sequence[Periodic],
        stop: asyncio.Event,
        graceful_seconds: float = 8.0,
    ) -> None:
        while not stop.is_set():
            self._run_ends.clear()
            try:
                await self._run({**tasks, RESCUE: self._rescue}, concurrency, stop, graceful_seconds)
            except BibwireError:
                await asyncio.sleep(2)  # as the real one pauses
            if self.worker_id is not None:
                self._former.append(self.worker_id)
                self.worker_id = None

    async def _run(
        self, tasks: Mapping[str, Task], concurrency: int, stop: asyncio.Event, graceful_seconds: float
    ) -> None:
        stopping = asyncio.Event()
        running: set[asyncio.Task[None]] = set()
        ends = [asyncio.create_task(stop.wait()), asyncio.create_task(self._run_ends.wait())]
        try:
            if self._former:
                await self.rescue(dead=self._former)
                self._former.clear()
            [[self.worker_id]] = await self._db.fetch(REGISTER)
            while not any(end.done() for end in ends):
                heard = asyncio.create_task(self._bell.heard())
                try:
                    while len(running) < concurrency and (job := await self._fetch(list(tasks))) is not None:
                        work = asyncio.create_task(self._do(tasks[job.name], job, stopping))
                        running.add(work)
                        work.add_done_callback(running.discard)
                    await asyncio.wait((heard, *ends), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    heard.cancel()
        finally:
            stopping.set()
            for end in ends:
                end.cancel()
            if running:
                await asyncio.wait(running, timeout=graceful_seconds)
            for work in list(running):
                work.cancel()
            if running:
                await asyncio.wait(running, timeout=1)

    async def _fetch(self, names: list[str]) -> _Job | None:
        [[number, *rest]] = await self._db.fetch(FETCH, queues=names, worker_id=self.worker_id)
        return None if number is None else _Job(number, *rest)

    async def _do(self, task: Task, job: _Job, stopping: asyncio.Event) -> None:
        worker_id, settled = self.worker_id, "finish"
        try:
            await task(job.args, stopping)
        except asyncio.CancelledError:
            settled = "give_back"
        except BibwireError as error:
            log.warning("job failed", action="job", task=job.name, error=str(error))
            settled = "give_back" if is_done_again_at_once(error, attempts=job.attempts) else "fail"
        except Exception as error:
            log.error("job failed", action="job", task=job.name, exc_info=error)
            settled = "fail"
        try:
            await self._db.fetch(statements("jobs")[settled], job_id=job.number, worker_id=worker_id)
            if job.name in ("plan", RESCUE):
                await self._db.fetch(statements("jobs")["note_chore"], task=job.name)
        except BibwireError:
            self.lose_sessions()
        self._bell.ring()
