"""Budgets that runs share, as rows: made, read, changed, deleted. Those of runs come with them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal
from uuid import UUID

from perdure import jsonsafe
from perdure.audit.log import Actor, Entry, record
from perdure.budgets.limits import Limits
from perdure.db import Connection, load_sql, uuid7
from perdure.errors import InvalidRequestError, InvalidStateError, NotFoundError
from perdure.paging import Page, PageRequest, in_order, page_of
from perdure.times import rfc3339

__all__ = [
    "BudgetFilter",
    "NewBudget",
    "change_budget",
    "create_budget",
    "delete_budget",
    "get_budget",
    "list_budgets",
    "recount",
]

_SQL = load_sql("perdure.budgets", "store.sql")
_GET = f"{_SQL['select_budgets']}\n{_SQL['one_budget']}"
_LIST = f"{_SQL['select_budgets']}\n{_SQL['page_of_budgets']}"

Scope = Literal["session", "user", "agent", "tenant"]
Period = Literal["total", "month"]


@dataclass(frozen=True, slots=True)
class NewBudget:
    """A budget to make. ``subject`` is the user's id or the agent's name, of those scopes."""

    scope: Scope
    limits: Limits
    period: Period = "total"
    subject: str | None = None
    session_id: UUID | None = None
    name: str = ""

    def __post_init__(self) -> None:
        """Check that it names what its scope needs, and nothing else.

        Raises:
            InvalidRequestError: naming the field, as the API has it.
        """
        named = {"user": self.subject, "agent": self.subject, "session": self.session_id}
        field = {"user": "user_id", "agent": "agent", "session": "session_id"}
        if self.scope in named and named[self.scope] is None:
            raise InvalidRequestError.at(
                f"/{field[self.scope]}", f"is needed for the budget of a {self.scope}."
            )


@dataclass(frozen=True, slots=True)
class BudgetFilter:
    """Which budgets a list shall hold; None filters nothing."""

    scope: str | None = None
    subject: str | None = None
    session_id: UUID | None = None


def _object(text: str) -> dict[str, Any]:
    row = jsonsafe.loads(text)
    return {
        "id": row["id"],
        "object": "budget",
        "scope": row["scope"],
        "run_id": row["run_id"],
        "session_id": row["session_id"],
        "user_id": row["subject"] if row["scope"] == "user" else None,
        "agent": row["subject"] if row["scope"] == "agent" else None,
        "period": row["period"],
        "name": row["name"],
        "cost_usd": row["cost_usd"],
        "total_tokens": row["total_tokens"],
        "raised": row["raised"],
        "spent_usd": row["spent_usd"],
        "spent_tokens": row["spent_tokens"],
        "reserved_usd": row["reserved_usd"],
        "reserved_tokens": row["reserved_tokens"],
        "unpriced_requests": row["unpriced_requests"],
        "starts_at": rfc3339(row["starts_at"]),
        "ends_at": rfc3339(row["ends_at"]),
        "created_at": rfc3339(row["created_at"]),
        "updated_at": rfc3339(row["updated_at"]),
    }


async def create_budget(
    conn: Connection, new: NewBudget, *, tenant_id: UUID, by: Actor
) -> dict[str, Any]:
    """Make a budget and return it as the API shows it; what was spent already counts.

    In the transaction ``conn`` is in, or one of its own. ``recount`` once that has committed
    counts what was under way meanwhile.

    Raises:
        NotFoundError: the tenant has no such session.
        InvalidStateError: there is one of this scope, for the same and the same period.
    """
    budget_id = uuid7()
    async with conn.transaction():
        cursor = await conn.execute(
            _SQL["insert_budget"],
            {
                "id": budget_id,
                "tenant_id": tenant_id,
                "scope": new.scope,
                "session_id": new.session_id,
                "subject": new.subject,
                "period": new.period,
                "name": new.name,
                "cost_usd": new.limits.cost_usd,
                "total_tokens": new.limits.total_tokens,
            },
        )
        if await cursor.fetchone() is None:
            await _refuse(conn, new, tenant_id)
        made = await get_budget(conn, tenant_id=tenant_id, budget_id=budget_id)
        about = ("budget", budget_id)
        await record(
            conn,
            Entry(
                "budget.created",
                tenant_id,
                about,
                by,
                concerns=made["user_id"],
                details={"after": _told(made)},
            ),
        )
        return made


async def recount(conn: Connection, budget_id: UUID) -> None:
    """Count anew what is spent of a budget, from the usage there is."""
    await conn.execute(_SQL["recount"], {"id": budget_id})


async def _refuse(conn: Connection, new: NewBudget, tenant_id: UUID) -> None:
    if new.session_id is not None:
        key = {"session_id": new.session_id, "tenant_id": tenant_id}
        cursor = await conn.execute(_SQL["find_session"], key)
        if await cursor.fetchone() is None:
            raise NotFoundError("session", new.session_id)
    only = BudgetFilter(new.scope, new.subject, new.session_id)
    page = await list_budgets(
        conn, tenant_id=tenant_id, only=only, page=PageRequest(limit=2, after=None, order="desc")
    )
    there = [one["id"] for one in page.data if one["period"] == new.period]
    raise InvalidStateError(
        "Budget",
        there[0] if there else "of this kind",
        status="there already",
        action="made again",
        hint="Change it instead.",
    )


async def get_budget(conn: Connection, *, tenant_id: UUID, budget_id: UUID) -> dict[str, Any]:
    """Return a budget as the API shows it, with what is spent and reserved now.

    Raises:
        NotFoundError: the tenant has no such budget.
    """
    cursor = await conn.execute(_GET, {"tenant_id": tenant_id, "id": budget_id})
    row = await cursor.fetchone()
    if row is None:
        raise NotFoundError("budget", budget_id)
    return _object(row["budget"])


async def list_budgets(
    conn: Connection, *, tenant_id: UUID, only: BudgetFilter, page: PageRequest
) -> Page:
    """Return a page of the budgets that runs share, as the API shows them, by age."""
    cursor = await conn.execute(
        in_order(_LIST, page.order),
        {
            "tenant_id": tenant_id,
            "scope": only.scope,
            "subject": only.subject,
            "session_id": only.session_id,
            **page.params(),
        },
    )
    return page_of([_object(row["budget"]) for row in await cursor.fetchall()], page)


async def change_budget(
    conn: Connection,
    *,
    tenant_id: UUID,
    budget_id: UUID,
    limits: Limits | None,
    name: str | None,
    by: Actor,
) -> dict[str, Any]:
    """Give a budget other limits, another name or both, and return it as the API shows it.

    ``limits`` take the place of both limits there were, and of what decisions had raised them to.

    Raises:
        NotFoundError: the tenant has no such budget.
    """
    async with conn.transaction():
        before = await get_budget(conn, tenant_id=tenant_id, budget_id=budget_id)
        given = limits or Limits()
        await conn.execute(
            _SQL["change_budget"],
            {
                "tenant_id": tenant_id,
                "id": budget_id,
                "name": name,
                "limited": limits is not None,
                "cost_usd": given.cost_usd,
                "total_tokens": given.total_tokens,
            },
        )
        after = await get_budget(conn, tenant_id=tenant_id, budget_id=budget_id)
        details = {"before": _told(before), "after": _told(after)}
        entry = Entry("budget.changed", tenant_id, ("budget", budget_id), by, details=details)
        await record(conn, replace(entry, concerns=before["user_id"]))
        return after


async def delete_budget(conn: Connection, *, tenant_id: UUID, budget_id: UUID, by: Actor) -> None:
    """Let a budget count no more. A run that stopped at it goes on when it is approved.

    Raises:
        NotFoundError: the tenant has no such budget.
    """
    async with conn.transaction():
        before = await get_budget(conn, tenant_id=tenant_id, budget_id=budget_id)
        await conn.execute(_SQL["delete_budget"], {"tenant_id": tenant_id, "id": budget_id})
        details = {"before": _told(before)}
        entry = Entry("budget.deleted", tenant_id, ("budget", budget_id), by, details=details)
        await record(conn, replace(entry, concerns=before["user_id"]))


def _told(shown: dict[str, Any]) -> dict[str, Any]:
    names = (
        "scope",
        "session_id",
        "user_id",
        "agent",
        "period",
        "name",
        "cost_usd",
        "total_tokens",
    )
    return {name: shown[name] for name in names}
