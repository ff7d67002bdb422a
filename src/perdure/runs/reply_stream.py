"""What is heard of one reply while the model makes it, told to who watches the run.

Each attempt begins with ``model.started``; text, refusals, summaries of the reasoning and the
arguments of tool calls follow as ``model.delta``; it ends with ``model.completed``, in the commit
of the reply, or with ``model.superseded``, which takes back what was streamed of it. So of a
reply's completed attempt the deltas of type ``text`` joined are its text, also where a provider
streams nothing: then the text is one delta.
"""

from __future__ import annotations

from typing import Any, Final

from agents.items import TResponseStreamEvent
from openai.types.responses import ResponseOutputItemAddedEvent

from perdure.ledger.streams import StreamWriter
from perdure.ledger.telling import Told
from perdure.ledger.unsent import Source

_TYPES: Final = {
    "response.output_text.delta": "text",
    "response.refusal.delta": "refusal",
    "response.reasoning_summary_text.delta": "reasoning",
    "response.reasoning_text.delta": "reasoning",
    "response.function_call_arguments.delta": "arguments",
    "response.mcp_call_arguments.delta": "arguments",
    "response.custom_tool_call_input.delta": "arguments",
}


class ReplyStream:
    """The stream of one reply to be, through its attempts; ``attempt`` counts them."""

    def __init__(
        self,
        writer: StreamWriter,
        source: Source,
        reply_id: str,
        agent: str,
        scope: str,
        model: str,
    ) -> None:
        self._writer = writer
        self._source = source
        self._about = {"model_response_id": reply_id, "agent": agent, "scope": scope}
        self._model = model
        self.attempt = 0
        self._open = False
        self._streamed: dict[int, int] = {}
        self._calls: dict[int, dict[str, Any]] = {}
        self._dropped = 0

    def begin(self) -> None:
        """Begin an attempt; the one before it, if there was one, is taken back."""
        self.end("retry")
        self.attempt += 1
        self._open = True
        self._streamed.clear()
        self._calls.clear()
        self._dropped = 0
        self._add("model.started", model=self._model)

    def hear(self, event: TResponseStreamEvent) -> None:
        """Take what a provider's event adds to the reply; most add nothing."""
        name, index = _TYPES.get(event.type), getattr(event, "output_index", 0)
        if name is not None:
            text = getattr(event, "delta", None)
            if isinstance(text, str) and text:
                self._delta(name, index, text)
        elif isinstance(event, ResponseOutputItemAddedEvent):
            tool = getattr(event.item, "name", None)
            if tool is not None:
                call_id = getattr(event.item, "call_id", None) or getattr(event.item, "id", None)
                self._calls[index] = {"call_id": call_id, "tool": tool}

    async def finish(self, output: list[dict[str, Any]]) -> list[Told]:
        """End with the reply's ``output``; returns what is to be written with it, before it."""
        for index, item in enumerate(output):
            if item.get("type") == "message":
                parts = item.get("content") or ()
                text = "".join(part.get("text") or "" for part in parts)
                rest = text[self._streamed.get(index, 0) :]
                if rest:
                    self._delta("text", index, rest)
        if self._dropped:
            self._add("model.delta", type="text", index=0, delta="", dropped=self._dropped)
        self._open = False
        return await self._writer.take(self._source, self._about["model_response_id"])

    def end(self, reason: str) -> None:
        """Take back an attempt that came to nothing, if there is one."""
        if not self._open:
            return
        self._open = False
        attempt = self._about["model_response_id"], self.attempt
        if not self._writer.withdraw(self._source, attempt):
            self._add("model.superseded", model=self._model, reason=reason)

    def _delta(self, name: str, index: int, text: str) -> None:
        about: dict[str, Any] = {"type": name, "index": index}
        if name == "arguments":
            about |= self._calls.get(index, {})
        if self._dropped:
            about["dropped"] = self._dropped
        if name == "text":
            self._streamed[index] = self._streamed.get(index, 0) + len(text)
        if self._add("model.delta", text, **about):
            self._dropped = 0
        else:
            self._dropped += len(text)

    def _add(self, kind: str, text: str | None = None, **about: Any) -> bool:
        data = {**self._about, "attempt": self.attempt, **about}
        return self._writer.add(self._source, kind, data, text)
