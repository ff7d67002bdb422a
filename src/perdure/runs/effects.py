"""One tool call, once: answered from its row, or begun, performed and recorded.

Crash points and what holds:

* before the intent commits: nothing happened; the call runs.
* after the intent, before the outcome: ``read`` and ``idempotent`` run again with the same key,
  ``transactional`` runs again (its effect and its outcome are one commit), ``at_most_once`` is
  found from its row at the next start, before anything runs, and a person is asked.
* after the outcome: it is answered from the row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from perdure import jsonsafe
from perdure.db import is_infrastructure, load_sql, uuid7
from perdure.errors import Fenced, StopSegment
from perdure.ledger.effects import Effect, ToolCall, current_tool_call, idempotency_key
from perdure.ledger.journal import RecordedCall
from perdure.runs.execution import (
    Execution,
    current_agent,
    current_scope,
    database_needed,
    scope_text,
)

_SQL = load_sql("perdure.runs", "effects.sql")


class RecordedToolError(Exception):
    """A tool's exception, raised again from its record: the same words, not the same type."""


@dataclass(slots=True)
class Outcome:
    """What a tool call came to.

    ``value`` is what the SDK gets; ``stored`` is the JSON it is kept as; ``error`` is set when
    the call failed; ``raised`` when the exception goes on through the SDK; ``final`` is False
    when there is nothing to record yet (an agent tool that stopped on an interruption).
    """

    value: Any = None
    stored: dict[str, Any] | None = None
    error: str | None = None
    error_type: str | None = None
    raised: BaseException | None = None
    final: bool = True
    from_sdk: bool = False
    replayed: bool = False
    """Whether it comes from the call's row: nothing was run for it now."""
    cause: BaseException | None = None
    """What the tool itself raised, whatever has been made of it since."""

    def as_entry(self) -> dict[str, Any]:
        """Return the columns of its ledger entry."""
        error = None
        if self.error is not None:
            error = {
                "type": self.error_type or "Exception",
                "message": self.error,
                "raised": self.raised is not None,
                "from_sdk": self.from_sdk,
            }
        return {
            "kind": "outcome",
            "status": "failed" if error else "succeeded",
            "output": self.stored,
            "error": error,
        }


def raised(error: BaseException) -> Outcome:
    """Return the outcome of a tool that raised ``error``, which goes on through the SDK."""
    return Outcome(error=str(error), error_type=type(error).__name__, raised=error, cause=error)


def cancelled_itself(error: asyncio.CancelledError) -> Outcome:
    """Return a tool's own CancelledError as its outcome; raise that of somebody who cancels it."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise error
    return raised(error)


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call about to be served: what its row is found by and made of."""

    call_id: str
    tool: str
    kind: str
    effect: Effect
    arguments: dict[str, Any] | None = None
    arguments_raw: str | None = None


async def perform(
    execution: Execution,
    call: Call,
    run: Callable[[], Awaitable[Outcome]],
    decode: Callable[[dict[str, Any]], Any],
) -> Outcome:
    """Answer ``call`` from its row, or begin it, ``run`` it and record what it came to.

    ``run`` performs the effect and turns what goes wrong in the tool into an Outcome; ``decode``
    turns stored JSON back into what the SDK gets. Parks (see execution.py) on a fence or a
    database that is gone.
    """
    scope = scope_text(current_scope.get())
    recorded = execution.call(scope, call.call_id)
    if recorded is not None and recorded.finished:
        return _replayed(recorded.output, recorded.error, decode)
    # The reply that asks for this call has to be recorded before anything comes of it.
    await execution.committed()
    nested = call.effect is Effect.NESTED
    if not nested and (recorded is None or not recorded.begun_here):
        recorded = await begin(execution, scope, call, recorded)
    # Since that was written, by us or with the reply, the segment may have been stopped: then it
    # is taken back. Or this process was paused, and taken over.
    await execution.may_begin()
    attempt = 1 if recorded is None else recorded.attempt
    execution.started.add((scope, call.call_id))

    scope_token = current_scope.set((*current_scope.get(), call.call_id))
    under_way = nullcontext() if nested else execution.effect_under_way(call.tool, call.call_id)
    try:
        with under_way:
            if call.effect is Effect.TRANSACTIONAL:
                return await _in_transaction(execution, scope, call, attempt, run)
            with_call = current_tool_call.set(_tool_call(execution, scope, call, attempt))
            try:
                outcome = await run()
            finally:
                current_tool_call.reset(with_call)
            _record(execution, scope, call, outcome)
            return outcome
    finally:
        current_scope.reset(scope_token)


def _tool_call(
    execution: Execution,
    scope: str,
    call: Call,
    attempt: int,
    connection: psycopg.AsyncConnection[Any] | None = None,
) -> ToolCall:
    return ToolCall(
        run_id=str(execution.run_id),
        call_id=call.call_id,
        attempt=attempt,
        idempotency_key=idempotency_key(execution.run_id, scope, call.call_id),
        _connection=connection,
    )


async def begin(
    execution: Execution, scope: str, call: Call, recorded: RecordedCall | None
) -> RecordedCall:
    """Record that ``call`` begins, in its row or a new one; returns it as it stands then."""
    if recorded is not None:
        # Noted first: if the segment stops before the commit is known, it has not begun.
        recorded.status, recorded.begun_here = "executing", True
        recorded.attempt += 1
        await execution.record({"kind": "intent", "scope": scope, "call_id": call.call_id})
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
    row = {
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
        {"kind": "call", "scope": scope, "agent": recorded.agent, "calls": [row]}
    )
    return recorded


def _record(execution: Execution, scope: str, call: Call, outcome: Outcome) -> None:
    if not outcome.final:
        return
    if call.effect is Effect.NESTED and outcome.error is not None and execution.stopped.done():
        # What stops the segment may be what failed it; what is recorded beneath it stands.
        return
    entry = {"scope": scope, "call_id": call.call_id, **outcome.as_entry()}
    try:
        entry["context"] = execution.changed_context()
    finally:
        # Also of a call that left a context nobody can store it is known what it did.
        execution.record_later(entry)
        execution.journal.settle(scope, call.call_id, entry["status"])


def _replayed(
    stored: dict[str, Any] | None,
    error: dict[str, Any] | None,
    decode: Callable[[dict[str, Any]], Any],
) -> Outcome:
    value = decode(stored) if stored is not None else None
    if error is None:
        return Outcome(value=value, stored=stored, replayed=True)
    message = str(error.get("message", ""))
    raised: BaseException | None = None
    if error.get("raised"):
        # The SDK treats a cancelled tool in its own way; all else it treats alike.
        cancelled = error.get("type") == "CancelledError"
        raised = asyncio.CancelledError(message) if cancelled else RecordedToolError(message)
    return Outcome(
        value=value,
        stored=stored,
        error=message,
        error_type=error.get("type"),
        raised=raised,
        from_sdk=bool(error.get("from_sdk")),
        replayed=True,
    )


class _ToolFailed(Exception):
    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome


async def _in_transaction(
    execution: Execution,
    scope: str,
    call: Call,
    attempt: int,
    run: Callable[[], Awaitable[Outcome]],
) -> Outcome:
    """Run a transactional tool: its effect and its outcome commit together, the epoch last."""
    doing = f"running the transaction of {call.tool}"
    try:
        # Whether it committed is in the row; the next execution reads it there.
        with database_needed(execution.run_id, doing=doing):
            async with execution.pool.connection() as conn:
                return await _transaction(conn, execution, scope, call, attempt, run)
    except StopSegment as reason:
        await execution.park(reason)


async def _transaction(
    conn: psycopg.AsyncConnection[Any],
    execution: Execution,
    scope: str,
    call: Call,
    attempt: int,
    run: Callable[[], Awaitable[Outcome]],
) -> Outcome:
    try:
        async with conn.transaction():
            token = current_tool_call.set(_tool_call(execution, scope, call, attempt, conn))
            try:
                outcome = await run()
            finally:
                current_tool_call.reset(token)
            if conn.closed:
                raise psycopg.OperationalError("the tool's connection was lost")
            if outcome.cause is not None and _is_to_be_repeated(conn, outcome.cause):
                raise outcome.cause
            if outcome.error is not None:
                raise _ToolFailed(outcome)
            await _finish(conn, execution, scope, call, outcome)
        execution.journal.settle(scope, call.call_id, "succeeded")
        return outcome
    except _ToolFailed as failed:
        _record(execution, scope, call, failed.outcome)
        return failed.outcome
    except psycopg.Error as error:
        if is_infrastructure(error):
            raise
        # What the tool left behind cannot commit: a statement of it had failed, or a constraint
        # that is checked at the end does.
        refused = Outcome(error=str(error), error_type=type(error).__name__, raised=error)
        _record(execution, scope, call, refused)
        return refused


def _is_to_be_repeated(conn: psycopg.AsyncConnection[Any], error: BaseException) -> bool:
    """Whether a tool's transaction failed through no fault of its own, by a statement of it.

    Nothing of it happened. A statement that took too long or did not get its lock is the tool's to
    answer for: it may have set that limit itself.
    """
    if conn.info.transaction_status != TransactionStatus.INERROR:
        return False
    own = isinstance(error, psycopg.errors.QueryCanceled | psycopg.errors.LockNotAvailable)
    return is_infrastructure(error) and not own


async def _finish(
    conn: psycopg.AsyncConnection[Any],
    execution: Execution,
    scope: str,
    call: Call,
    outcome: Outcome,
) -> None:
    context = execution.changed_context()
    cursor = await conn.execute(
        _SQL["finish"],
        {
            "run_id": execution.run_id,
            "segment": execution.segment,
            "epoch": execution.epoch,
            "scope": jsonsafe.protect_text(scope),
            "call_id": jsonsafe.protect_text(call.call_id),
            "output": jsonsafe.dumps(outcome.stored),
            "context": None if context is None else jsonsafe.dumps(context),
        },
    )
    if cursor.rowcount != 1:
        raise Fenced(execution.run_id, epoch=execution.epoch)
