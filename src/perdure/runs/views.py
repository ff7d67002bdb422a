"""Runs and what belongs to them as the API shows them. Pure.

Each function takes a table's row, its JSON values decoded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perdure.interruptions.views import evidence_object, interruption_object, shown_output
from perdure.ledger.usage import COUNTS
from perdure.runs.inherited import ORIGIN
from perdure.times import rfc3339

Row = Mapping[str, Any]
Object = dict[str, Any]


def run_object(row: Row) -> Object:
    """A run with its ``usage`` summed and its pending ``interruptions``."""
    failed = row["error_type"] is not None
    return {
        "id": str(row["id"]),
        "object": "run",
        "agent": row["agent"],
        "current_agent": row["current_agent"],
        "agent_version": row["agent_version"],
        "status": row["status"],
        "input": row["input"],
        "output": row["output"],
        "error": ({"type": row["error_type"], "message": row["error_message"]} if failed else None),
        "session_id": row["session_id"],
        "user_id": row["user_id"],
        "metadata": row["metadata"],
        "task": row["task"],
        "turn": row["turn"],
        "max_turns": row["max_turns"],
        "model": row["model"],
        "tools": row["tools"],
        "replays_seq": row["replays_seq"],
        "priority": row["priority"],
        "interruptions": [interruption_object(one) for one in row["interruptions"]],
        "usage": row["usage"],
        "budget": row["budget"],
        "forked_from": _forked_from(row),
        "instructions": row["instructions"],
        "cancel_requested_at": rfc3339(row["cancel_requested_at"]),
        "created_at": rfc3339(row["created_at"]),
        "started_at": rfc3339(row["started_at"]),
        "updated_at": rfc3339(row["updated_at"]),
        "finished_at": rfc3339(row["finished_at"]),
    }


def _forked_from(row: Row) -> Object | None:
    """From which checkpoint of which run, that being null once it is deleted."""
    if row["forked_seq"] is None:
        return None
    run = row["forked_from"]
    return {"run_id": None if run is None else str(run), "checkpoint": row["forked_seq"]}


def item_object(row: Row) -> Object:
    """An item of a run; ``item`` is it as the SDK gave it."""
    return {
        "id": str(row["id"]),
        "object": "item",
        "run_id": str(row["run_id"]),
        "session_id": row["session_id"],
        "seq": row["seq"],
        "type": row["type"],
        "role": row["role"],
        "text": row["text"],
        "item": row["item"],
        "agent": row["agent"],
        "user_id": row["user_id"],
        "token_count": row["token_count"],
        "metadata": row["metadata"],
        "created_at": rfc3339(row["created_at"]),
    }


def input_object(row: Row) -> Object:
    """A message added to a run; the row has ``run_status`` and ``run_error_type`` with it.

    ``checkpoint`` is the number of the run state it became part of, 0 being the run's own input.
    Of a failed run it waits: whoever resumes that has it given.
    """
    status, reason = "pending", None
    if row["given_at"] is not None:
        status = "given"
    elif row["run_status"] == "cancelled":
        status, reason = "not_given", "run_cancelled"
    elif row["run_status"] == "completed" or row["run_error_type"] == "max_turns":
        status, reason = "not_given", "max_turns"
    return {
        "id": str(row["id"]),
        "object": "input",
        "run_id": str(row["run_id"]),
        "input": row["input"],
        "status": status,
        "reason": reason,
        "added_by": {
            "type": row["added_by_type"],
            "id": row["added_by_id"],
            "subject": row["added_by_subject"],
        },
        "added_at": rfc3339(row["created_at"]),
        "given_at": rfc3339(row["given_at"]),
        "checkpoint": row["given_seq"],
    }


def tool_call_object(row: Row) -> Object:
    """A tool call. ``output`` is what the tool returned: text as a string, else the JSON.

    ``evidence`` is what became known of its effect by other ways, oldest first.
    """
    return {
        "id": str(row["id"]),
        "object": "tool_call",
        "run_id": str(row["run_id"]),
        "segment": row["segment"],
        "call_id": row["call_id"],
        "scope": row["scope"],
        "tool": row["tool"],
        "kind": row["kind"],
        "agent": row["agent"],
        "arguments": row["arguments"],
        "arguments_raw": row["arguments_raw"],
        "approved_arguments": row["approved_arguments"],
        "effect": row["effect"],
        "status": row["status"],
        "attempt": row["attempt"],
        "idempotency_key": row["idempotency_key"],
        "output": shown_output(row["output"]),
        "error": row["error"],
        "answered_from": (row["output"] or {}).get(ORIGIN),
        "evidence": [evidence_object(one) for one in row["evidence"]],
        "requested_at": rfc3339(row["requested_at"]),
        "started_at": rfc3339(row["started_at"]),
        "finished_at": rfc3339(row["finished_at"]),
    }


def checkpoint_object(row: Row) -> Object:
    """A run state without the state."""
    return {
        "id": str(row["id"]),
        "object": "checkpoint",
        "seq": row["seq"],
        "run_id": str(row["run_id"]),
        "kind": row["kind"],
        "schema_version": row["schema_version"],
        "sdk_version": row["sdk_version"],
        "current_agent": row["current_agent"],
        "turn": row["turn"],
        "size_bytes": row["size_bytes"],
        "is_active": row["is_active"],
        "created_at": rfc3339(row["created_at"]),
        "resumed_at": rfc3339(row["resumed_at"]),
    }


def state_object(row: Row) -> Object:
    """A run state whole, ``state`` being the SDK's."""
    return {**checkpoint_object(row), "object": "run_state", "state": row["state"]}


def usage_object(row: Row) -> Object:
    """What one request used. That of a superseded reply was paid for and then not needed."""
    return {
        "id": str(row["id"]),
        "object": "usage",
        "run_id": str(row["run_id"]),
        "segment": row["segment"],
        "agent": row["agent"],
        "model": row["model"],
        "model_response_id": row["model_response_id"],
        "response_id": row["response_id"],
        **{name: row[name] for name in COUNTS},
        "cost_usd": row["cost_usd"],
        "price": row["price"],
        "price_date": row["price_date"],
        "price_source": row["price_source"],
        "latency_ms": row["latency_ms"],
        "superseded": row["superseded"],
        "created_at": rfc3339(row["created_at"]),
    }


def usage_metrics_object(row: Row) -> Object:
    """What a run used with one model by one agent."""
    return {
        "object": "usage_metrics",
        "run_id": str(row["run_id"]),
        "agent": row["agent"],
        "model": row["model"],
        **{name: row[name] for name in COUNTS},
        "unpriced_requests": row["unpriced_requests"],
        "cost_usd": row["cost_usd"],
        "created_at": rfc3339(row["created_at"]),
        "updated_at": rfc3339(row["updated_at"]),
    }


def model_response_object(row: Row) -> Object:
    """A model's reply as it came, and what it was asked with."""
    return {
        "id": str(row["id"]),
        "object": "model_response",
        "run_id": str(row["run_id"]),
        "segment": row["segment"],
        "checkpoint": row["base_seq"],
        "scope": row["scope"],
        "agent": row["agent"],
        "model": row["model"],
        "settings": row["settings"] or {},
        "response_id": row["response_id"],
        "request_id": row["request_id"],
        "output": row["output"],
        "usage": row["usage"],
        "latency_ms": row["latency_ms"],
        "attempt": row["attempt"],
        "superseded": row["superseded"],
        "created_at": rfc3339(row["created_at"]),
    }


def guardrail_result_object(row: Row) -> Object:
    """What a guardrail said; ``type`` is input, output, tool_input or tool_output."""
    return {
        "id": str(row["id"]),
        "object": "guardrail_result",
        "run_id": str(row["run_id"]),
        "segment": row["segment"],
        "type": row["kind"],
        "guardrail": row["guardrail"],
        "agent": row["agent"],
        "scope": row["scope"],
        "tool": row["tool"],
        "call_id": row["call_id"],
        "tripwire_triggered": row["tripwire_triggered"],
        "behavior": row["behavior"],
        "message": row["message"],
        "output_info": row["output_info"],
        "latency_ms": row["latency_ms"],
        "created_at": rfc3339(row["created_at"]),
    }
