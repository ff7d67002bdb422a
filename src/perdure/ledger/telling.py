"""What a ledger entry tells who watches its run: the events written with it.

Short: ids, names and the beginnings of texts. The whole stands in the rows they name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from perdure.jsonsafe import protect_text
from perdure.ledger.journal import RecordedCall

SHOWN: Final = 500
"""How many characters of a text an event has at most."""
_KEPT_ONCE: Final = 64
"""Longer texts that tools returned are read from the calls' rows, with the events."""

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
        said = {} if _is_read_from_row(entry, output) else {"output": _short(text)}
    else:
        said = {}
    kind = "tool.completed" if entry["status"] == "succeeded" else "tool.failed"
    return {"kind": kind, "data": {**_about(call), **said}}


def _is_read_from_row(entry: Mapping[str, Any], output: Mapping[str, Any]) -> bool:
    text = output.get("text")
    if entry.get("kind") != "outcome" or not isinstance(text, str) or len(text) <= _KEPT_ONCE:
        return False
    # Cut where it is read, as it is kept: what is kept otherwise than it reads could be cut within.
    return protect_text(text[:SHOWN]) == text[:SHOWN]


def replied(reply: Mapping[str, Any], attempt: int, calls: Iterable[RecordedCall]) -> list[Told]:
    """Return the events of a reply's entry: that it is there, and which calls begin with it."""
    # All else is read from the reply's row, with the event.
    completed = {"model_response_id": reply["id"], "attempt": attempt}
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
