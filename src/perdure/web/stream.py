"""``/v1/runs/{id}/events``: what happens in a run, as it happens, or page by page."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Request
from fastapi import Query as QueryParameters
from fastapi.sse import EventSourceResponse, format_sse_event
from pydantic import Field
from starlette.responses import Response

from perdure.errors import InvalidRequestError
from perdure.events import Event, EventPage, Look, follow, read_events
from perdure.paging import DEFAULT_LIMIT, MAX_LIMIT, Page
from perdure.web import answers
from perdure.web.auth import RunReader
from perdure.web.parameters import Query, RunId
from perdure.web.rendering import json_response
from perdure.web.state import Api, api_of

router = APIRouter(prefix="/v1/runs", tags=["runs"])

HEARTBEAT_SECONDS = 15.0
"""How long a stream is silent at most: what stands between may close one that says nothing."""
_RETRY_MS = 1000
_SSE = "text/event-stream"
_LAST = 2**31 - 1


class EventsQuery(Query):
    """From where on, and for a list how many."""

    after: Annotated[
        int | None, Field(ge=0, le=_LAST, description="Go on after the event of this number.")
    ] = None
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT, description="Of a list: how many at most.")] = (
        DEFAULT_LIMIT
    )


@router.get(
    "/{id}/events",
    response_model=answers.EventList,
    responses={
        200: {"content": {_SSE: {"schema": {"type": "string"}}}},
        204: {"description": "The run has ended, and its last event is the one you have."},
    },
)
async def follow_run(
    request: Request,
    principal: RunReader,
    run_id: RunId,
    query: Annotated[EventsQuery, QueryParameters()],
    accept: Annotated[str, Header(include_in_schema=False)] = "",
    last_event_id: Annotated[
        str | None,
        Header(alias="Last-Event-ID", description="The number of the last event one has."),
    ] = None,
) -> Response:
    """Follow a run: server-sent events from its first one, or the one you name, to its end.

    Each has the event's number as `id`, so a reader that comes back with `Last-Event-ID` misses
    none and sees none twice. The stream ends after the event that ended the run; a failed run that
    is resumed is followed on from there. With `Accept: application/json` it is a list.
    """
    api = api_of(request)

    async def look(number: int, limit: int = MAX_LIMIT) -> EventPage:
        async with api.connection() as conn:
            return await read_events(
                conn, tenant_id=principal.tenant_id, run_id=run_id, after=number, limit=limit
            )

    # What a browser's EventSource comes back with is newer than what is in its address.
    after = _number(last_event_id) if last_event_id else query.after or 0
    if _wants_json(accept):
        listed = await look(after, query.limit)
        return json_response(
            Page([e.as_object() for e in listed.events], listed.has_more).as_dict()
        )
    # Before anything is said: what is no run's is a problem, and what is over is said so, or a
    # browser would come back for ever.
    first = await look(after)
    if first.over and not first.events:
        return Response(status_code=204)
    return EventSourceResponse(
        _stream(api, look, run_id, after), headers={"X-Accel-Buffering": "no"}
    )


async def _stream(api: Api, look: Look, run_id: UUID, after: int) -> AsyncIterator[bytes]:
    yield format_sse_event(retry=_RETRY_MS)
    pages = follow(look, api.feed, run_id, after=after, idle_seconds=HEARTBEAT_SECONDS)
    async with aclosing(pages):
        async for page in pages:
            if page:
                yield b"".join(map(_written, page))
            else:
                yield format_sse_event(comment="")


def _written(event: Event) -> bytes:
    # ASCII on one line: some clients take separators of Unicode for the ends of lines.
    data = json.dumps(event.as_object(), separators=(",", ":"), allow_nan=False)
    return format_sse_event(id=str(event.id), event=event.event, data_str=data)


def _number(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text[:20]) <= _LAST:
        return int(text)
    raise InvalidRequestError.at(
        "/header/Last-Event-ID", "has to be the number of an event, as the stream gave it."
    )


def _wants_json(accept: str) -> bool:
    """Whether a list is asked for: who names JSON, and not the stream."""
    named = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    return "application/json" in named and _SSE not in named
