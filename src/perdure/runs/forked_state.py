"""A run's state as another run may go on from it. Pure.

It is the SDK's JSON, of whatever version; tests/unit/test_sdk_inside.py checks what is leaned on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["ForkedState", "forked_state"]

_APPROVALS = ("approvals", "function_tool_approvals", "hosted_mcp_approvals")


@dataclass(frozen=True, slots=True)
class ForkedState:
    """A state for another run: JSON."""

    data: dict[str, Any]
    context: Any
    """The run's context as it was then, JSON."""
    agent: str
    """Whose turn it is."""
    turns_left: int | None
    """How many turns it may take; None: any number."""
    waits: bool
    """Whether it stands in the middle of a turn that waits for people."""


def forked_state(state: dict[str, Any], *, agent: str | None = None) -> ForkedState:
    """Return a state for another run: as it was, without what was let run in its own.

    An approval lets one call run, by its id, which a model may use again. What has an outcome has
    it in the state; what has none is asked about anew. Only an agent used as a tool, whose run is
    in the middle, keeps that it was let run. ``agent`` is who goes on instead, where a turn is
    over. ``state`` is the SDK's JSON, and is changed.
    """
    step, most = state.get("current_step") or {}, state["max_turns"]
    _forget_approvals(state)
    # Its spans are of another trace, and its end was that of another run.
    state["trace"] = None
    state.pop("terminal_unrecoverable", None)
    if agent is not None:
        state["current_agent"] = {"name": agent}
        # What the agent before asked for last is done; its tools are not those of this one.
        state["last_processed_response"] = None
    return ForkedState(
        data=state,
        context=state["context"].get("context"),
        agent=state["current_agent"]["name"],
        turns_left=None if most is None else max(0, most - state["current_turn"]),
        waits=step.get("type") == "next_step_interruption",
    )


def _forget_approvals(state: dict[str, Any]) -> None:
    processed = state.get("last_processed_response") or {}
    calls = [one for one in processed.get("functions", ()) if one.get("agent_run_state")]
    under_way = {call.get("tool_call", {}).get("call_id") for call in calls}
    context = state["context"]
    for name in _APPROVALS:
        given = context.get(name)
        if isinstance(given, dict):
            context[name] = {
                key: kept for key, one in given.items() if (kept := _of(one, under_way))
            }
        elif isinstance(given, list):
            context[name] = [
                {**one, "decision": kept}
                for one in given
                if (kept := _of(one.get("decision") or {}, under_way))
            ]
    for call in calls:
        _forget_approvals(call["agent_run_state"])


def _of(decision: dict[str, Any], calls: set[Any]) -> dict[str, Any] | None:
    """Return what a decision says of ``calls`` alone; None: nothing."""
    approved = decision.get("approved")
    kept = [one for one in approved if one in calls] if isinstance(approved, list) else []
    return {"approved": kept, "rejected": []} if kept else None
