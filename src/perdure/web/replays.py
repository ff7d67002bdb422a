"""``/v1/sessions/{id}/replay`` and ``/diff``: said again, and beside each other."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Request
from fastapi import Query as QueryParameters
from pydantic import ConfigDict, Field
from starlette.responses import Response

from perdure.db import Connection
from perdure.paging import DEFAULT_LIMIT, MAX_LIMIT
from perdure.runs.replay import Replay, replay_session
from perdure.runs.session_diff import diff_sessions
from perdure.runs.store import Tools
from perdure.web import replay_answers as shown
from perdure.web.auth import RunReader, RunWriter
from perdure.web.idempotency import Done, IdempotencyHeader, perform
from perdure.web.parameters import SessionId
from perdure.web.rendering import json_response
from perdure.web.schemas import Body, Text255
from perdure.web.sessions import ForUser
from perdure.web.state import address, api_of

router = APIRouter(prefix="/v1/sessions", tags=["sessions"])

_Seq = Annotated[int, Field(ge=1, le=2**31 - 1)]


class ReplaySession(Body):
    """Which messages of a session are said again, and to whom."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"agent": "support", "system_prompt": "Answer in one sentence."},
                {"agent": "support", "model": "gpt-5-mini", "from_seq": 1, "to_seq": 8},
            ]
        }
    )

    agent: Annotated[str, Field(min_length=1)]
    system_prompt: Annotated[
        str | None, Field(description="The branch's; by default the session's.")
    ] = None
    model: Annotated[
        Text255 | None,
        Field(description="The model all agents are run with, by the provider's name."),
    ] = None
    from_seq: Annotated[
        _Seq | None, Field(description="The first item's number; by default the first.")
    ] = None
    to_seq: Annotated[
        _Seq | None, Field(description="The last item's number, included; by default the last.")
    ] = None
    title: Text255 | None = None
    tools: Annotated[
        Tools,
        Field(
            description="ask: a person is asked before each call that is not of the effect read. "
            "run: as the agent does by itself."
        ),
    ] = "ask"
    context: Annotated[
        Any, Field(description="JSON given to the tools of each run; fits the context type.")
    ] = None


class DiffQuery(ForUser):
    """Beside which session, and which turns."""

    base: Annotated[
        UUID | None,
        Field(alias="with", description="The other session; by default the parent."),
    ] = None
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT
    after: Annotated[
        int | None, Field(ge=0, le=2**31 - 1, description="Go on after this turn's number.")
    ] = None


@router.post("/{id}/replay", status_code=202, response_model=shown.Replay)
async def replay(
    request: Request,
    principal: RunWriter,
    session_id: SessionId,
    body: ReplaySession,
    query: Annotated[ForUser, QueryParameters()],
    key: IdempotencyHeader = None,
) -> Response:
    """Say a session's messages of users again in a branch, as runs one after the other."""
    registry = api_of(request).registry

    async def begin(conn: Connection) -> Done:
        wanted = Replay(
            agent=body.agent,
            max_turns=registry.default_max_turns,
            context=registry.check_start(body.agent, body.context),
            model=registry.check_model(body.model),
            tools=body.tools,
            system_prompt=body.system_prompt,
            from_seq=body.from_seq,
            to_seq=body.to_seq,
            title=body.title,
        )
        made = await replay_session(
            conn,
            tenant_id=principal.tenant_id,
            session_id=session_id,
            replay=wanted,
            by=principal,
            user_id=query.user_id,
        )
        content = {"object": "replay", "session": made.session, "runs": made.runs}
        location = address(request, f"/v1/sessions/{made.session['id']}")
        return Done(202, content, {"Location": location})

    return await perform(request, principal, key, begin)


@router.get("/{id}/diff", response_model=shown.SessionDiff)
async def diff(
    request: Request,
    principal: RunReader,
    session_id: SessionId,
    query: Annotated[DiffQuery, QueryParameters()],
) -> Response:
    """Show a session beside its parent, or another of its tree, turn by turn after the fork."""
    async with api_of(request).connection() as conn:
        found = await diff_sessions(
            conn,
            tenant_id=principal.tenant_id,
            session_id=session_id,
            base_id=query.base,
            limit=query.limit,
            after=query.after,
            user_id=query.user_id,
        )
    return json_response(found)
