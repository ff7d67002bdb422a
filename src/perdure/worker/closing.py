"""What was used on a day is summed up once, when the day is over: ``usage_daily``."""

from __future__ import annotations

import asyncio
import logging

import psycopg

from perdure.db import Pool, in_words, load_sql

_SQL = load_sql("perdure.worker", "closing.sql")
_LOG = logging.getLogger(__name__)
INTERVAL_SECONDS = 600.0


async def keep_closing_days(pool: Pool) -> None:
    """Close the days that are over, now and every ten minutes, until cancelled."""
    while True:
        try:
            while await close_day(pool):
                pass
        except psycopg.Error as error:
            _LOG.warning("What was used on a day was not summed up: %s", in_words(error))
        await asyncio.sleep(INTERVAL_SECONDS)


async def close_day(pool: Pool) -> bool:
    """Close the next day; False where none is over. Of two workers at once each closes another."""
    async with pool.connection() as conn, conn.transaction():
        due = await (await conn.execute(_SQL["due"])).fetchone()
        if due is None:
            return False
        await conn.execute(_SQL["close"], due)
        return True
