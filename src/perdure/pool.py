"""A pool of connections that is back within a second of its database.

What psycopg's own does not: it tries again about once a second however long the database was
away; after one connection was found dead the idle ones are not tried one by one; a session that
met trouble of the database's is not used again, as the trouble may be the session's (opened while
the server was read-only, or with a time-out that was mended since); and who need not wait learns
at once that the database refuses.
"""

from __future__ import annotations

import asyncio
import logging
import select
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from perdure.connections import Connection, connect, connection_options, hang_up, unreachable
from perdure.errors import UnavailableError
from perdure.outages import in_words, is_infrastructure

__all__ = ["Pool", "open_pool"]

_LOG = logging.getLogger(__name__)
_RECONNECT_SECONDS = 1.0
"""How long psycopg goes on with one attempt to connect; its pauses grow, ours do not."""


class Pool(AsyncConnectionPool[Connection]):
    """A pool of autocommit connections whose rows are dictionaries; ``open_pool`` makes one."""

    def __init__(self, url: str, options: dict[str, Any], *, check: bool, **sizes: Any) -> None:
        """Take what connections are opened with; ``check``: see ``open_pool``."""
        self._born: WeakKeyDictionary[Connection, float] = WeakKeyDictionary()
        self._emptied = 0.0
        self._refused_since: float | None = None
        self._impatient: set[asyncio.Timeout] = set()
        super().__init__(
            url,
            connection_class=type("PooledConnection", (_Pooled,), {"pool": self}),
            # Prepared at once: a pool hands its connections out in turn, and each one would see a
            # statement five times before its plan is kept.
            kwargs={"autocommit": True, "row_factory": dict_row, "prepare_threshold": 0, **options},
            check=self._still_there if check else None,
            reconnect_timeout=_RECONNECT_SECONDS,
            open=False,
            **sizes,
        )

    @asynccontextmanager
    async def connection(self, timeout: float | None = None) -> AsyncIterator[Connection]:
        """Borrow a connection for a block; waits ``timeout`` seconds for one, or the pool's own.

        Raises:
            psycopg_pool.PoolTimeout: there was none in time.
        """
        async with super().connection(timeout) as conn:
            try:
                yield conn
            except psycopg.Error as error:
                if is_infrastructure(error):
                    await conn.close()
                raise

    @asynccontextmanager
    async def prompt(
        self, seconds: float, *, answer_within: float | None = None
    ) -> AsyncIterator[Connection]:
        """Borrow a connection for a block whose caller can come back later.

        It does not wait for one while the database refuses, and ``seconds`` at most otherwise.
        After ``answer_within`` seconds in the block the connection is ended.

        Raises:
            UnavailableError: there was no connection, or it was lost in the block; the message
                says which.
        """
        conn = await self._promptly(seconds)
        clock = None
        if answer_within is not None:
            clock = asyncio.get_running_loop().call_later(answer_within, hang_up, conn)
        try:
            async with conn:
                yield conn
        except psycopg.Error as error:
            if not is_infrastructure(error):
                raise
            _LOG.warning("The database failed in mid-request: %s", in_words(error))
            await conn.close()
            raise UnavailableError(
                "The database failed while it was asked, so whether it did what it was asked is "
                "not known. Look, or ask again with the same idempotency key."
            ) from error
        finally:
            if clock is not None:
                clock.cancel()
            await self.putconn(conn)

    async def _promptly(self, seconds: float) -> Connection:
        try:
            async with asyncio.timeout(0 if self._is_refused else seconds) as patience:
                self._impatient.add(patience)
                try:
                    return await self.getconn(seconds + 1)
                finally:
                    self._impatient.discard(patience)
        except (TimeoutError, PoolTimeout):
            raise UnavailableError(
                "The database cannot be reached now, and nothing was done. Try again in a moment."
            ) from None

    async def reconnect_failed(self) -> None:
        """Begin to connect anew: psycopg would leave it to the next who asks for a connection."""
        async with self._lock:
            if self._waiting or self._nconns < self._min_size:
                self._maybe_grow_pool()

    @property
    def _is_refused(self) -> bool:
        """Whether the last attempt to connect failed and no connection is left."""
        return self._refused_since is not None and all(conn.closed for conn in self._born)

    def connected(self, conn: Connection) -> None:
        """Note a connection that has come about."""
        self._born[conn] = time.monotonic()
        if self._refused_since is not None:
            away = time.monotonic() - self._refused_since
            self._refused_since = None
            _LOG.info("The database of pool %s answers again after %.1f s.", self.name, away)

    def refused(self, error: psycopg.OperationalError) -> None:
        """Note an attempt to connect that has failed, and tell who does not care to wait."""
        if self._refused_since is None:
            self._refused_since = time.monotonic()
            _LOG.warning("The database does not answer pool %s: %s", self.name, in_words(error))
        if self._is_refused:
            now = asyncio.get_running_loop().time()
            for patience in self._impatient:
                if not patience.expired():
                    patience.reschedule(now)

    async def _still_there(self, conn: Connection) -> None:
        """Raise when the server has ended ``conn``; no round trip while it has not.

        A server that restarts or ends a session says so or hangs up, which makes the idle
        connection readable. Only then is it asked.
        """
        poll = select.poll()
        poll.register(conn.fileno(), select.POLLIN)
        if not poll.poll(0):
            return
        try:
            await self.check_connection(conn)
        except psycopg.Error:
            # Most likely all that were open then have ended. Found dead one after the other, they
            # would cost a pause each, and a longer one each time.
            if self._born.get(conn, 0.0) > self._emptied:
                self._emptied = time.monotonic()
                await self.drain()
            raise


class _Pooled(AsyncConnection[DictRow]):
    """A connection whose pool is told how attempts to connect ended."""

    pool: ClassVar[Pool]

    @classmethod
    async def connect(cls, *args: Any, **options: Any) -> Any:
        """Connect, as psycopg does."""
        try:
            conn = await super().connect(*args, **options)
        except psycopg.OperationalError as error:
            cls.pool.refused(error)
            raise
        cls.pool.connected(conn)
        return conn


async def open_pool(
    url: str,
    min_size: int = 1,
    max_size: int = 10,
    *,
    application_name: str = "perdure",
    check: bool = True,
    timeout: float = 10,
) -> Pool:
    """Open a pool of autocommit connections whose rows are dictionaries.

    It is the caller's to close (``async with await open_pool(…) as pool``). With ``check`` a
    connection whose server has ended it is not handed out, so that a restarted server is not
    noticed by its users. ``timeout`` (seconds) bounds the wait for the first ``min_size``
    connections and every later wait for a free one.

    Raises:
        ConfigurationError: the URL cannot be parsed.
        UnavailableError: no connection came about in time; the message says what Postgres said.
    """
    options = connection_options(url, application_name)
    pool = Pool(
        url,
        options,
        check=check,
        min_size=min_size,
        max_size=max_size,
        timeout=timeout,
        name=application_name,
    )
    try:
        await pool.open(wait=True, timeout=timeout)
    except PoolTimeout:
        await pool.close()
        # The pool does not say what went wrong; one connection more does.
        try:
            async with await connect(url, application_name=application_name):
                pass
        except psycopg.OperationalError as error:
            raise unreachable(error) from None
        raise UnavailableError(
            f"The database answers, but gave no {min_size} connection(s) within {timeout:g} s. "
            "Check its max_connections and its load."
        ) from None
    except BaseException:
        await pool.close()
        raise
    return pool
