"""``/v1/interruptions``: what waits for people, and their decisions."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Request
from fastapi import Query as QueryParameters
from starlette.responses import Response

from perdure.db import Connection
from perdure.interruptions import queries
from perdure.runs.resume import decide_and_resume
from perdure.web import answers
from perdure.web.auth import Decider, InterruptionReader
from perdure.web.idempotency import Done, IdempotencyHeader, perform
from perdure.web.parameters import InterruptionId, NewestFirst
from perdure.web.rendering import json_response
from perdure.web.schemas import Decide
from perdure.web.state import api_of

router = APIRouter(prefix="/v1/interruptions", tags=["interruptions"])


class InterruptionsQuery(NewestFirst):
    """Which interruptions, and which page of them."""

    status: answers.InterruptionStatus = "pending"
    run_id: UUID | None = None
    type: answers.InterruptionType | None = None
    agent: str | None = None

    def only(self) -> queries.InterruptionFilter:
        """Return the filter as the queries take it."""
        return queries.InterruptionFilter(
            status=self.status, run_id=self.run_id, type=self.type, agent=self.agent
        )


@router.get("", response_model=answers.List[answers.Interruption])
async def list_interruptions(
    request: Request,
    principal: InterruptionReader,
    query: Annotated[InterruptionsQuery, QueryParameters()],
) -> Response:
    """List interruptions, the pending ones unless asked otherwise."""
    async with api_of(request).connection() as conn:
        page = await queries.list_interruptions(
            conn, tenant_id=principal.tenant_id, only=query.only(), page=query.page()
        )
    return json_response(page.as_dict())


@router.get("/{id}", response_model=answers.Interruption)
async def get_interruption(
    request: Request, principal: InterruptionReader, interruption_id: InterruptionId
) -> Response:
    """Read an interruption with the decisions on it."""
    async with api_of(request).connection() as conn:
        interruption = await queries.get_interruption(
            conn, tenant_id=principal.tenant_id, interruption_id=interruption_id
        )
    return json_response(interruption)


@router.post("/{id}/decision", response_model=answers.Interruption)
async def decide(
    request: Request,
    principal: Decider,
    interruption_id: InterruptionId,
    body: Decide,
    key: IdempotencyHeader = None,
) -> Response:
    """Decide. The last decision a run waited for sends it on."""

    async def record(conn: Connection) -> Done:
        await decide_and_resume(
            conn,
            tenant_id=principal.tenant_id,
            interruption_id=interruption_id,
            decision=body.to_decision(),
            by=principal,
        )
        interruption = await queries.get_interruption(
            conn, tenant_id=principal.tenant_id, interruption_id=interruption_id
        )
        return Done(200, interruption)

    return await perform(request, principal, key, record)
