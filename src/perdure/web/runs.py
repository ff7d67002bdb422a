"""``/v1/runs``: start, read, wait for, cancel, resume, delete."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Request
from fastapi import Query as QueryParameters
from pydantic import AwareDatetime, Field
from starlette.responses import Response

from perdure.db import Connection
from perdure.runs import resume, store
from perdure.runs.in_session import start_in_session
from perdure.runs.traces.run import called_by
from perdure.web import answers
from perdure.web.auth import RunReader, RunWriter
from perdure.web.idempotency import Done, IdempotencyHeader, perform
from perdure.web.parameters import (
    MAX_WAIT_SECONDS,
    MetadataHeld,
    NewestFirst,
    Query,
    RunId,
)
from perdure.web.rendering import json_response
from perdure.web.schemas import Nothing, StartRun
from perdure.web.state import DELETION_SECONDS, address, api_of

router = APIRouter(prefix="/v1/runs", tags=["runs"])


class RunsQuery(NewestFirst):
    """Which runs, and which page of them."""

    status: answers.RunStatus | None = None
    agent: str | None = None
    user_id: str | None = None
    session_id: UUID | None = None
    task: str | None = None
    forked_from: UUID | None = None
    metadata: MetadataHeld | None = None
    created_after: AwareDatetime | None = None
    created_before: AwareDatetime | None = None

    def only(self) -> store.RunFilter:
        """Return the filter as the store takes it."""
        return store.RunFilter(
            status=self.status,
            agent=self.agent,
            user_id=self.user_id,
            session_id=self.session_id,
            task=self.task,
            forked_from=self.forked_from,
            metadata=self.metadata,
            created_after=self.created_after,
            created_before=self.created_before,
        )


class RunQuery(Query):
    """How long to wait."""

    wait: Annotated[
        float,
        Field(
            ge=0,
            le=MAX_WAIT_SECONDS,
            allow_inf_nan=False,
            description="Answer when the run rests or ends, or after so many seconds.",
        ),
    ] = 0


@router.post("", status_code=202, response_model=answers.Run)
async def start_run(
    request: Request, principal: RunWriter, body: StartRun, key: IdempotencyHeader = None
) -> Response:
    """Start a run. It is accepted when the answer comes, and reaches its end whatever dies."""
    api = api_of(request)

    async def start(conn: Connection) -> Done:
        new = store.NewRun(
            tenant_id=principal.tenant_id,
            agent=body.agent,
            input=body.input,
            context=api.registry.check_start(body.agent, body.context),
            user_id=body.user_id,
            metadata=body.metadata or {},
            task=api.registry.check_task(body.task),
            max_turns=body.max_turns or api.registry.default_max_turns,
            model=api.registry.check_model(body.model),
            budget=None if body.budget is None else body.budget.limits("/budget"),
            priority=body.priority,
            delay_seconds=body.delay_seconds,
            started_by=principal.as_requester(),
        )
        session = body.in_session()
        if session is None:
            run_id = await store.start_run(conn, new)
        else:
            run_id = await start_in_session(conn, new, session, principal)
        run = await store.get_run(conn, tenant_id=principal.tenant_id, run_id=run_id)
        return Done(202, run, {"Location": address(request, f"/v1/runs/{run_id}")})

    with called_by(request.headers):
        return await perform(request, principal, key, start)


@router.get("", response_model=answers.List[answers.Run])
async def list_runs(
    request: Request, principal: RunReader, query: Annotated[RunsQuery, QueryParameters()]
) -> Response:
    """List runs."""
    async with api_of(request).connection() as conn:
        page = await store.list_runs(
            conn, tenant_id=principal.tenant_id, only=query.only(), page=query.page()
        )
    return json_response(page.as_dict())


@router.get("/{id}", response_model=answers.Run)
async def get_run(
    request: Request,
    principal: RunReader,
    run_id: RunId,
    query: Annotated[RunQuery, QueryParameters()],
) -> Response:
    """Read a run, at once or when it rests."""
    api = api_of(request)

    async def rests() -> dict[str, Any] | None:
        async with api.connection() as conn:
            return await store.run_at_rest(conn, tenant_id=principal.tenant_id, run_id=run_id)

    run = None
    if query.wait:
        run = await api.waiters.until(str(run_id), rests, seconds=query.wait)
    if run is None:
        async with api.connection() as conn:
            run = await store.get_run(conn, tenant_id=principal.tenant_id, run_id=run_id)
    return json_response(run)


@router.post("/{id}/cancel", status_code=202, response_model=answers.Run)
async def cancel_run(
    request: Request,
    principal: RunWriter,
    run_id: RunId,
    body: Nothing | None = None,
    key: IdempotencyHeader = None,
) -> Response:
    """Cancel a run: at once where it rests, else as soon as its worker has stopped it."""

    async def cancel(conn: Connection) -> Done:
        new = await resume.cancel(conn, tenant_id=principal.tenant_id, run_id=run_id, by=principal)
        run = await store.get_run(conn, tenant_id=principal.tenant_id, run_id=run_id)
        return Done(202 if new else 200, run)

    return await perform(request, principal, key, cancel)


@router.post("/{id}/resume", status_code=202, response_model=answers.Run)
async def resume_run(
    request: Request,
    principal: RunWriter,
    run_id: RunId,
    body: Nothing | None = None,
    key: IdempotencyHeader = None,
) -> Response:
    """Run a failed run again from its latest state. What was recorded since then stands."""

    async def retry(conn: Connection) -> Done:
        await resume.retry(conn, tenant_id=principal.tenant_id, run_id=run_id)
        run = await store.get_run(conn, tenant_id=principal.tenant_id, run_id=run_id)
        return Done(202, run)

    return await perform(request, principal, key, retry)


@router.delete("/{id}", status_code=204)
async def delete_run(request: Request, principal: RunWriter, run_id: RunId) -> Response:
    """Delete a finished run and all it left."""
    async with api_of(request).connection(DELETION_SECONDS) as conn:
        await store.delete_run(conn, tenant_id=principal.tenant_id, run_id=run_id, by=principal)
    return Response(status_code=204)
