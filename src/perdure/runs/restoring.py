"""Restoring a stored run state, whole or not at all.

The SDK leaves out what it does not find in a build: items of an agent that is gone, calls of a
tool that is gone. A run that went on without them would tell its model another conversation, so
such a state is refused before anything happens, and the run can be resumed in another build.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from agents import Agent, RunState
from agents.run_context import RunContextWrapper

from perdure import jsonsafe
from perdure.errors import ConfigurationError
from perdure.runs.graph import reachable
from perdure.runs.sdk import calls_to_go_on_with, items_in, nested_states, resumes_a_turn

__all__ = ["AgentsMissing", "ToolsMissing", "load_state", "restore"]

_ACTIONS = {
    "handoffs": "handoff",
    "functions": "tool",
    "computer_actions": "computer",
    "custom_tool_actions": "custom_tool",
    "local_shell_actions": "local_shell",
    "shell_actions": "shell",
    "apply_patch_actions": "apply_patch",
}
"""Where a stored turn has its calls, and where a call has its tool."""


class AgentsMissing(ConfigurationError):
    """A state names agents that the run's own cannot reach in this build."""

    def __init__(self, names: Iterable[str], starting_agent: str) -> None:
        self.names = sorted(names)
        super().__init__(
            f"The run's state names {', '.join(map(repr, self.names))}, which in this build is no "
            f"agent that {starting_agent!r} hands off to or uses as a tool, at any remove. Deploy "
            "one where it is, under that name, then resume the run."
        )


class ToolsMissing(ConfigurationError):
    """A state waits for calls of tools that its agents do not have in this build."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = sorted(names)
        super().__init__(
            f"The run waits for calls of {', '.join(map(repr, self.names))}, which in this build "
            "is no tool of the agent whose turn it is. Deploy one where it is, under that name, "
            "then resume the run."
        )


async def load_state(
    text: str, starting_agent: Agent[Any], context: Any
) -> RunState[Any, Agent[Any]]:
    """Restore a stored state with ``context`` as the object its tools are given.

    Raises:
        AgentsMissing, ToolsMissing: this build lacks an agent the state names, or a tool it waits
            for.
        ConfigurationError: it reads only a part of the state.
        agents.UserError: when the SDK cannot load it; the message says why as far as known.
    """
    return await restore(jsonsafe.loads(text), starting_agent, context)


async def restore(
    data: dict[str, Any], starting_agent: Agent[Any], context: Any
) -> RunState[Any, Agent[Any]]:
    """Restore a state as ``load_state`` does, from its JSON.

    Raises:
        AgentsMissing, ToolsMissing, ConfigurationError, agents.UserError: as ``load_state``.
    """
    missing = _agents_in(data) - {agent.name for agent in reachable([starting_agent])}
    if missing:
        raise AgentsMissing(missing, starting_agent.name)
    # Strict, or a nested state that does not load is dropped with its pending approvals.
    state = await RunState.from_json(
        starting_agent,
        data,
        context_override=RunContextWrapper(context=context),
        context_deserializer=lambda _: context,
        strict_context=True,
    )
    stored = len(data["generated_items"])
    if items_in(state) != stored:
        # The SDK leaves out what it cannot read: the model would be told another conversation.
        raise ConfigurationError(
            f"This build reads {items_in(state)} of the {stored} items of the run's state "
            f"(format {data['$schemaVersion']}). Deploy one that reads all of them, then resume "
            "the run."
        )
    if lost := set(_calls_lost(data, state)):
        raise ToolsMissing(lost)
    return state


def _agents_in(state: Mapping[str, Any]) -> set[str]:
    """Return the names of the agents a stored state cannot be restored without; pure."""
    named = [state["current_agent"], *(one.get("agent") for one in state["generated_items"])]
    names = {one["name"] for one in named if isinstance(one, Mapping) and one.get("name")}
    for run in (state.get("last_processed_response") or {}).get("functions", ()):
        nested = run.get("agent_run_state")
        names |= _agents_in(nested) if isinstance(nested, Mapping) else set()
    return names


def _calls_lost(data: Mapping[str, Any], state: RunState[Any, Agent[Any]]) -> Iterator[str]:
    """Give the tools of calls that ``data`` waits for and the restored ``state`` does not."""
    if not resumes_a_turn(state):
        return
    processed = data.get("last_processed_response") or {}
    raw_items = (item["raw_item"] for item in data["generated_items"])
    answered = {raw.get("call_id") for raw in raw_items if str(raw.get("type")).endswith("_output")}
    nested = nested_states(state)
    found = calls_to_go_on_with(state) | answered
    for calls, tool in _ACTIONS.items():
        for entry in processed.get(calls, ()):
            call_id = entry["tool_call"].get("call_id")
            if call_id not in found:
                named = entry.get(tool, {})
                yield named.get("name") or named.get("tool_name") or tool
            if call_id in nested and isinstance(entry.get("agent_run_state"), Mapping):
                yield from _calls_lost(entry["agent_run_state"], nested[call_id])
