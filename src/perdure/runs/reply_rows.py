"""A model's reply in its two lives: as the SDK gives and takes it, and as a row keeps it."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from agents import ModelResponse, ModelSettings, Usage
from agents.usage import RequestUsage
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseUsage,
)
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails

from perdure import jsonsafe
from perdure.db import uuid7
from perdure.ledger.journal import RecordedReply
from perdure.ledger.prices import Prices
from perdure.runs.sdk import shown_settings, usage_of

_MOST: Final = 2**53


def dump_item(item: Any) -> dict[str, Any]:
    """Return an output item as JSON. What was never set stays so: the SDK compares it."""
    if isinstance(item, dict):
        return dict(item)
    dumped: dict[str, Any] = item.model_dump(mode="json", exclude_unset=True)
    if "type" not in dumped and getattr(item, "type", None):
        dumped["type"] = item.type
    return dumped


def usage_entries(reply_id: UUID, model: str, usage: Usage, prices: Prices) -> list[dict[str, Any]]:
    """Return the rows of what a reply of ``model`` used, one a request, and what each cost."""
    told = usage.request_usage_entries if usage.requests > 1 else []
    parts = [_tokens(one, 1) for one in told] or [_tokens(usage, usage.requests)]
    entries: list[dict[str, Any]] = []
    for place, part in enumerate(parts):
        priced = prices.cost(model, part)
        entries.append(
            {
                "id": str(uuid7() if place else reply_id),
                "position": place,
                **part,
                **({} if priced is None else priced.as_columns()),
            }
        )
    return entries


def _tokens(usage: Usage | RequestUsage, requests: int) -> dict[str, int]:
    read, written = usage.input_tokens_details, usage.output_tokens_details
    counts = {
        "requests": requests,
        "input_tokens": usage.input_tokens,
        "cached_input_tokens": getattr(read, "cached_tokens", 0),
        "cache_write_tokens": getattr(read, "cache_write_tokens", 0),
        "output_tokens": usage.output_tokens,
        "reasoning_tokens": getattr(written, "reasoning_tokens", 0),
        "total_tokens": usage.total_tokens,
    }
    # A provider's word: what is no count must not keep the reply from being recorded.
    return {name: min(max(count or 0, 0), _MOST) for name, count in counts.items()}


def _said(value: Any) -> Any:
    """Return ``value`` without what nobody set, at any depth."""
    if not isinstance(value, dict):
        return value
    return {name: _said(one) for name, one in value.items() if one is not None}


def settings_column(settings: ModelSettings) -> dict[str, Any] | None:
    """Return what was set of a request's settings; without extras, which may hold secrets."""
    try:
        return jsonsafe.finite(_said(shown_settings(settings))) or None
    except (TypeError, ValueError, RecursionError):
        return None  # a value of one's own that is no JSON


def response_of(completed: ResponseCompletedEvent) -> ModelResponse:
    """Return the reply a stream ended with."""
    response = completed.response
    return ModelResponse(
        output=response.output,
        usage=usage_of(response.usage),
        response_id=response.id,
        request_id=getattr(response, "_request_id", None),
    )


def recorded_response(reply: RecordedReply) -> ModelResponse:
    """Return a recorded reply as a model would give it."""
    usage = usage_of(_usage(reply))
    usage.requests = reply.usage["requests"]
    return ModelResponse(
        output=_response(reply).output,
        usage=usage,
        response_id=reply.response_id,
        request_id=reply.request_id,
    )


def recorded_event(reply: RecordedReply, model: str) -> ResponseCompletedEvent:
    """Return the one event a recorded reply is streamed as."""
    response = _response(reply, model=model)
    return ResponseCompletedEvent.model_construct(
        type="response.completed", response=response, sequence_number=0
    )


def _response(reply: RecordedReply, **more: Any) -> Response:
    # As the client makes them, unchecked: what a provider left out, or invented, was let in once.
    return Response.construct(
        id=reply.response_id or "",
        created_at=0,
        object="response",
        output=reply.output,
        tool_choice="auto",
        tools=[],
        parallel_tool_calls=True,
        usage=_usage(reply),
        **more,
    )


def _usage(reply: RecordedReply) -> ResponseUsage:
    usage = reply.usage
    return ResponseUsage(
        input_tokens=usage["input_tokens"],
        output_tokens=usage["output_tokens"],
        total_tokens=usage["total_tokens"],
        input_tokens_details=InputTokensDetails(
            cached_tokens=usage["cached_input_tokens"],
            cache_write_tokens=usage["cache_write_tokens"],
        ),
        output_tokens_details=OutputTokensDetails(reasoning_tokens=usage["reasoning_tokens"]),
    )
