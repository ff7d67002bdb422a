"""An Agents SDK model whose replies come from rules instead of a network."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from agents import Model, ModelProvider, ModelResponse, Usage
from agents.items import TResponseOutputItem, TResponseStreamEvent
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseContentPartAddedEvent,
    ResponseContentPartDoneEvent,
    ResponseCreatedEvent,
    ResponseFunctionCallArgumentsDeltaEvent,
    ResponseFunctionCallArgumentsDoneEvent,
    ResponseFunctionToolCall,
    ResponseOutputItemAddedEvent,
    ResponseOutputItemDoneEvent,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseTextDeltaEvent,
    ResponseTextDoneEvent,
    ResponseUsage,
)
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails

from perdure.offline.turn import Rules, Turn

MODEL_NAME = "offline"
_WORD = re.compile(r"\S+\s*")
# About what tokenizers make of English and JSON.
_CHARACTERS_PER_TOKEN = 4


class OfflineProvider(ModelProvider):
    """Gives the same model for every name. ``on_ask`` is called before each reply is made."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.on_ask: Callable[[], None] | None = None

    def get_model(self, model_name: str | None) -> OfflineModel:
        """Return the model; ``model_name`` makes no difference."""
        return OfflineModel(self._rules, self)


class OfflineModel(Model):
    """Replies as its rules say. Tokens are counted by length: an estimate, the same each time."""

    def __init__(self, rules: Rules, provider: OfflineProvider | None = None) -> None:
        self._rules = rules
        self._provider = provider
        self.model = MODEL_NAME

    async def get_response(
        self,
        system_instructions: str | None,
        input: str | list[Any],
        model_settings: Any,
        tools: list[Any],
        output_schema: Any,
        handoffs: list[Any],
        tracing: Any,
        **rest: Any,
    ) -> ModelResponse:
        """Return the whole reply."""
        response = self._reply(system_instructions, input, tools, handoffs)
        counted = response.usage
        assert counted is not None  # noqa: S101
        return ModelResponse(
            output=response.output,
            usage=Usage(
                requests=1,
                input_tokens=counted.input_tokens,
                output_tokens=counted.output_tokens,
                total_tokens=counted.total_tokens,
            ),
            response_id=response.id,
        )

    async def stream_response(
        self,
        system_instructions: str | None,
        input: str | list[Any],
        model_settings: Any,
        tools: list[Any],
        output_schema: Any,
        handoffs: list[Any],
        tracing: Any,
        **rest: Any,
    ) -> AsyncIterator[TResponseStreamEvent]:
        """Give the reply word by word, as a service would."""
        response = self._reply(system_instructions, input, tools, handoffs)
        for number, event in enumerate(_events(response)):
            event.sequence_number = number
            yield event

    def _reply(
        self,
        instructions: str | None,
        input: str | list[Any],
        tools: list[Any],
        handoffs: list[Any],
    ) -> Response:
        if self._provider is not None and self._provider.on_ask is not None:
            self._provider.on_ask()
        items = [{"role": "user", "content": input}] if isinstance(input, str) else input
        names = [tool.name for tool in tools] + [handoff.tool_name for handoff in handoffs]
        turn = Turn(instructions or "", items, frozenset(names))
        id_ = turn.digest()
        output = _output(self._rules(turn), id_)
        return Response(
            id=f"resp_{id_}",
            created_at=0,
            model=MODEL_NAME,
            object="response",
            output=output,
            tool_choice="auto",
            tools=[],
            parallel_tool_calls=True,
            status="completed",
            usage=_usage([instructions, items], output),
        )


def _output(answer: Any, id_: str) -> list[TResponseOutputItem]:
    if isinstance(answer, str):
        text = ResponseOutputText(type="output_text", text=answer, annotations=[])
        return [
            ResponseOutputMessage(
                id=f"msg_{id_}",
                type="message",
                role="assistant",
                status="completed",
                content=[text],
            )
        ]
    return [
        ResponseFunctionToolCall(
            id=f"fc_{id_}_{index}",
            type="function_call",
            status="completed",
            call_id=f"call_{id_}_{index}",
            name=call.tool,
            arguments=json.dumps(call.arguments),
        )
        for index, call in enumerate(answer)
    ]


def _usage(asked: list[Any], output: list[TResponseOutputItem]) -> ResponseUsage:
    input_tokens = len(json.dumps(asked, default=str)) // _CHARACTERS_PER_TOKEN
    output_tokens = sum(len(item.model_dump_json(exclude={"id", "call_id"})) for item in output)
    output_tokens //= _CHARACTERS_PER_TOKEN
    return ResponseUsage(
        input_tokens=input_tokens,
        input_tokens_details=InputTokensDetails(cached_tokens=0, cache_write_tokens=0),
        output_tokens=output_tokens,
        output_tokens_details=OutputTokensDetails(reasoning_tokens=0),
        total_tokens=input_tokens + output_tokens,
    )


def _events(response: Response) -> Iterator[TResponseStreamEvent]:
    """Give the events of a reply; their numbers are set by the caller."""
    begun = response.model_copy(update={"output": [], "usage": None, "status": "in_progress"})
    yield ResponseCreatedEvent(type="response.created", response=begun, sequence_number=0)
    for index, item in enumerate(response.output):
        if isinstance(item, ResponseOutputMessage):
            yield from _message_events(item, index)
        elif isinstance(item, ResponseFunctionToolCall):
            yield from _call_events(item, index)
        yield ResponseOutputItemDoneEvent(
            type="response.output_item.done", item=item, output_index=index, sequence_number=0
        )
    yield ResponseCompletedEvent(type="response.completed", response=response, sequence_number=0)


def _message_events(item: ResponseOutputMessage, index: int) -> Iterator[TResponseStreamEvent]:
    begun = item.model_copy(update={"content": [], "status": "in_progress"})
    part = item.content[0]
    assert isinstance(part, ResponseOutputText)  # noqa: S101
    place: dict[str, Any] = {"item_id": item.id, "output_index": index, "content_index": 0}
    yield ResponseOutputItemAddedEvent(
        type="response.output_item.added", item=begun, output_index=index, sequence_number=0
    )
    yield ResponseContentPartAddedEvent(
        type="response.content_part.added",
        part=part.model_copy(update={"text": ""}),
        sequence_number=0,
        **place,
    )
    for word in _WORD.findall(part.text):
        yield ResponseTextDeltaEvent(
            type="response.output_text.delta", delta=word, logprobs=[], sequence_number=0, **place
        )
    yield ResponseTextDoneEvent(
        type="response.output_text.done", text=part.text, logprobs=[], sequence_number=0, **place
    )
    yield ResponseContentPartDoneEvent(
        type="response.content_part.done", part=part, sequence_number=0, **place
    )


def _call_events(item: ResponseFunctionToolCall, index: int) -> Iterator[TResponseStreamEvent]:
    begun = item.model_copy(update={"arguments": "", "status": "in_progress"})
    place: dict[str, Any] = {"item_id": item.id, "output_index": index}
    yield ResponseOutputItemAddedEvent(
        type="response.output_item.added", item=begun, output_index=index, sequence_number=0
    )
    yield ResponseFunctionCallArgumentsDeltaEvent(
        type="response.function_call_arguments.delta",
        delta=item.arguments,
        sequence_number=0,
        **place,
    )
    yield ResponseFunctionCallArgumentsDoneEvent(
        type="response.function_call_arguments.done",
        arguments=item.arguments,
        sequence_number=0,
        **place,
    )
