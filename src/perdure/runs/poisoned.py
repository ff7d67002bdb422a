"""What is said of a segment that keeps ending its process, and how its run fails.

Pure: what an execution began with in, words and a rest out.
"""

from __future__ import annotations

from perdure.ledger.effects import Effect
from perdure.ledger.journal import RecordedCall
from perdure.runs.rest import Rest
from perdure.runs.segment import Begun

_MOST_NAMED = 5


def quarantined(begun: Begun, how: str | None, *, alone: bool) -> Rest:
    """Return the rest of a run whose segment ends its processes; ``how``: the last one's end.

    ``alone``: it ended those that ran nothing else. Calls under way that must not be repeated are
    in doubt, the others are made again when the run is resumed.
    """
    if alone:
        last = "" if how is None else f"; the last {how}"
        what = (
            f"{begun.alone_deaths} processes that ran nothing else died in a row{last}. Before "
            f"them {begun.stalled} died that it shared with other runs."
        )
    else:
        what = (
            f"{begun.stalled} processes died in a row that ran it, beside other runs: there was "
            "no way to run it alone."
        )
    message = f"{what} {under_way(begun)} Mend what ends the process, then resume the run."
    calls = begun.journal.under_way()
    return Rest(
        "failed",
        error_type="quarantined",
        error_message=message,
        doubtful=[call.id for call in calls if not call.effect.repeatable],
        cut_short=[call.id for call in calls if call.effect.repeatable],
        turn=begun.turn,
    )


def under_way(begun: Begun) -> str:
    """Return a sentence that names the calls that were under way when the process died."""
    calls = begun.journal.under_way()
    # Of an agent used as a tool, what runs beneath it says more.
    calls = [call for call in calls if call.effect is not Effect.NESTED] or calls
    if not calls:
        return (
            "No tool call was under way: the model's client, a hook, a guardrail or the memory "
            "the run takes may end it."
        )
    named = "; ".join(_named(call) for call in calls[:_MOST_NAMED])
    more = f"; and {len(calls) - _MOST_NAMED} more" if len(calls) > _MOST_NAMED else ""
    return f"Under way: {named}{more}."


def _named(call: RecordedCall) -> str:
    return (
        f"tool {call.tool} (call {call.call_id[:64]} of agent {call.agent}, attempt {call.attempt})"
    )
