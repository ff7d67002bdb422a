"""What is done by SQL to the tables of DBOS; ``statements.sql`` has it, ``looks`` only reads.

DBOS itself is not imported here: an API without a worker enqueues too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
from psycopg import AsyncConnection

from perdure.db import Connection, load_sql

__all__ = [
    "ENQUEUE_DELIVERIES",
    "ENQUEUE_QUEUED",
    "Seen",
    "clear_away",
    "forget_deliveries",
    "hand_over",
    "lost_deliveries",
    "recover",
    "requeue",
    "schema_version",
]

_SQL = load_sql("perdure.runs.dbos_inside", "statements.sql")
ENQUEUE_QUEUED = _SQL["enqueue_queued"]
"""Ends a statement: each row of its CTE ``queued`` (run_id, seq, priority) enters the queue."""
ENQUEUE_DELIVERIES = _SQL["enqueue_deliveries"]
"""Ends a statement: each row of its CTE ``queued`` (id, attempt) enters the queue of deliveries."""
_SEEN, _WOKEN = _SQL["requeue_seen"], _SQL["woken"]
_REQUEUE = "\n".join((_SQL["these"], _SEEN, _WOKEN))
_RECOVER = "\n".join((_SQL["of_the_dead"], _SEEN, _SQL["taken_over"], _WOKEN))
_HAND_OVER = "\n".join((_SQL["of_this_one"], _SEEN, _SQL["handed_over"], _WOKEN))


@dataclass(frozen=True, slots=True)
class Seen:
    """A segment's workflow as it was when somebody looked: its id, ``status`` and ``owner_xid``.

    Every claim writes a new owner, so that a row that was claimed meanwhile is not the one seen.
    """

    workflow_id: str
    status: str | None
    owner: str | None


async def requeue(conn: AsyncConnection[Any], seen: Iterable[Seen]) -> list[str]:
    """Enqueue segments anew, whatever has become of their workflows' rows; returns their ids.

    Status, queue, version, arguments, serialization, outcome, executor, owner and attempts are as
    at the first enqueue; a row that changed since it was seen is left alone, and so is one that is
    no segment's. A row that is gone is not made anew: that is what ``enqueue`` does.
    """
    rows = list(seen)
    return await _requeued(
        conn,
        _REQUEUE,
        {
            "ids": [one.workflow_id for one in rows],
            "statuses": [one.status for one in rows],
            "owners": [one.owner for one in rows],
        },
    )


async def recover(conn: AsyncConnection[Any], executor_id: str) -> list[str]:
    """Enqueue anew what executors hold that are not alive; returns the ids of those workflows.

    Each segment is noted among the repairs, by ``executor_id``, whose own are left alone.
    """
    return await _requeued(conn, _RECOVER, {"executor_id": executor_id})


async def hand_over(conn: AsyncConnection[Any], executor_id: str) -> list[str]:
    """Enqueue anew what this executor holds, as it stops; returns the ids of those workflows."""
    return await _requeued(conn, _HAND_OVER, {"executor_id": executor_id})


async def _requeued(
    conn: AsyncConnection[Any], statement: str, params: dict[str, Any]
) -> list[str]:
    # The first column, whatever the row factory of the caller's connection makes of rows.
    found = await (await conn.execute(statement, params)).fetchall()
    return [row["workflow_id"] if isinstance(row, dict) else row[0] for row in found]


async def clear_away(conn: AsyncConnection[Any], workflow_id: str) -> bool:
    """Make room for a workflow whose row was deleted; False where the row is there."""
    key = {"workflow_id": workflow_id}
    if await (await conn.execute(_SQL["has_workflow"], key)).fetchone() is not None:
        return False
    await conn.execute(_SQL["clear_inputs"], key)
    await conn.execute(_SQL["clear_outputs"], key)
    return True


async def lost_deliveries(conn: Connection, *, seconds: float) -> list[tuple[UUID, int]]:
    """Return the attempts at deliveries nobody has told of for ``seconds``, nor will.

    One that waits in its queue is not among them, however long.
    """
    cursor = await conn.execute(_SQL["lost_deliveries"], {"seconds": seconds})
    return [(row["id"], row["attempt"]) for row in await cursor.fetchall()]


async def forget_deliveries(conn: Connection, workflow_ids: Sequence[str]) -> None:
    """Delete the workflows of deliveries that are not kept any more, with what they left."""
    await conn.execute(_SQL["forget_deliveries"], {"ids": list(workflow_ids)})


async def schema_version(conn: Connection) -> int:
    """Return the number of the last DBOS migration a database has, 0 where it has none."""
    try:
        row = await (await conn.execute(_SQL["version"])).fetchone()
    except psycopg.errors.UndefinedTable:
        return 0
    return int(row["version"]) if row is not None else 0
