"""What a ledger entry tells who watches its run: the events written with it.

Short: ids, names and the beginnings of texts. The whole stands in the rows they name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from perdure.ledger.journal import RecordedCall

SHOWN: Final = 500
"""How many characters of a text an event has at most."""

_USED: Final = (
    *("requests", "input_tokens", "cached_input_tokens", "output_tokens"),
    *("reasoning_tokens", "total_tokens"),
)

Told = dict[str, Any]
"""One event to be written: its ``kind`` and its ``data``."""


def call_started(call: RecordedCall) -> Told:
    """Return the event of a call that begins, or may have."""
    arguments = call.arguments_raw
    if call.arguments is not None:
        arguments = json.dumps(call.arguments, ensure_ascii=False)
    return {"kind": "tool.started", "data": {**_about(call), "arguments": _short(arguments)}}


def call_ended(call: RecordedCall, entry: Mapping[str, Any]) -> Told:
    """Return the event of a call whose outcome ``entry`` records."""
    error, output = entry.get("error"), entry.get("output")
    if error is not None:
        said = {"error": _short(error.get("message"))}
    elif output is not None:
        text = output.get("text")
        if text is None and output.get("value") is not None:
            text = json.dumps(output["value"], ensure_ascii=False)
        said = {"output": _short(text)}
    else:
        said = {}
    kind = "tool.completed" if entry["status"] == "succeeded" else "tool.failed"
    return {"kind": kind, "data": {**_about(call), **said}}


def replied(reply: Mapping[str, Any], attempt: int, calls: Iterable[RecordedCall]) -> list[Told]:
    """Return the events of a reply's entry: that it is there, and which calls begin with it."""
    usage = {name: sum(one[name] for one in reply["usage"]) for name in _USED}
    completed = {
        "model_response_id": reply["id"],
        "response_id": reply["response_id"],
        "attempt": attempt,
        "agent": reply["agent"],
        "scope": reply["scope"],
        "model": reply["model"],
        "latency_ms": reply["latency_ms"],
        "usage": usage,
    }
    return [
        {"kind": "model.completed", "data": completed},
        *(call_started(call) for call in calls if call.status == "executing"),
    ]


def _about(call: RecordedCall) -> dict[str, Any]:
    return {
        "tool_call_id": str(call.id),
        "call_id": call.call_id,
        "tool": call.tool,
        "agent": call.agent,
        "scope": call.scope,
        "attempt": call.attempt,
    }


def _short(text: Any) -> str | None:
    return None if text is None else str(text)[:SHOWN]
