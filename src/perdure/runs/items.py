"""What a run said and did, item by item, as rows of ``run_items``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agents import ModelResponse, RunItem

from perdure.db import uuid7

_ROLES = {
    "message_output_item": "assistant",
    "reasoning_item": "assistant",
    "tool_call_item": "assistant",
    "handoff_call_item": "assistant",
    "tool_call_output_item": "tool",
    "handoff_output_item": "tool",
}


def input_rows(run_input: str | list[Any]) -> list[dict[str, Any]]:
    """Return the rows of a run's own input, the first of its items."""
    items = (
        [{"role": "user", "content": run_input}] if isinstance(run_input, str) else list(run_input)
    )
    return [_input_row(item) for item in items]


def _input_row(item: Any) -> dict[str, Any]:
    return {
        "id": str(uuid7()),
        "type": str(item.get("type", "message")),
        "role": item.get("role"),
        "agent": None,
        "text": _content_text(item.get("content")),
        "item": item,
        "token_count": None,
    }


def token_counts(replies: Sequence[ModelResponse]) -> dict[int, int]:
    """Return how many tokens the model wrote for each output item of which that is known.

    By the item's ``id()``: the SDK makes its run items of these very objects. Usage is of a whole
    reply: it is an item's where the reply has one such item, reasoning counted apart.
    """
    counts = {}
    for reply in replies:
        written = reply.usage.output_tokens
        reasoned = reply.usage.output_tokens_details.reasoning_tokens
        reasoning = [item for item in reply.output if _type(item) == "reasoning"]
        others = [item for item in reply.output if _type(item) != "reasoning"]
        if len(others) == 1 and written > reasoned:
            counts[id(others[0])] = written - reasoned
        if len(reasoning) == 1 and reasoned:
            counts[id(reasoning[0])] = reasoned
    return counts


def _type(item: Any) -> str | None:
    kind = item.get("type") if isinstance(item, dict) else item.type
    return None if kind is None else str(kind)


def item_rows(
    items: Sequence[RunItem], skip: int = 0, counts: Mapping[int, int] | None = None
) -> list[dict[str, Any]]:
    """Return the rows of what came after that, less the first ``skip``.

    Open approvals are left out, and do not count. ``counts`` are those of ``token_counts``.
    """
    told = [item for item in items if item.type != "tool_approval_item"]
    return [_row(item, (counts or {}).get(id(item.raw_item))) for item in told[max(0, skip) :]]


def _row(item: RunItem, token_count: int | None) -> dict[str, Any]:
    raw = item.to_input_item()
    if item.type == "input_item":
        # Added while the run was under way.
        return _input_row(raw)
    text = None
    if item.type == "message_output_item":
        text = _content_text(raw.get("content"))
    elif item.type == "tool_call_output_item":
        output = raw.get("output")
        text = output if isinstance(output, str) else None
    return {
        "id": str(uuid7()),
        "type": item.type.removesuffix("_item"),
        "role": _ROLES.get(item.type),
        "agent": item.agent.name,
        "text": text,
        "item": raw,
        "token_count": token_count,
    }


def _content_text(content: Any) -> str | None:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        return "".join(text for text in texts if isinstance(text, str)) or None
    return None
