"""What an execution that ends leaves under way: calls that were begun, and such as never were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from perdure.ledger.effects import Effect
from perdure.ledger.journal import RecordedCall
from perdure.runs.execution import Execution
from perdure.runs.failures import is_unusable_reply
from perdure.runs.rest import Rest


def never_begun(execution: Execution) -> list[RecordedCall]:
    """Return the calls that a reply's commit marked as begun here, and that were not."""
    return [
        call
        for key, call in execution.journal.calls.items()
        if call.begun_here and key not in execution.started
    ]


def begun_calls(execution: Execution) -> list[RecordedCall]:
    """Return what was begun, here or by an execution before this one, and has no outcome."""
    never = {call.id for call in never_begun(execution)}
    return [call for call in execution.journal.under_way() if call.id not in never]


def leaving_nothing_under_way(rest: Rest, execution: Execution) -> Rest:
    """Return ``rest`` with what becomes of calls that were never begun, or cut short.

    The SDK cancels a tool in mid-effect when one beside it raises.
    """
    cut = begun_calls(execution)
    return replace(
        rest,
        not_begun=[call.id for call in never_begun(execution)],
        doubtful=[call.id for call in cut if not call.effect.repeatable],
        cut_short=[call.id for call in cut if call.effect.repeatable],
    )


def unusable_reply(error: BaseException, execution: Execution) -> list[UUID]:
    """Return the reply that failed the run, if the model may be asked anew on a resume."""
    if execution.last_reply is None or not is_unusable_reply(error):
        return []
    reply, call_ids = execution.last_reply
    started = {call_id for scope, call_id in execution.started if not scope}
    return [reply] if started.isdisjoint(call_ids) else []


def cancelled(under_way: Sequence[RecordedCall]) -> Rest:
    """Return the rest of a run that is cancelled while these calls are under way."""
    return Rest(
        "cancelled",
        doubtful=[call.id for call in under_way if call.effect is not Effect.NESTED],
        cut_short=[call.id for call in under_way if call.effect is Effect.NESTED],
    )
