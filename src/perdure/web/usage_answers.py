"""What the API answers of what models were asked, what that used, and what guardrails said."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field

from perdure.web.answers import Answer, Tokens, TotalUsage

__all__ = [
    "GuardrailResult",
    "ModelResponse",
    "Usage",
    "UsageMetrics",
    "UsageMetricsList",
    "UsageSum",
    "UsageSums",
]


class Usage(Tokens):
    """What one request to a model used, and by which price its cost was counted."""

    id: UUID
    object: Literal["usage"]
    run_id: UUID
    segment: int
    agent: str
    model: str | None
    model_response_id: UUID
    response_id: str | None
    price: dict[str, Any] | None
    price_date: date | None
    price_source: str | None
    latency_ms: int
    superseded: bool
    created_at: datetime


class UsageMetrics(TotalUsage):
    """What a run used with one model by one agent."""

    object: Literal["usage_metrics"]
    run_id: UUID
    agent: str
    model: str
    created_at: datetime
    updated_at: datetime


class UsageMetricsList(Answer):
    """All of a run's, by agent and model."""

    object: Literal["list"]
    data: list[UsageMetrics]
    has_more: Literal[False]


class ReplyTokens(Answer):
    """What a reply used, however many requests it took."""

    requests: int
    input_tokens: int
    cached_input_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int
    total_tokens: int


class ModelResponse(Answer):
    """A model's reply as it came; ``settings`` are those that were set, without extras."""

    id: UUID
    object: Literal["model_response"]
    run_id: UUID
    segment: int
    checkpoint: int
    scope: str
    agent: str
    model: str | None
    settings: dict[str, Any]
    response_id: str | None
    request_id: str | None
    output: list[Any]
    usage: ReplyTokens
    latency_ms: int
    attempt: int
    superseded: bool
    created_at: datetime


class GuardrailResult(Answer):
    """What a guardrail said of an agent's input or output, or of a tool call's."""

    id: UUID
    object: Literal["guardrail_result"]
    run_id: UUID
    segment: int
    type: Literal["input", "output", "tool_input", "tool_output"]
    guardrail: str
    agent: str
    scope: str
    tool: str | None
    call_id: str | None
    tripwire_triggered: bool
    behavior: Literal["allow", "reject_content", "raise_exception"] | None
    message: str | None
    output_info: Any
    latency_ms: int
    created_at: datetime


class UsageSum(TotalUsage):
    """What one group used; what is not grouped by is left out."""

    object: Literal["usage_sum"]
    day: date | None = None
    agent: str | None = None
    model: str | None = None
    user_id: Annotated[str | None, Field(description="Null: runs of nobody in particular.")] = None


class UsageSums(Answer):
    """What was used from `from` on until before `to`: by day, then the dearest first."""

    object: Literal["list"]
    data: list[UsageSum]
    has_more: Annotated[bool, Field(description="There are more rows: `offset` goes on.")]
    since: Annotated[datetime, Field(alias="from")]
    until: Annotated[datetime, Field(alias="to")]
