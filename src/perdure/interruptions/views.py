"""Interruptions and decisions as the API shows them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
        "message": row["message"],
        "arguments": row["arguments"],
        "answer": row["answer"],
        "outcome": row["outcome"],
        "result": row["result"],
    }


def interruption_object(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of ``interruptions`` with its ``decisions`` (oldest first) as the API shows it.

    ``decision`` is the one that closed it, null while it is pending.
    """
    decisions = [decision_object(decision) for decision in row["decisions"]]
    closed = row["status"] != "pending"
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
        "digest": row["digest"],
        "required": row["required"],
        "requested_at": rfc3339(row["requested_at"]),
        "expires_at": rfc3339(row["expires_at"]),
        "closed_at": rfc3339(row["closed_at"]),
        "decisions": decisions,
        "decision": decisions[-1] if decisions and closed else None,
    }
