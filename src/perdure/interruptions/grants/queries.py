"""Grants and their uses, read by tenant, as the API shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from perdure import jsonsafe
from perdure.db import Connection, load_sql
from perdure.errors import NotFoundError
from perdure.paging import Page, PageRequest, in_order, page_of
from perdure.times import rfc3339

_SQL = load_sql("perdure.interruptions.grants", "store.sql")
_GET = f"{_SQL['select_grants']}\n{_SQL['one_grant']}"
_LIST = f"{_SQL['select_grants']}\n{_SQL['page_of_grants']}"
_COUNT_USES = _SQL["count_uses"]
_USES = _SQL["page_of_uses"]


@dataclass(frozen=True, slots=True)
class GrantFilter:
    """Which grants a list shall hold; None filters nothing.

    ``active``: those that may be used now, or else those that are over or revoked. ``run_id``:
    those given in this run.
    """

    active: bool = True
    agent: str | None = None
    tool: str | None = None
    run_id: UUID | None = None
    scope: str | None = None


def grant_object(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of ``grants``, with ``active`` and ``arguments``, as the API shows it."""
    return {
        "id": str(row["id"]),
        "object": "grant",
        "active": row["active"],
        "agent": row["agent"],
        "tool": row["tool"],
        "scope": row["scope"],
        "scope_id": row["scope_id"],
        "arguments": row["arguments"],
        "arguments_digest": row["arguments_digest"],
        "when": row["conditions"],
        "schema_digest": row["schema_digest"],
        "until": rfc3339(row["until"]),
        "granted_by": {name: row["granted_by"][name] for name in ("type", "id", "subject")},
        "run_id": str(row["run_id"]),
        "interruption_id": str(row["interruption_id"]),
        "decision_id": str(row["decision_id"]),
        "created_at": rfc3339(row["created_at"]),
        "revoked_at": rfc3339(row["revoked_at"]),
        "revoked_by": row["revoked_by"],
    }


def use_object(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of ``grant_uses``, with the ``tool`` of its interruption, as the API does."""
    return {
        "id": str(row["id"]),
        "object": "grant_use",
        "grant_id": str(row["grant_id"]),
        "run_id": str(row["run_id"]),
        "interruption_id": str(row["interruption_id"]),
        "call_id": row["tool"]["call_id"],
        "arguments": row["tool"]["arguments"],
        "at": rfc3339(row["created_at"]),
    }


async def get_grant(conn: Connection, *, tenant_id: UUID, grant_id: UUID) -> dict[str, Any]:
    """Return one grant as the API shows it, with ``uses`` (how many) and ``last_used_at``.

    Raises:
        NotFoundError: the tenant has no such grant.
    """
    grant = await _grant(conn, tenant_id, grant_id)
    cursor = await conn.execute(_COUNT_USES, {"id": grant_id})
    [counted] = await cursor.fetchall()
    last = rfc3339(counted["last_used_at"])
    return {**grant, "uses": counted["uses"], "last_used_at": last}


async def list_grants(
    conn: Connection, *, tenant_id: UUID, only: GrantFilter, page: PageRequest
) -> Page:
    """Return a page of grants as the API shows them, by age, in one query."""
    cursor = await conn.execute(
        in_order(_LIST, page.order),
        {
            "tenant_id": tenant_id,
            "active": only.active,
            "agent": only.agent,
            "tool": only.tool,
            "run_id": only.run_id,
            "scope": only.scope,
            **page.params(),
        },
    )
    rows = await cursor.fetchall()
    return page_of([grant_object(jsonsafe.loads(row["granted"])) for row in rows], page)


async def list_uses(
    conn: Connection, *, tenant_id: UUID, grant_id: UUID, page: PageRequest
) -> Page:
    """Return a page of a grant's uses as the API shows them, by age. Those of deleted runs are not.

    Raises:
        NotFoundError: the tenant has no such grant.
    """
    await _grant(conn, tenant_id, grant_id)
    cursor = await conn.execute(in_order(_USES, page.order), {"id": grant_id, **page.params()})
    rows = await cursor.fetchall()
    return page_of([use_object(jsonsafe.loads(row["used"])) for row in rows], page)


async def _grant(conn: Connection, tenant_id: UUID, grant_id: UUID) -> dict[str, Any]:
    cursor = await conn.execute(_GET, {"tenant_id": tenant_id, "id": grant_id})
    row = await cursor.fetchone()
    if row is None:
        raise NotFoundError("grant", grant_id)
    return grant_object(jsonsafe.loads(row["granted"]))
