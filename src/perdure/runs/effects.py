"""One tool call, once: answered from its row, or begun, performed and recorded.

Crash points and what holds:

* before the intent commits: nothing happened; the call runs.
* after the intent, before the outcome: ``read`` and ``idempotent`` run again with the same key,
  ``transactional`` runs again (its effect and its outcome are one commit), ``at_most_once`` is
  found from its row at the next start, before anything runs, and its probe or a person is asked.
* after the outcome: it is answered from the row.

A fork may answer a call from the record of the run it came from (inherited.py): nothing is begun,
and the one write has the outcome. Before it commits nothing happened; the call is answered again.

A call that people let run is begun only with the very arguments they approved (approvals.py).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from typing import Any

from perdure.interruptions.digest import parse_object
from perdure.ledger.effects import Effect
from perdure.ledger.journal import RecordedCall
from perdure.runs.approvals import Tampered
from perdure.runs.attempts import run_once, run_until_known
from perdure.runs.execution import Execution, current_agent, current_scope, scope_text
from perdure.runs.gates import answer_to, as_object
from perdure.runs.outcomes import Call, Outcome, cancelled_itself, raised, replayed
from perdure.runs.tool_rows import begin, record_answer, record_outcome, tool_call_of
from perdure.runs.transactions import run_in_transaction

__all__ = ["Call", "Outcome", "begin", "cancelled_itself", "perform", "raised"]


async def perform(
    execution: Execution,
    call: Call,
    run: Callable[[], Awaitable[Outcome]],
    decode: Callable[[dict[str, Any]], Any],
) -> Outcome:
    """Answer ``call`` from its row, or begin it, ``run`` it and record what it came to.

    ``run`` performs the effect and turns what goes wrong in the tool into an Outcome; ``decode``
    turns stored JSON back into what the SDK gets. Parks (see execution.py) on a fence, on a
    database that is gone, and on an outcome nobody knows.
    """
    scope = scope_text(current_scope.get())
    recorded = execution.call(scope, call.call_id)
    if recorded is not None and recorded.finished:
        if execution.trace is not None:
            execution.trace.calls_replayed += 1
        return replayed(recorded.output, recorded.error, decode)
    approval = execution.approvals.get((scope, call.call_id))
    if approval is not None and not approval.allows(call.arguments, call.arguments_raw):
        await execution.park(Tampered(execution.run_id, tool=call.tool, call_id=call.call_id))
    # The reply that asks for this call has to be recorded before anything comes of it.
    await execution.committed()
    answer = None
    if recorded is not None and execution.inherited is not None:
        answer = answer_to(execution, recorded, _object_of(call))
    if recorded is not None and answer is not None:
        record_answer(execution, recorded, answer)
        return replayed(answer, None, decode)
    nested = call.effect is Effect.NESTED
    if not nested and (recorded is None or not recorded.begun_here):
        recorded = await begin(execution, scope, call, recorded)
    # Since that was written, by us or with the reply, the segment may have been stopped: then it
    # is taken back. Or this process was paused, and taken over.
    await execution.may_begin()
    execution.started.add((scope, call.call_id))

    scope_token = current_scope.set((*current_scope.get(), call.call_id))
    under_way = nullcontext() if nested else execution.effect_under_way(call.tool, call.call_id)
    try:
        with under_way:
            if execution.trace is None:
                return await _perform(execution, scope, call, recorded, run, decode)
            with execution.trace.tool(scope, current_agent.get(), call) as span:
                outcome = await _perform(execution, scope, call, recorded, run, decode)
                execution.trace.came_to(span, outcome)
                return outcome
    finally:
        current_scope.reset(scope_token)


async def _perform(
    execution: Execution,
    scope: str,
    call: Call,
    recorded: RecordedCall | None,
    run: Callable[[], Awaitable[Outcome]],
    decode: Callable[[dict[str, Any]], Any],
) -> Outcome:
    if recorded is not None and call.effect.may_be_in_doubt:
        return await run_until_known(execution, call, recorded, run, decode)
    if recorded is not None and call.effect is Effect.TRANSACTIONAL:
        return await run_in_transaction(execution, recorded, run)
    known = tool_call_of(execution, scope, call.call_id, recorded, tool=call.tool)
    outcome = await run_once(known, run)
    nested = call.effect is Effect.NESTED
    if not (nested and outcome.error is not None and execution.stopped.done()):
        # What stops the segment may be what failed a nested run; what is recorded beneath it
        # stands.
        record_outcome(execution, scope, call.call_id, outcome)
    return outcome


def _object_of(call: Call) -> Mapping[str, Any] | None:
    arguments = as_object(call.kind, call.arguments, call.arguments_raw)
    return parse_object(call.arguments_raw or "") if arguments is None else arguments
