"""A model that streams its replies as a provider does, and how a program sees a stream."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Iterator
from itertools import groupby
from typing import Any

from agents import (
    AgentUpdatedStreamEvent,
    RawResponsesStreamEvent,
    RunItemStreamEvent,
)
from openai.types.responses import (
    ResponseContentPartAddedEvent,
    ResponseContentPartDoneEvent,
    ResponseCreatedEvent,
    ResponseFunctionCallArgumentsDeltaEvent,
    ResponseFunctionCallArgumentsDoneEvent,
    ResponseOutputItemAddedEvent,
    ResponseOutputItemDoneEvent,
    ResponseOutputRefusal,
    ResponseReasoningItem,
    ResponseReasoningSummaryTextDeltaEvent,
    ResponseReasoningSummaryTextDoneEvent,
    ResponseRefusalDeltaEvent,
    ResponseRefusalDoneEvent,
    ResponseTextDeltaEvent,
    ResponseTextDoneEvent,
)

from tests.engine_support import RuleModel, completed_event

_WORD = re.compile(r"\S+\s*")


class StreamedModel(RuleModel):
    """A RuleModel that gives each reply piece by piece, one word a piece.

    ``pause`` is awaited before the piece of that number, counted over all replies from 1.
    """

    def __init__(self, rule: Any, pauses: dict[int, Any] | None = None) -> None:
        super().__init__(rule)
        self.pauses = pauses or {}
        self.pieces = 0

    async def stream_response(
        self, system_instructions: Any, input: Any, *args: Any, **rest: Any
    ) -> AsyncIterator[Any]:
        completed = completed_event(await self._reply(input))
        for number, event in enumerate([*_events(completed.response), completed]):
            event.sequence_number = number
            if event.type.endswith(".delta"):
                self.pieces += 1
                pause = self.pauses.pop(self.pieces, None)
                if pause is not None:
                    await pause()
            yield event


def _make(kind: Any, name: str, **fields: Any) -> Any:
    return kind(type=name, sequence_number=0, **fields)


def _events(response: Any) -> Iterator[Any]:
    begun = response.model_copy(update={"output": [], "usage": None, "status": "in_progress"})
    yield _make(ResponseCreatedEvent, "response.created", response=begun)
    for index, item in enumerate(response.output):
        place = {"item_id": item.id or f"item_{index}", "output_index": index}
        yield _make(
            ResponseOutputItemAddedEvent, "response.output_item.added", item=item,
            output_index=index,
        )  # fmt: skip
        match item.type:
            case "message":
                yield from _message(item, place)
            case "reasoning":
                name = "response.reasoning_summary_text"
                text = item.summary[0].text
                for word in _WORD.findall(text):
                    yield _make(
                        ResponseReasoningSummaryTextDeltaEvent, f"{name}.delta", delta=word,
                        summary_index=0, **place,
                    )  # fmt: skip
                yield _make(
                    ResponseReasoningSummaryTextDoneEvent, f"{name}.done", text=text,
                    summary_index=0, **place,
                )  # fmt: skip
            case "function_call":
                name = "response.function_call_arguments"
                for word in _WORD.findall(item.arguments):
                    yield _make(
                        ResponseFunctionCallArgumentsDeltaEvent, f"{name}.delta", delta=word,
                        **place,
                    )  # fmt: skip
                yield _make(
                    ResponseFunctionCallArgumentsDoneEvent, f"{name}.done",
                    arguments=item.arguments, **place,
                )  # fmt: skip
        yield _make(
            ResponseOutputItemDoneEvent, "response.output_item.done", item=item, output_index=index
        )


def _message(item: Any, place: dict[str, Any]) -> Iterator[Any]:
    [part] = item.content
    place = {**place, "content_index": 0}
    yield _make(
        ResponseContentPartAddedEvent, "response.content_part.added",
        part=part.model_copy(update={"text": ""}), **place,
    )  # fmt: skip
    if isinstance(part, ResponseOutputRefusal):
        yield _make(
            ResponseRefusalDeltaEvent, "response.refusal.delta", delta=part.refusal, **place
        )
        yield _make(
            ResponseRefusalDoneEvent, "response.refusal.done", refusal=part.refusal, **place
        )
    else:
        for word in _WORD.findall(part.text):
            yield _make(
                ResponseTextDeltaEvent, "response.output_text.delta", delta=word, logprobs=[],
                **place,
            )  # fmt: skip
        yield _make(
            ResponseTextDoneEvent, "response.output_text.done", text=part.text, logprobs=[], **place
        )
    yield _make(ResponseContentPartDoneEvent, "response.content_part.done", part=part, **place)


def thought(text: str) -> ResponseReasoningItem:
    """A reasoning item with a summary."""
    return ResponseReasoningItem.model_validate(
        {
            "id": "rs_1",
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": text}],
        }
    )


def seen(event: Any) -> tuple[str, ...]:
    """What a program sees of a stream event: its type, its name, what it is about."""
    match event:
        case RawResponsesStreamEvent(data=data):
            return (data.type, str(getattr(data, "output_index", "")), _text_of(data))
        case AgentUpdatedStreamEvent(new_agent=agent):
            return (event.type, agent.name)
        case RunItemStreamEvent(name=name, item=item):
            return (name, item.type, item.agent.name, _about(item))
    return (event.type, getattr(event, "reason", ""))


def _text_of(data: Any) -> str:
    if data.type == "response.completed":
        parts = [_about_raw(item) for item in data.response.output]
        return f"{parts} {data.response.usage.total_tokens}"
    if data.type.startswith("response.output_item"):
        item = data.item
        whole = data.type.endswith("done")
        return f"{item.type} {getattr(item, 'call_id', '')} {_about_raw(item) if whole else ''}"
    for name in ("delta", "text", "arguments", "refusal"):
        if hasattr(data, name):
            return str(getattr(data, name))
    return ""


def _about(item: Any) -> str:
    raw = item.raw_item
    return str(raw.get("output")) if isinstance(raw, dict) else _about_raw(raw)


def _about_raw(raw: Any) -> str:
    match raw.type:
        case "message":
            return "".join(getattr(part, "text", "") or part.refusal for part in raw.content)
        case "reasoning":
            return "".join(part.text for part in raw.summary)
        case "web_search_call":
            return str(raw.id)
        case "custom_tool_call":
            return str(raw.input)
    return f"{raw.name} {raw.arguments} {raw.call_id}"


def joined(events: Iterable[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The events with deltas that follow each other as one: how they were cut says nothing."""
    found: list[tuple[str, ...]] = []
    for (name, *rest), group in groupby(events, lambda one: (one[0], one[1])):
        same = list(group)
        if name.endswith(".delta"):
            found.append((name, *rest, "".join(one[2] for one in same)))
        else:
            found += same
    return found
