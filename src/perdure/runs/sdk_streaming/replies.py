"""A reply of a model as the provider's own stream would give it, made of its deltas and its record.

While it comes there are deltas; what it was, item by item, is known when it is recorded. So an item
begins with its first delta, under an id of ours, and every ``…done`` comes with the record. A text
that was not given while it came (nobody streamed it, its deltas are thinned away) is given then, in
one delta: what adds deltas up has all of it, once. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from agents import RawResponsesStreamEvent
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
    ResponseOutputRefusal,
    ResponseOutputText,
    ResponseReasoningItem,
    ResponseReasoningSummaryTextDeltaEvent,
    ResponseReasoningSummaryTextDoneEvent,
    ResponseRefusalDeltaEvent,
    ResponseRefusalDoneEvent,
    ResponseTextDeltaEvent,
    ResponseTextDoneEvent,
)

_Raw = RawResponsesStreamEvent
_STREAMED: Final = frozenset({"message", "reasoning", "function_call"})
"""Items that come in deltas; others come whole."""


@dataclass
class Reply:
    """One attempt at a reply, as far as it has been given.

    ``gap``: some of it was given to a reader who comes back, and nobody knows any more what.
    """

    id: str
    attempt: int
    model: str
    gap: bool = False
    _number: int = 0
    _texts: dict[tuple[int, str], str] = field(default_factory=dict)
    """What was given, by output index and type."""
    _begun: set[int] = field(default_factory=set)

    def created(self) -> _Raw:
        """Return that the model was asked. The response's id is ours: its own is known later."""
        response = Response.construct(
            id=self.id,
            created_at=0,
            object="response",
            model=self.model,
            output=[],
            status="in_progress",
            parallel_tool_calls=True,
            tool_choice="auto",
            tools=[],
        )
        return self._next(ResponseCreatedEvent, "response.created", response=response)

    def delta(self, data: Mapping[str, Any]) -> list[_Raw]:
        """Return what a delta of the log is, behind the item's beginning if it is its first."""
        index, kind, text = data["index"], data["type"], data["delta"]
        if kind not in _DELTAS or not text:
            return []  # of a later version; or it only says that what came last was dropped
        begun = list(self._begin(index, kind, data)) if index not in self._begun else []
        self._texts[index, kind] = self._texts.get((index, kind), "") + text
        return [*begun, self._delta(index, kind, text)]

    def completed(self, event: ResponseCompletedEvent) -> list[_Raw]:
        """Return what is left of the reply, now that it is recorded."""
        given = [
            one
            for index, item in enumerate(event.response.output)
            for one in self._rest_of(index, item)
        ]
        event.sequence_number = self._number
        return [*given, _Raw(data=event)]

    def _rest_of(self, index: int, item: Any) -> Iterator[_Raw]:
        place = {"output_index": index}
        if item.type not in _STREAMED:
            if index not in self._begun:
                yield self._next(
                    ResponseOutputItemAddedEvent, "response.output_item.added", item=item, **place
                )
        elif item.type == "message":
            yield from self._rest_of_message(index, item)
        else:
            data = {"call_id": getattr(item, "call_id", ""), "tool": getattr(item, "name", "")}
            kind = "arguments" if item.type == "function_call" else "reasoning"
            if index not in self._begun:
                yield from self._begin(index, kind, data)
            text = _whole(item, self._texts.get((index, kind), ""))
            yield from self._missing(index, kind, text)
            if text:
                yield self._done(index, kind, text)
        yield self._next(
            ResponseOutputItemDoneEvent, "response.output_item.done", item=item, **place
        )

    def _rest_of_message(self, index: int, item: Any) -> Iterator[_Raw]:
        if not item.content and index not in self._begun:
            yield from self._begin(index, "text", {})
        for kind in ("text", "refusal"):
            parts = [
                (number, part) for number, part in enumerate(item.content) if hasattr(part, kind)
            ]
            whole = "".join(getattr(part, kind) for _, part in parts)
            if parts and index not in self._begun:
                yield from self._begin(index, kind, {})
            yield from self._missing(index, kind, whole)
            for number, part in parts:
                yield self._done(index, kind, getattr(part, kind), number)
                yield self._next(
                    ResponseContentPartDoneEvent,
                    "response.content_part.done",
                    content_index=number,
                    part=part,
                    **self._place(index),
                )

    def _missing(self, index: int, kind: str, whole: str) -> Iterator[_Raw]:
        given = self._texts.get((index, kind), "")
        # Where characters were dropped on the way nothing can be added that makes it whole: that
        # is in what comes now, the item and the response.
        if len(given) < len(whole) and whole.startswith(given):
            self._texts[index, kind] = whole
            yield self._delta(index, kind, whole[len(given) :])

    def _begin(self, index: int, kind: str, data: Mapping[str, Any]) -> Iterator[_Raw]:
        self._begun.add(index)
        item_id = self._place(index)["item_id"]
        item: Any
        part: Any = None
        if kind == "arguments":
            item = ResponseFunctionToolCall.construct(
                id=item_id,
                type="function_call",
                call_id=data.get("call_id") or "",
                name=data.get("tool") or "",
                arguments="",
                status="in_progress",
            )
        elif kind == "reasoning":
            item = ResponseReasoningItem(id=item_id, type="reasoning", summary=[])
        else:
            item = ResponseOutputMessage(
                id=item_id, type="message", role="assistant", status="in_progress", content=[]
            )
            part = (
                ResponseOutputText(type="output_text", text="", annotations=[])
                if kind == "text"
                else ResponseOutputRefusal(type="refusal", refusal="")
            )
        yield self._next(
            ResponseOutputItemAddedEvent, "response.output_item.added", item=item,
            output_index=index,
        )  # fmt: skip
        if part is not None:
            yield self._next(
                ResponseContentPartAddedEvent,
                "response.content_part.added",
                part=part,
                content_index=0,
                **self._place(index),
            )

    def _delta(self, index: int, kind: str, text: str) -> _Raw:
        make, name, more = _DELTAS[kind]
        return self._next(make, name, delta=text, **more, **self._place(index))

    def _done(self, index: int, kind: str, text: str, part: int = 0) -> _Raw:
        make, name, key, more = _DONE[kind]
        more = {**more, "content_index": part} if "content_index" in more else more
        return self._next(make, name, **{key: text}, **more, **self._place(index))

    def _place(self, index: int) -> dict[str, Any]:
        return {"item_id": f"{self.id}:{self.attempt}:{index}", "output_index": index}

    def _next(self, make: Callable[..., Any], name: str, **fields: Any) -> _Raw:
        # As the client makes them, unchecked: what a provider left out was let in once.
        event = make.construct(type=name, sequence_number=self._number, **fields)  # type: ignore[attr-defined]
        self._number += 1
        return _Raw(data=event)


_DELTAS: Final[dict[str, tuple[Any, str, dict[str, Any]]]] = {
    "text": (
        ResponseTextDeltaEvent,
        "response.output_text.delta",
        {"content_index": 0, "logprobs": []},
    ),
    "refusal": (ResponseRefusalDeltaEvent, "response.refusal.delta", {"content_index": 0}),
    "reasoning": (
        ResponseReasoningSummaryTextDeltaEvent,
        "response.reasoning_summary_text.delta",
        {"summary_index": 0},
    ),
    "arguments": (
        ResponseFunctionCallArgumentsDeltaEvent,
        "response.function_call_arguments.delta",
        {},
    ),
}
_DONE: Final[dict[str, tuple[Any, str, str, dict[str, Any]]]] = {
    "text": (
        ResponseTextDoneEvent,
        "response.output_text.done",
        "text",
        {"content_index": 0, "logprobs": []},
    ),
    "refusal": (ResponseRefusalDoneEvent, "response.refusal.done", "refusal", {"content_index": 0}),
    "reasoning": (
        ResponseReasoningSummaryTextDoneEvent,
        "response.reasoning_summary_text.done",
        "text",
        {"summary_index": 0},
    ),
    "arguments": (
        ResponseFunctionCallArgumentsDoneEvent,
        "response.function_call_arguments.done",
        "arguments",
        {},
    ),
}


def _whole(item: Any, given: str) -> str:
    """Return the whole text of a call's arguments, or of what a model thought.

    Of that there may be a summary and the words themselves; ``given`` tells which was streamed.
    """
    if item.type == "function_call":
        return str(item.arguments or "")
    summary = "".join(part.text for part in item.summary or [])
    words = "".join(part.text for part in item.content or [])
    return words if words.startswith(given) and not summary.startswith(given) else summary or words
