"""Definitions of tools; see ``definitions``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agents import (
    ApplyPatchTool,
    CodeInterpreterTool,
    ComputerTool,
    CustomTool,
    FileSearchTool,
    FunctionTool,
    HostedMCPTool,
    ImageGenerationTool,
    LocalShellTool,
    ShellTool,
    WebSearchTool,
)
from agents.tool import Tool

from perdure.ledger.effects import Effect, effect_of, probe_of
from perdure.runs.gates import own_gate
from perdure.runs.plain_values import name_of, origin_of, plain, switch

__all__ = ["tool_definition", "tool_guardrails"]

_Definition = dict[str, Any]


def tool_definition(tool: Tool, default: Effect) -> _Definition:
    """Return a tool's definition; ``default`` is the effect of one that is not marked."""
    kind, effect, settings, more = _native(tool, default)
    gate, gate_by = more.pop("gate", None) or switch(own_gate(tool))
    enabled, enabled_by = switch(getattr(tool, "is_enabled", True))
    look = probe_of(tool)
    if look is not None:
        settings = {**settings, "probe": name_of(look)}
    answers = getattr(tool, "on_approval", None) or getattr(tool, "on_approval_request", None)
    if answers is not None:
        settings = {**settings, "approvals_by": name_of(answers)}
    return {
        "name": plain(tool.name),
        "kind": kind,
        "description": plain(getattr(tool, "description", None)),
        "input_schema": None,
        "output_schema": None,
        "effect": effect,
        "gate": gate,
        "gate_by": gate_by,
        "enabled": enabled,
        "enabled_by": enabled_by,
        "agent": None,
        "timeout_seconds": None,
        "guardrails": [],
        **more,
        "settings": {name: value for name, value in settings.items() if value is not None},
    }


def tool_guardrails(tool: Any) -> list[_Definition]:
    """Return the definitions of the guardrails of a tool, or of an MCP server for all its tools."""
    given: Sequence[tuple[str, Any]] = [
        *(("input", one) for one in getattr(tool, "tool_input_guardrails", None) or ()),
        *(("output", one) for one in getattr(tool, "tool_output_guardrails", None) or ()),
    ]
    found = []
    for kind, one in given:
        function = name_of(one.guardrail_function)
        name = plain(one.name) or function.rpartition(".")[2]
        found.append({"kind": kind, "name": name, "function": function})
    return found


_Read = tuple[str, str | None, _Definition, _Definition]
"""Kind, effect, settings, and fields that stand in the place of the usual."""


def _native(tool: Tool, default: Effect) -> _Read:
    match tool:
        case FunctionTool():
            return _function(tool, default)
        case CustomTool():
            settings = {"format": plain(tool.format), **_flags(tool)}
            return "custom", effect_of(tool, default).value, settings, {}
        case ShellTool():
            effect = None if tool.executor is None else effect_of(tool, default).value
            settings = {"environment": _environment(tool.environment), **_flags(tool)}
            return "shell", effect, settings, {}
        case LocalShellTool():
            return "local_shell", effect_of(tool, default).value, {}, {}
        case ApplyPatchTool():
            return "apply_patch", effect_of(tool, default).value, _flags(tool), {}
        case ComputerTool():
            return "computer", effect_of(tool, default).value, {}, {}
        case HostedMCPTool():
            return _hosted_mcp(tool)
    for kind, of, read in _AT_THE_PROVIDER:
        if isinstance(tool, of):
            return kind, None, read(tool), {}
    name = str(getattr(tool, "name", ""))
    kind = name if name in ("tool_search", "programmatic_tool_calling") else "other"
    return kind, None, {"class": name_of(tool)}, {}


def _function(tool: FunctionTool, default: Effect) -> _Read:
    # Of a durable tool the one it stands for: the time-out is there.
    inner: FunctionTool = getattr(tool.on_invoke_tool, "inner", tool)
    nested = tool._is_agent_tool
    behavior = inner.timeout_behavior if inner.timeout_seconds is not None else None
    settings = {
        "strict": tool.strict_json_schema,
        "namespace": plain(tool._tool_namespace),
        "timeout_behavior": behavior,
        **_flags(tool),
    }
    more = {
        "input_schema": plain(tool.params_json_schema),
        "output_schema": plain(tool.output_json_schema),
        "agent": plain(getattr(tool._agent_instance, "name", None)) if nested else None,
        "timeout_seconds": plain(inner.timeout_seconds),
        "guardrails": tool_guardrails(tool),
    }
    effect = Effect.NESTED if nested else effect_of(tool, default)
    return "agent" if nested else "function", effect.value, settings, more


def _flags(tool: Any) -> _Definition:
    return {
        "defer_loading": getattr(tool, "defer_loading", False) or None,
        "allowed_callers": plain(getattr(tool, "allowed_callers", None)),
    }


def _hosted_mcp(tool: HostedMCPTool) -> _Read:
    config: Mapping[str, Any] = tool.tool_config
    approval = config.get("require_approval", "always")
    given = isinstance(approval, Mapping)
    gate = "by_tool" if given else "never" if approval == "never" else "always"
    url = config.get("server_url")
    settings = {
        "server_label": plain(config.get("server_label")),
        "connector_id": plain(config.get("connector_id")),
        "origin": None if url is None else origin_of(url),
        "headers": sorted(map(str, config.get("headers") or ())) or None,
        "authorization": "set" if config.get("authorization") else None,
        "allowed_tools": plain(config.get("allowed_tools")),
        "require_approval": plain(approval) if given else None,
        "defer_loading": config.get("defer_loading") or None,
    }
    more = {"gate": (gate, None), "description": plain(config.get("server_description"))}
    return "hosted_mcp", Effect.AT_MOST_ONCE.value, settings, more


def _environment(environment: Any) -> _Definition | None:
    """Return what is known to be harmless of where a tool of the provider runs."""
    if not isinstance(environment, Mapping):
        return None
    network = environment.get("network_policy")
    known = {
        "type": environment.get("type"),
        "container_id": environment.get("container_id"),
        "memory_limit": environment.get("memory_limit"),
        "file_ids": environment.get("file_ids"),
        "skills": [
            one.get("name") or one.get("skill_id") for one in environment.get("skills") or ()
        ]
        or None,
        "network": network.get("type") if isinstance(network, Mapping) else None,
        "allowed_domains": network.get("allowed_domains") if isinstance(network, Mapping) else None,
    }
    return {name: plain(value) for name, value in known.items() if value is not None}


def _file_search(tool: FileSearchTool) -> _Definition:
    return {
        "vector_store_ids": plain(tool.vector_store_ids),
        "max_num_results": tool.max_num_results,
        "include_search_results": tool.include_search_results,
        "ranking_options": plain(tool.ranking_options),
        "filters": plain(tool.filters),
    }


def _web_search(tool: WebSearchTool) -> _Definition:
    return {
        "user_location": plain(tool.user_location),
        "filters": plain(tool.filters),
        "search_context_size": tool.search_context_size,
        "external_web_access": tool.external_web_access,
        "search_content_types": plain(tool.search_content_types),
    }


def _code_interpreter(tool: CodeInterpreterTool) -> _Definition:
    container = tool.tool_config.get("container")
    kept = container if isinstance(container, str) else _environment(container)
    return {"container": plain(kept)}


def _image_generation(tool: ImageGenerationTool) -> _Definition:
    config: Mapping[str, Any] = tool.tool_config
    return {name: plain(config.get(name)) for name in _IMAGE_SETTINGS}


_IMAGE_SETTINGS = (
    *("action", "background", "input_fidelity", "model", "moderation", "output_compression"),
    *("output_format", "partial_images", "quality", "size"),
)
_AT_THE_PROVIDER: Sequence[tuple[str, type[Any], Callable[[Any], _Definition]]] = (
    ("file_search", FileSearchTool, _file_search),
    ("web_search", WebSearchTool, _web_search),
    ("code_interpreter", CodeInterpreterTool, _code_interpreter),
    ("image_generation", ImageGenerationTool, _image_generation),
)
