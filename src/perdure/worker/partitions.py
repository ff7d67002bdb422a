"""The partitions of the coming months are made before the first row comes."""

from __future__ import annotations

import asyncio
import logging

import psycopg

from perdure.db import Pool, in_words, load_sql

_MAKE = load_sql("perdure.worker", "partitions.sql")["make"]
_LOG = logging.getLogger(__name__)
INTERVAL_SECONDS = 3600.0


async def keep_partitions(pool: Pool) -> None:
    """Make what is missing now and every hour, until cancelled; of two workers one does."""
    while True:
        try:
            await make_partitions(pool)
        except psycopg.Error as error:
            _LOG.warning("Partitions of the coming months were not made: %s", in_words(error))
        await asyncio.sleep(INTERVAL_SECONDS)


async def make_partitions(pool: Pool) -> list[str]:
    """Make the partitions of this month and the next two that are missing; their names.

    Raises:
        psycopg.errors.LockNotAvailable: a table was in use for two seconds.
    """
    async with pool.connection() as conn:
        rows = await (await conn.execute(_MAKE)).fetchall()
    for row in rows:
        _LOG.info("Made the partition %s.", row["name"])
    return [row["name"] for row in rows]
