"""What tools changed, as they recorded it: read and listed. Always within one tenant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from perdure import jsonsafe
from perdure.db import Connection, load_sql
from perdure.errors import NotFoundError
from perdure.jsondiff import diff
from perdure.paging import Page, PageRequest, in_order, page_of
from perdure.times import rfc3339

__all__ = ["OperationFilter", "get_operation", "list_operations", "operation_object"]

_SQL = load_sql("perdure.runs", "operations.sql")
_SELECT = _SQL["select"]
_ONE = f"{_SELECT}\n{_SQL['one']}"
_PAGE = _SQL["page"]
_NARROWING = {
    name: _SQL[name]
    for name in (
        *("run_id", "session_id", "user_id", "target", "kind"),
        *("created_after", "created_before"),
    )
}


@dataclass(frozen=True, slots=True)
class OperationFilter:
    """Which operations a list shall hold; None filters nothing. Moments are aware and exclusive.

    ``session_id`` and ``user_id`` are those of the run.
    """

    run_id: UUID | None = None
    session_id: UUID | None = None
    user_id: str | None = None
    target: str | None = None
    kind: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None

    def params(self) -> dict[str, Any]:
        """Return the statement's parameters: those that are given."""
        given = {name: getattr(self, name) for name in _NARROWING}
        return {name: value for name, value in given.items() if value is not None}

    def statement(self) -> str:
        """Return the statement that lists what fits, newest first."""
        return "\n".join([_SELECT, *(_NARROWING[name] for name in self.params()), _PAGE])


async def list_operations(
    conn: Connection, *, tenant_id: UUID, only: OperationFilter, page: PageRequest
) -> Page:
    """Return a page of operations as the API shows them, by age."""
    cursor = await conn.execute(
        in_order(only.statement(), page.order),
        {"tenant_id": tenant_id, **only.params(), **page.params()},
    )
    rows = await cursor.fetchall()
    return page_of([operation_object(jsonsafe.loads(row["shown"])) for row in rows], page)


async def get_operation(
    conn: Connection, *, tenant_id: UUID, operation_id: UUID, user_id: str | None = None
) -> dict[str, Any]:
    """Return one operation as the API shows it. ``user_id``: only of a run of this user.

    Raises:
        NotFoundError: there is none.
    """
    params = {"tenant_id": tenant_id, "id": operation_id, "user_id": user_id}
    row = await (await conn.execute(_ONE, params)).fetchone()
    if row is None:
        raise NotFoundError("operation", operation_id)
    return operation_object(jsonsafe.loads(row["shown"]))


def operation_object(row: Mapping[str, Any]) -> dict[str, Any]:
    """An operation, with the steps from what was to what is since."""
    return {
        "id": str(row["id"]),
        "object": "operation",
        "run_id": row["run_id"],
        "session_id": row["session_id"],
        "user_id": row["user_id"],
        "tool_call_id": row["tool_call_id"],
        "call_id": row["call_id"],
        "tool": row["tool"],
        "agent": row["agent"],
        "kind": row["kind"],
        "target": row["target"],
        "previous": row["previous"],
        "new": row["new"],
        "diff": diff(row["previous"], row["new"]),
        "created_at": rfc3339(row["created_at"]),
    }
