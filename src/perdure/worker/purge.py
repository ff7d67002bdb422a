"""What is kept no longer is deleted.

Idempotency keys whose 24 hours are over, repairs of more than 90 days ago, users' tokens that ended
more than 30 days ago.
"""

from __future__ import annotations

import asyncio
import logging

import psycopg

from perdure.db import Pool, in_words, load_sql
from perdure.idempotency import purge_expired

_SQL = load_sql("perdure.worker", "purge.sql")
_OLD = (_SQL["old_repairs"], _SQL["old_user_sessions"])
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
                for statement in _OLD:
                    await conn.execute(statement)
        except psycopg.Error as error:
            _LOG.warning("Deleting what is kept no longer failed: %s", in_words(error))
            seconds = _RETRY_SECONDS
        await asyncio.sleep(seconds)
