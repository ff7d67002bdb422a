"""``/v1/runs/{id}/…``: what a run left: items, calls, states, replies, usage, guardrails' words."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Request
from fastapi import Query as QueryParameters
from starlette.responses import Response

from perdure.access.principals import Principal
from perdure.runs import records
from perdure.web import answers, usage_answers
from perdure.web.auth import RunReader
from perdure.web.parameters import NewestFirst, OldestFirst, RunId
from perdure.web.rendering import json_response
from perdure.web.state import api_of

router = APIRouter(prefix="/v1/runs", tags=["runs"])


async def _records(
    kind: records.Records, request: Request, principal: Principal, run_id: UUID, query: NewestFirst
) -> Response:
    async with api_of(request).connection() as conn:
        page = await records.list_records(
            conn, kind, tenant_id=principal.tenant_id, run_id=run_id, page=query.page()
        )
    return json_response(page.as_dict())


@router.get("/{id}/items", response_model=answers.List[answers.Item])
async def list_items(
    request: Request,
    principal: RunReader,
    run_id: RunId,
    query: Annotated[OldestFirst, QueryParameters()],
) -> Response:
    """List what was said and called, in order."""
    return await _records("items", request, principal, run_id, query)


@router.get("/{id}/tool_calls", response_model=answers.List[answers.ToolCall])
async def list_tool_calls(
    request: Request,
    principal: RunReader,
    run_id: RunId,
    query: Annotated[OldestFirst, QueryParameters()],
) -> Response:
    """List the tool calls, each with what became of it."""
    return await _records("tool_calls", request, principal, run_id, query)


@router.get("/{id}/checkpoints", response_model=answers.List[answers.Checkpoint])
async def list_checkpoints(
    request: Request,
    principal: RunReader,
    run_id: RunId,
    query: Annotated[OldestFirst, QueryParameters()],
) -> Response:
    """List the saved states."""
    return await _records("checkpoints", request, principal, run_id, query)


@router.get("/{id}/state", response_model=answers.RunState)
async def get_state(request: Request, principal: RunReader, run_id: RunId) -> Response:
    """Read the state the run would go on from."""
    async with api_of(request).connection() as conn:
        state = await records.get_state(conn, tenant_id=principal.tenant_id, run_id=run_id)
    return json_response(state)


@router.get("/{id}/usage", response_model=answers.List[usage_answers.Usage])
async def list_usage(
    request: Request,
    principal: RunReader,
    run_id: RunId,
    query: Annotated[NewestFirst, QueryParameters()],
) -> Response:
    """List what each request to a model used, and what it cost."""
    return await _records("usage", request, principal, run_id, query)


@router.get("/{id}/usage_metrics", response_model=usage_answers.UsageMetricsList)
async def list_usage_metrics(request: Request, principal: RunReader, run_id: RunId) -> Response:
    """List what the run used, by agent and model."""
    async with api_of(request).connection() as conn:
        found = await records.usage_metrics(conn, tenant_id=principal.tenant_id, run_id=run_id)
    return json_response({"object": "list", "data": found, "has_more": False})


@router.get("/{id}/model_responses", response_model=answers.List[usage_answers.ModelResponse])
async def list_model_responses(
    request: Request,
    principal: RunReader,
    run_id: RunId,
    query: Annotated[OldestFirst, QueryParameters()],
) -> Response:
    """List the models' replies as they came, with what they were asked with."""
    return await _records("model_responses", request, principal, run_id, query)


@router.get("/{id}/guardrail_results", response_model=answers.List[usage_answers.GuardrailResult])
async def list_guardrail_results(
    request: Request,
    principal: RunReader,
    run_id: RunId,
    query: Annotated[OldestFirst, QueryParameters()],
) -> Response:
    """List what guardrails said of agents' inputs and outputs and of tool calls."""
    return await _records("guardrail_results", request, principal, run_id, query)
