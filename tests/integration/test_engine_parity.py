"""A durable run does what ``Runner.run`` does: the same agents both ways, side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from agents import (
    Agent,
    AgentHooks,
    GuardrailFunctionOutput,
    HandoffInputData,
    ModelProvider,
    ModelSettings,
    RunConfig,
    RunErrorHandlerResult,
    RunHooks,
    Runner,
    function_tool,
    handoff,
    input_guardrail,
    output_guardrail,
)
from agents.models.interface import Model
from agents.run_config import CallModelData, ModelInputData
from agents.testing import assistant_message
from pydantic import BaseModel

from tests.engine_support import (
    RuleModel,
    call,
    items_of,
    outputs_in,
    rested,
    running,
    turns,
)


class Log:
    """What happened, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, *words: Any) -> None:
        self.lines.append(" ".join(str(word) for word in words))


class Hooks(RunHooks[Any]):
    """Notes each call of a run's hooks."""

    def __init__(self, log: Log) -> None:
        self.log = log

    async def on_llm_start(self, context: Any, agent: Any, *_: Any) -> None:
        self.log("llm_start", agent.name)

    async def on_llm_end(self, context: Any, agent: Any, *_: Any) -> None:
        self.log("llm_end", agent.name)

    async def on_agent_start(self, context: Any, agent: Any) -> None:
        self.log("agent_start", agent.name)

    async def on_agent_end(self, context: Any, agent: Any, output: Any) -> None:
        self.log("agent_end", agent.name, output)

    async def on_handoff(self, context: Any, from_agent: Any, to_agent: Any) -> None:
        self.log("handoff", from_agent.name, to_agent.name)

    async def on_tool_start(self, context: Any, agent: Any, tool: Any) -> None:
        self.log("tool_start", agent.name, tool.name, context.tool_call_id)

    async def on_tool_end(self, context: Any, agent: Any, tool: Any, result: Any) -> None:
        self.log("tool_end", agent.name, tool.name, result)


class OwnHooks(AgentHooks[Any]):
    """Notes each call of one agent's hooks."""

    def __init__(self, log: Log) -> None:
        self.log = log

    async def on_start(self, context: Any, agent: Any) -> None:
        self.log("own start", agent.name)

    async def on_end(self, context: Any, agent: Any, output: Any) -> None:
        self.log("own end", agent.name)

    async def on_handoff(self, context: Any, agent: Any, source: Any) -> None:
        self.log("own handoff", source.name, agent.name)

    async def on_tool_start(self, context: Any, agent: Any, tool: Any) -> None:
        self.log("own tool_start", agent.name, tool.name)


@dataclasses.dataclass
class Scene:
    """A graph of agents and how it is run; ``models`` are asked in it."""

    root: Agent[Any]
    models: list[RuleModel]
    log: Log = dataclasses.field(default_factory=Log)
    hooks: RunHooks[Any] | None = None
    run_config: RunConfig | None = None
    max_turns: int = 10
    error_handlers: Any = None


async def side_by_side(url: str, make: Callable[[], Scene]) -> tuple[Any, Scene, Any, Scene]:
    """Run a scene plainly and another durably; return result and scene of each.

    What the models read and what hooks and tools noted is the same.
    """
    plain = make()
    result = await Runner.run(
        plain.root,
        "hi",
        hooks=plain.hooks,
        run_config=plain.run_config,
        max_turns=plain.max_turns,
        error_handlers=plain.error_handlers,
    )
    durable = make()
    async with running(
        url,
        durable.root,
        hooks=durable.hooks,
        run_config=durable.run_config,
        error_handlers=durable.error_handlers,
    ) as engine:
        run = await rested(engine, durable.root.name, max_turns=durable.max_turns)
        assert run.error is None
        items = await items_of(engine, run)
    assert run.data["current_agent"] == result.last_agent.name
    assert durable.log.lines == plain.log.lines
    for theirs, ours in zip(plain.models, durable.models, strict=True):
        assert ours.inputs == theirs.inputs
    # What came out, item by item; ids of the models' own making aside.
    assert [item["item"] for item in items] == [
        {"role": "user", "content": "hi"},
        *[item.to_input_item() for item in result.new_items],
    ]
    return result, plain, run, durable


def _cyclic() -> Scene:
    log = Log()

    @function_tool
    async def look(what: str) -> str:
        log("look", what)
        return f"saw {what}"

    front_model = turns(
        [call("look", "c1", what="a")],
        [call("transfer_to_back", "h1")],
        [],
        [],
        [call("look", "c3", what="c")],
        "all done",
    )
    back_model = turns([], [], [call("look", "c2", what="b")], [call("transfer_to_front", "h2")])
    front: Agent[Any] = Agent(name="front", model=front_model, tools=[look], hooks=OwnHooks(log))
    back = Agent(name="back", model=back_model, tools=[look], handoffs=[front], hooks=OwnHooks(log))
    front.handoffs = [back]
    return Scene(front, [front_model, back_model], log, hooks=Hooks(log))


async def test_cyclic_handoffs_with_hooks_of_runs_and_agents(database_url: str) -> None:
    result, _, run, durable = await side_by_side(database_url, _cyclic)
    assert run.output == result.final_output == "all done"
    assert durable.log.lines.count("agent_start front") == 2
    assert "handoff front back" in durable.log.lines
    assert run.data["turn"] == 6


async def test_a_handoff_with_an_input_filter_and_a_callback(database_url: str) -> None:
    def make() -> Scene:
        log = Log()

        def last_only(data: HandoffInputData) -> HandoffInputData:
            return data.clone(input_history=(), pre_handoff_items=(), new_items=data.new_items[-1:])

        class Reason(BaseModel):
            why: str

        async def on_handoff(_: Any, reason: Reason) -> None:
            log("handed over", reason.why)

        @function_tool
        async def look() -> str:
            return "saw"

        back_model = RuleModel(
            lambda items: [call("look", "c2")] if "c2" not in outputs_in(items) else _said("done")
        )
        back = Agent(name="back", model=back_model, tools=[look])
        front_model = turns([call("look", "c1")], [call("pass_on", "h1", why="too hard")])
        front = Agent(
            name="front",
            model=front_model,
            tools=[look],
            handoffs=[
                handoff(
                    back,
                    tool_name_override="pass_on",
                    on_handoff=on_handoff,
                    input_type=Reason,
                    input_filter=last_only,
                )
            ],
        )
        return Scene(front, [front_model, back_model], log)

    _, _, run, durable = await side_by_side(database_url, make)
    assert run.output == "done"
    assert durable.log.lines == ["handed over too hard"]
    first_input = durable.models[1].inputs[0]
    assert [item.get("type") for item in first_input] == ["function_call_output"]


def _said(text: str) -> list[Any]:
    return [assistant_message(text)]


async def test_handoff_history_folded_into_one_message(database_url: str) -> None:
    def make() -> Scene:
        scene = _cyclic()
        models = [
            RuleModel(_by_last({"saw a": "transfer_to_back", "saw b": "end"})),
            RuleModel(
                lambda items: (
                    [call("look", "c2", what="b")] if not _has(items, "c2") else _said("end")
                )
            ),
        ]
        front = scene.root
        [back] = front.handoffs
        assert isinstance(back, Agent)
        front.model, back.model = models
        return dataclasses.replace(
            scene, models=models, run_config=RunConfig(nest_handoff_history=True)
        )

    _, _, run, _ = await side_by_side(database_url, make)
    assert run.output == "end"


def _has(items: list[Any], call_id: str) -> bool:
    return call_id in outputs_in(items)


def _by_last(then: dict[str, str]) -> Callable[[list[Any]], Any]:
    def rule(items: list[Any]) -> Any:
        said = next((o for o in reversed(list(outputs_in(items).values())) if o in then), None)
        if said is None:
            return [call("look", "c1", what="a")]
        return [call(then[said], "h1")]

    return rule


async def test_a_handoff_beside_calls_and_another_handoff(database_url: str) -> None:
    def make() -> Scene:
        log = Log()

        @function_tool
        async def look(what: str) -> str:
            log("look", what)
            return f"saw {what}"

        back_model, side_model = turns([], "done"), turns([], "never asked")
        back = Agent(name="back", model=back_model)
        side = Agent(name="side", model=side_model)
        front_model = turns(
            [
                call("look", "c1", what="a"),
                call("transfer_to_back", "h1"),
                call("transfer_to_side", "h2"),
            ]
        )
        front = Agent(name="front", model=front_model, tools=[look], handoffs=[back, side])
        return Scene(front, [front_model, back_model, side_model], log)

    _, _, run, durable = await side_by_side(database_url, make)
    assert run.output == "done"
    assert durable.log.lines == ["look a"]


async def test_structured_output(database_url: str) -> None:
    class Answer(BaseModel):
        cents: int
        why: str

    def make() -> Scene:
        model = turns('{"cents": 5, "why": "late"}')
        return Scene(Agent(name="a", model=model, output_type=Answer), [model])

    result, _, run, _ = await side_by_side(database_url, make)
    assert isinstance(result.final_output, Answer)
    assert run.output == result.final_output.model_dump() == {"cents": 5, "why": "late"}


async def test_a_run_configs_model_settings_and_input_filter(database_url: str) -> None:
    def make() -> Scene:
        ignored, used = turns("ignored"), turns([call("look", "c1")], "used")

        @function_tool
        async def look() -> str:
            return "saw"

        async def shorten(data: CallModelData[Any]) -> ModelInputData:
            return ModelInputData(
                input=[*data.model_data.input, {"role": "user", "content": "be brief"}],
                instructions="brief",
            )

        config = RunConfig(
            model=used,
            model_settings=ModelSettings(temperature=0.5),
            call_model_input_filter=shorten,
        )
        agent = Agent(name="a", model=ignored, tools=[look])
        return Scene(agent, [ignored, used], run_config=config)

    _, _, run, durable = await side_by_side(database_url, make)
    assert run.output == "used"
    ignored, used = durable.models
    assert (ignored.asked, used.asked) == (0, 2)
    assert used.inputs[0][-1] == {"role": "user", "content": "be brief"}


class Provider(ModelProvider):
    """Knows one model by name."""

    def __init__(self, name: str, model: Model) -> None:
        self.models = {name: model}

    def get_model(self, model_name: str | None) -> Model:
        return self.models[str(model_name)]


async def test_a_model_provider_of_ones_own(database_url: str) -> None:
    model = turns([call("ask", "c1", input="x")], "outer")
    inner_model = turns("inner")
    provider = Provider("mine", model)
    provider.models["theirs"] = inner_model
    inner = Agent(name="inner", model="theirs")
    agent = Agent(name="a", model="mine", tools=[inner.as_tool("ask", "asks")])
    async with running(database_url, agent, model_provider=provider) as engine:
        run = await rested(engine, "a")
        assert (run.status, run.output) == ("completed", "outer")
    assert outputs_in(model.inputs[-1]) == {"c1": "inner"}
    assert (model.asked, inner_model.asked) == (2, 1)
    assert run.data["usage"]["requests"] == 3


async def test_a_handler_makes_an_output_of_too_many_turns(database_url: str) -> None:
    def make() -> Scene:
        log = Log()

        @function_tool
        async def look() -> str:
            log("look")
            return "saw"

        model = RuleModel(lambda items: [call("look", f"c{len(items)}")])

        def give_up(data: Any) -> RunErrorHandlerResult:
            log("gave up", type(data.error).__name__)
            return RunErrorHandlerResult(final_output="gave up", include_in_history=False)

        return Scene(
            Agent(name="a", model=model, tools=[look]),
            [model],
            log,
            max_turns=3,
            error_handlers={"max_turns": give_up},
        )

    result, _, run, durable = await side_by_side(database_url, make)
    assert run.output == result.final_output == "gave up"
    assert durable.log.lines == ["look", "look", "look", "gave up MaxTurnsExceeded"]
    assert durable.models[0].asked == 3


@pytest.mark.parametrize("blocking", [True, False])
async def test_guardrails_that_pass_are_asked_as_often(database_url: str, blocking: bool) -> None:
    def make() -> Scene:
        log = Log()

        @input_guardrail(run_in_parallel=not blocking)
        async def polite(_: Any, agent: Any, given: Any) -> GuardrailFunctionOutput:
            log("polite", agent.name)
            return GuardrailFunctionOutput(output_info=None, tripwire_triggered=False)

        @output_guardrail
        async def short(_: Any, agent: Any, output: Any) -> GuardrailFunctionOutput:
            log("short", agent.name, output)
            return GuardrailFunctionOutput(output_info=None, tripwire_triggered=False)

        back_model = turns([], "done")
        back = Agent(
            name="back", model=back_model, input_guardrails=[polite], output_guardrails=[short]
        )
        front_model = turns([call("transfer_to_back", "h1")])
        front = Agent(name="front", model=front_model, handoffs=[back], input_guardrails=[polite])
        return Scene(front, [front_model, back_model], log)

    _, _, _, durable = await side_by_side(database_url, make)
    assert durable.log.lines == ["polite front", "short back done"]
