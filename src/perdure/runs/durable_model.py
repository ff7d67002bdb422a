"""A model whose replies are recorded before anybody acts on them, and answered from the record.

Outside a durable run every call goes straight through. Inside, a call is placed by its scope,
its agent and the hash of its input; a recorded reply to it always wins. Otherwise the model is
asked, by this one layer with retries, and the reply commits, with the tool calls it asks for,
before the SDK sees it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar
from uuid import UUID

from agents import Model, ModelProvider, ModelResponse, ModelSettings, Usage
from agents.handoffs import Handoff
from agents.items import TResponseInputItem, TResponseStreamEvent
from agents.models.interface import ModelTracing
from agents.tool import Tool
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseOutputItem,
    ResponseOutputItemDoneEvent,
    ResponseUsage,
)
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails
from pydantic import TypeAdapter

from perdure.db import uuid7
from perdure.ledger.journal import RecordedReply
from perdure.runs.execution import (
    Execution,
    current_agent,
    current_execution,
    current_scope,
    scope_text,
)
from perdure.runs.proposals import hands_off, proposed_calls
from perdure.runs.sdk import no_provider_retries, retryable

_OUTPUT: TypeAdapter[list[Any]] = TypeAdapter(list[ResponseOutputItem])
_T = TypeVar("_T")

MAX_RETRIES = 4
FIRST_DELAY_SECONDS = 0.5
MAX_DELAY_SECONDS = 30.0


_PASSING_FAILURES = frozenset({"server_error", "rate_limit_exceeded"})


class StreamCut(Exception):
    """The provider's stream ended before the reply was complete; asking again may help."""


class ReplyFailed(Exception):
    """The provider ended its reply as failed or incomplete; asking again would not help."""


class DurableModel(Model):
    """Records the replies of ``inner``; see the module."""

    def __init__(self, inner: Model) -> None:
        self.inner = inner
        name = getattr(inner, "model", None)
        self.name = name if isinstance(name, str) else type(inner).__name__

    async def _cleanup_on_run_end(self, owner: object) -> None:
        await self.inner._cleanup_on_run_end(owner)

    async def close(self) -> None:
        """Release what the inner model holds."""
        await self.inner.close()

    def get_retry_advice(self, request: Any) -> Any:
        """Pass on the provider's advice."""
        return self.inner.get_retry_advice(request)

    async def get_response(
        self,
        system_instructions: str | None,
        input: str | list[TResponseInputItem],
        model_settings: ModelSettings,
        tools: list[Tool],
        output_schema: Any,
        handoffs: list[Handoff],
        tracing: ModelTracing,
        **rest: Any,
    ) -> ModelResponse:
        """Answer from the ledger, or ask the inner model and record its reply."""

        async def ask() -> ModelResponse:
            return await self.inner.get_response(
                system_instructions,
                input,
                model_settings,
                tools,
                output_schema,
                handoffs,
                tracing,
                **rest,
            )

        execution = current_execution.get()
        if execution is None:
            return await ask()
        place = _Place(execution, input)
        recorded = place.recall(handoffs)
        if recorded is not None:
            return _as_model_response(recorded)
        await place.before_asking()
        response, latency_ms = await _with_retries(execution, ask, model_settings)
        await place.record(self.name, response, tools, handoffs, latency_ms)
        return response

    async def stream_response(
        self,
        system_instructions: str | None,
        input: str | list[TResponseInputItem],
        model_settings: ModelSettings,
        tools: list[Tool],
        output_schema: Any,
        handoffs: list[Handoff],
        tracing: ModelTracing,
        **rest: Any,
    ) -> AsyncIterator[TResponseStreamEvent]:
        """Stream from the ledger (one completed event), or from the inner model, recording."""

        def ask() -> AsyncIterator[TResponseStreamEvent]:
            return self.inner.stream_response(
                system_instructions,
                input,
                model_settings,
                tools,
                output_schema,
                handoffs,
                tracing,
                **rest,
            )

        execution = current_execution.get()
        if execution is None:
            async for event in ask():
                yield event
            return
        place = _Place(execution, input)
        recorded = place.recall(handoffs)
        if recorded is not None:
            yield _as_completed_event(recorded, self.name)
            return
        await place.before_asking()
        completed, latency_ms = await _with_retries(
            execution, lambda: _drain(ask()), model_settings
        )
        response = completed.response
        await place.record(
            self.name,
            ModelResponse(
                output=response.output,
                usage=_usage_of(response.usage),
                response_id=response.id,
                request_id=getattr(response, "_request_id", None),
            ),
            tools,
            handoffs,
            latency_ms,
        )
        yield completed


class DurableModelProvider(ModelProvider):
    """Hands out durable models for the names ``inner`` knows."""

    def __init__(self, inner: ModelProvider) -> None:
        self.inner = inner

    def get_model(self, model_name: str | None) -> Model:
        """Return the durable wrapper of the inner provider's model."""
        return durable_model(self.inner.get_model(model_name))

    async def aclose(self) -> None:
        """Release what the inner provider holds."""
        await self.inner.aclose()


def durable_model(model: Model) -> DurableModel:
    """Return ``model`` wrapped, once: a wrapped one comes back as it is."""
    return model if isinstance(model, DurableModel) else DurableModel(model)


class _Place:
    """Where a model call stands: its scope, its agent and the hash of what it is asked."""

    def __init__(self, execution: Execution, model_input: str | list[Any]) -> None:
        self.execution = execution
        self.top = not current_scope.get()
        self.scope = scope_text(current_scope.get())
        self.agent = current_agent.get()
        self.input_hash = execution.input_hash(self.scope, self.agent, model_input)

    def recall(self, handoffs: list[Handoff]) -> RecordedReply | None:
        reply = self.execution.journal.take_reply(self.scope, self.agent, self.input_hash)
        if reply is not None:
            self._note(reply.id, reply.output, handoffs)
        return reply

    def _note(self, id: UUID, output: list[dict[str, Any]], handoffs: list[Handoff]) -> None:
        if self.top:
            call_ids = frozenset(item["call_id"] for item in output if item.get("call_id"))
            self.execution.last_reply = id, call_ids
            self.execution.on_reply(hands_off(output, handoffs))

    async def before_asking(self) -> None:
        await self.execution.check()
        await self.execution.refuse_unmatched(self.scope, self.agent)

    async def record(
        self,
        model: str,
        response: ModelResponse,
        tools: list[Tool],
        handoffs: list[Handoff],
        latency_ms: int,
    ) -> None:
        id = uuid7()
        output = [_dump(item) for item in response.output]
        calls = proposed_calls(self.execution, self.scope, output, tools)
        await self.execution.record(
            {
                "kind": "reply",
                "id": str(id),
                "scope": self.scope,
                "agent": self.agent,
                "input_hash": self.input_hash,
                "model": model,
                "response_id": response.response_id,
                "request_id": response.request_id,
                "output": output,
                "latency_ms": latency_ms,
                "calls": [call.as_row() for call in calls],
                **_usage_columns(response.usage),
            }
        )
        for call in calls:
            self.execution.journal.calls.setdefault(
                (self.scope, call.call_id), call.as_recorded(self.scope, self.agent)
            )
        self._note(id, output, handoffs)


async def _with_retries(
    execution: Execution, ask: Callable[[], Awaitable[_T]], settings: ModelSettings
) -> tuple[_T, int]:
    """Ask until there is a reply; return it and the milliseconds of the attempt that gave it.

    A user's own ``model_settings.retry`` is left to the SDK: one layer retries, never two.
    """
    ours = settings.retry is None
    attempt = 0
    while True:
        began = time.monotonic()
        try:
            with no_provider_retries(ours):
                reply = await ask()
            return reply, int((time.monotonic() - began) * 1000)
        except Exception as error:
            again, wait = retryable(error)
            again = again or isinstance(error, StreamCut)
            if not ours or not again or attempt >= MAX_RETRIES:
                execution.model_errors.append(error)
                raise
            delay = min(FIRST_DELAY_SECONDS * 2**attempt, MAX_DELAY_SECONDS)
            delay *= 0.75 + random.random() / 2  # noqa: S311
            attempt += 1
            await asyncio.sleep(min(wait, MAX_DELAY_SECONDS) if wait is not None else delay)
            await execution.check()


async def _drain(stream: AsyncIterator[TResponseStreamEvent]) -> ResponseCompletedEvent:
    """Read a provider's stream to its completed event."""
    done: list[Any] = []
    async for event in stream:
        if isinstance(event, ResponseCompletedEvent):
            if not event.response.output and done:
                # Some providers send the items one by one and leave the last event empty.
                event.response.output = done
            return event
        if isinstance(event, ResponseOutputItemDoneEvent):
            done.append(event.item)
        elif getattr(event, "type", None) in _TERMINAL_FAILURES:
            raise _failure(event)
    raise StreamCut("The model's stream ended before its reply was complete.")


_TERMINAL_FAILURES = frozenset(
    {"response.failed", "response.incomplete", "error", "response.error"}
)


def _failure(event: Any) -> Exception:
    response = getattr(event, "response", None)
    error = getattr(response, "error", None) or getattr(response, "incomplete_details", None)
    code = getattr(error, "code", None) or getattr(event, "code", None)
    text = getattr(error, "message", None) or getattr(error, "reason", None)
    message = (
        f"{event.type}: {text or getattr(event, 'message', None) or code or 'no reason given'}"
    )
    return StreamCut(message) if code in _PASSING_FAILURES else ReplyFailed(message)


def _dump(item: Any) -> dict[str, Any]:
    # Fields that were never set have to stay so: the SDK compares what it restores.
    dumped = (
        dict(item) if isinstance(item, dict) else item.model_dump(mode="json", exclude_unset=True)
    )
    if not isinstance(item, dict) and "type" not in dumped and getattr(item, "type", None):
        dumped["type"] = item.type
    return dumped


def _usage_columns(usage: Usage) -> dict[str, int]:
    return {
        "requests": usage.requests,
        "input_tokens": usage.input_tokens,
        "cached_input_tokens": getattr(usage.input_tokens_details, "cached_tokens", 0) or 0,
        "output_tokens": usage.output_tokens,
        "reasoning_tokens": getattr(usage.output_tokens_details, "reasoning_tokens", 0) or 0,
        "total_tokens": usage.total_tokens,
    }


def _usage_of(usage: ResponseUsage | None) -> Usage:
    if usage is None:
        return Usage(requests=1)
    return Usage(
        requests=1,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.total_tokens,
        input_tokens_details=usage.input_tokens_details,
        output_tokens_details=usage.output_tokens_details,
    )


def _as_model_response(reply: RecordedReply) -> ModelResponse:
    usage = reply.usage
    return ModelResponse(
        output=_OUTPUT.validate_python(reply.output),
        usage=Usage(
            requests=usage["requests"],
            input_tokens=usage["input_tokens"],
            output_tokens=usage["output_tokens"],
            total_tokens=usage["total_tokens"],
            input_tokens_details=InputTokensDetails(
                cached_tokens=usage["cached_input_tokens"], cache_write_tokens=0
            ),
            output_tokens_details=OutputTokensDetails(reasoning_tokens=usage["reasoning_tokens"]),
        ),
        response_id=reply.response_id,
        request_id=reply.request_id,
    )


def _as_completed_event(reply: RecordedReply, model: str) -> ResponseCompletedEvent:
    usage = reply.usage
    response = Response.model_construct(
        id=reply.response_id or "",
        created_at=0,
        model=model,
        object="response",
        output=_OUTPUT.validate_python(reply.output),
        tool_choice="auto",
        tools=[],
        parallel_tool_calls=True,
        usage=ResponseUsage(
            input_tokens=usage["input_tokens"],
            output_tokens=usage["output_tokens"],
            total_tokens=usage["total_tokens"],
            input_tokens_details=InputTokensDetails(
                cached_tokens=usage["cached_input_tokens"], cache_write_tokens=0
            ),
            output_tokens_details=OutputTokensDetails(reasoning_tokens=usage["reasoning_tokens"]),
        ),
    )
    return ResponseCompletedEvent.model_construct(
        type="response.completed", response=response, sequence_number=0
    )
