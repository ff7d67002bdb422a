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
from perdure.runs.effects import perform
from perdure.runs.execution import Execution
from perdure.runs.outcomes import Call, Outcome


class StandIn(FunctionTool):
    """Answers for a tool that is gone."""


def stand_ins(execution: Execution, agent: str, tools: list[Tool]) -> list[Tool]:
    """Return a stand-in for each function tool in the record that ``tools`` of ``agent`` lacks."""
    recorded = execution.journal.tools.get(agent)
    if not recorded:
        return []
    missing = recorded - {getattr(tool, "name", "") for tool in tools}
    return [_stand_in(execution, name) for name in sorted(missing)]


def _stand_in(execution: Execution, name: str) -> StandIn:
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

    return StandIn(
        name=name,
        description="No longer available.",
        params_json_schema={"type": "object", "properties": {}},
        on_invoke_tool=answer,
        strict_json_schema=False,
    )
