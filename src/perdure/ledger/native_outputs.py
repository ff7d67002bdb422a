"""What shell and patch tools return as JSON, and back."""

from __future__ import annotations

import dataclasses
from typing import Any

from agents import ShellCallOutcome, ShellCommandOutput, ShellResult
from agents.editor import ApplyPatchResult

from perdure.ledger.outputs import decode_output, encode_output


def encode_shell(value: Any) -> dict[str, Any]:
    """Return the JSON to store for what a shell's executor returned."""
    if isinstance(value, ShellResult):
        return {"type": "json", "value": dataclasses.asdict(value)}
    return encode_output(value)


def decode_shell(stored: dict[str, Any]) -> Any:
    """Return what a shell's executor returned, from what ``encode_shell`` made of it."""
    if stored.get("type") != "json":
        return decode_output(stored)
    value = dict(stored["value"])
    value["output"] = [
        ShellCommandOutput(**{**entry, "outcome": ShellCallOutcome(**entry["outcome"])})
        for entry in value["output"]
    ]
    return ShellResult(**value)


def encode_patch(value: Any) -> dict[str, Any]:
    """Return the JSON to store for what an editor's operation returned."""
    if isinstance(value, ApplyPatchResult):
        return {"type": "json", "value": {"status": value.status, "output": value.output}}
    return {"type": "json", "value": None} if value is None else encode_output(value)


def decode_patch(stored: dict[str, Any]) -> Any:
    """Return what an editor's operation returned, from what ``encode_patch`` made of it."""
    if stored.get("type") == "json":
        value = stored["value"]
        return None if value is None else ApplyPatchResult(**value)
    return decode_output(stored)
