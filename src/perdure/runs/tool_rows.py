"""A tool call's row as an execution writes it: begun before the effect, its outcome after it."""

from __future__ import annotations

from typing import Any

import psycopg

from perdure.db import uuid7
from perdure.ledger.annotations import Annotations
from perdure.ledger.effects import idempotency_key
from perdure.ledger.journal import RecordedCall
from perdure.ledger.operations import Operations
from perdure.ledger.telling import call_ended, call_started
from perdure.ledger.tool_call import ToolCall
from perdure.runs.execution import Execution, current_agent
from perdure.runs.inherited import ORIGIN
from perdure.runs.outcomes import Call, Outcome


def tool_call_of(
    execution: Execution,
    scope: str,
    call_id: str,
    recorded: RecordedCall | None,
    connection: psycopg.AsyncConnection[Any] | None = None,
    *,
    tool: str | None = None,
) -> ToolCall:
    """Return what a tool, or its probe, may know of the call.

    ``tool`` is the tool's name where it is to run: only then operations can be recorded, and
    something be said of what it gives.
    """
    operations, annotations = None, None
    if tool is not None:
        kinds = execution.operation_kinds
        operations = Operations(kinds, tool=tool, run_id=str(execution.run_id))
        annotations = Annotations(tool=tool, run_id=str(execution.run_id))
    return ToolCall(
        run_id=str(execution.run_id),
        call_id=call_id,
        attempt=1 if recorded is None else recorded.attempt,
        idempotency_key=idempotency_key(execution.run_id, scope, call_id),
        _connection=connection,
        _operations=operations,
        _annotations=annotations,
    )


async def begin(
    execution: Execution, scope: str, call: Call, recorded: RecordedCall | None
) -> RecordedCall:
    """Record that ``call`` begins, in its row or a new one; returns it as it stands then."""
    if recorded is not None:
        # Noted first: if the segment stops before the commit is known, it has not begun.
        execution.started.discard((scope, call.call_id))
        recorded.status, recorded.begun_here = "executing", True
        recorded.attempt += 1
        await execution.record(
            {
                "kind": "intent",
                "scope": scope,
                "call_id": call.call_id,
                "events": [call_started(recorded)],
            }
        )
        return recorded
    recorded = RecordedCall(
        id=uuid7(),
        scope=scope,
        call_id=call.call_id,
        tool=call.tool,
        kind=call.kind,
        agent=current_agent.get(),
        effect=call.effect,
        status="executing",
        attempt=1,
        arguments=call.arguments,
        arguments_raw=call.arguments_raw,
        begun_here=True,
    )
    execution.journal.calls[scope, call.call_id] = recorded
    row: dict[str, Any] = {
        "id": str(recorded.id),
        "call_id": call.call_id,
        "tool": call.tool,
        "kind": call.kind,
        "arguments": call.arguments,
        "arguments_raw": call.arguments_raw,
        "effect": call.effect.value,
        "status": "executing",
        "idempotency_key": idempotency_key(execution.run_id, scope, call.call_id),
    }
    await execution.record(
        {
            "kind": "call",
            "id": row["id"],
            "scope": scope,
            "agent": recorded.agent,
            "calls": [row],
            "events": [call_started(recorded)],
        }
    )
    return recorded


def record_answer(execution: Execution, call: RecordedCall, stored: dict[str, Any]) -> None:
    """Record that a call, which is not made, came to ``stored``; with or before the next reply."""
    entry: dict[str, Any] = {
        "kind": "answer",
        "scope": call.scope,
        "call_id": call.call_id,
        "status": "succeeded",
        "output": stored,
    }
    told = [call_started(call), call_ended(call, entry)]
    entry["events"] = [{**one, "data": {**one["data"], ORIGIN: stored.get(ORIGIN)}} for one in told]
    execution.record_later(entry)
    execution.journal.settle(call.scope, call.call_id, "succeeded")
    call.output = stored
    execution.annotated.add(call.scope, call.call_id, stored)


def record_outcome(execution: Execution, scope: str, call_id: str, outcome: Outcome) -> None:
    """Record what a call came to; it commits with or before the next reply."""
    if not outcome.final:
        return
    entry = {"scope": scope, "call_id": call_id, **outcome.as_entry()}
    call = execution.call(scope, call_id)
    if call is not None:
        entry["events"] = [call_ended(call, entry)]
    try:
        entry["context"] = execution.changed_context()
    finally:
        # Also of a call that left a context nobody can store it is known what it did.
        execution.record_later(entry)
        execution.journal.settle(scope, call_id, entry["status"])
        execution.returned(scope, call_id, outcome.stored)
