"""Idempotency keys whose 24 hours are over are deleted, and repairs of more than 90 days ago."""

from __future__ import annotations

import asyncio
import logging

import psycopg

from perdure.db import Pool, in_words, load_sql
from perdure.idempotency import purge_expired

_OLD_REPAIRS = load_sql("perdure.worker", "purge.sql")["old_repairs"]
_LOG = logging.getLogger(__name__)
INTERVAL_SECONDS = 3600.0
_RETRY_SECONDS = 60.0


async def keep_purging(pool: Pool) -> None:
    """Purge now and every hour, until cancelled; two workers at once delete each row once."""
    while True:
        seconds = INTERVAL_SECONDS
        try:
            async with pool.connection() as conn:
                await purge_expired(conn)
                await conn.execute(_OLD_REPAIRS)
        except psycopg.Error as error:
            _LOG.warning("Deleting what is kept no longer failed: %s", in_words(error))
            seconds = _RETRY_SECONDS
        await asyncio.sleep(seconds)
