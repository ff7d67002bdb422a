"""``/v1/runs/{id}/events``: what happens in a run, as it happens, or page by page."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Request
from fastapi import Query as QueryParameters
from pydantic import Field
from starlette.responses import Response

from perdure.audit.queries import was_deleted
from perdure.errors import GoneError, InvalidRequestError, NotFoundError
from perdure.events import EventPage, read_events
from perdure.events.reading import LAST
from perdure.paging import DEFAULT_LIMIT, MAX_LIMIT, Page
from perdure.web import answers, sse
from perdure.web.auth import RunReader
from perdure.web.parameters import Query, RunId
from perdure.web.rendering import json_response
from perdure.web.state import Api, api_of

router = APIRouter(prefix="/v1/runs", tags=["runs"])


class EventsQuery(Query):
    """From where on, and for a list how many."""

    after: Annotated[
        int | None, Field(ge=0, le=LAST, description="Go on after the event of this number.")
    ] = None
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT, description="Of a list: how many at most.")] = (
        DEFAULT_LIMIT
    )


@router.get(
    "/{id}/events",
    response_model=answers.EventList,
    responses={
        200: {"content": {sse.MEDIA_TYPE: {"schema": {"type": "string"}}}},
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
    is resumed is followed on from there. A run that was deleted is `gone` (410). With
    `Accept: application/json` it is a list.
    """
    api = api_of(request)
    # What a browser's EventSource comes back with is newer than what is in its address.
    after = _number(last_event_id) if last_event_id else query.after or 0
    try:
        if sse.wants_json(accept):
            async with api.connection() as conn:
                listed = await read_events(
                    conn,
                    tenant_id=principal.tenant_id,
                    run_id=run_id,
                    after=after,
                    limit=query.limit,
                )
            shown = [event.as_object() for event in listed.events]
            return json_response(Page(shown, listed.has_more).as_dict())
        # Before anything is said: what is no run's is a problem, and what is over is said so, or a
        # browser would come back for ever.
        first = await api.hub.page(principal.tenant_id, run_id, after)
    except NotFoundError:
        async with api.connection() as conn:
            if await was_deleted(conn, tenant_id=principal.tenant_id, run_id=run_id):
                raise GoneError("run", run_id) from None
        raise
    if first.over and not first.events:
        return Response(status_code=204)
    return sse.stream(request, _stream(api, principal.tenant_id, run_id, after, first))


async def _stream(
    api: Api, tenant_id: UUID, run_id: UUID, after: int, first: EventPage
) -> AsyncGenerator[bytes, None]:
    yield sse.beginning()
    following = api.hub.follow(
        tenant_id, run_id, after=after, first=first, idle_seconds=sse.HEARTBEAT_SECONDS
    )
    async with aclosing(following) as pages:
        async for page in pages:
            for piece in sse.in_pieces(page):
                yield piece
            if not page:
                yield sse.HEARTBEAT
            # Not to be held while the next is waited for.
            del page


def _number(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text[:20]) <= LAST:
        return int(text)
    raise InvalidRequestError.at(
        "/header/Last-Event-ID", "has to be the number of an event, as the stream gave it."
    )
