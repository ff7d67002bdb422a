"""Idempotency keys whose 24 hours are over are deleted."""

from __future__ import annotations

import asyncio
import logging

import psycopg

from perdure.db import Pool
from perdure.idempotency import purge_expired

_LOG = logging.getLogger(__name__)
INTERVAL_SECONDS = 3600.0


async def keep_purging(pool: Pool) -> None:
    """Purge now and every hour, until cancelled; two workers at once delete each key once."""
    while True:
        try:
            async with pool.connection() as conn:
                await purge_expired(conn)
        except psycopg.Error as error:
            _LOG.warning("Deleting expired idempotency keys failed: %s", error)
        await asyncio.sleep(INTERVAL_SECONDS)
