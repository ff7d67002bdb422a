"""Whether the server lives, and whether it can work. Both answer without a key."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from perdure.migrate import read_status
from perdure.web.answers import Health
from perdure.web.problems import unavailable
from perdure.web.rendering import json_response
from perdure.web.state import api_of

router = APIRouter(tags=["health"])


@router.get("/healthz", response_model=Health)
async def healthz() -> Response:
    """Answer while the process serves; asks nobody else."""
    return json_response({"status": "ok"})


@router.get("/readyz", response_model=Health)
async def readyz(request: Request) -> Response:
    """Answer whether the database is there and migrated for this build."""
    async with api_of(request).connection() as conn:
        status = await read_status(conn)
    if status.problem:
        return unavailable(status.problem, retry_after=10)
    if status.pending:
        return unavailable("The database is not migrated. Run `perdure migrate`.", retry_after=10)
    return json_response({"status": "ok"})
