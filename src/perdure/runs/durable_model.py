"""A model whose replies are recorded before anybody acts on them, and answered from the record.

Outside a durable run every call goes straight through. Inside, a call is placed by its scope,
its agent and the hash of its input; a recorded reply to it always wins. Otherwise the model is
asked, by this one layer with retries, and the reply commits, with the tool calls it asks for,
before anything comes of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from agents import Model, ModelProvider, ModelResponse, ModelSettings
from agents.handoffs import Handoff
from agents.items import TResponseInputItem, TResponseStreamEvent
from agents.models.interface import ModelTracing
from agents.tool import Tool
from openai.types.responses import ResponseCompletedEvent
from opentelemetry.trace import Span

from perdure.db import uuid7
from perdure.ledger.journal import RecordedReply
from perdure.ledger.telling import replied
from perdure.runs.asking import read_to_end, with_retries
from perdure.runs.budgeting import free, keep_to_budgets
from perdure.runs.execution import (
    Execution,
    current_agent,
    current_execution,
    current_scope,
    scope_text,
)
from perdure.runs.hosted import (
    HostedCall,
    asking_first,
    begin_hosted,
    guarded,
    servers_that_may_act,
)
from perdure.runs.mending import fit_output
from perdure.runs.proposals import hands_off, proposed_calls
from perdure.runs.reply_rows import (
    dump_item,
    recorded_event,
    recorded_response,
    response_of,
    settings_column,
    usage_entries,
)
from perdure.runs.reply_stream import ReplyStream
from perdure.runs.sdk import supports_prompt_cache_key
from perdure.runs.traces.attributes import provider_of


class DurableModel(Model):
    """Records the replies of ``inner``; see the module."""

    def __init__(self, inner: Model) -> None:
        self.inner = inner
        name = getattr(inner, "model", None)
        self.name = name if isinstance(name, str) else type(inner).__name__
        self.provider = provider_of(inner, self.name)

    def __getattr__(self, name: str) -> Any:
        """What else the inner model has (``model``, a client) is found here too."""
        if name == "inner":  # not yet there while a copy is made
            raise AttributeError(name)
        return getattr(self.inner, name)

    async def _cleanup_on_run_end(self, owner: object) -> None:
        await self.inner._cleanup_on_run_end(owner)

    async def close(self) -> None:
        """Release what the inner model holds."""
        await self.inner.close()

    def get_retry_advice(self, request: Any) -> Any:
        """Pass on the provider's advice."""
        return self.inner.get_retry_advice(request)

    def _supports_default_prompt_cache_key(self) -> bool:
        return supports_prompt_cache_key(self.inner)

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
            if place is not None:
                place.stream.begin()
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
        if execution is not None and execution.asks_first:
            tools = asking_first(tools, execution.default_effect)
        place = None if execution is None else _Place(execution, input, self.name, self.provider)
        if execution is None or place is None:
            return await ask()
        system_instructions = execution.told(place.agent, system_instructions)
        recorded = place.recall(handoffs)
        if recorded is not None:
            return recorded_response(recorded)
        async with place.asking(system_instructions, input, tools, model_settings):
            response, *took = await with_retries(
                execution, guarded(place.hosted, ask), model_settings
            )
            response.output = fit_output(response.output)
            await place.record(response, tools, handoffs, model_settings, *took)
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

        async def heard() -> ResponseCompletedEvent:
            place.stream.begin()
            return await read_to_end(ask(), place.stream.hear)

        execution = current_execution.get()
        if execution is None:
            async for event in ask():
                yield event
            return
        if execution.asks_first:
            tools = asking_first(tools, execution.default_effect)
        place = _Place(execution, input, self.name, self.provider)
        system_instructions = execution.told(place.agent, system_instructions)
        recorded = place.recall(handoffs)
        if recorded is not None:
            yield recorded_event(recorded, self.name)
            return
        async with place.asking(system_instructions, input, tools, model_settings):
            completed, *took = await with_retries(
                execution, guarded(place.hosted, heard), model_settings
            )
            completed.response.output = fit_output(completed.response.output)
            response = response_of(completed)
            await place.record(response, tools, handoffs, model_settings, *took)
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

    def __init__(
        self, execution: Execution, model_input: str | list[Any], model: str, provider: str
    ) -> None:
        self.execution = execution
        self.model = model
        self.provider = provider
        self.span: Span | None = None
        self.id = uuid7()
        self.top = not current_scope.get()
        self.scope = scope_text(current_scope.get())
        self.agent = current_agent.get()
        self.input_hash = execution.input_hash(self.scope, self.agent, model_input)
        self.hosted: HostedCall | None = None
        self.reserved = False
        self.stream = ReplyStream(
            *(execution.writer.streams, execution.source),
            *(str(self.id), self.agent, self.scope, model),
        )

    def recall(self, handoffs: list[Handoff]) -> RecordedReply | None:
        reply = self.execution.journal.take_reply(self.scope, self.agent, self.input_hash)
        if reply is not None:
            self._note(reply.id, reply.output, handoffs)
            if self.execution.trace is not None:
                self.execution.trace.replayed(self.scope, self.agent)
        return reply

    def _note(self, id: UUID, output: list[dict[str, Any]], handoffs: list[Handoff]) -> None:
        if self.top:
            call_ids = frozenset(item["call_id"] for item in output if item.get("call_id"))
            self.execution.last_reply = id, call_ids
            self.execution.on_reply(hands_off(output, handoffs))

    @asynccontextmanager
    async def asking(
        self,
        system: str | None,
        model_input: str | list[Any],
        tools: list[Tool],
        settings: ModelSettings,
    ) -> AsyncIterator[None]:
        """Ask the model inside the block; ``hosted`` is set where the request is an effect."""
        execution = self.execution
        await execution.committed()
        await execution.refuse_unmatched(self.scope, self.agent)
        self.reserved = execution.spending.budgeted
        if self.reserved:
            spending, prices = execution.spending, execution.prices
            takes = spending.takes(self.agent, self.model, system, model_input, settings, prices)
            await keep_to_budgets(
                execution, agent=self.agent, model=self.model, reply_id=self.id, takes=takes
            )
        async with self._asking(model_input, tools):
            if execution.trace is None:
                yield
                return
            with execution.trace.chat(
                self.scope, self.agent, self.model, self.provider, settings
            ) as self.span:
                execution.trace.asked(self.span, system, model_input)
                yield

    @asynccontextmanager
    async def _asking(self, model_input: str | list[Any], tools: list[Tool]) -> AsyncIterator[None]:
        execution = self.execution
        servers = servers_that_may_act(tools, model_input, execution.default_effect)
        if not servers:
            await execution.may_begin()
            execution.writer.asking()
            async with self._streaming():
                yield
            return
        self.hosted = await begin_hosted(
            execution, self.scope, self.agent, self.input_hash, servers
        )
        with self.hosted.under_way():
            async with self._streaming():
                yield

    @asynccontextmanager
    async def _streaming(self) -> AsyncIterator[None]:
        try:
            yield
        except Exception:
            self.stream.end("failed")
            if self.reserved:
                await free(self.execution, self.id)
            raise
        except BaseException:
            # Where the segment stops, whoever writes its rest or goes on with it says so.
            if not self.execution.stopped.done():
                self.stream.end("cancelled")
            raise

    async def record(
        self,
        response: ModelResponse,
        tools: list[Tool],
        handoffs: list[Handoff],
        settings: ModelSettings,
        latency_ms: int,
        attempt: int,
    ) -> None:
        id = self.id
        output = [dump_item(item) for item in response.output]
        calls = proposed_calls(self.execution, self.scope, self.agent, output, tools)
        entry = {
            "kind": "reply",
            "id": str(id),
            "scope": self.scope,
            "agent": self.agent,
            "input_hash": self.input_hash,
            "model": self.model,
            "response_id": response.response_id,
            "request_id": response.request_id,
            "output": output,
            "settings": settings_column(settings),
            "latency_ms": latency_ms,
            "attempt": attempt,
            "usage": usage_entries(id, self.model, response.usage, self.execution.prices),
            "calls": [call.as_row() for call in calls],
            **(self.hosted.replied() if self.hosted is not None else {}),
        }
        self.execution.spending.took(self.agent, entry["usage"])
        if self.span is not None and self.execution.trace is not None:
            self.execution.trace.replied(self.span, entry)
        # Noted first: if the segment stops before the commit is known, none of them has begun.
        asked = [call.as_recorded(self.scope, self.agent) for call in calls]
        for call in asked:
            self.execution.journal.calls.setdefault((self.scope, call.call_id), call)
        entry["events"] = [
            *entry.get("events", ()),
            *await self.stream.finish(output),
            *replied(entry, self.stream.attempt, asked),
        ]
        if hands_off(output, handoffs):
            await self.execution.record(entry)
        else:
            # What comes of it, a call or the run's end, waits for this commit itself.
            self.execution.record_reply(entry)
            # One turn of the loop sends it, before the SDK holds the loop with what comes next.
            await asyncio.sleep(0)
        self._note(id, output, handoffs)
