"""Definitions of MCP servers, without what could be a secret; see ``definitions``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from agents.mcp import MCPServer, MCPServerSse, MCPServerStdio, MCPServerStreamableHttp

from perdure.ledger.effects import mcp_effects
from perdure.runs.plain_values import name_of, origin_of, plain, switch, without_urls
from perdure.runs.tool_definitions import tool_guardrails

__all__ = ["mcp_server_definition"]

_OPTION = re.compile(r"--[a-zA-Z][a-zA-Z0-9_-]{0,63}|-[a-zA-Z]")


def mcp_server_definition(server: MCPServer) -> dict[str, Any]:
    """Return an MCP server's definition: how it is reached, and what its tools are held to.

    What its tools are is not known before it is asked.
    """
    match server:
        case MCPServerStdio():
            transport, settings = "stdio", _program(getattr(server, "params", None))
        case MCPServerSse():
            transport, settings = "sse", _address(getattr(server, "params", None))
        case MCPServerStreamableHttp():
            transport, settings = "streamable_http", _address(getattr(server, "params", None))
        case _:
            transport, settings = "other", {"class": name_of(server)}
    policy = getattr(server, "_needs_approval_policy", False)
    if isinstance(policy, Mapping):
        gate, gate_by, settings["require_approval"] = "by_tool", None, plain(policy)
    else:
        gate, gate_by = switch(policy)
    tool_filter = getattr(server, "tool_filter", None)
    if tool_filter is not None:
        settings["tool_filter"] = plain(tool_filter)
    if guardrails := tool_guardrails(server):
        settings["guardrails"] = guardrails
    return {
        "name": without_urls(str(plain(server.name))),
        "transport": transport,
        "gate": gate,
        "gate_by": gate_by,
        "effects": {tool or "*": one.value for tool, one in mcp_effects(server).items()},
        "settings": {name: value for name, value in settings.items() if value is not None},
    }


def _program(params: Any) -> dict[str, Any]:
    """Return a program without its arguments: of its options the names, where they show as such."""
    given = [str(one).partition("=")[0] for one in _of(params, "args") or ()]
    return {
        "command": PurePath(without_urls(str(_of(params, "command") or ""))).name or None,
        "options": [one for one in given if _OPTION.fullmatch(one)] or None,
        "environment": _names(_of(params, "env")),
    }


def _address(params: Any) -> dict[str, Any]:
    return {"origin": origin_of(_of(params, "url")), "headers": _names(_of(params, "headers"))}


def _of(params: Any, name: str) -> Any:
    return params.get(name) if isinstance(params, Mapping) else getattr(params, name, None)


def _names(values: Any) -> list[str] | None:
    return sorted(map(str, values)) if values else None
