"""The graph of agents, found from its roots and wrapped once, for good.

Per-run clones would break it: ``as_tool`` closures and handoffs hold the originals, and a state
is restored through them. The wrappers do nothing outside a durable run.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

from agents import Agent, FunctionTool, Model, RunConfig
from agents.handoffs import Handoff
from agents.tool import Tool

from perdure.errors import ConfigurationError
from perdure.runs.durable_model import DurableModelProvider, durable_model
from perdure.runs.durable_tools import wrap_tool
from perdure.runs.execution import current_agent, current_execution
from perdure.runs.guardrails import record_guardrails_of_agents, record_guardrails_of_config
from perdure.runs.mcp_lists import mark_mcp_tools, wrap_server
from perdure.runs.stand_ins import stand_ins

_WRAPPED = "__perdure_wrapped__"


def wrap_graph(roots: Iterable[Agent[Any]]) -> dict[str, Agent[Any]]:
    """Wrap every agent reachable from ``roots`` and return them by name.

    Handoffs (cyclic ones too) and agents used as tools are followed.

    Raises:
        ConfigurationError: for two agents of one name, or a tool that cannot be made durable.
    """
    agents: dict[str, Agent[Any]] = {}
    for agent in reachable(roots):
        known = agents.setdefault(agent.name, agent)
        if known is not agent:
            raise ConfigurationError(
                f"Two agents are called {agent.name!r}. A stored run finds its agent by name: "
                "give each agent a name of its own."
            )
    wrapped_tools: dict[int, Tool] = {}
    for agent in agents.values():
        _wrap_agent(agent, wrapped_tools)
    record_guardrails_of_agents(agents.values())
    return agents


def wrap_run_config(run_config: RunConfig) -> None:
    """Make the model and the provider a run config names durable, in place; see guardrails.py."""
    record_guardrails_of_config(run_config)
    if isinstance(run_config.model, Model):
        run_config.model = durable_model(run_config.model)
    if not isinstance(run_config.model_provider, DurableModelProvider):
        run_config.model_provider = DurableModelProvider(run_config.model_provider)


def reachable(roots: Iterable[Agent[Any]]) -> list[Agent[Any]]:
    """Return ``roots`` and what they hand off to or use as tools, at any remove, each once."""
    found: list[Agent[Any]] = []
    seen: set[int] = set()
    waiting = list(roots)
    while waiting:
        agent = waiting.pop(0)
        if id(agent) in seen:
            continue
        seen.add(id(agent))
        found.append(agent)
        waiting.extend(_handoff_targets(agent))
        waiting.extend(
            tool._agent_instance
            for tool in agent.tools
            if isinstance(tool, FunctionTool) and isinstance(tool._agent_instance, Agent)
        )
    return found


def _handoff_targets(agent: Agent[Any]) -> list[Agent[Any]]:
    targets = []
    for entry in agent.handoffs:
        if isinstance(entry, Agent):
            targets.append(entry)
        elif isinstance(entry, Handoff):
            target = entry._agent_ref() if entry._agent_ref is not None else None
            if isinstance(target, Agent):
                targets.append(target)
    return targets


def _wrap_agent(agent: Agent[Any], wrapped_tools: dict[int, Tool]) -> None:
    if getattr(agent, _WRAPPED, False):
        return
    setattr(agent, _WRAPPED, True)
    if isinstance(agent.model, Model):
        agent.model = durable_model(agent.model)
    for tool in agent.tools:
        if isinstance(tool, FunctionTool):
            _wrap_nested_run_config(tool)
    # A tool two agents share stays one tool, as the SDK tells tools apart by identity.
    agent.tools[:] = [wrapped_tools.setdefault(id(tool), wrap_tool(tool)) for tool in agent.tools]
    for server in agent.mcp_servers:
        wrap_server(server)
    _wrap_listings(agent)


def _wrap_listings(agent: Agent[Any]) -> None:
    """Let the agent's tool listings note whose turn it is, and wrap what MCP servers offer."""
    list_mcp, list_all = agent.get_mcp_tools, agent.get_all_tools

    async def get_mcp_tools(run_context: Any) -> list[Tool]:
        execution = current_execution.get()
        if execution is None or not agent.mcp_servers:
            return await list_mcp(run_context)
        tools = execution.mcp_tools.get(agent.name)
        if tools is None:
            listed = await list_mcp(run_context)
            mark_mcp_tools(listed, agent.mcp_servers)
            tools = [wrap_tool(tool) for tool in listed]
            execution.mcp_tools[agent.name] = tools
        return list(tools)

    async def get_all_tools(run_context: Any) -> list[Tool]:
        execution = current_execution.get()
        if execution is None:
            return await list_all(run_context)
        current_agent.set(agent.name)
        tools = await list_all(run_context)
        return tools + stand_ins(execution, agent.name, tools)

    object.__setattr__(agent, "get_mcp_tools", get_mcp_tools)
    object.__setattr__(agent, "get_all_tools", get_all_tools)


def _wrap_nested_run_config(tool: FunctionTool) -> None:
    """Wrap a run config given to ``as_tool``: its nested run would bypass ours."""
    impl = getattr(tool.on_invoke_tool, "_invoke_tool_impl", None)
    if not tool._is_agent_tool or impl is None:
        return
    for value in inspect.getclosurevars(impl).nonlocals.values():
        if isinstance(value, RunConfig):
            wrap_run_config(value)
