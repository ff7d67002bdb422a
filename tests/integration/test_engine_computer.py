"""Computer tools: each computer call is a tool call, its screenshot the outcome."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest
from agents import Agent, AsyncComputer, Computer, ComputerProvider, ComputerTool, Runner
from openai.types.responses import ResponseComputerToolCall

from perdure import Engine, effect, tool_call
from perdure.errors import ConfigurationError
from tests.engine_support import (
    Gate,
    RuleModel,
    call,
    calls_of,
    error_of,
    other_worker,
    outputs_in,
    rested,
    running,
    turns,
)

PNG = "data:image/png;base64,"


class Desk(AsyncComputer):
    """A computer that notes what was done to it, and under which call."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.gates: dict[str, Gate] = {}

    async def _do(self, what: str) -> None:
        try:
            place = f"{tool_call().call_id}.{tool_call().attempt}"
        except ConfigurationError:
            place = "plain"
        self.did.append(f"{place} {what}")
        if what in self.gates:
            await self.gates[what].stop()

    async def screenshot(self) -> str:
        await self._do("screenshot")
        return f"shot{len(self.did)}"

    async def click(self, x: int, y: int, button: Any) -> None:
        await self._do(f"click {x},{y}")

    async def double_click(self, x: int, y: int) -> None:
        raise PermissionError("locked")

    async def scroll(self, x: int, y: int, scroll_x: int, scroll_y: int) -> None:
        await self._do("scroll")

    async def type(self, text: str) -> None:
        await self._do(f"type {text}")

    async def wait(self) -> None:
        await self._do("wait")

    async def move(self, x: int, y: int) -> None:
        await self._do("move")

    async def keypress(self, keys: list[str]) -> None:
        await self._do("keypress")

    async def drag(self, path: list[tuple[int, int]]) -> None:
        await self._do("drag")


class PlainDesk(Computer):
    """One whose methods are not ``async``."""

    def __init__(self) -> None:
        self.did: list[str] = []

    def screenshot(self) -> str:
        self.did.append(f"{tool_call().call_id} screenshot")
        return "plain"

    def click(self, x: int, y: int, button: Any) -> None:
        self.did.append(f"{tool_call().call_id} click")

    def double_click(self, x: int, y: int) -> None: ...
    def scroll(self, x: int, y: int, scroll_x: int, scroll_y: int) -> None: ...
    def type(self, text: str) -> None: ...
    def wait(self) -> None: ...
    def move(self, x: int, y: int) -> None: ...
    def keypress(self, keys: list[str]) -> None: ...
    def drag(self, path: list[tuple[int, int]]) -> None: ...


CLICK = {"type": "click", "x": 1, "y": 2, "button": "left"}
LOOK = {"type": "screenshot"}


def typed(text: str) -> dict[str, Any]:
    return {"type": "type", "text": text}


def use(call_id: str, *actions: dict[str, Any], checks: tuple[str, ...] = ()) -> Any:
    """A computer call: a batch of actions, or the one of older models."""
    acts: dict[str, Any] = {"actions": list(actions)} if actions[1:] else {"action": actions[0]}
    return ResponseComputerToolCall.model_validate(
        {
            "type": "computer_call",
            "id": f"cu_{call_id}",
            "call_id": call_id,
            "status": "completed",
            "pending_safety_checks": [{"id": id, "code": "c", "message": "m"} for id in checks],
            **acts,
        }
    )


def shown(model: RuleModel) -> dict[str, str]:
    """The screenshots the model was last given, by call id."""
    outputs = outputs_in(model.inputs[-1])
    return {key: one["image_url"].removeprefix(PNG) for key, one in outputs.items()}


async def test_each_computer_call_is_a_tool_call(database_url: str) -> None:
    desk, plain = Desk(), PlainDesk()
    model = turns(
        [use("c1", CLICK, typed("hi\x00"), LOOK), use("c2", LOOK)], [use("c3", CLICK)], "ok"
    )
    simple = turns([use("c1", CLICK)], "ok")
    marked = turns([use("c1", CLICK), use("c2", LOOK)], "ok")
    agents = [
        Agent(name="a", model=model, tools=[ComputerTool(desk)]),
        Agent(name="plain", model=simple, tools=[ComputerTool(plain)]),
        Agent(
            name="marked",
            model=marked,
            tools=[effect("idempotent")(ComputerTool(lambda **_: desk))],
        ),
    ]
    async with running(database_url, *agents) as engine:
        run = await rested(engine, "a")
        assert (run.status, run.error) == ("completed", None)
        calls = await calls_of(engine, run)
        assert desk.did == [
            *("c1.1 click 1,2", "c1.1 type hi\x00", "c1.1 screenshot"),
            "c2.1 screenshot",
            *("c3.1 click 1,2", "c3.1 screenshot"),
        ]
        assert shown(model) == {"c1": "shot3", "c2": "shot4", "c3": "shot6"}
        assert {key: (one["kind"], one["effect"]) for key, one in calls.items()} == {
            "c1": ("computer", "at_most_once"),
            "c2": ("computer", "read"),
            "c3": ("computer", "at_most_once"),
        }
        assert {(one["tool"], one["status"], one["attempt"]) for one in calls.values()} == {
            ("computer_use_preview", "succeeded", 1)
        }
        assert calls["c1"]["arguments"]["actions"][1] == typed("hi\x00")
        assert calls["c3"]["arguments"] == {"actions": [CLICK]}
        assert [image["image_url"] for image in calls["c3"]["output"]] == [f"{PNG}shot6"]

        assert (await rested(engine, "plain")).output == "ok"
        assert (plain.did, shown(simple)) == (["c1 click", "c1 screenshot"], {"c1": "plain"})
        # The mark counts for what only looks as well, and where a run makes its own computer.
        calls = await calls_of(engine, await rested(engine, "marked"))
        assert {one["effect"] for one in calls.values()} == {"idempotent"}
        desk.did.clear()
        assert (await Runner.run(agents[0], "hi")).final_output == "ok"
        assert {line.split()[0] for line in desk.did} == {"plain"}


@pytest.mark.parametrize("outcome", ["done", "not_done"])
async def test_a_computer_call_that_was_begun_is_asked_about(
    database_url: str, outcome: str
) -> None:
    desk = Desk()
    desk.gates["type hi"] = Gate()
    model = turns([use("c1", CLICK, typed("hi")), use("c2", CLICK), use("c3", LOOK)], "ok")
    agent = Agent(name="a", model=model, tools=[ComputerTool(desk)])
    async with running(database_url, agent) as engine:
        run = await engine.start("a", "hi")
        await desk.gates["type hi"].reached()
        calls = await calls_of(engine, run)
        assert [one["status"] for one in calls.values()] == ["executing", "proposed", "proposed"]
        async with other_worker(engine, database_url) as other:
            assert await other.run(UUID(run.id), 1) == "interrupted"
        await run.refresh()
        # Of the calls after it nothing had begun, so nobody is asked about them.
        [question] = run.interruptions
        assert question.tool["call_id"] == "c1"
        assert question.tool["arguments"] == {"actions": [CLICK, typed("hi")]}
        gate = desk.gates.pop("type hi")
        gate.open()
        desk.did.clear()
        await engine.decide(question.id, "resolve", outcome=outcome)
        await run.wait(10)
        assert (run.status, run.error) == ("completed", None)
        did = [line for line in desk.did if not line.startswith("c1.1")]
        first = {
            # There is no picture of what a person saw: one is taken, and recorded as its own.
            "done": ["c1:screenshot.1 screenshot"],
            "not_done": ["c1.2 click 1,2", "c1.2 type hi", "c1.2 screenshot"],
        }[outcome]
        assert did == [*first, "c2.1 click 1,2", "c2.1 screenshot", "c3.1 screenshot"]
        calls = await calls_of(engine, run)
        assert {one["status"] for one in calls.values()} == {"succeeded"}
        assert all(image.startswith("shot") for image in shown(model).values())
    assert model.asked == 2


async def test_a_computer_call_that_only_looks_runs_again_and_finished_ones_do_not(
    database_url: str,
) -> None:
    desk = Desk()
    desk.gates["wait"] = Gate()
    model = turns([use("c1", CLICK), use("c2", LOOK, {"type": "wait"})], "ok")
    agent = Agent(name="a", model=model, tools=[ComputerTool(desk)])
    async with running(database_url, agent) as engine:
        run = await engine.start("a", "hi")
        await desk.gates["wait"].reached()
        gate = desk.gates.pop("wait")
        async with other_worker(engine, database_url) as other:
            assert await other.run(UUID(run.id), 1) == "completed"
        calls = await calls_of(engine, run)
        assert {key: one["attempt"] for key, one in calls.items()} == {"c1": 1, "c2": 2}
        assert model.asked == 2
        gate.open()
    assert desk.did[:5] == [
        *("c1.1 click 1,2", "c1.1 screenshot", "c2.1 screenshot", "c2.1 wait"),
        "c2.2 screenshot",
    ]
    assert shown(model)["c1"] == "shot2"


async def test_safety_checks_and_what_goes_wrong(database_url: str) -> None:
    desk = Desk()
    asked: list[str] = []

    def agree(data: Any) -> bool:
        asked.append(data.safety_check.id)
        return bool(data.safety_check.id != "no")

    def agent(name: str, *calls: Any) -> Agent[Any]:
        return Agent(name=name, model=turns(list(calls), "ok"), tools=[ComputerTool(desk, agree)])

    agents = [
        agent("agreed", use("c1", CLICK, checks=("one", "two"))),
        agent("refused", use("c1", CLICK), use("c2", CLICK, checks=("no",))),
        agent("broken", use("c1", {"type": "double_click", "x": 1, "y": 1, "keys": None})),
    ]
    async with running(database_url, *agents) as engine:
        run = await rested(engine, "agreed")
        assert (run.output, asked) == ("ok", ["one", "two"])
        model: Any = agents[0].model
        [output] = [one for one in model.inputs[-1] if one.get("type") == "computer_call_output"]
        assert [one["id"] for one in output["acknowledged_safety_checks"]] == ["one", "two"]

        run = await rested(engine, "refused")
        assert "not acknowledged" in error_of(run)["message"]
        calls = await calls_of(engine, run)
        assert {key: one["status"] for key, one in calls.items()} == {
            "c1": "succeeded",
            "c2": "proposed",
        }
        run = await rested(engine, "broken")
        assert "locked" in error_of(run)["message"]
        [row] = (await calls_of(engine, run)).values()
        assert (row["status"], row["error"]["message"]) == ("failed", "locked")


async def test_a_computer_made_for_a_run_lives_as_long_as_an_execution(database_url: str) -> None:
    made: list[Desk] = []
    closed: list[Any] = []

    async def create(*, run_context: Any) -> Desk:
        made.append(Desk())
        return made[-1]

    async def dispose(*, run_context: Any, computer: Any) -> None:
        await asyncio.sleep(0)
        closed.append(computer)

    provider = ComputerProvider(create=create, dispose=dispose)
    back = Agent(name="back", model=turns([], [], [use("c2", CLICK)], "ok"))
    front = Agent(
        name="front",
        model=turns([use("c1", CLICK)], [call("transfer_to_back", "h1")]),
        tools=[ComputerTool(provider)],
        handoffs=[back],
    )
    back.tools = front.tools
    inner = Agent(name="inner", model=turns([use("c1", CLICK)], "in"), tools=front.tools)
    outer = Agent(
        name="outer",
        model=turns([call("ask", "n1", input="x")], "ok"),
        tools=[inner.as_tool("ask", "")],
    )
    async with running(database_url, front, outer) as engine:
        # Through a handoff, and so through a state, it is the same one.
        run = await rested(engine, "front")
        assert (run.status, run.error) == ("completed", None)
        [desk] = made
        assert closed == [desk]
        assert [line.split()[0] for line in desk.did] == ["c1.1", "c1.1", "c2.1", "c2.1"]
        assert (await rested(engine, "outer")).output == "ok"
        assert closed == made
        assert len(made) == 2
        # Outside a durable run they are made and closed by the SDK.
        assert (await Runner.run(inner, "hi")).final_output == "in"
        assert closed == made
        assert len(made) == 3


async def test_two_engines_may_share_a_computer_tool(database_url: str) -> None:
    desk = Desk()
    agent = Agent(name="a", model=turns([use("c1", CLICK)], "ok"), tools=[ComputerTool(desk)])
    Engine([agent])
    async with running(database_url, agent, agent.clone(name="b")) as engine:
        assert (await rested(engine, "b")).output == "ok"
    assert desk.did == ["c1.1 click 1,2", "c1.1 screenshot"]
