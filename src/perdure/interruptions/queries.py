"""Interruptions with their decisions, read by tenant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from perdure import jsonsafe
from perdure.db import Connection, load_sql
from perdure.errors import NotFoundError
from perdure.interruptions.views import interruption_object
from perdure.paging import Page, PageRequest, in_order, page_of

_SQL = load_sql("perdure.interruptions", "interruptions.sql")
_GET = f"{_SQL['select_interruptions']}\n{_SQL['one_interruption']}"
_GET_ALL = f"{_SQL['select_interruptions']}\n{_SQL['these_interruptions']}"
_LIST = f"{_SQL['select_interruptions']}\n{_SQL['page_of_interruptions']}"


@dataclass(frozen=True, slots=True)
class InterruptionFilter:
    """Which interruptions a list shall hold; None filters nothing."""

    status: str = "pending"
    run_id: UUID | None = None
    type: str | None = None
    agent: str | None = None


async def get_interruption(
    conn: Connection, *, tenant_id: UUID, interruption_id: UUID
) -> dict[str, Any]:
    """Return one interruption as the API shows it.

    Raises:
        NotFoundError: the tenant has no such interruption.
    """
    cursor = await conn.execute(_GET, {"tenant_id": tenant_id, "id": interruption_id})
    row = await cursor.fetchone()
    if row is None:
        raise NotFoundError("interruption", interruption_id)
    return interruption_object(jsonsafe.loads(row["interruption"]))


async def get_interruptions(
    conn: Connection, *, tenant_id: UUID, ids: Sequence[UUID]
) -> list[dict[str, Any]]:
    """Return the tenant's interruptions with these ids as the API shows them, in this order."""
    cursor = await conn.execute(_GET_ALL, {"tenant_id": tenant_id, "ids": list(ids)})
    rows = await cursor.fetchall()
    return [interruption_object(jsonsafe.loads(row["interruption"])) for row in rows]


async def list_interruptions(
    conn: Connection, *, tenant_id: UUID, only: InterruptionFilter, page: PageRequest
) -> Page:
    """Return a page of interruptions as the API shows them, by age, in one query."""
    cursor = await conn.execute(
        in_order(_LIST, page.order),
        {
            "tenant_id": tenant_id,
            "status": only.status,
            "run_id": only.run_id,
            "type": only.type,
            "agent": only.agent,
            **page.params(),
        },
    )
    rows = await cursor.fetchall()
    return page_of([interruption_object(jsonsafe.loads(row["interruption"])) for row in rows], page)
