"""What a run left behind: items, inputs, tool calls, checkpoints, usage, state. One query each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal
from uuid import UUID

from perdure import jsonsafe
from perdure.db import Connection, load_sql
from perdure.errors import NotFoundError
from perdure.paging import Page, PageRequest, in_order, page_of
from perdure.runs.views import (
    Object,
    Row,
    checkpoint_object,
    guardrail_result_object,
    input_object,
    item_object,
    model_response_object,
    state_object,
    tool_call_object,
    usage_metrics_object,
    usage_object,
)

_SQL = load_sql("perdure.runs", "records.sql")
_ACTIVE_STATE = _SQL["active_state"]

Records = Literal[
    "items",
    "inputs",
    "tool_calls",
    "checkpoints",
    "usage",
    "model_responses",
    "guardrail_results",
]

_KINDS: dict[Records, tuple[str, Callable[[Row], Object]]] = {
    "items": (_SQL["items"], item_object),
    "inputs": (_SQL["inputs"], input_object),
    "tool_calls": (_SQL["tool_calls"], tool_call_object),
    "checkpoints": (_SQL["checkpoints"], checkpoint_object),
    "usage": (_SQL["usage"], usage_object),
    "model_responses": (_SQL["model_responses"], model_response_object),
    "guardrail_results": (_SQL["guardrail_results"], guardrail_result_object),
}


async def list_records(
    conn: Connection, kind: Records, *, tenant_id: UUID, run_id: UUID, page: PageRequest
) -> Page:
    """Return a page of a run's records as the API shows them, in the order they came about.

    A page after an id that is none of the run's records is empty.

    Raises:
        NotFoundError: the tenant has no such run.
    """
    statement, shape = _KINDS[kind]
    cursor = await conn.execute(
        in_order(statement, page.order),
        {"tenant_id": tenant_id, "run_id": run_id, **page.params()},
    )
    rows = await cursor.fetchall()
    if not rows:
        raise NotFoundError("run", run_id)
    records = [jsonsafe.loads(row["record"]) for row in rows if row["record"] is not None]
    return page_of([shape(record) for record in records], page)


async def usage_metrics(conn: Connection, *, tenant_id: UUID, run_id: UUID) -> list[Object]:
    """Return what a run used by agent and model; they are few, and come at once.

    Raises:
        NotFoundError: the tenant has no such run.
    """
    cursor = await conn.execute(_SQL["usage_metrics"], {"tenant_id": tenant_id, "run_id": run_id})
    rows = await cursor.fetchall()
    if not rows:
        raise NotFoundError("run", run_id)
    records = [jsonsafe.loads(row["record"]) for row in rows if row["record"] is not None]
    return [usage_metrics_object(record) for record in records]


async def get_state(conn: Connection, *, tenant_id: UUID, run_id: UUID) -> dict[str, Any]:
    """Return the state a run would go on from.

    Raises:
        NotFoundError: the tenant has no such run, or it has no state yet.
    """
    cursor = await conn.execute(_ACTIVE_STATE, {"tenant_id": tenant_id, "run_id": run_id})
    row = await cursor.fetchone()
    if row is None:
        raise NotFoundError("run", run_id)
    if row["record"] is None:
        raise NotFoundError("state of run", run_id)
    return state_object(jsonsafe.loads(row["record"]))
