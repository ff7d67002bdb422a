"""Idempotency keys whose 24 hours are over are deleted."""

from __future__ import annotations

import asyncio
import logging

import psycopg

from perdure.db import Pool, in_words
from perdure.idempotency import purge_expired

_LOG = logging.getLogger(__name__)
INTERVAL_SECONDS = 3600.0
_RETRY_SECONDS = 60.0


async def keep_purging(pool: Pool) -> None:
    """Purge now and every hour, until cancelled; two workers at once delete each key once."""
    while True:
        seconds = INTERVAL_SECONDS
        try:
            async with pool.connection() as conn:
                await purge_expired(conn)
        except psycopg.Error as error:
            _LOG.warning("Deleting expired idempotency keys failed: %s", in_words(error))
            seconds = _RETRY_SECONDS
        await asyncio.sleep(seconds)
