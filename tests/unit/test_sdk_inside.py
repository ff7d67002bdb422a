"""What runs/sdk.py leans on inside the Agents SDK is still there and means what we take it for."""

from __future__ import annotations

import copy
import inspect
from importlib.metadata import version
from typing import Any

from agents import Agent, FunctionTool, RunState, function_tool
from agents.agent import AgentBase
from agents.run_context import RunContextWrapper
from agents.tool import _FailureHandlingFunctionToolInvoker, _get_function_tool_invoke_context
from agents.tool_context import ToolContext

from perdure.runs import sdk
from perdure.runs.durable_tools import wrap_tool


def _context(tool: FunctionTool) -> ToolContext[Any]:
    return ToolContext(None, tool_name=tool.name, tool_call_id="call", tool_arguments="{}")


async def test_an_error_the_sdk_turns_into_words_is_told_from_an_output() -> None:
    @function_tool
    async def fails() -> str:
        raise ValueError("no")

    @function_tool
    async def works() -> str:
        return "yes"

    message, from_sdk = await sdk.invoke_function_tool(fails, _context(fails), "{}")
    assert "error" in message
    assert from_sdk
    assert await sdk.invoke_function_tool(works, _context(works), "{}") == ("yes", False)


async def test_a_marked_context_counts_as_a_failure_the_sdk_handled() -> None:
    async def invoke(ctx: ToolContext[Any], _: str) -> str:
        sdk.mark_default_failure(ctx)
        return "an error, in words"

    tool = FunctionTool(
        "t", "", {"type": "object", "properties": {}}, invoke, strict_json_schema=False
    )
    assert await sdk.invoke_function_tool(tool, _context(tool), "{}") == (
        "an error, in words",
        True,
    )


def test_a_copied_tool_keeps_our_invoker_and_a_plain_one_its_mark() -> None:
    @function_tool
    def plain() -> str:
        return ""

    assert isinstance(plain.on_invoke_tool, _FailureHandlingFunctionToolInvoker)
    assert getattr(plain.on_invoke_tool, sdk.SYNC_TOOL_MARKER)
    assert isinstance(copy.copy(plain).on_invoke_tool, _FailureHandlingFunctionToolInvoker)


def test_the_sdk_hands_its_own_invoker_and_ours_the_context_as_it_is() -> None:
    @function_tool
    async def works() -> str:
        return "yes"

    for tool in (works, wrap_tool(works)):
        assert isinstance(tool, FunctionTool)
        context = _context(tool)
        assert _get_function_tool_invoke_context(tool, context) is context


async def test_tools_are_listed_through_the_methods_we_stand_in_for() -> None:
    agent = Agent(name="a")
    asked = []

    async def get_all_tools(context: Any) -> list[Any]:
        asked.append(context)
        return []

    object.__setattr__(agent, "get_all_tools", get_all_tools)
    from agents.run_internal.turn_preparation import get_all_tools as listed

    context = RunContextWrapper(None)
    assert await listed(agent, context) == []
    assert asked == [context]
    assert inspect.iscoroutinefunction(AgentBase.get_mcp_tools)


async def test_a_state_is_restored_strictly_with_the_context_given() -> None:
    agent = Agent(name="a")
    state: RunState[Any, Any] = RunState(
        context=RunContextWrapper({"n": 1}), original_input="hi", starting_agent=agent, max_turns=3
    )
    given = {"n": 2}
    restored = await RunState.from_json(
        agent,
        state.to_json(),
        context_override=RunContextWrapper(context=given),
        strict_context=True,
    )
    assert restored._context is not None
    assert restored._context.context is given
    assert sdk.current_turn(restored) == 0
    assert sdk.current_agent_name(restored) == "a"
    assert not sdk.goes_on(restored)


def test_the_version_is_the_one_all_this_was_read_in() -> None:
    assert version("openai-agents").startswith("0.24.")
    assert sdk.sdk_version == version("openai-agents")
