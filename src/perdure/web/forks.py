"""``/v1/runs/{id}/fork``: a run that goes on from a checkpoint of another one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import ConfigDict, Field
from starlette.responses import Response

from perdure.db import Connection
from perdure.runs import store
from perdure.runs.forking import MAX_INSTRUCTIONS, Fork, Tools, fork_run
from perdure.web import answers
from perdure.web.auth import RunWriter
from perdure.web.idempotency import Done, IdempotencyHeader, perform
from perdure.web.parameters import RunId
from perdure.web.schemas import Body, RunInput, Text255
from perdure.web.state import address, api_of

router = APIRouter(prefix="/v1/runs", tags=["runs"])


class ForkRun(Body):
    """From where a run is forked, and what is other in the fork."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"instructions": "Answer in one sentence."},
                {"checkpoint": 2, "input": "Try another carrier.", "model": "gpt-5-mini"},
                {"checkpoint": 0, "agent": "triage", "tools": "run"},
            ]
        }
    )

    checkpoint: Annotated[
        int | None,
        Field(
            ge=0,
            le=2**31 - 1,
            description="The checkpoint's seq, 0 being the run's beginning; by default the latest "
            "that is not final.",
        ),
    ] = None
    input: Annotated[
        RunInput | None,
        Field(description="A user's message more; at the beginning, what the run is given."),
    ] = None
    instructions: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=MAX_INSTRUCTIONS,
            description="What the agent that goes on is told instead of its own instructions.",
        ),
    ] = None
    agent: Annotated[str | None, Field(min_length=1, description="Who goes on instead.")] = None
    model: Annotated[
        Text255 | None,
        Field(description="The model all agents are run with, by the provider's name."),
    ] = None
    tools: Annotated[
        Tools,
        Field(
            description="ledger: calls the run made after the checkpoint are answered with what "
            "came of them there; a person is asked before others that are not of the effect read. "
            "run: as the agent does by itself."
        ),
    ] = "ledger"


@router.post("/{id}/fork", status_code=202, response_model=answers.Run)
async def fork(
    request: Request,
    principal: RunWriter,
    run_id: RunId,
    body: ForkRun | None = None,
    key: IdempotencyHeader = None,
) -> Response:
    """Start a run that goes on from a checkpoint of this one, which stays as it is."""
    registry = api_of(request).registry
    asked = body or ForkRun()

    async def begin(conn: Connection) -> Done:
        wanted = Fork(
            checkpoint=asked.checkpoint,
            input=asked.input,
            instructions=asked.instructions,
            agent=None if asked.agent is None else registry.check_agent(asked.agent),
            model=registry.check_model(asked.model),
            tools=asked.tools,
        )
        tenant_id = principal.tenant_id
        fork_id = await fork_run(
            conn, tenant_id=tenant_id, run_id=run_id, fork=wanted, by=principal
        )
        run = await store.get_run(conn, tenant_id=tenant_id, run_id=fork_id)
        return Done(202, run, {"Location": address(request, f"/v1/runs/{fork_id}")})

    return await perform(request, principal, key, begin)
