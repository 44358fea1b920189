"""
Connections that notice when nothing comes from the server any more, and a pool of them.

Packets that are dropped (a closed lid, NAT, Wi-Fi) leave a statement waiting for ever: TCP notices
only the loss of what it sent itself, and a box in between may go on acknowledging. A fixed limit
would also cut the merge of a large page on a slow disk. So after `SILENT_SECONDS` without a byte the
server is asked over another connection whether it still works for this one. If it does, waiting
goes on, however long; if it does not, or cannot be asked, the connection is given up.

What a session is, is said in `connections`, where all connections are opened.
"""

from __future__ import annotations

import asyncio
import logging
import select
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, Final, Self

import psycopg
from psycopg.abc import RV, PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolTimeout

# Most statements take milliseconds; asking costs a connection, and so is rare.
SILENT_SECONDS: Final = 8.0
# For connecting to ask, and again for the answer.
ASK_SECONDS: Final = 4
# An answer may be on its way while the server is asked: only the second such word is believed.
ASK_AGAIN_SECONDS: Final = 2.0
# An idle connection answers an empty statement at once, or another one is opened.
CHECK_SECONDS: Final = 4.0
# What a command asks before it begins takes no longer, unless the server is gone.
START_SECONDS: Final = 15.0
CONNECT_SECONDS: Final = 10
# So often psycopg looks up from its wait.
_INTERVAL: Final = 0.1
# Who has waited for a connection for so long asks whether the server can be reached at all.
WAIT_SECONDS: Final = 5.0
# And who comes next while it cannot.
WAIT_AGAIN_SECONDS: Final = 0.5
# A connection that was answered on so recently is not tried before it is lent: were it closed since, that
# would have been heard.
TRUSTED_SECONDS: Final = 1.0
# A pool pauses longer and longer between its attempts; after so long it begins with short pauses again.
_RECONNECT_SECONDS: Final = 5.0

# A host that is gone says nothing: without these a statement would wait for a quarter of an hour.
# Fifteen seconds, so that who lost its network for longer is back within half a minute of its return.
LOST_AFTER: Final = {
    "keepalives_idle": "5",
    "keepalives_interval": "5",
    "keepalives_count": "2",
    "tcp_user_timeout": "15000",
}

# That it cannot connect is said by whoever wanted a connection.
logging.getLogger("psycopg.pool").setLevel(logging.ERROR)

_GONE: Final = "no answer came, and the server does not work on one: the connection was lost"
_SILENT: Final = "no answer came in time: the connection was lost"


def with_time_outs(conninfo: str) -> str:
    """Add when a connection over a network is taken for lost: after 15 s, unless the user says otherwise."""
    try:
        missing = LOST_AFTER.keys() - conninfo_to_dict(conninfo).keys()
        return make_conninfo(conninfo, **{name: LOST_AFTER[name] for name in missing})
    except psycopg.ProgrammingError:
        return conninfo  # who connects with it says what is wrong


class Watched(psycopg.AsyncConnection[TupleRow]):
    """
    A connection whose every wait ends when the server does not work for it any more.

    Attributes:
        opened_at: By the monotonic clock.
        answered_at: When the server's last answer was complete, by the same clock.
        server_pid: The server's process behind it.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.opened_at = self.answered_at = monotonic()
        self.server_pid = self.info.backend_pid
        self.limit: float | None = None

    @classmethod
    async def connect(cls, conninfo: str = "", **options: Any) -> Self:
        """Connect as psycopg does, with time-outs for a network that is gone."""
        return await super().connect(with_time_outs(conninfo), **options)

    async def introduce(self) -> None:
        """
        Ask for the server's process behind this connection: a pooler in between names another one.

        Leaves no transaction open.
        """
        row = await (await self.execute("SELECT pg_backend_pid()", prepare=False)).fetchone()
        assert row is not None
        self.server_pid = int(row[0])
        if not self.autocommit:
            await self.rollback()

    @contextmanager
    def at_most(self, seconds: float) -> Iterator[None]:
        """Give the connection up when nothing came for so long, without asking."""
        self.limit, before = seconds, self.limit
        try:
            yield
        finally:
            self.limit = before

    @property
    def is_surely_there(self) -> bool:
        """Whether the server answered a moment ago, and has said nothing since: it would say its end."""
        if monotonic() - self.answered_at > TRUSTED_SECONDS:
            return False
        try:
            heard, _, _ = select.select([self.pgconn.socket], [], [], 0)
        except (psycopg.OperationalError, ValueError):  # closed, or a number that select does not know
            return False
        return not heard

    async def wait(self, gen: PQGen[RV], interval: float = _INTERVAL, timeout: float | None = None) -> RV:
        return await super().wait(self._watched(gen), interval, timeout)

    def _watched(self, gen: PQGen[RV]) -> PQGen[RV]:
        """Hand a wait on, and look at the silence whenever psycopg looks up."""
        silence = _Silence(self)
        ready: Any = None
        try:
            while True:
                try:
                    wanted = gen.send(ready)
                except StopIteration as end:
                    result: RV = end.value
                    self.answered_at = monotonic()
                    return result
                ready = yield wanted
                if ready:
                    silence.broken()
                elif (why := silence.is_the_end()) is not None:
                    self.pgconn.finish()
                    raise psycopg.OperationalError(why)
        finally:
            silence.broken()

    async def is_worked_on(self) -> bool | None:
        """Ask the server whether it works on this connection's statement; None: it cannot be asked."""
        try:
            other = await Watched.connect(
                self.info.dsn,
                password=self.info.password or None,
                autocommit=True,
                connect_timeout=ASK_SECONDS,
                application_name="bibwire question",
            )
            async with other:
                with other.at_most(ASK_SECONDS):
                    cursor = await other.execute(
                        """
                        SELECT a.state = 'disabled'
                            OR (a.state = 'active' AND a.wait_event_type IS DISTINCT FROM 'Client')
                        FROM pg_stat_activity AS a
                        WHERE a.pid = %s
                        """,
                        (self.server_pid,),
                    )
                    row = await cursor.fetchone()
        except psycopg.OperationalError as error:
            # A server that has no room for the question lives, and may be working.
            return True if _is_full(error) else None
        except psycopg.Error:
            return True
        return bool(row and row[0])


def _is_full(error: psycopg.Error) -> bool:
    """Say whether a server has no room for another connection: it lives."""
    return "too many" in str(error) or "connection slots" in str(error)


class _Silence:
    """For how long nothing has come within one wait, and what the server says to that."""

    def __init__(self, connection: Watched) -> None:
        self._connection = connection
        self._ask_at = 0.0
        self._since = monotonic()
        self._question: asyncio.Task[bool | None] | None = None
        self._doubts = 0

    def broken(self) -> None:
        """Something came, or the wait is over."""
        self._since, self._ask_at, self._doubts = monotonic(), 0.0, 0
        if self._question is not None:
            self._question.cancel()
            self._question = None

    def is_the_end(self) -> str | None:
        """Say why the connection is to be given up; None: it is not."""
        # Who waits for notices waits for nothing that the server owes.
        if self._connection.pgconn.transaction_status != TransactionStatus.ACTIVE:
            return None
        now = monotonic()
        limit = self._connection.limit
        if limit is not None:
            return _SILENT if now - self._since > limit else None
        if self._question is None:
            if now >= max(self._ask_at, self._since + SILENT_SECONDS):
                self._question = asyncio.get_running_loop().create_task(self._connection.is_worked_on())
            return None
        if not self._question.done():
            return None
        working = None if self._question.cancelled() else self._question.result()
        self._question = None
        if working:
            self._doubts, self._ask_at = 0, now + SILENT_SECONDS
            return None
        self._doubts, self._ask_at = self._doubts + 1, now + ASK_AGAIN_SECONDS
        return _GONE if working is None or self._doubts > 1 else None


class Pool(AsyncConnectionPool[Watched]):
    """
    A pool that is back within seconds of its server.

    One connection that was lost makes all others doubtful: they are opened anew together, instead of
    one after the other with a pause after each.
    """

    def __init__(
        self,
        conninfo: str,
        *,
        look: Callable[[Watched], Awaitable[None]] | None = None,
        **options: Any,
    ) -> None:
        """`look`: how a connection is tried before it is lent; None: by an empty statement."""
        self._look = look or self.check_connection
        super().__init__(
            conninfo,
            connection_class=Watched,
            open=False,
            # Without it the first statements after a restart of the server fail.
            check=self._check,
            reconnect_timeout=_RECONNECT_SECONDS,
            reconnect_failed=_begin_again,
            **options,
        )
        self._address = conninfo
        self._arguments: dict[str, Any] = options.get("kwargs", {})
        self._renewed_at = 0.0
        self._is_away = False

    async def getconn(self, timeout: float | None = None) -> Watched:
        """
        Lend a connection. While all are in use it is waited for; that the server is gone is told in seconds.

        Raises:
            psycopg.OperationalError: Why the server cannot be reached.
            PoolTimeout: None became free in time.
        """
        ends_at = monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            left = ends_at - monotonic()
            wait = WAIT_AGAIN_SECONDS if self._is_away else WAIT_SECONDS
            try:
                connection = await super().getconn(min(left, wait))
            except PoolTimeout:
                if left <= wait:
                    raise
            else:
                self._is_away = False
                return connection
            await self._reach()

    async def _reach(self) -> None:
        """Find out why nobody is lent a connection, unless it is that all are in use."""
        try:
            other = await Watched.connect(
                self._address, **{**self._arguments, "connect_timeout": ASK_SECONDS}
            )
        except psycopg.OperationalError as error:
            self._is_away = not _is_full(error)
            if self._is_away:
                raise
        else:
            await other.close()

    @staticmethod
    async def check_connection(conn: Watched) -> None:
        """Find out whether a connection works, by an empty statement if need be."""
        if not conn.is_surely_there:
            await AsyncConnectionPool.check_connection(conn)

    async def distrust(self, connection: Watched) -> None:
        """A connection was lost: open those anew that are as old."""
        if connection.opened_at >= self._renewed_at and not self.closed:
            self._renewed_at = monotonic()
            await self.drain()

    async def _check(self, connection: Watched) -> None:
        try:
            with connection.at_most(CHECK_SECONDS):
                await self._look(connection)
        except psycopg.Error:
            await self.distrust(connection)
            raise


async def _begin_again(pool: AsyncConnectionPool[Any]) -> None:
    # The pool has given up; looked at, it makes another connection if it needs one.
    await pool.check()


class Timed(psycopg.Connection[TupleRow]):
    """
    A connection for what is asked in order, at a start: given up when nothing came for `limit` seconds.

    None: no limit but TCP's, for what may take long.
    """

    limit: float | None = START_SECONDS

    @classmethod
    def connect(cls, conninfo: str = "", **options: Any) -> Self:
        """Connect as psycopg does, with time-outs for a network that is gone."""
        return super().connect(with_time_outs(conninfo), **options)

    def wait(self, gen: PQGen[RV], interval: float = _INTERVAL, timeout: float | None = None) -> RV:
        return super().wait(self._limited(gen), interval, timeout)

    def _limited(self, gen: PQGen[RV]) -> PQGen[RV]:
        since = monotonic()
        ready: Any = None
        while True:
            try:
                wanted = gen.send(ready)
            except StopIteration as end:
                result: RV = end.value
                return result
            ready = yield wanted
            if ready:
                since = monotonic()
            elif self.limit is not None and monotonic() - since > self.limit:
                self.pgconn.finish()
                raise psycopg.OperationalError(_SILENT)
