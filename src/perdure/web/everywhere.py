"""``/v1/events``: what happens in all runs of a tenant, as it happens, or page by page."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, ClassVar
from uuid import UUID

from fastapi import APIRouter, Header, Request
from fastapi import Query as QueryParameters
from pydantic import Field
from starlette.responses import Response

from perdure.db import Connection
from perdure.errors import InvalidRequestError
from perdure.events.cursor import LONGEST, Cursor
from perdure.events.windows import Only, kinds_named, read_window, where_it_is
from perdure.paging import DEFAULT_LIMIT, MAX_LIMIT
from perdure.web import answers, sse
from perdure.web.auth import RunReader
from perdure.web.parameters import Query
from perdure.web.rendering import json_response
from perdure.web.state import Api, api_of

router = APIRouter(prefix="/v1", tags=["runs"])


class AllEventsQuery(Query):
    """Which events, from where on, and for a list how many."""

    later: ClassVar[dict[str, str]] = {"session_id": "following a session's runs"}

    kind: Annotated[
        list[str],
        Field(
            default_factory=list,
            description="Only these kinds: `run.failed`, or all that begin alike: `interruption`. "
            "May be given again. Without it all but `model.delta`.",
        ),
    ]
    agent: Annotated[str | None, Field(description="Only runs that began with this agent.")] = None
    user_id: str | None = None
    after: Annotated[
        str | None,
        Field(max_length=LONGEST, description="Go on after this `id` of the stream, or `last_id`."),
    ] = None
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT, description="Of a list: how many at most.")] = (
        DEFAULT_LIMIT
    )

    def only(self) -> Only:
        """Return what is wanted.

        Raises:
            InvalidRequestError: a kind is none.
        """
        try:
            kinds = kinds_named(self.kind)
        except ValueError as error:
            raise InvalidRequestError.at(
                "/query/kind",
                f"{str(error)[:64]!r} is no kind of event; `model.delta` is followed a run at a "
                "time.",
            ) from None
        return Only(kinds, self.agent, self.user_id)


@router.get(
    "/events",
    response_model=answers.AllEventsList,
    responses={200: {"content": {sse.MEDIA_TYPE: {"schema": {"type": "string"}}}}},
)
async def follow_all(
    request: Request,
    principal: RunReader,
    query: Annotated[AllEventsQuery, QueryParameters()],
    accept: Annotated[str, Header(include_in_schema=False)] = "",
    last_event_id: Annotated[
        str | None,
        Header(alias="Last-Event-ID", description="The `id` of the last event one has."),
    ] = None,
) -> Response:
    """Follow all runs: server-sent events from now on, or from the `id` you name, without end.

    A position is no number but a text; who comes back with it, and with the same filters, misses
    nothing and sees nothing twice. Those of one run come in order. With `Accept: application/json`
    it is a list: without `after` an empty one, whose `last_id` is where everything is now.
    """
    api = api_of(request)
    only = query.only()
    cursor = None
    if last_event_id:
        cursor = _cursor(last_event_id, "/header/Last-Event-ID")
    elif query.after is not None:
        cursor = _cursor(query.after, "/query/after")
    async with api.connection() as conn:
        start = await where_it_is(conn, cursor)
        if sse.wants_json(accept):
            return json_response(await _list(conn, principal.tenant_id, start, only, query.limit))
    return sse.stream(request, _stream(api, principal.tenant_id, start, only))


async def _list(
    conn: Connection, tenant_id: UUID, cursor: Cursor, only: Only, limit: int
) -> dict[str, Any]:
    found = await read_window(conn, tenant_id, cursor, only=only, limit=limit)
    entries, has_more = found.entries, found.has_more
    if cursor.window is not None and not has_more:
        # That was what is left of a window; what came since is the next one.
        has_more, room = True, limit - len(entries)
        if room:
            found = await read_window(conn, tenant_id, found.cursor, only=only, limit=room)
            entries, has_more = entries + found.entries, found.has_more
    return {
        "object": "list",
        "data": [entry.event.as_object() for entry in entries],
        "first_id": entries[0].id if entries else None,
        "last_id": found.cursor.text,
        "has_more": has_more,
    }


async def _stream(
    api: Api, tenant_id: UUID, cursor: Cursor, only: Only
) -> AsyncGenerator[bytes, None]:
    yield sse.beginning(cursor.text)
    with api.hub.present():
        following = api.hub.everywhere.follow(
            tenant_id, cursor, only=only, idle_seconds=sse.HEARTBEAT_SECONDS
        )
        async with aclosing(following) as turns:
            async for turn in turns:
                for piece in sse.in_pieces(turn.entries):
                    yield piece
                if not turn.entries:
                    yield sse.position(turn.cursor.text)
                del turn


def _cursor(text: str, pointer: str) -> Cursor:
    try:
        return Cursor.parse(text)
    except ValueError:
        raise InvalidRequestError.at(
            pointer, "has to be a position as the stream or a list gave it."
        ) from None
