"""The API as a FastAPI application, to serve or to mount in one's own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from psycopg_pool import AsyncConnectionPool
from starlette.responses import HTMLResponse, Response

from perdure import __version__
from perdure.config import Settings
from perdure.db import Pool
from perdure.events import Hub
from perdure.notify import Waiters
from perdure.web import (
    agents,
    audit,
    budgets,
    carrying,
    checkpoints,
    decisions,
    deliveries,
    everywhere,
    feedback,
    forks,
    grants,
    health,
    inputs,
    interruptions,
    links,
    metrics,
    operations,
    people,
    policies,
    problems,
    replays,
    run_records,
    runs,
    search,
    session_items,
    session_state,
    sessions,
    stream,
    usage,
    user_sessions,
    webhooks,
)
from perdure.web.answers import Problem
from perdure.web.auth import Anybody, Authenticate, as_local_user, by_service_key
from perdure.web.limits import Door
from perdure.web.loopback import LoopbackOnly
from perdure.web.rendering import json_response
from perdure.web.request_ids import RequestIds
from perdure.web.state import Api, StartRules, address
from perdure.webhooks.addresses import Allowed

DEFAULT_MAX_BODY_BYTES = 1024 * 1024

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[Any]]

_PROBLEM = {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "Refused; `code` says why.", "content": _PROBLEM},
    "503": {"description": "Not available now; see `Retry-After`.", "content": _PROBLEM},
}


def create_app(
    *,
    pool: Pool | Callable[[], Pool],
    registry: StartRules,
    waiters: Waiters,
    hub: Hub | None = None,
    authenticate: Authenticate | None = None,
    loopback_only: bool = False,
    lifespan: Lifespan | None = None,
    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES,
    settings: Settings | None = None,
) -> FastAPI:
    """Return the API.

    ``pool`` is an open pool, or gives one when it is needed. ``waiters`` has to be told of its
    channels, or waits fall back to looking every few seconds, and so do those who follow a run
    where ``hub`` is not serving. ``authenticate`` recognises who asks; by default by service key,
    with ``loopback_only`` everybody is the local user and only requests of this machine's own pages
    and programs are let in. ``settings`` are those of the environment by default.

    Raises:
        ConfigurationError: a setting cannot be meant.
    """
    settings = settings or Settings.from_env()
    app = FastAPI(
        title="Perdure",
        version=__version__,
        summary="Agent runs that outlive their process.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        responses=_REFUSALS,
    )
    open_pool = (lambda: pool) if isinstance(pool, AsyncConnectionPool) else pool
    app.state.api = Api(
        pool=open_pool,
        registry=registry,
        waiters=waiters,
        hub=hub or Hub(open_pool),
        authenticate=authenticate or (as_local_user if loopback_only else by_service_key),
        settings=settings,
        allowed=Allowed.parse(settings.webhook_allow),
    )
    app.state.scrapes = metrics.Scrapes(app.state.api)
    problems.install(app)
    for module in (
        *(
            runs,
            forks,
            checkpoints,
            run_records,
            inputs,
            stream,
            everywhere,
            interruptions,
            decisions,
            grants,
            policies,
            budgets,
            links,
            webhooks,
            deliveries,
        ),
        # Before `sessions/{id}`, of which `export` would be one.
        *(carrying, sessions, session_items, session_state, replays),
        *(
            usage,
            search,
            feedback,
            operations,
            user_sessions,
            people,
            agents,
            audit,
            health,
            metrics,
        ),
    ):
        app.include_router(module.router)
    app.include_router(_descriptions())
    # The last added is the outermost.
    app.add_middleware(Door, max_body_bytes=max_body_bytes)
    if loopback_only:
        app.add_middleware(LoopbackOnly)
    app.add_middleware(RequestIds)
    return app


def _descriptions() -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/openapi.json")
    async def openapi(request: Request, principal: Anybody) -> Response:
        app: FastAPI = request.app
        if app.openapi_schema is None:
            app.openapi_schema = _openapi(app)
        # A host application may have mounted this one somewhere.
        servers = [{"url": root}] if (root := request.scope.get("root_path")) else []
        return json_response({**app.openapi_schema, "servers": servers or [{"url": "/"}]})

    @router.get("/docs")
    async def docs(request: Request, principal: Anybody) -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url=address(request, "/openapi.json"), title="Perdure API"
        )

    return router


def _openapi(app: FastAPI) -> dict[str, Any]:
    schema = get_openapi(
        title=app.title, version=app.version, summary=app.summary, routes=app.routes
    )
    refusal = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    components = schema["components"]["schemas"]
    components.update(refusal.pop("$defs", {}))
    components["Problem"] = refusal
    return schema
