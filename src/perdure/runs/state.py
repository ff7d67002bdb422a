"""Run states: when one is written, how one is stored and restored, and which decisions it gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from agents import Agent, RunState
from agents.run_context import RunContextWrapper

from perdure import jsonsafe
from perdure.runs.execution import scope_text
from perdure.runs.sdk import current_agent_name, current_turn, pending_approvals, sdk_version

_FIRST_STATE_TURNS = 32
_TURNS_BETWEEN_STATES = 16


def worth_writing(turns_since: int, turns: int) -> bool:
    """Whether a state is due after ``turns`` turns, the latest one ``turns_since`` turns ago.

    What the SDK takes to replay a turn grows with the turns before it, and so does a state:
    wherever it stands, writing one costs as much as replaying two or three turns there. One every
    16 turns adds a sixth to the SDK's own time and leaves no more than 16 turns to replay after a
    crash (a tenth of a second at 100 turns). The first 32 take no longer, and most runs end
    before them.
    """
    return turns >= _FIRST_STATE_TURNS and turns_since >= _TURNS_BETWEEN_STATES


class Contexts(Protocol):
    """How a run's context becomes JSON and comes back."""

    def dump_context(self, context: Any) -> Any:
        """Return the JSON of a context object."""
        ...


@dataclass(frozen=True, slots=True)
class StoredState:
    """A run state ready to be written."""

    text: str
    schema_version: str
    sdk_version: str
    current_agent: str
    turn: int


def dump_state(state: RunState[Any, Agent[Any]], contexts: Contexts) -> StoredState:
    """Serialize ``state``; its context goes through the registry's type.

    Raises:
        agents.UserError: when the SDK cannot serialize it.
    """
    data = state.to_json(context_serializer=contexts.dump_context)
    try:
        text = jsonsafe.dumps(data)
    except ValueError:
        # A tool returned a number JSON does not have; what the model read of it is text.
        text = jsonsafe.dumps(jsonsafe.finite(data))
    return StoredState(
        text=text,
        schema_version=str(data["$schemaVersion"]),
        sdk_version=sdk_version,
        current_agent=current_agent_name(state),
        turn=current_turn(state),
    )


async def load_state(
    text: str, starting_agent: Agent[Any], context: Any
) -> RunState[Any, Agent[Any]]:
    """Restore a stored state with ``context`` as the object its tools are given.

    Raises:
        agents.UserError: when this build cannot load it; the message says why as far as known.
    """
    data = jsonsafe.loads(text)
    # Strict, or a nested state that does not load is dropped with its pending approvals.
    return await RunState.from_json(
        starting_agent,
        data,
        context_override=RunContextWrapper(context=context),
        context_deserializer=lambda _: context,
        strict_context=True,
    )


def apply_decisions(
    state: RunState[Any, Agent[Any]], decisions: Sequence[Mapping[str, Any]]
) -> None:
    """Approve or reject the state's interruptions as people decided.

    ``decisions`` have ``scope`` and ``call_id`` (which call), ``decision`` and ``message``. Each
    is bound to one call; none stands for a later one.

    Raises:
        ValueError: when the state does not wait for the call of a decision.
    """
    if not decisions:
        return
    pending = {(scope_text(one.path), one.call_id): one for one in pending_approvals(state)}
    for decision in decisions:
        one = pending.get((decision["scope"], decision["call_id"]))
        if one is None:
            raise ValueError(
                f"The stored state does not wait for call {decision['call_id']} any more."
            )
        if decision["decision"] == "approve":
            one.approve()
        else:
            one.reject(decision["message"])
