"""``/v1/agents``: the agents of the deployment, what they are defined by, and their versions.

They are code, and code has no tenant: whoever may read runs reads them all. A name may have slashes
in it: what ends like a longer path is that path where there is such an agent, else a name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi import Query as QueryParameters
from pydantic import Field
from starlette.responses import Response

from perdure.catalogue import pruning, reading
from perdure.db import Connection
from perdure.errors import NotFoundError
from perdure.web import answers
from perdure.web.agent_answers import (
    Agent,
    AgentDiff,
    AgentPrune,
    AgentVersion,
    AgentVersionSummary,
    AgentWhole,
)
from perdure.web.auth import Admin, RunReader
from perdure.web.idempotency import Done, IdempotencyHeader, perform
from perdure.web.parameters import NewestFirst, Query
from perdure.web.rendering import json_response
from perdure.web.schemas import Body
from perdure.web.state import api_of

router = APIRouter(prefix="/v1/agents", tags=["agents"])

_Name = Annotated[str, Path(description="An agent's name; slashes in it stay as they are.")]
_Version = Annotated[str, Path(description="12 hex digits: the `agent_version` of a run.")]
_VersionText = Annotated[str | None, Field(max_length=64)]


class AgentsQuery(NewestFirst):
    """Which agents, and which page of them."""

    deleted: Annotated[bool, Field(description="Also those that are in no build any more.")] = False


class DiffQuery(Query):
    """Which versions: by default the current one, and the one before it."""

    from_: Annotated[_VersionText, Field(alias="from")] = None
    to: _VersionText = None


class Prune(Body):
    """What to do about what nobody uses."""

    dry_run: Annotated[bool, Field(description="Only say what would be removed.")] = False


@router.get("", response_model=answers.List[Agent])
async def list_agents(
    request: Request, principal: RunReader, query: Annotated[AgentsQuery, QueryParameters()]
) -> Response:
    """List agents: those engines were given, and all they can reach."""
    async with api_of(request).connection() as conn:
        page = await reading.list_agents(conn, page=query.page(), deleted=query.deleted)
    return json_response(page.as_dict())


@router.post("/prune", response_model=AgentPrune)
async def prune_agents(
    request: Request, principal: Admin, body: Prune, key: IdempotencyHeader = None
) -> Response:
    """Remove versions no run uses that are not current, and what is left without one.

    The catalogue is of the deployment: what a run of any tenant uses stays.
    """

    async def remove(conn: Connection) -> Done:
        return Done(200, await pruning.prune(conn, dry_run=body.dry_run))

    return await perform(request, principal, key, remove)


@router.get("/{name:path}/versions", response_model=answers.List[AgentVersionSummary])
async def list_agent_versions(
    request: Request,
    principal: RunReader,
    name: _Name,
    query: Annotated[NewestFirst, QueryParameters()],
) -> Response:
    """List an agent's versions, by when an engine first came with them."""

    async def read(conn: Connection) -> dict[str, Any]:
        return (await reading.list_versions(conn, name, page=query.page())).as_dict()

    return await _read(request, read, or_agent=f"{name}/versions")


@router.get("/{name:path}/versions/{version}", response_model=AgentVersion)
async def get_agent_version(
    request: Request, principal: RunReader, name: _Name, version: _Version
) -> Response:
    """Read a version of an agent whole: what a run with this `agent_version` was begun with."""
    return await _read(
        request,
        lambda conn: reading.get_version(conn, name, version),
        or_agent=f"{name}/versions/{version}",
    )


@router.get("/{name:path}/diff", response_model=AgentDiff)
async def compare_agent_versions(
    request: Request,
    principal: RunReader,
    name: _Name,
    query: Annotated[DiffQuery, QueryParameters()],
) -> Response:
    """Compare two versions of an agent: its own definition, and which agents it reaches differ."""
    return await _read(
        request,
        lambda conn: reading.compare_versions(conn, name, since=query.from_, to=query.to),
        or_agent=f"{name}/diff",
    )


@router.get("/{name:path}", response_model=AgentWhole)
async def get_agent(request: Request, principal: RunReader, name: _Name) -> Response:
    """Read an agent: its current definition whole, and its latest versions."""
    return await _read(request, lambda conn: reading.get_agent(conn, name))


async def _read(
    request: Request,
    read: Callable[[Connection], Awaitable[dict[str, Any]]],
    or_agent: str | None = None,
) -> Response:
    async with api_of(request).connection() as conn:
        try:
            return json_response(await read(conn))
        except NotFoundError:
            if or_agent is None:
                raise
            try:
                return json_response(await reading.get_agent(conn, or_agent))
            except NotFoundError:
                pass
            raise
