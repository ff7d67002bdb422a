"""``/v1/sessions/{id}/state``: how a conversation stands."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Request
from fastapi import Query as QueryParameters
from starlette.responses import Response

from perdure.runs.session_state import session_state
from perdure.web.answers import Answer
from perdure.web.auth import RunReader
from perdure.web.parameters import SessionId
from perdure.web.rendering import json_response
from perdure.web.sessions import ForUser
from perdure.web.state import api_of

router = APIRouter(prefix="/v1/sessions/{id}/state", tags=["sessions"])


class ToolOutput(Answer):
    """What a tool call of the conversation gave."""

    id: UUID
    run_id: UUID
    call_id: str
    tool: str
    agent: str
    status: Literal["succeeded", "failed", "rejected"]
    arguments: Any
    output: Any
    error: dict[str, Any] | None
    finished_at: datetime


class SessionState(Answer):
    """How a conversation stands, from the run whose turn it is, else the newest.

    ``memory`` is that run's context as its tools left it, ``tool_outputs`` are the newest 20 of
    the conversation. All but ``id`` and ``last_activity`` are null before the first run.
    """

    id: UUID
    object: Literal["session_state"]
    status: Literal["active", "paused", "completed", "failed", "cancelled"] | None
    agent: str | None
    current_step: str | None
    task: str | None
    run_id: UUID | None
    waiting_runs: int
    last_activity: datetime
    memory: Any
    tool_outputs: list[ToolOutput]


@router.get("", response_model=SessionState)
async def get_session_state(
    request: Request,
    principal: RunReader,
    session_id: SessionId,
    query: Annotated[ForUser, QueryParameters()],
) -> Response:
    """Read how a conversation stands: what its agent does, remembers, was last told by tools."""
    async with api_of(request).connection() as conn:
        state = await session_state(
            conn, tenant_id=principal.tenant_id, session_id=session_id, user_id=query.user_id
        )
    return json_response(state)
