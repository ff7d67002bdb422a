"""Interruptions and decisions as the API shows them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perdure.interruptions.policies.question_rules import shown
from perdure.times import rfc3339


def decision_object(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of ``decisions`` (its JSON values decoded) as the API shows it."""
    return {
        "id": str(row["id"]),
        "object": "decision",
        "by": {"type": row["by_type"], "id": row["by_id"], "subject": row["by_subject"]},
        "at": rfc3339(row["decided_at"]),
        "decision": row["decision"],
        "digest": row["digest"],
        "executes": row["executes"],
        "message": row["message"],
        "arguments": row["arguments"],
        "answer": row["answer"],
        "outcome": row["outcome"],
        "result": row["result"],
        "source": row["source"],
        "remember": row["grant_id"],
    }


def evidence_object(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of ``tool_call_evidence`` as the API shows it, beside the call it is about."""
    return {
        "kind": row["kind"],
        "status": row["status"],
        "output": shown_output(row["output"]),
        "error": row["error"],
        "epoch": row["epoch"],
        "created_at": rfc3339(row["created_at"]),
    }


def shown_output(stored: Mapping[str, Any] | None) -> Any:
    """Return what a tool returned as the API shows it: text as a string, else the JSON."""
    if stored is None:
        return None
    return stored["text"] if stored["type"] == "text" else stored["value"]


def interruption_object(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of ``interruptions`` with its ``decisions`` (oldest first) as the API shows it.

    ``decision`` is the one that closed it, null while it is pending; ``policy`` what the policy
    that opened it asks for, null where none did. ``evidence`` is what became
    known of its call by other ways than an outcome, oldest first.
    """
    decisions = [decision_object(decision) for decision in row["decisions"]]
    return {
        "id": str(row["id"]),
        "object": "interruption",
        "run_id": str(row["run_id"]),
        "type": row["type"],
        "status": row["status"],
        "agent": row["agent"],
        "tool": row["tool"],
        "question": row["question"],
        "schema": row["schema"],
        "budget": row["budget"],
        "digest": row["digest"],
        "reason": row["reason"],
        "replaces": row["replaces"],
        "required": row["required"],
        "policy": shown(row["rules"]),
        "requested_at": rfc3339(row["requested_at"]),
        "expires_at": rfc3339(row["expires_at"]),
        "closed_at": rfc3339(row["closed_at"]),
        "evidence": [evidence_object(one) for one in row["evidence"]],
        "decisions": decisions,
        "decision": decisions[-1] if decisions and _decided(row["status"], decisions[-1]) else None,
    }


def _decided(status: str, last: Mapping[str, Any]) -> bool:
    """Whether the last decision closed it: some of several approvals do not, nor does the time."""
    if status in ("pending", "cancelled"):
        return False
    return bool(status != "expired" or last["by"]["type"] == "policy")
