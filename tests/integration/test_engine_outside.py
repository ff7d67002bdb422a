"""What is outside: plain runs of an engine's agents, and callbacks that are no tools."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from typing import Any, TypeVar, cast
from uuid import UUID

import pytest
from agents import (
    Agent,
    CustomTool,
    GuardrailFunctionOutput,
    InputGuardrail,
    ModelProvider,
    RunConfig,
    RunHooks,
    Runner,
    RunState,
    ShellTool,
    ToolGuardrailFunctionOutput,
    function_tool,
    handoff,
    tool_input_guardrail,
)
from agents.models.interface import Model
from agents.testing import assistant_message
from openai.types.responses import ResponseCustomToolCall, ResponseFunctionShellToolCall

from perdure import Engine, effect, tool_call
from perdure.errors import ConfigurationError
from tests.engine_support import (
    SECONDS,
    Gate,
    RuleModel,
    call,
    calls_of,
    other_worker,
    outputs_in,
    replies_in,
    rested,
    running,
    turns,
)


class Bench:
    """A graph with a bit of everything, and what happened in it."""

    def __init__(self) -> None:  # noqa: C901 - a list of tools
        self.log: list[str] = []
        loop_thread = threading.get_ident()

        @function_tool
        async def look(what: str) -> str:
            self.log.append(f"look {what}")
            return f"saw {what}"

        @function_tool
        def plain() -> str:
            self.log.append(f"plain {threading.get_ident() != loop_thread}")
            return "plain"

        @function_tool
        async def breaks() -> str:
            raise ValueError("broken")

        @function_tool(failure_error_function=lambda _, error: f"sorry {error}")
        async def breaks_kindly() -> str:
            raise ValueError("broken")

        @effect("read")
        @function_tool(timeout=0.02)
        async def slow() -> str:
            await asyncio.Event().wait()
            return "never"

        @tool_input_guardrail
        def refuse(data: Any) -> ToolGuardrailFunctionOutput:
            return ToolGuardrailFunctionOutput.reject_content("refused")

        @function_tool(tool_input_guardrails=[refuse])
        async def guarded() -> str:
            self.log.append("guarded")
            return "guarded"

        async def run_shell(request: Any) -> str:
            self.log.append(f"shell {request.data.action.commands}")
            return "ran"

        async def grep(_: Any, text: str) -> str:
            self.log.append(f"grep {text}")
            return f"found {text}"

        @function_tool
        async def outside() -> str:
            try:
                return tool_call().run_id
            except ConfigurationError as error:
                return f"outside: {type(error).__name__}"

        def inner_rule(items: list[Any]) -> Any:
            if replies_in(items) == 0:
                return [call("look", "same", what=items[0]["content"])]
            return [assistant_message(f"[{outputs_in(items)['same']}]")]

        inner = Agent(name="inner", model=RuleModel(inner_rule), tools=[look])
        shell = ResponseFunctionShellToolCall.model_validate(
            {
                "type": "shell_call",
                "id": "sh",
                "call_id": "c8",
                "status": "completed",
                "action": {"commands": ["ls"]},
            }
        )
        custom = ResponseCustomToolCall(
            type="custom_tool_call", call_id="c9", name="grep", input="x", id="ctc"
        )
        self.model = turns(
            [
                call("look", "c1", what="a"),
                call("plain", "c2"),
                call("breaks", "c3"),
                call("breaks_kindly", "c4"),
                call("slow", "c5"),
                call("guarded", "c6"),
                call("outside", "c7"),
                shell,
                custom,
                call("ask", "c10", input="one"),
                call("ask", "c11", input="two"),
            ],
            [call("transfer_to_back", "h1")],
        )
        back_model = turns([], [], "done")
        self.models = [self.model, back_model]
        back = Agent(name="back", model=back_model)
        self.root = Agent(
            name="front",
            model=self.model,
            tools=[
                look,
                plain,
                breaks,
                breaks_kindly,
                slow,
                guarded,
                outside,
                ShellTool(executor=run_shell),
                CustomTool(name="grep", description="Looks.", on_invoke_tool=grep),
                inner.as_tool("ask", "asks"),
            ],
            handoffs=[back],
        )


async def _streamed(agent: Agent[Any], events: list[str]) -> Any:
    result = Runner.run_streamed(agent, "hi")
    async for event in result.stream_events():
        detail = getattr(event, "name", None) or getattr(getattr(event, "data", None), "type", "")
        events.append(f"{event.type} {detail}")
    return result


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_same_agents_run_plainly_as_before(streamed: bool) -> None:
    async def run(wrap: bool) -> tuple[Bench, Any, list[str]]:
        bench = Bench()
        if wrap:
            Engine([bench.root])
        events: list[str] = []
        if streamed:
            return bench, await _streamed(bench.root, events), events
        return bench, await Runner.run(bench.root, "hi"), events

    before, theirs, their_events = await run(wrap=False)
    after, ours, our_events = await run(wrap=True)
    assert ours.final_output == theirs.final_output == "done"
    assert [item.to_input_item() for item in ours.new_items] == [
        item.to_input_item() for item in theirs.new_items
    ]
    assert sorted(after.log) == sorted(before.log)
    assert "plain True" in after.log
    for mine, plain in zip(after.models, before.models, strict=True):
        assert mine.inputs == plain.inputs
    assert sorted(our_events) == sorted(their_events)
    usage, plain_usage = ours.context_wrapper.usage, theirs.context_wrapper.usage
    assert usage.requests == plain_usage.requests == 7
    assert usage.total_tokens == plain_usage.total_tokens
    assert outputs_in(after.models[1].inputs[0])["c7"] == "outside: ConfigurationError"


def _gated(log: list[str]) -> tuple[Agent[Any], RuleModel]:
    @function_tool(needs_approval=True)
    async def send(text: str) -> str:
        log.append(text)
        return f"sent {text}"

    def rule(items: list[Any]) -> Any:
        if replies_in(items) == 0:
            return [call("send", f"s-{items[0]['content']}", text=items[0]["content"])]
        return [assistant_message(",".join(outputs_in(items).values()))]

    inner = Agent(name="inner", model=RuleModel(rule), tools=[send])
    model = turns(
        [
            call("send", "c1", text="mine"),
            call("ask", "c2", input="one"),
            call("ask", "c3", input="two"),
        ],
        "done",
    )
    agent = Agent(name="outer", model=model, tools=[send, inner.as_tool("ask", "asks")])
    return agent, model


@pytest.mark.parametrize("wrap", [False, True])
async def test_approvals_of_a_plain_run(wrap: bool) -> None:
    log: list[str] = []
    agent, model = _gated(log)
    if wrap:
        Engine([agent])
    result = await Runner.run(agent, "hi")
    assert len(result.interruptions) == 3
    stored = result.to_state().to_json()
    state = await RunState.from_json(agent, stored)
    for item in state.get_interruptions():
        if "two" in str(item.arguments):
            state.reject(item, rejection_message="not two")
        else:
            state.approve(item)
    result = await Runner.run(agent, state)
    assert (result.final_output, sorted(log)) == ("done", ["mine", "one"])
    assert outputs_in(model.inputs[-1]) == {"c1": "sent mine", "c2": "sent one", "c3": "not two"}


class Provider(ModelProvider):
    """Knows one model."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.asked: list[str | None] = []

    def get_model(self, model_name: str | None) -> Model:
        self.asked.append(model_name)
        return self.model


async def test_a_callers_run_config_and_provider_are_used_and_left_alone(
    database_url: str,
) -> None:
    mine, theirs = Provider(turns("mine")), Provider(turns("theirs"))
    config = RunConfig(model_provider=theirs)
    agent = Agent(name="a", model="some-model")
    async with running(database_url, agent, run_config=config, model_provider=mine) as engine:
        assert config.model_provider is theirs
        assert (await rested(engine, "a")).output == "mine"
        result = await Runner.run(agent, "hi", run_config=config)
        assert result.final_output == "theirs"
    assert (mine.asked, theirs.asked) == (["some-model"], ["some-model"])
    override = turns("override")
    result = await Runner.run(agent, "hi", run_config=RunConfig(model=override))
    assert result.final_output == "override"


@pytest.mark.parametrize("when", ["before", "after"])
async def test_clones(database_url: str, when: str) -> None:
    """Clones share their list of tools, and an engine may have both."""
    log: list[str] = []

    async def grep(_: Any, text: str) -> str:
        log.append(text)
        return f"found {text}"

    @function_tool
    async def look() -> str:
        log.append("look")
        return "saw"

    def model() -> RuleModel:
        asked = ResponseCustomToolCall(
            type="custom_tool_call", call_id="c1", name="grep", input="x", id="ctc"
        )
        return turns([asked, call("look", "c2")], "done")

    grep_tool = CustomTool(name="grep", description="Looks.", on_invoke_tool=grep)
    first = Agent(name="first", model=model(), tools=[grep_tool, look])
    if when == "after":
        Engine([first])
    second = first.clone(name="second", model=model())
    assert (await Runner.run(second, "hi")).final_output == "done"
    async with running(database_url, first, second) as engine:
        for name in ("first", "second"):
            run = await rested(engine, name)
            assert run.output == "done"
            calls = await calls_of(engine, run)
            assert {key: one["agent"] for key, one in calls.items()} == {"c1": name, "c2": name}
        assert (await Runner.run(second, "hi")).final_output == "done"
    assert len(log) == 8


async def test_two_engines_of_the_same_agents(database_url: str) -> None:
    bench = Bench()
    other = Agent(name="other", model=turns("other"), handoffs=[bench.root])
    Engine([bench.root])
    async with running(database_url, other, bench.root) as engine:
        run = await rested(engine, "front")
        assert (run.data["error"], run.output) == (None, "done")
        calls = await calls_of(engine, run)
    assert sorted(calls) == sorted([*(f"c{n}" for n in range(1, 12)), "c10/same", "c11/same"])
    assert sorted(line for line in bench.log if line.startswith(("grep", "shell"))) == [
        "grep x",
        "shell ['ls']",
    ]
    assert run.data["usage"]["requests"] == 7


async def test_what_the_sdk_asks_a_model_it_finds_behind_the_wrapper() -> None:
    class Special(RuleModel):
        model = "special-1"

        def _supports_default_prompt_cache_key(self) -> bool:
            return True

    inner = Special(lambda _: [assistant_message("done")])
    agent = Agent(name="a", model=inner)
    Engine([agent])
    assert isinstance(agent.model, Model)
    found = cast(Any, agent.model)
    assert found.model == "special-1"
    assert found._supports_default_prompt_cache_key()


_T = TypeVar("_T")


class Hooks(RunHooks[Any]):
    """Notes what it is told, and waits at the first handoff."""

    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.gate = Gate()

    async def on_agent_start(self, context: Any, agent: Any) -> None:
        self.log.append(f"hook: {agent.name} starts")

    async def on_llm_start(self, *_: Any) -> None:
        self.log.append("hook: asked")

    async def on_tool_start(self, context: Any, agent: Any, tool: Any) -> None:
        self.log.append(f"hook: {tool.name} starts")

    async def on_tool_end(self, context: Any, agent: Any, tool: Any, result: Any) -> None:
        self.log.append(f"hook: {tool.name} ends")

    async def on_handoff(self, context: Any, from_agent: Any, to_agent: Any) -> None:
        if not self.gate.was_reached:
            await self.gate.stop()


async def test_what_is_no_tool_runs_again_after_a_death_and_tools_do_not(database_url: str) -> None:
    log: list[str] = []

    def note(what: str, answer: _T) -> _T:
        log.append(what)
        return answer

    fine = GuardrailFunctionOutput(output_info=None, tripwire_triggered=False)

    @tool_input_guardrail
    def careful(_: Any) -> ToolGuardrailFunctionOutput:
        return note("tool guardrail", ToolGuardrailFunctionOutput.allow())

    async def is_gated(*_: Any) -> bool:
        return note("needs approval?", False)

    @function_tool(needs_approval=is_gated, tool_input_guardrails=[careful])
    async def pay() -> str:
        return note("paid", "paid")

    back = Agent(name="back", model=turns([], [], "done"))
    model = turns([call("pay", "c1")], [call("transfer_to_back", "h1")])
    front = Agent(
        name="front",
        instructions=lambda context, agent: note("instructions", "Be quick."),
        model=model,
        tools=[pay],
        handoffs=[handoff(back, on_handoff=lambda context: note("handed off", None))],
        input_guardrails=[InputGuardrail(lambda *_: note("guardrail", fine), name="guardrail")],
    )
    hooks = Hooks(log)
    async with running(database_url, front, back, hooks=hooks) as engine:
        run = await engine.start("front", "hi")
        await hooks.gate.reached()
        before = Counter(log)
        async with other_worker(engine, database_url) as other, asyncio.timeout(SECONDS):
            assert await other.run(UUID(run.id), 1) == "completed"
        hooks.gate.open()
        again = Counter(log) - before - Counter(["hook: back starts", "hook: asked"])
    # At most once: what is wrapped. At least once: everything else.
    assert before.pop("paid") == 1
    assert before == {
        "guardrail": 1,
        "instructions": 2,
        "hook: front starts": 1,
        "hook: asked": 2,
        "needs approval?": 1,
        "tool guardrail": 1,
        "hook: pay starts": 1,
        "hook: pay ends": 1,
        "handed off": 1,
    }
    assert again == before
    assert model.asked == 2
