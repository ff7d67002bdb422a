"""``/v1/feedback``: what people think of runs and of what was said."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Request
from fastapi import Query as QueryParameters
from pydantic import AwareDatetime, ConfigDict, Field
from starlette.responses import Response

from perdure.db import Connection
from perdure.feedback import store
from perdure.feedback.store import MAX_COMMENT, FeedbackType, GroupBy
from perdure.web import answers
from perdure.web import feedback_answers as shown
from perdure.web.auth import RunReader, RunWriter
from perdure.web.idempotency import Done, IdempotencyHeader, perform
from perdure.web.parameters import FeedbackId, NewestFirst, Query
from perdure.web.rendering import json_response
from perdure.web.schemas import Body, Text255
from perdure.web.state import address, api_of

router = APIRouter(prefix="/v1/feedback", tags=["feedback"])

_OnlyOf = Annotated[
    Text255 | None, Field(description="Only feedback of this user; another's is not found.")
]
_Rating = Annotated[int, Field(ge=1, le=5)]
_GROUPS: list[GroupBy] = ["agent", "version"]


class ForUser(Query):
    """On whose behalf."""

    user_id: _OnlyOf = None


class FeedbackQuery(NewestFirst):
    """Which feedback, and which page of it."""

    run_id: Annotated[UUID | None, Field(description="On this run, or what it said.")] = None
    item_id: UUID | None = None
    session_id: Annotated[UUID | None, Field(description="On its items and runs.")] = None
    user_id: Text255 | None = None
    type: FeedbackType | None = None
    agent: str | None = None
    agent_version: str | None = None
    min_rating: _Rating | None = None
    max_rating: _Rating | None = None
    liked: bool | None = None
    created_after: AwareDatetime | None = None
    created_before: AwareDatetime | None = None

    def only(self) -> store.FeedbackFilter:
        """Return the filter as the store takes it."""
        return store.FeedbackFilter(
            **{name: getattr(self, name) for name in store.FeedbackFilter.__slots__}
        )


class SummaryQuery(ForUser):
    """Of which feedback, and in which groups."""

    group_by: Annotated[
        list[GroupBy], Field(description="Given more than once: groups of all of them.")
    ] = Field(default_factory=lambda: list(_GROUPS))
    agent: str | None = None
    since: Annotated[
        AwareDatetime | None, Field(alias="from", description="Given at this moment or later.")
    ] = None
    until: Annotated[
        AwareDatetime | None, Field(alias="to", description="Given before this moment.")
    ] = None


class GiveFeedback(Body):
    """What somebody thinks of a run, or of an item of a session or a run."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "run_id": "01900000-0000-7000-8000-000000000001",
                    "rating": 4,
                    "type": "accuracy",
                    "comment": "The date was wrong.",
                    "user_id": "alice",
                },
                {"item_id": "01900000-0000-7000-8000-000000000002", "liked": True},
            ]
        }
    )

    run_id: Annotated[
        UUID | None, Field(strict=False, description="What it is on; this, or item_id.")
    ] = None
    item_id: Annotated[UUID | None, Field(strict=False)] = None
    rating: Annotated[_Rating | None, Field(description="From 1 (worst) to 5; this, or liked.")] = (
        None
    )
    liked: bool | None = None
    type: FeedbackType = "other"
    comment: Annotated[str | None, Field(max_length=MAX_COMMENT)] = None
    user_id: Annotated[
        Text255 | None,
        Field(description="Who thinks so; another user's run or item is not found then."),
    ] = None

    def new(self) -> store.NewFeedback:
        """Return it as the store takes it."""
        return store.NewFeedback(**self.model_dump())


@router.post("", status_code=201, response_model=shown.Feedback)
async def give_feedback(
    request: Request, principal: RunWriter, body: GiveFeedback, key: IdempotencyHeader = None
) -> Response:
    """Say what somebody thinks of a run or an item.

    Said again by the same user with the same type it replaces what was said before: 200.
    """
    new = body.new()

    async def give(conn: Connection) -> Done:
        given, made = await store.give_feedback(conn, tenant_id=principal.tenant_id, new=new)
        location = address(request, f"/v1/feedback/{given['id']}")
        return Done(201 if made else 200, given, {"Location": location})

    return await perform(request, principal, key, give)


@router.get("", response_model=answers.List[shown.Feedback])
async def list_feedback(
    request: Request, principal: RunReader, query: Annotated[FeedbackQuery, QueryParameters()]
) -> Response:
    """List feedback."""
    async with api_of(request).connection() as conn:
        page = await store.list_feedback(
            conn, tenant_id=principal.tenant_id, only=query.only(), page=query.page()
        )
    return json_response(page.as_dict())


@router.get("/summary", response_model=shown.FeedbackSummaries, response_model_exclude_unset=True)
async def summarize(
    request: Request, principal: RunReader, query: Annotated[SummaryQuery, QueryParameters()]
) -> Response:
    """Sum feedback up: how many, the average rating, likes and dislikes, per agent and version."""
    async with api_of(request).connection() as conn:
        groups = await store.summarize(
            conn,
            tenant_id=principal.tenant_id,
            group_by=query.group_by,
            agent=query.agent,
            user_id=query.user_id,
            since=query.since,
            until=query.until,
        )
    return json_response({"object": "list", "data": list(groups.data), "has_more": groups.has_more})


@router.get("/{id}", response_model=shown.Feedback)
async def get_feedback(
    request: Request,
    principal: RunReader,
    feedback_id: FeedbackId,
    query: Annotated[ForUser, QueryParameters()],
) -> Response:
    """Read one feedback."""
    async with api_of(request).connection() as conn:
        one = await store.get_feedback(
            conn, tenant_id=principal.tenant_id, feedback_id=feedback_id, user_id=query.user_id
        )
    return json_response(one)


@router.delete("/{id}", status_code=204)
async def delete_feedback(
    request: Request,
    principal: RunWriter,
    feedback_id: FeedbackId,
    query: Annotated[ForUser, QueryParameters()],
) -> Response:
    """Delete one feedback."""
    async with api_of(request).connection() as conn:
        await store.delete_feedback(
            conn, tenant_id=principal.tenant_id, feedback_id=feedback_id, user_id=query.user_id
        )
    return Response(status_code=204)
