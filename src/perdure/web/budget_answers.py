"""What the API answers of budgets."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from perdure.web.answers import Answer

__all__ = ["Budget", "Scope"]

Scope = Literal["session", "user", "agent", "tenant"]


class Budget(Answer):
    """A budget as it stands: ``cost_usd`` and ``total_tokens`` are its limits, null: any.

    What is spent and reserved is that of the period from ``starts_at`` to ``ends_at``, null where
    it is for all time. Requests without a known price are in no cost.
    """

    id: UUID
    object: Literal["budget"]
    scope: Literal["run", "session", "user", "agent", "tenant"]
    run_id: UUID | None
    session_id: UUID | None
    user_id: str | None
    agent: str | None
    period: Literal["total", "month"]
    name: str
    cost_usd: str | None
    total_tokens: int | None
    raised: Annotated[bool, Field(description="Whether a decision raised it for this period.")]
    spent_usd: str
    spent_tokens: int
    reserved_usd: Annotated[str, Field(description="What calls under way may take.")]
    reserved_tokens: int
    unpriced_requests: int
    starts_at: datetime | None
    ends_at: datetime | None
    created_at: datetime
    updated_at: datetime
