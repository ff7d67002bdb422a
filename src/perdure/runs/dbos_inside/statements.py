"""What is done by SQL to the tables of DBOS; ``statements.sql`` has it.

DBOS itself is not imported here: an API without a worker enqueues too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import AsyncConnection

from perdure.db import Connection, load_sql

__all__ = ["ENQUEUE_QUEUED", "REQUEUE_SEEN", "Seen", "requeue", "schema_version"]

_SQL = load_sql("perdure.runs.dbos_inside", "statements.sql")
ENQUEUE_QUEUED = _SQL["enqueue_queued"]
"""Ends a statement: each row of its CTE ``queued`` (run_id, seq, priority) enters the queue."""
REQUEUE_SEEN = _SQL["requeue_seen"]
"""Ends a statement: each row of its CTE ``seen`` (workflow_id, status, owner) is enqueued anew.

Only if it is still as it was seen. The statement returns ``workflow_id`` of those it took.
"""
_SEEN = """WITH seen AS (
    SELECT * FROM unnest(%(ids)s::text[], %(statuses)s::text[], %(owners)s::text[])
        AS seen (workflow_id, status, owner)
)"""
_REQUEUE = f"{_SEEN}\n{REQUEUE_SEEN}"


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
    cursor = await conn.execute(
        _REQUEUE,
        {
            "ids": [one.workflow_id for one in rows],
            "statuses": [one.status for one in rows],
            "owners": [one.owner for one in rows],
        },
    )
    # The first column, whatever the row factory of the caller's connection makes of rows.
    found = await cursor.fetchall()
    return [row["workflow_id"] if isinstance(row, dict) else row[0] for row in found]


async def schema_version(conn: Connection) -> int:
    """Return the number of the last DBOS migration a database has, 0 where it has none."""
    try:
        row = await (await conn.execute(_SQL["version"])).fetchone()
    except psycopg.errors.UndefinedTable:
        return 0
    return int(row["version"]) if row is not None else 0
