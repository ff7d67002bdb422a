"""Runs through the real OpenAI client over HTTP: what is asked, what is recorded of the answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import pytest
from agents import Agent, ModelSettings, function_tool

from perdure import effect
from perdure.engine import Engine, Run
from tests.engine_support import (
    SECONDS,
    Gate,
    approve,
    calls_of,
    items_of,
    other_worker,
    query,
    rested,
)
from tests.loopback.replies import Asked, Item, call, in_turn, reasoning, text
from tests.loopback.served import MODEL, served
from tests.loopback.server import Loopback

APIS = ["responses", "chat"]


@function_tool
async def price(item: str) -> str:
    """The price of an item."""
    return f"{item} costs {len(item)} euros"


async def replies_of(engine: Engine, run: Run) -> list[dict[str, Any]]:
    """The recorded replies of a run, in the order they came."""
    return await query(
        engine,
        "SELECT m.*, u.* FROM perdure.model_responses m JOIN perdure.request_usage_entries u"
        " ON u.run_id = m.run_id AND u.model_response_id = m.id"
        " WHERE m.run_id = %s::uuid ORDER BY m.position",
        run.id,
    )


async def assert_recorded(
    engine: Engine, run: Run, server: Loopback, *, chat: bool = False
) -> None:
    """What is recorded of the run's replies is what the server sent, each once."""
    rows = await replies_of(engine, run)
    assert [row["request_id"] for row in rows] == [one.request_id for one in server.answered]
    for row, answered in zip(rows, server.answered, strict=True):
        tokens = answered.reply.tokens
        assert row["requests"] == 1
        assert row["input_tokens"] == tokens.input
        assert row["cached_input_tokens"] == tokens.cached
        assert row["output_tokens"] == tokens.output
        assert row["reasoning_tokens"] == tokens.reasoning
        assert row["total_tokens"] == tokens.total
        assert row["model"] == MODEL
        if not chat:
            assert row["response_id"] == answered.reply.id
    sums = run.data["usage"]
    every = [answered.reply.tokens for answered in server.answered]
    assert sums["requests"] == len(every)
    assert sums["input_tokens"] == sum(one.input for one in every)
    assert sums["cached_input_tokens"] == sum(one.cached for one in every)
    assert sums["output_tokens"] == sum(one.output for one in every)
    assert sums["reasoning_tokens"] == sum(one.reasoning for one in every)
    assert sums["total_tokens"] == sum(one.total for one in every)


@pytest.mark.parametrize("api", APIS)
async def test_a_run_with_tools(database_url: str, api: str) -> None:
    calls = [call("price", "call_1", item="thé"), call("price", "call_2", item="一二三")]
    rule = in_turn(calls, calls, "All in all 6 euros merci.")
    agent = Agent(
        name="a",
        instructions="Be brief.",
        tools=[price],
        model_settings=ModelSettings(include_usage=True),
    )
    async with served(database_url, rule, agent, api=api) as (engine, server):
        run = await rested(engine, "a", "What do thé and 一二三 cost?")
        assert (run.status, run.output) == ("completed", "All in all 6 euros merci.")
        await assert_recorded(engine, run, server, chat=api == "chat")
        ledger = await calls_of(engine, run)
        items = await items_of(engine, run)
    assert [request.path for request in server.requests] == (
        ["/v1/responses"] * 2 if api == "responses" else ["/v1/chat/completions"] * 2
    )
    assert all(request.asked.body["stream"] for request in server.requests)
    first, last = (request.asked for request in server.requests)
    assert first.question == "What do thé and 一二三 cost?"
    assert first.tools == {"price"}
    assert last.outputs == {"call_1": "thé costs 3 euros", "call_2": "一二三 costs 3 euros"}
    assert ledger["call_2"]["arguments"] == {"item": "一二三"}
    assert {one["status"] for one in ledger.values()} == {"succeeded"}
    assert [item["type"] for item in items] == [
        "message",
        *["tool_call"] * 2,
        *["tool_call_output"] * 2,
        "message_output",
    ]
    # The body of an answer is read to its end, so that the connection serves the next request.
    assert server.connections == 1


@pytest.mark.parametrize("api", APIS)
async def test_agents_used_as_tools(database_url: str, api: str) -> None:
    def rule(asked: Asked) -> Sequence[Item]:
        if "price" in asked.tools:
            if not asked.outputs:
                return [call("price", "same", item=asked.question)]
            return [text(f"[{asked.outputs['same']}]")]
        if not asked.outputs:
            return [call("clerk", "one", input="tea"), call("clerk", "two", input="coffee")]
        return [text(" ".join(sorted(asked.outputs.values())))]

    clerk = Agent(
        name="clerk", model=MODEL, tools=[price], model_settings=ModelSettings(include_usage=True)
    )
    boss = Agent(
        name="boss",
        tools=[clerk.as_tool("clerk", "Asks the clerk.")],
        model_settings=ModelSettings(include_usage=True),
    )
    async with served(database_url, rule, boss, api=api) as (engine, server):
        run = await rested(engine, "boss")
        assert run.error is None
        assert run.output == "[coffee costs 6 euros] [tea costs 3 euros]"
        rows = await replies_of(engine, run)
        ledger = await calls_of(engine, run)
    assert sorted(ledger) == ["one", "one/same", "two", "two/same"]
    # Nested runs are not streamed.
    streamed = [bool(request.asked.body.get("stream")) for request in server.requests]
    assert sorted(streamed) == [False] * 4 + [True] * 2
    assert sorted(row["request_id"] for row in rows) == sorted(
        one.request_id for one in server.answered
    )
    spent = sum(one.reply.tokens.total for one in server.answered)
    assert run.data["usage"]["total_tokens"] == spent
    assert run.data["usage"]["requests"] == len(server.requests) == 6


THOUGHT = reasoning("The customer wants 3 euros back.", "sealed:gAAAAB一")


def _thinks(asked: Asked) -> Sequence[Item]:
    if not asked.outputs:
        return [THOUGHT, call("pay", "call_1", cents=300)]
    return [reasoning("It is paid.", "sealed:2"), text("Paid.")]


def _payer(paid: list[int]) -> Agent[Any]:
    @function_tool(needs_approval=True)
    async def pay(cents: int) -> str:
        paid.append(cents)
        return "paid"

    settings = ModelSettings(store=False, response_include=["reasoning.encrypted_content"])
    return Agent(name="a", tools=[pay], model_settings=settings)


async def test_reasoning_comes_back_as_it_was_after_an_approval(database_url: str) -> None:
    paid: list[int] = []
    async with served(database_url, _thinks, _payer(paid)) as (engine, server):
        run = await rested(engine, "a")
        assert run.status == "interrupted"
        assert paid == []
        run_id = run.id
        assert server.requests[0].asked.body["include"] == ["reasoning.encrypted_content"]
    # Another process, another server, nothing but the rows.
    async with served(database_url, _thinks, _payer(paid)) as (engine, server):
        run = await approve(engine, await engine.get(run_id))
        assert (run.status, run.output) == ("completed", "Paid.")
        items = await items_of(engine, run)
        [request] = server.requests
        usage = run.data["usage"]
    assert paid == [300]
    assert usage["requests"] == 2
    question, thought, called, answer = request.asked.items
    assert question["content"] == "hi"
    assert thought == THOUGHT
    assert (called["type"], called["call_id"]) == ("function_call", "call_1")
    assert (answer["type"], answer["output"]) == ("function_call_output", "paid")
    assert [item["type"] for item in items] == [
        "message",
        "reasoning",
        "tool_call",
        "tool_call_output",
        "reasoning",
        "message_output",
    ]
    assert items[1]["item"] == THOUGHT


def without(*fields: bytes) -> Callable[[bytes], bytes]:
    """A change that leaves these members out of what is sent, as lesser providers do."""

    def change(sent: bytes) -> bytes:
        for field in fields:
            sent = sent.replace(field, b"")
        return sent

    return change


ODD = {
    "complete": bytes,
    "no details of usage": without(
        b', "input_tokens_details": {"cached_tokens": 101, "cache_write_tokens": 0}',
        b', "output_tokens_details": {"reasoning_tokens": 11}',
    ),
    "no annotations": without(b'"annotations": [], "logprobs": [], '),
    "no status": without(b'"status": "completed", ', b'"status": "in_progress", '),
    "a status nobody knows": lambda sent: sent.replace(b'"completed"', b'"finito"'),
    "items nobody knows": lambda sent: sent.replace(
        b'"type": "reasoning"', b'"type": "daydream", "depth": [1, {"x": null}]'
    ),
}


@pytest.mark.parametrize("odd", sorted(ODD))
@pytest.mark.parametrize("whole", [False, True], ids=["streamed", "whole"])
async def test_a_reply_comes_out_of_the_ledger_as_it_went_in(
    database_url: str, odd: str, whole: bool
) -> None:
    """Another worker goes on from what is recorded; the model is asked what it would have been."""
    gates = [Gate(), Gate()]
    times: list[str] = []

    @effect("read")
    @function_tool
    async def wait(words: str) -> str:
        times.append(words)
        await gates[min(len(times) - 1, 1)].stop()
        return "waited"

    rule = in_turn(
        [reasoning("so", "sealed"), text("One moment."), call("wait", "call_1", words="thé")],
        "done",
    )
    inner = Agent(name="a", tools=[wait], model=MODEL)
    if whole:

        def outer_rule(asked: Asked) -> Sequence[Item]:
            if "ask" not in asked.tools:
                return rule(asked)
            return in_turn([call("ask", "outer", input="hi")], "done")(asked)

        agent = Agent(name="boss", tools=[inner.as_tool("ask", "Asks.")])
        serving = served(database_url, outer_rule, agent)
    else:
        agent = inner
        serving = served(database_url, rule, agent)
    async with serving as (engine, server):
        server.change = ODD[odd]
        run = await engine.start(agent.name, "hi")
        await gates[0].reached()
        async with other_worker(engine, database_url) as other:
            takeover = asyncio.create_task(other.run(UUID(run.id), 1))
            await gates[1].reached()
            # Nobody asked again for what is recorded.
            assert len(server.requests) == (2 if whole else 1)
            gates[1].open()
            assert await takeover == "completed"
        # One more turn after the one that was recorded, of each agent.
        assert len(server.requests) == (4 if whole else 2)
        last = server.requests[-2 if whole else -1].asked
        gates[0].open()
        await run.wait(SECONDS)
        assert (run.status, run.output, run.error) == ("completed", "done", None)
        rows = await replies_of(engine, run)
    assert times == ["thé", "thé"]
    assert last.outputs == {"call_1": "waited"}
    thought = last.items[1]
    assert (thought["type"], thought["encrypted_content"]) == (
        "daydream" if odd == "items nobody knows" else "reasoning",
        "sealed",
    )
    assert [row["requests"] for row in rows] == [1] * (4 if whole else 2)
