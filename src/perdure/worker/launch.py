"""DBOS in this process: launched, and its queue joined.

DBOS is imported here once its version was looked at. What is leaned on of its inside stands in
``runs/dbos_inside``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from perdure.db import Pool
from perdure.runs.dbos_inside.kinds import DELIVERY, SEGMENT
from perdure.runs.dbos_inside.tested import require_tested
from perdure.runs.dbos_schema import dbos_version, known_dbos_version
from perdure.worker.wake import QueueLoop

_LOG = logging.getLogger(__name__)

Body = Callable[[UUID, int], Awaitable[str]]
"""Runs one workflow: the parts of its id in, how it ended as a word out."""
DELIVERIES_AT_ONCE = 32
_DELIVERIES_POLL_SECONDS = 15.0
"""In case a notification was lost: a delivery is not in such a hurry as a run."""


@dataclass(frozen=True, slots=True)
class Launched:
    """What a worker needs of the DBOS that was launched for it."""

    queue: QueueLoop
    deliveries: QueueLoop
    workflow_tasks: Callable[[], set[asyncio.Task[Any]]]
    """DBOS's tasks of this loop, those that have not come to our part of them too."""


async def launch(
    stack: AsyncExitStack,
    pool: Pool,
    url: str,
    executor_id: str,
    concurrency: int,
    run_segment: Body,
    deliver: Body,
) -> Launched:
    """Launch DBOS in this event loop, to be ended by ``stack``, and begin to claim workflows.

    ``concurrency`` is how many segments run here at once; ``run_segment`` runs each, ``deliver``
    each attempt at a delivery.

    Raises:
        ConfigurationError: the process runs DBOS already, or one that was not tested.
        MigrationError: DBOS's tables are behind.
    """
    require_tested()
    from perdure.runs.dbos_inside.claims import Claims
    from perdure.runs.dbos_inside.instance import running, workflow_tasks

    async with pool.connection() as conn:
        there, known = await dbos_version(conn), known_dbos_version()
    if there > known:
        _LOG.warning(
            "DBOS's tables are at version %d, of a newer DBOS than this one, which knows %d. "
            "Upgrade `dbos` here, together with what migrated them.",
            there,
            known,
        )
    dbos = stack.enter_context(running(url, executor_id, {SEGMENT: run_segment, DELIVERY: deliver}))
    claims = Claims(dbos, executor_id, concurrency)
    queue = QueueLoop(claims.claim, lambda: claims.full, lambda: claims.growing)
    of_deliveries = Claims(dbos, executor_id, DELIVERIES_AT_ONCE, DELIVERY)
    deliveries = QueueLoop(
        of_deliveries.claim,
        lambda: of_deliveries.full,
        lambda: of_deliveries.growing,
        name="perdure-deliveries",
        poll_seconds=_DELIVERIES_POLL_SECONDS,
    )
    queue.start()
    deliveries.start()
    return Launched(queue, deliveries, lambda: workflow_tasks(dbos))
