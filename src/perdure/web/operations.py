"""``/v1/operations``: what tools changed."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Request
from fastapi import Query as QueryParameters
from pydantic import AwareDatetime, Field
from starlette.responses import Response

from perdure.runs import operations
from perdure.web import answers
from perdure.web import operation_answers as shown
from perdure.web.auth import RunReader
from perdure.web.parameters import NewestFirst, OperationId, Query
from perdure.web.rendering import json_response
from perdure.web.schemas import Text255
from perdure.web.state import api_of

router = APIRouter(prefix="/v1/operations", tags=["operations"])


class ForUser(Query):
    """On whose behalf."""

    user_id: Annotated[
        Text255 | None, Field(description="Only of a run of this user; another's is not found.")
    ] = None


class OperationsQuery(NewestFirst):
    """Which operations, and which page of them."""

    run_id: UUID | None = None
    session_id: Annotated[UUID | None, Field(description="Of the runs of this session.")] = None
    user_id: Annotated[Text255 | None, Field(description="Of the runs of this user.")] = None
    target: Text255 | None = None
    kind: Text255 | None = None
    created_after: AwareDatetime | None = None
    created_before: AwareDatetime | None = None

    def only(self) -> operations.OperationFilter:
        """Return the filter as the store takes it."""
        names = operations.OperationFilter.__slots__
        return operations.OperationFilter(**{name: getattr(self, name) for name in names})


@router.get("", response_model=answers.List[shown.Operation])
async def list_operations(
    request: Request, principal: RunReader, query: Annotated[OperationsQuery, QueryParameters()]
) -> Response:
    """List what tools changed, as they recorded it."""
    async with api_of(request).connection() as conn:
        page = await operations.list_operations(
            conn, tenant_id=principal.tenant_id, only=query.only(), page=query.page()
        )
    return json_response(page.as_dict())


@router.get("/{id}", response_model=shown.Operation)
async def get_operation(
    request: Request,
    principal: RunReader,
    operation_id: OperationId,
    query: Annotated[ForUser, QueryParameters()],
) -> Response:
    """Read one operation."""
    async with api_of(request).connection() as conn:
        one = await operations.get_operation(
            conn, tenant_id=principal.tenant_id, operation_id=operation_id, user_id=query.user_id
        )
    return json_response(one)
