"""``/v1/interruptions``: what waits for people, and their decisions."""

from __future__ import annotations

from hashlib import sha256
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Request
from fastapi import Query as QueryParameters
from pydantic import Field
from starlette.responses import Response

from perdure.db import Connection
from perdure.interruptions import queries
from perdure.runs.resume import decide_and_resume
from perdure.web import answers
from perdure.web.auth import Decider, InterruptionReader
from perdure.web.idempotency import Done, IdempotencyHeader, perform
from perdure.web.parameters import MAX_WAIT_SECONDS, InterruptionId, NewestFirst
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
    wait: Annotated[
        float,
        Field(
            ge=0,
            le=MAX_WAIT_SECONDS,
            allow_inf_nan=False,
            description="With If-None-Match: answer when the page is another than that, or 304 "
            "after so many seconds.",
        ),
    ] = 0

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
    known: Annotated[
        str | None, Header(alias="If-None-Match", description="The ETag of the page one has.")
    ] = None,
) -> Response:
    """List interruptions, the pending ones unless asked otherwise.

    Each page has an `ETag`. Who sends it back as `If-None-Match` learns whether the page is still
    the same (304), and with `wait` is told when it is not.
    """
    api = api_of(request)

    async def read() -> Response | None:
        async with api.connection() as conn:
            page = await queries.list_interruptions(
                conn, tenant_id=principal.tenant_id, only=query.only(), page=query.page()
            )
        response = json_response(page.as_dict())
        etag = f'"{sha256(bytes(response.body)).hexdigest()[:32]}"'
        response.headers["ETag"] = etag
        return None if known is not None and known.removeprefix("W/") == etag else response

    if known is None or not query.wait:
        found = await read()
    else:
        found = await api.waiters.until(str(principal.tenant_id), read, seconds=query.wait)
    return Response(status_code=304, headers={"ETag": known or ""}) if found is None else found


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
