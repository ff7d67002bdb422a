"""A model that streams: what it says piece by piece, and where it stops, fails or waits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from agents.testing import assistant_message, function_call
from openai.types.responses import (
    ResponseFunctionCallArgumentsDeltaEvent,
    ResponseOutputItemAddedEvent,
    ResponseReasoningItem,
    ResponseReasoningSummaryTextDeltaEvent,
    ResponseTextDeltaEvent,
)
from openai.types.responses.response_reasoning_item import Summary

from perdure.events import Event
from tests.engine_support import RuleModel, completed_event, replies_in

Said = str | tuple[str, ...] | Exception | Callable[[], Awaitable[None]]
"""A piece of text; ``("reasoning", pieces…)``; ``("call", name, id, pieces…)``; an exception to
raise; or something to await, such as a gate's ``stop``."""


class StreamingModel(RuleModel):
    """Streams the n-th of ``replies`` to an input with n replies in it; the last one for ever.

    ``before`` are replies that come first, one for each time it is asked, whatever the input.
    """

    def __init__(self, *replies: Sequence[Said], before: Sequence[Sequence[Said]] = ()) -> None:
        super().__init__(lambda _: [])
        self.replies = replies
        self._before = list(before)

    async def stream_response(
        self, system_instructions: Any, input: Any, *args: Any, **rest: Any
    ) -> AsyncIterator[Any]:
        items = [{"role": "user", "content": input}] if isinstance(input, str) else list(input)
        self.inputs.append(items)
        if self._before:
            reply = self._before.pop(0)
        else:
            reply = self.replies[min(replies_in(items), len(self.replies) - 1)]
        async for event in streamed(reply):
            yield event


async def streamed(reply: Sequence[Said]) -> AsyncIterator[Any]:
    """The events of a reply as a provider sends them."""
    output: list[Any] = []
    text: list[str] | None = None
    for said in reply:
        if isinstance(said, Exception):
            raise said
        if callable(said):
            await said()
        elif isinstance(said, str):
            if text is None:
                text = []
                output.append(text)
            text.append(said)
            yield ResponseTextDeltaEvent(
                type="response.output_text.delta", content_index=0, delta=said, item_id="m",
                output_index=len(output) - 1, logprobs=[], sequence_number=0,
            )  # fmt: skip
        elif said[0] == "reasoning":
            text = None
            summary = Summary(text="".join(said[1:]), type="summary_text")
            output.append(ResponseReasoningItem(id="r", summary=[summary], type="reasoning"))
            for piece in said[1:]:
                yield ResponseReasoningSummaryTextDeltaEvent(
                    type="response.reasoning_summary_text.delta", delta=piece, item_id="r",
                    output_index=len(output) - 1, summary_index=0, sequence_number=0,
                )  # fmt: skip
        else:
            text = None
            _, name, call_id, *pieces = said
            item = function_call(name, "".join(pieces), call_id=call_id)
            output.append(item)
            yield ResponseOutputItemAddedEvent(
                type="response.output_item.added", item=item, output_index=len(output) - 1,
                sequence_number=0,
            )  # fmt: skip
            for piece in pieces:
                yield ResponseFunctionCallArgumentsDeltaEvent(
                    type="response.function_call_arguments.delta", delta=piece, item_id="c",
                    output_index=len(output) - 1, sequence_number=0,
                )  # fmt: skip
    yield completed_event(
        [assistant_message("".join(one)) if isinstance(one, list) else one for one in output]
    )


def replies_told(events: Sequence[Event]) -> list[dict[str, str]]:
    """Of each reply that was completed, in order: its deltas joined, by type.

    Checks that each attempt begins once, ends once, and streams only in between.
    """
    streamed: dict[tuple[str, int], dict[str, str]] = {}
    ended: set[tuple[str, int]] = set()
    completed = []
    for one in events:
        if not one.event.startswith("model."):
            continue
        key = one.data["model_response_id"], one.data["attempt"]
        assert key not in ended, one
        if one.event == "model.started":
            assert key not in streamed, one
            streamed[key] = {}
        elif one.event == "model.delta":
            told = streamed[key]
            told[one.data["type"]] = told.get(one.data["type"], "") + one.data["delta"]
        else:
            assert key in streamed, one
            ended.add(key)
            if one.event == "model.completed":
                completed.append(streamed[key])
    assert ended == set(streamed)
    return completed
