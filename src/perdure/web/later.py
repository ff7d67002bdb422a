"""Calls of the contract that this build does not keep yet: they say so."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from perdure.web.auth import Anybody
from perdure.web.problems import problem

router = APIRouter(include_in_schema=False)


@router.api_route("/v1/runs/{id}/fork", methods=["POST"])
async def not_supported(request: Request, principal: Anybody) -> Response:
    """Say that this call comes later."""
    return problem(
        "not_supported",
        f"{request.method} {request.url.path} is not supported by this build yet.",
        status=404,
    )
