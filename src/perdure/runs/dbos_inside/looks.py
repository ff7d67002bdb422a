"""Segments beside the rows of their workflows, as ``runs.stuck`` and the sweeper look at them.

Nothing is changed. Each row is a mapping: ``kind`` (what is wrong, one of those of ``runs.stuck``),
``run_id``, ``seq``, ``status``, ``queue_name``, ``owner_xid``, ``executor_id``, ``since``.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from perdure.db import Connection, load_sql

__all__ = ["begun_by", "claims_of", "open_segments"]

_SQL = load_sql("perdure.runs.dbos_inside", "looks.sql")


async def open_segments(
    conn: Connection,
    *,
    after: UUID,
    window: int,
    max_found: int,
    seconds: float,
    claim_seconds: float,
) -> list[dict[str, Any]]:
    """Look at ``window`` open segments of runs after ``after``, in the order of their runs' ids.

    A row each for ``max_found`` at most that have been wrong for ``seconds`` (a claim that nobody
    follows: ``claim_seconds``), one with ``kind`` None if there are none. Each row says how many
    were ``looked`` at, and the last run ``reached``.
    """
    return await _rows(
        conn,
        "open_segments",
        after=after,
        window_size=window,
        max_found=max_found,
        seconds=seconds,
        claim_seconds=claim_seconds,
    )


async def claims_of(conn: Connection, executor_id: str) -> list[dict[str, Any]]:
    """Return what an executor holds by its claims, each with ``workflow_uuid`` and ``seen_at``.

    Only that executor knows which of them it really runs.
    """
    return await _rows(conn, "claims", executor_id=executor_id)


async def begun_by(
    conn: Connection, executor_id: str, *, max_found: int, seconds: float
) -> list[dict[str, Any]]:
    """Return segments an executor has begun whose workflows have not been its for ``seconds``."""
    return await _rows(
        conn, "begun_here", executor_id=executor_id, max_found=max_found, seconds=seconds
    )


async def _rows(conn: Connection, statement: str, **params: object) -> list[dict[str, Any]]:
    return await (await conn.execute(_SQL[statement], params)).fetchall()
