"""What MCP servers offer, listed once a segment and recorded, and its effect classes.

A server may change its mind, or be away, while a segment is begun again after a crash; replayed
replies and the model are to see the tools they saw. The next segment lists anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agents import FunctionTool
from agents.mcp import MCPServer
from agents.tool import Tool
from mcp.types import Tool as MCPTool

from perdure import jsonsafe
from perdure.db import load_sql
from perdure.errors import Fenced, StopSegment
from perdure.ledger.effects import Effect, mark_effect, mcp_effect
from perdure.runs.execution import Execution, current_execution, database_needed

_RECORD = load_sql("perdure.runs", "mcp_lists.sql")["record_list"]
_WRAPPED = "__perdure_wrapped__"


def wrap_server(server: MCPServer) -> None:
    """Let ``server`` answer from the segment's record, on the instance and once.

    Outside a durable run it lists as before.
    """
    if getattr(server, _WRAPPED, False):
        return
    setattr(server, _WRAPPED, True)
    list_now = server.list_tools

    async def list_tools(run_context: Any = None, agent: Any = None) -> list[MCPTool]:
        execution = current_execution.get()
        if execution is None or agent is None:
            return await list_now(run_context, agent)
        key = _key(server, agent)
        if key not in execution.mcp_lists:
            offered = [
                tool.model_dump(mode="json", by_alias=True, exclude_none=True)
                for tool in await list_now(run_context, agent)
            ]
            # Of two runs of the agent side by side the first to have listed counts.
            first = execution.mcp_lists.setdefault(key, offered) is offered
            if first and not execution.only_looks:
                await _record(execution, key, offered)
        return [MCPTool.model_validate(tool) for tool in execution.mcp_lists[key]]

    server.list_tools = list_tools  # type: ignore[method-assign]


def mark_mcp_tools(tools: Sequence[Tool], servers: Sequence[MCPServer]) -> None:
    """Mark ``tools``, made by the SDK of what an agent's ``servers`` offer, with their classes.

    What the server was marked with counts, else what its annotations say, else nothing does.
    """
    for tool in tools:
        if not isinstance(tool, FunctionTool) or tool._mcp_tool_binding is None:
            continue
        _, name, place = tool._mcp_tool_binding
        marked = mcp_effect(servers[place], name) if place is not None else None
        found = marked or _annotated(tool)
        if found is not None:
            mark_effect(tool, found)


def _annotated(tool: FunctionTool) -> Effect | None:
    if tool.mcp_annotations is None:
        return None
    said = tool.mcp_annotations.model_dump(by_alias=True)
    if said.get("readOnlyHint"):
        return Effect.READ
    return Effect.IDEMPOTENT if said.get("idempotentHint") else None


def _key(server: MCPServer, agent: Any) -> str:
    """Return what tells the servers of all agents apart, also where two have one name."""
    place = next((n for n, one in enumerate(agent.mcp_servers) if one is server), -1)
    return f"{agent.name} {place} {server.name}"


async def _record(execution: Execution, key: str, tools: list[dict[str, Any]]) -> None:
    try:
        with database_needed(execution.run_id, doing="recording the tools of an MCP server"):
            async with execution.pool.connection() as conn:
                cursor = await conn.execute(
                    _RECORD,
                    {
                        "run_id": execution.run_id,
                        "seq": execution.segment,
                        "epoch": execution.epoch,
                        "key": jsonsafe.protect_text(key),
                        "tools": jsonsafe.dumps(tools),
                    },
                )
        if cursor.rowcount != 1:
            raise Fenced(execution.run_id, epoch=execution.epoch)
    except StopSegment as reason:
        await execution.park(reason)
