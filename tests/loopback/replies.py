"""What a model is asked and what it replies, whichever of the two APIs carries it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perdure.offline.turn import Answer, Turn

Item = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request's body; what is in it in the words of the Responses API."""

    body: Mapping[str, Any]

    @property
    def is_chat(self) -> bool:
        """Whether it is for chat completions."""
        return "messages" in self.body

    @property
    def items(self) -> list[Item]:
        """The input items."""
        if self.is_chat:
            return [item for message in self.body["messages"] for item in _items_of(message)]
        given = self.body["input"]
        return [{"role": "user", "content": given}] if isinstance(given, str) else list(given)

    @property
    def question(self) -> str:
        """The first text of the user."""
        return str(next(item["content"] for item in self.items if item.get("role") == "user"))

    @property
    def outputs(self) -> dict[str, Any]:
        """What tools returned, by call id."""
        return {
            item["call_id"]: item["output"]
            for item in self.items
            if item.get("type") == "function_call_output"
        }

    @property
    def tools(self) -> frozenset[str]:
        """Names of the functions it may call."""
        return frozenset(
            tool["function"]["name"] if "function" in tool else tool["name"]
            for tool in self.body.get("tools") or ()
        )


Rule = Callable[[Asked], Sequence[Item]]
"""A request in, output items out, as the functions below make them."""


def text(words: str) -> Item:
    """A message of the model."""
    return {
        "id": _id("msg"),
        "type": "message",
        "status": "completed",
        "content": [{"type": "output_text", "annotations": [], "logprobs": [], "text": words}],
        "role": "assistant",
    }


def call(name: str, call_id: str = "", /, **arguments: Any) -> Item:
    """A call of a function, with an id of its own unless one is given."""
    return {
        "id": _id("fc"),
        "type": "function_call",
        "status": "completed",
        "arguments": json.dumps(arguments, ensure_ascii=False, separators=(",", ":")),
        "call_id": call_id or _id("call"),
        "name": name,
    }


def reasoning(summary: str, encrypted: str) -> Item:
    """What the model thought: a summary, and the whole of it sealed."""
    return {
        "id": _id("rs"),
        "type": "reasoning",
        "encrypted_content": encrypted,
        "summary": [{"type": "summary_text", "text": summary}],
    }


def in_turn(*replies: str | Sequence[Item]) -> Rule:
    """A rule whose n-th reply is the one to n outputs of tools; the last one is for ever."""

    def rule(asked: Asked) -> Sequence[Item]:
        reply = replies[min(len(asked.outputs), len(replies) - 1)]
        return [text(reply)] if isinstance(reply, str) else reply

    return rule


def by_rules(answer: Callable[[Turn], Answer]) -> Rule:
    """The rules the examples run offline with, on the other side of the wire."""

    def rule(asked: Asked) -> Sequence[Item]:
        said = answer(Turn(asked.body.get("instructions") or "", asked.items, asked.tools))
        if isinstance(said, str):
            return [text(said)]
        return [call(one.tool, **one.arguments) for one in said]

    return rule


def _id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"


def _items_of(message: Mapping[str, Any]) -> list[Item]:
    role = message["role"]
    if role == "tool":
        return [
            {
                "type": "function_call_output",
                "call_id": message["tool_call_id"],
                "output": message["content"],
            }
        ]
    said = [{"role": role, "content": message["content"]}] if message.get("content") else []
    calls = [
        {"type": "function_call", "call_id": one["id"], **one["function"]}
        for one in message.get("tool_calls") or ()
    ]
    return said + calls
