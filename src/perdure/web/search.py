"""``GET /v1/search``: what was said, found again."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Request
from fastapi import Query as QueryParameters
from pydantic import AwareDatetime, Field
from starlette.responses import Response

from perdure.paging import DEFAULT_LIMIT, MAX_LIMIT, PageRequest
from perdure.sessions.search import SearchFilter, search_items
from perdure.web import answers
from perdure.web.auth import RunReader
from perdure.web.parameters import Query
from perdure.web.rendering import json_response
from perdure.web.schemas import Text255
from perdure.web.session_answers import FoundItem
from perdure.web.state import api_of

router = APIRouter(prefix="/v1/search", tags=["sessions"])


class SearchQuery(Query):
    """What to search for, and where."""

    q: Annotated[
        str,
        Field(min_length=1, max_length=500, description='Words, "a phrase", or, -not.'),
    ]
    user_id: Text255 | None = None
    session_id: Annotated[
        UUID | None, Field(description="Only in this session, and what it reads of others.")
    ] = None
    tag: Annotated[
        list[str], Field(description="Given more than once: in sessions that have all.")
    ] = Field(default_factory=list)
    created_after: AwareDatetime | None = None
    created_before: AwareDatetime | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT
    after: Annotated[UUID | None, Field(description="Go on after this id.")] = None

    def only(self) -> SearchFilter:
        """Return the filter as the search takes it."""
        return SearchFilter(
            user_id=self.user_id,
            session_id=self.session_id,
            tags=self.tag,
            since=self.created_after,
            before=self.created_before,
        )


@router.get("", response_model=answers.List[FoundItem])
async def search(
    request: Request, principal: RunReader, query: Annotated[SearchQuery, QueryParameters()]
) -> Response:
    """Search in what was said; the best first. `snippet` is HTML, escaped, with `<mark>`."""
    async with api_of(request).connection() as conn:
        page = await search_items(
            conn,
            tenant_id=principal.tenant_id,
            q=query.q,
            only=query.only(),
            page=PageRequest(query.limit, query.after),
        )
    return json_response(page.as_dict())
