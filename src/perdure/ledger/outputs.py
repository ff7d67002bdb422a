"""A tool's output as JSON, and back to what the SDK would have been given.

The stored shapes are ``{"type": "text", "text": …}``, ``{"type": "json", "value": …}`` and
``{"type": "content", "value": [...]}`` for the SDK's text, image and file outputs.
"""

from __future__ import annotations

import json
from typing import Any

from agents import ToolOutputFileContent, ToolOutputImage, ToolOutputText
from pydantic import BaseModel, TypeAdapter

_CONTENT: tuple[type[BaseModel], ...] = (ToolOutputText, ToolOutputImage, ToolOutputFileContent)
_CONTENT_BY_TYPE = {"text": ToolOutputText, "image": ToolOutputImage, "file": ToolOutputFileContent}


def _is_json(value: Any) -> bool:
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError, RecursionError):
        return False


def is_content(value: Any) -> bool:
    """Whether ``value`` is one of the SDK's text, image and file outputs, or a list of them."""
    parts = value if isinstance(value, list) else [value]
    return bool(parts) and all(isinstance(part, _CONTENT) for part in parts)


def encode_output(value: Any, adapter: TypeAdapter[Any] | None = None) -> dict[str, Any]:
    """Return the JSON to store for a tool's return ``value``.

    ``adapter`` is the tool's output type, where it declares one. What is no JSON is stored as
    the text the SDK would show the model.
    """
    if isinstance(value, str):
        return {"type": "text", "text": value}
    if is_content(value):
        parts = value if isinstance(value, list) else [value]
        content = [part.model_dump(mode="json", exclude_unset=False) for part in parts]
        return {"type": "content", "value": content, "list": isinstance(value, list)}
    if adapter is not None:
        dumped = adapter.dump_python(value, mode="json", by_alias=False)
        if _is_json(dumped):
            return {"type": "json", "value": dumped, "typed": True}
        # NaN and infinities: as text the SDK reads it with the tool's type as well.
        return {"type": "text", "text": json.dumps(dumped)}
    if _is_json(value):
        return {"type": "json", "value": value}
    return {"type": "text", "text": str(value)}


def decode_output(stored: dict[str, Any], adapter: TypeAdapter[Any] | None = None) -> Any:
    """Return what the tool returned, as the SDK would show it to the model, from ``stored``.

    Raises:
        ValueError: when ``stored`` is of no known shape.
    """
    match stored.get("type"):
        case "text":
            return stored["text"]
        case "content":
            parts = [_CONTENT_BY_TYPE[part["type"]](**part) for part in stored["value"]]
            return parts if stored.get("list") else parts[0]
        case "json":
            value = stored["value"]
            if adapter is None or not stored.get("typed"):
                return value
            return adapter.validate_python(value, by_alias=True, by_name=True)
        case other:
            raise ValueError(f"A stored tool output has the unknown type {other!r}.")
