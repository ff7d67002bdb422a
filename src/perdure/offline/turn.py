"""What a rule is asked, and what it may answer. Pure; knows nothing of the SDK."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Item = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a tool, or of a handoff, which is a tool called ``transfer_to_<agent>``."""

    tool: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


Answer = str | Sequence[Call]
"""A final text, or calls made at once."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One question to the model: Responses input items and the names of what it may call."""

    instructions: str
    items: Sequence[Item]
    tools: frozenset[str]

    @property
    def question(self) -> str:
        """The latest text of the user."""
        return next((text for item in reversed(self.items) if (text := _user_text(item))), "")

    @property
    def said(self) -> list[str]:
        """All texts of the user, the oldest first."""
        return [text for item in self.items if (text := _user_text(item))]

    @property
    def prompt(self) -> str:
        """The system prompt of the conversation, beside the agent's instructions."""
        return " ".join(
            _text(item["content"]) for item in self.items if item.get("role") == "system"
        )

    def outputs(self, tool: str) -> list[str]:
        """Return what the calls of ``tool`` gave since the latest text of the user, in order."""
        recent = self._since_question()
        ids = {
            item["call_id"]
            for item in recent
            if item.get("type") == "function_call" and item.get("name") == tool
        }
        return [
            _text(item["output"])
            for item in recent
            if item.get("type") == "function_call_output" and item["call_id"] in ids
        ]

    def output(self, tool: str) -> str | None:
        """Return what the latest call of ``tool`` gave since the user's text, None without one."""
        return next(iter(self.outputs(tool)[::-1]), None)

    def digest(self) -> str:
        """Return 32 hex digits that are the same for the same question and no other."""
        asked = [self.instructions, list(self.items), sorted(self.tools)]
        text = json.dumps(asked, sort_keys=True, default=repr)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def _since_question(self) -> Sequence[Item]:
        for index in range(len(self.items) - 1, -1, -1):
            if _user_text(self.items[index]):
                return self.items[index + 1 :]
        return self.items


Rules = Callable[[Turn], Answer]


def _user_text(item: Item) -> str:
    if item.get("role") != "user":
        return ""
    return _text(item.get("content", ""))


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return " ".join(
        str(part["text"]) for part in content if isinstance(part, Mapping) and "text" in part
    )
