"""Where a session's connections come from: an engine, a pool, or a database of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import psycopg

from perdure.config import Settings, normalize_url
from perdure.db import Connection, Pool, open_pool
from perdure.errors import ConfigurationError, MigrationError

__all__ = ["HasPool", "Source"]

_CONNECTION_SECONDS = 10.0
_OWN_CONNECTIONS = 4
_NOT_MIGRATED = (
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.InvalidSchemaName,
)


class HasPool(Protocol):
    """What has a pool while it runs: ``perdure.Engine``."""

    @property
    def pool(self) -> Pool:
        """The open pool."""


class Source:
    """Connections of an engine or a pool that is given, or of a pool of its own.

    Its own is opened with the first connection, in the loop that asks: a program that calls
    ``Runner.run_sync`` again and again has one after the other.
    """

    def __init__(
        self, url: str | None = None, pool: Pool | None = None, engine: HasPool | None = None
    ) -> None:
        """Take one of them; without any it is the database of the environment.

        Raises:
            ConfigurationError: more than one is given, or the URL cannot be meant.
        """
        if sum(one is not None for one in (url, pool, engine)) > 1:
            raise ConfigurationError("A session is in one place: give it url, pool or engine.")
        self._url = None if url is None else normalize_url(url, name="url")
        self._pool = pool
        self._engine = engine
        self._own: tuple[asyncio.AbstractEventLoop, asyncio.Task[Pool]] | None = None

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Borrow a connection in autocommit.

        Raises:
            ConfigurationError: nothing says where the database is.
            MigrationError: the database has no sessions yet.
            UnavailableError: it does not answer, or stopped answering.
        """
        pool = await self._open()
        try:
            async with pool.prompt(_CONNECTION_SECONDS) as conn:
                yield conn
        except _NOT_MIGRATED as error:
            raise MigrationError(
                f"The database does not fit this build: {error.diag.message_primary}. "
                "Run `perdure migrate`."
            ) from error

    async def _open(self) -> Pool:
        if self._engine is not None:
            return self._engine.pool
        if self._pool is not None:
            return self._pool
        loop = asyncio.get_running_loop()
        if self._own is None or self._own[0] is not loop or _failed(self._own[1]):
            url = self._url or Settings.from_env().require_database_url()
            opening = open_pool(url, 1, _OWN_CONNECTIONS, application_name="perdure session")
            self._own = loop, loop.create_task(opening)
        # Whoever is cancelled while it opens leaves it to the others who wait.
        return await asyncio.shield(self._own[1])

    async def close(self) -> None:
        """Close the pool, if it is its own; the next connection opens another."""
        own, self._own = self._own, None
        if own is not None and own[0] is asyncio.get_running_loop():
            await (await own[1]).close()


def _failed(opening: asyncio.Task[Pool]) -> bool:
    if not opening.done():
        return False
    return opening.cancelled() or opening.exception() is not None
