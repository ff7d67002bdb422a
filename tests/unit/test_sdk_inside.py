"""What runs/sdk.py leans on inside the Agents SDK is still there and means what we take it for."""

from __future__ import annotations

import asyncio
import copy
import inspect
from importlib.metadata import version
from typing import Any

import httpx2 as httpx
import pytest
from agents import (
    Agent,
    Computer,
    ComputerProvider,
    ComputerTool,
    FunctionTool,
    ModelBehaviorError,
    ModelSettings,
    Runner,
    RunState,
    UserError,
    dispose_resolved_computers,
    function_tool,
    resolve_computer,
)
from agents.agent import AgentBase
from agents.exceptions import ModelTimeoutError
from agents.run_context import RunContextWrapper
from agents.run_internal import tool_execution
from agents.run_internal.tool_actions import ComputerAction
from agents.testing import function_call
from agents.tool import _FailureHandlingFunctionToolInvoker, _get_function_tool_invoke_context
from agents.tool_context import ToolContext
from openai import APIConnectionError, APIStatusError, APITimeoutError, OpenAIError
from openai.types.responses import ResponseComputerToolCall
from openai.types.shared import Reasoning

from perdure import jsonsafe
from perdure.runs import sdk
from perdure.runs.durable_tools import wrap_tool
from perdure.runs.forked_state import forked_state
from tests.engine_support import RuleModel, outputs_in, turns

_ACT = ComputerAction.__dict__["_execute_action_and_capture"]


class Screen(Computer):
    """A computer that shows a picture."""

    def screenshot(self) -> str:
        return "picture"

    def click(self, x: int, y: int, button: Any) -> None: ...
    def double_click(self, x: int, y: int) -> None: ...
    def scroll(self, x: int, y: int, scroll_x: int, scroll_y: int) -> None: ...
    def type(self, text: str) -> None: ...
    def wait(self) -> None: ...
    def move(self, x: int, y: int) -> None: ...
    def keypress(self, keys: list[str]) -> None: ...
    def drag(self, path: list[tuple[int, int]]) -> None: ...


def _use(call_id: str, **acts: Any) -> Any:
    return ResponseComputerToolCall.model_validate(
        {
            "type": "computer_call",
            "id": call_id,
            "call_id": call_id,
            "status": "completed",
            "pending_safety_checks": [],
            **(acts or {"action": {"type": "screenshot"}}),
        }
    )


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


async def test_computer_calls_are_carried_out_where_we_stand_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ComputerAction, "_execute_action_and_capture", _ACT)
    served: list[str] = []

    async def serve(tool_call: Any, actions: list[Any], computer: Any, act: sdk.Act) -> str:
        served.append(f"{tool_call.call_id} {[action.type for action in actions]}")
        assert isinstance(computer, Screen)
        return "ours " + await act()

    sdk.serve_computer_calls(serve)
    looked = [_use("c1", actions=[{"type": "wait"}, {"type": "screenshot"}]), _use("c2")]
    model = turns(looked, "done")
    agent = Agent(name="a", model=model, tools=[ComputerTool(Screen())])
    result = await Runner.run(agent, "hi")
    assert result.final_output == "done"
    # One after the other, each once.
    assert served == ["c1 ['wait', 'screenshot']", "c2 ['screenshot']"]
    outputs = outputs_in(model.inputs[-1])
    assert outputs["c1"]["image_url"] == "data:image/png;base64,ours picture"


async def test_how_a_computer_is_made_is_known_also_while_a_run_has_one() -> None:
    screen = Screen()
    made: list[Any] = []

    def create(**_: Any) -> Screen:
        return screen

    async def dispose(*, run_context: Any, computer: Any) -> None:
        made.append(computer)

    assert sdk.computer_config(ComputerTool(screen)) == (screen, None, None)
    assert sdk.computer_config(ComputerTool(create)) == (None, create, None)
    provider = ComputerProvider(create=create, dispose=dispose)
    tool: ComputerTool[Any] = ComputerTool(provider)
    context = RunContextWrapper(None)
    assert await resolve_computer(tool=tool, run_context=context) is screen
    assert sdk.computer_config(tool) == (None, create, dispose)
    await dispose_resolved_computers(run_context=context)
    assert made == [screen]


async def test_a_model_call_that_the_sdk_gives_up_knows_why() -> None:
    known: list[bool] = []

    class Slow(RuleModel):
        async def get_response(self, *args: Any, **rest: Any) -> Any:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                known.append(sdk.model_timed_out())

    model = Slow(lambda _: [])
    agent = Agent(name="a", model=model, model_settings=ModelSettings(timeout=0.01))
    with pytest.raises(ModelTimeoutError):
        await Runner.run(agent, "hi")
    task = asyncio.create_task(model.get_response())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert known == [True, False]


def _caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


_REQUEST = httpx.Request("POST", "https://api.example.com")


def _status(code: int) -> APIStatusError:
    return APIStatusError("no", response=httpx.Response(code, request=_REQUEST), body=None)


@pytest.mark.parametrize(
    ("error", "never"),
    [
        (_status(400), True),
        (_status(429), True),
        (_status(500), False),
        (_status(503), False),
        (_caused(APIConnectionError(request=_REQUEST), httpx.ConnectError("refused")), True),
        (_caused(APITimeoutError(_REQUEST), httpx.ConnectTimeout("slow")), True),
        (_caused(APITimeoutError(_REQUEST), httpx.ReadTimeout("slow")), False),
        (_caused(APIConnectionError(request=_REQUEST), httpx.ReadError("reset")), False),
        (UserError("no such tool"), True),
        (OpenAIError("no key"), True),
        (ModelBehaviorError("odd"), False),
        (TimeoutError(), False),
    ],
)
def test_what_certainly_never_reached_a_provider(error: Exception, never: bool) -> None:
    assert sdk.never_reached(error) is never
    if never:
        # Nor does one that was being handled when the model was asked say anything.
        other = RuntimeError("cut")
        other.__context__ = error
        assert not sdk.never_reached(other)


def test_the_version_is_the_one_all_this_was_read_in() -> None:
    assert version("openai-agents").startswith("0.24.")
    assert sdk.sdk_version == version("openai-agents")


async def test_policies_stand_before_every_function_tool_and_change_nothing_else() -> None:
    """A callable in ``needs_approval`` would make calls wait that the SDK cannot look into."""
    looked: list[str] = []
    waits = {"c2"}

    async def is_gated(tool: FunctionTool, call_id: str) -> bool:
        looked.append(call_id)
        return call_id in waits

    @function_tool
    async def look(text: str, times: int = 1) -> str:
        return text * times

    evaluate = tool_execution.evaluate_function_tool_approval  # type: ignore[attr-defined]
    sdk.gate_function_tools(is_gated)
    try:
        asked = [
            function_call("look", {"text": "a"}, call_id="c1"),
            function_call("look", {"text": "b"}, call_id="c2"),
            # What is no call the tool can take is told to the model, and waits for nobody.
            function_call("look", {"times": "x"}, call_id="c3"),
        ]
        model = turns(asked, "done")
        result = await Runner.run(Agent(name="a", model=model, tools=[look]), "hi")
        assert [one.raw_item.call_id for one in result.interruptions] == ["c2"]  # type: ignore[union-attr]
        state = result.to_state()
        looked.clear()
        for one in result.interruptions:
            state.approve(one)
        result = await Runner.run(Agent(name="a", model=model, tools=[look]), state)
        assert result.final_output == "done"
        # What was decided is not asked about again.
        assert "c2" not in looked
        outputs = outputs_in(model.inputs[-1])
        assert (outputs["c1"], outputs["c2"]) == ("a", "b")
        assert "error" in outputs["c3"]
    finally:
        tool_execution.evaluate_function_tool_approval = evaluate  # type: ignore[attr-defined]


async def test_a_state_goes_on_without_what_was_let_run() -> None:
    """What forked_state.py leaves out is nothing the SDK needs: what has an outcome stays done."""
    made: list[str] = []

    @function_tool(needs_approval=True)
    async def send(to: str) -> str:
        made.append(to)
        return f"sent {to}"

    model = turns(
        [function_call("send", {"to": "a"}, call_id="c1")],
        [function_call("send", {"to": "b"}, call_id="c2")],
        "done",
    )
    agent = Agent(name="a", model=model, tools=[send])
    state = (await Runner.run(agent, "hi", context={"n": 1})).to_state()
    state.approve(state.get_interruptions()[0])
    second = (await Runner.run(agent, state)).to_state()
    second.approve(second.get_interruptions()[0])
    stored = jsonsafe.dumps(second.to_json())
    given = jsonsafe.loads(stored)["context"]
    assert [one["decision"]["approved"] for one in given["function_tool_approvals"]] == [
        ["c1", "c2"]
    ]

    forked = forked_state(jsonsafe.loads(stored))
    assert (forked.waits, forked.agent, forked.context) == (True, "a", {"n": 1})
    assert forked.turns_left == 8
    again = await RunState.from_json(agent, forked.data)
    result = await Runner.run(agent, again)
    assert [one.raw_item.call_id for one in result.interruptions] == ["c2"]  # type: ignore[union-attr]
    assert made == ["a"]

    # Where a turn is over another agent goes on, which has other tools.
    third = result.to_state()
    third.approve(third.get_interruptions()[0])
    ended = (await Runner.run(agent, third)).to_state()
    other = Agent(name="b", model=turns("-", "-", "-", "b says so"))
    moved = forked_state(ended.to_json(), agent="b")
    assert (moved.waits, moved.agent) == (False, "b")
    root = Agent(name="all", handoffs=[agent, other])
    restored = await RunState.from_json(root, moved.data)
    sdk.reopen(restored)
    sdk.add_messages(restored, [{"role": "user", "content": "and?"}])
    said = await Runner.run(root, restored)
    assert (said.final_output, said.last_agent.name) == ("b says so", "b")
    assert made == ["a", "b"]


def test_settings_are_shown_as_the_sdk_traces_them() -> None:
    settings = ModelSettings(
        temperature=0.5,
        max_tokens=9,
        tool_choice="auto",
        reasoning=Reasoning(effort="low"),
        metadata={"a": "b"},
        extra_headers={"Authorization": "a secret"},
    )
    told = {name: one for name, one in settings.to_traceable_dict().items() if one is not None}
    assert sdk.shown_settings(settings) == told
    assert "secret" not in str(told)
    assert sdk.shown_settings(ModelSettings()) == {}
