"""``/v1/grants``: approvals that stand for later calls too, and what they were used for."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Request
from fastapi import Query as QueryParameters
from pydantic import Field
from starlette.responses import Response

from perdure.db import Connection
from perdure.interruptions.grants import queries, store
from perdure.web import answers
from perdure.web.auth import Decider, InterruptionReader
from perdure.web.idempotency import Done, IdempotencyHeader, perform
from perdure.web.parameters import GrantId, NewestFirst
from perdure.web.rendering import json_response
from perdure.web.schemas import Nothing
from perdure.web.state import api_of

router = APIRouter(prefix="/v1/grants", tags=["grants"])


class GrantsQuery(NewestFirst):
    """Which grants, and which page of them."""

    active: Annotated[
        bool, Field(description="Those that may be used now, or else the revoked and the over.")
    ] = True
    agent: str | None = None
    tool: str | None = None
    run_id: Annotated[UUID | None, Field(description="Those given in this run.")] = None
    scope: answers.GrantScope | None = None

    def only(self) -> queries.GrantFilter:
        """Return the filter as the queries take it."""
        return queries.GrantFilter(
            active=self.active,
            agent=self.agent,
            tool=self.tool,
            run_id=self.run_id,
            scope=self.scope,
        )


@router.get("", response_model=answers.List[answers.Grant])
async def list_grants(
    request: Request,
    principal: InterruptionReader,
    query: Annotated[GrantsQuery, QueryParameters()],
) -> Response:
    """List grants, the active ones unless asked otherwise."""
    async with api_of(request).connection() as conn:
        page = await queries.list_grants(
            conn, tenant_id=principal.tenant_id, only=query.only(), page=query.page()
        )
    return json_response(page.as_dict())


@router.get("/{id}", response_model=answers.UsedGrant)
async def get_grant(request: Request, principal: InterruptionReader, grant_id: GrantId) -> Response:
    """Read a grant with how often it was used."""
    async with api_of(request).connection() as conn:
        grant = await queries.get_grant(conn, tenant_id=principal.tenant_id, grant_id=grant_id)
    return json_response(grant)


@router.get("/{id}/uses", response_model=answers.List[answers.GrantUse])
async def list_uses(
    request: Request,
    principal: InterruptionReader,
    grant_id: GrantId,
    query: Annotated[NewestFirst, QueryParameters()],
) -> Response:
    """List the calls a grant approved."""
    async with api_of(request).connection() as conn:
        page = await queries.list_uses(
            conn, tenant_id=principal.tenant_id, grant_id=grant_id, page=query.page()
        )
    return json_response(page.as_dict())


@router.post("/{id}/revoke", response_model=answers.UsedGrant)
async def revoke(
    request: Request,
    principal: Decider,
    grant_id: GrantId,
    body: Nothing | None = None,
    key: IdempotencyHeader = None,
) -> Response:
    """Revoke a grant: from now on nothing is decided by it. One that is revoked stays as it is."""

    async def record(conn: Connection) -> Done:
        await store.revoke(conn, tenant_id=principal.tenant_id, grant_id=grant_id, by=principal)
        return Done(
            200,
            await queries.get_grant(conn, tenant_id=principal.tenant_id, grant_id=grant_id),
        )

    return await perform(request, principal, key, record)
