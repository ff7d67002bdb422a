"""What models streamed is deleted an hour after their replies ended; the replies stay."""

from __future__ import annotations

import asyncio
import logging

import psycopg

from perdure.db import Pool, in_words, load_sql

_SQL = load_sql("perdure.worker", "thinning.sql")
_LOG = logging.getLogger(__name__)
INTERVAL_SECONDS = 60.0
_RUNS = 50


async def keep_thinning(pool: Pool) -> None:
    """Thin now and every minute, until cancelled; two workers at once take different runs."""
    while True:
        try:
            while await _thin(pool) == _RUNS:
                pass
        except psycopg.Error as error:
            _LOG.warning("Streamed text was not thinned away: %s", in_words(error))
        await asyncio.sleep(INTERVAL_SECONDS)


async def _thin(pool: Pool) -> int:
    """Thin the runs that are due, some of them; returns how many."""
    async with pool.connection() as conn:
        cursor = await conn.execute(_SQL["claim"], {"runs": _RUNS})
        due = await cursor.fetchall()
    for run in due:
        # A transaction a run, so that no head is held while another run's rows are deleted.
        async with pool.connection() as conn:
            await conn.execute(_SQL["thin"], run)
            await conn.execute(_SQL["thinned"], run)
    return len(due)
