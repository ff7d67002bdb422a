"""A worker's identity: an executor id of its own, alive as long as its advisory lock is held.

The lock belongs to a database session, so it is gone the moment the process is, however it died.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from contextlib import suppress
from typing import Self

import psycopg

from perdure.db import Connection, connect, load_sql, uuid7

_SQL = load_sql("perdure.worker", "lease.sql")
_LOG = logging.getLogger(__name__)
_RETRY_SECONDS = 0.5
_CHECK_SECONDS = 10.0


class Lease:
    """Holds this process's executor id; ``async with`` takes and releases it."""

    def __init__(self, url: str, version: str) -> None:
        self.executor_id = f"{socket.gethostname()}-{os.getpid()}-{uuid7().hex[-8:]}"
        self._url = url
        self._version = version
        self._conn: Connection | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._conn = await self._take()
        self._task = asyncio.create_task(self._keep(), name="perdure-lease")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        if self._conn is not None:
            with suppress(psycopg.Error):
                await self._conn.execute(_SQL["leave"], {"id": self.executor_id})
            await self._conn.close()

    async def _take(self) -> Connection:
        conn = await connect(self._url, application_name="perdure-lease")
        await conn.execute(_SQL["lock"], {"id": self.executor_id})
        await conn.execute(
            _SQL["enter"],
            {
                "id": self.executor_id,
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "version": self._version,
            },
        )
        return conn

    async def _keep(self) -> None:
        """Take the lock again when its session is lost; what was taken over meanwhile is fenced."""
        while True:
            try:
                if self._conn is None or self._conn.closed:
                    self._conn = await self._take()
                await asyncio.sleep(_CHECK_SECONDS)
                await self._conn.execute("SELECT 1")
            except psycopg.Error as error:
                _LOG.warning("Lost the lease of %s: %s", self.executor_id, error)
                if self._conn is not None:
                    await self._conn.close()
                await asyncio.sleep(_RETRY_SECONDS)
