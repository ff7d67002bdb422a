"""Which version of an agent a build has: a short hash of what it is defined by.

The same definition has the same version in every process and on every machine; another build's is
another one where anything differs that a run of it would meet: the agent's own definition, or that
of one it can reach by handoffs and as tools.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any

from agents import Agent, FunctionTool, Model, RunConfig
from agents.handoffs import Handoff
from agents.tool import Tool

__all__ = ["agent_versions"]

_LENGTH = 12


def agent_versions(
    agents: Mapping[str, Agent[Any]], config: RunConfig, reach: Callable[[Agent[Any]], list[Any]]
) -> dict[str, str]:
    """Return the version of each agent, 12 hex digits, by its name.

    ``reach`` gives what an agent can hand off to and use as tools, at any remove, itself included.
    """
    own = {name: _definition(agent) for name, agent in agents.items()}
    override = None if config.model is None else _model(config.model)
    return {
        name: _hash([name, override, *(own[one] for one in sorted(a.name for a in reach(agent)))])
        for name, agent in agents.items()
    }


def _hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=_name)
    return sha256(text.encode()).hexdigest()[:_LENGTH]


def _definition(agent: Agent[Any]) -> dict[str, Any]:
    output = agent.output_type
    return {
        "name": agent.name,
        "handoff_description": agent.handoff_description,
        "instructions": _words(agent.instructions),
        "model": None if agent.model is None else _model(agent.model),
        "tools": [_tool(tool) for tool in agent.tools],
        "mcp_servers": sorted(server.name for server in agent.mcp_servers),
        "handoffs": [_handoff(one) for one in agent.handoffs],
        "output_type": None if output is None else _name(output),
    }


def _words(instructions: Any) -> Any:
    """Return static instructions as they are; of a function that makes them its name counts."""
    if instructions is None or isinstance(instructions, str):
        return instructions
    return {"by": _name(instructions)}


def _model(model: str | Model) -> str:
    if isinstance(model, str):
        return model
    name = getattr(model, "model", None)
    return name if isinstance(name, str) else _name(getattr(model, "inner", model))


def _tool(tool: Tool) -> dict[str, Any]:
    if isinstance(tool, FunctionTool):
        return {
            "name": tool.name,
            "description": tool.description,
            "schema": tool.params_json_schema,
        }
    return {"name": tool.name, "kind": type(tool).__name__}


def _handoff(handoff: Any) -> Any:
    if isinstance(handoff, Handoff):
        return [handoff.tool_name, handoff.tool_description, handoff.agent_name]
    return handoff.name


def _name(value: Any) -> str:
    """Return what something is called in its code: never where it lies in memory."""
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"
