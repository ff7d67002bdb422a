"""A run's checkpoints looked at: one with its state, two beside each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from perdure import jsondiff, jsonsafe
from perdure.db import Connection, load_sql
from perdure.errors import InvalidRequestError, NotFoundError
from perdure.runs.states import read_state
from perdure.runs.views import Object, checkpoint_object, item_object

__all__ = ["diff_checkpoints", "get_checkpoint", "usage_between"]

_SQL = load_sql("perdure.runs", "checkpoints.sql")
_CHECKPOINT = _SQL["checkpoint"]
_LATEST = _SQL["latest"]
_ITEMS_BETWEEN = _SQL["items_between"]
_USAGE_BETWEEN = _SQL["usage_between"]


@dataclass(frozen=True, slots=True)
class _Point:
    """A checkpoint, or the run's beginning, which has no ``shown``."""

    shown: Object | None
    agent: str
    turn: int
    context: Any


async def get_checkpoint(
    conn: Connection, *, tenant_id: UUID, run_id: UUID, seq: int
) -> dict[str, Any]:
    """Return a checkpoint as the API shows it, with its ``state``.

    Raises:
        NotFoundError: the tenant has no such run, or that no such checkpoint.
    """
    row = await _row(conn, tenant_id, run_id, seq)
    if row["record"] is None:
        raise NotFoundError(f"checkpoint {seq} of run", run_id)
    shown = checkpoint_object(jsonsafe.loads(row["record"]))
    return {**shown, "state": (await read_state(conn, run_id=run_id, seq=seq)).data}


async def diff_checkpoints(
    conn: Connection,
    *,
    tenant_id: UUID,
    run_id: UUID,
    base_seq: int | None,
    seq: int | None,
    limit: int,
    after: int = 0,
) -> dict[str, Any]:
    """Return what came about between two checkpoints of a run, and what changed.

    ``seq``: the later one, by default the latest. ``base_seq``: the earlier one, 0 being the run's
    beginning, by default the one before. At most ``limit`` items, those after the number ``after``.

    Raises:
        NotFoundError: the tenant has no such run.
        InvalidRequestError: the run has no such checkpoints, or they are the other way round.
    """
    if seq is None:
        cursor = await conn.execute(_LATEST, {"tenant_id": tenant_id, "run_id": run_id})
        found = await cursor.fetchone()
        if found is None:
            raise NotFoundError("run", run_id)
        if found["seq"] is None:
            raise InvalidRequestError.at("/query/to", "is none: the run has no checkpoint yet.")
        seq = int(found["seq"])
    base_seq = max(0, seq - 1) if base_seq is None else base_seq
    later = await _point(conn, tenant_id, run_id, seq, "/query/to")
    earlier = await _point(conn, tenant_id, run_id, base_seq, "/query/from")
    if base_seq > seq:
        raise InvalidRequestError.at("/query/from", f"has to be at most {seq}, the later one.")
    between = {"run_id": run_id, "from": base_seq, "to": seq}
    cursor = await conn.execute(_ITEMS_BETWEEN, {**between, "after": after, "fetch": limit + 1})
    items = [item_object(jsonsafe.loads(row["item"])) for row in await cursor.fetchall()]
    return {
        "object": "checkpoint_diff",
        "run_id": str(run_id),
        "base": earlier.shown,
        "checkpoint": later.shown,
        "agent": {"base": earlier.agent, "checkpoint": later.agent},
        "turns": later.turn - earlier.turn,
        "usage": await usage_between(conn, run_id, base_seq, seq),
        "context": jsondiff.diff(earlier.context, later.context),
        "items": items[:limit],
        "has_more": len(items) > limit,
    }


async def usage_between(
    conn: Connection, run_id: UUID, first: int, last: int | None = None
) -> dict[str, Any]:
    """Return what a run asked models for after a checkpoint, up to another or to its end."""
    cursor = await conn.execute(_USAGE_BETWEEN, {"run_id": run_id, "from": first, "to": last})
    [row] = await cursor.fetchall()
    return dict(row["usage"])


async def _row(conn: Connection, tenant_id: UUID, run_id: UUID, seq: int) -> dict[str, Any]:
    cursor = await conn.execute(_CHECKPOINT, {"tenant_id": tenant_id, "run_id": run_id, "seq": seq})
    row = await cursor.fetchone()
    if row is None:
        raise NotFoundError("run", run_id)
    return row


async def _point(conn: Connection, tenant_id: UUID, run_id: UUID, seq: int, pointer: str) -> _Point:
    row = await _row(conn, tenant_id, run_id, seq)
    if seq == 0:
        context = None if row["context"] is None else jsonsafe.loads(row["context"])
        return _Point(None, row["agent"], 0, context)
    if row["record"] is None:
        raise InvalidRequestError.at(pointer, f"is no checkpoint of run {run_id}: {seq}.")
    shown = checkpoint_object(jsonsafe.loads(row["record"]))
    state = await read_state(conn, run_id=run_id, seq=seq)
    context = state.data["context"].get("context")
    return _Point(shown, shown["current_agent"], shown["turn"], context)
