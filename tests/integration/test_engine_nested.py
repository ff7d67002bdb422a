"""Agents used as tools: nested runs, their gates, their usage."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from agents import Agent, RunConfig, function_tool
from agents.testing import assistant_message

from perdure import tool_call
from perdure.engine import Engine, Run
from tests.engine_support import (
    SECONDS,
    RuleModel,
    approve,
    call,
    calls_of,
    error_of,
    outputs_in,
    records,
    replies_in,
    rested,
    running,
    turns,
    waiting_for,
)


def _asked_for(items: list[Any]) -> str:
    """The text a nested agent was given."""
    return str(items[0]["content"])


def _worker_model(tool: str) -> RuleModel:
    """Calls ``tool`` once with what it was asked for, always under the same call id."""

    def rule(items: list[Any]) -> Any:
        if replies_in(items) == 0:
            return [call(tool, "same", text=_asked_for(items))]
        return [assistant_message(f"[{outputs_in(items)['same']}]")]

    return RuleModel(rule)


class Sender:
    """A gated tool that notes what it sent."""

    def __init__(self, *, gated: bool = True) -> None:
        self.sent: list[tuple[str, str, int]] = []

        @function_tool(needs_approval=gated)
        async def send(text: str) -> str:
            known = tool_call()
            self.sent.append((text, known.idempotency_key, known.attempt))
            return f"sent {text}"

        self.tool = send

    @property
    def texts(self) -> list[str]:
        return sorted(text for text, _, _ in self.sent)


async def test_one_nested_agent_twice_in_parallel_with_the_same_call_ids(database_url: str) -> None:
    sender = Sender(gated=False)
    inner = Agent(name="inner", model=_worker_model("send"), tools=[sender.tool])
    model = turns([call("ask", "a", input="one"), call("ask", "b", input="two")], "done")
    outer = Agent(name="outer", model=model, tools=[inner.as_tool("ask", "asks")])
    async with running(database_url, outer) as engine:
        run = await rested(engine, "outer")
        assert (run.status, run.output) == ("completed", "done")
        calls = await calls_of(engine, run)
        usage = await records(engine, run, "usage")
    assert outputs_in(model.inputs[-1]) == {"a": "[sent one]", "b": "[sent two]"}
    assert sender.texts == ["one", "two"]
    assert len({key for _, key, _ in sender.sent}) == 2
    assert sorted(calls) == ["a", "a/same", "b", "b/same"]
    assert calls["a/same"]["output"] == "sent one"
    assert calls["b/same"]["output"] == "sent two"
    assert (calls["a"]["kind"], calls["a"]["effect"]) == ("agent", "nested")
    assert (calls["a"]["status"], calls["a"]["output"]) == ("succeeded", "[sent one]")
    # Each request is counted once: two of the outer agent, two of each inner run.
    assert run.data["usage"]["requests"] == len(usage) == 6
    assert run.data["usage"]["total_tokens"] == 6 * 15
    assert sorted(row["agent"] for row in usage) == ["inner"] * 4 + ["outer"] * 2


async def _two_gated(engine: Engine) -> tuple[Run, Any, Any]:
    run = await rested(engine, "outer")
    assert run.status == "interrupted"
    assert len(run.interruptions) == 2
    one = waiting_for(run, arguments={"text": "one"})
    two = waiting_for(run, arguments={"text": "two"})
    assert one.digest != two.digest
    return run, one, two


@pytest.mark.parametrize("first", ["one", "two"])
async def test_gated_tools_of_two_parallel_nested_runs(database_url: str, first: str) -> None:
    sender = Sender()
    inner = Agent(name="inner", model=_worker_model("send"), tools=[sender.tool])
    model = turns([call("ask", "a", input="one"), call("ask", "b", input="two")], "done")
    outer = Agent(name="outer", model=model, tools=[inner.as_tool("ask", "asks")])
    async with running(database_url, outer) as engine:
        run, one, two = await _two_gated(engine)
        assert sender.sent == []
        calls = await calls_of(engine, run)
        assert calls["a/same"]["status"] == calls["b/same"]["status"] == "awaiting_approval"
        decisions = [
            (one.id, "reject", {"message": "not one"}),
            (two.id, "approve", {"digest": two.digest}),
        ]
        for id_, decision, more in decisions if first == "one" else reversed(decisions):
            await engine.decide(id_, decision, **more)
        await run.wait(SECONDS)
        assert (run.status, run.output) == ("completed", "done")
        calls = await calls_of(engine, run)
    assert sender.texts == ["two"]
    assert outputs_in(model.inputs[-1]) == {"a": "[not one]", "b": "[sent two]"}
    assert (calls["a/same"]["status"], calls["b/same"]["status"]) == ("rejected", "succeeded")
    assert run.data["usage"]["requests"] == 6


def _chain(sender: Sender, depth: int) -> tuple[Agent[Any], RuleModel]:
    """``outer`` over ``depth`` agents, the innermost of which may send."""
    agent: Agent[Any] = Agent(name="level0", model=_worker_model("send"), tools=[sender.tool])
    for level in range(1, depth):

        def rule(items: list[Any]) -> Any:
            if replies_in(items) == 0:
                return [call("ask", "same", input=_asked_for(items))]
            return [assistant_message(f"({outputs_in(items)['same']})")]

        agent = Agent(
            name=f"level{level}", model=RuleModel(rule), tools=[agent.as_tool("ask", "asks")]
        )
    model = turns([call("ask", "same", input="it")], "done")
    return Agent(name="outer", model=model, tools=[agent.as_tool("ask", "asks")]), model


async def test_equal_calls_of_two_nested_runs_are_never_mixed_up(database_url: str) -> None:
    """One id, one tool, the same arguments: the SDK cannot go on with them, and says so."""
    sender = Sender()
    inner = Agent(name="inner", model=_worker_model("send"), tools=[sender.tool])
    model = turns([call("ask", "a", input="it"), call("ask", "b", input="it")], "done")
    outer = Agent(name="outer", model=model, tools=[inner.as_tool("ask", "asks")])
    async with running(database_url, outer) as engine:
        run = await rested(engine, "outer")
        assert len({one.digest for one in run.interruptions}) == 2
        first, second = run.interruptions
        await engine.decide(first.id, "reject", message="not a")
        await engine.decide(second.id, "approve", digest=second.digest)
        await run.wait(SECONDS)
        assert "Use unique call IDs" in error_of(run)["message"]
    assert sender.sent == []


@pytest.mark.parametrize("decision", ["approve", "reject"])
async def test_a_gated_tool_deep_inside(database_url: str, decision: str) -> None:
    for depth in (1, 2, 3):
        sender = Sender()
        outer, model = _chain(sender, depth)
        async with running(database_url, outer) as engine:
            run = await rested(engine, "outer")
            assert run.status == "interrupted"
            [one] = run.interruptions
            assert (one.agent, one.tool["arguments"]) == ("level0", {"text": "it"})
            more = {"digest": one.digest} if decision == "approve" else {"message": "never"}
            await engine.decide(one.id, decision, **more)
            await run.wait(SECONDS)
            assert (run.status, run.error, run.output) == ("completed", None, "done")
            calls = await calls_of(engine, run)
            usage = await records(engine, run, "usage")
        innermost = calls["/".join(["same"] * (depth + 1))]
        brackets = "(" * (depth - 1), ")" * (depth - 1)
        if decision == "approve":
            assert (sender.texts, innermost["status"]) == (["it"], "succeeded")
            expected = "[sent it]"
        else:
            assert (sender.texts, innermost["status"]) == ([], "rejected")
            expected = "[never]"
        assert outputs_in(model.inputs[-1]) == {"same": expected.join(brackets)}
        for level in range(1, depth + 1):
            assert calls["/".join(["same"] * level)]["status"] == "succeeded"
        assert len(usage) == run.data["usage"]["requests"] == 2 * (depth + 1)


async def test_a_nested_run_that_waits_ends_with_its_cancelled_run(database_url: str) -> None:
    sender = Sender()
    outer, _ = _chain(sender, 2)
    async with running(database_url, outer) as engine:
        run = await rested(engine, "outer")
        assert (await calls_of(engine, run))["same"]["status"] == "executing"
        await engine.cancel(run.id)
        statuses = {key: one["status"] for key, one in (await calls_of(engine, run)).items()}
    assert statuses == {
        "same": "failed",
        "same/same": "failed",
        "same/same/same": "rejected",
    }
    assert sender.sent == []


async def test_a_gated_agent_tool_runs_nothing_until_it_is_approved(database_url: str) -> None:
    sender = Sender(gated=False)
    inner_model = _worker_model("send")
    inner = Agent(name="inner", model=inner_model, tools=[sender.tool])
    ask = inner.as_tool("ask", "asks", needs_approval=True)
    model = turns([call("ask", "a", input="one"), call("ask", "b", input="two")], "done")
    async with running(database_url, Agent(name="outer", model=model, tools=[ask])) as engine:
        run = await rested(engine, "outer")
        assert run.status == "interrupted"
        assert inner_model.asked == 0
        await engine.decide(waiting_for(run, call_id="a").id, "reject", message="no")
        two = waiting_for(run, call_id="b")
        await engine.decide(two.id, "approve", digest=two.digest)
        await run.wait(SECONDS)
        assert run.status == "completed"
    assert sender.texts == ["two"]
    assert outputs_in(model.inputs[-1]) == {"a": "no", "b": "[sent two]"}


async def test_a_nested_run_that_waits_leaves_its_siblings_done_once(database_url: str) -> None:
    gated, free = Sender(), Sender(gated=False)
    waits = Agent(name="waits", model=_worker_model("send"), tools=[gated.tool])
    goes = Agent(name="goes", model=_worker_model("send"), tools=[free.tool])
    ran: list[str] = []

    @function_tool
    async def note(text: str) -> str:
        ran.append(text)
        return "noted"

    model = turns(
        [
            call("ask_waits", "a", input="one"),
            call("ask_goes", "b", input="two"),
            call("note", "c", text="three"),
        ],
        "done",
    )
    outer = Agent(
        name="outer",
        model=model,
        tools=[waits.as_tool("ask_waits", "w"), goes.as_tool("ask_goes", "g"), note],
    )
    async with running(database_url, outer) as engine:
        run = await rested(engine, "outer")
        assert run.status == "interrupted"
        assert (free.texts, ran, gated.texts) == (["two"], ["three"], [])
        run = await approve(engine, run)
        assert (run.status, run.error) == ("completed", None)
    assert (free.texts, ran, gated.texts) == (["two"], ["three"], ["one"])
    assert outputs_in(model.inputs[-1]) == {"a": "[sent one]", "b": "[sent two]", "c": "noted"}
    assert run.data["usage"]["requests"] == 6


async def test_a_nested_run_may_wait_twice(database_url: str) -> None:
    sender = Sender()

    def rule(items: list[Any]) -> Any:
        said = replies_in(items)
        if said < 2:
            return [call("send", f"s{said}", text=f"{_asked_for(items)}{said}")]
        return [assistant_message(",".join(outputs_in(items).values()))]

    inner = Agent(name="inner", model=RuleModel(rule), tools=[sender.tool])
    model = turns([call("ask", "a", input="x")], "done")
    outer = Agent(name="outer", model=model, tools=[inner.as_tool("ask", "asks")])
    async with running(database_url, outer) as engine:
        run = await rested(engine, "outer")
        assert run.interruptions[0].tool["arguments"] == {"text": "x0"}
        run = await approve(engine, run)
        assert run.status == "interrupted"
        assert run.interruptions[0].tool["arguments"] == {"text": "x1"}
        run = await approve(engine, run)
        assert (run.status, run.error) == ("completed", None)
    assert sender.texts == ["x0", "x1"]
    assert outputs_in(model.inputs[-1]) == {"a": "sent x0,sent x1"}


async def test_a_nested_run_that_fails_is_a_message_to_the_outer_model(database_url: str) -> None:
    inner = Agent(name="inner", model=RuleModel(lambda _: ValueError("inner trouble")))
    model = turns([call("ask", "a", input="x")], "done")
    outer = Agent(name="outer", model=model, tools=[inner.as_tool("ask", "asks")])
    async with running(database_url, outer) as engine:
        run = await rested(engine, "outer")
        assert (run.status, run.error) == ("completed", None)
        calls = await calls_of(engine, run)
    # The model reads the SDK's words, people the error itself.
    assert outputs_in(model.inputs[-1])["a"].startswith("An error occurred while running the tool")
    assert calls["a"]["status"] == "failed"
    assert calls["a"]["error"]["type"] == "ValueError"
    assert calls["a"]["error"]["message"] == "inner trouble"


async def test_nested_agents_with_a_run_config_and_a_stream_callback(database_url: str) -> None:
    sender = Sender(gated=False)
    other = _worker_model("send")
    inner = Agent(name="inner", model="unknown-model", tools=[sender.tool])
    seen: list[str] = []
    plain = inner.as_tool("plain", "p", run_config=RunConfig(model=other))
    streamed = inner.as_tool(
        "streamed",
        "s",
        run_config=RunConfig(model=other),
        on_stream=lambda event: seen.append(event["event"].type),
    )
    model = turns([call("plain", "a", input="one"), call("streamed", "b", input="two")], "done")
    outer = Agent(name="outer", model=model, tools=[plain, streamed])
    async with running(database_url, outer) as engine:
        run = await rested(engine, "outer")
        assert (run.status, run.error) == ("completed", None)
        calls = await calls_of(engine, run)
    assert outputs_in(model.inputs[-1]) == {"a": "[sent one]", "b": "[sent two]"}
    assert sorted(calls) == ["a", "a/same", "b", "b/same"]
    assert "run_item_stream_event" in seen
    assert run.data["usage"]["requests"] == 6


async def test_nested_runs_of_one_turn_run_at_the_same_time(database_url: str) -> None:
    events = {"one": asyncio.Event(), "two": asyncio.Event()}
    other = {"one": "two", "two": "one"}

    async def rule(items: list[Any]) -> Any:
        text = _asked_for(items)
        events[text].set()
        await asyncio.wait_for(events[other[text]].wait(), 5)
        return [assistant_message(text)]

    inner = Agent(name="inner", model=RuleModel(rule))
    model = turns([call("ask", "a", input="one"), call("ask", "b", input="two")], "done")
    outer = Agent(name="outer", model=model, tools=[inner.as_tool("ask", "asks")])
    async with running(database_url, outer) as engine:
        run = await rested(engine, "outer")
        assert (run.status, run.error) == ("completed", None)
    assert outputs_in(model.inputs[-1]) == {"a": "one", "b": "two"}
