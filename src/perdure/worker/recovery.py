"""Runs of a dead worker go on: its segments are given back to the queue.

DBOS recovers only what its own executor id left behind. Here an executor is dead when its
advisory lock is free; its workflows are put back, and whoever claims one begins the segment at a
new epoch. Doing it twice finds nothing the second time.
"""

from __future__ import annotations

import asyncio
import logging

import psycopg

from perdure.db import Pool, load_sql

_SQL = load_sql("perdure.worker", "recovery.sql")
_LOG = logging.getLogger(__name__)
INTERVAL_SECONDS = 2.0


async def recover(pool: Pool, executor_id: str) -> list[str]:
    """Give back what dead executors were running; returns the ids of those workflows."""
    return await _give_back(pool, "recover", executor_id)


async def hand_over(pool: Pool, executor_id: str) -> list[str]:
    """Give back what this executor itself leaves unfinished; returns the ids."""
    return await _give_back(pool, "hand_over", executor_id)


async def _give_back(pool: Pool, statement: str, executor_id: str) -> list[str]:
    async with pool.connection() as conn:
        cursor = await conn.execute(_SQL[statement], {"executor_id": executor_id})
        recovered = [row["workflow_uuid"] for row in await cursor.fetchall()]
    for workflow_id in recovered:
        _LOG.info("Segment %s goes back to the queue.", workflow_id)
    return recovered


async def keep_recovering(pool: Pool, executor_id: str) -> None:
    """Recover now and every two seconds, until cancelled."""
    while True:
        try:
            await recover(pool, executor_id)
        except psycopg.Error as error:
            _LOG.warning("Looking for dead workers failed: %s", error)
        await asyncio.sleep(INTERVAL_SECONDS)
