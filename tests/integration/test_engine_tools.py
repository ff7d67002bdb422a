"""Every kind of tool, durably: what ran, what the model read, what the record says."""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path
from typing import Any, cast

import pytest
from agents import (
    Agent,
    ApplyPatchTool,
    CustomTool,
    LocalShellTool,
    ShellCallOutcome,
    ShellCommandOutput,
    ShellResult,
    ShellTool,
    ToolGuardrailFunctionOutput,
    ToolOutputImage,
    ToolOutputText,
    function_tool,
    tool_input_guardrail,
    tool_output_guardrail,
)
from agents.editor import ApplyPatchOperation, ApplyPatchResult
from agents.mcp import MCPServerStdio
from dbos import DBOS
from openai.types.responses import (
    ResponseApplyPatchToolCall,
    ResponseCustomToolCall,
    ResponseFunctionShellToolCall,
)
from openai.types.responses.response_output_item import LocalShellCall

from perdure import Engine, effect, tool_call
from perdure.errors import ConfigurationError
from perdure.ledger.tool_call import ToolCall
from tests.engine_support import (
    approve,
    call,
    calls_of,
    error_of,
    items_of,
    outputs_in,
    rested,
    running,
    turns,
    waiting_for,
)


async def test_async_and_plain_tools_know_their_call(database_url: str) -> None:
    known: dict[str, tuple[ToolCall, bool]] = {}
    in_loop = threading.get_ident()

    @function_tool
    async def reads(name: str) -> str:
        known["async"] = tool_call(), threading.get_ident() == in_loop
        return f"read {name}"

    @effect("idempotent")
    @function_tool
    def writes(name: str) -> str:
        known["plain"] = tool_call(), threading.get_ident() == in_loop
        return f"wrote {name}"

    model = turns([call("reads", "c1", name="a"), call("writes", "c2", name="b")], "done")
    agent = Agent(name="files", model=model, tools=[reads, writes])
    async with running(database_url, agent) as engine:
        run = await rested(engine, "files")
        assert (run.status, run.output) == ("completed", "done")
        calls = await calls_of(engine, run)

    for key, call_id in (("async", "c1"), ("plain", "c2")):
        seen, in_the_loop = known[key]
        assert in_the_loop is (key == "async")
        assert (seen.run_id, seen.call_id, seen.attempt) == (run.id, call_id, 1)
        assert seen.idempotency_key == calls[call_id]["idempotency_key"]
    assert known["async"][0].idempotency_key != known["plain"][0].idempotency_key
    assert outputs_in(model.inputs[-1]) == {"c1": "read a", "c2": "wrote b"}
    assert (calls["c1"]["effect"], calls["c2"]["effect"]) == ("at_most_once", "idempotent")
    for one, output in ((calls["c1"], "read a"), (calls["c2"], "wrote b")):
        assert (one["status"], one["output"], one["attempt"]) == ("succeeded", output, 1)
        assert one["arguments"] == {"name": output[-1]}
        assert one["requested_at"] <= one["started_at"] <= one["finished_at"]


async def test_tools_of_one_turn_run_at_the_same_time(database_url: str) -> None:
    here, there = asyncio.Event(), asyncio.Event()

    @function_tool
    async def left() -> str:
        here.set()
        await asyncio.wait_for(there.wait(), 5)
        return "left"

    @function_tool
    async def right() -> str:
        there.set()
        await asyncio.wait_for(here.wait(), 5)
        return "right"

    model = turns([call("left", "c1"), call("right", "c2")], "done")
    async with running(
        database_url, Agent(name="both", model=model, tools=[left, right])
    ) as engine:
        run = await rested(engine, "both")
        assert run.status == "completed"
    assert outputs_in(model.inputs[-1]) == {"c1": "left", "c2": "right"}


async def test_rich_outputs_reach_the_model_as_the_sdk_shapes_them(database_url: str) -> None:
    @function_tool
    async def picture() -> list[ToolOutputText | ToolOutputImage]:
        return [
            ToolOutputText(text="a dot"),
            ToolOutputImage(image_url="data:image/png;base64,AAAA"),
        ]

    @function_tool
    async def table() -> dict[str, list[int]]:
        return {"rows": [1, 2]}

    model = turns([call("picture", "c1"), call("table", "c2")], "done")
    async with running(
        database_url, Agent(name="p", model=model, tools=[picture, table])
    ) as engine:
        run = await rested(engine, "p")
        calls = await calls_of(engine, run)
    read = outputs_in(model.inputs[-1])
    assert [part["type"] for part in read["c1"]] == ["input_text", "input_image"]
    assert read["c2"] == str({"rows": [1, 2]})
    assert [part["type"] for part in calls["c1"]["output"]] == ["text", "image"]
    assert calls["c2"]["output"] == {"rows": [1, 2]}


def _custom(call_id: str, text: str) -> ResponseCustomToolCall:
    return ResponseCustomToolCall(
        type="custom_tool_call", call_id=call_id, name="grep", input=text, id=f"ctc_{call_id}"
    )


async def test_a_custom_tool(database_url: str) -> None:
    asked: list[tuple[str, int]] = []

    async def grep(_: Any, text: str) -> str:
        asked.append((text, tool_call().attempt))
        return f"found {text}"

    tool = CustomTool(name="grep", description="Looks for a text.", on_invoke_tool=grep)
    model = turns([_custom("c1", "not json {")], "done")
    async with running(database_url, Agent(name="g", model=model, tools=[tool])) as engine:
        run = await rested(engine, "g")
        assert run.status == "completed"
        calls = await calls_of(engine, run)
    assert asked == [("not json {", 1)]
    assert outputs_in(model.inputs[-1]) == {"c1": "found not json {"}
    one = calls["c1"]
    assert (one["kind"], one["tool"], one["status"]) == ("custom", "grep", "succeeded")
    assert (one["arguments"], one["arguments_raw"]) == (None, "not json {")


async def test_a_gated_custom_tool_is_asked_about_with_what_it_would_get(database_url: str) -> None:
    asked: list[str] = []

    def grep(_: Any, text: str) -> str:
        asked.append(text)
        return "found"

    tool = CustomTool(name="grep", description="Looks.", on_invoke_tool=grep, needs_approval=True)
    model = turns([_custom("c1", "secret"), _custom("c2", "open")], "done")
    async with running(database_url, Agent(name="g", model=model, tools=[tool])) as engine:
        run = await rested(engine, "g")
        assert run.status == "interrupted"
        assert asked == []
        shown = {one.tool["call_id"]: one.tool for one in run.interruptions}
        assert {key: tool["arguments"] for key, tool in shown.items()} == {
            "c1": "secret",
            "c2": "open",
        }
        assert {tool["name"] for tool in shown.values()} == {"grep"}
        await engine.decide(waiting_for(run, call_id="c1").id, "reject", message="not that")
        open_one = waiting_for(run, call_id="c2")
        await engine.decide(open_one.id, "approve", digest=open_one.digest)
        await run.wait(10)
        assert run.status == "completed"
    assert asked == ["open"]
    assert outputs_in(model.inputs[-1]) == {"c1": "not that", "c2": "found"}


def _shell(call_id: str, *commands: str) -> ResponseFunctionShellToolCall:
    return ResponseFunctionShellToolCall.model_validate(
        {
            "type": "shell_call",
            "id": f"sh_{call_id}",
            "call_id": call_id,
            "status": "completed",
            "action": {"commands": list(commands), "timeout_ms": 1000},
        }
    )


@pytest.mark.parametrize("gated", [False, True])
async def test_the_shell_tool(database_url: str, gated: bool) -> None:
    ran: list[tuple[list[str], str]] = []

    async def execute(request: Any) -> ShellResult:
        ran.append((request.data.action.commands, tool_call().call_id))
        outcome = ShellCallOutcome(type="exit", exit_code=3)
        return ShellResult([ShellCommandOutput("out\x00", "err", outcome, "ls")])

    tool = ShellTool(executor=execute, needs_approval=gated)
    model = turns([_shell("c1", "ls", "pwd")], "done")
    async with running(database_url, Agent(name="s", model=model, tools=[tool])) as engine:
        run = await rested(engine, "s")
        if gated:
            assert ran == []
            assert run.interruptions[0].tool["arguments"]["commands"] == ["ls", "pwd"]
            run = await approve(engine, run)
        assert (run.status, run.error) == ("completed", None)
        calls = await calls_of(engine, run)
    assert ran == [(["ls", "pwd"], "c1")]
    [chunk] = outputs_in(model.inputs[-1])["c1"]
    assert (chunk["stdout"], chunk["stderr"]) == ("out\x00", "err")
    assert chunk["outcome"] == {"type": "exit", "exit_code": 3}
    assert (calls["c1"]["kind"], calls["c1"]["status"]) == ("shell", "succeeded")
    assert calls["c1"]["arguments"]["commands"] == ["ls", "pwd"]


async def test_the_local_shell_tool(database_url: str) -> None:
    ran: list[list[str]] = []

    def execute(request: Any) -> str:
        ran.append(request.data.action.command)
        return f"in {tool_call().call_id}"

    model = turns(
        [
            LocalShellCall.model_validate(
                {
                    "type": "local_shell_call",
                    "id": "ls_1",
                    "call_id": "c1",
                    "status": "completed",
                    "action": {"type": "exec", "command": ["ls"], "env": {}},
                }
            )
        ],
        "done",
    )
    agent = Agent(name="l", model=model, tools=[LocalShellTool(executor=execute)])
    async with running(database_url, agent) as engine:
        run = await rested(engine, "l")
        assert (run.status, run.error) == ("completed", None)
        calls = await calls_of(engine, run)
    assert ran == [["ls"]]
    [output] = [i for i in model.inputs[-1] if i.get("type") == "local_shell_call_output"]
    assert output["output"] == "in c1"
    assert (calls["c1"]["kind"], calls["c1"]["status"]) == ("local_shell", "succeeded")


class _Editor:
    def __init__(self) -> None:
        self.done: list[tuple[str, str, str, str]] = []

    async def create_file(self, operation: ApplyPatchOperation) -> ApplyPatchResult:
        return self._note(operation)

    def update_file(self, operation: ApplyPatchOperation) -> ApplyPatchResult:
        if operation.path == "locked":
            raise PermissionError("locked")
        return self._note(operation)

    async def delete_file(self, operation: ApplyPatchOperation) -> None:
        self._note(operation)

    def _note(self, operation: ApplyPatchOperation) -> ApplyPatchResult:
        known = tool_call()
        self.done.append((operation.type, operation.path, operation.diff or "", known.call_id))
        return ApplyPatchResult(status="completed", output=f"{operation.type} {operation.path}")


def _patch(call_id: str, **operation: str) -> ResponseApplyPatchToolCall:
    return ResponseApplyPatchToolCall.model_validate(
        {
            "type": "apply_patch_call",
            "id": f"ap_{call_id}",
            "call_id": call_id,
            "status": "completed",
            "operation": operation,
        }
    )


async def test_the_patch_tool_tells_equal_operations_apart(database_url: str) -> None:
    editor = _Editor()
    model = turns(
        [
            _patch("c1", type="create_file", path="a", diff="+1"),
            _patch("c2", type="update_file", path="a", diff="+2"),
            _patch("c3", type="update_file", path="a", diff="+2"),
            _patch("c4", type="delete_file", path="b"),
            _patch("c5", type="update_file", path="locked", diff="+3"),
        ],
        "done",
    )
    agent = Agent(name="e", model=model, tools=[ApplyPatchTool(editor=editor)])
    async with running(database_url, agent) as engine:
        run = await rested(engine, "e")
        assert (run.status, run.error) == ("completed", None)
        calls = await calls_of(engine, run)
    assert sorted(editor.done) == [
        ("create_file", "a", "+1", "c1"),
        ("delete_file", "b", "", "c4"),
        ("update_file", "a", "+2", "c2"),
        ("update_file", "a", "+2", "c3"),
    ]
    assert sorted(calls) == ["c1", "c2", "c3", "c4", "c5"]
    assert [calls[f"c{n}"]["status"] for n in range(1, 6)] == [*["succeeded"] * 4, "failed"]
    assert calls["c5"]["error"]["message"] == "locked"
    assert outputs_in(model.inputs[-1])["c2"] == "update_file a"
    assert "locked" in outputs_in(model.inputs[-1])["c5"]


MCP_SERVER = """
import logging
from mcp.server.mcpserver import MCPServer

logging.disable()
server = MCPServer("words")


@server.tool()
def upper(text: str) -> str:
    return text.upper()


@server.tool()
def broken() -> str:
    raise ValueError("out of ink")


server.run()
"""


async def test_the_tools_of_an_mcp_server(database_url: str, tmp_path: Path) -> None:
    script = tmp_path / "words.py"
    script.write_text(MCP_SERVER)
    model = turns(
        [call("upper", "c1", text="a"), call("broken", "c2")],
        [call("upper", "c3", text="b")],
        "done",
    )
    async with MCPServerStdio(
        params={"command": sys.executable, "args": [str(script)]},
        client_session_timeout_seconds=20,
        require_approval={"always": {"tool_names": ["upper"]}},
    ) as server:
        agent = Agent(name="w", model=model, mcp_servers=[server])
        async with running(database_url, agent) as engine:
            run = await rested(engine, "w")
            assert run.status == "interrupted"
            one = waiting_for(run, call_id="c1")
            assert (one.tool["name"], one.tool["arguments"]) == ("upper", {"text": "a"})
            assert one.tool["schema"]["properties"]["text"]["type"] == "string"
            run = await approve(engine, run)
            assert run.status == "interrupted"
            run = await approve(engine, run)
            assert (run.status, run.error) == ("completed", None)
            calls = await calls_of(engine, run)
    read = outputs_in(model.inputs[-1])
    assert "A" in str(read["c1"])
    assert "broken" in str(read["c2"])
    assert "B" in str(read["c3"])
    assert {one["kind"] for one in calls.values()} == {"mcp"}
    assert (calls["c1"]["status"], calls["c1"]["attempt"]) == ("succeeded", 1)
    assert calls["c3"]["status"] == "succeeded"


async def test_a_tool_that_is_switched_off_is_offered_no_more(database_url: str) -> None:
    ran: list[str] = []

    @function_tool(is_enabled=lambda *_: not ran)
    async def once() -> str:
        ran.append("once")
        return "did"

    model = turns([call("once", "c1")], "done")
    agent = Agent(name="a", model=model, tools=[once])
    async with running(database_url, agent) as engine:
        run = await rested(engine, "a")
    assert (run.status, run.error) == ("completed", None)
    assert model.offered == [["once"], []]


async def test_tool_guardrails(database_url: str) -> None:
    sent: list[str] = []

    @tool_input_guardrail
    def no_strangers(data: Any) -> ToolGuardrailFunctionOutput:
        if "stranger" in (data.context.tool_arguments or ""):
            return ToolGuardrailFunctionOutput.reject_content("not to strangers")
        return ToolGuardrailFunctionOutput.allow()

    @tool_output_guardrail
    def no_secrets(data: Any) -> ToolGuardrailFunctionOutput:
        if "secret" in str(data.output):
            return ToolGuardrailFunctionOutput.reject_content("(withheld)")
        return ToolGuardrailFunctionOutput.allow()

    @function_tool(tool_input_guardrails=[no_strangers], tool_output_guardrails=[no_secrets])
    async def send(to: str) -> str:
        sent.append(to)
        return f"sent to {to}"

    model = turns(
        [
            call("send", "c1", to="stranger"),
            call("send", "c2", to="secret"),
            call("send", "c3", to="ada"),
        ],
        "done",
    )
    async with running(database_url, Agent(name="m", model=model, tools=[send])) as engine:
        run = await rested(engine, "m")
        assert (run.status, run.error) == ("completed", None)
        calls = await calls_of(engine, run)
    assert sorted(sent) == ["ada", "secret"]
    assert outputs_in(model.inputs[-1]) == {
        "c1": "not to strangers",
        "c2": "(withheld)",
        "c3": "sent to ada",
    }
    # The guarded call was proposed and never begun; the others say what the tool itself returned.
    assert (calls["c1"]["status"], calls["c1"]["attempt"]) == ("proposed", 0)
    assert calls["c2"]["output"] == "sent to secret"
    assert calls["c3"]["status"] == "succeeded"


@pytest.mark.parametrize("side", ["input", "output"])
async def test_a_tool_guardrails_tripwire_fails_the_run(database_url: str, side: str) -> None:
    sent: list[str] = []

    def tripped(_: Any) -> ToolGuardrailFunctionOutput:
        return ToolGuardrailFunctionOutput.raise_exception({"rule": 7})

    guards: dict[str, Any] = (
        {"tool_input_guardrails": [tool_input_guardrail(tripped)]}
        if side == "input"
        else {"tool_output_guardrails": [tool_output_guardrail(tripped)]}
    )

    async def send() -> str:
        sent.append("it")
        return "sent"

    tool = function_tool(send, **guards)
    model = turns([call("send", "c1")], "done")
    async with running(database_url, Agent(name="m", model=model, tools=[tool])) as engine:
        run = await rested(engine, "m")
        assert error_of(run)["type"] == "guardrail"
        assert "tripped" in error_of(run)["message"]
        assert "7" in error_of(run)["message"]
        calls = await calls_of(engine, run)
    assert len(sent) == (side == "output")
    assert calls["c1"]["status"] == ("succeeded" if side == "output" else "proposed")


async def test_stopping_on_the_first_tool_makes_its_output_the_runs(database_url: str) -> None:
    @function_tool
    async def price() -> dict[str, int]:
        return {"cents": 5}

    model = turns([call("price", "c1")], "never said")
    agent = Agent(name="p", model=model, tools=[price], tool_use_behavior="stop_on_first_tool")
    async with running(database_url, agent) as engine:
        run = await rested(engine, "p")
        # As the SDK gives it to an agent without an output type.
        assert (run.status, run.output) == ("completed", str({"cents": 5}))
        assert [item["type"] for item in await items_of(engine, run)] == [
            "message",
            "tool_call",
            "tool_call_output",
        ]
    assert model.asked == 1


async def test_how_tools_are_marked(database_url: str) -> None:
    async def look(_: Any, text: str) -> str:
        return "saw"

    @effect("read")
    @function_tool
    async def above() -> str:
        return "above"

    @function_tool
    @effect("idempotent")
    async def beneath() -> str:
        return "beneath"

    @function_tool
    async def unmarked() -> str:
        return "unmarked"

    custom = effect("read")(CustomTool(name="look", description="Looks.", on_invoke_tool=look))
    custom_call = ResponseCustomToolCall(
        type="custom_tool_call", call_id="look", name="look", input="x", id="ctc"
    )

    def agent(name: str) -> Agent[Any]:
        asked = [call(tool, tool) for tool in ("above", "beneath", "unmarked")]
        model = turns([*asked, custom_call], "done")
        return Agent(name=name, model=model, tools=[above, beneath, unmarked, custom])

    for default in (None, "transactional"):
        options: dict[str, Any] = {} if default is None else {"default_effect": default}
        async with running(database_url, agent("a"), **options) as engine:
            run = await rested(engine, "a")
            assert run.error is None
            effects = {key: one["effect"] for key, one in (await calls_of(engine, run)).items()}
        assert effects == {
            "above": "read",
            "beneath": "idempotent",
            "unmarked": default or "at_most_once",
            "look": "read",
        }


async def test_tools_run_outside_the_workflow_of_their_segment(database_url: str) -> None:
    """A DBOS step of a tool's own would share the segment's step counter."""
    seen: list[Any] = []

    @function_tool
    async def look() -> str:
        seen.append(DBOS.workflow_id)
        return "saw"

    @function_tool
    def look_plainly() -> str:
        seen.append(DBOS.workflow_id)
        return "saw"

    model = turns([call("look", "c1"), call("look_plainly", "c2")], "done")
    agent = Agent(name="a", model=model, tools=[look, look_plainly])
    async with running(database_url, agent) as engine:
        assert (await rested(engine, "a")).status == "completed"
    assert seen == [None, None]


async def test_graphs_that_cannot_be_made_durable_are_refused() -> None:
    one, other = Agent(name="a", model=turns("x")), Agent(name="a", model=turns("x"))
    with pytest.raises(ConfigurationError, match="Two agents are called 'a'"):
        Engine([one, other])
    with pytest.raises(ConfigurationError, match="Two agents are called 'a'"):
        Engine([Agent(name="b", handoffs=[one], tools=[other.as_tool("ask", "asks")])])
    with pytest.raises(ConfigurationError, match="no agents"):
        Engine([])
    with pytest.raises(ConfigurationError, match="effect"):
        Engine([one], default_effect=cast(Any, "sometimes"))
