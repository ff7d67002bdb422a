"""A segment enters its queue: one DBOS workflow, in the caller's transaction."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from psycopg import AsyncConnection

from perdure.db import load_sql
from perdure.runs.dbos_inside.kinds import SEGMENT
from perdure.runs.dbos_inside.statements import ENQUEUE_QUEUED

__all__ = ["APPLICATION_VERSION", "ENQUEUE_QUEUED", "QUEUE", "WORKFLOW", "enqueue"]

_SQL = load_sql("perdure.runs", "enqueue.sql")
_ENQUEUE_ONE = f"{_SQL['one_segment']}\n{ENQUEUE_QUEUED}"

QUEUE = SEGMENT.queue
WORKFLOW = SEGMENT.workflow
APPLICATION_VERSION = "perdure"
"""One version for all builds: a deploy must not orphan what an earlier build enqueued."""


async def enqueue(conn: AsyncConnection[Any], run_id: UUID, seq: int, *, priority: int) -> None:
    """Enqueue segment ``seq`` of a run and wake the workers when the transaction commits.

    ``priority`` is DBOS's: lower runs first. The same segment enqueued twice is one workflow.
    """
    await conn.execute(_ENQUEUE_ONE, {"run_id": run_id, "seq": seq, "priority": priority})
