"""``/v1/runs/{id}/checkpoints/…`` and ``/v1/runs/{id}/diff``: looked at, and beside each other."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Request
from fastapi import Query as QueryParameters
from pydantic import Field, WithJsonSchema
from starlette.responses import Response

from perdure.errors import NotFoundError
from perdure.paging import DEFAULT_LIMIT, MAX_LIMIT
from perdure.runs.checkpoints import diff_checkpoints, get_checkpoint
from perdure.runs.run_diff import diff_runs
from perdure.web import fork_answers as shown
from perdure.web.auth import RunReader
from perdure.web.parameters import Query, RunId
from perdure.web.rendering import json_response
from perdure.web.state import api_of

router = APIRouter(prefix="/v1/runs", tags=["runs"])

_MAX = 2**31 - 1
_Seq = Annotated[int, Field(ge=0, le=_MAX)]


async def _seq(
    run_id: RunId,
    seq: Annotated[
        str,
        Path(description="A checkpoint's number."),
        WithJsonSchema({"type": "integer", "minimum": 1}),
    ],
) -> int:
    if not (seq.isascii() and seq.isdigit()) or len(seq) > 10 or int(seq) > _MAX:
        # What is no number is the number of nothing.
        raise NotFoundError(f"checkpoint {seq[:64]} of run", run_id)
    return int(seq)


class CheckpointsDiffQuery(Query):
    """Which two."""

    base: Annotated[
        _Seq | None,
        Field(
            alias="from",
            description="The earlier one, 0 being the run's beginning; by default the one before.",
        ),
    ] = None
    to: Annotated[_Seq | None, Field(description="The later one; by default the latest.")] = None
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT
    after: Annotated[_Seq, Field(description="Go on after the item of this number.")] = 0


class RunDiffQuery(Query):
    """Beside which run."""

    base: Annotated[
        UUID | None,
        Field(alias="with", description="The other run; by default the one it was forked from."),
    ] = None


@router.get("/{id}/checkpoints/diff", response_model=shown.CheckpointDiff)
async def diff_of_checkpoints(
    request: Request,
    principal: RunReader,
    run_id: RunId,
    query: Annotated[CheckpointsDiffQuery, QueryParameters()],
) -> Response:
    """Show what came about between two checkpoints: items, usage, agent, context."""
    async with api_of(request).connection() as conn:
        found = await diff_checkpoints(
            conn,
            tenant_id=principal.tenant_id,
            run_id=run_id,
            base_seq=query.base,
            seq=query.to,
            limit=query.limit,
            after=query.after,
        )
    return json_response(found)


@router.get("/{id}/checkpoints/{seq}", response_model=shown.StoredCheckpoint)
async def show_checkpoint(
    request: Request,
    principal: RunReader,
    run_id: RunId,
    seq: Annotated[int, Depends(_seq)],
) -> Response:
    """Read a saved state, whole."""
    async with api_of(request).connection() as conn:
        found = await get_checkpoint(conn, tenant_id=principal.tenant_id, run_id=run_id, seq=seq)
    return json_response(found)


@router.get("/{id}/diff", response_model=shown.RunDiff)
async def diff_of_runs(
    request: Request,
    principal: RunReader,
    run_id: RunId,
    query: Annotated[RunDiffQuery, QueryParameters()],
) -> Response:
    """Show a run beside the one it was forked from, or another: turn by turn where they differ."""
    async with api_of(request).connection() as conn:
        found = await diff_runs(
            conn, tenant_id=principal.tenant_id, run_id=run_id, base_id=query.base
        )
    return json_response(found)
