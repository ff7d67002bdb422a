"""Webhooks and deliveries as the API shows them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perdure.times import rfc3339

__all__ = ["delivery_object", "webhook_object"]


def webhook_object(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of ``webhooks`` as the API shows it: all but what signs."""
    return {
        "id": str(row["id"]),
        "object": "webhook",
        "url": row["url"],
        "events": list(row["events"]),
        "description": row["description"],
        "link_subject": row["link_subject"],
        "link_groups": list(row["link_groups"]),
        "enabled": row["disabled_at"] is None,
        "disabled_at": rfc3339(row["disabled_at"]),
        "disabled_reason": row["disabled_reason"],
        "old_secret_until": rfc3339(row["old_secret_until"]),
        "created_at": rfc3339(row["created_at"]),
    }


def delivery_object(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of ``webhook_deliveries`` as the API shows it.

    ``next_attempt_at`` is null while an attempt is under way and after the last.
    """
    waits = row["status"] == "pending" and row["queued_at"] is None
    return {
        "id": str(row["id"]),
        "object": "delivery",
        "webhook_id": str(row["webhook_id"]),
        "event": row["event"],
        "run_id": None if row["run_id"] is None else str(row["run_id"]),
        "interruption_id": None if row["interruption_id"] is None else str(row["interruption_id"]),
        "status": row["status"],
        "attempt": row["attempt"],
        "status_code": row["status_code"],
        "error": row["error"],
        "response": row["response"],
        "latency_ms": row["latency_ms"],
        "attempts": row["attempts"],
        "payload": row["payload"],
        "next_attempt_at": rfc3339(row["due_at"]) if waits else None,
        "created_at": rfc3339(row["created_at"]),
        "finished_at": rfc3339(row["finished_at"]),
    }
