"""``/v1/runs/{id}/input``: a message to a run that is under way."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request
from fastapi import Query as QueryParameters
from starlette.responses import Response

from perdure.db import Connection
from perdure.runs import inputs, records
from perdure.web import answers
from perdure.web.auth import RunReader, RunWriter
from perdure.web.idempotency import Done, IdempotencyHeader, perform
from perdure.web.parameters import OldestFirst, RunId
from perdure.web.rendering import json_response
from perdure.web.schemas import AddInput
from perdure.web.state import api_of

router = APIRouter(prefix="/v1/runs", tags=["runs"])


@router.post("/{id}/input", status_code=202, response_model=answers.Input)
async def add_input(
    request: Request,
    principal: RunWriter,
    run_id: RunId,
    body: AddInput,
    key: IdempotencyHeader = None,
) -> Response:
    """Add a message to a run. The model reads it when it is asked next, once."""

    async def add(conn: Connection) -> Done:
        added = await inputs.add_input(
            conn, tenant_id=principal.tenant_id, run_id=run_id, input=body.input, by=principal
        )
        return Done(202, added)

    return await perform(request, principal, key, add)


@router.get("/{id}/inputs", response_model=answers.List[answers.Input])
async def list_inputs(
    request: Request,
    principal: RunReader,
    run_id: RunId,
    query: Annotated[OldestFirst, QueryParameters()],
) -> Response:
    """List the messages that were added, each with whether it was given to the model."""
    async with api_of(request).connection() as conn:
        page = await records.list_records(
            conn, "inputs", tenant_id=principal.tenant_id, run_id=run_id, page=query.page()
        )
    return json_response(page.as_dict())
