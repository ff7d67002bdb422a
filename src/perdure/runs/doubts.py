"""Calls in doubt: nobody knows whether their effect happened. What becomes of them, in their rows.

Crash points: before a statement commits nothing has changed, and whoever goes on finds the call
in doubt and asks anew; after it the row answers.
"""

from __future__ import annotations

from typing import Any, Literal

import psycopg

from perdure import jsonsafe
from perdure.db import load_sql, uuid7
from perdure.errors import Fenced, LedgerRejected, LedgerUnavailable
from perdure.ledger.journal import RecordedCall
from perdure.runs.execution import Execution
from perdure.runs.probing import Answer, Probe, ask
from perdure.runs.tool_rows import tool_call_of

_SQL = load_sql("perdure.runs", "doubts.sql")
Statement = Literal["doubt_call", "probed", "begin_again"]


async def note_doubt(execution: Execution, recorded: RecordedCall, error: dict[str, Any]) -> None:
    """Record that a call this execution made ended so that nobody knows whether it happened."""
    await _write(execution, "doubt_call", recorded, error=jsonsafe.dumps(error))
    recorded.status, recorded.error, recorded.begun_here = "uncertain", error, False


async def settle_by_probe(
    execution: Execution, recorded: RecordedCall, probe: Probe, *, again: bool = True
) -> Answer:
    """Ask the probe about a call in doubt and record what it says, with what becomes of the call.

    It is succeeded then; or proposed, to be made ``again`` where it may be; or still in doubt,
    with the probe's words for the person who is asked.
    """
    answer = await ask(probe, tool_call_of(execution, recorded.scope, recorded.call_id, recorded))
    becomes = "uncertain"
    if answer.status == "done":
        becomes = "succeeded"
    elif answer.status == "not_done" and again:
        becomes = "proposed"
    await _write(
        execution,
        "probed",
        recorded,
        id=uuid7(),
        status=answer.status,
        becomes=becomes,
        output=None if answer.output is None else jsonsafe.dumps(answer.output),
        error=None if answer.error is None else jsonsafe.dumps(answer.error),
    )
    recorded.status, recorded.output, recorded.begun_here = becomes, answer.output, False
    recorded.probe_said = answer.words
    if becomes != "uncertain":
        recorded.error = None
    return answer


async def begin_again(execution: Execution, recorded: RecordedCall) -> None:
    """Record that an idempotent call this execution made is made once more, with the same key."""
    # Noted first: if the segment stops before the commit is known, it has not begun.
    execution.started.discard((recorded.scope, recorded.call_id))
    recorded.attempt += 1
    recorded.begun_here = True
    await _write(execution, "begin_again", recorded)


async def _write(
    execution: Execution, statement: Statement, recorded: RecordedCall, **values: Any
) -> None:
    doing = f"recording a doubt about {recorded.tool} ({recorded.call_id})"
    try:
        async with execution.pool.connection() as conn:
            cursor = await conn.execute(
                _SQL[statement],
                {
                    "run_id": execution.run_id,
                    "segment": execution.segment,
                    "epoch": execution.epoch,
                    "scope": jsonsafe.protect_text(recorded.scope),
                    "call_id": jsonsafe.protect_text(recorded.call_id),
                    **values,
                },
            )
            changed = cursor.rowcount == 1
    except psycopg.OperationalError:
        await execution.park(LedgerUnavailable(execution.run_id, doing=doing))
    except psycopg.Error as error:
        await execution.park(LedgerRejected(execution.run_id, doing=doing, reason=str(error)))
    if not changed:
        await execution.park(Fenced(execution.run_id, epoch=execution.epoch))
