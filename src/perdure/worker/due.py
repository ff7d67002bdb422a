"""Delayed starts: a scheduled segment is enqueued when its time, or its session's turn, has come.

The time is a row's, on the database's clock; this loop only sleeps until the next one.
"""

from __future__ import annotations

import asyncio
import logging

import psycopg

from perdure.db import Pool, in_words, load_sql
from perdure.runs.enqueue import ENQUEUE_QUEUED

_SQL = load_sql("perdure.worker", "due.sql")
_ENQUEUE_DUE = f"{_SQL['enqueue_due']}\n{ENQUEUE_QUEUED}"
_LOG = logging.getLogger(__name__)
LONGEST_SLEEP_SECONDS = 5.0
_RETRY_SECONDS = 1.0


async def enqueue_due(pool: Pool) -> int:
    """Enqueue every segment whose time has come; returns how many."""
    async with pool.connection() as conn:
        await conn.execute(_SQL["take_turns"])
        return (await conn.execute(_ENQUEUE_DUE)).rowcount


async def _seconds_to_next(pool: Pool) -> float:
    async with pool.connection() as conn:
        row = await (await conn.execute(_SQL["next_due"])).fetchone()
    seconds = row["seconds"] if row is not None else None
    return LONGEST_SLEEP_SECONDS if seconds is None else float(seconds)


async def keep_enqueuing(pool: Pool, woken: asyncio.Event) -> None:
    """Enqueue what is due, sleep until the next is or ``woken`` is set, until cancelled."""
    while True:
        woken.clear()
        try:
            await enqueue_due(pool)
            seconds = await _seconds_to_next(pool)
        except psycopg.Error as error:
            _LOG.warning("Looking for delayed starts failed: %s", in_words(error))
            seconds = _RETRY_SECONDS
        try:
            async with asyncio.timeout(min(max(seconds, 0.01), LONGEST_SLEEP_SECONDS)):
                await woken.wait()
        except TimeoutError:
            continue
