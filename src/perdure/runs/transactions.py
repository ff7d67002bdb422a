"""A transactional tool's call: its effect and its outcome are one commit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import psycopg
from psycopg.pq import TransactionStatus

from perdure import jsonsafe
from perdure.db import Connection, is_infrastructure, load_sql
from perdure.errors import Fenced, StopSegment
from perdure.ledger.journal import RecordedCall
from perdure.runs.attempts import run_once
from perdure.runs.execution import Execution, database_needed
from perdure.runs.outcomes import Outcome, raised
from perdure.runs.tool_rows import record_outcome, tool_call_of

_SQL = load_sql("perdure.runs", "transactions.sql")


class _ToolFailed(Exception):
    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome


async def run_in_transaction(
    execution: Execution, recorded: RecordedCall, run: Callable[[], Awaitable[Outcome]]
) -> Outcome:
    """Run a transactional tool and return what its call came to, committed with its effect.

    The epoch is checked last.

    Parks on a fence or a database that is gone: whether it committed is in the row.
    """
    doing = f"running the transaction of {recorded.tool}"
    try:
        # Whether it committed is in the row; the next execution reads it there.
        with database_needed(execution.run_id, doing=doing):
            async with execution.pool.connection() as conn:
                return await _transaction(conn, execution, recorded, run)
    except StopSegment as reason:
        await execution.park(reason)


async def _transaction(
    conn: Connection,
    execution: Execution,
    recorded: RecordedCall,
    run: Callable[[], Awaitable[Outcome]],
) -> Outcome:
    scope, call_id = recorded.scope, recorded.call_id
    try:
        async with conn.transaction():
            known = tool_call_of(execution, scope, call_id, recorded, conn, tool=recorded.tool)
            outcome = await run_once(known, run)
            if conn.closed:
                raise psycopg.OperationalError("the tool's connection was lost")
            if outcome.cause is not None and _is_to_be_repeated(conn, outcome.cause):
                raise outcome.cause
            if outcome.error is not None:
                raise _ToolFailed(outcome)
            await _finish(conn, execution, recorded, outcome)
        execution.journal.settle(scope, call_id, "succeeded")
        execution.returned(scope, call_id, outcome.stored)
        return outcome
    except _ToolFailed as failed:
        # Nothing of it happened.
        failed.outcome.operations = []
        record_outcome(execution, scope, call_id, failed.outcome)
        return failed.outcome
    except psycopg.Error as error:
        if is_infrastructure(error):
            raise
        # What the tool left behind cannot commit: a statement of it had failed, or a constraint
        # that is checked at the end does.
        refused = raised(error)
        record_outcome(execution, scope, call_id, refused)
        return refused


def _is_to_be_repeated(conn: Connection, error: BaseException) -> bool:
    """Whether a tool's transaction failed through no fault of its own, by a statement of it.

    Nothing of it happened. A statement that took too long or did not get its lock is the tool's to
    answer for: it may have set that limit itself.
    """
    if conn.info.transaction_status != TransactionStatus.INERROR:
        return False
    own = isinstance(error, psycopg.errors.QueryCanceled | psycopg.errors.LockNotAvailable)
    return is_infrastructure(error) and not own


async def _finish(
    conn: Connection, execution: Execution, recorded: RecordedCall, outcome: Outcome
) -> None:
    context = execution.changed_context()
    cursor = await conn.execute(
        _SQL["finish"],
        {
            "run_id": execution.run_id,
            "segment": execution.segment,
            "epoch": execution.epoch,
            "scope": jsonsafe.protect_text(recorded.scope),
            "call_id": jsonsafe.protect_text(recorded.call_id),
            "output": jsonsafe.dumps(outcome.stored),
            "context": None if context is None else jsonsafe.dumps(context),
        },
    )
    if cursor.rowcount != 1:
        raise Fenced(execution.run_id, epoch=execution.epoch)
    if outcome.operations:
        await conn.execute(
            _SQL["operations"],
            {
                "run_id": execution.run_id,
                "tenant_id": execution.tenant_id,
                "tool_call_id": recorded.id,
                "operations": jsonsafe.dumps(outcome.operations),
            },
        )
