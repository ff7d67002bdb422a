"""Run items as the SDK's own stream gives them, made anew from what is recorded. Pure.

The SDK makes them of a reply with the tools at hand. A reader has the reply and the agents of this
build: what a tool is called and described as is taken from there, where it is there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from agents import (
    Agent,
    FunctionTool,
    Handoff,
    ItemHelpers,
    MCPApprovalRequestItem,
    MCPApprovalResponseItem,
    MCPListToolsItem,
    MessageOutputItem,
    ReasoningItem,
    RunItem,
    RunItemStreamEvent,
    ToolCallItem,
    ToolCallOutputItem,
)
from agents.items import (
    HandoffCallItem,
    HandoffOutputItem,
    ToolSearchCallItem,
    ToolSearchOutputItem,
    coerce_tool_search_call_raw_item,
    coerce_tool_search_output_raw_item,
)
from openai.types.responses import ResponseFunctionToolCall

from perdure.ledger.outputs import decode_output

_NAMES: Final[dict[str, Any]] = {
    "message_output_item": "message_output_created",
    "handoff_call_item": "handoff_requested",
    "handoff_output_item": "handoff_occured",
    "tool_call_item": "tool_called",
    "tool_search_call_item": "tool_search_called",
    "tool_search_output_item": "tool_search_output_created",
    "tool_call_output_item": "tool_output",
    "reasoning_item": "reasoning_item_created",
    "mcp_approval_request_item": "mcp_approval_requested",
    "mcp_approval_response_item": "mcp_approval_response",
    "mcp_list_tools_item": "mcp_list_tools",
}
_AS_DICTS: Final = frozenset({"shell_call", "apply_patch_call"})
"""Calls the SDK itself hands on as mappings."""
DECODED: Final = frozenset({"function", "agent", "mcp", "custom"})
"""Kinds of calls whose output is told when the tool is done; of others the SDK makes items that
are known from the run's next checkpoint."""


def told(items: Iterable[RunItem]) -> list[RunItemStreamEvent]:
    """Return the stream events of items, as the SDK names them."""
    return [
        RunItemStreamEvent(name=_NAMES[item.type], item=item)
        for item in items
        if item.type in _NAMES
    ]


def items_of(output: Sequence[Any], agent: Agent[Any]) -> list[RunItem]:
    """Return the items of a reply of ``agent``: its messages, calls, reasoning, in their order."""
    handoffs = _handoff_names(agent)
    items = (_item_of(one, agent, handoffs) for one in output)
    return [item for item in items if item is not None]


def _item_of(raw: Any, agent: Agent[Any], handoffs: frozenset[str]) -> RunItem | None:
    match kind := getattr(raw, "type", None):
        case "message":
            return MessageOutputItem(raw_item=raw, agent=agent)
        case "reasoning":
            return ReasoningItem(raw_item=raw, agent=agent)
        case "function_call" if raw.name in handoffs:
            return HandoffCallItem(raw_item=raw, agent=agent)
        case "function_call":
            tool = function_tool(agent, raw.name)
            return ToolCallItem(
                raw_item=raw,
                agent=agent,
                description=None if tool is None else tool.description,
            )
        case "mcp_list_tools":
            return MCPListToolsItem(raw_item=raw, agent=agent)
        case "mcp_approval_request":
            return MCPApprovalRequestItem(raw_item=raw, agent=agent)
        case "tool_search_call":
            return ToolSearchCallItem(raw_item=coerce_tool_search_call_raw_item(raw), agent=agent)
        case "tool_search_output":
            given = coerce_tool_search_output_raw_item(raw)
            return ToolSearchOutputItem(raw_item=given, agent=agent)
        case "shell_call_output":
            plain = raw.model_dump(exclude_unset=True)
            return ToolCallOutputItem(raw_item=plain, output=plain.get("output"), agent=agent)
        case "compaction" | None:
            return None
    return ToolCallItem(
        raw_item=raw.model_dump(exclude_unset=True) if kind in _AS_DICTS else raw, agent=agent
    )


def function_tool(agent: Agent[Any], name: str) -> FunctionTool | None:
    """Return the agent's function tool of that name; None for what an MCP server offers."""
    for tool in agent.tools:
        if isinstance(tool, FunctionTool) and tool.name == name:
            return tool
    return None


def _handoff_names(agent: Agent[Any]) -> frozenset[str]:
    return frozenset(
        Handoff.default_tool_name(entry) if isinstance(entry, Agent) else entry.tool_name
        for entry in agent.handoffs
    )


def calls_in(output: Iterable[Any]) -> set[str]:
    """Return what the items of a reply will be answered by: ids of calls and of MCP requests."""
    return {
        str(known)
        for one in output
        if (known := getattr(one, "call_id", None))
        or (one.type == "mcp_approval_request" and (known := one.id))
    }


def output_item(call: Mapping[str, Any], agent: Agent[Any]) -> ToolCallOutputItem | None:
    """Return the item of what a tool gave; None where its row has nothing the model was told.

    ``call`` is the row of the call: ``call_id``, ``tool``, ``kind``, ``output``, ``error``.
    """
    stored = call["output"]
    if stored is None or call["kind"] not in DECODED:
        return None
    tool = function_tool(agent, call["tool"])
    # What was made of an error is words, which fit no schema of the tool.
    typed = tool if call["error"] is None and not stored.get("unknown") else None
    asked = ResponseFunctionToolCall(
        type="function_call", call_id=call["call_id"], name=call["tool"], arguments=""
    )
    try:
        value = decode_output(stored, typed._output_type_adapter if typed else None)
        raw = ItemHelpers.tool_call_output_item(
            asked,
            value,
            output_json_schema=typed.output_json_schema if typed else None,
            output_type_adapter=typed._output_type_adapter if typed else None,
        )
    except Exception:  # noqa: BLE001 - a type of the tool's that no longer reads what it gave
        value = decode_output({**stored, "typed": False})
        raw = ItemHelpers.tool_call_output_item(asked, value)
    if call["kind"] == "custom":
        raw = {**raw, "type": "custom_tool_call_output"}  # type: ignore[typeddict-item]
    return ToolCallOutputItem(agent=agent, raw_item=raw, output=value)


def answered(raw: Mapping[str, Any]) -> str:
    """Return what a stored output item answers: the id of a call or of an MCP request."""
    return str(raw.get("call_id") or raw.get("approval_request_id") or "")


def stored_item(raw: Any, agent: Agent[Any]) -> RunItem:
    """Return the item of a stored output, as the SDK made it."""
    if raw.get("type") == "mcp_approval_response":
        return MCPApprovalResponseItem(raw_item=raw, agent=agent)
    return ToolCallOutputItem(raw_item=raw, output=raw.get("output"), agent=agent)


def handoff_item(
    source: Agent[Any], target: Agent[Any], stored: Any | None = None
) -> HandoffOutputItem:
    """Return the item of a handoff; ``stored`` is what the model was told of it."""
    raw: Any = stored or {
        "type": "function_call_output",
        "call_id": "",
        "output": json.dumps({"assistant": target.name}),
    }
    return HandoffOutputItem(agent=source, raw_item=raw, source_agent=source, target_agent=target)
