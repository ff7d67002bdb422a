"""``/v1/budgets``: how much runs may spend together. Those of single runs come with the runs."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Request
from fastapi import Query as QueryParameters
from pydantic import ConfigDict, Field
from starlette.responses import Response

from perdure.budgets import store
from perdure.budgets.limits import Limits
from perdure.db import Connection
from perdure.errors import InvalidRequestError
from perdure.web import schemas
from perdure.web.answers import List
from perdure.web.auth import Admin, RunReader
from perdure.web.budget_answers import Budget, Scope
from perdure.web.idempotency import Done, IdempotencyHeader, perform
from perdure.web.parameters import BudgetId, NewestFirst
from perdure.web.rendering import json_response
from perdure.web.schemas import Text255
from perdure.web.state import address, api_of

router = APIRouter(prefix="/v1/budgets", tags=["budgets"])


class BudgetsQuery(NewestFirst):
    """Which budgets, and which page of them."""

    scope: Scope | None = None
    user_id: str | None = None
    agent: str | None = None
    session_id: UUID | None = None

    def only(self) -> store.BudgetFilter:
        """Return the filter as the store takes it.

        Raises:
            InvalidRequestError: it asks for two scopes at once.
        """
        named = {"user": self.user_id, "agent": self.agent, "session": self.session_id}
        scopes = {name for name, value in named.items() if value is not None}
        if self.scope is not None:
            scopes.add(self.scope)
        if len(scopes) > 1:
            raise InvalidRequestError.at("/scope", "a budget has one scope: ask for one of them.")
        subject = self.agent if self.user_id is None else self.user_id
        return store.BudgetFilter(next(iter(scopes), None), subject, self.session_id)


class ChangeBudget(schemas.Budget):
    """What shall be different. Limits take the place of both limits there were."""

    name: Annotated[str, Field(max_length=255)] | None = None

    def given(self) -> Limits | None:
        """Return the limits that were sent, None where there were none.

        Raises:
            InvalidRequestError: a limit is none.
        """
        return None if self.cost_usd is None and self.total_tokens is None else self.limits("")


class MakeBudget(ChangeBudget):
    """A budget to make."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"scope": "user", "user_id": "alice", "period": "month", "cost_usd": "20"},
                {"scope": "tenant", "period": "month", "total_tokens": 50_000_000},
            ]
        }
    )

    scope: Scope
    period: Literal["total", "month"] = "total"
    user_id: Text255 | None = None
    agent: Text255 | None = None
    session_id: Annotated[UUID | None, Field(strict=False)] = None

    def budget(self) -> store.NewBudget:
        """Return it as the store takes it.

        Raises:
            InvalidRequestError: it limits nothing, or does not name what its scope needs, or names
                something else.
        """
        named: dict[str, Any] = {
            "user_id": self.user_id,
            "agent": self.agent,
            "session_id": self.session_id,
        }
        own = {"user": "user_id", "agent": "agent", "session": "session_id"}.get(self.scope)
        for name, value in named.items():
            if value is not None and name != own:
                raise InvalidRequestError.at(f"/{name}", f"is not for the scope {self.scope}.")
        limits = self.given()
        if limits is None:
            raise InvalidRequestError.at("", "needs cost_usd, total_tokens or both.")
        return store.NewBudget(
            self.scope,
            limits,
            self.period,
            subject=self.user_id if self.agent is None else self.agent,
            session_id=self.session_id,
            name=self.name or "",
        )


@router.post("", status_code=201, response_model=Budget)
async def create_budget(
    request: Request, principal: Admin, body: MakeBudget, key: IdempotencyHeader = None
) -> Response:
    """Make a budget. What was spent in its period already counts."""
    made: list[UUID] = []

    async def make(conn: Connection) -> Done:
        budget = await store.create_budget(
            conn, body.budget(), tenant_id=principal.tenant_id, by=principal
        )
        made.append(UUID(budget["id"]))
        return Done(201, budget, {"Location": address(request, f"/v1/budgets/{budget['id']}")})

    response = await perform(request, principal, key, make)
    for budget_id in made:
        # What was recorded while nobody saw the budget yet.
        async with api_of(request).connection() as conn:
            await store.recount(conn, budget_id)
    return response


@router.get("", response_model=List[Budget])
async def list_budgets(
    request: Request, principal: RunReader, query: Annotated[BudgetsQuery, QueryParameters()]
) -> Response:
    """List the budgets that runs share, each with what is spent of it."""
    async with api_of(request).connection() as conn:
        page = await store.list_budgets(
            conn, tenant_id=principal.tenant_id, only=query.only(), page=query.page()
        )
    return json_response(page.as_dict())


@router.get("/{id}", response_model=Budget)
async def get_budget(request: Request, principal: RunReader, budget_id: BudgetId) -> Response:
    """Read a budget."""
    async with api_of(request).connection() as conn:
        budget = await store.get_budget(conn, tenant_id=principal.tenant_id, budget_id=budget_id)
    return json_response(budget)


@router.patch("/{id}", response_model=Budget)
async def change_budget(
    request: Request, principal: Admin, budget_id: BudgetId, body: ChangeBudget
) -> Response:
    """Change a budget. It counts for the next call of every run."""
    async with api_of(request).connection() as conn:
        budget = await store.change_budget(
            conn,
            tenant_id=principal.tenant_id,
            budget_id=budget_id,
            limits=body.given(),
            name=body.name,
            by=principal,
        )
    return json_response(budget)


@router.delete("/{id}", status_code=204)
async def delete_budget(request: Request, principal: Admin, budget_id: BudgetId) -> Response:
    """Let a budget count no more."""
    async with api_of(request).connection() as conn:
        await store.delete_budget(
            conn, tenant_id=principal.tenant_id, budget_id=budget_id, by=principal
        )
    return Response(status_code=204)
