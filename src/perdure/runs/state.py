"""Run states: when one is written, how one is stored, and which decisions it gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from agents import Agent, RunState

from perdure import jsonsafe
from perdure.runs.execution import scope_text
from perdure.runs.parts import CutState, Parts
from perdure.runs.sdk import current_agent_name, current_turn, pending_approvals, sdk_version

_LONGEST_REPLAY_MS = 140.0
_REPLAYED_TURN_MS = 2.0
_EACH_TURN_BEFORE_MS = 0.06
_FEWEST_TURNS_BETWEEN = 8


def worth_writing(turns_since: int, turns: int) -> bool:
    """Whether a state is due after ``turns`` turns, the latest one ``turns_since`` turns ago.

    It is, when replaying the turns since would take the SDK a seventh of a second: about 2 ms for
    each, and 0.06 ms more for each turn before it. So none is written in most runs before their
    end, and one every 20 turns around the 100th. A state costs as much as two or three turns
    where it stands; where the limit would ask for one more often than every 8 turns (from the
    260th on), replays are let grow instead.
    """
    if turns_since < _FEWEST_TURNS_BETWEEN:
        return False
    middle = turns - turns_since / 2
    replay_ms = turns_since * (_REPLAYED_TURN_MS + _EACH_TURN_BEFORE_MS * middle)
    return replay_ms >= _LONGEST_REPLAY_MS


class Contexts(Protocol):
    """How a run's context becomes JSON and comes back."""

    def dump_context(self, context: Any) -> Any:
        """Return the JSON of a context object."""
        ...


@dataclass(frozen=True, slots=True)
class StoredState:
    """A run state ready to be written."""

    cut: CutState
    schema_version: str
    sdk_version: str
    current_agent: str
    turn: int


@dataclass(frozen=True, slots=True)
class WholeState:
    """A stored run state as the SDK serialized it: JSON."""

    data: dict[str, Any]
    schema_version: str
    sdk_version: str
    current_agent: str
    turn: int

    def of_a_new_run(self) -> StoredState:
        """Return it, with what was changed in ``data``, as the first state of another run."""
        return StoredState(
            cut=Parts().cut(self.data),
            schema_version=self.schema_version,
            sdk_version=self.sdk_version,
            current_agent=self.current_agent,
            turn=self.turn,
        )


def dump_state(state: RunState[Any, Agent[Any]], contexts: Contexts, parts: Parts) -> StoredState:
    """Serialize ``state``, cut into the run's ``parts``; its context goes through ``contexts``.

    Raises:
        agents.UserError: when the SDK cannot serialize it.
    """
    data = state.to_json(context_serializer=contexts.dump_context)
    try:
        cut = parts.cut(data)
    except ValueError:
        # A tool returned a number JSON does not have; what the model read of it is text.
        cut = parts.cut(jsonsafe.finite(data))
    return StoredState(
        cut=cut,
        schema_version=str(data["$schemaVersion"]),
        sdk_version=sdk_version,
        current_agent=current_agent_name(state),
        turn=current_turn(state),
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
        if decision["decision"] in ("approve", "answer"):
            one.approve()
        else:
            one.reject(decision["message"])
