"""``/v1/user_sessions``: tokens for people's browsers, made by the application's backend."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Request
from fastapi import Query as QueryParameters
from pydantic import AwareDatetime, ConfigDict, Field
from starlette.responses import Response

from perdure.access import user_sessions as store
from perdure.access.principals import Principal, Role
from perdure.db import Connection
from perdure.errors import NotFoundError
from perdure.sessions.rules import check_name
from perdure.web import answers
from perdure.web.auth import Anybody, RunReader, RunWriter
from perdure.web.idempotency import Done, IdempotencyHeader, perform
from perdure.web.parameters import NewestFirst, Query, UserSessionId
from perdure.web.rendering import json_response
from perdure.web.schemas import Body, Text255
from perdure.web.state import address, api_of

router = APIRouter(prefix="/v1/user_sessions", tags=["user sessions"])


class UserSession(answers.Answer):
    """A token of a user's browser: everything but the token."""

    id: UUID
    object: Literal["user_session"]
    user_id: str
    active: Annotated[bool, Field(description="Neither revoked nor expired.")]
    hint: str
    label: str | None
    metadata: dict[str, Any]
    created_by: answers.By
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None
    revoked_by: answers.By | None


class NewUserSession(UserSession):
    """A token just made."""

    token: Annotated[
        str | None,
        Field(description="Shown now and never again; null where this answer is replayed."),
    ]


class Revocation(answers.Answer):
    """What was revoked of a user."""

    object: Literal["user_session_revocation"]
    user_id: str
    revoked_count: int


class MakeUserSession(Body):
    """Whose token, and for how long."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"user_id": "alice", "expires_in_seconds": 3600}]}
    )

    user_id: Text255
    expires_in_seconds: Annotated[
        int | None, Field(description="By default a day; 90 days at most.")
    ] = None
    expires_at: Annotated[AwareDatetime | None, Field(strict=False)] = None
    label: Annotated[Text255 | None, Field(description="A device, say.")] = None
    metadata: dict[str, Any] = Field(default_factory=dict)

    def new(self) -> store.NewUserSession:
        """Return it as the store takes it."""
        check_name(self.user_id, "/user_id")
        return store.NewUserSession(**self.model_dump())


class UserSessionsQuery(NewestFirst):
    """Which tokens, and which page of them."""

    user_id: Text255 | None = None
    active: bool | None = None


class OfUser(Query):
    """Whose."""

    user_id: Text255


@router.post("", status_code=201, response_model=NewUserSession)
async def create_user_session(
    request: Request, principal: RunWriter, body: MakeUserSession, key: IdempotencyHeader = None
) -> Response:
    """Make a token by which a user's browser acts as that user. It is shown in this answer alone.

    Where the tenant has one at a time, the user's other one is revoked with that.
    """
    # What the token may do, who makes it has to.
    principal.require(Role.RUNS_READ)
    new = body.new()
    tokens: list[str] = []

    async def create(conn: Connection) -> Done:
        made, token = await store.create_user_session(
            conn, new, tenant_id=principal.tenant_id, by=principal
        )
        tokens.append(token)
        location = address(request, f"/v1/user_sessions/{made['id']}")
        return Done(201, {**made, "token": None}, {"Location": location})

    response = await perform(request, principal, key, create)
    if not tokens:
        return response
    # Not part of what is kept for who asks again: it is kept nowhere.
    content = {**json.loads(bytes(response.body)), "token": tokens[-1]}
    headers = {k: v for k, v in response.headers.items() if k != "content-length"}
    return json_response(content, response.status_code, headers)


@router.get("", response_model=answers.List[UserSession])
async def list_user_sessions(
    request: Request, principal: RunReader, query: Annotated[UserSessionsQuery, QueryParameters()]
) -> Response:
    """List tokens, of which the tokens themselves are not kept."""
    async with api_of(request).connection() as conn:
        page = await store.list_user_sessions(
            conn,
            tenant_id=principal.tenant_id,
            page=query.page(),
            user_id=query.user_id,
            active=query.active,
        )
    return json_response(page.as_dict())


@router.delete("", response_model=Revocation)
async def revoke_all(
    request: Request, principal: RunWriter, query: Annotated[OfUser, QueryParameters()]
) -> Response:
    """Revoke all tokens of a user."""
    async with api_of(request).connection() as conn:
        count = await store.revoke_user_sessions(
            conn, tenant_id=principal.tenant_id, user_id=query.user_id, by=principal
        )
    return json_response(
        {
            "object": "user_session_revocation",
            "user_id": query.user_id,
            "revoked_count": count,
        }
    )


@router.get("/current", response_model=UserSession)
async def get_current(request: Request, principal: Anybody) -> Response:
    """Read about the token this is asked with."""
    async with api_of(request).connection() as conn:
        one = await store.get_user_session(conn, tenant_id=principal.tenant_id, id=_own(principal))
    return json_response(one)


@router.delete("/current", response_model=UserSession)
async def revoke_current(request: Request, principal: Anybody) -> Response:
    """Revoke the token this is asked with: sign out."""
    async with api_of(request).connection() as conn:
        one = await store.revoke_user_session(
            conn, tenant_id=principal.tenant_id, id=_own(principal), by=principal
        )
    return json_response(one)


@router.get("/{id}", response_model=UserSession)
async def get_user_session(
    request: Request, principal: RunReader, user_session_id: UserSessionId
) -> Response:
    """Read about a token."""
    async with api_of(request).connection() as conn:
        one = await store.get_user_session(conn, tenant_id=principal.tenant_id, id=user_session_id)
    return json_response(one)


@router.delete("/{id}", response_model=UserSession)
async def revoke_user_session(
    request: Request, principal: RunWriter, user_session_id: UserSessionId
) -> Response:
    """Revoke a token: it is worthless from now on."""
    async with api_of(request).connection() as conn:
        one = await store.revoke_user_session(
            conn, tenant_id=principal.tenant_id, id=user_session_id, by=principal
        )
    return json_response(one)


def _own(principal: Principal) -> UUID:
    if principal.type != "user_session" or principal.id is None:
        raise NotFoundError("user session", "current")
    return UUID(principal.id)
