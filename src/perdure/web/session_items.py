"""``/v1/sessions/{id}/items``: what is said in a conversation."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi import Query as QueryParameters
from pydantic import ConfigDict, Field, WithJsonSchema
from starlette.responses import Response

from perdure.db import Connection
from perdure.paging import Page
from perdure.sessions import items, reading, removing, store
from perdure.sessions.given import read_items
from perdure.web import answers
from perdure.web import session_answers as shown
from perdure.web.auth import RunReader, RunWriter
from perdure.web.idempotency import Done, IdempotencyHeader, perform
from perdure.web.parameters import ItemId, OldestFirst, SessionId
from perdure.web.rendering import json_response
from perdure.web.schemas import Body, Text255
from perdure.web.sessions import ForUser
from perdure.web.state import api_of

router = APIRouter(prefix="/v1/sessions/{id}/items", tags=["sessions"])

_ITEMS = {
    "type": "array",
    "items": {"type": "object"},
    "maxItems": 1000,
    "description": "Responses items, or objects with `item` and beside it what is known of it: "
    "`sender`, `agent`, `user_id`, `token_count`, `metadata`.",
}


class ItemsQuery(OldestFirst):
    """Which page of the items."""

    user_id: Annotated[
        Text255 | None, Field(description="Only a session of this user; another's is not found.")
    ] = None


class Items(Body):
    """Items to append, or to put in the place of what is there."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"items": [{"role": "user", "content": "Where is order 42?"}]},
                {
                    "items": [
                        {
                            "item": {"role": "assistant", "content": "It left on Monday."},
                            "token_count": 7,
                            "metadata": {"sources": ["orders/42"]},
                        }
                    ]
                },
            ]
        }
    )

    items: Annotated[
        Any,
        # Checked by the rules: they name the place within the items.
        WithJsonSchema(_ITEMS),
    ]


@router.get("", response_model=answers.List[shown.SessionItem])
async def list_items(
    request: Request,
    principal: RunReader,
    session_id: SessionId,
    query: Annotated[ItemsQuery, QueryParameters()],
) -> Response:
    """List the items of a session, with those of its ancestors up to the fork, in order."""
    whose: dict[str, Any] = {
        "tenant_id": principal.tenant_id,
        "session_id": session_id,
        "user_id": query.user_id,
    }
    async with api_of(request).connection() as conn:
        await store.get_session(conn, **whose)
        page = await reading.list_items(conn, **whose, page=query.page())
    return json_response(page.as_dict())


@router.post("", status_code=201, response_model=answers.List[shown.SessionItem])
async def add_items(
    request: Request,
    principal: RunWriter,
    session_id: SessionId,
    body: Items,
    query: Annotated[ForUser, QueryParameters()],
    key: IdempotencyHeader = None,
) -> Response:
    """Append items, all or none; they come back with their numbers."""
    new = read_items(body.items)

    async def add(conn: Connection) -> Done:
        added = await items.append(
            conn,
            tenant_id=principal.tenant_id,
            session_id=session_id,
            items=new,
            by=principal,
            user_id=query.user_id,
        )
        return Done(201, _all(added))

    return await perform(request, principal, key, add)


@router.put("", response_model=answers.List[shown.SessionItem])
async def replace_items(
    request: Request,
    principal: RunWriter,
    session_id: SessionId,
    body: Items,
    query: Annotated[ForUser, QueryParameters()],
) -> Response:
    """Put items in the place of all there are. Branches go on reading what they read."""
    new = read_items(body.items, least=0)

    async def replace(conn: Connection) -> Done:
        there = await removing.replace(
            conn,
            tenant_id=principal.tenant_id,
            session_id=session_id,
            items=new,
            by=principal,
            user_id=query.user_id,
        )
        return Done(200, _all(there))

    return await perform(request, principal, None, replace)


@router.get("/{item_id}", response_model=shown.SessionItem)
async def get_item(
    request: Request,
    principal: RunReader,
    session_id: SessionId,
    item_id: ItemId,
    query: Annotated[ForUser, QueryParameters()],
) -> Response:
    """Read one item."""
    async with api_of(request).connection() as conn:
        item = await reading.get_item(
            conn,
            tenant_id=principal.tenant_id,
            session_id=session_id,
            item_id=item_id,
            user_id=query.user_id,
        )
    return json_response(item)


@router.delete("/{item_id}", status_code=204)
async def delete_item(
    request: Request,
    principal: RunWriter,
    session_id: SessionId,
    item_id: ItemId,
    query: Annotated[ForUser, QueryParameters()],
) -> Response:
    """Remove one item from this session; its branches, and its ancestors, keep it."""
    async with api_of(request).connection() as conn:
        await removing.remove_item(
            conn,
            tenant_id=principal.tenant_id,
            session_id=session_id,
            item_id=item_id,
            by=principal,
            user_id=query.user_id,
        )
    return Response(status_code=204)


def _all(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return Page(rows, has_more=False).as_dict()
