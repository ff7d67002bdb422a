"""How often a call is made before its outcome is known, or a person is asked.

A failure that leaves open whether the effect happened (ledger/failures.py) is no outcome, and the
model is not told: it might call the tool again, under another key. An ``idempotent`` call is made
again with the same key. Then, and at once of an ``at_most_once`` one, the probe is asked; where
there is none, or it does not know, the segment parks, its other calls finish, and it rests on the
question.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from perdure.errors import Uncertain
from perdure.ledger.effects import Effect
from perdure.ledger.failures import in_words, unknown_outcome
from perdure.ledger.journal import RecordedCall
from perdure.ledger.tool_call import ToolCall, current_tool_call
from perdure.runs.doubts import begin_again, note_doubt, settle_by_probe
from perdure.runs.execution import Execution
from perdure.runs.outcomes import Call, Outcome
from perdure.runs.tool_rows import begin, record_outcome, tool_call_of

AGAIN_AFTER_SECONDS = (0.5, 2.0)
"""Pauses before a call is made again in this execution: so many times, and no more."""


async def run_until_known(
    execution: Execution,
    call: Call,
    recorded: RecordedCall,
    run: Callable[[], Awaitable[Outcome]],
    decode: Callable[[dict[str, Any]], Any],
) -> Outcome:
    """Make a begun call, more than once if that is right, and return what it came to, recorded.

    Parks when nobody knows: its row says ``uncertain`` then, and with what it ended.
    """
    pauses = iter(AGAIN_AFTER_SECONDS)
    while True:
        known = tool_call_of(execution, recorded.scope, call.call_id, recorded, tool=call.tool)
        outcome = await run_once(known, run)
        open_still = outcome.cause and unknown_outcome(outcome.cause)
        if outcome.cause is None or open_still is None:
            record_outcome(execution, recorded.scope, call.call_id, outcome)
            return outcome
        pause = next(pauses, None)
        if pause is not None and call.effect is Effect.IDEMPOTENT:
            await _pause(execution, pause)
            await begin_again(execution, recorded)
        else:
            await note_doubt(execution, recorded, _what_happened(outcome.cause, open_still))
            settled = await _by_probe(execution, call, recorded, decode, again=pause is not None)
            if settled is not None:
                return settled
            if pause is None or recorded.status != "proposed":
                await execution.park(Uncertain(execution.run_id, call_ids=[call.call_id]))
            await _pause(execution, pause)
            await begin(execution, recorded.scope, call, recorded)
        await execution.may_begin()
        execution.started.add((recorded.scope, recorded.call_id))


async def run_once(known: ToolCall, run: Callable[[], Awaitable[Outcome]]) -> Outcome:
    """Make a begun call, of which the tool may know ``known``, and return what it came to.

    With it goes what this attempt recorded that it changed, and said of what it gives.
    """
    token = current_tool_call.set(known)
    recorded = []
    try:
        outcome = await run()
    finally:
        current_tool_call.reset(token)
        if known._operations is not None:
            recorded = known._operations.close()
    outcome.operations = recorded
    if known._annotations is not None and outcome.error is None:
        outcome.stored = known._annotations.onto(outcome.stored)
    return outcome


async def _by_probe(
    execution: Execution,
    call: Call,
    recorded: RecordedCall,
    decode: Callable[[dict[str, Any]], Any],
    *,
    again: bool,
) -> Outcome | None:
    """Return the outcome a probe knows; None: the call is proposed again, or still in doubt."""
    if call.probe is None:
        return None
    if not execution.stops_for_a_person:
        # Whoever goes on with the segment finds the doubt, and asks.
        await execution.check()
    answer = await settle_by_probe(execution, recorded, call.probe, again=again)
    if answer.output is None:
        return None
    return Outcome(value=decode(answer.output), stored=answer.output)


async def _pause(execution: Execution, seconds: float) -> None:
    """Wait before a call is made again; parks as soon as the segment stops."""
    await asyncio.wait({execution.stopped}, timeout=seconds)
    await execution.check()


def _what_happened(error: BaseException, open_still: BaseException) -> dict[str, Any]:
    """Return what a call ended with, for its row: in the tool's words, with what is beneath."""
    message = str(error)
    if open_still is not error:
        message = f"{message}; {in_words(open_still)}"
    return {"type": type(error).__name__, "message": message}
