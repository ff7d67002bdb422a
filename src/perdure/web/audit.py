"""``/v1/audit``: who did what. For administrators."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Request
from fastapi import Query as QueryParameters
from pydantic import Field
from starlette.responses import Response

from perdure.audit import queries
from perdure.web import answers
from perdure.web.auth import Admin
from perdure.web.parameters import NewestFirst
from perdure.web.rendering import json_response
from perdure.web.state import api_of

router = APIRouter(prefix="/v1/audit", tags=["audit"])


class AuditQuery(NewestFirst):
    """Which rows, and which page of them."""

    run_id: UUID | None = None
    kind: str | None = None
    actor: Annotated[
        str | None, Field(description="A subject, or `type:id` of somebody without one.")
    ] = None

    def only(self) -> queries.AuditFilter:
        """Return the filter as the queries take it."""
        return queries.AuditFilter(run_id=self.run_id, kind=self.kind, actor=self.actor)


@router.get("", response_model=answers.List[answers.AuditEntry])
async def list_audit(
    request: Request, principal: Admin, query: Annotated[AuditQuery, QueryParameters()]
) -> Response:
    """List who did what, to what, when and from where."""
    async with api_of(request).connection() as conn:
        page = await queries.list_entries(
            conn, tenant_id=principal.tenant_id, only=query.only(), page=query.page()
        )
    return json_response(page.as_dict())
