"""Definitions read out of the Agents SDK's agents, as ``catalogue.definitions`` wants them.

What a function does cannot be read: its name stands for it. What could be a secret is left out,
wherever it may stand: of headers, environment variables and extra arguments the names are kept, of
a URL where it leads to. So a secret is in no hash either, and a new one makes no new version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from agents import (
    Agent,
    AgentOutputSchema,
    AgentOutputSchemaBase,
    InputGuardrail,
    Model,
    ModelSettings,
    OutputGuardrail,
    RunConfig,
)
from agents.handoffs import Handoff

from perdure.ledger.effects import Effect
from perdure.runs.plain_values import name_of, plain, switch
from perdure.runs.server_definitions import mcp_server_definition
from perdure.runs.tool_definitions import tool_definition

__all__ = ["agent_definition", "run_config_definition"]

_SHOWN_SETTINGS = frozenset(
    {
        *("temperature", "top_p", "frequency_penalty", "presence_penalty", "tool_choice"),
        *("parallel_tool_calls", "truncation", "max_tokens", "reasoning", "verbosity", "store"),
        *("prompt_cache_retention", "prompt_cache_options", "include_usage", "response_include"),
        *("top_logprobs", "retry", "context_management", "preserve_raw_usage", "timeout"),
    }
)
"""Settings of a model whose values are none of anybody's: of all others only names are kept."""

_RUN_FUNCTIONS = (
    *("handoff_input_filter", "handoff_history_mapper", "call_model_input_filter"),
    *("tool_error_formatter", "session_input_callback"),
)
_RUN_WORDS = (
    *("nest_handoff_history", "tool_not_found_behavior", "tool_name_collision_policy"),
    *("reasoning_item_id_policy", "output_guardrail_blocked_message"),
)


def agent_definition(agent: Agent[Any], default_effect: Effect) -> dict[str, Any]:
    """Return an agent's own definition; ``default_effect`` is that of its unmarked tools."""
    instructions, prompt = agent.instructions, agent.prompt
    behavior = {
        "tool_use_behavior": plain(agent.tool_use_behavior),
        "reset_tool_choice": agent.reset_tool_choice,
        "hooks": None if agent.hooks is None else name_of(agent.hooks),
        "mcp_config": plain(agent.mcp_config),
    }
    return {
        "handoff_description": plain(agent.handoff_description),
        "instructions": plain(instructions) if isinstance(instructions, str) else None,
        "instructions_by": name_of(instructions) if callable(instructions) else None,
        "prompt": None if prompt is None or callable(prompt) else plain(prompt),
        "prompt_by": name_of(prompt) if callable(prompt) else None,
        "model": None if agent.model is None else _model(agent.model),
        "model_settings": _settings(agent.model_settings),
        **_output(agent.output_type),
        "behavior": behavior,
        "tools": [tool_definition(tool, default_effect) for tool in agent.tools],
        "handoffs": [_handoff(one) for one in agent.handoffs],
        "guardrails": _guardrails(agent.input_guardrails, agent.output_guardrails),
        "mcp_servers": [mcp_server_definition(one) for one in agent.mcp_servers],
    }


def run_config_definition(config: RunConfig) -> dict[str, Any]:
    """Return what all agents of an engine are run with, as far as it is set."""
    found: dict[str, Any] = {
        "model": None if config.model is None else _model(config.model),
        "model_settings": None
        if config.model_settings is None
        else _settings(config.model_settings),
        "guardrails": _guardrails(config.input_guardrails, config.output_guardrails) or None,
    }
    for name in _RUN_FUNCTIONS:
        function = getattr(config, name, None)
        found[name] = None if function is None else name_of(function)
    for name in _RUN_WORDS:
        found[name] = plain(getattr(config, name, None))
    return {name: value for name, value in found.items() if value is not None}


def _model(model: str | Model) -> str:
    if isinstance(model, str):
        return str(plain(model))
    name = getattr(model, "model", None)
    return str(plain(name)) if isinstance(name, str) else name_of(getattr(model, "inner", model))


def _settings(settings: ModelSettings) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in fields(settings):
        value = getattr(settings, one.name)
        if value is None:
            continue
        if one.name in _SHOWN_SETTINGS:
            found[one.name] = plain(value)
        else:
            found[one.name] = sorted(map(str, value)) if isinstance(value, Mapping) else "set"
    return found


def _output(output_type: Any) -> dict[str, Any]:
    if output_type is None:
        return {"output_type": None, "output_schema": None}
    given = isinstance(output_type, AgentOutputSchemaBase)
    schema = output_type if given else None
    if schema is None:
        try:
            schema = AgentOutputSchema(output_type)
        except Exception:  # noqa: BLE001 - whatever it is that a run will tell of
            return {"output_type": name_of(output_type), "output_schema": None}
    of_class = isinstance(output_type, type) and not hasattr(output_type, "__origin__")
    return {
        "output_type": name_of(output_type) if of_class else str(plain(schema.name())),
        "output_schema": None if schema.is_plain_text() else plain(schema.json_schema()),
    }


def _handoff(handoff: Agent[Any] | Handoff[Any, Any]) -> dict[str, Any]:
    if not isinstance(handoff, Handoff):
        return {
            "agent": plain(handoff.name),
            "tool_name": plain(Handoff.default_tool_name(handoff)),
            "tool_description": plain(Handoff.default_tool_description(handoff)),
            "input_schema": {},
            "input_filter": None,
            "nest_history": None,
            "enabled": "always",
            "enabled_by": None,
        }
    enabled, enabled_by = switch(handoff.is_enabled)
    return {
        "agent": plain(handoff.agent_name),
        "tool_name": plain(handoff.tool_name),
        "tool_description": plain(handoff.tool_description),
        "input_schema": plain(handoff.input_json_schema),
        "input_filter": None if handoff.input_filter is None else name_of(handoff.input_filter),
        "nest_history": handoff.nest_handoff_history,
        "enabled": enabled,
        "enabled_by": enabled_by,
    }


def _guardrails(
    of_input: Sequence[InputGuardrail[Any]] | None, of_output: Sequence[OutputGuardrail[Any]] | None
) -> list[dict[str, Any]]:
    return [
        *(_guardrail("input", one, one.run_in_parallel) for one in of_input or ()),
        *(_guardrail("output", one, None) for one in of_output or ()),
    ]


def _guardrail(
    kind: str, one: InputGuardrail[Any] | OutputGuardrail[Any], in_parallel: bool | None
) -> dict[str, Any]:
    function = name_of(one.guardrail_function)
    return {
        "kind": kind,
        "name": plain(one.name) or function.rpartition(".")[2],
        "function": function,
        "run_in_parallel": in_parallel,
    }
