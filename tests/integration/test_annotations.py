"""What tools say of what they give, with the items it went into."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest
from agents import Agent, function_tool
from agents.testing import assistant_message

from perdure import Engine, PostgresSession, annotate, effect, tool_call
from perdure.engine import Run
from perdure.errors import ConfigurationError
from tests.engine_support import (
    SECONDS,
    Gate,
    RuleModel,
    approve,
    call,
    calls_of,
    error_of,
    eventually,
    items_of,
    other_worker,
    outputs_in,
    query,
    rested,
    running,
)


@effect("read")
@function_tool
def search(topic: str) -> str:
    """Search, in a thread."""
    sources = [{"title": topic, "page": 1.5}]
    annotate(sources=sources, asked=topic)
    sources.clear()
    annotate(asked=topic.upper())
    return f"found {topic}"


@effect("transactional")
@function_tool
async def book() -> str:
    """Book, in a transaction."""
    await tool_call().connection.execute("SELECT 1")
    annotate(booking=7)
    return "booked"


@function_tool(needs_approval=True)
async def pay() -> str:
    """Pay."""
    return "paid"


@effect("idempotent")
@function_tool
async def broken() -> str:
    """Say something and fail."""
    annotate(lost=True)
    raise ValueError("no")


def _expert(name: str = "expert") -> Agent[Any]:
    def rule(items: list[Any]) -> list[Any]:
        told = outputs_in(items)
        return [assistant_message("bees")] if "n1" in told else [call("search", "n1", topic="bees")]

    return Agent(name=name, model=RuleModel(rule), tools=[search])


async def _metadata(engine: Engine, run: Run) -> list[tuple[str, Any]]:
    """The metadata of a run's items, the same as of its session's."""
    items = [(item["type"], item["metadata"]) for item in await items_of(engine, run)]
    rows = await query(
        engine,
        "SELECT metadata FROM perdure.session_items WHERE run_id = %s ORDER BY seq",
        UUID(run.id),
    )
    assert [row["metadata"] for row in rows] == [metadata for _, metadata in items]
    return [(kind, metadata) for kind, metadata in items if metadata]


TEA = {"sources": [{"title": "tea", "page": 1.5}], "asked": "TEA"}
BEES = {"sources": [{"title": "bees", "page": 1.5}], "asked": "BEES"}


async def test_what_tools_say_is_on_their_outputs_and_on_the_answer(database_url: str) -> None:
    """Over an approval in between, from a nested agent's tools too, and on one answer each."""

    def rule(items: list[Any]) -> list[Any]:
        told = outputs_in(items)
        if "s1" not in told:
            return [call("search", "s1", topic="tea"), call("broken", "b1")]
        if "p1" not in told:
            return [call("pay", "p1")]
        if "a1" not in told:
            return [assistant_message("Tea it is."), call("ask_expert", "a1", input="bees?")]
        if "t1" not in told:
            return [call("book", "t1")]
        return [assistant_message("Done.")]

    tools: list[Any] = [search, pay, book, broken, _expert().as_tool("ask_expert", "Ask.")]
    agent = Agent(name="host", model=RuleModel(rule), tools=tools)
    async with running(database_url, agent) as engine:
        run = await rested(engine, "host", session_key="c")
        assert await _metadata(engine, run) == [("tool_call_output", TEA)]
        run = await approve(engine, run)
        assert run.status == "completed", run.data
        assert await _metadata(engine, run) == [
            ("tool_call_output", TEA),
            ("message_output", TEA),
            ("tool_call_output", BEES),
            ("tool_call_output", {"booking": 7}),
            ("message_output", {**BEES, "booking": 7}),
        ]
        # The model never sees it, and no more does who reads what the tool gave.
        assert (await calls_of(engine, run))["s1"]["output"] == "found tea"
        session = PostgresSession("c", engine=engine)
        assert not [item for item in await session.get_items() if "metadata" in item]


async def test_an_execution_that_begins_again_says_the_same_once(database_url: str) -> None:
    gate = Gate()

    async def rule(items: list[Any]) -> list[Any]:
        if "s1" not in outputs_in(items):
            return [call("search", "s1", topic="tea")]
        await gate.stop()
        return [assistant_message("Tea it is.")]

    model = RuleModel(rule)
    async with running(database_url, Agent(name="host", model=model, tools=[search])) as engine:
        run = await engine.start("host", "hi", session_key="c")
        await gate.reached()

        async def recorded() -> bool:
            return bool((await calls_of(engine, run))["s1"]["status"] == "succeeded")

        await eventually(recorded)
        async with other_worker(engine, database_url) as other:
            taking = asyncio.create_task(other.run(UUID(run.id), 1))

            async def asked_again() -> bool:
                return model.asked >= 3

            await eventually(asked_again)
            gate.open()
            assert await taking == "completed"
        expected = [("tool_call_output", TEA), ("message_output", TEA)]
        assert await _metadata(engine, run) == expected


@pytest.mark.parametrize(
    ("said", "error"),
    [({"a": {1, 2}}, "is no JSON"), ({"a": "x" * 100_001}, "100000 are allowed")],
)
async def test_what_cannot_be_kept_fails_the_call(
    database_url: str, said: dict[str, Any], error: str
) -> None:
    @effect("read")
    @function_tool(failure_error_function=None)
    async def search() -> str:
        annotate(**said)
        return "found"

    model = RuleModel(lambda items: [call("search", "s1")])
    async with running(database_url, Agent(name="host", model=model, tools=[search])) as engine:
        run = await engine.start("host", "hi")
        await run.wait(SECONDS)
        assert error in error_of(run)["message"]
        assert "Tool search of run" in error_of(run)["message"]


def test_outside_a_tool_it_says_where_it_belongs() -> None:
    with pytest.raises(ConfigurationError, match="outside a tool"):
        annotate(sources=[])
