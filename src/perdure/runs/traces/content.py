"""What models were told and said, in the conventions' shape: for spans that are to hold it."""

from __future__ import annotations

import json
from typing import Any

from perdure.runs.reply_rows import dump_item

Attributes = dict[str, str]


def of_request(system: str | None, model_input: str | list[Any]) -> Attributes:
    """Return the attributes of what a model is told."""
    items = model_input
    if isinstance(items, str):
        items = [{"role": "user", "content": items}]
    attributes = {"gen_ai.input.messages": _dumped([_message(dump_item(one)) for one in items])}
    if system:
        attributes["gen_ai.system_instructions"] = _dumped([_text(system)])
    return attributes


def of_reply(output: list[dict[str, Any]]) -> Attributes:
    """Return the attributes of what a model said; ``output`` are the items of its reply."""
    parts = [part for item in output for part in _message(item)["parts"]]
    return {"gen_ai.output.messages": _dumped([{"role": "assistant", "parts": parts}])}


def of_arguments(arguments_raw: str | None, arguments: dict[str, Any] | None) -> Attributes:
    """Return the attribute of what a tool is called with."""
    given = arguments_raw if arguments_raw is not None else _dumped(arguments)
    return {"gen_ai.tool.call.arguments": given}


def of_result(stored: dict[str, Any] | None, error: str | None) -> Attributes:
    """Return the attribute of what a tool gave, or of the words it failed with."""
    return {"gen_ai.tool.call.result": error if error is not None else _dumped(stored)}


def _message(item: dict[str, Any]) -> dict[str, Any]:
    kind = item.get("type", "message")
    if kind == "message":
        content = item.get("content")
        parts = (
            [_text(content)]
            if isinstance(content, str)
            else [_part(one) for one in content or () if isinstance(one, dict)]
        )
        return {"role": item.get("role", "assistant"), "parts": parts}
    if kind == "function_call":
        part = {
            "type": "tool_call",
            "id": item.get("call_id"),
            "name": item.get("name"),
            "arguments": item.get("arguments"),
        }
        return {"role": "assistant", "parts": [part]}
    if kind.endswith("_call_output"):
        part = {
            "type": "tool_call_response",
            "id": item.get("call_id"),
            "response": item.get("output"),
        }
        return {"role": "tool", "parts": [part]}
    return {"role": "assistant", "parts": [item]}


def _part(one: dict[str, Any]) -> dict[str, Any]:
    return _text(one["text"]) if isinstance(one.get("text"), str) else one


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "content": text}


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
