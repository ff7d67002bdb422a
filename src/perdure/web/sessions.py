"""``/v1/sessions``: conversations made, read, changed, branched, deleted."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Request
from fastapi import Query as QueryParameters
from pydantic import ConfigDict, Field
from starlette.responses import Response

from perdure.db import Connection
from perdure.errors import InvalidRequestError
from perdure.runs.session_erasing import erase_conversation
from perdure.sessions import branching, erasing, store
from perdure.sessions.rules import Status
from perdure.web import answers
from perdure.web import session_answers as shown
from perdure.web.auth import RunReader, RunWriter
from perdure.web.idempotency import Done, IdempotencyHeader, perform
from perdure.web.parameters import NewestFirst, OldestFirst, Query, SessionId
from perdure.web.rendering import json_response
from perdure.web.schemas import Body, Text255
from perdure.web.state import DELETION_SECONDS, address, api_of

router = APIRouter(prefix="/v1/sessions", tags=["sessions"])

_OnlyOf = Annotated[
    Text255 | None, Field(description="Only a session of this user; another's is not found.")
]
_Rating = Annotated[int, Field(ge=1, le=5)]


class ForUser(Query):
    """On whose behalf."""

    user_id: _OnlyOf = None


class SessionsQuery(NewestFirst):
    """Which sessions, and which page of them."""

    user_id: Text255 | None = None
    group_id: Text255 | None = None
    status: Status | None = None
    parent: Annotated[UUID | None, Field(description="Branches of this session.")] = None
    tag: Annotated[list[str], Field(description="Given more than once: those that have all.")] = (
        Field(default_factory=list)
    )
    include: list[Literal["total_count"]] = Field(default_factory=list)

    def only(self) -> store.SessionFilter:
        """Return the filter as the store takes it."""
        return store.SessionFilter(
            user_id=self.user_id,
            group_id=self.group_id,
            status=self.status,
            parent=self.parent,
            tags=self.tag,
        )


class TreeQuery(OldestFirst):
    """Which page of a tree."""

    user_id: _OnlyOf = None


class DeletionQuery(ForUser):
    """How much goes."""

    hard: Annotated[bool, Field(description="Erase it for good, with all its items.")] = False
    cascade: Annotated[bool, Field(description="With hard: its branches too.")] = False


class ChangeSession(Body):
    """What is to change of a session; what is left out stays, what is null is taken away."""

    title: Text255 | None = None
    system_prompt: str | None = None
    group_id: Text255 | None = None
    tags: list[str] = Field(default_factory=list)
    metadata: dict[str, Any] = Field(default_factory=dict)
    rating: _Rating | None = None
    status: Status = "active"

    def given(self) -> dict[str, Any]:
        """Return what was sent."""
        return self.model_dump(exclude_unset=True)


class MakeSession(ChangeSession):
    """A session to find by its key and user, or to make."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"key": "conversation_123", "user_id": "alice", "tags": ["billing"]},
                {"user_id": "alice", "system_prompt": "Answer in one sentence."},
            ]
        }
    )

    key: Annotated[
        Text255 | None, Field(description="Your name for it: one session per user and key.")
    ] = None
    session_key: Annotated[Text255 | None, Field(description="The same as key.")] = None
    user_id: Text255 | None = None

    def fields(self) -> store.SessionFields:
        """Return it as the store takes it."""
        if None not in (self.key, self.session_key) and self.key != self.session_key:
            raise InvalidRequestError.at("/session_key", "is another name for key; give one.")
        given = self.given()
        given.pop("session_key", None)
        return store.SessionFields(**{**given, "key": self.key or self.session_key})


class Branch(Body):
    """Where a branch goes on from, and how."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"from_seq": 4, "system_prompt": "Be brief."}, {}]}
    )

    from_seq: Annotated[
        int | None,
        Field(ge=0, le=2**31 - 1, description="The last number it reads; by default all of it."),
    ] = None
    title: Text255 | None = None
    system_prompt: str | None = None


@router.post("", status_code=201, response_model=shown.Session)
async def make_session(
    request: Request, principal: RunWriter, body: MakeSession, key: IdempotencyHeader = None
) -> Response:
    """Make a session. One that is there by its key and user is found as it is: 200."""

    async def make(conn: Connection) -> Done:
        session, made = await store.find_or_make(
            conn, tenant_id=principal.tenant_id, fields=body.fields(), by=principal
        )
        location = address(request, f"/v1/sessions/{session['id']}")
        return Done(201 if made else 200, session, {"Location": location})

    return await perform(request, principal, key, make)


@router.get("", response_model=shown.SessionList, response_model_exclude_unset=True)
async def list_sessions(
    request: Request, principal: RunReader, query: Annotated[SessionsQuery, QueryParameters()]
) -> Response:
    """List sessions."""
    only = query.only()
    async with api_of(request).connection() as conn:
        page = await store.list_sessions(
            conn, tenant_id=principal.tenant_id, only=only, page=query.page()
        )
        answer = page.as_dict()
        if query.include:
            answer["total_count"] = await store.count_sessions(
                conn, tenant_id=principal.tenant_id, only=only
            )
    return json_response(answer)


@router.get("/{id}", response_model=shown.Session)
async def get_session(
    request: Request,
    principal: RunReader,
    session_id: SessionId,
    query: Annotated[ForUser, QueryParameters()],
) -> Response:
    """Read a session."""
    async with api_of(request).connection() as conn:
        session = await store.get_session(
            conn, tenant_id=principal.tenant_id, session_id=session_id, user_id=query.user_id
        )
    return json_response(session)


@router.patch("/{id}", response_model=shown.Session)
async def change_session(
    request: Request,
    principal: RunWriter,
    session_id: SessionId,
    body: ChangeSession,
    query: Annotated[ForUser, QueryParameters()],
) -> Response:
    """Change what is said of a session. A title that is taken away is made anew."""
    async with api_of(request).connection() as conn:
        session = await store.change_session(
            conn,
            tenant_id=principal.tenant_id,
            session_id=session_id,
            changes=body.given(),
            by=principal,
            user_id=query.user_id,
        )
    return json_response(session)


@router.delete("/{id}", status_code=204)
async def delete_session(
    request: Request,
    principal: RunWriter,
    session_id: SessionId,
    query: Annotated[DeletionQuery, QueryParameters()],
) -> Response:
    """Delete a session, so that it is seen no more; branches of it stay as they are.

    With `hard` it is erased with its runs, deleted before or not. While branches of it live that
    is refused (409), unless `cascade` says that they go too, and while a run of it is under way.
    """
    if query.cascade and not query.hard:
        raise InvalidRequestError.at("/query/cascade", "belongs to hard=true.")
    whose: dict[str, Any] = {
        "tenant_id": principal.tenant_id,
        "session_id": session_id,
        "user_id": query.user_id,
    }
    async with api_of(request).connection(DELETION_SECONDS) as conn:
        if query.hard:
            await erase_conversation(conn, **whose, by=principal, cascade=query.cascade)
        else:
            await erasing.delete_session(conn, **whose, by=principal)
    return Response(status_code=204)


@router.post("/{id}/branch", status_code=201, response_model=shown.Session)
async def branch_session(
    request: Request,
    principal: RunWriter,
    session_id: SessionId,
    query: Annotated[ForUser, QueryParameters()],
    body: Branch | None = None,
    key: IdempotencyHeader = None,
) -> Response:
    """Make a session that reads this one up to an item and goes on by itself from there."""
    wanted = body or Branch()

    async def branch(conn: Connection) -> Done:
        made = await branching.branch_session(
            conn,
            tenant_id=principal.tenant_id,
            session_id=session_id,
            by=principal,
            from_seq=wanted.from_seq,
            title=wanted.title,
            system_prompt=wanted.system_prompt,
            user_id=query.user_id,
        )
        return Done(201, made, {"Location": address(request, f"/v1/sessions/{made['id']}")})

    return await perform(request, principal, key, branch)


@router.get("/{id}/tree", response_model=answers.List[shown.Session])
async def list_tree(
    request: Request,
    principal: RunReader,
    session_id: SessionId,
    query: Annotated[TreeQuery, QueryParameters()],
) -> Response:
    """List the whole tree a session stands in, from its root; deleted ones are left out."""
    async with api_of(request).connection() as conn:
        page = await branching.list_tree(
            conn,
            tenant_id=principal.tenant_id,
            session_id=session_id,
            page=query.page(),
            user_id=query.user_id,
        )
    return json_response(page.as_dict())
