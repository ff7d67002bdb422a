"""Path and query parameters."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar
from uuid import UUID

from fastapi import Depends, Path
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from perdure.errors import NotFoundError, NotSupportedError
from perdure.paging import DEFAULT_LIMIT, MAX_LIMIT, Order, PageRequest
from perdure.web.limits import parse

_IdText = Annotated[str, WithJsonSchema({"type": "string", "format": "uuid"})]


async def _run_id(id: Annotated[_IdText, Path(description="A run's id.")]) -> UUID:
    return _parse("run", id)


async def _interruption_id(
    id: Annotated[_IdText, Path(description="An interruption's id.")],
) -> UUID:
    return _parse("interruption", id)


async def _webhook_id(id: Annotated[_IdText, Path(description="A webhook's id.")]) -> UUID:
    return _parse("webhook", id)


async def _delivery_id(id: Annotated[_IdText, Path(description="A delivery's id.")]) -> UUID:
    return _parse("delivery", id)


async def _grant_id(id: Annotated[_IdText, Path(description="A grant's id.")]) -> UUID:
    return _parse("grant", id)


async def _policy_id(id: Annotated[_IdText, Path(description="A policy's id.")]) -> UUID:
    return _parse("policy", id)


async def _session_id(id: Annotated[_IdText, Path(description="A session's id.")]) -> UUID:
    return _parse("session", id)


async def _item_id(item_id: Annotated[_IdText, Path(description="An item's id.")]) -> UUID:
    return _parse("item", item_id)


async def _feedback_id(id: Annotated[_IdText, Path(description="A feedback's id.")]) -> UUID:
    return _parse("feedback", id)


async def _operation_id(id: Annotated[_IdText, Path(description="An operation's id.")]) -> UUID:
    return _parse("operation", id)


async def _user_session_id(
    id: Annotated[_IdText, Path(description="A user session's id.")],
) -> UUID:
    return _parse("user session", id)


async def _budget_id(id: Annotated[_IdText, Path(description="A budget's id.")]) -> UUID:
    return _parse("budget", id)


def _parse(kind: str, text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        # What is no id is the id of nothing.
        raise NotFoundError(kind, text[:64]) from None


RunId = Annotated[UUID, Depends(_run_id)]
InterruptionId = Annotated[UUID, Depends(_interruption_id)]
WebhookId = Annotated[UUID, Depends(_webhook_id)]
DeliveryId = Annotated[UUID, Depends(_delivery_id)]
GrantId = Annotated[UUID, Depends(_grant_id)]
UserSessionId = Annotated[UUID, Depends(_user_session_id)]
PolicyId = Annotated[UUID, Depends(_policy_id)]
SessionId = Annotated[UUID, Depends(_session_id)]
ItemId = Annotated[UUID, Depends(_item_id)]
FeedbackId = Annotated[UUID, Depends(_feedback_id)]
BudgetId = Annotated[UUID, Depends(_budget_id)]
OperationId = Annotated[UUID, Depends(_operation_id)]

MAX_WAIT_SECONDS = 60


def _object(text: Any) -> Any:
    value, refusal = parse(str(text).encode(errors="replace"))
    if refusal is not None or not isinstance(value, dict) or not value:
        raise ValueError("has to be a JSON object with something in it")
    return value


MetadataHeld = Annotated[
    dict[str, Any],
    BeforeValidator(_object),
    WithJsonSchema({"type": "string", "contentMediaType": "application/json"}),
    Field(
        description="A JSON object: what its metadata has to hold, among other things.",
        examples=['{"ticket": "T-1"}'],
    ),
]


class Query(BaseModel):
    """A query whose unknown names are refused, and whose later ones are named as such."""

    model_config = ConfigDict(extra="forbid")

    later: ClassVar[dict[str, str]] = {}
    """Names of the contract this build does not keep yet, and what they would do."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_later(cls, data: Any) -> Any:
        for name, what in cls.later.items():
            if name in data:
                raise NotSupportedError.at(f"/query/{name}", f"{what} is not supported yet.")
        return data


class NewestFirst(Query):
    """A page, newest first unless asked otherwise."""

    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT
    after: Annotated[UUID | None, Field(description="Go on after this id.")] = None
    order: Order = "desc"

    def page(self) -> PageRequest:
        """Return it as the store takes it."""
        return PageRequest(self.limit, self.after, self.order)


class OldestFirst(NewestFirst):
    """A page, oldest first unless asked otherwise."""

    order: Order = "asc"
