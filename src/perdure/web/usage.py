"""``/v1/usage``: what a tenant's runs used and cost over a period, in groups."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi import Query as QueryParameters
from pydantic import BeforeValidator, Field, WithJsonSchema, field_validator
from starlette.responses import Response

from perdure.ledger.usage import GROUPS, MAX_ROWS, GroupBy, Wanted, usage_of_period
from perdure.web.auth import RunReader
from perdure.web.parameters import Query
from perdure.web.rendering import json_response
from perdure.web.schemas import Text255
from perdure.web.state import api_of
from perdure.web.usage_answers import UsageSums

router = APIRouter(prefix="/v1/usage", tags=["usage"])


def _moment(given: Any) -> datetime:
    text = str(given)
    try:
        if len(text) == len("2026-11-22"):
            return datetime.combine(date.fromisoformat(text), time(), UTC)
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(
            "has to be a time with its zone (2026-11-22T10:00:00Z) or a date, of which the "
            "beginning in UTC counts."
        ) from None


_Moment = Annotated[
    datetime, BeforeValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time"})
]


class UsageQuery(Query):
    """Of which period, in which groups."""

    group_by: Annotated[
        list[GroupBy],
        Field(
            description="Given more than once, or with commas: groups of all of them. Without: "
            "one sum."
        ),
    ] = Field(default_factory=list)
    since: Annotated[
        _Moment | None,
        Field(
            alias="from",
            description="Answered then or later; a time or a date. By default the day 30 days "
            "before `to`.",
        ),
    ] = None
    until: Annotated[
        _Moment | None, Field(alias="to", description="Answered before then. By default now.")
    ] = None
    agent: Annotated[Text255 | None, Field(description="Only what this agent asked.")] = None
    model: Annotated[Text255 | None, Field(description="Only what this model was asked.")] = None
    user_id: Annotated[Text255 | None, Field(description="Only of this user's runs.")] = None
    limit: Annotated[int, Field(ge=1, le=MAX_ROWS)] = MAX_ROWS
    offset: Annotated[int, Field(ge=0, le=10_000_000, description="Leave out so many rows.")] = 0

    @field_validator("group_by", mode="before")
    @classmethod
    def _split(cls, given: Any) -> Any:
        several = given if isinstance(given, list) else [given]
        names = [name for one in several for name in str(one).split(",")]
        for name in names:
            if name not in GROUPS:
                raise ValueError(f"has to be of {', '.join(GROUPS)}.")
        return names


@router.get("", response_model=UsageSums, response_model_exclude_unset=True)
async def sum_up(
    request: Request, principal: RunReader, query: Annotated[UsageQuery, QueryParameters()]
) -> Response:
    """Sum up what was used and spent: by day, then the dearest first."""
    async with api_of(request).connection() as conn:
        found = await usage_of_period(
            conn,
            tenant_id=principal.tenant_id,
            wanted=Wanted(**{name: getattr(query, name) for name in Wanted.__slots__}),
        )
    return json_response(found.as_dict())
