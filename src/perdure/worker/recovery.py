"""Runs of a dead worker go on: its segments are given back to the queue.

DBOS recovers only what its own executor id left behind. Here an executor that is silent is
declared lost (recovery.sql says when), its sessions are ended, and what it held is given back;
whoever claims it begins the segment at a new epoch. Each step may be the last of whoever takes it:
the next one to look goes on from there.
"""

from __future__ import annotations

import asyncio
import logging

import psycopg

from perdure.db import Pool, in_words, load_sql
from perdure.runs.dbos_inside import statements
from perdure.worker.lease import LEASE_SECONDS, SILENCE_SECONDS, Lease

_SQL = load_sql("perdure.worker", "recovery.sql")
_LOG = logging.getLogger(__name__)
INTERVAL_SECONDS = 2.0
HAND_OVER_SECONDS = 2.0
"""How long a worker that stops waits for the database to hand its segments over."""


async def declare_lost(pool: Pool, lease: Lease) -> list[str]:
    """Declare the executors lost that are dead, end their sessions; returns their ids."""
    async with pool.connection() as conn:
        cursor = await conn.execute(
            _SQL["declare_lost"],
            {
                "id": lease.executor_id,
                "since": lease.since,
                "gone": list(lease.gone),
                "lease": LEASE_SECONDS,
                "silence": SILENCE_SECONDS,
            },
        )
        lost = [row["id"] for row in await cursor.fetchall()]
        for executor_id in lost:
            _LOG.warning("Executor %s is dead: its runs go on elsewhere.", executor_id)
            try:
                await conn.execute(_SQL["end_sessions"], {"id": executor_id})
            except psycopg.errors.InsufficientPrivilege as error:
                _LOG.warning("The sessions of %s cannot be ended: %s", executor_id, error)
    return lost


async def recover(pool: Pool, executor_id: str) -> list[str]:
    """Give back what executors hold that are not alive; returns the ids of those workflows."""
    async with pool.connection() as conn:
        return _logged(await statements.recover(conn, executor_id))


async def hand_over(pool: Pool, executor_id: str) -> list[str]:
    """Give back what this executor itself leaves unfinished; returns the ids.

    Raises:
        UnavailableError: the database is away; others find that this executor is gone.
    """
    async with pool.prompt(HAND_OVER_SECONDS, answer_within=HAND_OVER_SECONDS) as conn:
        return _logged(await statements.hand_over(conn, executor_id))


def _logged(recovered: list[str]) -> list[str]:
    for workflow_id in recovered:
        _LOG.info("Segment %s goes back to the queue.", workflow_id)
    return recovered


async def keep_recovering(pool: Pool, lease: Lease, silence: asyncio.Event) -> None:
    """Recover now, every two seconds and when somebody is silent, until cancelled."""
    while True:
        try:
            if silence.is_set():
                silence.clear()
                await declare_lost(pool, lease)
            await recover(pool, lease.executor_id)
        except psycopg.Error as error:
            _LOG.warning("Looking for dead workers failed: %s", in_words(error))
        try:
            async with asyncio.timeout(INTERVAL_SECONDS):
                await silence.wait()
        except TimeoutError:
            continue
