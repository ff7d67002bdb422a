"""Stand-ins for tools a recorded conversation used and this build no longer has.

The SDK refuses a call to a tool it cannot find. While a run is replayed, a finished call to a
tool that is gone is answered from its row; one without an outcome was settled by a person before
the run went on (see workflow.py), and the model is told that the tool is gone.
"""

from __future__ import annotations

from typing import Any

from agents import FunctionTool
from agents.tool import Tool
from agents.tool_context import ToolContext

from perdure.ledger.outputs import decode_output
from perdure.runs.effects import Call, Outcome, perform
from perdure.runs.execution import Execution


def missing_tools(execution: Execution, agent: str, tools: list[Tool]) -> set[str]:
    """Return the names of function tools in the record that ``tools`` of ``agent`` lacks."""
    names = {getattr(tool, "name", None) for tool in tools}
    return {
        call.tool
        for call in execution.journal.calls.values()
        if call.agent == agent and call.kind in ("function", "mcp", "agent")
    } - names


def stand_ins(execution: Execution, agent: str, tools: list[Tool]) -> list[Tool]:
    """Return a stand-in for each tool of ``agent`` that is recorded and missing."""
    if not execution.journal.calls:
        return []
    return [_stand_in(execution, name) for name in sorted(missing_tools(execution, agent, tools))]


def _stand_in(execution: Execution, name: str) -> FunctionTool:
    async def answer(ctx: ToolContext[Any], arguments: str) -> Any:
        async def gone() -> Outcome:
            text = f"The tool {name} is no longer available."
            return Outcome(
                value=text,
                stored={"type": "text", "text": text},
                error=text,
                error_type="ToolGone",
            )

        call = Call(
            ctx.tool_call_id, name, "function", execution.default_effect, arguments_raw=arguments
        )
        outcome = await perform(execution, call, gone, decode_output)
        if outcome.raised is not None:
            raise outcome.raised
        return outcome.value

    return FunctionTool(
        name=name,
        description="No longer available.",
        params_json_schema={"type": "object", "properties": {}},
        on_invoke_tool=answer,
        strict_json_schema=False,
    )
