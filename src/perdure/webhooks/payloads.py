"""What is sent: an event, when it happened, and the object it happened to. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from perdure.times import rfc3339

__all__ = ["MAX_BYTES", "payload"]

MAX_BYTES = 256 * 1024
"""What is larger is sent without what models and tools wrote: receivers refuse large bodies."""
_KEPT = (
    "id",
    "object",
    "run_id",
    "type",
    "status",
    "agent",
    "current_agent",
    "user_id",
    "session_id",
    "digest",
    "required",
    "requested_at",
    "expires_at",
    "closed_at",
    "created_at",
    "finished_at",
)


def payload(event: str, happened_at: datetime, data: Mapping[str, Any]) -> str:
    """Return the JSON text that is sent for an event.

    ``data`` has the objects it is about, as the API shows them: ``run`` or ``interruption``. Where
    it all is too large each is cut to what identifies it, and marked ``"truncated": true``.
    """
    whole = _text(event, happened_at, data)
    if len(whole.encode()) <= MAX_BYTES:
        return whole
    return _text(event, happened_at, {name: _cut(value) for name, value in data.items()})


def _cut(value: Any) -> Any:
    if not isinstance(value, Mapping) or "object" not in value:
        return value
    return {name: value[name] for name in _KEPT if name in value} | {"truncated": True}


def _text(event: str, happened_at: datetime, data: Mapping[str, Any]) -> str:
    content = {"type": event, "timestamp": rfc3339(happened_at), "data": data}
    # ASCII alone: what models write may hold what has no UTF-8 form.
    return json.dumps(content, allow_nan=False, separators=(",", ":"))
